//! Whatever has become of the state folder: the gateway starts, control runs, nothing of it is deleted, and an alarm says so. What root makes
//! in it is its owner's.

#[path = "support/state_folder.rs"]
mod state_folder;
mod support;

use edge_agent::Agent;
use edge_agent::access::{Access, AccessPlan, Role};
use edge_agent::config::Plan;
use edge_agent::telemetry::spool::{Spool, SpoolOptions};
use state_folder::{HARMS, Harm, copy, files, give_to};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{eventually, http_with};

/// The small demo, with all that it keeps in one folder.
fn plan(plant: plc_sim::SimAddresses, dir: &Path) -> Plan {
    let mut plan = support::demo_plan(plant, support::free_port());
    (plan.state_dir, plan.is_kept) = (dir.into(), true);
    plan.access.dir = Some(dir.into());
    plan.access.loopback = Some(Role::Operator);
    plan.mqtt.as_mut().unwrap().spool.directory = Some(dir.join("spool"));
    plan.drain = Duration::ZERO; // what moves need not come to rest here
    plan
}

async fn runs(agent: &Agent, what: &str) {
    let ready = eventually(Duration::from_secs(60), async || agent.ready()).await;
    assert!(ready, "{what}: control does not run");
}

fn alarms(agent: &Agent) -> Vec<(String, String)> {
    agent.stages.alarms.list().into_iter().map(|a| (a.alarm.to_string(), a.subject.clone())).collect()
}

