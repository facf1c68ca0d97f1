//! One session: opened, driven, listened to.
//!
//! ```text
//!   prepare ──> session + event loop task ──> Signs { publishes, ended, overflow } ──> whoever works the link
//!                        └── calls in chunks (Link) ──> as many answers as questions, or an error
//! ```
//!
//! async-opcua can reconnect by itself, but its subscriptions stay dead afterwards while the session looks healthy. So we never let it:
//! the first sign of trouble ends the link, and the next one is made anew.

use super::guard::{Door, Note};
use super::limits::{Call, Limits, OPERATION_LIMITS, node};
use super::node::escaped;
use super::security::{at_the_door, no_link, prepare, refusal};
use super::{NodeName, OpcUaSpec};
use crate::driver::LinkError;
use futures_util::StreamExt;
use opcua::client::{Session, SessionActivity, SessionPollResult, SubscriptionActivity};
use opcua::types::{
    AttributeId, DataValue, Error, ExpandedNodeId, NodeId, ReadValueId, StatusCode, TimestampsToReturn, VariableId,
    Variant, WriteValue,
};
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A server is given so long to take leave of; nobody waits for it.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What the event loop leaves behind for whoever works the link.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// PublishResponses of any kind.
    pub(super) publishes: AtomicU64,
    /// More has come than anyone could take.
    pub(super) overflow: AtomicBool,
    /// Why the session is over.
    pub(super) ended: OnceLock<(StatusCode, String)>,
    /// Something of this has changed.
    pub(super) news: Notify,
}

impl Signs {
    fn end(&self, status: StatusCode, why: impl Into<String>) {
        let _ = self.ended.set((status, why.into())); // the first reason counts
        self.news.notify_one();
    }
}

/// The session and its calls, in chunks that the server takes.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) session: Arc<Session>,
    pub(super) limits: Arc<Limits>,
    pub(super) signs: Arc<Signs>,
    peer: Arc<str>,
    timeout: Duration,
    door: Door,
}

/// The session with the task that drives it. Dropping it ends both, without waiting for the server.
pub(super) struct Opened {
    pub(super) link: Link,
    driver: Option<JoinHandle<()>>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(driver) = self.driver.take() else { return };
        let (session, over) = (self.link.session.clone(), self.link.signs.ended.get().is_some());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            driver.abort();
            return;
        };
        // Small servers have few sessions, and keep one that nobody closes for half a minute.
        runtime.spawn(async move {
            if !over {
                let _ = timeout(FAREWELL, session.disconnect()).await;
            }
            driver.abort();
        });
    }
}

/// Opens a session, and asks the server for its limits.
pub(super) async fn open(spec: &OpcUaSpec) -> Result<Opened, LinkError> {
    let prepared = prepare(spec).await?;
    let builder = prepared
        .client
        .session_builder()
        .with_connector(prepared.door.clone())
        .connect_to_endpoint_directly(prepared.endpoint)
        .map_err(|e| no_link(spec, e.to_string()))?
        .user_identity_token(prepared.identity);
    let store = prepared.client.certificate_store().clone();
    let (session, events) = builder.build(store).map_err(|e| no_link(spec, e.to_string()))?;

    let signs = Arc::new(Signs::default());
    let seen = signs.clone();
    let driver = tokio::spawn(async move {
        let mut events = std::pin::pin!(events.enter());
        loop {
            match events.next().await {
                Some(Ok(event)) => listen(&seen, event),
                Some(Err(status)) => seen.end(status, status.to_string()),
                None => seen.end(StatusCode::BadConnectionClosed, "closed"),
            }
            if seen.ended.get().is_some() {
                return;
            }
        }
    });
    let link = Link {
        session,
        limits: Arc::new(Limits::of(spec.vendor)),
        signs,
        peer: spec.endpoint.as_str().into(),
        timeout: spec.timeout,
        door: prepared.door.clone(),
    };
    let opened = Opened { link, driver: Some(driver) };
    let up = tokio::select! {
        up = timeout(spec.timeout, opened.link.session.wait_for_connection()) => matches!(up, Ok(true)),
        () = opened.link.signs.news.notified() => false,
    };
    if !up {
        let told = opened.link.signs.ended.get().map(|(status, _)| refusal(spec, *status, prepared.own.as_deref()));
        let silent = || LinkError::Timeout {
            peer: spec.endpoint.clone(),
            what: "the request for a session".into(),
            limit: spec.timeout,
        };
        return Err(at_the_door(spec, &prepared.door).or(told).unwrap_or_else(silent));
    }
    opened.link.heed_limits().await?;
    Ok(opened)
}

