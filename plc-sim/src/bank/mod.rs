//! Banks: many devices that only measure, for load tests and for tests of drivers.
//!
//! ```text
//!   signal (pure: unit, pair, tick)  ──┐
//!   script (what goes wrong, when)   ──┼──>  device ──>  Bank                Modbus, many units on one port
//!   units  (what was written)        ──┘└────────────>  faces::opcua_bank   OPC UA, a row of variables
//! ```
//!
//! Every value can be checked by whoever reads it: [`signal::value`] tells it from unit, pair and tick, and the tick is there to read.

mod device;
pub mod script;
pub mod signal;
mod units;

pub use device::{BankDevice, Report, Shape, UnitCounters};
pub use script::{Fault, FaultScript, Kind};
pub use units::STAMP_WORDS;

use crate::modbus::{Framing, Options, listen};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What to serve.
#[derive(Clone, Debug)]
pub struct BankConfig {
    /// Where; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The number of the first unit.
    pub first_unit: u8,
    /// How many units.
    pub units: u16,
    /// Holding registers, input registers, coils and discrete inputs, each so many. Eight more input registers hold the time of the last
    /// change (milliseconds, `u64`) and the tick (`u64`).
    pub registers: u16,
    /// How often all values change.
    pub rate: Duration,
    /// How requests are framed.
    pub framing: Framing,
    /// Connections served at once; more wait.
    pub connections_max: usize,
    /// A client that says nothing for this long is let go; `None` for never.
    pub idle_max: Option<Duration>,
    /// What goes wrong.
    pub faults: FaultScript,
}

impl Default for BankConfig {
    fn default() -> Self {
        BankConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            first_unit: 1,
            units: 100,
            registers: 2000,
            rate: Duration::from_secs(1),
            framing: Framing::Tcp,
            connections_max: 256,
            idle_max: Some(Duration::from_secs(600)),
            faults: FaultScript::default(),
        }
    }
}

/// A running bank; dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Bank {
    /// Where it listens.
    pub addr: SocketAddr,
    device: Arc<BankDevice>,
    tasks: [JoinHandle<()>; 2],
}

impl Bank {
    /// Starts a bank. Errors say what cannot be, or name the address.
    pub async fn start(config: BankConfig) -> Result<Bank, String> {
        let BankConfig { first_unit, units, registers, rate, .. } = config;
        let device = Arc::new(BankDevice::new(Shape { first_unit, units, registers, rate }, config.faults)?);
        let listener =
            TcpListener::bind(config.listen).await.map_err(|e| format!("cannot listen on {}: {e}", config.listen))?;
        let addr = listener.local_addr().map_err(|e| e.to_string())?;
        let BankConfig { framing, connections_max, idle_max, .. } = config;
        let options = Options { framing, connections_max, idle_max };
        let tasks =
            [tokio::spawn(listen(device.clone(), listener, options)), tokio::spawn(reboot_when_told(device.clone()))];
        Ok(Bank { addr, device, tasks })
    }

    /// Another script, from now on. Faults of OPC UA are refused.
    pub fn set_faults(&self, faults: impl Into<FaultScript>) -> Result<(), String> {
        self.device.set_faults(faults.into())
    }

    /// The tick it is at.
    pub fn tick(&self) -> u64 {
        self.device.tick()
    }

    /// What a unit has been asked.
    pub fn counters(&self, unit: u8) -> Option<UnitCounters> {
        self.device.counters(unit)
    }

    /// What the bank has done so far.
    pub fn report(&self) -> Report {
        self.device.report()
    }

    /// The bank without its socket, to serve it on another stream as well.
    pub fn device(&self) -> &Arc<BankDevice> {
        &self.device
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Reboots when the script says so, once for each `reboot` in it.
async fn reboot_when_told(device: Arc<BankDevice>) {
    let mut changes = device.script();
    loop {
        let armed = changes.borrow_and_update().clone();
        let mut reboots: Vec<_> = armed.script.faults.iter().filter(|f| f.kind == Kind::Reboot).collect();
        reboots.sort_by_key(|f| f.at);
        let in_turn = async {
            for fault in reboots {
                tokio::time::sleep(fault.at.saturating_sub(armed.since.elapsed())).await;
                device.reboot(|unit| fault.concerns(unit));
            }
            std::future::pending().await
        };
        tokio::select! {
            () = in_turn => {}
            changed = changes.changed() => if changed.is_err() { return }
        }
    }
}
