//! A bank on OPC UA: `V.0`, `V.1`, .. of one server, each a `Double` that moves at every tick (see [`crate::bank::signal`]), and beside
//! them `W.0`, `W.1`, .., which are what they were last written.
//!
//! ```text
//!   script ──> Mode (down? limits? drops so far?) ──changed──> the server ends and another starts on the same port
//!     └──────> bad variables ──┐
//!   beat ──> values of a tick ─┴─> set_values, in one call ──> subscriptions
//! ```
//!
//! Limits of a running server cannot be changed, so a fault that needs others starts the server anew; between two servers the port
//! stays open, and clients that connect meanwhile wait. Only `restart` leaves it closed.

use super::opcua_front;
use super::opcua_security::endpoints;
use crate::bank::signal::{self, Beat, RATE_MIN};
use crate::bank::{FaultScript, Kind};
use opcua::server::address_space::{AccessLevel, Variable};
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{SimpleNodeManager, simple_node_manager};
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, Server, ServerBuilder, ServerEndpoint, ServerHandle, ServerUserToken};
use opcua::types::{DataTypeId, DataValue, NodeId, StatusCode, Variant};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Namespace of the variables; their identifiers are `V.0`, `V.1`, .., and `W.0`, `W.1`, .. of those that can be written.
pub const NAMESPACE: &str = "urn:lightsout:plc-sim:bank";
/// The server's application URI, also in its certificate. It is a namespace too, so it must not be [`NAMESPACE`].
pub const APPLICATION_URI: &str = "urn:lightsout:plc-sim";

/// A server that was told to end is given so long.
const END_MAX: Duration = Duration::from_secs(5);
/// A port that another socket still holds is asked for again after this.
const BIND_AGAIN: Duration = Duration::from_millis(50);

/// What to serve.
#[derive(Clone, Debug)]
pub struct OpcuaBankConfig {
    /// Where; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How many variables.
    pub variables: u16,
    /// How many more that can be written.
    pub writable: u16,
    /// How often all of them change.
    pub period: Duration,
    /// Endpoints with security beside the one without.
    pub secure: bool,
    /// Whether any client certificate will do; otherwise it must be in `trusted/` of the PKI folder.
    pub trust_all: bool,
    /// Keys and certificates, made once if they are not there; `None` for a folder in the temporary directory, shared by all such banks.
    pub pki_dir: Option<PathBuf>,
    /// Whether clients need no name.
    pub anonymous: bool,
    /// Names and passwords.
    pub users: Vec<(String, String)>,
    /// What goes wrong.
    pub faults: FaultScript,
}

impl Default for OpcuaBankConfig {
    fn default() -> Self {
        OpcuaBankConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            variables: 100,
            writable: 0,
            period: Duration::from_secs(1),
            secure: false,
            trust_all: false,
            pki_dir: None,
            anonymous: true,
            users: Vec::new(),
            faults: FaultScript::default(),
        }
    }
}

/// A running bank; dropping it stops it.
#[derive(Debug)]
pub struct OpcuaBank {
    /// Where it listens.
    pub addr: SocketAddr,
    beat: Beat,
    pki_dir: PathBuf,
    script: watch::Sender<Script>,
    starts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Script {
    since: Instant,
    faults: FaultScript,
}

impl OpcuaBank {
    /// The address for clients.
    pub fn url(&self) -> String {
        format!("opc.tcp://{}/", reachable(self.addr))
    }

    /// The tick it is at. The value of a variable is [`value`] of it.
    pub fn tick(&self) -> u64 {
        self.beat.tick(Instant::now())
    }

    /// How many servers have been started: one, and one more for each fault that needed another.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// The server's certificate, which a client that trusts stored certificates only must have.
    pub fn certificate(&self) -> PathBuf {
        self.pki_dir.join("own/cert.der")
    }

