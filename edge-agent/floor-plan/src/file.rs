//! What a floor file says. Every key there is; unknown ones are refused.

use serde::Deserialize;
use toml::Spanned;

/// A floor file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloorFile {
    /// Aisles of racks.
    #[serde(default, rename = "aisle")]
    pub aisles: Vec<Aisle>,
    /// Belts.
    #[serde(default, rename = "belt")]
    pub belts: Vec<Belt>,
    /// Robot cells and other stations.
    #[serde(default, rename = "station")]
    pub stations: Vec<Station>,
    /// Roads of mobile robots.
    #[serde(default)]
    pub roads: Option<Roads>,
    /// Mobile robots.
    #[serde(default)]
    pub robots: Option<Robots>,
}

/// `[[aisle]]`: a rack on both sides of a lane, a shuttle on each tier or fewer that change tier, one or two lifts at its end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aisle {
    /// Its name; its machines are `NAME.shuttle-1` .., `NAME.lift`.
    pub name: Spanned<String>,
    /// Tiers.
    pub tiers: Spanned<u16>,
    /// Bays on each side of a tier.
    pub bays: Spanned<u16>,
    /// Bays one behind another, 1 or 2.
    #[serde(default)]
    pub depth: Option<Spanned<u16>>,
    /// Places of a lane between a tier and the lift.
    #[serde(default)]
    pub lane: Option<Spanned<u16>>,
    /// Shuttles: one a tier, which stays there, or fewer, which change tier on the lifts.
    #[serde(default)]
    pub shuttles: Option<Spanned<u16>>,
    /// Lifts: 1, or 2 on one mast.
    #[serde(default)]
    pub lifts: Option<Spanned<u16>>,
    /// The foot of the lift: x and y, metres.
    #[serde(default)]
    pub at: [f64; 2],
    /// Where the bays lie: `"east"`, `"west"`, `"north"`, `"south"`.
    #[serde(default)]
    pub towards: Option<Spanned<String>>,
    /// Metres from the lift to the first bay, and from bay to bay.
    #[serde(default)]
    pub bay_distances: Option<[f64; 2]>,
    /// Metres from the foot to the lowest tier, and from tier to tier.
    #[serde(default)]
    pub tier_heights: Option<[f64; 2]>,
    /// How fast a shuttle is.
    #[serde(default)]
    pub shuttle: Option<Drive>,
    /// How fast a lift is.
    #[serde(default)]
    pub lift: Option<Drive>,
}

/// Speed and acceleration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Metres per second.
    pub speed: f64,
    /// Metres per second squared.
    pub acceleration: f64,
}

/// `[[belt]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Belt {
    /// Its name.
    pub name: Spanned<String>,
    /// Where its loads come from: `"outside"`, `"robots"`, a lift or a station.
    pub from: Spanned<String>,
    /// Where they go.
    pub to: Spanned<String>,
    /// Loads it holds.
    #[serde(default)]
    pub places: Option<Spanned<u16>>,
    /// The label of the place where robots stop for it.
    #[serde(default)]
    pub stop: Option<Spanned<String>>,
}

/// `[[station]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Its name.
    pub name: Spanned<String>,
    /// Stations of one group stand for each other.
    #[serde(default)]
    pub group: Option<Spanned<String>>,
    /// The label of the place where robots bring loads to its port, if no belt leads to it.
    #[serde(default, rename = "in")]
    pub input: Option<Spanned<String>>,
    /// The label of the place where robots fetch them.
    #[serde(default, rename = "out")]
    pub output: Option<Spanned<String>>,
}

/// `[roads]`: a map of cells, or places and roads by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roads {
    /// Rows of cells: `.` road, `>` `<` `^` `v` one-way, `P` parking, `E` charger, other letters and digits are labels, all else
    /// is no road.
    #[serde(default)]
    pub map: Option<Spanned<String>>,
    /// Metres from cell to cell.
    #[serde(default)]
    pub pitch: Option<f64>,
    /// The middle of the first cell: x and y, metres.
    #[serde(default)]
    pub at: [f64; 2],
    /// Places by name.
    #[serde(default, rename = "place")]
    pub places: Vec<Place>,
    /// Roads between them.
    #[serde(default, rename = "road")]
    pub roads: Vec<Road>,
    /// Areas in which only so many robots have work at once.
    #[serde(default, rename = "area")]
    pub areas: Vec<Area>,
    /// Learn what each road costs from where everybody would drive.
    #[serde(default)]
    pub guidance: Option<bool>,
    /// Take a floor of which not everything can be proven. It shows as an alarm.
    #[serde(default)]
    pub unproven: bool,
}

/// `[[roads.place]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its name, by which belts and stations know it.
    pub name: Spanned<String>,
    /// Metres.
    pub x: f64,
    /// Metres.
    pub y: f64,
    /// What it is: `"road"`, `"parking"` or `"charger"`.
    #[serde(default)]
    pub kind: Option<Spanned<String>>,
}

/// `[[roads.area]]`: a rectangle of the hall with a cap. Throughput falls when it is crowded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Its name.
    pub name: Spanned<String>,
    /// One corner: x and y, metres.
    pub from: [f64; 2],
    /// The opposite one.
    pub to: [f64; 2],
    /// At most so many robots fetch or bring loads there at once.
    pub robots: Spanned<u16>,
}

/// `[[roads.road]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Road {
    /// From this place.
    pub from: Spanned<String>,
    /// To this one.
    pub to: Spanned<String>,
    /// In one direction only.
    #[serde(default)]
    pub one_way: bool,
}

/// `[robots]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Robots {
    /// How many. They are `robot-1` ..
    pub count: Spanned<u16>,
    /// How fast.
    #[serde(default)]
    pub drive: Option<Drive>,
    /// Metres, along and across.
    #[serde(default)]
    pub size: Option<[f64; 2]>,
    /// Robots of other kinds; they are numbered on.
    #[serde(default, rename = "kind")]
    pub kinds: Vec<RobotKind>,
}

/// `[[robots.kind]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotKind {
    /// How many.
    pub count: Spanned<u16>,
    /// How fast.
    #[serde(default)]
    pub drive: Option<Drive>,
    /// Metres, along and across.
    #[serde(default)]
    pub size: Option<[f64; 2]>,
}

/// Something wrong with a floor file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a range of bytes.
    pub span: std::ops::Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What was found and what was expected.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: std::ops::Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Fault {
        Fault { span, message: message.into(), label: label.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Fault {
        Fault { help: Some(help.into()), ..self }
    }

    /// For a terminal: line, what is wrong, what was found.
    pub fn text(&self, source: &str) -> String {
        let line = source.get(..self.span.start).map_or(1, |before| before.lines().count().max(1));
        let help = self.help.as_ref().map_or(String::new(), |h| format!("; {h}"));
        format!("line {line}: {}: {}{help}", self.message, self.label)
    }
}
