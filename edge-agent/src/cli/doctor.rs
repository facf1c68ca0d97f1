//! `edge-agent doctor`: whether the host is fit for the beat; with `--security`, whether the gateway is safe. Each row passes, or warns
//! with the command that mends it. Nothing is changed but what a test of a permission needs, in a thread that ends.

use super::look::{FAINT, GOOD, HEAD, WARN, bytes, styled};
use super::{Done, Failure};
use crate::access::Role;
use crate::config::{self, DriverPlan, Plan};
use crate::control::rt::{self, RealTime};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Configuration of the gateway: its state folder, its core, its doors
    file: Option<PathBuf>,
    /// Who can get in, and what could be read or changed by somebody else
    #[arg(long)]
    security: bool,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    what: &'static str,
    pass: bool,
    found: String,
    /// The command or the change that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

pub(super) fn row(what: &'static str, pass: bool, found: impl Into<String>, mend: &str) -> Finding {
    Finding { what, pass, found: found.into(), mend: (!pass).then(|| mend.to_string()) }
}

/// Ends with 1 when anything warns.
pub(super) fn run(options: &Options) -> Result<Done, Failure> {
    let plan = options.file.as_deref().map(config::load).transpose().map_err(|report| Failure::config(&report))?;
    let rows = if options.security { security(plan.as_ref(), options.file.as_deref()) } else { host(plan.as_ref()) };
    let warnings = rows.iter().filter(|r| !r.pass).count();
    let mut text = String::new();
    for r in &rows {
        let verdict = if r.pass { styled(GOOD, "pass") } else { styled(WARN, "warn") };
        text += &format!("{verdict}  {}  {}\n", styled(HEAD, &format!("{:<20}", r.what)), r.found);
        if let Some(mend) = &r.mend {
            text += &format!("      {:<20}  {} {mend}\n", "", styled(FAINT, "mend:"));
        }
    }
    text += &format!("\n{} of {} pass\n", rows.len() - warnings, rows.len());
    let json = serde_json::json!({ "pass": warnings == 0, "findings": rows });
    Ok(Done { text, json, code: u8::from(warnings > 0) })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default()
}

fn host(plan: Option<&Plan>) -> Vec<Finding> {
    let wanted = plan.map_or(RealTime { wanted: true, required: false, priority: 60, core: None }, |p| RealTime {
        wanted: true,
        ..p.control.realtime
    });
    let mut rows = permissions(&wanted);
    rows.extend(kernel(wanted.core));
    rows.push(clock());
    let dir = plan.filter(|p| p.access.dir.is_some()).map(|p| p.state_dir.clone());
    rows.extend(disk(&dir.unwrap_or_else(std::env::temp_dir)));
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let enough = files.is_none_or(|n| n >= 1024);
    let found = files.map_or_else(|| "no limit".to_string(), |n| format!("{n} file descriptors"));
    rows.push(row("descriptors", enough, found, "LimitNOFILE=4096 in the unit, or ulimit -n 4096"));
    rows
}

/// What the control thread asks for, asked for by a thread that ends.
fn permissions(wanted: &RealTime) -> Vec<Finding> {
    let wanted = *wanted;
    let refused = std::thread::spawn(move || rt::enter(&wanted)).join().unwrap_or_default();
    let of = |what, word: &str, good: &str, mend| {
        let found = refused.iter().find(|r| r.contains(word));
        row(what, found.is_none(), found.map_or_else(|| good.to_string(), Clone::clone), mend)
    };
    vec![
        of(
            "real time",
            "SCHED_FIFO",
            "SCHED_FIFO is granted",
            "LimitRTPRIO=99 in the unit; by hand: sudo prlimit --rtprio=99 --pid $$",
        ),
        of(
            "memory lock",
            "memory cannot",
            "memory can be locked",
            "LimitMEMLOCK=infinity in the unit; by hand: sudo prlimit --memlock=unlimited --pid $$",
        ),
        of(
            "timer slack",
            "timer slack",
            "can be set to 1 ns",
            "run the agent in a thread-mode cgroup that permits PR_SET_TIMERSLACK",
        ),
        of("core", "pinned", "the thread can be pinned", "set control.core to a core this host has"),
    ]
}

