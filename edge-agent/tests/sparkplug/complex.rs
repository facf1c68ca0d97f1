//! The rules for DataSets (6.4.11 to 6.4.13) and Templates (6.4.14, 6.4.15), and for each of them messages that it has to refuse.

use super::Verdict::{self, Fail, NotExercised, Pass};
use super::{Msg, World};
use edge_agent::telemetry::sparkplug::payload::{
    CellValue, DataSet, Metric, MetricValue, Parameter, ParameterValue, Row, Template,
};
use std::collections::{BTreeMap, BTreeSet};

/// A template as it was told.
struct Told<'a> {
    /// In which kind of message.
    kind: &'a str,
    template: &'a Template,
    /// What the NBIRTH before it defines under the name that it refers to.
    definition: Option<&'a Template>,
}

impl World {
    /// Judges every DataSet that was told.
    pub(super) fn data_sets(&self, rule: &str) -> Verdict {
        let holds: fn(&DataSet) -> bool = match rule {
            "size" => |set| set.num_of_columns == Some(set.columns.len() as u64),
            "headers" => |set| set.columns.len() == set.types.len(),
            "typed" => |set| !set.types.is_empty(),
            "basic" => |set| set.types.iter().all(|t| is_basic(*t)),
            "cells" => cells_fit,
            other => return Fail(format!("there is no rule data-set:{other}")),
        };
        if let Some(topic) = self.undecoded.first() {
            return Fail(format!("{topic} does not decode"));
        }
        let values = self.msgs().flat_map(|m| &m.payload.metrics).filter_map(|m| m.value.as_ref());
        let sets = values.filter_map(|v| if let MetricValue::DataSet(set) = v { Some(set) } else { None });
        let sets: Vec<&DataSet> = sets.filter(|set| rule != "cells" || !set.rows.is_empty()).collect();
        match sets.iter().find(|set| !holds(set)) {
            Some(set) => Fail(format!("{set:?}")),
            None if sets.is_empty() => NotExercised("no DataSet was told".into()),
            None => Pass,
        }
    }
}

