//! The field: lines, devices, and tags with value, quality and age.

use super::Face;
use super::guard::{As, VIEWER};
use super::problem::{Asked, Problem};
use crate::board::stamp;
use crate::config::{DevicePlan, LinePlan, Meaning, PointPlan};
use crate::field::view::{Look, LookSender, PointSeen};
use crate::live::frames::{self, LineView};
use crate::telemetry::payload::{UNTRUSTED, json_value, quality_name};
use arc_swap::ArcSwap;
use axum::Json;
use axum::extract::State;
use control_core::image::Quality;
use device_drivers::Number;
use device_drivers::value::Cause;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

/// Tags in one answer.
const TAGS_MAX: usize = 500;
/// How long a line may take to say what it knows; it says so when it sweeps, once a second or more often.
const LOOK_LIMIT: Duration = Duration::from_millis(1500);

/// The tags, to be searched, and the lines to be asked; replaced whole when a configuration is reloaded.
#[derive(Default)]
pub struct FieldIndex(ArcSwap<Vec<Arc<IndexedLine>>>);

/// A line, for who searches its tags.
pub struct IndexedLine {
    name: Arc<str>,
    devices: Arc<[DevicePlan]>,
    points: Arc<[PointPlan]>,
    looks: LookSender,
}

impl FieldIndex {
    /// Shows these lines and no others.
    pub(crate) fn show(&self, lines: Vec<Arc<IndexedLine>>) {
        self.0.store(Arc::new(lines));
    }
}

/// Lines with their devices.
#[utoipa::path(get, path = "/api/v1/field", tag = "field", responses((status = 200, body = Vec<LineView>)))]
pub(super) async fn lines(_: As<VIEWER>, State(face): State<Arc<Face>>) -> Json<Vec<LineView>> {
    Json(frames::field(&face.stages))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TagQuery {
    /// Only tags in whose `device/tag` this text stands.
    q: Option<String>,
    /// Only tags of this line.
    line: Option<String>,
    /// Only tags that are not Good: bad, uncertain and refused ones, with the reason.
    bad: Option<bool>,
    /// So many at most; 100 when nothing is said.
    limit: Option<u32>,
}

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TagView {
    /// Its line.
    line: String,
    /// `device/tag`.
    tag: String,
    /// The last value known; a number, a text, true or false, a list of words, or nothing.
    value: serde_json::Value,
    /// good, uncertain, bad.
    quality: &'static str,
    /// Why not further.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Since when it has been so at its source, RFC 3339.
    source_time: String,
    /// When its source last said so, RFC 3339.
    confirmed_time: String,
    /// Since it was last confirmed, seconds: small while somebody reads it, whether it changes or not.
    age_s: f64,
    /// Since it last changed, seconds, as far as this run knows.
    unchanged_s: f64,
    /// `untrusted`: nobody has set the clock of its source time yet, or it has gone back.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'static str>,
    /// `not in force`: its deadband_percent is a part of a range that its server does not know, and every change is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadband: Option<&'static str>,
    /// Whether it may be written, and from what to what.
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<WriteRange>,
    /// What it is to people.
    #[serde(flatten)]
    meaning: MeaningView,
}

/// What a tag is to people, as its profile or table says it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct MeaningView {
    /// Unit of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// The tag in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Lower end of the range that displays show.
    #[serde(skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    /// Upper end of that range.
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
}

impl MeaningView {
    fn of(point: Option<&PointPlan>) -> MeaningView {
        let meaning = point.and_then(|p| p.meaning.as_deref()).cloned().unwrap_or_default();
        let Meaning { unit, description, low, high } = meaning;
        MeaningView { unit, description, low, high }
    }
}

/// What may be written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WriteRange {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    min: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    max: Option<serde_json::Number>,
}

/// Tags, and how many there are that match.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tags {
    /// How many match; with `bad`, how many are shown.
    total: usize,
    /// The first of them.
    tags: Vec<TagView>,
}

