//! The alarms that stand, for a host: how many there are, and the most urgent of them as one DataSet (6.4.11).
//!
//! A DataSet has no rows that change one by one: the table is told whole, in the NBIRTH and whenever it is another one than was told. It says
//! what stands, not what happened, so nothing of it waits in the spool: after an outage the birth has the present table.

use super::payload::{Cell, CellValue, DataSet, DataType, Metric, MetricValue, Row};
use crate::alarms::{AlarmDesk, AlarmView};
use device_drivers::value::wall_clock_ms;
use std::sync::Arc;

/// Alarms in the table. They are sorted by urgency, so what is left out matters least, and the count says that there is more.
pub const ROWS_MAX: usize = 100;
/// Characters of what is said of an alarm: a device may have a lot to say.
const DETAIL_MAX: usize = 200;

/// The metrics, and their aliases.
const COUNT: (&str, u64) = ("Alarms/Count", 4);
const TABLE: (&str, u64) = ("Alarms/Table", 5);

/// `Since` is in milliseconds since 1970, as an Int64: over a DateTime in a cell npm's sparkplug-payload throws the whole birth away.
const COLUMNS: [(&str, DataType); 9] = [
    ("Alarm", DataType::Text),
    ("Subject", DataType::Text),
    ("Priority", DataType::Text),
    ("State", DataType::Text),
    ("Active", DataType::Boolean),
    ("Since", DataType::Int64),
    ("Detail", DataType::Text),
    ("Means", DataType::Text),
    ("Action", DataType::Text),
];

/// What a host knows of the alarms.
pub struct Standing {
    desk: Arc<AlarmDesk>,
    /// That of the desk when it was looked at last.
    version: u64,
    count: u64,
    table: DataSet,
}

impl Standing {
    /// Nothing has been told yet.
    pub fn new(desk: Arc<AlarmDesk>) -> Standing {
        Standing { desk, version: 0, count: 0, table: DataSet::default() }
    }

    /// Both metrics, as a birth says them.
    pub fn birth(&mut self) -> Vec<Metric> {
        self.look();
        let named = |(name, alias): (&str, u64), datatype, value| Metric {
            name: Some(name.into()),
            datatype: Some(datatype as u32),
            ..metric(alias, value)
        };
        vec![
            named(COUNT, DataType::UInt64, MetricValue::Long(self.count)),
            named(TABLE, DataType::DataSet, MetricValue::DataSet(self.table.clone())),
        ]
    }

    /// Those of the two that have changed since they were told.
    pub fn news(&mut self) -> Vec<Metric> {
        if self.version == self.desk.version() {
            return Vec::new();
        }
        let (count, table) = (self.count, std::mem::take(&mut self.table));
        self.look();
        let count = (self.count != count).then(|| metric(COUNT.1, MetricValue::Long(self.count)));
        let table = (self.table != table).then(|| metric(TABLE.1, MetricValue::DataSet(self.table.clone())));
        count.into_iter().chain(table).collect()
    }

    fn look(&mut self) {
        // First the version: what changes behind it is seen the next time.
        self.version = self.desk.version();
        let alarms = self.desk.list();
        (self.count, self.table) = (alarms.len() as u64, table(&alarms));
    }
}

fn metric(alias: u64, value: MetricValue) -> Metric {
    Metric { alias: Some(alias), timestamp: Some(wall_clock_ms()), value: Some(value), ..Metric::default() }
}

/// The first alarms as a table.
fn table(alarms: &[AlarmView]) -> DataSet {
    DataSet {
        num_of_columns: Some(COLUMNS.len() as u64),
        columns: COLUMNS.iter().map(|(name, _)| (*name).into()).collect(),
        types: COLUMNS.iter().map(|(_, datatype)| *datatype as u32).collect(),
        rows: alarms.iter().take(ROWS_MAX).map(row).collect(),
    }
}

fn row(alarm: &AlarmView) -> Row {
    let text = |text: &str| CellValue::Text(text.into());
    let cells: [CellValue; COLUMNS.len()] = [
        text(alarm.alarm),
        text(&alarm.subject),
        text(alarm.priority.name()),
        text(alarm.state.name()),
        CellValue::Boolean(alarm.active),
        CellValue::Long(alarm.since_ms),
        CellValue::Text(alarm.detail.chars().take(DETAIL_MAX).collect()),
        text(alarm.means),
        text(alarm.action),
    ];
    Row { elements: cells.into_iter().map(|value| Cell { value: Some(value) }).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::{AlarmState, TABLE as ROWS};
    use prost::Message;

    fn alarm(n: usize) -> AlarmView {
        let row = &ROWS[n % ROWS.len()];
        AlarmView {
            alarm: row.id,
            subject: format!("device-{n}"),
            priority: row.priority,
            state: AlarmState::Unacknowledged,
            active: true,
            detail: "ä".repeat(10_000),
            means: row.means,
            action: row.action,
            since: String::new(),
            since_ms: 1_795_386_896_123,
            by: None,
            until: None,
            reason: None,
        }
    }

    #[test]
    fn an_alarm_is_a_row_with_a_cell_for_every_column_of_its_type() {
        let set = table(&[alarm(0)]);
        assert_eq!(set.num_of_columns, Some(9));
        let kind = |cell: &Cell| match cell.value {
            Some(CellValue::Text(_)) => DataType::Text as u32,
            Some(CellValue::Boolean(_)) => DataType::Boolean as u32,
            Some(CellValue::Long(_)) => DataType::Int64 as u32,
            _ => 0,
        };
        assert_eq!(set.rows[0].elements.iter().map(kind).collect::<Vec<_>>(), set.types);
        assert_eq!(set.rows[0].elements[5].value, Some(CellValue::Long(1_795_386_896_123)));
    }

    /// 128 KiB is the largest message that AWS IoT Core takes, the smallest limit of a large broker.
    #[test]
    fn a_whole_plant_in_alarm_is_a_table_that_every_broker_takes() {
        let many: Vec<AlarmView> = (0..5000).map(alarm).collect();
        let set = table(&many);
        assert_eq!(set.rows.len(), ROWS_MAX);
        assert!(set.encoded_len() < 128 << 10, "{} bytes", set.encoded_len());
    }
}
