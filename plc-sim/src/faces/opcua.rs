//! The PLCs of robot cells: an OPC UA server with a folder for each. Command and status blocks are `UInt16[]` nodes, written and read
//! as a whole; beside them stand a PackML-like state, the program number, counters and a few process values that move.
//! The folder of the station `cell-1` is `Cell-1`, its status block `Cell-1.StatusBlock`.

use super::opcua_security::endpoints;
use super::{Keep, SharedPlant, opcua_front};
use control_core::units::MachineId;
use device_drivers::block::{COMMAND_WORDS, command};
use opcua::server::address_space::{AccessLevel, Variable};
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{SimpleNodeManager, simple_node_manager};
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerEndpoint, SubscriptionCache};
use opcua::types::{DataTypeId, DataValue, NodeId, StatusCode, Variant};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Namespace of the cell's nodes.
pub const NAMESPACE: &str = "urn:lightsout:plc-sim:cell";

/// How often the nodes are brought up to date.
const UPDATE: Duration = Duration::from_millis(50);

/// A cell's nodes, in the order of [`values`].
const NODES: [(&str, DataTypeId); 10] = [
    ("StatusBlock", DataTypeId::UInt16),
    ("State", DataTypeId::Int32),
    ("Program", DataTypeId::UInt16),
    ("PartsDone", DataTypeId::UInt32),
    ("Load", DataTypeId::UInt32),
    ("Busy", DataTypeId::Boolean),
    ("MotorCurrent", DataTypeId::Double),
    ("MotorTemperature", DataTypeId::Double),
    ("AirPressure", DataTypeId::Double),
    ("UpTime", DataTypeId::Double),
];
const COMMAND_NODE: &str = "CommandBlock";

/// A cell and its nodes.
struct Cell {
    machine: MachineId,
    nodes: Vec<NodeId>,
}

/// Prepares the server on a bound listener; the future serves until it is dropped.
pub fn serve(
    plant: SharedPlant,
    listener: TcpListener,
    at: SocketAddr,
    keep: &Keep,
) -> Result<impl Future<Output = ()> + Send + 'static, String> {
    let users = [ANONYMOUS_USER_TOKEN_ID.to_string()];
    let mut builder = ServerBuilder::new()
        .application_name("Lightsout plc-sim")
        .application_uri("urn:lightsout:plc-sim")
        .product_uri("urn:lightsout:plc-sim")
        .host(at.ip().to_string())
        .port(at.port())
        .discovery_urls(vec![format!("opc.tcp://{at}/")])
        .create_sample_keypair(keep.secure)
        .trust_client_certs(keep.trust_all)
        .pki_dir(keep.pki_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("lightsout-plc-sim-pki")))
        .diagnostics_enabled(false)
        .subscription_poll_interval_ms(20)
        .with_node_manager(simple_node_manager(
            NamespaceMetadata { namespace_uri: NAMESPACE.into(), ..NamespaceMetadata::default() },
            "cell",
        ));
    for (name, policy, mode) in endpoints(keep.secure) {
        builder = builder.add_endpoint(name, ServerEndpoint::new("/", policy, mode, &users));
    }
    builder.limits_mut().subscriptions.min_publishing_interval_ms = 50.0;
    builder.limits_mut().subscriptions.min_sampling_interval_ms = 20.0;

    let (server, handle) = builder.build()?;
    let manager = handle.node_managers().get_of_type::<SimpleNodeManager>().ok_or("no node manager")?;
    let namespace = handle.get_namespace_index(NAMESPACE).ok_or("no namespace")?;
    let cells = add_nodes(&manager, namespace, &plant);
    let subscriptions = handle.subscriptions().clone();
    Ok(async move {
        // The handle lives as long as the server does: dropping it stops the server.
        tokio::select! {
            _ = opcua_front::serve(server, &handle, listener) => {}
            () = update_forever(plant, manager, subscriptions, cells) => {}
        }
    })
}

fn add_nodes(manager: &Arc<SimpleNodeManager>, namespace: u16, plant: &SharedPlant) -> Vec<Cell> {
    let plan = plant.lock().plan().clone();
    let stations: Vec<MachineId> = plan.view().stations().map(|(_, s)| s.machine).collect();
    stations
        .into_iter()
        .map(|machine| add_cell(manager, namespace, plant, plan.machine_name(machine), machine))
        .collect()
}