impl World {
    /// Every template that was told, members of templates among them.
    fn templates(&self) -> Vec<Told<'_>> {
        let mut all = Vec::new();
        for (_, msgs) in self.sessions() {
            let mut defined: BTreeMap<&str, &Template> = BTreeMap::new();
            for msg in msgs {
                if msg.kind == "NBIRTH" {
                    let named = |m: &'_ Metric| m.name.is_some();
                    let births = msg.payload.metrics.iter().filter(|m| named(m));
                    defined = births.filter_map(|m| Some((m.name.as_deref()?, template_of(m)?))).collect();
                    defined.retain(|_, template| template.is_definition == Some(true));
                }
                msg.payload.metrics.iter().for_each(|metric| tell(msg, metric, &defined, &mut all));
            }
        }
        all
    }

    /// Judges every template that a rule is about.
    pub(super) fn template(&self, rule: &str) -> Verdict {
        if let Some(topic) = self.undecoded.first() {
            return Fail(format!("{topic} does not decode"));
        }
        let all = self.templates();
        let judge = |which: fn(&Told<'_>) -> bool, holds: fn(&Told<'_>) -> bool| {
            let mut about = all.iter().filter(|told| which(told)).peekable();
            match (about.peek().is_some(), about.find(|told| !holds(told))) {
                (false, _) => NotExercised("no such template was told".into()),
                (true, Some(told)) => {
                    Fail(format!("in {}: {:?}, defined as {:?}", told.kind, told.template, told.definition))
                }
                (true, None) => Pass,
            }
        };
        match rule {
            "resolves" => judge(is_instance, |t| t.definition.is_some()),
            "resolves-in-births" => judge(|t| is_instance(t) && in_birth(t), |t| t.definition.is_some()),
            "defined-in-nbirth" => judge(|t| t.template.is_definition == Some(true), |t| t.kind == "NBIRTH"),
            // What a template is shows in what it refers to, and in what it says of itself: each has to agree with the other.
            "definition-says-so" => judge(|t| !is_instance(t), |t| t.template.is_definition == Some(true)),
            "instance-says-so" => judge(is_instance, |t| t.template.is_definition == Some(false)),
            "definition-refers-to-nothing" => judge(|t| t.template.is_definition == Some(true), |t| !is_instance(t)),
            "instance-refers" => judge(|t| t.template.is_definition == Some(false), |t| t.definition.is_some()),
            "says-what-it-is" => judge(|_| true, |t| t.template.is_definition.is_some()),
            "members-are-defined" => judge(|t| is_instance(t) && !t.template.metrics.is_empty(), members_are_defined),
            "birth-has-all-members" => judge(
                |t| is_instance(t) && in_birth(t),
                |t| {
                    let names = |t: &Template| t.metrics.iter().map(|m| m.name.clone()).collect::<BTreeSet<_>>();
                    members_are_defined(t) && t.definition.is_some_and(|d| names(d) == names(t.template))
                },
            ),
            // Exercised by an instance that leaves some out.
            "data-has-some-members" => judge(|t| is_instance(t) && !in_birth(t), members_are_defined).and(judge(
                |t| {
                    is_instance(t)
                        && !in_birth(t)
                        && t.definition.is_some_and(|d| t.template.metrics.len() < d.metrics.len())
                },
                |_| true,
            )),
            "parameters-are-defined" => judge(
                |t| is_instance(t) && !t.template.parameters.is_empty(),
                |t| {
                    let known = |p: &Parameter| {
                        t.definition
                            .is_some_and(|d| d.parameters.iter().any(|q| (&q.name, q.kind) == (&p.name, p.kind)))
                    };
                    t.template.parameters.iter().all(known)
                },
            ),
            "default-fits" => judge(|t| !is_instance(t) && parameters(t).any(|p| p.value.is_some()), values_fit),
            "version" => judge(|t| t.template.version.is_some(), |t| t.template.version.as_deref() != Some("")),
            "parameter-name" => {
                judge(has_parameters, |t| parameters(t).all(|p| p.name.as_deref().is_some_and(|n| !n.is_empty())))
            }
            "parameter-typed" => {
                judge(|t| has_parameters(t) && in_birth(t), |t| parameters(t).all(|p| p.kind.is_some()))
            }
            "parameter-basic" => judge(has_parameters, |t| parameters(t).all(|p| p.kind.is_none_or(is_basic))),
            "parameter-value" => judge(|t| parameters(t).any(|p| p.value.is_some()), values_fit),
            other => Fail(format!("there is no rule template:{other}")),
        }
    }
}

fn template_of(metric: &Metric) -> Option<&Template> {
    if let Some(MetricValue::Template(template)) = &metric.value { Some(template) } else { None }
}

fn tell<'a>(msg: &'a Msg, metric: &'a Metric, defined: &BTreeMap<&str, &'a Template>, all: &mut Vec<Told<'a>>) {
    let Some(template) = template_of(metric) else { return };
    let definition = template.template_ref.as_deref().and_then(|name| defined.get(name).copied());
    all.push(Told { kind: &msg.kind, template, definition });
    template.metrics.iter().for_each(|member| tell(msg, member, defined, all));
}

fn is_instance(told: &Told<'_>) -> bool {
    told.template.template_ref.is_some()
}

fn in_birth(told: &Told<'_>) -> bool {
    told.kind.ends_with("BIRTH")
}

fn parameters<'a>(told: &'a Told<'_>) -> impl Iterator<Item = &'a Parameter> {
    told.template.parameters.iter()
}

fn has_parameters(told: &Told<'_>) -> bool {
    !told.template.parameters.is_empty()
}

/// Every member is one of the definition, of the same type where it says one, and none comes twice.
fn members_are_defined(told: &Told<'_>) -> bool {
    let mut seen = BTreeSet::new();
    let fits = |member: &Metric, defined: &Metric| {
        member.name == defined.name && (member.datatype.is_none() || member.datatype == defined.datatype)
    };
    let is_defined = |m: &Metric| told.definition.is_some_and(|d| d.metrics.iter().any(|defined| fits(m, defined)));
    told.template.metrics.iter().all(|member| is_defined(member) && seen.insert(&member.name))
}

