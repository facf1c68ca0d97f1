//! What people see after a restart is what they saw before, whatever happened and wherever it was cut.
//!
//! A round that fails prints its seed: `MEMORY_SEED=<seed> cargo test --workspace --lib memory` runs it again, alone.

use crate::absent::Absent;
use crate::access::{Role, Who};
use crate::alarms::{AlarmDesk, TABLE};
use crate::audit::Audit;
use crate::board::Board;
use crate::closings::{self, Closings, What};
use crate::commands::WriteDesk;
use crate::config::plan::FloorNames;
use crate::desk::{Desk, OrderForm};
use crate::store::facts::Did;
use crate::store::{Fact, Keep, Stands};
use crate::telemetry::spool::{Disk, Memory};
use control_core::cycle::Request;
use control_core::event::{Event, EventKind, OrderFault};
use control_core::units::{LoadId, MachineId, Millis, OrderId, PosId};
use floor_plan::FloorPlan;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A gateway's rooms that stand on the store.
struct Rooms {
    keep: Keep,
    desk: Arc<Desk>,
    board: Arc<Board>,
    alarms: Arc<AlarmDesk>,
    closings: Arc<Closings>,
    absent: Arc<Absent>,
    audit: Arc<Audit>,
    writes: Arc<WriteDesk>,
    events: Option<rtrb::Producer<Event>>,
    books: tokio::task::JoinHandle<()>,
    _requests: rtrb::Consumer<Request>,
    floors: rtrb::Consumer<Arc<FloorPlan>>,
    spent: rtrb::Producer<Arc<FloorPlan>>,
}

fn plan() -> Arc<FloorPlan> {
    FloorPlan::small(4, 20).map(Arc::new).unwrap()
}

fn open(disk: &Arc<Memory>) -> Rooms {
    let (keep, left, opened) = Keep::on(disk.clone(), 0, Vec::new).unwrap();
    assert!(opened.missing.is_empty() && opened.damaged.is_empty(), "{opened:?}");
    let (requests, taken) = rtrb::RingBuffer::new(4096);
    let (events, news) = rtrb::RingBuffer::new(4096);
    let (floor_in, floors) = rtrb::RingBuffer::new(closings::RING);
    let (spent, spent_out) = rtrb::RingBuffer::new(closings::RING);
    let names = FloorNames::of(Some(plan()));
    let desk = Desk::with(requests, names.groups(), keep.clone(), &left);
    let board = Arc::new(Board::new(names.clone()));
    board.recall(&left);
    let audit = Arc::new(Audit::new(keep.clone(), left.did.clone(), false));
    Rooms {
        books: tokio::spawn(desk.clone().keep_books(news, names, board.clone())),
        desk,
        board,
        alarms: Arc::new(AlarmDesk::new(keep.clone(), &left)),
        closings: Arc::new(Closings::new(plan(), floor_in, spent_out).recalling(keep.clone(), &left)),
        absent: Arc::new(Absent::new(keep.clone(), &left)),
        writes: Arc::new(WriteDesk::new(audit.clone(), &left.writes)),
        audit,
        events: Some(events),
        _requests: taken,
        floors,
        spent,
        keep,
    }
}

impl Rooms {
    fn all(&self) -> Vec<Arc<dyn Stands>> {
        let Rooms { desk, alarms, closings, absent, audit, writes, .. } = self;
        vec![desk.clone(), alarms.clone(), closings.clone(), absent.clone(), audit.clone(), writes.clone()]
    }

    fn snapshot(&self) {
        let (store, rooms) = (self.keep.store().unwrap(), self.all());
        store.settle().unwrap();
        store.snapshot(|e| Fact::of(e).is_none_or(|f| rooms.iter().any(|r| r.stands(e.at_ms, &f)))).unwrap();
    }

    /// Lets the books take over all events, and everything be written.
    async fn end(mut self) -> Value {
        drop(self.events.take());
        (&mut self.books).await.unwrap();
        self.keep.settle().await.unwrap();
        self.views()
    }

    /// All that people can see of it. What was refused is forgotten, and of times the second counts.
    fn views(&self) -> Value {
        let orders: Vec<Value> = self
            .desk
            .newest(usize::MAX, None)
            .into_iter()
            .filter(|o| !o.found)
            .filter(|o| o.state.name() != "rejected")
            .map(|o| {
                let story = self.board.story(o.id).unwrap_or_default();
                let known = |ms: Option<u64>| ms.is_some(); // the clock goes on between an event and its being written
                let steps: Vec<&str> = story.steps.iter().map(|s| s.what.as_str()).collect();
                let times = [story.taken_ms, story.started_ms, story.ended_ms].map(known);
                json!({ "order": o, "steps": steps, "times": times })
            })
            .collect();
        let alarms: Vec<Value> = self
            .alarms
            .list()
            .into_iter()
            .map(|a| json!([a.alarm, a.subject, a.state, a.active, a.by, a.reason, a.detail, a.until]))
            .collect();
        let history: Vec<Value> =
            self.alarms.history(1000).into_iter().map(|c| json!([c.alarm, c.subject, c.change, c.by])).collect();
        let audit: Vec<Value> = self
            .audit
            .newest(1000)
            .into_iter()
            .map(|e| json!([e.who, e.via, e.action, e.target, e.outcome, e.key, e.value]))
            .collect();
        let mut absent: Vec<String> =
            self.absent.requests(|name| name.parse().ok().map(MachineId)).iter().map(|r| format!("{r:?}")).collect();
        absent.sort();
        json!({ "orders": orders, "alarms": alarms, "history": history, "audit": audit,
            "closed": self.closings.closed(), "absent": absent })
    }

