//! What the process itself takes: from /proc, under the names every exporter for Prometheus gives it. What a host does not say is left
//! out.

use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Ticks a second in what /proc says of processes: the same on every Linux, whatever the kernel's own clock (proc(5), `sysconf(3)`).
const USER_HZ: f64 = 100.0;
/// The start time among the words of /proc/self/stat behind the name in brackets, which is the second of all (proc(5), `starttime`: 22nd).
const START_TIME: usize = 22 - 3;

/// CPU time taken, seconds.
pub(super) fn cpu_seconds() -> f64 {
    let took = clock_gettime(ClockId::ProcessCPUTime);
    took.tv_sec as f64 + took.tv_nsec as f64 * 1e-9
}

/// A line of /proc/self/status: its number, in the file's own unit.
fn status(key: &str) -> Option<f64> {
    number_of(&fs::read_to_string("/proc/self/status").ok()?, key)
}

fn number_of(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory in RAM.
pub(super) fn resident_bytes() -> Option<f64> {
    status("VmRSS:").map(|kib| kib * 1024.0)
}

/// Memory there are addresses for.
pub(super) fn virtual_bytes() -> Option<f64> {
    status("VmSize:").map(|kib| kib * 1024.0)
}

/// Threads.
pub(super) fn threads() -> Option<f64> {
    status("Threads:")
}

/// Files and sockets that are open, without the one they are counted through.
pub(super) fn open_fds() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

/// Files and sockets there may be: the soft limit; nothing when there is none.
pub(super) fn max_fds() -> Option<f64> {
    number_of(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

/// When the process was started, seconds since 1970: so long after the host was.
pub(super) fn start_time_s() -> Option<f64> {
    let host = number_of(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
    Some(host + start_ticks(&fs::read_to_string("/proc/self/stat").ok()?)? / USER_HZ)
}

/// The name of a process may hold anything, brackets and blanks too: what counts stands behind its last bracket.
fn start_ticks(stat: &str) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(START_TIME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_takes_is_what_it_can_be() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = start_time_s().unwrap();
        assert!(started <= now + 2.0 && started > now - 86_400.0, "{started} {now}");
        assert!(cpu_seconds() > 0.0 && threads().unwrap() >= 1.0);
        let (resident, all) = (resident_bytes().unwrap(), virtual_bytes().unwrap());
        assert!(resident > 100_000.0 && resident <= all, "{resident} {all}");
        let before = open_fds().unwrap();
        let one = fs::File::open("/proc/self/stat").unwrap();
        assert!(open_fds().unwrap() >= 1.0 && before >= 3.0 && max_fds().unwrap() >= before);
        drop(one);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_hides_nothing() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 9 0 123456 1 2 3";
        assert_eq!(start_ticks(stat), Some(123_456.0));
        assert_eq!(start_ticks("nonsense"), None);
    }
}