/// What the library tells of the session.
fn listen(signs: &Signs, event: SessionPollResult) {
    use SubscriptionActivity as Sub;
    match event {
        SessionPollResult::Subscription(Sub::Publish) => {
            signs.publishes.fetch_add(1, Relaxed);
            signs.news.notify_one();
        }
        SessionPollResult::Subscription(Sub::PublishFailed(StatusCode::BadNoSubscription)) => {
            signs.end(StatusCode::BadNoSubscription, "the server has forgotten the subscription");
        }
        SessionPollResult::Subscription(Sub::FatalFailure(status)) => {
            signs.end(status, format!("publishing failed: {status}"))
        }
        SessionPollResult::ConnectionLost(status) | SessionPollResult::ReconnectFailed(status) => {
            signs.end(status, status.to_string());
        }
        SessionPollResult::SessionActivity(SessionActivity::KeepAliveFailed(status)) => {
            signs.end(status, format!("keep-alive failed: {status}"));
        }
        _ => {}
    }
}

impl Link {
    /// A call with its time limit. The status tells what the server said.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, StatusCode>, LinkError> {
        match timeout(self.timeout, answer).await {
            Ok(Ok(value)) => Ok(Ok(value)),
            Ok(Err(e)) if e.status() == StatusCode::BadTimeout => Err(self.late(what)),
            Ok(Err(e)) => Ok(Err(e.status())),
            Err(_) => Err(self.late(what)),
        }
    }

    pub(super) fn late(&self, what: &str) -> LinkError {
        self.late_by(what, self.timeout)
    }

    /// The same with another limit than that of a request.
    pub(super) fn late_by(&self, what: &str, limit: Duration) -> LinkError {
        let late = || LinkError::Timeout { peer: self.peer.to_string(), what: what.into(), limit };
        self.refused_at_the_door().unwrap_or_else(late)
    }

    pub(super) fn lost(&self, why: impl Into<String>) -> LinkError {
        self.refused_at_the_door().unwrap_or_else(|| LinkError::Lost { peer: self.peer.to_string(), why: why.into() })
    }

    /// What our own door did not let in: the library knows only that the connection has ended.
    fn refused_at_the_door(&self) -> Option<LinkError> {
        match self.door.note()? {
            Note::Wrong(what) => Some(self.broken(what)),
            Note::NoConnection(_) => None,
        }
    }

    pub(super) fn broken(&self, what: impl Into<String>) -> LinkError {
        LinkError::Protocol { peer: self.peer.to_string(), what: what.into() }
    }

    /// How far the server's clock is ahead of ours, in ticks of 100 ns: the library takes it off every time it decodes.
    pub(super) fn skew(&self) -> i64 {
        let offset = self.session.encoding_context().read().options().client_offset;
        offset.num_nanoseconds().map_or(0, |ns| ns / 100)
    }

    /// As many calls as it takes, each no larger than the server likes; as many answers as questions, in their order. Also counts the
    /// calls.
    pub(super) async fn chunked<Q, A, F>(
        &self,
        kind: Call,
        what: &str,
        questions: &[Q],
        ask: impl Fn(Arc<Session>, Vec<Q>) -> F,
    ) -> Result<(Vec<A>, u32), LinkError>
    where
        Q: Clone,
        F: Future<Output = Result<Vec<A>, Error>>,
    {
        let (mut answers, mut calls) = (Vec::with_capacity(questions.len()), 0u32);
        let mut rest = questions;
        while !rest.is_empty() {
            let size = self.limits.per_call(kind).min(rest.len());
            let (now, later) = rest.split_at(size);
            calls = calls.saturating_add(1);
            match self.call(what, ask(self.session.clone(), now.to_vec())).await? {
                Ok(got) if got.len() == now.len() => {
                    answers.extend(got);
                    rest = later;
                }
                Ok(got) => {
                    return Err(self.broken(format!("{what}: {} answers to {} questions", got.len(), now.len())));
                }
                Err(status) if self.limits.fewer(kind, size, status) => {}
                Err(status) => return Err(self.lost(format!("{what}: {status}"))),
            }
        }
        Ok((answers, calls))
    }

    pub(super) async fn read(&self, nodes: &[ReadValueId]) -> Result<(Vec<DataValue>, u32), LinkError> {
        let ask = |session: Arc<Session>, nodes: Vec<ReadValueId>| async move {
            session.read(&nodes, TimestampsToReturn::Both, 0.0).await
        };
        self.chunked(Call::Read, "a read", nodes, ask).await
    }

    pub(super) async fn write(&self, values: &[WriteValue]) -> Result<Vec<StatusCode>, LinkError> {
        let ask = |session: Arc<Session>, values: Vec<WriteValue>| async move { session.write(&values).await };
        Ok(self.chunked(Call::Write, "a write", values, ask).await?.0)
    }

    async fn heed_limits(&self) -> Result<(), LinkError> {
        let nodes: Vec<ReadValueId> = OPERATION_LIMITS.into_iter().map(|id| value_of(node(id))).collect();
        let (said, _) = self.read(&nodes).await?;
        self.limits.heed(&said);
        Ok(())
    }

    /// The server's namespaces; the place of a URI is its index.
    pub(super) async fn namespaces(&self) -> Result<Namespaces, LinkError> {
        let (answer, _) = self.read(&[value_of(VariableId::Server_NamespaceArray.into())]).await?;
        let uris = match answer.into_iter().next().and_then(|a| a.value) {
            Some(Variant::Array(array)) => array.values,
            _ => return Err(self.broken("it has no table of namespaces")),
        };
        let text = |v: Variant| if let Variant::String(s) = v { s.as_ref().to_string() } else { String::new() };
        Ok(Namespaces(uris.into_iter().map(text).collect()))
    }
}

