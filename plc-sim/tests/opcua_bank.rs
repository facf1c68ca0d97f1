//! The OPC UA bank shows its signal, and every fault of its script is seen by a client.

use opcua::client::{ClientBuilder, IdentityToken, Session};
use opcua::crypto::SecurityPolicy;
use opcua::types::{
    AttributeId, DataValue, MessageSecurityMode, MonitoredItemCreateRequest, NodeId, ReadValueId, StatusCode,
    TimestampsToReturn, UserTokenPolicy, Variant,
};
use plc_sim::bank::{Fault, FaultScript, Kind};
use plc_sim::faces::Keep;
use plc_sim::faces::opcua_bank::{self, OpcuaBank, OpcuaBankConfig};
use plc_sim::{PlantConfig, Sim};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that no tick comes between two looks.
const STILL: Duration = Duration::from_secs(3600);

struct Client {
    session: Arc<Session>,
    namespace: u16,
    task: tokio::task::JoinHandle<StatusCode>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn try_connect(
    url: &str,
    pki: &Path,
    security: (SecurityPolicy, MessageSecurityMode),
    who: IdentityToken,
) -> Result<Client, String> {
    let mut client = ClientBuilder::new()
        .application_name("bank test")
        .application_uri("urn:lightsout:bank-test")
        .product_uri("urn:lightsout:bank-test")
        .pki_dir(pki)
        .create_sample_keypair(security.0 != SecurityPolicy::None)
        .trust_server_certs(true)
        .session_retry_limit(0)
        .request_timeout(Duration::from_secs(20))
        .max_message_size(8 << 20)
        .max_chunk_count(128)
        .max_array_length(50_000)
        .client()
        .map_err(|e| e.join(", "))?;
    let policy = match who {
        IdentityToken::Anonymous => UserTokenPolicy::anonymous(),
        _ => UserTokenPolicy { token_type: opcua::types::UserTokenType::UserName, ..UserTokenPolicy::default() },
    };
    let endpoint = (url, security.0.to_str(), security.1, policy);
    let (session, events) = client.connect_to_matching_endpoint(endpoint, who).await.map_err(|e| e.to_string())?;
    let mut task = events.spawn();
    let connected = tokio::select! {
        connected = session.wait_for_connection() => connected,
        _ = &mut task => false,
        () = tokio::time::sleep(Duration::from_secs(20)) => false,
    };
    if !connected {
        return Err("no session".into());
    }
    // A plant has no bank.
    let namespace = session.get_namespace_index(opcua_bank::NAMESPACE).await.unwrap_or_default();
    Ok(Client { session, namespace, task })
}

const PLAIN: (SecurityPolicy, MessageSecurityMode) = (SecurityPolicy::None, MessageSecurityMode::None);

async fn connect(bank: &OpcuaBank) -> Client {
    let pki = tempfile::tempdir().unwrap();
    soon("a session", async || try_connect(&bank.url(), pki.path(), PLAIN, IdentityToken::Anonymous).await.ok()).await
}

impl Client {
    fn node(&self, n: u16) -> ReadValueId {
        ReadValueId {
            node_id: NodeId::new(self.namespace, format!("V.{n}")),
            attribute_id: AttributeId::Value as u32,
            ..ReadValueId::default()
        }
    }

    async fn read(&self, variables: std::ops::Range<u16>) -> Result<Vec<DataValue>, StatusCode> {
        let nodes: Vec<_> = variables.map(|n| self.node(n)).collect();
        self.session.read(&nodes, TimestampsToReturn::Both, 0.0).await.map_err(|e| e.status())
    }