    /// Another script, from now on. Faults of Modbus are refused.
    pub fn set_faults(&self, faults: impl Into<FaultScript>) -> Result<(), String> {
        let faults = checked(faults.into())?;
        self.script.send_replace(Script { since: Instant::now(), faults });
        Ok(())
    }
}

impl Drop for OpcuaBank {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The value of variable `V.n` at a tick.
pub fn value(variable: u16, tick: u64) -> f64 {
    f64::from(signal::value(0, variable, tick))
}

fn checked(faults: FaultScript) -> Result<FaultScript, String> {
    match faults.faults.iter().find(|f| !f.kind.is_opcua()) {
        Some(f) => Err(format!("{:?} is no fault of an OPC UA bank", f.kind)),
        None => Ok(faults),
    }
}

fn reachable(at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, at.port())) } else { at }
}

/// Starts a bank; it serves until it is dropped. With `secure` and an empty PKI folder this makes a key pair first, which takes seconds.
pub async fn serve(config: OpcuaBankConfig) -> Result<OpcuaBank, String> {
    let faults = checked(config.faults.clone())?;
    if config.period < RATE_MIN {
        return Err(format!("period = {:?} must be {RATE_MIN:?} at least", config.period));
    }
    let listener = std::net::TcpListener::bind(config.listen)
        .map_err(|e| format!("cannot listen on {}: {e}", config.listen))
        .and_then(|l| l.set_nonblocking(true).map(|()| l).map_err(|e| e.to_string()))?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let pki_dir = config.pki_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("lightsout-plc-sim-bank-pki"));
    let beat = Beat::start(config.period);
    let (script, changes) = watch::channel(Script { since: Instant::now(), faults });
    let starts = Arc::new(AtomicU64::new(0));
    let mut keeper =
        Keeper { config, addr, pki_dir: pki_dir.clone(), beat, changes, starts: starts.clone(), dropped: 0 };
    let mode = keeper.mode();
    keeper.dropped = mode.drops;
    let first = if mode.down { None } else { Some(keeper.build(mode.limits).await?) };
    let task = tokio::spawn(keeper.keep(listener, mode, first));
    Ok(OpcuaBank { addr, beat, pki_dir, script, starts, task })
}

/// What the script asks of the server as a whole.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Mode {
    down: bool,
    limits: Limits,
    drops: usize,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Limits {
    /// Nodes per Read, items per CreateMonitoredItems.
    per_call: Option<(usize, usize)>,
    items: Option<usize>,
}

impl Mode {
    fn at(script: &Script, now: Instant) -> Mode {
        let since = now.saturating_duration_since(script.since);
        let mut mode = Mode { down: false, limits: Limits::default(), drops: 0 };
        for fault in &script.faults.faults {
            match fault.kind {
                Kind::DropSession if fault.at <= since => mode.drops += 1,
                _ if !fault.is_on(since) => {}
                Kind::Restart => mode.down = true,
                Kind::LowLimits { max_nodes_per_read: r, max_monitored_items_per_call: m } => {
                    mode.limits.per_call = Some((r, m));
                }
                Kind::TooManyItems { count } => mode.limits.items = Some(count),
                _ => {}
            }
        }
        mode
    }
}

/// When the script next turns something on or off.
fn next_turn(script: &Script, now: Instant) -> Option<Instant> {
    let turns = script.faults.faults.iter().flat_map(|f| [Some(f.at), f.lasting.map(|l| f.at.saturating_add(l))]);
    turns.flatten().filter_map(|d| script.since.checked_add(d)).filter(|turn| *turn > now).min()
}

/// Keeps one server alive after the other.
struct Keeper {
    config: OpcuaBankConfig,
    addr: SocketAddr,
    pki_dir: PathBuf,
    beat: Beat,
    changes: watch::Receiver<Script>,
    starts: Arc<AtomicU64>,
    /// Drops of the present script that have been done.
    dropped: usize,
}

struct Built {
    server: Server,
    handle: ServerHandle,
    manager: Arc<SimpleNodeManager>,
    nodes: Vec<NodeId>,
}

impl Keeper {
    fn mode(&self) -> Mode {
        Mode::at(&self.changes.borrow(), Instant::now())
    }

