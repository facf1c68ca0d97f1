//! What an edge node knows of its devices: the last value of every tag, for births; which device lives; and readings as records of the spool.
//!
//! ```text
//!   field lines ──say──> hub ──> [ last value, quality, source time ] ──> NBIRTH, DBIRTH
//!                         └────> record (names, values) ──> spool ──> DDATA, when it is sent: aliases are those of that session
//! ```
//!
//! A device that is an instance of a template says its tags as members of it: see [`super::templates`].
//!
//! A record holds names, not aliases: it may be sent by a later run, with another configuration.

use super::payload::{DataType, Metric, MetricValue, birth_properties, metric_value, quality};
use super::templates::{Instance, Member, Profile};
use crate::config::plan::{DriverPlan, LinePlan, Meaning, PointPlan, Role};
use crate::telemetry::payload::{Said, json_of};
use control_core::image::Quality;
use device_drivers::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A device that has come up waits this long for values of all its tags before its birth says that some have none.
const GATHER: Duration = Duration::from_secs(1);

/// A tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// Its name.
    pub name: Arc<str>,
    /// The last value.
    pub value: Option<Value>,
    /// The type that births say.
    pub datatype: DataType,
    /// The configuration says the type: nothing that is read changes it.
    is_declared: bool,
    quality: u32,
    source_ms: u64,
    was_read: bool,
    /// Quality and source time that the last birth said.
    born: Option<(u32, u64)>,
    /// Which member of the device's template it is; `None`: a metric of its own.
    member: Option<usize>,
    /// Whether a host may write it.
    pub writable: bool,
    meaning: Option<Arc<Meaning>>,
}

impl Tag {
    /// Whether the last birth has said this reading already.
    pub fn was_born_with(&self, reading: &Reading<'_>) -> bool {
        self.born == Some((reading.quality, reading.source_ms))
    }
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name: the device id.
    pub name: Arc<str>,
    /// Alias of its first tag.
    pub first_alias: u64,
    /// Its tags.
    pub tags: Vec<Tag>,
    index: HashMap<Arc<str>, usize>,
    /// What makes it an instance of a template.
    instance: Option<Instance>,
    /// Since when it answers; `None`: it does not.
    alive_since: Option<Instant>,
    /// A type has changed: it has to be born again.
    pub has_changed: bool,
}

impl Device {
    /// Whether it answers, and has said what it has to say.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.alive_since.is_some_and(|since| now >= since + GATHER || self.tags.iter().all(|t| t.was_read))
    }

    /// Whether it answers.
    pub fn is_alive(&self) -> bool {
        self.alive_since.is_some()
    }

    /// Its tags as a birth says them. What it has not read yet is of the type that another device of its profile has read.
    pub fn birth(&mut self, profiles: &[Profile]) -> Vec<Metric> {
        let members = self.instance.as_ref().and_then(|i| profiles.get(i.profile)).map_or(&[][..], |p| &p.members);
        for tag in &mut self.tags {
            tag.born = Some((tag.quality, tag.source_ms));
            let is_open = tag.value.is_none() && !tag.is_declared;
            if let Some(member) = tag.member.and_then(|n| members.get(n)).filter(|_| is_open) {
                tag.datatype = member.datatype;
            }
        }
        let metric = |(n, tag): (usize, &Tag)| {
            let value = tag.value.as_ref().and_then(|value| metric_value(value, tag.datatype));
            Metric {
                name: Some(tag.name.to_string()),
                alias: self.alias(n, tag),
                timestamp: Some(tag.source_ms),
                datatype: Some(tag.datatype as u32),
                is_null: value.is_none().then_some(true),
                properties: Some(birth_properties(tag.quality, tag.meaning.as_deref())),
                value,
                ..Metric::default()
            }
        };
        self.gather(self.tags.iter().enumerate().map(metric).collect(), true)
    }

    /// Metrics of its tags as messages have them: members stand together in an instance.
    pub fn gather(&self, metrics: Vec<Metric>, in_birth: bool) -> Vec<Metric> {
        match &self.instance {
            Some(instance) => instance.gather(metrics, in_birth),
            None => metrics,
        }
    }

    /// A tag and its alias, by name; a member of a template has none.
    pub fn tag(&self, name: &str) -> Option<(&Tag, Option<u64>)> {
        let n = *self.index.get(name)?;
        let tag = self.tags.get(n)?;
        Some((tag, self.alias(n, tag)))
    }

    fn alias(&self, n: usize, tag: &Tag) -> Option<u64> {
        tag.member.is_none().then_some(self.first_alias + n as u64)
    }

    fn by_alias(&self, alias: u64) -> Option<&Tag> {
        let tag = self.tags.get(usize::try_from(alias.checked_sub(self.first_alias)?).ok()?);
        tag.filter(|tag| tag.member.is_none())
    }

    /// What a host wants to write with a metric of a command: a tag, or members of the instance.
    pub fn asked<'a>(&'a self, metric: &'a Metric) -> Vec<(&'a Tag, &'a MetricValue)> {
        let one = |m: &'a Metric| {
            let by_name = m.name.as_deref().and_then(|n| self.tag(n)).map(|(tag, _)| tag);
            let tag = by_name.or_else(|| m.alias.and_then(|a| self.by_alias(a)));
            tag.zip(m.value.as_ref())
        };
        let is_meant = self.instance.as_ref().is_some_and(|i| i.is_meant_by(metric));
        match &metric.value {
            Some(MetricValue::Template(asked)) if is_meant => asked.metrics.iter().filter_map(one).collect(),
            _ => one(metric).into_iter().collect(),
        }
    }
}

