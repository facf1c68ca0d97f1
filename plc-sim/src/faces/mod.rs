//! The plant on the network: one task steps it, two servers show it.

pub mod modbus;
pub mod opcua;
pub mod opcua_bank;
mod opcua_front;
mod opcua_security;

use crate::config::PlantConfig;
use crate::plant::{Plant, Truth};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The scan time of the controllers.
pub const SCAN: Duration = Duration::from_millis(10);

/// At most this much plant time is caught up at once after the host has been busy.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);

/// A plant shared by its faces. The lock is held for microseconds and never across an await.
#[derive(Clone, Debug)]
pub struct SharedPlant(Arc<Mutex<Plant>>);

impl SharedPlant {
    /// Shares a plant.
    pub fn new(plant: Plant) -> SharedPlant {
        SharedPlant(Arc::new(Mutex::new(plant)))
    }

    /// The plant, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Plant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the controllers listen.
#[derive(Clone, Copy, Debug)]
pub struct SimAddresses {
    /// PLCs of aisles, hall and robots, Modbus TCP.
    pub modbus: SocketAddr,
    /// PLCs of cells, OPC UA.
    pub opcua: SocketAddr,
}

/// A running simulation; dropping it stops it.
#[derive(Debug)]
pub struct Sim {
    /// The plant.
    pub plant: SharedPlant,
    /// Where the controllers listen.
    pub addresses: SimAddresses,
    tasks: Vec<JoinHandle<()>>,
}

/// What a simulation keeps on disk.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// The retentive memory: where the loads are. Read at the start if it exists, written when a load has moved.
    pub state: Option<PathBuf>,
    /// Keys and certificates of the OPC UA server.
    pub pki_dir: Option<PathBuf>,
    /// Endpoints with security beside the one without.
    pub secure: bool,
    /// Whether any client certificate will do; otherwise it must be in `trusted/` of the PKI folder.
    pub trust_all: bool,
}

impl Sim {
    /// Starts stepping and listening. Errors name the address or file.
    pub async fn start(config: PlantConfig, seed: u64, boot: u16, keep: Keep) -> Result<Sim, String> {
        let listen = config.listen.clone();
        modbus::units(&config.plan)?;
        let mut plant = Plant::new(config, seed, boot)?;
        if let Some(path) = &keep.state
            && let Ok(text) = std::fs::read_to_string(path)
        {
            let at = |e: String| format!("{}: {e}", path.display());
            let snapshot: Vec<u32> = serde_json::from_str(&text).map_err(|e| at(e.to_string()))?;
            plant.restore(&snapshot).map_err(at)?;
        }
        let plant = SharedPlant::new(plant);
        let bind = async |at: SocketAddr| {
            let listener = TcpListener::bind(at).await.map_err(|e| format!("cannot listen on {at}: {e}"))?;
            let bound = listener.local_addr().map_err(|e| e.to_string())?;
            Ok::<_, String>((listener, bound))
        };
        let (modbus, modbus_at) = bind(listen.modbus).await?;
        let (opcua, opcua_at) = bind(listen.opcua).await?;
        let cell = opcua::serve(plant.clone(), opcua, opcua_at, &keep)?;
        let tasks = vec![
            tokio::spawn(step_forever(plant.clone(), keep.state)),
            tokio::spawn(modbus::serve(plant.clone(), modbus)),
            tokio::spawn(cell),
        ];
        Ok(Sim { plant, addresses: SimAddresses { modbus: modbus_at, opcua: opcua_at }, tasks })
    }

    /// What really happened so far.
    pub fn truth(&self) -> Truth {
        self.plant.lock().truth()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Steps the plant in scans of [`SCAN`], as many as real time asks for.
async fn step_forever(plant: SharedPlant, state: Option<PathBuf>) {
    let speed = plant.lock().config().speed;
    let mut ticks = tokio::time::interval(SCAN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut kept = 0;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let mut due = (now - last).min(CATCH_UP_MAX);
        last = now;
        let changed = {
            let mut plant = plant.lock();
            while due > Duration::ZERO {
                let dt = due.min(SCAN);
                plant.step(dt.as_secs_f64() * speed);
                due -= dt;
            }
            let changes = plant.loads().changes();
            (changes != kept && state.is_some()).then(|| (changes, plant.loads().snapshot()))
        };
        if let (Some((changes, snapshot)), Some(path)) = (changed, &state) {
            kept = changes;
            if let Err(e) = write_state(path, &snapshot) {
                tracing::error!("cannot keep the state in {}: {e}", path.display());
            }
        }
    }
}

/// Writes beside the file and renames, so that a kill leaves the old state or the new one.
fn write_state(path: &std::path::Path, snapshot: &[u32]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(snapshot)?)?;
    std::fs::rename(beside, path)
}
