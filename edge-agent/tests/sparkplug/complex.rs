//! The rules for DataSets (6.4.11 to 6.4.13), and for each of them messages that it has to refuse.

use super::Verdict::{self, Fail, NotExercised, Pass};
use super::World;
use edge_agent::telemetry::sparkplug::payload::{CellValue, DataSet, MetricValue, Row};

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
    use edge_agent::telemetry::sparkplug::payload::{Cell, Metric, Payload};
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
}
