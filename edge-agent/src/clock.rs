//! The clocks. What is due, late or old goes by the monotonic one, which nobody sets. The wall clock is for stamps alone, and stamps say
//! when it is not one to go by.
//!
//! ```text
//!   monotonic ──> `now` of the core, ages, due times
//!        └── + wall clock at the start ──> run clock: stamps of records, from which their age follows; never steps within a run
//!   wall clock ──> source times ── unset, set back or not synchronised? ──> "clock":"untrusted"
//! ```

use control_core::units::Millis;
use device_drivers::value::wall_clock_ms;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// 2025-01-01: before it this program was not written, so a clock that says so was never set.
const PLAUSIBLE_MS: u64 = 1_735_689_600_000;
/// A wall clock that is ahead of or behind the monotonic one by more was set; what is less was only slewed.
const STEP_MIN_MS: u64 = 1_000;
/// How often the wall clock is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A time of RFC 3339, as a person or another program writes it: in UTC, also without the `Z`, or with an offset.
pub fn time_of(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, (hours, minutes)) = (offset.get(..1)?, offset.get(1..)?.split_once(':')?);
    let number = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n <= most)
    };
    let ahead = Duration::from_secs((number(hours, 23)? * 60 + number(minutes, 59)?) * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match sign {
        "+" => local.checked_sub(ahead),
        "-" => local.checked_add(ahead),
        _ => None,
    }
}

/// Milliseconds since the agent started. Copy; reading it is one system call without a switch (vDSO).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Timespec,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

impl Clock {
    /// Starts now.
    pub fn new() -> Clock {
        Clock { start: clock_gettime(ClockId::Monotonic) }
    }

    /// Since the start.
    pub fn now(&self) -> Millis {
        Millis(nanos_between(self.start, clock_gettime(ClockId::Monotonic)) / 1_000_000)
    }
}

/// Nanoseconds from `a` to `b`, 0 when `b` is not later.
pub fn nanos_between(a: Timespec, b: Timespec) -> u64 {
    let seconds = b.tv_sec - a.tv_sec;
    let nanos = b.tv_nsec - a.tv_nsec;
    u64::try_from(seconds * 1_000_000_000 + nanos).unwrap_or(0)
}

/// The wall clock at the start of this run, and the monotonic one then.
fn start() -> (u64, Clock) {
    static START: OnceLock<(u64, Clock)> = OnceLock::new();
    *START.get_or_init(|| (wall_clock_ms(), Clock::new()))
}

/// The run clock: the wall clock as it was when this run began, and what has passed since. Milliseconds since 1970 if that clock was right.
pub fn run_ms() -> u64 {
    let (wall, clock) = start();
    wall.saturating_add(clock.now().0)
}

/// How old a stamp of the run clock is, at `now_ms` of it. One that a run with an unset clock has left behind is of no known age: it
/// counts from the start of this run, so that it is never lost for it.
pub fn age_ms(stamp_ms: u64, now_ms: u64) -> u64 {
    let known_since = if stamp_ms < PLAUSIBLE_MS { stamp_ms.max(start().0) } else { stamp_ms };
    now_ms.saturating_sub(known_since)
}

/// Whether a time is one that a clock may show which somebody has set.
pub fn is_plausible(ms: u64) -> bool {
    ms >= PLAUSIBLE_MS
}

static DOUBTED: AtomicBool = AtomicBool::new(false);

/// Whether this stamp of the wall clock is one to go by.
pub fn is_trusted(stamp_ms: u64) -> bool {
    is_plausible(stamp_ms) && !DOUBTED.load(Relaxed)
}

/// Why the wall clock is not one to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It shows a date before this program was written.
    Unset,
    /// It was set back, and has not come to where it was.
    SetBack,
    /// The kernel knows of nobody who keeps it right (adjtimex(2), `STA_UNSYNC`).
    Unsynchronised,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Doubt::Unset => "nobody has set it yet",
            Doubt::SetBack => "it was set back, and shows times that have been before",
            Doubt::Unsynchronised => "it is not synchronised; does NTP or PTP run on this gateway?",
        })
    }
}

/// Watches the wall clock. Pure: all three clocks are handed in.
#[derive(Debug, Default)]
pub struct WallWatch {
    last: Option<(u64, u64)>,
    /// The latest time it has shown before it was set back.
    reached: Option<u64>,
    doubt: Option<Doubt>,
}

