//! Templates (6.4.14): what devices of one profile have in common is told once, and every device is an instance of it.
//!
//! ```text
//!   press.toml ──> NBIRTH: metric `press`, the definition: force, setpoint; parameters Cell, Unit
//!   press-1    ──> DBIRTH: metric `press-1`, an instance of `press` with every member, and its own Cell and Unit
//!                  DDATA:  its alias, and the members that have changed
//! ```
//!
//! Members go by name and bring their type, as the message's own definition has it ("each metric includes a name, datatype, and optionally a
//! value"); an alias belongs to the instance alone, since it has to be unique among all metrics of the node. Load positions are the floor's and
//! not the profile's: they stay metrics of their own.
//!
//! Of a Modbus tag the configuration knows the type. That of an OPC UA node is known when some device has read it; if the definition said
//! another one by then, the node is born again. A type is settled by the first device that reads it: no tag can turn the node over twice.

use super::payload::{DataType, Metric, MetricValue, Parameter, ParameterValue, Template};
use crate::config::plan::{DevicePlan, DriverPlan, LinePlan};
use std::collections::HashMap;
use std::sync::Arc;

/// What the devices of a profile have in common.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name: that of the definition's metric, and what instances refer to.
    pub name: Arc<str>,
    /// Alias of the definition.
    pub alias: u64,
    /// Its members, in the order of the profile.
    pub members: Vec<Member>,
    /// What differs from device to device, and what it is where nothing is said.
    parameters: Vec<Parameter>,
    /// A type is another one than the last birth said.
    pub has_changed: bool,
}

/// A member of a template.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name: the tag's.
    pub name: Arc<str>,
    /// Its type.
    pub datatype: DataType,
    is_settled: bool,
}

/// What makes a device an instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Which of the profiles.
    pub profile: usize,
    template: Arc<str>,
    /// The device's name: that of the instance's metric.
    name: Arc<str>,
    alias: u64,
    parameters: Vec<Parameter>,
}

impl Member {
    /// A tag whose type the configuration knows, or does not.
    pub fn new(name: Arc<str>, datatype: Option<DataType>) -> Member {
        Member { name, datatype: datatype.unwrap_or(DataType::Double), is_settled: datatype.is_some() }
    }
}

impl Profile {
    /// The profile of this device.
    pub fn new(line: &LinePlan, device: &DevicePlan, alias: u64, members: Vec<Member>) -> Profile {
        // A unit is 1 where nothing is said, in the configuration as here; a cell is always said. Both have a default: the most used decoder
        // for JavaScript (npm sparkplug-payload) throws the whole birth away over a parameter without a value.
        let default = |v: ParameterValue| match v {
            ParameterValue::Text(_) => ParameterValue::Text(String::new()),
            _ => ParameterValue::Long(1),
        };
        let parameters = parameters(line, device).into_iter();
        let parameters = parameters.map(|p| Parameter { value: p.value.map(default), ..p }).collect();
        Profile { name: device.profile.clone(), alias, members, parameters, has_changed: false }
    }

    /// A device has read a member.
    pub fn learn(&mut self, member: usize, datatype: DataType) {
        let Some(member) = self.members.get_mut(member).filter(|m| !m.is_settled) else { return };
        self.has_changed |= member.datatype != datatype;
        (member.datatype, member.is_settled) = (datatype, true);
    }

    /// A server declares the type of a member, which counts for more than what was read.
    pub fn declare(&mut self, member: usize, datatype: DataType) {
        let Some(member) = self.members.get_mut(member) else { return };
        self.has_changed |= member.datatype != datatype;
        (member.datatype, member.is_settled) = (datatype, true);
    }

    /// The definition, as the NBIRTH says it.
    pub fn definition(&self, now_ms: u64) -> Metric {
        let member = |member: &Member| Metric {
            name: Some(member.name.to_string()),
            datatype: Some(member.datatype as u32),
            is_null: Some(true),
            ..Metric::default()
        };
        let definition = Template {
            version: Some(format!("{:08x}", self.sum())),
            metrics: self.members.iter().map(member).collect(),
            parameters: self.parameters.clone(),
            is_definition: Some(true),
            ..Template::default()
        };
        Metric {
            name: Some(self.name.to_string()),
            alias: Some(self.alias),
            timestamp: Some(now_ms),
            datatype: Some(DataType::Template as u32),
            value: Some(MetricValue::Template(definition)),
            ..Metric::default()
        }
    }

    /// Two definitions with other members or types have another version, on every gateway that has the profile.
    fn sum(&self) -> u32 {
        self.members.iter().fold(0, |sum, member| {
            let sum = crc32c::crc32c_append(sum, member.name.as_bytes());
            crc32c::crc32c_append(sum, &[0, member.datatype as u8])
        })
    }
}

impl Instance {
    /// A device as an instance of a profile.
    pub fn new(line: &LinePlan, device: &DevicePlan, profile: usize, alias: u64) -> Instance {
        let (template, name) = (device.profile.clone(), device.name.clone());
        Instance { profile, template, name, alias, parameters: parameters(line, device) }
    }

    /// Whether a metric of a command means it.
    pub fn is_meant_by(&self, metric: &Metric) -> bool {
        metric.name.as_deref().map_or(metric.alias == Some(self.alias), |name| *name == *self.name)
    }

