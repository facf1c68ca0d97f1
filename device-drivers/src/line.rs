//! One line's task: connect, serve, back off.
//!
//! ```text
//!            ok                      any LinkError
//!  Connecting ──> Up ─────────────────────────────────> Down { jittered wait } ──> Connecting ..
//!      └─────────── fails ─────────────────────────────────^   (minutes where a user was refused: servers lock accounts)
//!
//!  stop:  Up ──> last due writes ──> end        no link, or lost on the way, and machines on the line: made once more for these, then end
//! ```
//!
//! One task per line: a dead line cannot delay another. How a link is worked is its driver's business.

use crate::driver::{BlockWrite, Driver, Health, LinkError, PollReport, TagWrite, WriteOutcome};
use crate::opcua::NodeType;
use crate::value::{Cause, PointId, Reading};
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How often a sink that carries machines is asked for blocks to write.
pub const WRITE_TICK: Duration = Duration::from_millis(5);

/// Waiting time, first and at most, after a user or password was refused: with a try every few seconds the account would soon be locked,
/// also for those who know the password.
const LOGIN_WAIT: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(300));

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

/// What only a driver can count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Replies dropped: late, duplicate, foreign.
    pub dropped: u64,
    /// Replies that were no answer to what was asked.
    pub bad_replies: u64,
    /// Copies of our own words that the adapter of a serial line gave back.
    pub echoes: u64,
    /// Requests sent into a serial line that was never silent.
    pub noise: u64,
    /// Points that their devices refuse, and that are asked for only now and then.
    pub quarantined: u64,
}

/// What a person should know of a link that works all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nobody knows a range of these points, of which their deadbands would be a part: every change of them comes.
    NoRange {
        /// Which.
        points: Vec<PointId>,
    },
    /// One subscription was not enough.
    Room {
        /// How many there are.
        subscriptions: usize,
        /// What has no room in any of them, and is read in turn.
        points: Vec<PointId>,
    },
    /// These have changed and their subscription has not said so, as happens where nodes are deleted and made again: they are subscribed
    /// to anew.
    MadeAgain {
        /// Which.
        points: Vec<PointId>,
    },
}

/// What a line reports to, and takes its writes from. Calls are short: they do not block.
pub trait LineSink: Send + 'static {
    /// Takes readings of one device and the report of the poll they came from. The readings may be taken out of the vector.
    fn readings(&mut self, report: PollReport, readings: &mut Vec<Reading>);

    /// The link's state has changed, or another try has failed.
    fn link(&mut self, state: LinkState, cause: Option<&LinkError>);

    /// A device's health has changed.
    fn health(&mut self, device: usize, health: Health, cause: Cause);

    /// So many polls of a device were not made because the ones before took too long.
    fn missed(&mut self, device: usize, polls: u64);

    /// Whether there are machines on this line, so that [`LineSink::due_writes`] is to be asked every [`WRITE_TICK`].
    fn carries_machines(&self) -> bool;

    /// Puts the blocks that are to be written now into `out`: changed ones at once, all of them at the heartbeat.
    fn due_writes(&mut self, out: &mut Vec<BlockWrite>);

    /// The device has acknowledged these blocks.
    fn written(&mut self, blocks: &[BlockWrite]);

    /// The device has refused these blocks, or did not answer: nothing is known of them.
    fn not_written(&mut self, blocks: &[BlockWrite], cause: Cause);

    /// Time has passed: marks what has been silent for too long.
    fn sweep(&mut self);

    /// How often [`LineSink::sweep`] wants to be called.
    fn sweep_every(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// What only the driver can count, since the start.
    fn counters(&mut self, _counters: LineCounters) {}

    /// Whether [`LineSink::types`] is of use.
    fn wants_types(&self) -> bool {
        false
    }

    /// What the source declares these points to be.
    fn types(&mut self, _types: &[(PointId, NodeType)]) {}

    /// Something a person should know.
    fn notice(&mut self, _notice: &Notice) {}
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

/// Runs a line until `stop` turns true. On stop the last due writes are made (the safe state), then the link is closed. Where there is no
/// link for them, or it is lost before they are acknowledged, it is made once more; how long that may take is up to whoever waits for us.
pub async fn run_line<D: Driver, S: LineSink>(
    mut driver: D,
    mut sink: S,
    mut wishes: mpsc::Receiver<TagWrite>,
    mut backoff: Backoff,
    mut stop: watch::Receiver<bool>,
) {
    sink.link(LinkState::Connecting, None);
    let mut login = Backoff { first: LOGIN_WAIT.0, max: LOGIN_WAIT.1, next: LOGIN_WAIT.0, rng: backoff.rng.clone() };
    let mut connecting = stop.clone();
    let mut last_words = sink.carries_machines();
    loop {
        let stopping = *connecting.borrow();
        if stopping && !std::mem::take(&mut last_words) {
            break;
        }
        let attempt = async {
            tokio::select! {
                biased;
                () = stopped(&mut connecting), if !stopping => None,
                connected = driver.connect() => Some(connected),
                () = refuse_all(&mut wishes) => None,
            }
        };
        let Some(connected) = meanwhile(&mut sink, attempt).await else { continue };
        let up_since = Instant::now();
        let ended = match connected {
            Ok(()) => {
                login.reset();
                sink.link(LinkState::Up, None);
                driver.serve(&mut sink, &mut wishes, &mut stop).await
            }
            Err(why) => Err(why),
        };
        driver.close();
        let Err(why) = ended else { break };
        sink.link(LinkState::Down, Some(&why));
        if *connecting.borrow() {
            continue;
        }
        let wait = if matches!(why, LinkError::Login { .. }) { login.wait() } else { backoff.wait() };
        if up_since.elapsed() > wait.max(Duration::from_secs(1)) {
            backoff.reset(); // it worked for longer than it will wait
        }
        let pause = async {
            tokio::select! {
                () = stopped(&mut connecting) => {}
                () = refuse_all(&mut wishes) => {}
                () = tokio::time::sleep(wait) => {}
            }
        };
        meanwhile(&mut sink, pause).await;
    }
    driver.close();
}

/// Waits for something, and lets the sink do meanwhile what time asks of it: it says what it knows also while there is no link.
async fn meanwhile<S: LineSink, T>(sink: &mut S, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = tokio::time::sleep(sink.sweep_every()) => sink.sweep(),
        }
    }
}

/// Resolves when the line is to be stopped; dropping it half-way is fine.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone, and that is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// While there is no link nothing can be written, and whoever asks is told so at once. Ends only with the channel, and
/// then never: nobody is left to ask.
async fn refuse_all(wishes: &mut mpsc::Receiver<TagWrite>) {
    while let Some(wish) = wishes.recv().await {
        let _ = wish.reply.send(WriteOutcome::LinkDown);
    }
    std::future::pending().await
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
    fn a_refused_user_waits_for_minutes() {
        let mut b = Backoff::new(LOGIN_WAIT.0, LOGIN_WAIT.1, 1);
        for whole in [120, 240, 300, 300] {
            let wait = b.wait().as_secs();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
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
