//! Values of an OPC UA server as a Sparkplug node tells them: each in the type that its node declares, rows as arrays, times as DateTime, and
//! what is null as null, of its type all the same. From the server's side to the broker's.

#[path = "support/accounts.rs"]
mod accounts;
mod support;
#[path = "../../device-drivers/tests/support/ua_server.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of several tests")]
mod ua_server;
#[path = "support/wire_broker.rs"]
mod wire_broker;

use edge_agent::Agent;
use edge_agent::telemetry::sparkplug::payload::{DataType as T, Metric, MetricValue as V, Payload};
use opcua::types::{DataValue, DateTime, UAString, Variant};
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use support::eventually;
use ua_server::UaServer;
use wire_broker::{Event, Trace, WireBroker};

/// 2026-12-01T04:00:00Z.
const FOUR: u64 = 1_796_097_600_000;

fn four() -> DateTime {
    DateTime::ymd_hms(2026, 12, 1, 4, 0, 0)
}

fn texts(texts: [&str; 2]) -> Variant {
    texts.map(UAString::from).to_vec().into()
}

/// Of each node: its name, what it has at first, what a host has to read of it.
fn nodes() -> Vec<(&'static str, Variant, T, Option<V>)> {
    let bytes = |bytes: &[u8]| Some(V::Bytes(bytes.to_vec()));
    let four_bytes = [FOUR, FOUR + 1000].map(u64::to_le_bytes).concat();
    let next = DateTime::ymd_hms(2026, 12, 1, 4, 0, 1);
    vec![
        ("bool", true.into(), T::Boolean, Some(V::Boolean(true))),
        ("sbyte", (-5i8).into(), T::Int8, Some(V::Int(-5i32 as u32))),
        ("byte", 200u8.into(), T::UInt8, Some(V::Int(200))),
        ("int16", (-30_000i16).into(), T::Int16, Some(V::Int(-30_000i32 as u32))),
        ("uint16", 60_000u16.into(), T::UInt16, Some(V::Int(60_000))),
        ("int32", (-2_000_000_000i32).into(), T::Int32, Some(V::Int(-2_000_000_000i32 as u32))),
        ("uint32", 4_000_000_000u32.into(), T::UInt32, Some(V::Long(4_000_000_000))),
        ("int64", (-(1i64 << 60)).into(), T::Int64, Some(V::Long(-(1i64 << 60) as u64))),
        ("uint64", u64::MAX.into(), T::UInt64, Some(V::Long(u64::MAX))),
        ("float", 0.1f32.into(), T::Float, Some(V::Float(0.1))),
        ("double", 0.1f64.into(), T::Double, Some(V::Double(0.1))),
        ("string", "Öl".into(), T::Text, Some(V::Text("Öl".into()))),
        ("empty string", "".into(), T::Text, Some(V::Text(String::new()))),
        ("null string", UAString::null().into(), T::Text, None),
        ("time", four().into(), T::DateTime, Some(V::Long(FOUR))),
        ("no time", DateTime::null().into(), T::DateTime, None),
        ("int16s", vec![-1i16, 2].into(), T::Int16Array, bytes(&[0xFF, 0xFF, 2, 0])),
        ("uint16s", vec![1u16, 0xFFFE].into(), T::UInt16Array, bytes(&[1, 0, 0xFE, 0xFF])),
        ("bools", vec![true, false, true].into(), T::BooleanArray, bytes(&[3, 0, 0, 0, 0xA0])),
        ("floats", vec![1.0f32].into(), T::FloatArray, bytes(&[0, 0, 0x80, 0x3F])),
        ("doubles", vec![0.5f64].into(), T::DoubleArray, bytes(&0.5f64.to_le_bytes())),
        ("strings", texts(["ABC", ""]), T::StringArray, bytes(b"ABC\0\0")),
        ("times", vec![four(), next].into(), T::DateTimeArray, bytes(&four_bytes)),
    ]
}