    /// Members, which are the metrics without alias, stand together as an instance; what else there is stays as it is. A member that comes
    /// twice is another value, and belongs to another instance behind the first.
    pub fn gather(&self, metrics: Vec<Metric>, in_birth: bool) -> Vec<Metric> {
        let (mut all, members): (Vec<Metric>, Vec<Metric>) = metrics.into_iter().partition(|m| m.alias.is_some());
        let timestamp = members.iter().filter_map(|m| m.timestamp).max();
        let mut seen: HashMap<Option<String>, usize> = HashMap::new();
        let mut parts: Vec<Vec<Metric>> = Vec::new();
        for member in members {
            let n = seen.entry(member.name.clone()).or_default();
            if *n == parts.len() {
                parts.push(Vec::new());
            }
            parts[*n].push(member);
            *n += 1;
        }
        all.extend(parts.into_iter().map(|metrics| Metric {
            name: in_birth.then(|| self.name.to_string()),
            alias: Some(self.alias),
            timestamp,
            datatype: in_birth.then_some(DataType::Template as u32),
            is_historical: metrics.iter().find_map(|m| m.is_historical),
            value: Some(MetricValue::Template(Template {
                metrics,
                parameters: if in_birth { self.parameters.clone() } else { Vec::new() },
                template_ref: Some(self.template.to_string()),
                is_definition: Some(false),
                ..Template::default()
            })),
            ..Metric::default()
        }));
        all
    }
}

/// Where a device is.
fn parameters(line: &LinePlan, device: &DevicePlan) -> Vec<Parameter> {
    let parameter = |name: &str, datatype, value| Parameter {
        name: Some(name.into()),
        kind: Some(datatype as u32),
        value: Some(value),
    };
    let cell = parameter("Cell", DataType::Text, ParameterValue::Text(device.cell.to_string()));
    let is_modbus = matches!(line.driver, DriverPlan::Modbus(_));
    // An Int64, small as it is: of the integers this is the only one that every decoder reads in a parameter.
    let unit = is_modbus.then(|| parameter("Unit", DataType::Int64, ParameterValue::Long(device.unit.into())));
    [cell].into_iter().chain(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let name = |name: &str| -> Arc<str> { name.into() };
        Instance { profile: 0, template: name("press"), name: name("press-1"), alias: 20, parameters: Vec::new() }
    }

    fn member(name: &str, timestamp: u64) -> Metric {
        Metric { name: Some(name.into()), timestamp: Some(timestamp), ..Metric::default() }
    }

    /// Alias, time, and names of members of each metric.
    fn shape(metrics: &[Metric]) -> Vec<(Option<u64>, Option<u64>, String)> {
        let names = |m: &Metric| match &m.value {
            Some(MetricValue::Template(t)) => t.metrics.iter().filter_map(|m| m.name.as_deref()).collect::<String>(),
            _ => String::new(),
        };
        metrics.iter().map(|m| (m.alias, m.timestamp, names(m))).collect()
    }

    #[test]
    fn members_stand_together_and_what_comes_twice_is_another_instance_behind() {
        let plain = Metric { alias: Some(16), timestamp: Some(9), ..Metric::default() };
        let metrics = vec![member("a", 1), plain, member("b", 2), member("a", 3)];
        let told = instance().gather(metrics, false);
        let row = |alias, time, names: &str| (Some(alias), Some(time), names.to_string());
        assert_eq!(shape(&told), [row(16, 9, ""), row(20, 3, "ab"), row(20, 3, "a")]);
        assert_eq!(told[1].name, None, "data goes by alias");
        assert!(instance().gather(Vec::new(), false).is_empty(), "nothing is no instance");
        assert_eq!(instance().gather(vec![member("a", 1)], true)[0].name.as_deref(), Some("press-1"));
    }

    #[test]
    fn a_command_means_an_instance_by_its_name_or_its_alias() {
        let metric = |name: Option<&str>, alias| Metric { name: name.map(Into::into), alias, ..Metric::default() };
        let rows = [
            (metric(Some("press-1"), None), true),
            (metric(None, Some(20)), true),
            (metric(Some("press-2"), Some(20)), false),
            (metric(None, Some(21)), false),
            (metric(None, None), false),
        ];
        rows.iter().for_each(|(metric, want)| assert_eq!(instance().is_meant_by(metric), *want, "{metric:?}"));
    }

    #[test]
    fn a_type_is_settled_by_the_first_that_reads_it_or_by_the_configuration() {
        let members = vec![Member::new("a".into(), None), Member::new("b".into(), Some(DataType::UInt64))];
        let (name, parameters, has_changed) = ("press".into(), Vec::new(), false);
        let mut profile = Profile { name, alias: 21, members, parameters, has_changed };
        let version = profile.sum();
        profile.learn(0, DataType::Double);
        assert!(!profile.has_changed && profile.sum() == version, "it was guessed right");
        profile.members[0].is_settled = false;
        profile.learn(0, DataType::Boolean);
        assert!(profile.has_changed && profile.sum() != version);
        profile.has_changed = false;
        profile.learn(0, DataType::Int64);
        profile.learn(1, DataType::Int64);
        profile.learn(2, DataType::Int64);
        assert!(!profile.has_changed, "nothing turns it over twice");
        assert_eq!(
            profile.members.iter().map(|m| m.datatype).collect::<Vec<_>>(),
            [DataType::Boolean, DataType::UInt64]
        );
    }
}