fn values_fit(told: &Told<'_>) -> bool {
    parameters(told).all(|parameter| match (&parameter.value, parameter.kind) {
        (None, _) => true,
        (Some(ParameterValue::Int(_)), kind) => matches!(kind, None | Some(1..=3 | 5..=7)),
        (Some(ParameterValue::Long(_)), kind) => matches!(kind, None | Some(4 | 8 | 13)),
        (Some(ParameterValue::Float(_)), kind) => matches!(kind, None | Some(9)),
        (Some(ParameterValue::Double(_)), kind) => matches!(kind, None | Some(10)),
        (Some(ParameterValue::Boolean(_)), kind) => matches!(kind, None | Some(11)),
        (Some(ParameterValue::Text(_)), kind) => matches!(kind, None | Some(12 | 14)),
        (Some(ParameterValue::Extension(_)), _) => false,
    })
}

/// The types that 6.4.16 lists as basic.
fn is_basic(datatype: u32) -> bool {
    (1..=14).contains(&datatype)
}

/// Every cell has one of the six kinds of value: the one that its column's type goes as.
fn cells_fit(set: &DataSet) -> bool {
    let fits = |(value, datatype): (Option<&CellValue>, &u32)| match value {
        Some(CellValue::Int(_)) => matches!(datatype, 1..=3 | 5..=7),
        Some(CellValue::Long(_)) => matches!(datatype, 4 | 8 | 13),
        Some(CellValue::Float(_)) => *datatype == 9,
        Some(CellValue::Double(_)) => *datatype == 10,
        Some(CellValue::Boolean(_)) => *datatype == 11,
        Some(CellValue::Text(_)) => matches!(datatype, 12 | 14),
        Some(CellValue::Extension(_)) | None => false,
    };
    let whole = |row: &Row| row.elements.len() == set.types.len();
    set.rows.iter().all(|row| whole(row) && row.elements.iter().map(|c| c.value.as_ref()).zip(&set.types).all(fits))
}

mod tests {
    use super::super::Scene;
    use super::*;
    use crate::wire_broker::{Entry, Event, Said};
    use edge_agent::telemetry::sparkplug::payload::{Cell, Payload};
    use prost::Message;

