//! A name with two addresses, the first of them dead: a second network card that is unplugged, IPv6 that leads nowhere. Broker, Modbus device
//! and OPC UA server are reached all the same.

mod support;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use plc_sim::bank::{Bank, BankConfig};
use plc_sim::faces::opcua_bank::{self, OpcuaBankConfig};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::eventually;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wire_broker::{Event, Trace, WireBroker};

/// Addresses of the name, in the order of the file.
const DEAD: [u8; 4] = [127, 0, 0, 31];
const ALIVE: [u8; 4] = [127, 0, 0, 32];
const NAME: &str = "twofold.plant.example";

/// A port that swallows whoever knocks at the dead address, and leads to `to` at the other. The queue of the first is full: what is given
/// has to be kept.
async fn twofold(to: SocketAddr) -> (u16, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((DEAD, 0).into()).unwrap();
    let dead = socket.listen(0).unwrap();
    let at = dead.local_addr().unwrap();
    let mut knocks = Vec::new();
    while let Ok(Ok(knock)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(at)).await {
        knocks.push(knock);
    }
    let alive = TcpListener::bind((std::net::IpAddr::from(ALIVE), at.port())).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = alive.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (at.port(), dead, knocks)
}

/// A command that runs with another table of names (hosts(5)), in a mount namespace of its own; or a clear word that the test is skipped.
fn with_names(names: &str, dir: &Path, test: &str) -> Option<Command> {
    let etc = dir.join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("hosts"), names).unwrap();
    std::fs::write(etc.join("nsswitch.conf"), "hosts: files\n").unwrap();
    std::fs::write(etc.join("host.conf"), "multi on\n").unwrap();
    let own_world = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", "mount --bind \"$0\" /etc && exec \"$@\""]).arg(&etc);
        command
    };
    let may = own_world().arg("true").stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !may {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {test}: nobody here may have a table of names of his own (unshare)");
    }
    may.then(own_world)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_modbus_and_opc_ua_are_reached_although_the_first_address_of_their_name_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let line = |ip: [u8; 4]| format!("{} {NAME}\n", std::net::Ipv4Addr::from(ip));
    let names = line(DEAD) + &line(ALIVE);
    let Some(mut run) = with_names(&names, dir.path(), "broker_modbus_and_opc_ua_are_reached") else { return };

    let trace = Trace::default();
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let rate = Duration::from_millis(200);
    let meter = Bank::start(BankConfig { units: 1, registers: 10, rate, ..BankConfig::default() }).await.unwrap();
    let press = opcua_bank::serve(OpcuaBankConfig { variables: 1, period: rate, ..OpcuaBankConfig::default() });
    let press = press.await.unwrap();
    let (mqtt, _kept_1, _knocks_1) = twofold(([127, 0, 0, 1], broker.port).into()).await;
    let (modbus, _kept_2, _knocks_2) = twofold(meter.addr).await;
    let (opcua, _kept_3, _knocks_3) = twofold(press.addr).await;
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:{}\"\n\
         [mqtt]\nbroker = \"{NAME}:{mqtt}\"\n\
         [[line]]\nname = \"meters\"\nmodbus = \"{NAME}:{modbus}\"\n\
         [[line.device]]\nname = \"meter\"\ncell = \"c\"\ntags = \"meter.csv\"\n\
         [[line]]\nname = \"presses\"\nopcua = \"opc.tcp://{NAME}:{opcua}/\"\nsecurity = \"none\"\n\
         [[line.device]]\nname = \"press\"\ncell = \"c\"\nprofile = \"press.toml\"\n",
        support::free_port()
    );
    std::fs::write(dir.path().join("agent.toml"), text).unwrap();
    std::fs::write(dir.path().join("meter.csv"), "name,address,type\nr,input:0,u16\n").unwrap();
    let node = format!("[[tag]]\nname = \"v\"\nnode = \"nsu={};s=V.0\"\n", opcua_bank::NAMESPACE);
    std::fs::write(dir.path().join("press.toml"), node).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    run.arg(env!("CARGO_BIN_EXE_edge-agent")).args(["run", "agent.toml"]).current_dir(dir.path());
    let _agent = Running(run.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    for part in ["/meter/r", "/press/v"] {
        let came = async || {
            let trace = trace.lock().unwrap();
            trace.iter().any(|e| {
                let Event::Publish(said) = &e.event else { return false };
                let payload = String::from_utf8_lossy(&said.payload);
                String::from_utf8_lossy(&said.topic).ends_with(part) && payload.contains("\"quality\":\"good\"")
            })
        };
        let in_time = eventually(Duration::from_secs(40), came).await;
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(in_time, "no good value of {part}: {log}\n{:?}", trace.lock().unwrap());
    }
}
