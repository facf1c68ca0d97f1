//! A Sparkplug B 3.0 edge node: births with aliases, data by exception, a death that is announced before it comes, commands from hosts.
//!
//! | file | in one line |
//! |---|---|
//! | [`payload`] | the protobuf message, by hand |
//! | [`types`], `arrays` | values in the types of Sparkplug |
//! | [`hub`] | the last value of every tag, and which device lives |
//! | [`alarms`] | the alarms that stand, as a table |
//! | [`templates`] | what devices of one profile have in common |
//! | [`node`] | what is said when |

pub mod alarms;
mod arrays;
pub mod hub;
pub mod node;
pub mod payload;
pub mod templates;
pub mod types;

pub use hub::Hub;
pub use node::{FIRST_DEVICE_ALIAS, Node, NodePlan};