    /// Messages by hand: topic and payload.
    type Story = Vec<(&'static str, Vec<u8>)>;

    const NBIRTH: &str = "spBv1.0/plant/NBIRTH/gw";

    fn world(story: Story) -> World {
        let entry = |(topic, payload): (&str, Vec<u8>)| Entry {
            broker: 1,
            connection: 1,
            at_ms: 0,
            event: Event::Publish(Said { topic: topic.into(), payload, ..Said::default() }),
        };
        let entries = story.into_iter().map(entry).collect();
        World::new(vec![Scene { name: "by hand", version: 5, primary_host: None, entries }])
    }

    fn cell(value: CellValue) -> Cell {
        Cell { value: Some(value) }
    }

    /// A birth with a table of two columns and one row.
    fn with_table(change: impl FnOnce(&mut DataSet)) -> Story {
        let row = Row { elements: vec![cell(CellValue::Text("oil".into())), cell(CellValue::Int(7))] };
        let (columns, types) = (vec!["Name".into(), "Count".into()], vec![12, 7]);
        let mut set = DataSet { num_of_columns: Some(2), columns, types, rows: vec![row] };
        change(&mut set);
        let metric = Metric { datatype: Some(16), value: Some(MetricValue::DataSet(set)), ..Metric::default() };
        vec![(NBIRTH, Payload { metrics: vec![metric], ..Payload::default() }.encode_to_vec())]
    }

    #[test]
    fn every_rule_for_data_sets_refuses_what_breaks_it_and_nothing_else() {
        type Change = fn(&mut DataSet);
        let bad: [(&str, Change); 11] = [
            ("size", |set| set.num_of_columns = None),
            ("size", |set| set.num_of_columns = Some(3)),
            ("headers", |set| drop(set.columns.pop())),
            ("headers", |set| set.types.truncate(1)),
            ("typed", |set| set.types.clear()),
            ("basic", |set| set.types[1] = 0),
            ("basic", |set| set.types[1] = 16),
            ("cells", |set| set.rows[0].elements[1].value = None),
            ("cells", |set| set.rows[0].elements[1] = cell(CellValue::Extension(vec![1]))),
            ("cells", |set| set.rows[0].elements[1] = cell(CellValue::Text("7".into()))),
            ("cells", |set| drop(set.rows[0].elements.pop())),
        ];
        for rule in ["size", "headers", "typed", "basic", "cells"] {
            assert_eq!(world(with_table(|_| ())).data_sets(rule), Pass, "{rule}");
            assert!(matches!(world(Vec::new()).data_sets(rule), NotExercised(_)), "{rule} of nothing");
            // `types` as eight bytes: no array of numbers.
            let other = [0x12, 12, 0x8A, 0x01, 9, 0x19, 0, 0, 0, 0, 0, 0, 0, 0];
            assert!(matches!(world(vec![(NBIRTH, other.to_vec())]).data_sets(rule), Fail(_)), "{rule} of another type");
        }
        for (n, (rule, change)) in bad.into_iter().enumerate() {
            assert!(matches!(world(with_table(change)).data_sets(rule), Fail(_)), "row {n}: {rule}");
        }
        let empty = world(with_table(|set| set.rows.clear())).data_sets("cells");
        assert!(matches!(empty, NotExercised(_)), "no cell was seen: {empty:?}");
    }

    const DBIRTH: &str = "spBv1.0/plant/DBIRTH/gw/m1";
    const DDATA: &str = "spBv1.0/plant/DDATA/gw/m1";

    /// A definition of two members and two parameters, an instance of it in a birth, and one of its members in data.
    struct Templates {
        definition: Template,
        born: Template,
        told: Template,
    }

    impl Templates {
        fn new() -> Templates {
            let member = |name: &str, datatype| Metric {
                name: Some(name.into()),
                datatype: Some(datatype),
                ..Metric::default()
            };
            let parameter = |name: &str, kind, value| Parameter { name: Some(name.into()), kind: Some(kind), value };
            let members = || vec![member("force", 10), member("stroke", 8)];
            let definition = Template {
                version: Some("version-1".into()),
                metrics: members(),
                parameters: vec![
                    parameter("Cell-name", 12, None),
                    parameter("Unit-number", 5, Some(ParameterValue::Int(1))),
                ],
                is_definition: Some(true),
                template_ref: None,
            };
            let instance =
                Template { template_ref: Some("press".into()), is_definition: Some(false), ..Template::default() };
            let cell = parameter("Cell-name", 12, Some(ParameterValue::Text("c".into())));
            let born = Template { metrics: members(), parameters: vec![cell], ..instance.clone() };
            Templates { definition, born, told: Template { metrics: vec![member("force", 10)], ..instance } }
        }

        fn story(&self) -> Story {
            let say = |topic, name: &str, template: &Template| {
                let value = Some(MetricValue::Template(template.clone()));
                let metric = Metric { name: Some(name.into()), datatype: Some(19), value, ..Metric::default() };
                (topic, Payload { metrics: vec![metric], ..Payload::default() }.encode_to_vec())
            };
            vec![say(NBIRTH, "press", &self.definition), say(DBIRTH, "m1", &self.born), say(DDATA, "m1", &self.told)]
        }
    }

    /// All rules for templates, as the table of assertions names them.
    fn rules() -> BTreeSet<&'static str> {
        include_str!("assertions.txt")
            .lines()
            .filter_map(|l| l.rsplit_once(" template:"))
            .map(|(_, rule)| rule)
            .collect()
    }