fn kernel(core: Option<u16>) -> Vec<Finding> {
    let isolated = read("/sys/devices/system/cpu/isolated");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mend = format!(
        "isolcpus={0} nohz_full={0} rcu_nocbs={0} on the kernel's command line, and control.core = {0}",
        cpus - 1
    );
    let found =
        if isolated.is_empty() { "no core is kept free for the beat".into() } else { format!("isolated: {isolated}") };
    let mut rows = vec![row("isolated cores", !isolated.is_empty(), found, &mend)];
    let preempt = read("/sys/kernel/realtime") == "1" || read("/proc/version").contains("PREEMPT_RT");
    let found = if preempt { "PREEMPT_RT" } else { "not a real-time kernel" };
    rows.push(row(
        "kernel",
        preempt,
        found,
        "apt install linux-image-rt-amd64 (or -arm64): worst cases fall from milliseconds to tens of microseconds",
    ));
    let governor = read(&format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor", core.unwrap_or(0)));
    let fine = governor.is_empty() || governor == "performance";
    let found = if governor.is_empty() {
        "the clock of the cores is not scaled here".into()
    } else {
        format!("governor {governor}")
    };
    rows.push(row("core clock", fine, found, "cpupower frequency-set -g performance"));
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let fast = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", ""].contains(&source.as_str());
    rows.push(row(
        "clock source",
        fast,
        format!("{source}: reading it is {}", if fast { "cheap" } else { "slow" }),
        "clocksource=tsc on the kernel's command line, if the hardware's is stable",
    ));
    rows
}

/// Whether somebody keeps the wall clock right: source times are only as good as it.
fn clock() -> Finding {
    let synchronized = Path::new("/run/systemd/timesync/synchronized").exists();
    let daemons = ["chronyd", "ntpd", "ntpd-rs", "ptp4l", "phc2sys", "systemd-timesyncd", "systemd-timesyn"];
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path().join("comm"));
    let running = names.filter_map(|p| std::fs::read_to_string(p).ok()).find(|n| daemons.contains(&n.trim()));
    let found = match (&running, synchronized) {
        (Some(name), true) => format!("{} runs and has the time", name.trim()),
        (Some(name), false) => format!("{} runs", name.trim()),
        (None, _) => "nobody keeps the clock: source times drift".to_string(),
    };
    row("clock sync", running.is_some(), found, "apt install chrony; or systemctl enable --now systemd-timesyncd")
}

fn disk(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    if let Err(e) = std::fs::create_dir_all(dir) {
        return vec![row(
            "disk",
            false,
            format!("{shown}: {e}"),
            "StateDirectory=lightsout in the unit; or make the folder and give it to the agent's user",
        )];
    }
    let mut rows = Vec::new();
    if let Ok(fs) = rustix::fs::statvfs(dir) {
        let (free, all) = (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize);
        let enough = free > 1 << 30 && free > all / 20;
        rows.push(row(
            "disk space",
            enough,
            format!("{shown}: {} of {} free", bytes(free), bytes(all)),
            "make room, give the spool a smaller capacity, or move state_dir to another disk",
        ));
    }
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let mut took: Vec<u128> = Vec::new();
    let tried = (|| -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        for _ in 0..16 {
            let start = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            took.push(start.elapsed().as_micros());
        }
        Ok(())
    })();
    let _ = std::fs::remove_file(&path);
    took.sort_unstable();
    let worst = took.last().copied().unwrap_or(0) as u64;
    let half = took.get(took.len() / 2).copied().unwrap_or(0) as u64;
    rows.push(match tried {
        Ok(()) => row(
            "disk writes",
            worst < 200_000,
            format!(
                "a durable write takes {}, the longest of 16 took {}",
                super::look::micros(half),
                super::look::micros(worst)
            ),
            "an SD card or a busy disk: put state_dir on an SSD of its own",
        ),
        Err(e) => row("disk writes", false, format!("{shown}: {e}"), "give the folder to the agent's user"),
    });
    rows
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o777)
}

fn security(plan: Option<&Plan>, file: Option<&Path>) -> Vec<Finding> {
    let root = rustix::process::geteuid().is_root();
    let mut rows = vec![row(
        "user",
        !root,
        if root { "runs as root" } else { "does not run as root" },
        "run it by the shipped unit (DynamicUser), or as a user of its own",
    )];
    let Some(plan) = plan else {
        rows.push(row(
            "configuration",
            false,
            "none was given: its doors were not looked at",
            "edge-agent doctor --security /etc/lightsout/agent.toml",
        ));
        return rows;
    };
    rows.extend(doors(plan));
    rows.extend(secrets(plan, file));
    rows.extend(super::named::findings(plan));
    rows
}