/// A folder as a gateway leaves it that had users, orders, commands and no broker.
async fn lived_in(plant: plc_sim::SimAddresses, dir: &Path) {
    let users = AccessPlan {
        loopback: None,
        remote: None,
        session: Duration::from_secs(60),
        dir: Some(dir.into()),
        audit_is_required: false,
    };
    let (access, _) = Access::open(users).unwrap();
    access.add_user("ada", Role::Admin, "correct horse".into()).await.unwrap();
    drop(access);
    let agent = Agent::start(plan(plant, dir)).await.unwrap();
    runs(&agent, "a sound folder").await;
    assert!(alarms(&agent).iter().all(|(alarm, _)| !alarm.starts_with("state-") && !alarm.starts_with("users-")));
    for load in 1001..1004 {
        let order = format!("{{\"kind\":\"retrieve\",\"load\":{load},\"key\":\"po-{load}\"}}");
        assert_eq!(http_with(agent.http, "POST", "/api/v1/orders", &order, "").await.unwrap().0, 201);
    }
    for key in ["a", "b", "c"] {
        let write = format!("{{\"tag\":\"x/y\",\"value\":1,\"key\":\"{key}\"}}");
        let _ = http_with(agent.http, "POST", "/api/v1/writes", &write, "").await.unwrap();
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_become_of_every_file_the_gateway_starts_and_control_runs() {
    let sim = support::start_plant(11).await;
    let home = tempfile::tempdir().unwrap();
    let sound = home.path().join("sound");
    lived_in(sim.addresses, &sound).await;
    let names: Vec<PathBuf> = files(&sound).iter().map(|f| f.strip_prefix(&sound).unwrap().to_path_buf()).collect();
    for name in ["users.json", "store/0000000000000001.log", "store/head", "spool/normal/", "spool/high/cursor"] {
        assert!(names.iter().any(|n| n.to_string_lossy().starts_with(name)), "{name} is there: {names:?}");
    }
    for harm in HARMS {
        let dir = home.path().join("harmed");
        copy(&sound, &dir);
        let before: Vec<(PathBuf, u64)> = files(&dir).into_iter().map(|f| (f.clone(), length(&f))).collect();
        before.iter().for_each(|(file, _)| harm.to(file));
        let agent = Agent::start(plan(sim.addresses, &dir)).await.unwrap_or_else(|e| panic!("{harm:?}: {e}"));
        runs(&agent, &format!("{harm:?}")).await;
        // A file that others may read is sound; and a bit in a name or a hash nobody can see.
        let (damaged, no_users) = (harm != Harm::Open, !matches!(harm, Harm::Flip { thousandth: 500, .. }));
        let told = eventually(Duration::from_secs(10), async || {
            let all = alarms(&agent);
            let has = |id: &str| all.iter().any(|(alarm, _)| alarm == id);
            (has("users-unreadable") || !no_users) && (has("state-damaged") || !damaged)
        });
        assert!(told.await, "{harm:?}: {:?}", alarms(&agent));
        if no_users {
            let login = "{\"name\":\"ada\",\"password\":\"correct horse\"}";
            let signed_in = http_with(agent.http, "POST", "/api/v1/login", login, "").await.unwrap().0;
            assert_eq!(
                signed_in, 503,
                "{harm:?}: users that cannot be trusted cannot sign in, and nobody's password is blamed"
            );
        }
        assert!(!agent.access().needs_setup(), "{harm:?}: nobody becomes the first admin by it");
        agent.stop().await;
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_at_all_keeps_nobody_from_control() {
    let sim = support::start_plant(12).await;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state");
    std::fs::write(&dir, "a file where the folder should be").unwrap();
    let agent = Agent::start(plan(sim.addresses, &dir)).await.unwrap();
    runs(&agent, "no folder").await;
    let told = eventually(Duration::from_secs(10), async || {
        let all = alarms(&agent);
        ["spool", "store"].iter().all(|part| all.contains(&("state-unusable".into(), (*part).into())))
    });
    assert!(told.await, "{:?}", alarms(&agent));
    let order = "{\"kind\":\"retrieve\",\"load\":1001}";
    let (status, why) = http_with(agent.http, "POST", "/api/v1/orders", order, "").await.unwrap();
    assert!(status == 409 && why.contains("not written down"), "{status}: {why}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_can_be_used_again_is_used_and_its_alarm_goes_without_a_restart() {
    let sim = support::start_plant(13).await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("spool");
    std::fs::write(&folder, "a file where the folder should be").unwrap();
    let agent = Agent::start(plan(sim.addresses, home.path())).await.unwrap();
    let alarm = ("state-unusable".to_string(), "spool".to_string());
    assert!(
        eventually(Duration::from_secs(10), async || alarms(&agent).contains(&alarm)).await,
        "{:?}",
        alarms(&agent)
    );
    let spool = agent.stages.spool.clone();
    assert!(eventually(Duration::from_secs(10), async || spool.accounts().waiting > 0).await);
    std::fs::remove_file(&folder).unwrap();
    let is_over = async || agent.stages.alarms.list().iter().all(|a| a.subject != "spool" || !a.active);
    assert!(eventually(Duration::from_secs(60), is_over).await, "{:?}", agent.stages.alarms.list());
    agent.stop().await;
    let kept = Spool::start(Some(&folder), SpoolOptions::new(1 << 24, "lost")).unwrap();
    let (then, now) = (spool.accounts(), kept.spool.accounts());
    assert!(then.waiting > 0 && then.lost == 0 && now.waiting == then.waiting, "{then:?}, then {now:?}");
}

#[test]
fn a_spool_that_another_gateway_uses_is_refused_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = || SpoolOptions::new(1 << 20, "lost");
    let _first = Spool::start(Some(dir.path()), options()).unwrap();
    let why = Spool::start(Some(dir.path()), options()).unwrap_err();
    assert!(matches!(why, edge_agent::telemetry::spool::CannotOpen::InUse(_)), "{why}");
}

/// Two gateways in one folder would end each other's orders, and give the same numbers twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_another_gateway_uses_is_refused() {
    let plant = support::start_plant(3).await;
    let dir = tempfile::tempdir().unwrap();
    let first = Agent::start(plan(plant.addresses, dir.path())).await.unwrap();
    let why = Agent::start(plan(plant.addresses, dir.path())).await.err().expect("refused");
    assert!(why.contains("another gateway uses") && why.contains("state_dir"), "{why}");
    first.stop().await;
    Agent::start(plan(plant.addresses, dir.path())).await.expect("it is free again").stop().await;
}

/// `sudo edge-agent user add` beside a gateway that runs as a user of its own.
#[test]
fn what_root_makes_in_the_folder_of_the_gateway_s_user_is_that_user_s() {
    let test = "what_root_makes_in_the_folder_of_the_gateway_s_user_is_that_user_s";
    const GATEWAY: u32 = 61_234;
    let home = tempfile::tempdir().unwrap();
    let (state_dir, config) = (home.path().join("state"), home.path().join("agent.toml"));
    std::fs::create_dir(&state_dir).unwrap();
    if !give_to(&state_dir, GATEWAY, test) {
        return;
    }
    std::os::unix::fs::chown(home.path(), Some(GATEWAY), None).unwrap();
    let text = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\nstate_dir = \"state\"\n";
    std::fs::write(&config, text).unwrap();
    let user = |uid: Option<u32>, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        command.arg("user").args(arguments).arg("--config").arg(&config).stdin(Stdio::null());
        uid.map(|uid| command.uid(uid).gid(uid));
        command.output().unwrap()
    };
    let made = user(None, &["token", "prometheus", "--role", "viewer"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mine = edge_agent::access::Store::open(Some(&state_dir)).unwrap();
    assert_eq!(mine.list().len(), 1);
    // And keys, as `browse` makes them.
    let pki = device_drivers::opcua::pki::Pki::open(&state_dir.join("pki")).unwrap();
    pki.own().unwrap();
    let mut all = files(&state_dir);
    all.push(state_dir.join("pki/trusted"));
    all.push(state_dir.join("pki/private"));
    assert!(all.len() >= 5, "{all:?}");
    for path in all {
        assert_eq!(path.metadata().unwrap().uid(), GATEWAY, "{}", path.display());
    }
    // Whoever is neither root nor that user would lock the gateway out, or cannot: it is said what to do.
    let bin = Path::new(env!("CARGO_BIN_EXE_edge-agent"));
    if bin.ancestors().all(|dir| dir.metadata().is_ok_and(|m| m.mode() & 0o001 != 0)) {
        std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&state_dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let refused = user(Some(61_235), &["token", "other", "--role", "viewer"]);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("sudo"), "{why}");
        let as_gateway = user(Some(GATEWAY), &["list"]);
        assert!(as_gateway.status.success(), "{}", String::from_utf8_lossy(&as_gateway.stderr));
    }
}