/// Devices, and what those of a profile have in common.
#[derive(Debug, Default)]
pub struct Known {
    /// All devices.
    pub devices: Vec<Device>,
    /// Templates; none when tags are metrics of their own.
    pub profiles: Vec<Profile>,
}

/// What an edge node knows.
#[derive(Debug)]
pub struct Hub {
    known: Mutex<Known>,
    /// Rings when a device has come up, gone, or changed.
    pub nudge: Arc<Notify>,
}

impl Hub {
    /// The devices of these lines; aliases begin at `first_alias`. With `templates` each is an instance of its profile.
    pub fn new(lines: &[LinePlan], first_alias: u64, templates: bool) -> Arc<Hub> {
        let (mut known, mut next) = (Known::default(), first_alias);
        for line in lines {
            let types = types(line);
            for n in 0..line.devices.len() {
                known.add(line, n, &types, &mut next, templates);
            }
        }
        Arc::new(Hub { known: Mutex::new(known), nudge: Arc::default() })
    }

    /// All that is known, for as long as it is held: nothing is said meanwhile.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a device.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.known().devices.iter().position(|d| &*d.name == name)
    }

    /// Something is said of a tag.
    pub fn say(&self, device: usize, tag: &str, said: &Said<'_>) {
        let known = &mut *self.known();
        let Some(device) = known.devices.get_mut(device) else { return };
        let Some(tag) = device.index.get(tag).copied().and_then(|n| device.tags.get_mut(n)) else { return };
        let mut changed = false;
        if let Some(datatype) = said.value.filter(|_| !tag.is_declared).map(DataType::of) {
            changed = tag.born.is_some() && tag.datatype != datatype;
            tag.datatype = datatype;
            if let Some((instance, member)) = device.instance.as_ref().zip(tag.member)
                && let Some(profile) = known.profiles.get_mut(instance.profile)
            {
                profile.learn(member, datatype);
            }
        }
        // A device that says that it has no value takes the last one away.
        tag.value = said.value.cloned();
        (tag.quality, tag.source_ms, tag.was_read) = (quality_of(said.quality), said.source_ms, true);
        device.has_changed |= changed;
        let comes = said.quality == Quality::Good && device.alive_since.is_none();
        if comes {
            device.alive_since = Some(Instant::now());
        }
        if changed || comes {
            self.nudge.notify_one();
        }
    }

    /// A server declares what a tag is: that is its type, whatever is read.
    pub fn declare(&self, device: usize, tag: &str, datatype: DataType) {
        let known = &mut *self.known();
        let Some(device) = known.devices.get_mut(device) else { return };
        let Some(tag) = device.index.get(tag).copied().and_then(|n| device.tags.get_mut(n)) else { return };
        let changed = tag.datatype != datatype && tag.born.is_some();
        (tag.datatype, tag.is_declared) = (datatype, true);
        if let Some((instance, member)) = device.instance.as_ref().zip(tag.member)
            && let Some(profile) = known.profiles.get_mut(instance.profile)
        {
            profile.declare(member, datatype);
        }
        device.has_changed |= changed;
        if changed {
            self.nudge.notify_one();
        }
    }

    /// A device does not answer any more.
    pub fn gone(&self, device: usize) {
        if let Some(device) = self.known().devices.get_mut(device) {
            device.alive_since = None;
        }
        self.nudge.notify_one();
    }
}

