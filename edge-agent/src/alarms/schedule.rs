//! Which lines do not keep their schedule: one that is asked for more than it can give misses polls for as long as it lives.
//!
//! ```text
//!   windows    . . x x x ────────> behind          x: more than one poll in ten was not made
//!   behind     x - x . . . ──────> on time again   .: at most one in twenty;  -: in between, which changes nothing
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The shortest window, and the longest: a window has polls enough to speak of a part of them, where they are not too rare for that.
const WINDOW: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// So many are enough.
const POLLS: u64 = 10;
/// Windows in a row that make it behind, or on time again.
const IN_A_ROW: u8 = 3;

/// What a line has counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Polls {
    /// Whether there is a link.
    pub(super) is_up: bool,
    /// Polls made.
    pub(super) made: u64,
    /// Polls not made.
    pub(super) missed: u64,
}

#[derive(Debug)]
struct Line {
    since: Instant,
    known: Polls,
    bad: u8,
    good: u8,
    behind: Option<String>,
}

/// What is known of all lines.
#[derive(Debug, Default)]
pub(super) struct Schedules(BTreeMap<String, Line>);

impl Line {
    fn new(polls: Polls, now: Instant) -> Line {
        Line { since: now, known: polls, bad: 0, good: 0, behind: None }
    }

    fn look(&mut self, polls: Polls, now: Instant) {
        if !polls.is_up || polls.made < self.known.made || polls.missed < self.known.missed {
            return *self = Line::new(polls, now); // without a link nothing is asked; a line that was changed counts anew
        }
        let (window, missed) = (now.saturating_duration_since(self.since), polls.missed - self.known.missed);
        let asked = missed + polls.made - self.known.made;
        if window < WINDOW.0 || (asked < POLLS && window < WINDOW.1) {
            return;
        }
        (self.since, self.known) = (now, polls);
        if missed * 10 > asked {
            (self.bad, self.good) = (self.bad.saturating_add(1), 0);
        } else if missed * 20 <= asked {
            (self.bad, self.good) = (0, self.good.saturating_add(1));
        } else {
            (self.bad, self.good) = (0, 0);
        }
        if self.good >= IN_A_ROW {
            self.behind = None;
        } else if self.bad >= IN_A_ROW || self.behind.is_some() {
            let (percent, s) = (missed * 100 / asked.max(1), window.as_secs());
            self.behind =
                Some(format!("{asked} polls were asked of it within {s} s, and {percent} % of them not made"));
        }
    }
}

impl Schedules {
    /// Looks at all lines, and says of those that are behind how much is asked of them.
    pub(super) fn look(&mut self, lines: &[(&str, Polls)], now: Instant) -> Vec<(String, String)> {
        self.0.retain(|name, _| lines.iter().any(|(known, _)| known == name));
        for (name, polls) in lines {
            match self.0.get_mut(*name) {
                Some(line) => line.look(*polls, now),
                None => drop(self.0.insert(name.to_string(), Line::new(*polls, now))),
            }
        }
        self.0.iter().filter_map(|(name, line)| Some((name.clone(), line.behind.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a line behind each of these windows, in which so many of a hundred polls are not made.
    fn said(missed: &[u64]) -> Vec<bool> {
        let (mut schedules, start) = (Schedules::default(), Instant::now());
        let mut polls = Polls { is_up: true, made: 5, missed: 5 };
        schedules.look(&[("press", polls)], start);
        let each = (1..).zip(missed).map(|(n, missed)| {
            (polls.made, polls.missed) = (polls.made + 100 - missed, polls.missed + missed);
            let now = start + n * WINDOW.0;
            schedules.look(&[("press", polls)], now).iter().any(|(name, _)| name == "press")
        });
        each.collect()
    }

    #[test]
    fn a_line_that_misses_more_than_a_tenth_for_three_windows_is_behind_until_it_is_well_for_three() {
        let (yes, no) = (true, false);
        assert_eq!(said(&[50, 50, 10, 50, 50]), [no; 5], "never three in a row");
        assert_eq!(said(&[11, 11, 11, 7, 5, 5, 7, 5, 5, 5]), [no, no, yes, yes, yes, yes, yes, yes, yes, no]);
    }

    #[test]
    fn a_line_without_a_link_is_not_behind_and_one_that_is_asked_rarely_is_judged_by_more_than_one_poll() {
        let (mut schedules, start) = (Schedules::default(), Instant::now());
        let mut at = |s: u64, is_up, made, missed| {
            schedules.look(&[("slow", Polls { is_up, made, missed })], start + Duration::from_secs(s))
        };
        at(0, true, 0, 0);
        assert!((1..=50).all(|n| at(n * 60, true, n, n).is_empty() || n >= 15), "15 of 30 polls");
        let said = at(3060, true, 51, 51);
        assert_eq!(said.len(), 1);
        assert!(said[0].1.contains("10 polls were asked of it within 300 s, and 50 % of them not made"), "{said:?}");
        assert!(at(3070, false, 51, 51).is_empty());
    }
}