impl WallWatch {
    /// Looks at it; says what there is to doubt when that has changed. `is_kept` is what the kernel says, if it says anything.
    pub fn look(&mut self, wall_ms: u64, monotonic_ms: u64, is_kept: Option<bool>) -> Option<Option<Doubt>> {
        let should = self.last.map(|(wall, monotonic)| wall.saturating_add(monotonic_ms.saturating_sub(monotonic)));
        self.last = Some((wall_ms, monotonic_ms));
        if let Some(should) = should.filter(|should| wall_ms.saturating_add(STEP_MIN_MS) < *should) {
            self.reached = Some(self.reached.map_or(should, |reached| reached.max(should)));
        }
        // Where it was before it was set for the first time says nothing.
        self.reached = self.reached.filter(|reached| wall_ms < *reached && is_plausible(*reached));
        let doubt = match is_kept {
            _ if !is_plausible(wall_ms) => Some(Doubt::Unset),
            Some(true) => None, // whoever keeps it has set it
            _ if self.reached.is_some() => Some(Doubt::SetBack),
            Some(false) => Some(Doubt::Unsynchronised),
            None => None,
        };
        let is_news = doubt != self.doubt;
        self.doubt = doubt;
        is_news.then_some(doubt)
    }
}

/// Watches the wall clock of this machine for as long as it lives. Each change is said once.
pub async fn watch() {
    let (mut watch, clock) = (WallWatch::default(), start().1);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        match watch.look(wall_clock_ms(), clock.now().0, is_kept()) {
            Some(Some(doubt)) => {
                tracing::warn!("stamps say that the clock of this gateway is not one to go by: {doubt}")
            }
            Some(None) => tracing::info!("the clock of this gateway is one to go by again"),
            None => {}
        }
        DOUBTED.store(watch.doubt.is_some(), Relaxed);
    }
}

/// Whether the kernel says that somebody keeps the clock right; `None` where it does not tell (adjtimex(2)).
fn is_kept() -> Option<bool> {
    // SAFETY: plain numbers; all zeros are valid, and `modes` 0 means that nothing is set.
    let mut now: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, initialised `timex`; the call keeps nothing of it.
    let state = unsafe { libc::adjtimex(&mut now) };
    (state >= 0).then_some(now.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NTP: u64 = PLAUSIBLE_MS + 600_000_000;

    /// The wall clock and what the kernel says, second by second; and what is doubted after each.
    fn check(rows: &[(u64, Option<bool>, Option<Doubt>)]) {
        let mut watch = WallWatch::default();
        for (second, (wall, is_kept, want)) in rows.iter().enumerate() {
            let news = watch.look(*wall, second as u64 * 1000, *is_kept);
            assert_eq!(watch.doubt, *want, "second {second}");
            let before = second.checked_sub(1).and_then(|n| rows[n].2);
            assert_eq!(news, (before != *want).then_some(*want), "second {second}: said once");
        }
    }

    #[test]
    fn a_clock_is_doubted_until_somebody_sets_it() {
        let y2001 = 978_307_200_000;
        let unset = Some(Doubt::Unset);
        check(&[(y2001, None, unset), (y2001 + 1000, None, unset), (NTP, None, None), (NTP + 1000, None, None)]);
        let unkept = Some(Doubt::Unsynchronised);
        check(&[(y2001, Some(false), unset), (NTP, Some(false), unkept), (NTP + 1000, Some(true), None)]);
    }

    #[test]
    fn a_clock_that_was_set_back_is_doubted_until_it_is_where_it_was_or_somebody_keeps_it() {
        let back = Some(Doubt::SetBack);
        check(&[
            (NTP, None, None),
            (NTP + 1000, None, None),
            (NTP - 3000, None, back),
            (NTP - 2000, None, back),
            (NTP + 4000, None, None),
            (NTP + 4400, None, None), // slewed
            (NTP - 3_600_000, Some(true), None),
        ]);
    }

    #[test]
    fn times_of_rfc_3339_are_read_with_any_offset() {
        let noon = time_of("2026-11-24T12:00:00Z").unwrap();
        for same in [
            "2026-11-24T14:00:00+02:00",
            "2026-11-24T06:30:00.000-05:30",
            "2026-11-24 12:00:00",
            "2026-11-24T12:00:00+00:00",
        ] {
            assert_eq!(time_of(same), Some(noon), "{same}");
        }
        for none in [
            "",
            "soon",
            "2026-11-24T12:00:00+2:00",
            "2026-11-24T12:00:00+24:00",
            "2026-11-24T12:00:00*02:00",
            "+02:00",
            "ä+02:00",
        ] {
            assert_eq!(time_of(none), None, "{none}");
        }
    }

    #[test]
    fn ages_are_those_of_the_run_and_a_stamp_of_a_clock_that_was_never_set_has_none() {
        let now = run_ms();
        assert!(now.abs_diff(wall_clock_ms()) < 600_000, "it began with the wall clock");
        assert_eq!(age_ms(now, now + 5_000), 5_000);
        assert_eq!(age_ms(now + 5_000, now), 0, "of another run, whose clock was ahead");
        assert!(age_ms(978_307_200_000, now) < 600_000, "2001 is no age of 25 years");
        assert_eq!(age_ms(PLAUSIBLE_MS, PLAUSIBLE_MS + 86_400_000), 86_400_000);
    }
}
