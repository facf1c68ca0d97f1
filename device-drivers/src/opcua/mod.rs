//! OPC UA client: one session, one subscription, watched; what does not fit is read in turn.
//!
//! ```text
//!   security ── whom to trust, what is offered ──> session ── calls in chunks ──> server
//!                                                    │
//!            watch ── which point comes how ─────────┤
//!                                                    v
//!   server ──publish──> async-opcua event loop ──batches──> work ──readings, one batch a device──> LineSink
//!                            └── any PublishResponse ──> sign of life ──> watchdog
//!                                                       work <── blocks, writes ── LineSink, wishes
//! ```
//!
//! | room | decides |
//! |---|---|
//! | [`spec`] | what a line is to do |
//! | [`pki`] | keys, certificates, whom we trust |
//! | `security` | before the first word: is this the server, does it offer what we ask for |
//! | `guard`, `opening`, `nesting` | how large a message may claim to be, how a channel may be opened, how deep diagnostics may go |
//! | `session` | one session and its calls |
//! | [`limits`] | how much a server takes |
//! | `watch` | which point comes how |
//! | `work` | what is done when |
//! | `write` | writes that people ask for |
//! | `decode`, `kind` | values, and values as a node takes them |
//! | `property` | what a server says beside a value |
//! | `types` | what nodes declare their values to be |
//! | `status` | whose trouble a status is |
//! | [`browse`] | what there is |

pub mod browse;
mod decode;
pub(crate) mod fuzz_doors;
mod guard;
mod kind;
pub mod limits;
mod nesting;
mod node;
mod opening;
pub mod pki;
mod probe;
mod property;
mod rooms;
mod security;
mod session;
pub mod spec;
mod status;
mod types;
mod watch;
mod work;
mod write;

pub use node::NodeName;
pub use probe::probe;
pub use spec::{Deadband, Identity, MessageMode, Mode, OpcUaSpec, Policy, Security, UaPoint, Vendor};
pub use status::advice;
pub use types::{NodeType, Scalar};

use crate::block::CommandBlock;
use crate::driver::{Driver, LinkError, TagWrite};
use crate::line::LineSink;
use crate::value::Reading;
use control_core::units::MachineId;
use opcua::types::NodeId;
use session::{Namespaces, Opened};
use std::time::Duration;
use tokio::sync::{mpsc, watch as stop_watch};
use watch::{Batch, Watch};
use write::Kinds;

/// Without a PublishResponse for this long, or for three keep-alives if these are longer, a subscription is taken for dead.
pub const WATCHDOG: Duration = Duration::from_secs(4);

/// A link that is up.
struct Live {
    opened: Opened,
    names: Namespaces,
    watch: Watch,
    batches: mpsc::Receiver<Batch>,
    /// Readings of what was refused while connecting.
    refused: Vec<Reading>,
    /// Nodes of command blocks; `None` while the server does not have them.
    commands: Vec<(MachineId, Option<NodeId>)>,
    kinds: Kinds,
}

/// OPC UA client of one line.
pub struct OpcUa {
    spec: OpcUaSpec,
    live: Option<Live>,
}

impl OpcUa {
    /// A client that is not connected yet.
    pub fn new(spec: OpcUaSpec) -> OpcUa {
        OpcUa { spec, live: None }
    }
}

impl Driver for OpcUa {
    fn peer(&self) -> String {
        self.spec.endpoint.clone()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.live = None;
        let opened = session::open(&self.spec).await?;
        let names = opened.link.namespaces().await?;
        let (watch, batches, refused) = watch::begin(&opened.link, &self.spec, &names).await?;
        let commands = self.spec.commands.iter().map(|(machine, name)| (*machine, names.resolve(name))).collect();
        self.live = Some(Live { opened, names, watch, batches, refused, commands, kinds: Kinds::new() });
        Ok(())
    }

    async fn serve<S: LineSink>(
        &mut self,
        sink: &mut S,
        wishes: &mut mpsc::Receiver<TagWrite>,
        stop: &mut stop_watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        match self.live.as_mut() {
            Some(live) => work::work(&self.spec, live, sink, wishes, stop).await,
            None => Err(LinkError::Lost { peer: self.spec.endpoint.clone(), why: "not connected".into() }),
        }
    }

    fn close(&mut self) {
        self.live = None;
    }
}

/// The value of a command block, written as a whole.
fn block_value(block: &CommandBlock) -> opcua::types::Variant {
    opcua::types::Variant::from(block.to_vec())
}
