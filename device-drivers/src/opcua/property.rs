//! Properties of nodes: what a server says beside a value, such as its range and the names of its choices.
//!
//! ```text
//!   (node, "EURange") ──TranslateBrowsePaths, so many a call──> the property's node, or none ──Read──> its value
//! ```
//!
//! That a server has none of them, or does not even know the service, is nothing bad: it only knows less.

use super::limits::Call;
use super::session::{Link, value_of};
use crate::driver::LinkError;
use opcua::client::Session;
use opcua::types::{
    Array, BrowsePath, BrowsePathResult, EUInformation, EnumValueType, ExtensionObject, NodeId, QualifiedName, Range,
    ReferenceTypeId, RelativePath, RelativePathElement, StatusCode, Variant,
};
use std::sync::Arc;

/// Properties asked for in one call, at most: not every server says how many it takes.
const PER_CALL: usize = 100;

/// Longest name of a unit or a choice, characters.
const NAME_MAX: usize = 100;

/// The values of properties, each by its node and its name; `None` where there is none.
pub(super) async fn read(link: &Link, wanted: &[(NodeId, &str)]) -> Result<Vec<Option<Variant>>, LinkError> {
    let ask = |session: Arc<Session>, paths: Vec<BrowsePath>| async move {
        let count = paths.len();
        match session.translate_browse_paths_to_node_ids(&paths).await {
            // Asked one by one, a service that is not there is a property that is not there.
            Err(e) if is_absent(e.status()) => Ok(vec![BrowsePathResult::default(); count]),
            answer => answer,
        }
    };
    let mut nodes: Vec<Option<NodeId>> = Vec::with_capacity(wanted.len());
    for wanted in wanted.chunks(PER_CALL) {
        let paths: Vec<BrowsePath> = wanted.iter().map(path).collect();
        let (answers, _) = link.chunked(Call::Browse, "asking for properties", &paths, ask).await?;
        nodes.extend(answers.into_iter().map(target));
    }
    let questions: Vec<_> = nodes.iter().flatten().cloned().map(value_of).collect();
    let (answers, _) = link.read(&questions).await?;
    let mut answers = answers.into_iter();
    let value = |node: Option<NodeId>| {
        let data = node.and_then(|_| answers.next())?;
        data.value.filter(|_| data.status.is_none_or(|s| !s.is_bad()))
    };
    Ok(nodes.into_iter().map(value).collect())
}

fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::BadServiceUnsupported | StatusCode::BadNotImplemented | StatusCode::BadNothingToDo)
}

fn path((node, name): &(NodeId, &str)) -> BrowsePath {
    let element = RelativePathElement {
        reference_type_id: ReferenceTypeId::HasProperty.into(),
        is_inverse: false,
        include_subtypes: true,
        target_name: QualifiedName::new(0, *name),
    };
    BrowsePath { starting_node: node.clone(), relative_path: RelativePath { elements: Some(vec![element]) } }
}

fn target(result: BrowsePathResult) -> Option<NodeId> {
    let good = result.status_code.is_good();
    let here = result.targets.unwrap_or_default().into_iter().find(|t| t.target_id.server_index == 0);
    here.map(|t| t.target_id.node_id).filter(|node| good && !node.is_null())
}

/// The two ends of a range, if it is one with something between them.
pub(super) fn range(value: &Variant) -> Option<(f64, f64)> {
    let Variant::ExtensionObject(object) = value else { return None };
    let Range { low, high } = object.inner_as::<Range>()?;
    (low.is_finite() && high.is_finite() && high > low).then_some((*low, *high))
}

/// The unit, as people write it.
pub(super) fn unit(value: &Variant) -> Option<String> {
    let Variant::ExtensionObject(object) = value else { return None };
    let unit = short(object.inner_as::<EUInformation>()?.display_name.text.as_ref().trim());
    Some(unit).filter(|unit| !unit.is_empty())
}

/// The names of choices: `EnumStrings` count from 0, `EnumValues` bring their numbers along.
pub(super) fn choices(value: &Variant) -> Option<Vec<(i64, String)>> {
    let Variant::Array(array) = value else { return None };
    let Array { values, .. } = array.as_ref();
    let choice = |(n, value): (i64, &Variant)| match value {
        Variant::LocalizedText(text) => Some((n, short(text.text.as_ref()))),
        Variant::ExtensionObject(object) => choice_of(object),
        _ => None,
    };
    let choices: Vec<_> = (0..).zip(values).map(choice).collect::<Option<_>>()?;
    Some(choices).filter(|choices| !choices.is_empty())
}

fn choice_of(object: &ExtensionObject) -> Option<(i64, String)> {
    let choice = object.inner_as::<EnumValueType>()?;
    Some((choice.value, short(choice.display_name.text.as_ref())))
}

/// As much of a name as anybody reads.
fn short(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}