/// Tags with value, quality and age. What nobody asks for costs nothing; what is asked for is asked of its line's own task.
#[utoipa::path(get, path = "/api/v1/tags", tag = "field", params(TagQuery), responses((status = 200, body = Tags)))]
pub(super) async fn tags(
    _: As<VIEWER>,
    State(face): State<Arc<Face>>,
    Asked(query): Asked<TagQuery>,
) -> Result<Json<Tags>, Problem> {
    let limit = query.limit.map_or(100, |n| usize::try_from(n).unwrap_or(TAGS_MAX)).min(TAGS_MAX);
    let needle = query.q.unwrap_or_default().to_lowercase();
    let mut all = Tags { total: 0, tags: Vec::new() };
    for line in face.field.0.load_full().iter() {
        if query.line.as_deref().is_some_and(|l| l != &*line.name) {
            continue;
        }
        if query.bad == Some(true) {
            let seen = line.look(Vec::new(), Some(crate::field::view::POINTS_MAX)).await.unwrap_or_default();
            let fits = |p: &&PointSeen| needle.is_empty() || line.tag(p.point).to_lowercase().contains(&needle);
            let room = limit - all.tags.len().min(limit);
            all.tags.extend(seen.iter().filter(fits).take(room).map(|p| line.view(p.point, Some(p))));
            all.total = all.tags.len();
            continue;
        }
        let found = line.find(&needle);
        all.total += found.len();
        let room = limit - all.tags.len().min(limit);
        let wanted: Vec<u32> = found.into_iter().take(room).collect();
        if wanted.is_empty() {
            continue;
        }
        let seen = line.look(wanted.clone(), None).await.unwrap_or_default();
        let by_point: HashMap<u32, &PointSeen> = seen.iter().map(|p| (p.point, p)).collect();
        all.tags.extend(wanted.into_iter().map(|n| line.view(n, by_point.get(&n).copied())));
    }
    Ok(Json(all))
}

impl IndexedLine {
    /// Of a plan; `looks` is where the line is asked.
    pub(crate) fn new(plan: &LinePlan, looks: LookSender) -> IndexedLine {
        let (name, devices, points) = (plan.name.clone(), plan.devices.clone(), plan.points.clone());
        IndexedLine { name, devices, points, looks }
    }

    /// Its devices and points.
    pub(crate) fn parts(&self) -> (&[DevicePlan], &[PointPlan]) {
        (&self.devices, &self.points)
    }

    fn tag(&self, point: u32) -> String {
        let Some(p) = self.points.get(point as usize) else { return String::new() };
        let device = self.devices.get(p.device as usize).map_or("?", |d| &*d.name);
        format!("{device}/{}", p.tag)
    }

    /// Points that are published and whose name contains a text.
    fn find(&self, needle: &str) -> Vec<u32> {
        let points = self.points.iter().enumerate().filter(|(_, p)| p.publish).map(|(n, _)| n as u32);
        points.filter(|n| needle.is_empty() || self.tag(*n).to_lowercase().contains(needle)).collect()
    }

    /// Asks the line; `None` when it does not answer in time.
    async fn look(&self, points: Vec<u32>, bad: Option<usize>) -> Option<Vec<PointSeen>> {
        let (reply, answer) = oneshot::channel();
        self.looks.try_send(Look { points, bad, reply }).ok()?;
        tokio::time::timeout(LOOK_LIMIT, answer).await.ok()?.ok()
    }

    fn view(&self, point: u32, seen: Option<&PointSeen>) -> TagView {
        let plan = self.points.get(point as usize);
        let rule = plan.and_then(|p| p.write.as_ref());
        let write = rule.map(|r| WriteRange { min: r.min.and_then(bound), max: r.max.and_then(bound) });
        let (line, tag, meaning) = (self.name.to_string(), self.tag(point), MeaningView::of(plan));
        let Some(seen) = seen else {
            let cause = Some("the line does not answer right now".into());
            let (value, source_time, confirmed_time) = (serde_json::Value::Null, stamp(0), stamp(0));
            let (quality, age_s, unchanged_s, clock) = ("bad", 0.0, 0.0, None);
            return TagView {
                line,
                tag,
                value,
                quality,
                cause,
                source_time,
                confirmed_time,
                age_s,
                unchanged_s,
                clock,
                deadband: None,
                write,
                meaning,
            };
        };
        let mut text = Vec::new();
        json_value(&mut text, seen.value.as_ref());
        TagView {
            line,
            tag,
            value: serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null),
            quality: quality_name(seen.quality),
            cause: (seen.quality != Quality::Good || seen.cause != Cause::None).then(|| seen.cause.to_string()),
            source_time: stamp(seen.source_ms),
            confirmed_time: stamp(seen.confirmed_ms),
            age_s: seen.ages[1].as_secs_f64(),
            unchanged_s: seen.ages[0].as_secs_f64(),
            clock: (!seen.is_timed).then_some(UNTRUSTED),
            deadband: seen.is_unfiltered.then_some("not in force"),
            write,
            meaning,
        }
    }
}

/// A limit as JSON says it: a whole one keeps all its digits.
fn bound(limit: Number) -> Option<serde_json::Number> {
    let whole = match limit {
        Number::Whole(n) => serde_json::Number::from_i128(n),
        Number::Real(_) => None,
    };
    whole.or_else(|| serde_json::Number::from_f64(limit.as_f64()))
}