async fn agent(dir: &std::path::Path, server: &UaServer, broker: &WireBroker) -> Agent {
    let text = format!(
        "[gateway]\nname = \"gw\"\narea = \"hall\"\nline = \"a\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\
         [mqtt]\nbroker = \"127.0.0.1:{}\"\n[mqtt.sparkplug]\ngroup = \"plant\"\n\
         [[line]]\nname = \"cells\"\nopcua = \"{}\"\nsecurity = \"none\"\n\
         [[line.device]]\nname = \"c1\"\ncell = \"c\"\nprofile = \"cell.toml\"\n",
        broker.port,
        server.url()
    );
    let tag = |(name, ..): &(&str, Variant, T, Option<V>)| {
        format!("[[tag]]\nname = \"{}\"\nnode = \"{}\"\n", name.replace(' ', "-"), UaServer::node(name))
    };
    std::fs::write(dir.join("cell.toml"), nodes().iter().map(tag).collect::<String>()).unwrap();
    std::fs::write(dir.join("agent.toml"), text).unwrap();
    let plan = edge_agent::config::load(&dir.join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    Agent::start(plan).await.unwrap()
}

/// Metrics of the messages of a kind, the oldest first.
fn told(trace: &Trace, kind: &str) -> Vec<Vec<Metric>> {
    let metrics = |event: &Event| match event {
        Event::Publish(said) if said.topic == format!("spBv1.0/plant/{kind}/gw/c1").as_bytes() => {
            Some(Payload::decode(&said.payload[..]).unwrap().metrics)
        }
        _ => None,
    };
    trace.lock().unwrap().iter().filter_map(|entry| metrics(&entry.event)).collect()
}

type Read = (u32, bool, Option<V>);

/// What a host knows that has read the newest birth, and all data behind it.
fn known(trace: &Trace) -> BTreeMap<String, Read> {
    let (births, data) = (told(trace, "DBIRTH"), told(trace, "DDATA"));
    let mut known = BTreeMap::new();
    for metric in births.last().into_iter().flatten() {
        let name = metric.name.clone().unwrap();
        let mut read = (metric.datatype.unwrap(), metric.is_null == Some(true), metric.value.clone());
        // Data from before the birth has the same aliases, and is older.
        let newer = |m: &&Metric| m.alias == metric.alias && m.timestamp > metric.timestamp;
        if let Some(newest) = data.iter().flatten().rfind(newer) {
            (read.1, read.2) = (newest.is_null == Some(true), newest.value.clone());
        }
        known.insert(name, read);
    }
    known
}

async fn reads(trace: &Trace, want: &BTreeMap<String, Read>) {
    let is_read = async || want.iter().all(|(name, read)| known(trace).get(name) == Some(read));
    let in_time = eventually(Duration::from_secs(20), is_read).await;
    let known = known(trace);
    let wrong: Vec<_> = want.iter().filter(|(name, read)| known.get(*name) != Some(read)).collect();
    let read: Vec<_> = wrong.iter().map(|(name, _)| (name, known.get(*name))).collect();
    assert!(in_time, "wanted {wrong:?}, read {read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_an_opc_ua_server_are_born_and_told_in_the_types_that_their_nodes_declare() {
    let (trace, dir) = (Trace::default(), tempfile::tempdir().unwrap());
    let broker = WireBroker::start(1, trace.clone(), Vec::new()).await;
    let server = UaServer::start(|builder| builder).await;
    nodes().into_iter().for_each(|(name, value, ..)| server.add(name, value, None));
    let agent = agent(dir.path(), &server, &broker).await;
    let read = |(name, _, kind, value): (&str, Variant, T, Option<V>)| {
        (name.replace(' ', "-"), (kind as u32, value.is_none(), value))
    };
    let mut want: BTreeMap<String, Read> = nodes().into_iter().map(read).collect();
    reads(&trace, &want).await;
    let births = told(&trace, "DBIRTH").len();
    // What was there is null, what was null is there, rows are longer and shorter; their types stay, and nothing is born again.
    let changes: [(&str, Variant, Option<V>); 6] = [
        ("string", UAString::null().into(), None),
        ("null string", "here".into(), Some(V::Text("here".into()))),
        ("time", DateTime::null().into(), None),
        ("no time", four().into(), Some(V::Long(FOUR))),
        ("int16s", Vec::<i16>::new().into(), Some(V::Bytes(Vec::new()))),
        ("doubles", vec![1.0f64, 2.0].into(), Some(V::Bytes([1.0f64, 2.0].map(f64::to_le_bytes).concat()))),
    ];
    for (name, variant, value) in changes {
        server.set(name, DataValue::new_now(variant));
        let read = want.get_mut(&name.replace(' ', "-")).unwrap();
        (read.1, read.2) = (value.is_none(), value);
    }
    reads(&trace, &want).await;
    assert_eq!(told(&trace, "DBIRTH").len(), births);
    accounts::stopped(agent).await;
}