/// The folder of a station: its name, written like a name.
pub fn folder_of(station: &str) -> String {
    let mut letters = station.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn add_cell(
    manager: &Arc<SimpleNodeManager>,
    namespace: u16,
    plant: &SharedPlant,
    name: &str,
    machine: MachineId,
) -> Cell {
    let folder_name = folder_of(name);
    let id = |node: &str| NodeId::new(namespace, format!("{folder_name}.{node}"));
    let ids: Vec<NodeId> = NODES.iter().map(|(name, _)| id(name)).collect();
    let command_id = id(COMMAND_NODE);
    {
        let space = manager.address_space();
        let mut space = space.write();
        let folder = NodeId::new(namespace, folder_name.as_str());
        space.add_folder(&folder, folder_name.as_str(), folder_name.as_str(), &NodeId::objects_folder_id());
        let now = values(plant, machine);
        let variables: Vec<Variable> = NODES
            .iter()
            .zip(ids.iter().zip(now))
            .map(|((name, kind), (id, value))| {
                let mut v = Variable::new(id, *name, *name, value);
                v.set_data_type(*kind);
                v
            })
            .collect();
        space.add_variables(variables, &folder);

        let mut block = Variable::new(&command_id, COMMAND_NODE, COMMAND_NODE, vec![0u16; COMMAND_WORDS]);
        let access = AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE;
        block.set_data_type(DataTypeId::UInt16);
        block.set_access_level(access);
        block.set_user_access_level(access);
        space.add_variables(vec![block], &folder);
    }
    let plant = plant.clone();
    manager.inner().add_write_callback(command_id, move |data, _range| match words(&data) {
        Some(words) => {
            plant.lock().write_block(machine, 0, &words);
            StatusCode::Good
        }
        None => StatusCode::BadTypeMismatch,
    });
    Cell { machine, nodes: ids }
}

/// A whole command block, or nothing.
fn words(data: &DataValue) -> Option<Vec<u16>> {
    let Some(Variant::Array(array)) = &data.value else { return None };
    let words: Option<Vec<u16>> =
        array.values.iter().map(|v| if let Variant::UInt16(w) = v { Some(*w) } else { None }).collect();
    words.filter(|w| w.len() == COMMAND_WORDS)
}

fn values(plant: &SharedPlant, cell: MachineId) -> Vec<Variant> {
    let plant = plant.lock();
    let Some(machine) = plant.machine(cell) else { return Vec::new() };
    let status = plant.status_block(cell).unwrap_or_default();
    let program = plant.command_block(cell).and_then(|b| b.get(command::PROGRAM).copied()).unwrap_or(0);
    let load = plant.loads().at(machine.deck());
    let t = plant.time_s();
    let pressure = 6.0 + 0.2 * (t / 7.0).sin() - if machine.job().is_some() { 0.3 } else { 0.0 };
    let rounded = |v: f64| (v * 100.0).round() / 100.0;
    vec![
        Variant::from(status.to_vec()),
        Variant::from(i32::from(machine.state().word())),
        Variant::from(if machine.job().is_some() { program } else { 0 }),
        Variant::from(plant.done(cell)),
        Variant::from(control_core::units::LoadId::raw(load)),
        Variant::from(machine.job().is_some()),
        Variant::from(rounded(machine.current_a())),
        Variant::from(rounded(machine.temperature_c())),
        Variant::from(rounded(pressure)),
        Variant::from(t.floor()),
    ]
}

async fn update_forever(
    plant: SharedPlant,
    manager: Arc<SimpleNodeManager>,
    subscriptions: Arc<SubscriptionCache>,
    cells: Vec<Cell>,
) {
    let mut ticks = tokio::time::interval(UPDATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let updates = cells.iter().flat_map(|cell| {
            let now = values(&plant, cell.machine);
            cell.nodes.iter().zip(now).map(|(id, value)| (id, None, DataValue::new_now(value)))
        });
        if let Err(status) = manager.set_values(&subscriptions, updates) {
            tracing::error!("cannot update the nodes of the cells: {status}");
        }
    }
}
