//! A file of the log, read again.

use super::{Entry, Header, VERSION};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// What a file says.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its first line.
    pub header: Header,
    /// All others, in the order of time.
    pub entries: Vec<Entry>,
    /// The last line was torn, and left out.
    pub torn: bool,
}

/// What a robot did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RobotSum {
    /// Its name.
    pub name: String,
    /// Places it reached.
    pub reached: u64,
    /// Metres it drove.
    pub metres: f64,
    /// Seconds on the roads without driving.
    pub standing_s: f64,
    /// Of these, those in which it was sent somewhere and waited, or was jammed.
    pub waiting_s: f64,
}

/// What everybody did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// First time, milliseconds since 1970.
    pub from: u64,
    /// Last time.
    pub to: u64,
    /// By robot.
    pub robots: Vec<RobotSum>,
    /// Places and how often they were reached, the busiest first.
    pub busiest: Vec<(String, u64)>,
    /// The last line was torn.
    pub torn: bool,
}

impl Log {
    /// Reads a file. A last line that was torn is left out; any other that cannot be understood is an error with its number.
    pub fn read(file: &Path) -> Result<Log, String> {
        let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Log::parse(&text).map_err(|why| format!("{} {why}", file.display()))
    }

    /// The same of bytes.
    pub fn parse(text: &[u8]) -> Result<Log, String> {
        let mut lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
        // What follows the last line break is a line that never ended.
        let torn = lines.pop().is_some_and(|rest| !rest.is_empty());
        let mut lines = (1..).zip(lines);
        let (_, first) = lines.next().ok_or("line 1: found no whole line, expected the header of a traffic log")?;
        let header: Header = serde_json::from_slice(first)
            .map_err(|e| format!("line 1: expected the header of a traffic log (traffic-*.jsonl of state_dir): {e}"))?;
        if header.traffic != VERSION {
            return Err(format!("line 1: found version {}, expected {VERSION}", header.traffic));
        }
        let (places, robots) = (header.places.len(), header.robots.len());
        let is_place = |p: &u16| usize::from(*p) < places;
        if header.roads.len() != places || !header.roads.iter().flatten().all(is_place) {
            return Err(format!("line 1: the roads do not fit {places} places"));
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (n, line) in lines {
            let entry: Entry = serde_json::from_slice(line).map_err(|e| format!("line {n}: expected an entry: {e}"))?;
            if usize::from(entry.robot) >= robots {
                return Err(format!("line {n}: found robot {}, there are {robots}", entry.robot));
            }
            if let Some(place) = entry.at.iter().chain(&entry.to).chain(&entry.base).find(|p| !is_place(p)) {
                return Err(format!("line {n}: found place {place}, there are {places}"));
            }
            if entries.last().is_some_and(|last| last.t > entry.t) {
                return Err(format!("line {n}: found time {}, which is before the line above", entry.t));
            }
            entries.push(entry);
        }
        Ok(Log { header, entries, torn })
    }

    /// Where everybody is at an instant, by robot: the newest entry up to then, if there is one.
    pub fn at(&self, t: u64) -> Vec<Option<&Entry>> {
        let mut now = vec![None; self.header.robots.len()];
        for entry in self.entries.iter().take_while(|e| e.t <= t) {
            if let Some(slot) = now.get_mut(usize::from(entry.robot)) {
                *slot = Some(entry);
            }
        }
        now
    }

    /// Only what happened between two instants; it begins with what was so at the first.
    pub fn between(&self, from: u64, to: u64) -> Log {
        let begin = self.at(from).into_iter().flatten().map(|e| Entry { t: from, ..e.clone() });
        let rest = self.entries.iter().filter(|e| e.t > from && e.t <= to).cloned();
        let entries = begin.chain(rest).collect();
        Log { header: self.header.clone(), entries, torn: self.torn }
    }

    /// First and last time.
    pub fn span(&self) -> (u64, u64) {
        self.entries.first().zip(self.entries.last()).map_or((self.header.t, self.header.t), |(a, b)| (a.t, b.t))
    }

    /// The entries of each robot.
    pub(super) fn by_robot(&self) -> Vec<Vec<&Entry>> {
        let mut all = vec![Vec::new(); self.header.robots.len()];
        for entry in &self.entries {
            if let Some(list) = all.get_mut(usize::from(entry.robot)) {
                list.push(entry);
            }
        }
        all
    }

    /// The places on the way from one entry to the next one's, the last included: along what was allocated, else the shortest
    /// way there is. None where no road leads: somebody carried it.
    pub(super) fn way(&self, before: &Entry, to: u16) -> Option<Vec<u16>> {
        let from = before.at?;
        if from == to {
            return Some(Vec::new());
        }
        let beside = |p: u16| self.header.roads.get(usize::from(p)).map_or(&[][..], Vec::as_slice);
        if let Some(n) = before.base.iter().position(|p| *p == to) {
            let way: Vec<u16> = before.base.iter().take(n + 1).copied().collect();
            let starts = std::iter::once(from).chain(way.iter().copied());
            if starts.zip(&way).all(|(a, b)| beside(a).contains(b)) {
                return Some(way);
            }
        }
        let (mut came, mut open) = (BTreeMap::from([(from, from)]), VecDeque::from([from]));
        while let Some(here) = open.pop_front() {
            if here == to {
                let back = std::iter::successors(Some(to), |p| came.get(p).copied().filter(|b| *b != from));
                let mut way: Vec<u16> = back.collect();
                way.reverse();
                return Some(way);
            }
            for next in beside(here) {
                if !came.contains_key(next) {
                    came.insert(*next, here);
                    open.push_back(*next);
                }
            }
        }
        None
    }

    fn metres(&self, a: u16, b: u16) -> f64 {
        let spot = |p: u16| self.header.places.get(usize::from(p)).copied().unwrap_or_default();
        let ((x, y), (u, v)) = (spot(a), spot(b));
        (x as f64 - u as f64).hypot(y as f64 - v as f64) / 1000.0
    }

    /// The name of a place, or its number and where it is.
    pub fn place_name(&self, place: u16) -> String {
        let (x, y) = self.header.places.get(usize::from(place)).copied().unwrap_or_default();
        let at = format!("x {:.1} y {:.1}", x as f64 / 1000.0, y as f64 / 1000.0);
        self.header.names.get(&place).map_or_else(|| format!("place-{place} ({at})"), |name| format!("{name} ({at})"))
    }

    /// What everybody did.
    pub fn summary(&self) -> Summary {
        let (from, to) = self.span();
        let mut reached = BTreeMap::<u16, u64>::new();
        let sum = |(name, entries): (&String, Vec<&Entry>)| {
            let mut sum = RobotSum { name: name.clone(), ..RobotSum::default() };
            for (n, entry) in entries.iter().enumerate() {
                let next = entries.get(n + 1);
                let seconds = next.map_or(to, |e| e.t).saturating_sub(entry.t) as f64 / 1000.0;
                if entry.at.is_some() && entry.state != "driving" {
                    sum.standing_s += seconds;
                    sum.waiting_s += if entry.state == "arrived" { 0.0 } else { seconds };
                }
                let (Some(here), Some(there)) = (entry.at, next.and_then(|e| e.at)) else { continue };
                let way = self.way(entry, there).unwrap_or_default();
                sum.metres += std::iter::once(here)
                    .chain(way.iter().copied())
                    .zip(&way)
                    .map(|(a, b)| self.metres(a, *b))
                    .sum::<f64>();
                sum.reached += way.len() as u64;
                for place in way {
                    *reached.entry(place).or_default() += 1;
                }
            }
            sum
        };
        let robots = self.header.robots.iter().zip(self.by_robot()).map(sum).collect();
        let mut busiest: Vec<(u16, u64)> = reached.into_iter().collect();
        busiest.sort_by_key(|(place, n)| (std::cmp::Reverse(*n), *place));
        let busiest = busiest.into_iter().take(10).map(|(place, n)| (self.place_name(place), n)).collect();
        Summary { from, to, robots, busiest, torn: self.torn }
    }
}