impl Known {
    /// Adds device number `n` of a line.
    fn add(&mut self, line: &LinePlan, n: usize, types: &[Option<DataType>], next: &mut u64, templates: bool) {
        let Some(device) = line.devices.get(n) else { return };
        let mine = || line.points.iter().zip(types).filter(|(p, _)| p.device as usize == n && p.publish);
        let is_member = |point: &PointPlan| templates && point.role == Role::Telemetry;
        let mut members = 0..;
        let tags: Vec<Tag> = mine()
            .map(|(p, datatype)| Tag {
                name: p.tag.clone(),
                value: None,
                datatype: datatype.unwrap_or(DataType::Double),
                is_declared: datatype.is_some(),
                quality: quality::BAD,
                source_ms: device_drivers::value::wall_clock_ms(),
                was_read: false,
                born: None,
                member: is_member(p).then(|| members.next()).flatten(),
                writable: p.write.is_some(),
                meaning: p.meaning.clone(),
            })
            .collect();
        let index = tags.iter().enumerate().map(|(n, t)| (t.name.clone(), n)).collect();
        let (first_alias, name) = (*next, device.name.clone());
        *next += tags.len() as u64;
        let instance = tags.iter().any(|t| t.member.is_some()).then(|| {
            let found = self.profiles.iter().position(|p| p.name == device.profile);
            let profile = found.unwrap_or_else(|| {
                let members = mine().filter(|(p, _)| is_member(p)).map(|(p, t)| Member::new(p.tag.clone(), *t));
                self.profiles.push(Profile::new(line, device, *next, members.collect()));
                *next += 1;
                self.profiles.len() - 1
            });
            *next += 1;
            Instance::new(line, device, profile, *next - 1)
        });
        self.devices.push(Device { name, first_alias, tags, index, instance, alive_since: None, has_changed: false });
    }
}

/// The types that the configuration knows, point by point.
fn types(line: &LinePlan) -> Vec<Option<DataType>> {
    let mut types = vec![None; line.points.len()];
    let DriverPlan::Modbus(spec) = &line.driver else { return types };
    for point in spec.devices.iter().flat_map(|d| &d.points) {
        if let Some(datatype) = types.get_mut(point.id.0 as usize) {
            let is_bit = point.address.table.is_bits() || point.address.bits.is_some_and(|b| b.count == 1);
            *datatype = Some(if is_bit { DataType::Boolean } else { DataType::declared(&point.format) });
        }
    }
    types
}

/// A quality of ours as the property says it.
pub fn quality_of(quality: Quality) -> u32 {
    match quality {
        Quality::Good => quality::GOOD,
        Quality::Uncertain => quality::STALE,
        Quality::Bad => quality::BAD,
    }
}

/// Writes a reading behind others of a record: name, time, quality, value. Allocates nothing but what `out` needs to grow.
pub fn push_reading(out: &mut Vec<u8>, tag: &str, said: &Said<'_>) {
    put_bytes(out, tag.as_bytes());
    out.extend_from_slice(&said.source_ms.to_le_bytes());
    out.extend_from_slice(&(quality_of(said.quality) as u16).to_le_bytes());
    match said.value {
        None => out.push(0),
        Some(Value::Bool(b)) => out.extend_from_slice(&[1, u8::from(*b)]),
        Some(Value::Int(i)) => put_number(out, 2, i.to_le_bytes()),
        Some(Value::Uint(u)) => put_number(out, 3, u.to_le_bytes()),
        Some(Value::Float(f)) => put_number(out, 4, f.to_le_bytes()),
        Some(Value::Single(f)) => {
            out.push(5);
            out.extend_from_slice(&f.to_le_bytes());
        }
        Some(Value::Text(text)) => {
            out.push(6);
            put_bytes(out, text.as_bytes());
        }
        // Sparkplug's own arrays hold one plain type and no rows of rows: a row goes as the JSON text of it.
        Some(list @ Value::List(_)) => {
            out.push(6);
            put_bytes(out, json_of(list).as_bytes());
        }
        Some(Value::Words(words)) => {
            out.push(7);
            out.extend_from_slice(&(words.len() as u32 * 2).to_le_bytes());
            words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        }
    }
}

fn put_number(out: &mut Vec<u8>, kind: u8, bytes: [u8; 8]) {
    out.push(kind);
    out.extend_from_slice(&bytes);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A reading as it stands in a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading<'a> {
    /// Its tag.
    pub tag: &'a str,
    /// When it was true.
    pub source_ms: u64,
    /// How far it can be trusted, as the property says it.
    pub quality: u32,
    /// The value.
    pub value: Option<Value>,
}

