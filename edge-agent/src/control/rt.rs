//! What is asked of the host so that the beat is kept: memory locked, a core, SCHED_FIFO, no timer slack.
//!
//! Each permission that is missing is told once; the thread then runs without it, unless `realtime = "require"`.
//! The only unsafe code of the agent is here and in `clock.rs`: one system call each that no safe crate offers.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use std::num::NonZeroU64;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RealTime {
    /// Ask at all.
    pub wanted: bool,
    /// Do not start without.
    pub required: bool,
    /// SCHED_FIFO priority, 1 to 99.
    pub priority: u8,
    /// Core to be pinned to.
    pub core: Option<u16>,
}

/// The thread may run this long without sleeping before the kernel ends the process, microseconds: a runaway cycle
/// must not hold the machine.
const RUNAWAY_US: u64 = 500_000;

/// Stack touched in advance, bytes: a cycle uses a tenth of it.
const STACK: usize = 128 * 1024;

/// Asks for all of it, for the calling thread. Returns what was refused, each with the way to grant it.
pub fn enter(wanted: &RealTime) -> Vec<String> {
    let mut refused = Vec::new();
    if !wanted.wanted {
        return refused;
    }
    if let Err(e) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        refused.push(format!("memory cannot be locked ({e}); grant LimitMEMLOCK=infinity or CAP_IPC_LOCK"));
    }
    prefault();
    if let Some(core) = wanted.core {
        let mut set = CpuSet::new();
        if usize::from(core) < CpuSet::MAX_CPU {
            set.set(usize::from(core));
        }
        if let Err(e) = sched_setaffinity(None, &set) {
            refused.push(format!("the thread cannot be pinned to core {core} ({e}); is there such a core?"));
        }
    }
    if let Err(e) = set_current_timer_slack(NonZeroU64::new(1)) {
        refused.push(format!("timer slack cannot be set ({e})"));
    }
    let current = getrlimit(Resource::Rttime);
    let limit = Rlimit { current: Some(RUNAWAY_US), maximum: current.maximum };
    if let Err(e) = setrlimit(Resource::Rttime, limit) {
        refused.push(format!("the runaway guard cannot be set ({e})"));
    }
    if let Err(e) = fifo(wanted.priority) {
        refused.push(format!("SCHED_FIFO {} was refused ({e}); grant LimitRTPRIO=99 or CAP_SYS_NICE", wanted.priority));
    }
    refused
}

/// Touches the stack, so that no cycle meets a page for the first time.
#[inline(never)]
fn prefault() {
    let mut stack = [0u8; STACK];
    for byte in stack.iter_mut().step_by(4096) {
        // A write the compiler must not remove.
        *std::hint::black_box(byte) = 1;
    }
    std::hint::black_box(&stack);
}

fn fifo(priority: u8) -> std::io::Result<()> {
    // SAFETY: plain numbers, of which musl has more than glibc; all zeros are valid.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = i32::from(priority);
    // SAFETY: the pointer is to a live, initialised `sched_param`; 0 names the calling thread; the call keeps neither.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
