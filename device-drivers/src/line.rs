//! One line's task: connect, back off, write before read, keep the schedule.
//!
//! ```text
//!            ok                      any LinkError
//!  Connecting ──> Up ─────────────────────────────────> Down { jittered wait } ──> Connecting ..
//!      └─────────── fails ─────────────────────────────────^
//! ```
//!
//! One task per line: a dead line cannot delay another. Polls keep their phase: a late one is made at once, the
//! ones that were missed are counted and not made up for.

use crate::driver::{BlockWrite, Driver, LinkError, PollReport};
use crate::value::Reading;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How often the sink is asked for blocks to write while no poll is due.
const WRITE_TICK: Duration = Duration::from_millis(5);

/// State of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LinkState {
    /// Being connected for the first time.
    #[default]
    Connecting,
    /// Working.
    Up,
    /// Waiting before the next try.
    Down,
}

/// What a line reports to, and takes its writes from. Calls are short: they do not block.
pub trait LineSink: Send + 'static {
    /// Takes readings and the report of the poll they came from. The readings may be taken out of the vector.
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>, took: Duration);

    /// The link's state has changed, or another try has failed.
    fn link(&mut self, state: LinkState, cause: Option<&LinkError>);

    /// Puts the blocks that are to be written now into `out`: changed ones at once, all of them at the heartbeat.
    fn due_writes(&mut self, out: &mut Vec<BlockWrite>);

    /// The device has acknowledged these blocks.
    fn written(&mut self, blocks: &[BlockWrite]);

    /// So many polls were not made because the ones before took too long.
    fn missed(&mut self, polls: u64);
}

/// Waiting time between tries: doubles from `first` to `max`, each drawn between half and the whole, so that a
/// hundred gateways do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    /// A back-off that draws from `seed`.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { first, max, next: first, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        whole.mul_f64(0.5 + 0.5 * self.rng.f64())
    }

    /// The link worked: start from the beginning next time.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Runs a line until `stop` turns true. On stop the last due writes are made (the safe state), then the link is closed.
pub async fn run_line<D: Driver, S: LineSink>(
    mut driver: D,
    mut sink: S,
    mut backoff: Backoff,
    mut stop: watch::Receiver<bool>,
) {
    sink.link(LinkState::Connecting, None);
    loop {
        let connected = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            connected = driver.connect() => connected,
        };
        let ended = match connected {
            Ok(()) => {
                sink.link(LinkState::Up, None);
                serve(&mut driver, &mut sink, &mut backoff, &stop).await
            }
            Err(why) => Some(why),
        };
        driver.close();
        let Some(why) = ended else { break };
        sink.link(LinkState::Down, Some(&why));
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
    driver.close();
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone, and that is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Works a link until it fails (`Some`) or is to be stopped (`None`).
async fn serve<D: Driver, S: LineSink>(
    driver: &mut D,
    sink: &mut S,
    backoff: &mut Backoff,
    stop: &watch::Receiver<bool>,
) -> Option<LinkError> {
    let periods = driver.groups();
    let start = Instant::now();
    let mut due: Vec<Instant> = vec![start; periods.len()];
    let mut readings = Vec::new();
    let mut writes = Vec::new();
    loop {
        let stopping = *stop.borrow() || stop.has_changed().is_err();
        writes.clear();
        sink.due_writes(&mut writes);
        if !writes.is_empty() {
            if let Err(why) = driver.write(&writes).await {
                return Some(why);
            }
            sink.written(&writes);
        }
        if stopping {
            return None;
        }
        let now = Instant::now();
        let next = due.iter().enumerate().min_by_key(|(_, at)| **at).map(|(group, at)| (group, *at));
        match next {
            Some((group, at)) if at <= now => {
                let period = periods[group].max(Duration::from_millis(1));
                let late = u64::try_from((now - at).as_nanos() / period.as_nanos()).unwrap_or(u64::MAX);
                if late > 0 && driver.paced() {
                    sink.missed(late);
                }
                due[group] = at + period * u32::try_from(late + 1).unwrap_or(u32::MAX);
                readings.clear();
                let report = match driver.poll(group, &mut readings).await {
                    Ok(report) => report,
                    Err(why) => return Some(why),
                };
                backoff.reset();
                sink.readings(report, &mut readings, now.elapsed());
            }
            _ => sleep_until(next.map_or(now + WRITE_TICK, |(_, at)| at.min(now + WRITE_TICK))).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_never_fall_below_half() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut b = Backoff::new(first, max, 1);
        for whole in [100, 200, 400, 800, 1600, 2000, 2000] {
            let wait = b.wait().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        b.reset();
        assert!(b.wait() <= first);
    }

    #[test]
    fn two_gateways_do_not_come_back_in_step() {
        let waits = |seed| {
            let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed);
            (0..6).map(|_| b.wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
    }
}