/// The readings of a record; ends at the first that is none.
pub fn readings(mut bytes: &[u8]) -> impl Iterator<Item = Reading<'_>> {
    std::iter::from_fn(move || {
        let tag = std::str::from_utf8(take_bytes(&mut bytes)?).ok()?;
        let source_ms = u64::from_le_bytes(take(&mut bytes)?);
        let quality = u32::from(u16::from_le_bytes(take(&mut bytes)?));
        let [kind] = take(&mut bytes)?;
        let value = match kind {
            0 => None,
            1 => Some(Value::Bool(take::<1>(&mut bytes)? == [1])),
            2 => Some(Value::Int(i64::from_le_bytes(take(&mut bytes)?))),
            3 => Some(Value::Uint(u64::from_le_bytes(take(&mut bytes)?))),
            // NaN and infinities stand in records of older versions: they are no value.
            4 => Some(Value::Float(f64::from_le_bytes(take(&mut bytes)?))).filter(Value::is_finite),
            5 => Some(Value::Single(f32::from_le_bytes(take(&mut bytes)?))).filter(Value::is_finite),
            6 => Some(Value::Text(std::str::from_utf8(take_bytes(&mut bytes)?).ok()?.into())),
            7 => {
                let words = take_bytes(&mut bytes)?.chunks_exact(2);
                Some(Value::Words(words.map(|w| u16::from_le_bytes([w[0], w[1]])).collect()))
            }
            _ => return None,
        };
        let quality = if value.is_none() && quality == quality::GOOD { quality::BAD } else { quality };
        Some(Reading { tag, source_ms, quality, value })
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_drivers::value::Cause;
    use proptest::prelude::*;

    #[test]
    fn readings_come_back_as_they_went_in() {
        let values = [
            None,
            Some(Value::Bool(true)),
            Some(Value::Int(-5)),
            Some(Value::Uint(u64::MAX)),
            Some(Value::Float(2.5)),
            Some(Value::Single(0.1)),
            Some(Value::Text("ä".into())),
            Some(Value::Words([1, 65535].into())),
        ];
        let mut bytes = Vec::new();
        for (n, value) in values.iter().enumerate() {
            let (quality, cause, source_ms, confirmed_ms) = (Quality::Uncertain, Cause::Stale, n as u64, None);
            let said = Said { value: value.as_ref(), quality, cause, source_ms, confirmed_ms, is_timed: true };
            push_reading(&mut bytes, &format!("t{n}"), &said);
        }
        let back: Vec<_> = readings(&bytes).map(|r| (r.tag.to_string(), r.source_ms, r.quality, r.value)).collect();
        let want: Vec<_> =
            values.into_iter().enumerate().map(|(n, v)| (format!("t{n}"), n as u64, quality::STALE, v)).collect();
        assert_eq!(back, want);
    }

    fn device(name: &str) -> Device {
        let tag = Tag {
            name: name.into(),
            value: None,
            datatype: DataType::Double,
            is_declared: false,
            quality: quality::BAD,
            source_ms: 0,
            was_read: false,
            born: None,
            member: None,
            writable: true,
            meaning: None,
        };
        let (index, tags) = ([(tag.name.clone(), 0)].into(), vec![tag]);
        Device { name: "d".into(), first_alias: 1, tags, index, instance: None, alive_since: None, has_changed: false }
    }

    #[test]
    fn a_tag_is_born_in_the_type_that_its_server_declares_also_without_a_value() {
        let known = Known { devices: vec![device("t")], profiles: Vec::new() };
        let hub = Hub { known: Mutex::new(known), nudge: Arc::default() };
        let say = |value: Option<Value>| {
            let (quality, cause, source_ms, confirmed_ms) = (Quality::Good, Cause::None, 1, None);
            hub.say(0, "t", &Said { value: value.as_ref(), quality, cause, source_ms, confirmed_ms, is_timed: true });
        };
        let born = || {
            let metric = hub.known().devices[0].birth(&[]).remove(0);
            (metric.datatype.unwrap(), metric.is_null, metric.value)
        };
        say(Some(Value::Int(7)));
        assert_eq!(born(), (DataType::Int64 as u32, None, Some(MetricValue::Long(7))), "nobody says what it is");
        let rows = [
            (DataType::Int16, Some(Value::Int(-7)), Some(MetricValue::Int(-7i32 as u32))),
            (DataType::UInt8, Some(Value::Uint(7)), Some(MetricValue::Int(7))),
            (DataType::DateTime, Some(Value::Int(1_796_000_000_000)), Some(MetricValue::Long(1_796_000_000_000))),
            (DataType::Int32Array, Some(Value::List([].into())), Some(MetricValue::Bytes(Vec::new()))),
            (DataType::UInt16Array, Some(Value::Words([].into())), Some(MetricValue::Bytes(Vec::new()))),
            (DataType::StringArray, Some(Value::List([].into())), Some(MetricValue::Bytes(Vec::new()))),
            (DataType::Text, None, None),
        ];
        for (datatype, value, want) in rows {
            hub.declare(0, "t", datatype);
            assert!(std::mem::take(&mut hub.known().devices[0].has_changed), "{datatype:?}: it is born anew");
            say(value);
            let is_null = want.is_none().then_some(true);
            assert_eq!(born(), (datatype as u32, is_null, want));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            assert!(readings(&bytes).count() <= bytes.len());
        }
    }
}