    fn event(&mut self, kind: EventKind) {
        self.events.as_mut().unwrap().push(Event { at: Millis(0), kind }).unwrap();
    }

    /// Something happens.
    async fn happen(&mut self, rng: &mut fastrand::Rng, at: Instant) {
        let ada = Who { name: "ada".into(), role: Some(Role::Admin), signed_in: true, from: [10, 0, 0, 1].into() };
        // Nothing is told of an order that never was.
        let known: Vec<u32> = self.desk.newest(usize::MAX, None).iter().map(|o| o.id).collect();
        let id = OrderId(rng.choice(&known).copied().unwrap_or_default());
        let load = LoadId::new(1000 + id.0).unwrap();
        let (row, subject) = (TABLE[rng.usize(0..3)].id, ["rack", "cell"][rng.usize(0..2)]);
        match rng.u8(0..16) {
            0..=2 => {
                let key = rng.bool().then(|| format!("k{}", rng.u8(..)));
                let form =
                    json!({ "kind": "retrieve", "load": rng.u32(1..50), "tenant": "acme", "due": "10m", "key": key });
                let form: OrderForm = serde_json::from_value(form).unwrap();
                let _ = self.desk.submit(form, Duration::ZERO).await;
            }
            3..8 if id.0 == 0 => {}
            3 => self.event(EventKind::OrderAccepted(id, load)),
            4 => self.event(EventKind::OrderStarted(id)),
            5 => self.event(EventKind::OrderCompleted(id)),
            6 => self.event(EventKind::OrderFailed(id, OrderFault::LoadMissing)),
            7 => self.event(EventKind::LoadFound(load, PosId(3))),
            8 => drop((self.desk.reclass(id.0, rng.u8(0..4)), self.desk.withdraw(id.0, rng.bool()))),
            9 | 10 => self.alarms.say(row, if rng.bool() { &["rack", "cell"] } else { &["cell"] }, at),
            11 => drop(self.alarms.acknowledge(row, subject, "ada")),
            12 if rng.bool() => drop(self.alarms.shelve(row, subject, "ada", Duration::from_secs(3600), "repair")),
            12 => drop(self.alarms.unshelve(row, subject, "ada")),
            13 => {
                let tier = ["rack-1.tier-1", "rack-1.tier-2", "infeed"][rng.usize(0..3)];
                let _ = self.closings.set(What::Zone, tier, rng.bool());
                while let Ok(floor) = self.floors.pop() {
                    let _ = self.spent.push(floor);
                }
            }
            14 if rng.bool() => self.absent.leaves(&rng.u8(0..3).to_string(), rng.bool()),
            14 => self.absent.comes_back(&rng.u8(0..3).to_string()),
            _ => {
                self.audit.note(&ada, "user.add", "bob", "done").await;
                let did = Did {
                    action: "tag.write".into(),
                    outcome: "done".into(),
                    key: Some(rng.u8(..).to_string()),
                    ..Did::default()
                };
                self.audit.command(did, true).await;
            }
        }
    }
}

#[tokio::test]
async fn after_any_restart_people_see_what_they_saw_before() {
    let seeds = match std::env::var("MEMORY_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 1..=60u64,
    };
    for seed in seeds {
        let (mut rng, disk) = (fastrand::Rng::with_seed(seed), Arc::new(Memory::default()));
        let mut at = Instant::now();
        for life in 0..5 {
            let mut rooms = open(&disk);
            for _ in 0..rng.u32(0..60) {
                at += Duration::from_secs(60);
                rooms.happen(&mut rng, at).await;
                if rng.u8(0..20) == 0 {
                    rooms.snapshot();
                }
            }
            let before = rooms.end().await;
            let after = open(&disk);
            let again = after.views();
            for (key, value) in before.as_object().unwrap() {
                let what = format!("seed {seed}, life {life}: {key} (MEMORY_SEED={seed} runs it again)");
                let (old, new) = (value.as_array(), again[key].as_array());
                for (old, new) in old.into_iter().flatten().zip(new.into_iter().flatten()) {
                    assert_eq!(new, old, "{what}");
                }
                assert_eq!(&again[key], value, "{what}");
            }
            drop(after);
        }
    }
}

#[tokio::test]
async fn what_a_newer_version_has_written_is_kept_word_for_word_through_every_snapshot() {
    let disk = Arc::new(Memory::default());
    let rooms = open(&disk);
    let (kind, body) = ("order.cloned", br#"{"id":7,"of":"something to come"}"#.to_vec());
    rooms.keep.store().unwrap().append(kind, body.clone()).unwrap();
    // And a key that this version does not know, in a record that it does.
    let more = br#"{"id":1,"wanted":{"kind":"retrieve","load":5,"colour":"red"},"digest":"x","lane":3}"#.to_vec();
    rooms.keep.store().unwrap().append("order.taken", more.clone()).unwrap();
    drop(rooms.end().await);
    for _ in 0..3 {
        let rooms = open(&disk);
        rooms.snapshot();
        assert_eq!(rooms.desk.order(1).map(|o| o.load), Some(5), "what is known of it is used");
        drop(rooms.end().await);
    }
    let mut found = Vec::new();
    let (_store, _) =
        crate::store::Store::open(disk as Arc<dyn Disk>, 0, |e| found.push((e.kind.to_string(), e.body.to_vec())))
            .unwrap();
    assert!(found.contains(&(kind.into(), body)) && found.contains(&("order.taken".into(), more)), "{found:?}");
}