    async fn monitor(&self, subscription: u32, variables: std::ops::Range<u16>) -> Result<usize, StatusCode> {
        let items = variables.map(|n| MonitoredItemCreateRequest::from(self.node(n).node_id)).collect();
        let made = self.session.create_monitored_items(subscription, TimestampsToReturn::Both, items).await;
        made.map(|m| m.iter().filter(|i| i.result.status_code.is_good()).count()).map_err(|e| e.status())
    }
}

/// Asks until there is an answer.
async fn soon<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bank(config: OpcuaBankConfig) -> OpcuaBank {
    let pki = tempfile::tempdir().unwrap().keep();
    opcua_bank::serve(OpcuaBankConfig { pki_dir: config.pki_dir.or(Some(pki)), ..config }).await.unwrap()
}

fn double(value: &DataValue) -> f64 {
    match value.value {
        Some(Variant::Double(v)) => v,
        ref other => panic!("not a Double: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_variable_is_what_its_tick_says() {
    let bank = bank(OpcuaBankConfig { variables: 3000, period: STILL, ..OpcuaBankConfig::default() }).await;
    let client = connect(&bank).await;
    let values = client.read(0..3000).await.unwrap();
    assert_eq!(values.len(), 3000);
    for (n, value) in (0u16..).zip(&values) {
        assert_eq!(double(value), opcua_bank::value(n, 1), "V.{n}");
    }
    assert_eq!(client.read(3000..3001).await.unwrap()[0].status, Some(StatusCode::BadNodeIdUnknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_move_together() {
    let config = OpcuaBankConfig { variables: 50, period: Duration::from_millis(50), ..OpcuaBankConfig::default() };
    let bank = bank(config).await;
    let client = connect(&bank).await;
    let first = client.read(0..50).await.unwrap();
    let tick = (0..200).find(|t| opcua_bank::value(0, *t) == double(&first[0])).expect("a tick's value");
    for (n, value) in (0u16..).zip(&first) {
        assert_eq!(double(value), opcua_bank::value(n, tick), "V.{n} at tick {tick}");
    }
    soon("change", async || {
        let next = client.read(0..50).await.unwrap();
        next.iter().zip(&first).all(|(a, b)| double(a) != double(b)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secure_bank_lets_in_whom_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let config = OpcuaBankConfig {
        period: STILL,
        secure: true,
        trust_all: true,
        anonymous: false,
        users: vec![("gateway".into(), "correct horse".into())],
        pki_dir: Some(folder.path().join("server")),
        ..OpcuaBankConfig::default()
    };
    let first = bank(config.clone()).await;
    let key = std::fs::read(first.certificate()).unwrap();
    drop(first);
    let bank = bank(config).await;
    assert_eq!(std::fs::read(bank.certificate()).unwrap(), key, "the key pair is made once");

    let pki = folder.path().join("client");
    let encrypt = MessageSecurityMode::SignAndEncrypt;
    let policies =
        [SecurityPolicy::Basic256Sha256, SecurityPolicy::Aes128Sha256RsaOaep, SecurityPolicy::Aes256Sha256RsaPss];
    for (policy, mode) in policies.into_iter().flat_map(|p| [(p, MessageSecurityMode::Sign), (p, encrypt)]) {
        let right = IdentityToken::new_user_name("gateway", "correct horse");
        let client = try_connect(&bank.url(), &pki, (policy, mode), right).await;
        let client = client.unwrap_or_else(|e| panic!("{policy} {mode}: {e}"));
        assert_eq!(double(&client.read(7..8).await.unwrap()[0]), opcua_bank::value(7, 1), "{policy} {mode}");
    }
    let wrong = IdentityToken::new_user_name("gateway", "battery staple");
    let refused = try_connect(&bank.url(), &pki, (policies[0], encrypt), wrong).await;
    assert!(refused.is_err(), "a wrong password");
    let nobody = try_connect(&bank.url(), &pki, (policies[0], encrypt), IdentityToken::Anonymous).await;
    assert!(nobody.is_err(), "nobody");
}

/// What `plc-sim run --secure` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_plant_offers_security_too_if_that_is_wanted_and_not_otherwise() {
    let secured = (SecurityPolicy::Basic256Sha256, MessageSecurityMode::SignAndEncrypt);
    for secure in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = PlantConfig::from_toml(include_str!("../../configs/small/plant.toml")).unwrap();
        config.listen.modbus.set_port(0);
        config.listen.opcua.set_port(0);
        let pki_dir = Some(folder.path().join("server"));
        let sim = Sim::start(config, 1, 1, Keep { pki_dir, secure, trust_all: true, ..Keep::default() }).await.unwrap();
        let (url, pki) = (format!("opc.tcp://{}/", sim.addresses.opcua), folder.path().join("client"));
        let plain =
            soon("a session", async || try_connect(&url, &pki, PLAIN, IdentityToken::Anonymous).await.ok()).await;
        drop(plain);
        let client = try_connect(&url, &pki, secured, IdentityToken::Anonymous).await;
        assert_eq!(client.is_ok(), secure, "{:?}", client.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn low_limits_refuse_what_is_too_much_in_one_call_and_go_away_again() {
    let kind = Kind::LowLimits { max_nodes_per_read: 10, max_monitored_items_per_call: 5 };
    let config = OpcuaBankConfig { period: STILL, faults: kind.into(), ..OpcuaBankConfig::default() };
    let bank = bank(config).await;
    let client = connect(&bank).await;
    assert_eq!(client.read(0..10).await.unwrap().len(), 10);
    assert_eq!(client.read(0..11).await.unwrap_err(), StatusCode::BadTooManyOperations);
    let subscription = subscribe(&client).await;
    assert_eq!(client.monitor(subscription, 0..6).await.unwrap_err(), StatusCode::BadTooManyOperations);
    assert_eq!(client.monitor(subscription, 0..5).await.unwrap(), 5);

    bank.set_faults(FaultScript::default()).unwrap();
    soon("another server", async || (bank.starts() == 2).then_some(())).await;
    assert_eq!(connect(&bank).await.read(0..100).await.unwrap().len(), 100);
}

async fn subscribe(client: &Client) -> u32 {
    let callback = opcua::client::DataChangeCallback::new(|_, _| {});
    client.session.create_subscription(Duration::from_millis(100), 100, 10, 0, 0, true, callback).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_takes_no_more_items_than_the_fault_allows() {
    let faults = Kind::TooManyItems { count: 8 }.into();
    let bank = bank(OpcuaBankConfig { period: STILL, faults, ..OpcuaBankConfig::default() }).await;
    let client = connect(&bank).await;
    let subscription = subscribe(&client).await;
    assert_eq!(client.monitor(subscription, 0..8).await.unwrap(), 8);
    assert_eq!(client.monitor(subscription, 8..9).await.unwrap_err(), StatusCode::BadTooManyMonitoredItems);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_node_is_bad_and_its_neighbours_are_good() {
    let bank = bank(OpcuaBankConfig { period: STILL, ..OpcuaBankConfig::default() }).await;
    let client = connect(&bank).await;
    let bad = async || {
        let values = client.read(0..10).await.unwrap();
        let bad = |v: &DataValue| v.status == Some(StatusCode::BadSensorFailure);
        (0..10u16).filter(|n| bad(&values[usize::from(*n)])).collect::<Vec<_>>()
    };
    assert!(bad().await.is_empty());
    bank.set_faults(Kind::BadNode { start: 3, count: 2 }).unwrap();
    soon("bad nodes", async || (bad().await == [3, 4]).then_some(())).await;
    bank.set_faults(FaultScript::default()).unwrap();
    soon("good nodes", async || bad().await.is_empty().then_some(())).await;
    assert_eq!(bank.starts(), 1, "no other server was needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_is_gone_and_the_next_one_is_welcome() {
    let bank = bank(OpcuaBankConfig { period: STILL, ..OpcuaBankConfig::default() }).await;
    let client = connect(&bank).await;
    client.read(0..1).await.unwrap();
    bank.set_faults(Kind::DropSession).unwrap();
    soon("end of the session", async || client.read(0..1).await.err()).await;
    connect(&bank).await.read(0..1).await.unwrap();
    assert_eq!(bank.starts(), 2);
    // The same script again drops again.
    bank.set_faults(Kind::DropSession).unwrap();
    soon("another drop", async || (bank.starts() == 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_leaves_the_port_closed_and_comes_back_on_it() {
    let bank = bank(OpcuaBankConfig { period: STILL, ..OpcuaBankConfig::default() }).await;
    let client = connect(&bank).await;
    let restart = Fault::new(Kind::Restart).window(Duration::from_millis(100), Some(Duration::from_secs(2)));
    bank.set_faults(restart).unwrap();
    soon("closed port", async || tokio::net::TcpStream::connect(bank.addr).await.err()).await;
    soon("end of the session", async || client.read(0..1).await.err()).await;
    let again = connect(&bank).await;
    assert_eq!(double(&again.read(0..1).await.unwrap()[0]), opcua_bank::value(0, 1), "the beat went on");
    assert_eq!(bank.starts(), 2);
}

#[tokio::test]
async fn faults_of_modbus_are_refused() {
    let faults = Kind::Silent.into();
    let error = opcua_bank::serve(OpcuaBankConfig { faults, ..OpcuaBankConfig::default() }).await.unwrap_err();
    assert!(error.contains("Silent is no fault of an OPC UA bank"), "{error}");
}
