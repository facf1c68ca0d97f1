//! Node names as people write them.

use opcua::types::NodeId;
use std::str::FromStr;

/// A node as the configuration names it: `ns=2;s=Name`, or better `nsu=urn:maker:plc;s=Name`, because a namespace's index
/// may change with every start of a server and its URI does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    pub(super) uri: Option<String>,
    pub(super) rest: String,
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeName, String> {
        let fail = || {
            format!("\"{text}\" is no node id: expected \"nsu=<namespace URI>;s=<name>\" or \"ns=<index>;i=<number>\"")
        };
        let (uri, rest) = match text.strip_prefix("nsu=") {
            Some(tail) => {
                let at = end_of_uri(tail).ok_or_else(fail)?;
                let (uri, rest) = tail.split_at_checked(at).ok_or_else(fail)?;
                (Some(plain(uri)), rest.strip_prefix(';').unwrap_or(rest).to_string())
            }
            None => (None, text.to_string()),
        };
        let name = NodeName { uri, rest };
        name.resolve(1).ok_or_else(fail)?;
        Ok(name)
    }
}

impl NodeName {
    pub(super) fn resolve(&self, index: u16) -> Option<NodeId> {
        let text = if self.uri.is_some() { format!("ns={index};{}", self.rest) } else { self.rest.clone() };
        NodeId::from_str(&text).ok()
    }
}

/// Where a namespace URI ends: at the first `;` that an identifier follows. A `;` of its own should be written `%3B` (OPC 10000-6,
/// 5.1.12), and is not by everybody.
fn end_of_uri(text: &str) -> Option<usize> {
    let identifier =
        |at: &usize| [";i=", ";s=", ";g=", ";b="].iter().any(|id| text.get(*at..).is_some_and(|t| t.starts_with(id)));
    text.match_indices(';').map(|(at, _)| at).find(identifier)
}

/// A URI as it is, from how it is written in a node's name.
fn plain(uri: &str) -> String {
    uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
}

/// A URI as it is written in a node's name.
pub(super) fn escaped(uri: &str) -> String {
    uri.replace('%', "%25").replace(';', "%3B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_with_a_namespace_uri_are_resolved_by_the_servers_table() {
        let name: NodeName = "nsu=urn:maker:plc;s=Cell.State".parse().unwrap();
        assert_eq!(name.resolve(7), NodeId::from_str("ns=7;s=Cell.State").ok());
        let fixed: NodeName = "ns=2;i=1001".parse().unwrap();
        assert_eq!(fixed.resolve(7), NodeId::from_str("ns=2;i=1001").ok());
    }

    #[test]
    fn a_uri_may_hold_what_separates_it_from_the_identifier() {
        let uri = "urn:maker;plc;s 100%3B";
        let name: NodeName = format!("nsu={};s=A;s=B", escaped(uri)).parse().unwrap();
        assert_eq!((name.uri.as_deref(), &*name.rest), (Some(uri), "s=A;s=B"));
        let name: NodeName = "nsu=urn:maker;plc;i=7".parse().unwrap();
        assert_eq!((name.uri.as_deref(), &*name.rest), (Some("urn:maker;plc"), "i=7"), "as it should not be written");
    }

    #[test]
    fn what_is_no_node_id_is_told_what_one_looks_like() {
        for text in ["Cell.State", "nsu=urn:maker", "nsu=urn:maker;x=1", "ns=x;i=1", ""] {
            let why = text.parse::<NodeName>().unwrap_err();
            assert!(why.contains("nsu=<namespace URI>;s=<name>"), "{why}");
        }
    }
}
