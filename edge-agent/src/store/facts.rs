//! The words of the store: what is written down, each kind of event with its own record.
//!
//! Records are the store's own, never the API's, and only ever grow: a key that is missing is one that an older version did not know, and a key that
//! is not known is one of a newer. What this version does not understand at all is left as it is, word for word. Everything is told by the names of
//! the floor file, never by numbers of places in memory, and times are instants, never "in ten minutes".

use super::event::{Event, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An order as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// `store`, `retrieve`, `process` or `route`.
    pub kind: String,
    /// The load.
    pub load: u32,
    /// Program of the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u16>,
    /// Which station, or group of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
    /// Of a `route`: where, and with which program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<Vec<(String, Option<u16>)>>,
    /// 0 rush .. 3 bulk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// How long it waits for its load, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u32>,
    /// As it was said, which may be `10m`; when that is, [`Taken`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Its sequence group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its number within the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Not begun before this one has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The same key is the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Class of an order that says none.
pub const CLASS: u8 = 1;
/// Program of a `process` that says none.
pub const PROGRAM: u16 = 1;
/// How long a `store` order waits for its load when it says nothing, seconds.
pub const WAIT_S: u32 = 600;

impl Wanted {
    /// How long it waits for its load, seconds.
    pub fn wait_s(&self) -> u32 {
        self.wait_s.unwrap_or(if self.kind == "store" { WAIT_S } else { 0 })
    }

    /// SHA-256 of all that it asks for, with what counts when nothing is said: a key stands for all of it, not for a load alone.
    pub fn digest(&self) -> String {
        let spelled_out = Wanted {
            class: Some(self.class.unwrap_or(CLASS)),
            program: self.program.or((self.kind == "process").then_some(PROGRAM)),
            wait_s: Some(self.wait_s()),
            ..self.clone()
        };
        hex(&Sha256::digest(serde_json::to_vec(&spelled_out).unwrap_or_default()).into())
    }
}

/// An order has a number from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Its number.
    pub id: u32,
    /// What was asked for.
    pub wanted: Wanted,
    /// SHA-256 of the whole request as it is compared: what its key stands for.
    #[serde(default)]
    pub digest: String,
    /// When it shall be done, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
}

/// Numbers of orders that may have been given to what is missing: none below `next` is given again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The next that is free.
    pub next: u32,
}

/// An order is in another state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turned {
    /// Number of the order.
    pub id: u32,
    /// `accepted`, `running`, `held`, `completed`, `rejected`, `failed`.
    pub state: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of `held`: what plant and record disagree about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// Something happened to an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the order.
    pub id: u32,
    /// In words, for its story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Its load is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A machine takes it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// So many stops are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<u8>,
}

/// An order is wanted otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Number of the order.
    pub id: u32,
    /// Another class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// It is withdrawn; `true` for at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<bool>,
}

/// An alarm has changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The row of the table.
    pub alarm: String,
    /// What it is about.
    pub subject: String,
    /// `raised`, `cleared`, `acknowledged`, `shelved`, `unshelved`.
    pub change: String,
    /// What is said of it.
    #[serde(default)]
    pub detail: String,
    /// Who, if it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// On the shelf until, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Why it was shelved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something of the floor was closed, or opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Closing {
    /// `place`, `road` or `zone`.
    pub what: String,
    /// Its name in the floor file.
    pub name: String,
    /// Closed; else open again.
    pub closed: bool,
}

/// What a person says of a mobile robot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Robot {
    /// Its name.
    pub robot: String,
    /// It is not on the floor; else it is where it says.
    pub absent: bool,
    /// It could be seen when that was said.
    #[serde(default)]
    pub seen: bool,
}

/// Somebody did something, or tried to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Did {
    /// User, token, or who a command says that it is from.
    pub who: String,
    /// The address it came from, or the topic.
    #[serde(default)]
    pub from: String,
    /// The door: `http`, `mqtt`, `sparkplug`, `cli`, `gateway`.
    #[serde(default)]
    pub via: String,
    /// `order.submit`, `tag.write`, `login` ..
    pub action: String,
    /// To what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// What came of it.
    pub outcome: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The key of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was to be written, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $kind:literal,)*) => {
        /// Something that is written down.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Fact {
            $($(#[$doc])* $name($name),)*
        }

        impl Fact {
            /// The kind of its event.
            pub fn kind(&self) -> &'static str {
                match self { $(Fact::$name(_) => $kind,)* }
            }

            /// What its event says.
            pub fn body(&self) -> Vec<u8> {
                let body = match self { $(Fact::$name(said) => serde_json::to_vec(said),)* };
                body.unwrap_or_default()
            }

            /// What an event says; `None` where this version does not understand it.
            pub fn of(event: &Event<'_>) -> Option<Fact> {
                match event.kind {
                    $($kind => serde_json::from_slice(event.body).ok().map(Fact::$name),)*
                    _ => None,
                }
            }
        }

        $(impl From<$name> for Fact {
            fn from(said: $name) -> Fact {
                Fact::$name(said)
            }
        })*
    };
}

facts! {
    /// An order has a number from now on.
    Taken = "order.taken",
    /// Numbers of orders that are left out.
    Numbers = "order.numbers",
    /// An order is in another state.
    Turned = "order.state",
    /// Something happened to an order.
    Step = "order.step",
    /// An order is wanted otherwise.
    Changed = "order.changed",
    /// An alarm has changed.
    Alarm = "alarm",
    /// Something was closed or opened.
    Closing = "closing",
    /// What a person says of a robot.
    Robot = "robot",
    /// Somebody did something.
    Did = "did",
}
