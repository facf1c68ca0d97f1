//! The processes around a measurement, each of its own: bank, broker, subscriber, agent.
//!
//! ```text
//!   plc-sim bank  <── Modbus TCP ──  edge-agent run  ── MQTT ──>  broker  ──>  subscriber (this program again)
//!                                         │ HTTP
//!                                     the bench: figures and writes
//! ```
//!
//! What a process costs is read from `/proc`; nothing runs inside the process that is measured.

use crate::load::Load;
use serde_json::Value as Json;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a part may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A child that goes when the bench goes, however that goes.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program.
    pub(crate) fn start(command: &mut Command) -> Process {
        // SAFETY: prctl is async-signal-safe, and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn();
        Process(child.unwrap_or_else(|e| panic!("cannot start {}: {e}", command.get_program().display())))
    }

    /// What it wrote on its output, when it has ended by itself.
    pub(crate) fn output(mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut text).expect("text");
        text
    }

    /// CPU time it has used, seconds: user and system, of all its threads.
    pub(crate) fn cpu_s(&self) -> f64 {
        cpu_s(self.0.id())
    }

    /// The most memory it ever held, its start included, MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the process lives");
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("Linux tells VmHWM");
        peak.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of kB") / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time a process has used, all its threads, seconds: by its own clock, which counts nanoseconds. `/proc/../stat` counts hundredths of a
/// second, of which a bare loop needs four in a window.
pub(crate) fn cpu_s(pid: u32) -> f64 {
    let (mut clock, mut used) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both write to what they are given, and to nothing else.
    let told = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &mut clock) == 0 && libc::clock_gettime(clock, &mut used) == 0
    };
    assert!(told, "process {pid} lives");
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Where this bench lies, and the programs beside it.
fn target_release() -> PathBuf {
    let exe = std::env::current_exe().expect("a path of our own");
    exe.ancestors().nth(2).expect("target/release/deps/acquisition-..").to_path_buf()
}

