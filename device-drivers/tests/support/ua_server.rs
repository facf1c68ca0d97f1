//! A small OPC UA server with variables of every kind, which a test can change while it runs.

use opcua::crypto::SecurityPolicy;
use opcua::nodes::{NodeType, ReferenceDirection};
use opcua::server::address_space::{AccessLevel, Variable};
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{SimpleNodeManager, simple_node_manager};
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerEndpoint, ServerHandle, SubscriptionCache};
use opcua::types::{
    DataValue, DateTime, MessageSecurityMode, NodeId, QualifiedName, ReferenceTypeId, StatusCode, Variant,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Namespace of the variables.
pub const NAMESPACE: &str = "urn:lightsout:test-server";

/// A server that runs until it is dropped.
pub struct UaServer {
    /// Where it listens.
    pub addr: SocketAddr,
    manager: Arc<SimpleNodeManager>,
    subscriptions: Arc<SubscriptionCache>,
    namespace: u16,
    handle: ServerHandle,
    task: tokio::task::JoinHandle<()>,
    /// Its folder; keys and certificates are in `pki`.
    pub dir: tempfile::TempDir,
}

impl Drop for UaServer {
    fn drop(&mut self) {
        self.handle.cancel();
        self.task.abort();
    }
}

impl UaServer {
    /// Starts a server, without security unless `adapt` adds it.
    pub async fn start(adapt: impl FnOnce(ServerBuilder) -> ServerBuilder) -> UaServer {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let users = [ANONYMOUS_USER_TOKEN_ID.to_string()];
        let mut builder = ServerBuilder::new()
            .application_name("Lightsout test server")
            .application_uri("urn:lightsout:test-server:app")
            .product_uri("urn:lightsout:test-server:app")
            .host(addr.ip().to_string())
            .port(addr.port())
            .discovery_urls(vec![format!("opc.tcp://{addr}/")])
            .create_sample_keypair(false)
            .pki_dir(dir.path().join("pki"))
            .diagnostics_enabled(false)
            .subscription_poll_interval_ms(20)
            .add_endpoint("none", ServerEndpoint::new("/", SecurityPolicy::None, MessageSecurityMode::None, &users))
            .with_node_manager(simple_node_manager(
                NamespaceMetadata { namespace_uri: NAMESPACE.into(), ..NamespaceMetadata::default() },
                "test",
            ));
        builder.limits_mut().subscriptions.min_publishing_interval_ms = 10.0;
        builder.limits_mut().subscriptions.min_sampling_interval_ms = 10.0;
        let (server, handle) = adapt(builder).build().unwrap();
        let manager = handle.node_managers().get_of_type::<SimpleNodeManager>().unwrap();
        let namespace = handle.get_namespace_index(NAMESPACE).unwrap();
        let subscriptions = handle.subscriptions().clone();
        let task = tokio::spawn(async move {
            let _ = server.run_with(listener).await;
        });
        UaServer { addr, manager, subscriptions, namespace, handle, task, dir }
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("opc.tcp://{}/", self.addr)
    }

    /// The name of a variable.
    pub fn node(name: &str) -> String {
        format!("nsu={NAMESPACE};s={name}")
    }

    /// Adds a variable that anyone can write. What `written` says of a write decides; `None` takes it.
    pub fn add(&self, name: &str, value: impl Into<Variant>, written: Option<fn(&DataValue) -> StatusCode>) {
        let id = NodeId::new(self.namespace, name);
        let space = self.manager.address_space();
        let mut variable = Variable::new(&id, name, name, value);
        let access = AccessLevel::CURRENT_READ | AccessLevel::CURRENT_WRITE;
        variable.set_access_level(access);
        variable.set_user_access_level(access);
        space.write().add_variables(vec![variable], &NodeId::objects_folder_id());
        if let Some(written) = written {
            self.manager.inner().add_write_callback(id, move |data, _| written(&data));
        }
    }

    /// Adds a property to a variable.
    pub fn add_property(&self, of: &str, name: &str, value: impl Into<Variant>) {
        let (id, of) = (NodeId::new(self.namespace, format!("{of}.{name}")), NodeId::new(self.namespace, of));
        let space = self.manager.address_space();
        let mut space = space.write();
        let property = Variable::new(&id, QualifiedName::new(0, name), name, value);
        space.insert(property, Some(&[(&of, &ReferenceTypeId::HasProperty, ReferenceDirection::Inverse)]));
    }

    /// Gives a variable another value without a word to those who are subscribed, as a node that was deleted and made again has one.
    pub fn set_silently(&self, name: &str, value: impl Into<Variant>) {
        let space = self.manager.address_space();
        let mut space = space.write();
        let Some(NodeType::Variable(variable)) = space.find_mut(&NodeId::new(self.namespace, name)) else {
            panic!("{name} is a variable")
        };
        let now = DateTime::now();
        variable.set_value_direct(value, StatusCode::Good, &now, &now).unwrap();
    }

    /// Takes a variable away.
    pub fn delete(&self, name: &str) {
        self.manager.address_space().write().delete(&NodeId::new(self.namespace, name), true);
    }

    /// Adds a number below a folder.
    pub fn add_below(&self, folder: &str, name: &str, value: i32) {
        let mut variable = Variable::new(&NodeId::new(self.namespace, name), name, name, value);
        variable.set_data_type(opcua::types::DataTypeId::Int32);
        let folder = NodeId::new(self.namespace, folder);
        self.manager.address_space().write().add_variables(vec![variable], &folder);
    }

    /// Adds a folder under another one (or under Objects).
    pub fn folder(&self, name: &str, parent: Option<&str>) {
        let parent = parent.map_or_else(NodeId::objects_folder_id, |p| NodeId::new(self.namespace, p));
        self.manager.address_space().write().add_folder(&NodeId::new(self.namespace, name), name, name, &parent);
    }

    /// Shows a value to all who are subscribed.
    pub fn set(&self, name: &str, value: DataValue) {
        let id = NodeId::new(self.namespace, name);
        self.manager.set_values(&self.subscriptions, std::iter::once((&id, None, value))).unwrap();
    }

    /// What a variable has.
    pub fn get(&self, name: &str) -> Option<Variant> {
        let space = self.manager.address_space();
        let space = space.read();
        match space.find(&NodeId::new(self.namespace, name)) {
            Some(NodeType::Variable(v)) => {
                v.value(
                    opcua::types::TimestampsToReturn::Neither,
                    &opcua::types::NumericRange::None,
                    &opcua::types::DataEncoding::Binary,
                    0.0,
                )
                .value
            }
            _ => None,
        }
    }
}