/// The server's namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces(pub(super) Vec<String>);

impl Namespaces {
    /// The node a name means; `None` if the server does not have its namespace (yet).
    pub(super) fn resolve(&self, name: &NodeName) -> Option<NodeId> {
        let index = match &name.uri {
            Some(uri) => self.0.iter().position(|known| known == uri).and_then(|n| u16::try_from(n).ok())?,
            None => 0,
        };
        name.resolve(index)
    }

    /// A node's name with the URI of its namespace, which outlives a restart of the server.
    pub(super) fn name(&self, node: &NodeId) -> String {
        match self.0.get(usize::from(node.namespace)).filter(|uri| node.namespace > 0 && !uri.is_empty()) {
            Some(uri) => format!("nsu={};{}", escaped(uri), node.identifier),
            None => node.to_string(),
        }
    }

    /// The same for a name that may bring its URI along.
    pub(super) fn expanded(&self, node: &ExpandedNodeId) -> String {
        match node.namespace_uri.as_ref() {
            "" => self.name(&node.node_id),
            uri => format!("nsu={};{}", escaped(uri), node.node_id.identifier),
        }
    }
}

/// The question for a node's value.
pub(super) fn value_of(node_id: NodeId) -> ReadValueId {
    ReadValueId { node_id, attribute_id: AttributeId::Value as u32, ..ReadValueId::default() }
}