    #[test]
    fn every_rule_for_templates_refuses_what_breaks_it() {
        type Change = fn(&mut Templates);
        let bad: [(&str, Change); 35] = [
            ("resolves", |t| t.told.template_ref = Some("Press".into())),
            ("resolves", |t| t.definition.is_definition = Some(false)),
            ("resolves-in-births", |t| t.born.template_ref = Some("pres".into())),
            ("defined-in-nbirth", |t| t.born.is_definition = Some(true)),
            ("defined-in-nbirth", |t| t.told = Template { is_definition: Some(true), ..Template::default() }),
            ("definition-says-so", |t| t.definition.is_definition = None),
            ("definition-says-so", |t| t.definition.is_definition = Some(false)),
            ("instance-says-so", |t| t.born.is_definition = None),
            ("instance-says-so", |t| t.told.is_definition = Some(true)),
            ("definition-refers-to-nothing", |t| t.definition.template_ref = Some("press".into())),
            ("instance-refers", |t| t.born.template_ref = None),
            ("instance-refers", |t| t.told.template_ref = Some(String::new())),
            ("says-what-it-is", |t| t.definition.is_definition = None),
            ("says-what-it-is", |t| t.told.is_definition = None),
            ("members-are-defined", |t| t.definition.metrics.truncate(1)),
            ("members-are-defined", |t| t.told.metrics[0].name = Some("Force".into())),
            ("members-are-defined", |t| t.told.metrics[0].name = None),
            ("members-are-defined", |t| t.born.metrics[1].datatype = Some(4)),
            ("birth-has-all-members", |t| t.born.metrics.truncate(1)),
            ("birth-has-all-members", |t| t.born.metrics.push(t.born.metrics[0].clone())),
            ("birth-has-all-members", |t| {
                t.definition.metrics.push(Metric { name: Some("oil".into()), ..Metric::default() })
            }),
            ("data-has-some-members", |t| t.told.metrics[0].name = Some("oil".into())),
            ("parameters-are-defined", |t| t.born.parameters[0].name = Some("cell".into())),
            ("parameters-are-defined", |t| t.definition.parameters.clear()),
            ("parameters-are-defined", |t| t.born.parameters[0].kind = Some(14)),
            ("default-fits", |t| t.definition.parameters[1].value = Some(ParameterValue::Text("1".into()))),
            ("version", |t| t.definition.version = Some(String::new())),
            ("parameter-name", |t| t.definition.parameters[0].name = None),
            ("parameter-name", |t| t.born.parameters[0].name = None),
            ("parameter-typed", |t| t.born.parameters[0].kind = None),
            ("parameter-typed", |t| t.definition.parameters[0].kind = None),
            ("parameter-basic", |t| t.definition.parameters[0].kind = Some(19)),
            ("parameter-basic", |t| t.definition.parameters[0].kind = Some(0)),
            ("parameter-value", |t| t.born.parameters[0].value = Some(ParameterValue::Extension(vec![1]))),
            ("parameter-value", |t| t.born.parameters[0].value = Some(ParameterValue::Long(1))),
        ];
        for rule in rules() {
            assert_eq!(world(Templates::new().story()).template(rule), Pass, "{rule}");
            assert!(matches!(world(Vec::new()).template(rule), NotExercised(_)), "{rule} of nothing");
            assert!(bad.iter().any(|(tried, _)| *tried == rule), "nothing breaks {rule}");
        }
        for (n, (rule, change)) in bad.into_iter().enumerate() {
            let mut templates = Templates::new();
            change(&mut templates);
            assert!(matches!(world(templates.story()).template(rule), Fail(_)), "row {n}: {rule}");
        }
    }

    /// What has to be a text in UTF-8, or a number, shows when the message is decoded by the schema.
    #[test]
    fn what_is_of_another_kind_than_the_schema_says_is_refused_by_every_rule() {
        let replace = |from: &[u8], to: &[u8]| {
            let mut story = Templates::new().story();
            let at = story[0].1.windows(from.len()).position(|part| part == from).unwrap();
            story[0].1.splice(at..at + from.len(), to.iter().copied());
            story
        };
        let kinds = [
            ("version", replace(b"version-1", b"version-\xFF")),
            ("parameter-name", replace(b"Cell-name", b"Cell-n\xFFme")),
            // The type of a parameter as a text of one letter.
            ("parameter-typed", replace(b"Cell-name\x10\x0C", b"Cell-na\x12\x02ab")),
        ];
        for (rule, story) in kinds {
            assert!(matches!(world(story).template(rule), Fail(_)), "{rule}");
        }
    }

    /// What may be, and is not there, is not passed.
    #[test]
    fn what_may_be_is_exercised_by_what_is_there() {
        type Change = fn(&mut Templates);
        let absent: [(&str, Change); 5] = [
            ("data-has-some-members", |t| t.told.metrics = t.born.metrics.clone()),
            ("default-fits", |t| t.definition.parameters[1].value = None),
            ("version", |t| t.definition.version = None),
            ("parameters-are-defined", |t| t.born.parameters.clear()),
            ("parameter-value", |t| {
                t.definition.parameters[1].value = None;
                t.born.parameters.clear();
            }),
        ];
        for (rule, change) in absent {
            let mut templates = Templates::new();
            change(&mut templates);
            let verdict = world(templates.story()).template(rule);
            assert!(matches!(verdict, NotExercised(_)), "{rule}: {verdict:?}");
        }
    }
}
