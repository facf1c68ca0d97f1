//! Keys of writes: the same key is the same write, whoever hangs up.

use device_drivers::{TagWrite, WriteOutcome};
use edge_agent::audit::Audit;
use edge_agent::commands::{Origin, WriteDesk, WriteForm, targets};
use edge_agent::config;
use edge_agent::store::Keep;
use edge_agent::store::facts::Did;
use edge_agent::telemetry::spool::Memory;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

fn desk(write: &str) -> (Arc<WriteDesk>, mpsc::Receiver<TagWrite>) {
    desk_that_knows(write, &[])
}

fn origin() -> Origin {
    Origin { via: "http", by: "test".into(), from: "here".into() }
}

fn desk_that_knows(write: &str, known: &[Did]) -> (Arc<WriteDesk>, mpsc::Receiver<TagWrite>) {
    desk_with(write, Arc::default(), known)
}

fn desk_with(write: &str, audit: Arc<Audit>, known: &[Did]) -> (Arc<WriteDesk>, mpsc::Receiver<TagWrite>) {
    let dir = tempfile::tempdir().unwrap();
    let agent = "[gateway]\nname = \"gw\"\narea = \"h\"\nline = \"a\"\n[[line]]\nname = \"l\"\nmodbus = \"h:502\"\n\
                 [[line.device]]\nname = \"d\"\ncell = \"c\"\nprofile = \"p.toml\"\n";
    std::fs::write(dir.path().join("agent.toml"), agent).unwrap();
    let tag = format!("[[tag]]\nname = \"t\"\naddress = \"holding:0\"\ntype = \"u16\"\n{write}\n");
    std::fs::write(dir.path().join("p.toml"), tag).unwrap();
    let plan = config::load(&dir.path().join("agent.toml")).unwrap_or_else(|e| panic!("{e}"));
    let (queue, wishes) = mpsc::channel(64);
    let desk = WriteDesk::new(audit, known);
    desk.open(plan.lines.iter().flat_map(|line| targets(line, &queue)));
    (Arc::new(desk), wishes)
}

fn form(value: u64, key: &str) -> WriteForm {
    WriteForm { tag: "d/t".into(), value: value.into(), within_ms: None, key: Some(key.into()) }
}

/// Whoever hangs up (a time-out of the HTTP client) never learns what came of it, though that is what the key is for.
#[tokio::test]
async fn a_key_whose_asker_hung_up_is_answered_with_what_came_of_it() {
    let (desk, mut wishes) = desk("write = {}");
    let gone = tokio::time::timeout(Duration::from_millis(100), desk.write(form(7, "k"), origin())).await;
    assert!(gone.is_err(), "the asker has gone");
    let wish = wishes.recv().await.unwrap();
    let _ = wish.reply.send(WriteOutcome::Done); // the device did it
    tokio::time::sleep(Duration::from_millis(200)).await;
    let again = desk.write(form(7, "k"), origin()).await;
    assert_eq!(again.outcome, "done", "{again:?}");
}

/// The same key with another value is answered `done`, and was not.
#[tokio::test]
async fn a_key_with_another_value_is_not_done() {
    let (desk, mut wishes) = desk("write = {}");
    tokio::spawn(async move {
        while let Some(wish) = wishes.recv().await {
            let _ = wish.reply.send(WriteOutcome::Done);
        }
    });
    assert_eq!(desk.write(form(7, "k"), origin()).await.outcome, "done");
    let other = desk.write(form(300, "k"), origin()).await;
    assert_ne!(other.outcome, "done", "300 was never sent: {other:?}");
}

/// What was refused before anything was sent is refused for ever under its key.
#[tokio::test]
async fn a_key_that_came_too_often_may_come_again_later() {
    let (desk, mut wishes) = desk("write = { every = \"300ms\" }");
    tokio::spawn(async move {
        while let Some(wish) = wishes.recv().await {
            let _ = wish.reply.send(WriteOutcome::Done);
        }
    });
    assert_eq!(desk.write(form(1, "a"), origin()).await.outcome, "done");
    assert_eq!(desk.write(form(2, "b"), origin()).await.outcome, "too_often");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let later = desk.write(form(2, "b"), origin()).await;
    assert_eq!(later.outcome, "done", "{later:?}");
}

/// A gateway that restarts has not forgotten what it did: the audit record knows.
#[tokio::test]
async fn a_key_of_an_earlier_run_is_not_written_again() {
    let did = Did {
        who: "mes".into(),
        action: "tag.write".into(),
        target: "d/t".into(),
        value: Some(7.into()),
        key: Some("k".into()),
        outcome: "done".into(),
        ..Did::default()
    };
    let (desk, mut wishes) = desk_that_knows("write = {}", &[did]);
    assert_eq!(desk.write(form(7, "k"), origin()).await.outcome, "done");
    assert_eq!(desk.write(form(8, "k"), origin()).await.outcome, "invalid", "the key stands for another value");
    assert!(wishes.try_recv().is_err(), "nothing was sent");
}

/// The gateway is killed while a slow device has the write: who asks again with the key must not write twice.
#[tokio::test]
async fn a_write_that_was_on_its_way_when_the_gateway_was_killed_is_never_sent_again() {
    let disk = Arc::new(Memory::default());
    let open = || {
        let (keep, left, _) = Keep::on(disk.clone(), 0, Vec::new).unwrap();
        let audit = Arc::new(Audit::new(keep, left.did.clone(), false));
        desk_with("write = { every = \"1h\" }", audit, &left.writes)
    };
    let (first, mut wishes) = open();
    let asked = first.clone();
    let waiting = tokio::spawn(async move { asked.write(form(7, "k"), origin()).await });
    let wish = wishes.recv().await.unwrap(); // the device has it; then nothing is written any more
    let (second, mut more) = open();
    let again = second.write(form(7, "k"), origin()).await;
    assert_eq!(again.outcome, "unknown", "{again:?}");
    assert_eq!(second.write(form(8, "k"), origin()).await.outcome, "invalid", "the key stands for 7");
    assert!(more.try_recv().is_err(), "nothing was sent");
    // What was known to be not sent may be asked for again after a restart.
    assert!(wish.reply.send(WriteOutcome::Expired).is_ok());
    assert_eq!(waiting.await.unwrap().outcome, "expired");
    let (third, mut wishes) = open();
    tokio::spawn(async move { wishes.recv().await.map(|wish| wish.reply.send(WriteOutcome::Done)) });
    assert_eq!(third.write(form(7, "k"), origin()).await.outcome, "done");
}
