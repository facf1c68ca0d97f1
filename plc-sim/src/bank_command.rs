//! `plc-sim bank`: from arguments to a bank on Modbus or OPC UA, and its report at the end.

use crate::{report, told_to_end};
use clap::{Args, ValueEnum};
use plc_sim::bank::{Bank, BankConfig, FaultScript};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use plc_sim::modbus::Framing;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct BankArgs {
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Port to listen on; 0 takes any free one [default: 5020, with --opcua 4840]
    #[arg(long)]
    port: Option<u16>,
    /// What goes wrong: a TOML file
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Decides every chance, instead of the seed in the file
    #[arg(long)]
    seed: Option<u64>,
    /// Print the report at the end as one JSON object
    #[arg(long)]
    report_json: bool,

    /// Units on the port
    #[arg(long, default_value_t = 100)]
    units: u16,
    /// The number of the first unit
    #[arg(long, default_value_t = 1)]
    first_unit: u8,
    /// Registers of each table in each unit, and as many coils and discrete inputs
    #[arg(long, default_value_t = 2000)]
    registers: u16,
    /// How often the values change
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    rate: Duration,
    /// Connections served at once; more wait
    #[arg(long, default_value_t = 256)]
    connections_max: usize,
    /// How requests are framed
    #[arg(long, value_enum, default_value_t = FramingArg::Tcp)]
    framing: FramingArg,

    /// Serve variables on OPC UA instead of units on Modbus
    #[arg(long)]
    opcua: bool,
    /// OPC UA: how many variables
    #[arg(long, default_value_t = 5000, requires = "opcua")]
    variables: u16,
    /// OPC UA: how many more that can be written, W.0, W.1, ..
    #[arg(long, default_value_t = 10, requires = "opcua")]
    writable: u16,
    /// OPC UA: how often the variables change
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, requires = "opcua")]
    period: Duration,
    /// OPC UA: endpoints with security beside the one without
    #[arg(long, requires = "opcua")]
    secure: bool,
    /// OPC UA: trust any client certificate
    #[arg(long, requires = "opcua")]
    trust_all: bool,
    /// OPC UA: keys and certificates, made once if they are not there
    #[arg(long, requires = "opcua")]
    pki_dir: Option<PathBuf>,
    /// OPC UA: let in this user, as name:password; may be given several times
    #[arg(long, value_parser = user, requires = "opcua")]
    user: Vec<(String, String)>,
    /// OPC UA: let in nobody without a name
    #[arg(long, requires = "user")]
    no_anonymous: bool,
}

impl BankArgs {
    pub(crate) fn is_opcua(&self) -> bool {
        self.opcua
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FramingArg {
    /// Modbus TCP
    Tcp,
    /// Modbus RTU frames over TCP
    RtuOverTcp,
}

fn user(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() => Ok((name.into(), password.into())),
        _ => Err("a user is name:password".into()),
    }
}

pub(crate) async fn run(args: BankArgs) -> Result<(), String> {
    let faults = faults(&args)?;
    if args.opcua { run_opcua(args, faults).await } else { run_modbus(args, faults).await }
}

fn faults(args: &BankArgs) -> Result<FaultScript, String> {
    let mut script = FaultScript::default();
    if let Some(path) = &args.faults {
        let at = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| at(e.to_string()))?;
        script = FaultScript::from_toml(&text).map_err(at)?;
    }
    script.seed = args.seed.unwrap_or(script.seed);
    Ok(script)
}

async fn run_modbus(args: BankArgs, faults: FaultScript) -> Result<(), String> {
    let (framing, scheme) = match args.framing {
        FramingArg::Tcp => (Framing::Tcp, "modbus-tcp"),
        FramingArg::RtuOverTcp => (Framing::RTU, "modbus-rtu-over-tcp"),
    };
    let bank = Bank::start(BankConfig {
        listen: SocketAddr::new(args.listen, args.port.unwrap_or(5020)),
        first_unit: args.first_unit,
        units: args.units,
        registers: args.registers,
        rate: args.rate,
        framing,
        connections_max: args.connections_max,
        faults,
        ..BankConfig::default()
    })
    .await?;
    let end = told_to_end()?;
    let last_unit = u16::from(args.first_unit) + args.units - 1;
    let (units, registers) = (format!("{}..{last_unit}", args.first_unit), format!("0..{}", args.registers - 1));
    println!("bank  {scheme}://{}  units {units}  registers {registers}", bank.addr);
    end.await;
    report::print(args.report_json, &report::of_the_bank(&bank.report()));
    Ok(())
}

async fn run_opcua(args: BankArgs, faults: FaultScript) -> Result<(), String> {
    let bank = opcua_bank::serve(OpcuaBankConfig {
        listen: SocketAddr::new(args.listen, args.port.unwrap_or(4840)),
        variables: args.variables,
        writable: args.writable,
        period: args.period,
        secure: args.secure,
        trust_all: args.trust_all,
        pki_dir: args.pki_dir,
        anonymous: !args.no_anonymous,
        users: args.user,
        faults,
    })
    .await?;
    let end = told_to_end()?;
    let variables = format!("V.0..V.{}", args.variables.saturating_sub(1));
    println!("bank  {}  variables {variables}  namespace {}", bank.url(), opcua_bank::NAMESPACE);
    end.await;
    let lines = [
        ("variables", "variables", json!(args.variables)),
        ("ticks", "ticks", json!(bank.tick())),
        ("starts", "servers started", json!(bank.starts())),
    ];
    report::print(args.report_json, &lines);
    Ok(())
}