    async fn keep(mut self, listener: std::net::TcpListener, mut mode: Mode, mut next: Option<Built>) {
        let mut listener = Some(listener);
        loop {
            if mode.down {
                listener = None;
                self.turn(mode).await;
            } else {
                let port = match listener.take() {
                    Some(listener) => listener,
                    None => self.bind_again().await,
                };
                let built = match next.take() {
                    Some(built) => Ok(built),
                    None => self.build(mode.limits).await,
                };
                match (built, port.try_clone().and_then(TcpListener::from_std)) {
                    (Ok(built), Ok(of_server)) => self.run(built, of_server, mode).await,
                    (Err(e), _) => tracing::error!("the bank cannot start again: {e}"),
                    (_, Err(e)) => tracing::error!("the bank cannot listen again: {e}"),
                }
                listener = Some(port);
            }
            mode = self.mode();
            self.dropped = mode.drops;
        }
    }

    async fn bind_again(&self) -> std::net::TcpListener {
        loop {
            match std::net::TcpListener::bind(self.addr).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(BIND_AGAIN).await,
            }
        }
    }

    /// Serves until the script asks for another mode; then all connections have been closed.
    async fn run(&mut self, built: Built, listener: TcpListener, mode: Mode) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let Built { server, handle, manager, nodes } = built;
        let mut server = Box::pin(opcua_front::serve(server, &handle, listener));
        let update = update_forever(self.beat, self.changes.clone(), &handle, manager, &nodes);
        tokio::select! {
            _ = &mut server => return,
            () = update => return,
            () = self.turn(mode) => {}
        }
        handle.cancel();
        let _ = tokio::time::timeout(END_MAX, server).await;
    }

    /// Waits until the script asks for something else than `mode`.
    async fn turn(&mut self, mode: Mode) {
        loop {
            let now = Instant::now();
            let next = {
                let script = self.changes.borrow_and_update();
                let wanted = Mode::at(&script, now);
                if (wanted.down, wanted.limits) != (mode.down, mode.limits) || wanted.drops > self.dropped {
                    return;
                }
                next_turn(&script, now)
            };
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => match changed {
                    Ok(()) => self.dropped = 0,
                    Err(_) => std::future::pending().await, // the bank is being dropped, and this task with it
                },
                () = due => {}
            }
        }
    }

    /// Builds a server on a thread that may take its time: keys are made there.
    async fn build(&self, limits: Limits) -> Result<Built, String> {
        let (config, addr, pki_dir) = (self.config.clone(), self.addr, self.pki_dir.clone());
        let tick = self.beat.tick(Instant::now());
        tokio::task::spawn_blocking(move || build(&config, addr, pki_dir, limits, tick))
            .await
            .map_err(|e| e.to_string())?
    }
}

fn build(
    config: &OpcuaBankConfig,
    addr: SocketAddr,
    pki_dir: PathBuf,
    limits: Limits,
    tick: u64,
) -> Result<Built, String> {
    let at = reachable(addr);
    let mut builder = ServerBuilder::new()
        .application_name("Lightsout plc-sim bank")
        .application_uri(APPLICATION_URI)
        .product_uri("urn:lightsout:plc-sim")
        .host(at.ip().to_string())
        .port(at.port())
        .discovery_urls(vec![format!("opc.tcp://{at}/")])
        .create_sample_keypair(config.secure)
        .trust_client_certs(config.trust_all)
        .pki_dir(pki_dir)
        .diagnostics_enabled(false)
        .subscription_poll_interval_ms(20)
        .max_sessions(100)
        .max_array_length(200_000)
        .max_message_size(64 * 1024 * 1024)
        .max_chunk_count(1024)
        .with_node_manager(simple_node_manager(
            NamespaceMetadata { namespace_uri: NAMESPACE.into(), ..NamespaceMetadata::default() },
            "bank",
        ));
    let mut tokens = Vec::new();
    if config.anonymous {
        tokens.push(ANONYMOUS_USER_TOKEN_ID.to_string());
    }
    for (name, password) in &config.users {
        tokens.push(name.clone());
        builder = builder.add_user_token(name, ServerUserToken::user_pass(name, password));
    }
    for (name, policy, mode) in endpoints(config.secure) {
        builder = builder.add_endpoint(name, ServerEndpoint::new("/", policy, mode, &tokens));
    }
    set_limits(builder.limits_mut(), limits);

    let (server, handle) = builder.build()?;
    let manager = handle.node_managers().get_of_type::<SimpleNodeManager>().ok_or("no node manager")?;
    let namespace = handle.get_namespace_index(NAMESPACE).ok_or("no namespace")?;
    let nodes = add_nodes(&manager, namespace, config.variables, tick);
    add_writable(&manager, namespace, config.writable);
    Ok(Built { server, handle, manager, nodes })
}