/// What can be reached, and by whom.
fn doors(plan: &Plan) -> Vec<Finding> {
    let inside = !plan.http.is_unencrypted;
    let open = |role: Option<Role>| role.is_some_and(|r| r > Role::Viewer);
    let name = |role: Option<Role>| role.map_or("none", Role::name);
    let access = &plan.access;
    let found = format!(
        "{}{}",
        plan.listen,
        match (&plan.http.tls, inside) {
            (Some(_), _) => ", with TLS",
            (None, true) => ", this machine only",
            (None, false) => ": passwords and tokens cross the network unencrypted",
        }
    );
    let mut rows = vec![
        row(
            "listening",
            inside,
            found,
            "tls = { self_signed = true } in [http]; or listen = \"127.0.0.1:9464\", and a proxy with TLS in front",
        ),
        row(
            "here, not signed in",
            !open(access.loopback),
            format!("role {}", name(access.loopback)),
            "loopback = \"viewer\" in [http], once there is a user",
        ),
        row(
            "elsewhere",
            access.remote.is_none(),
            format!("role {} without signing in", name(access.remote)),
            "remote = \"none\" in [http]",
        ),
    ];
    let insecure: Vec<&str> = plan.lines.iter().filter(|l| l.driver.is_insecure()).map(|l| &*l.name).collect();
    let found = if insecure.is_empty() {
        "every line has security".to_string()
    } else {
        format!("without security: {}", insecure.join(", "))
    };
    rows.push(row(
        "OPC UA",
        insecure.is_empty(),
        found,
        "security = \"Basic256Sha256/SignAndEncrypt\" on the line, then edge-agent pki trust",
    ));
    let clear: Vec<String> = plan
        .mqtt
        .iter()
        .flat_map(|m| &m.brokers)
        .filter(|b| !b.tls && !is_here(&b.host))
        .map(ToString::to_string)
        .collect();
    let found = if clear.is_empty() {
        "encrypted, or on this machine".to_string()
    } else {
        format!("in the clear: {}", clear.join(", "))
    };
    rows.push(row("MQTT", clear.is_empty(), found, "broker = \"mqtts://host:8883\" and [mqtt.tls] ca = \"ca.pem\""));
    let modbus = plan.lines.iter().filter(|l| matches!(&l.driver, DriverPlan::Modbus(spec) if !is_here(spec.endpoint.host_port().unwrap_or("127.0.0.1")) && !matches!(spec.endpoint, device_drivers::modbus::Endpoint::Tls { .. })));
    let names: Vec<&str> = modbus.map(|l| &*l.name).collect();
    let found = if names.is_empty() {
        "none in the clear across a network".to_string()
    } else {
        format!("in the clear: {}", names.join(", "))
    };
    rows.push(row(
        "Modbus",
        names.is_empty(),
        found,
        "a network of its own for these PLCs; tls://host:802 where they speak it",
    ));
    rows
}

fn is_here(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What others on this machine could read or change.
fn secrets(plan: &Plan, file: Option<&Path>) -> Vec<Finding> {
    let mut rows = Vec::new();
    match &plan.access.dir {
        None => rows.push(row(
            "state folder",
            false,
            "none is configured: users and keys are in memory, or where anybody may write",
            "state_dir = \"/var/lib/lightsout\" in [gateway]",
        )),
        Some(dir) => {
            let bits = mode(dir);
            let fine = bits.is_none_or(|m| m & 0o022 == 0);
            let found = bits.map_or_else(
                || format!("{}: not there yet", dir.display()),
                |m| format!("{}: mode {m:o}", dir.display()),
            );
            rows.push(row("state folder", fine, found, &format!("chmod 700 {}", dir.display())));
            let loose: Vec<String> = walk(dir, 3)
                .into_iter()
                .filter(|p| mode(p).is_some_and(|m| m & 0o077 != 0) && is_secret(p))
                .map(|p| p.display().to_string())
                .collect();
            let found = if loose.is_empty() {
                "keys and users are readable by the agent alone".to_string()
            } else {
                loose.join(", ")
            };
            rows.push(row("secrets", loose.is_empty(), found, &format!("chmod 600 {}", loose.join(" "))));
        }
    }
    if let Some(file) = file {
        let bits = mode(file).unwrap_or(0);
        let owner = std::fs::metadata(file).map_or(0, |m| m.uid());
        let fine = bits & 0o022 == 0;
        rows.push(row(
            "configuration",
            fine,
            format!("{}: mode {bits:o}, owner {owner}", file.display()),
            &format!("chmod go-w {}", file.display()),
        ));
    }
    rows
}

fn is_secret(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name == "users.json"
        || name.ends_with(".jsonl")
        || name.contains("password")
        || name.ends_with(".key")
        || path.components().any(|c| c.as_os_str() == "private")
}

fn walk(dir: &Path, depth: u8) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            found.extend(walk(&path, depth - 1));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
