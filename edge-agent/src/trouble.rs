//! What is wrong for long is said once, then hourly, and once more when it is over; the metrics count every time.
//!
//! ```text
//!             said                     said, with how long and how often                  said: after 9 h
//!   well ──is──> wrong ──is──is──is── an hour ──is──is──> ..  ──is_over──> over ── CALM ──> well
//!                  └── for another reason: said                              └──is──> wrong, and not said before its hour is over
//! ```
//!
//! So a device that sleeps at night costs two lines and one an hour; one that comes and goes all the time costs no more.

mod often;

pub use often::{Often, and_more};

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often that which lasts is said again.
const HOURLY: Duration = Duration::from_secs(3600);
/// What comes back within this time has not been over.
const CALM: Duration = Duration::from_secs(600);
/// Reasons said within an hour; what makes up new ones all the time is not worth more.
const REASONS_MAX: usize = 8;

/// One thing that may be wrong, for reasons that can be told apart.
#[derive(Debug)]
pub struct Trouble<R> {
    /// Since when it is wrong, if it is, and whether that has been said.
    now: Option<(Instant, bool)>,
    /// When it began, calm times of less than [`CALM`] included.
    since: Option<Instant>,
    over: Option<Instant>,
    said: Option<Instant>,
    times: u64,
    reasons: Vec<R>,
}

/// What is to be said beside the reason: nothing the first time, then for how long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// Since it began.
    pub lasts: Duration,
    /// How often since it was said last.
    pub times: u64,
}

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.times <= 1 && self.lasts < HOURLY {
            return Ok(());
        }
        write!(f, "; for {} now, {} times since it was said last", spoken(self.lasts), self.times)
    }
}

/// A duration as people say it: no more than two of its parts, and none below a second.
pub fn spoken(duration: Duration) -> String {
    let whole = match duration.as_secs() {
        0..60 => duration.as_secs(),
        s @ 60..3600 => s,
        s @ 3600..86_400 => s - s % 60,
        s => s - s % 3600,
    };
    match whole {
        0 => "less than a second".into(),
        s => humantime::format_duration(Duration::from_secs(s)).to_string(),
    }
}

impl<R> Default for Trouble<R> {
    fn default() -> Trouble<R> {
        Trouble::new()
    }
}

impl<R> Trouble<R> {
    /// All is well.
    pub const fn new() -> Trouble<R> {
        Trouble { now: None, since: None, over: None, said: None, times: 0, reasons: Vec::new() }
    }
}

/// The same for what many threads, or many strangers, may bring about.
#[derive(Debug)]
pub struct Shared<R>(Mutex<Trouble<R>>);

impl<R: PartialEq> Shared<R> {
    /// All is well.
    pub const fn new() -> Shared<R> {
        Shared(Mutex::new(Trouble::new()))
    }

    /// It is wrong, or still is. `Some`: it is to be said now.
    pub fn is(&self, why: R) -> Option<Lasting> {
        self.lock().is(why, Instant::now())
    }

    /// It is well. `Some`: that it was not has been said, and so is this.
    pub fn is_over(&self) -> Option<Duration> {
        self.lock().is_over(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Trouble<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: PartialEq> Default for Shared<R> {
    fn default() -> Shared<R> {
        Shared::new()
    }
}

impl<R: PartialEq> Trouble<R> {
    /// It is wrong, or still is. `Some`: it is to be said now.
    pub fn is(&mut self, why: R, now: Instant) -> Option<Lasting> {
        let calm = self.over.is_none_or(|over| now.saturating_duration_since(over) >= CALM);
        if self.now.is_none() && calm {
            *self = Trouble::default();
        }
        let (_, said_now) = *self.now.get_or_insert((now, false));
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        let hourly = self.said.is_none_or(|said| now.saturating_duration_since(said) >= HOURLY);
        if hourly {
            self.reasons.clear();
            self.said = Some(now);
        }
        let is_new = !self.reasons.contains(&why) && self.reasons.len() < REASONS_MAX;
        if is_new {
            self.reasons.push(why);
        }
        if let Some(spell) = &mut self.now {
            spell.1 = said_now || is_new;
        }
        is_new.then(|| Lasting { lasts: now.saturating_duration_since(since), times: std::mem::take(&mut self.times) })
    }

    /// An hour has passed, and it is still wrong though nothing new was noticed.
    pub fn reminds(&mut self, now: Instant) -> Option<Lasting> {
        let (Some(_), Some(since), Some(said)) = (self.now, self.since, self.said) else { return None };
        if now.saturating_duration_since(said) < HOURLY {
            return None;
        }
        self.said = Some(now);
        let times = std::mem::take(&mut self.times).max(1);
        Some(Lasting { lasts: now.saturating_duration_since(since), times })
    }

    /// It is well. `Some`: that it was not has been said, and so is this, with how long it was not.
    pub fn is_over(&mut self, now: Instant) -> Option<Duration> {
        let (since, said) = self.now.take()?;
        self.over = Some(now);
        said.then(|| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_device_that_sleeps_for_nine_hours_is_said_once_then_hourly_and_when_it_is_back() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let lines: Vec<Lasting> = (0..9 * 1800).filter_map(|n| trouble.is("no answer", start + 2 * n * S)).collect();
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert_eq!(lines[0].to_string(), "");
        assert_eq!(lines[8].to_string(), "; for 8h now, 1800 times since it was said last");
        let back = trouble.is_over(start + 9 * 3600 * S);
        assert_eq!(back.map(spoken), Some("9h".into()));
        assert_eq!(trouble.is_over(start + 9 * 3601 * S), None, "once");
    }

    #[test]
    fn a_device_that_comes_and_goes_all_day_costs_no_more() {
        let (mut trouble, start, mut lines) = (Trouble::default(), Instant::now(), 0);
        for n in 0..4 * 3600 {
            let now = start + n * S;
            lines +=
                u32::from(if n % 2 == 0 { trouble.is("lost", now).is_some() } else { trouble.is_over(now).is_some() });
        }
        assert_eq!(lines, 8, "there and back, four times");
    }

    #[test]
    fn another_reason_is_said_and_one_after_a_calm_time_too() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert!(trouble.is("refused".to_string(), start).is_some());
        assert!(trouble.is("no route".to_string(), start + S).is_some());
        assert!(trouble.is("refused".to_string(), start + 2 * S).is_none());
        let made_up = (0..100).filter(|n| trouble.is(format!("reason {n}"), start + 3 * S).is_some()).count();
        assert_eq!(made_up, REASONS_MAX - 2);
        assert!(trouble.is_over(start + 4 * S).is_some());
        assert!(trouble.is("refused".to_string(), start + 5 * S).is_none(), "it has not been over");
        assert!(trouble.is_over(start + 6 * S).is_none());
        assert!(trouble.is("refused".to_string(), start + 6 * S + CALM).is_some(), "that is news");
    }

    #[test]
    fn what_is_noticed_once_is_recalled_hourly() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.reminds(start), None);
        trouble.is((), start);
        let said = (0..3 * 60).filter_map(|n| trouble.reminds(start + n * 60 * S)).count();
        assert_eq!(said, 2);
        trouble.is_over(start + 3 * HOURLY);
        assert_eq!(trouble.reminds(start + 5 * HOURLY), None);
    }
}