/// Generous, except where a fault asks for less. A notification of more than 2000 values becomes too long for common clients.
fn set_limits(server: &mut opcua::server::Limits, limits: Limits) {
    server.subscriptions.min_publishing_interval_ms = 10.0;
    server.subscriptions.min_sampling_interval_ms = 10.0;
    server.subscriptions.max_monitored_items_per_sub = limits.items.unwrap_or(0);
    server.subscriptions.max_monitored_item_queue_size = 100;
    server.subscriptions.max_notifications_per_publish = 2000;
    server.subscriptions.max_queued_notifications = 200;
    if let Some((read, items)) = limits.per_call {
        server.operational.max_nodes_per_read = read;
        server.operational.max_monitored_items_per_call = items;
    }
}

fn add_nodes(manager: &Arc<SimpleNodeManager>, namespace: u16, variables: u16, tick: u64) -> Vec<NodeId> {
    let nodes: Vec<NodeId> = (0..variables).map(|n| NodeId::new(namespace, format!("V.{n}"))).collect();
    let space = manager.address_space();
    let mut space = space.write();
    let folder = NodeId::new(namespace, "Bank");
    space.add_folder(&folder, "Bank", "Bank", &NodeId::objects_folder_id());
    let all = nodes.iter().zip(0u16..).map(|(id, n)| {
        let name = format!("V.{n}");
        let mut variable = Variable::new(id, name.as_str(), name.as_str(), value(n, tick));
        variable.set_data_type(DataTypeId::Double);
        variable
    });
    space.add_variables(all.collect(), &folder);
    nodes
}

/// Variables that are what they were last written; a server that is started anew forgets it.
fn add_writable(manager: &SimpleNodeManager, namespace: u16, count: u16) {
    let access = AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE;
    let all = (0..count).map(|n| {
        let name = format!("W.{n}");
        let mut variable = Variable::new(&NodeId::new(namespace, name.as_str()), name.as_str(), name.as_str(), 0f64);
        variable.set_data_type(DataTypeId::Double);
        variable.set_access_level(access);
        variable.set_user_access_level(access);
        variable
    });
    let space = manager.address_space();
    space.write().add_variables(all.collect(), &NodeId::new(namespace, "Bank"));
}

/// Shows each tick's values when it begins, and the same again when the script turns.
async fn update_forever(
    beat: Beat,
    mut changes: watch::Receiver<Script>,
    handle: &ServerHandle,
    manager: Arc<SimpleNodeManager>,
    nodes: &[NodeId],
) {
    loop {
        let now = Instant::now();
        let tick = beat.tick(now);
        let script = changes.borrow_and_update().clone();
        let since = now.saturating_duration_since(script.since);
        let bad = |n: u16| {
            script.faults.faults.iter().any(|f| match f.kind {
                Kind::BadNode { start, count } => f.is_on(since) && n.checked_sub(start).is_some_and(|n| n < count),
                _ => false,
            })
        };
        let values = nodes.iter().zip(0u16..).map(|(id, n)| {
            let mut data = DataValue::new_now(Variant::from(value(n, tick)));
            if bad(n) {
                data.status = Some(StatusCode::BadSensorFailure);
            }
            (id, None, data)
        });
        if let Err(status) = manager.set_values(handle.subscriptions(), values) {
            tracing::error!("cannot update the bank's nodes: {status}");
        }
        let next = beat.begins(tick + 1).min(next_turn(&script, now).unwrap_or(beat.begins(tick + 1)));
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            changed = changes.changed() => if changed.is_err() { return }
        }
    }
}