/// Builds what is measured, as the README's commands build it, with the examples: so nothing is built a second time.
pub(crate) fn build() {
    let release = target_release();
    let mut command = Command::new(env!("CARGO"));
    // What cargo tells this bench about its package, build scripts would take for their own, and all would be built anew.
    let told = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
    });
    told.for_each(|(name, _)| {
        command.env_remove(name);
    });
    let done = command
        .args(["build", "--quiet", "--release", "--bins", "--examples"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CARGO_TARGET_DIR", release.parent().expect("target/release"))
        .status();
    assert!(done.is_ok_and(|status| status.success()), "the programs cannot be built");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// Waits for something, and gives up after [`START_LIMIT`].
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come up within {START_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The devices.
pub(crate) struct Bank {
    pub(crate) at: SocketAddr,
    pub(crate) started: Instant,
    _process: Process,
}

impl Bank {
    /// A bank for this load; `silent` is when some of its units fall silent, and which.
    pub(crate) fn start(load: &Load, dir: &Path, silent: Option<(Duration, &[u8])>) -> Bank {
        let mut command = Command::new(target_release().join("plc-sim"));
        let text = |d: Duration| humantime::format_duration(d).to_string();
        command.args(["bank", "--port", "0", "--listen", "127.0.0.1", "--first-unit", "1"]);
        command.args(["--units", &load.units().to_string(), "--registers", &load.bank_registers().to_string()]);
        command.args(["--rate", &text(load.changes)]);
        if let Some((at, units)) = silent {
            let file = dir.join("faults.toml");
            let script = format!("[[fault]]\nat = \"{}\"\nunits = {units:?}\nkind = \"silent\"\n", text(at));
            fs::write(&file, script).expect("a fault script");
            command.arg("--faults").arg(file);
        }
        Bank::of(command, "modbus-tcp://")
    }

    /// An OPC UA server with security, that lets everyone in, and whose variables change so often.
    pub(crate) fn opcua(variables: usize, changes: Duration) -> Bank {
        let mut command = Command::new(target_release().join("plc-sim"));
        command.args(["bank", "--port", "0", "--listen", "127.0.0.1", "--opcua", "--secure", "--trust-all"]);
        command.args(["--variables", &variables.to_string()]);
        command.args(["--period", &humantime::format_duration(changes).to_string()]);
        Bank::of(command, "opc.tcp://")
    }

    /// Starts it, and hears where it is.
    fn of(mut command: Command, scheme: &str) -> Bank {
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = process.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the bank says where it is");
        let at = line.split_whitespace().find_map(|word| word.strip_prefix(scheme)?.trim_end_matches('/').parse().ok());
        Bank { at: at.unwrap_or_else(|| panic!("no address in {line:?}")), started: Instant::now(), _process: process }
    }
}

/// A broker that can be killed and started again at the same port.
pub(crate) struct Broker {
    pub(crate) port: u16,
    mosquitto: bool,
    process: Option<Process>,
}

impl Broker {
    /// Starts rumqttd, or mosquitto where that is wanted.
    pub(crate) fn start(mosquitto: bool, dir: &Path) -> Broker {
        let mut broker = Broker { port: free_port(), mosquitto, process: None };
        broker.restart(dir);
        broker
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, empty.
    pub(crate) fn restart(&mut self, dir: &Path) {
        let mut command = if self.mosquitto {
            let file = dir.join("mosquitto.conf");
            let text = format!("listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", self.port);
            fs::write(&file, text).expect("a file for mosquitto");
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(file);
            command
        } else {
            let mut command = ourselves();
            command.args(["__broker", &self.port.to_string()]);
            command
        };
        let log = File::create(dir.join("broker.log")).expect("a file for the broker's log");
        let err = log.try_clone().expect("the file twice");
        self.process = Some(Process::start(command.stdin(Stdio::null()).stdout(log).stderr(err)));
        let port = self.port;
        wait_for("the broker", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }
}

/// This program again, in another part.
pub(crate) fn ourselves() -> Command {
    Command::new(std::env::current_exe().expect("a path of our own"))
}

/// A subscriber that counts what comes: a word on its input, one line of JSON on its output.
pub(crate) struct Subscriber {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _process: Process,
}

impl Subscriber {
    /// Subscribes to everything; the answer comes when the broker has said yes.
    pub(crate) fn start(port: u16, watched: &str) -> Subscriber {
        let mut command = ourselves();
        command.args(["__subscriber", &port.to_string(), watched]);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let stdin = process.0.stdin.take().expect("it is piped");
        let stdout = BufReader::new(process.0.stdout.take().expect("it is piped"));
        let mut subscriber = Subscriber { stdin, stdout, _process: process };
        subscriber.line(); // ready
        subscriber
    }

    fn line(&mut self) -> Json {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the subscriber answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the subscriber said {line:?}: {e}"))
    }

    /// Forgets what has come so far.
    pub(crate) fn reset(&mut self) {
        self.stdin.write_all(b"reset\n").expect("the subscriber listens");
        self.line();
    }

    /// What has come since then.
    pub(crate) fn report(&mut self) -> Json {
        self.stdin.write_all(b"report\n").expect("the subscriber listens");
        self.line()
    }
}

/// What the program people run says to a command, on both outputs.
pub(crate) fn agent_says(args: &[&str]) -> String {
    let done = Command::new(target_release().join("edge-agent")).args(args).output().expect("it runs");
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

/// The agent: the program people run.
pub(crate) struct Agent {
    pub(crate) http: SocketAddr,
    pub(crate) process: Process,
}

impl Agent {
    /// Runs it on a configuration for this load.
    pub(crate) fn start(load: &Load, bank: SocketAddr, broker: Option<u16>, dir: &Path) -> Agent {
        fs::write(dir.join("agent.toml"), load.agent_toml(bank, broker)).expect("a configuration");
        fs::write(dir.join("profile.toml"), load.profile_toml()).expect("a profile");
        Agent::run(dir)
    }

    /// Runs it on the configuration that lies there.
    pub(crate) fn run(dir: &Path) -> Agent {
        let file = dir.join("agent.toml");
        let log = dir.join("agent.log");
        let err = File::create(&log).expect("a file for the agent's log");
        let mut command = Command::new(target_release().join("edge-agent"));
        command.arg("run").arg(&file).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
        let mut process = Process::start(&mut command);
        let http = wait_for("the agent", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = process.0.try_wait() {
                panic!("the agent ended with {status}:\n{text}");
            }
            text.split("serving http://").nth(1)?.split('/').next()?.parse().ok()
        });
        Agent { http, process }
    }
}
