//! The rules about what happens one after another: a session begins, ends, is asked for a rebirth, waits for its primary host.

use super::Verdict::{self, Fail, NotExercised, Pass};
use super::{Msg, World, bd_seq};
use crate::wire_broker::Event;
use edge_agent::telemetry::sparkplug::payload::Payload;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

impl World {
    pub(super) fn judge_stories(&self, rule: &str) -> Verdict {
        match rule {
            "rebirth-stops" | "rebirth-births" | "rebirth-bdseq" => self.rebirth(rule),
            "device-dies" => self
                .each_session(|msgs| {
                    for death in msgs.iter().filter(|m| m.kind == "DDEATH") {
                        if death.device.as_deref() != Some("m2") {
                            return Err(format!("{:?} did not die", death.device));
                        }
                    }
                    Ok(())
                })
                .and(self.each(&["DDEATH"], |_| true)),
            "death-before-leaving" | "disconnect-after-death" | "disconnect-311" => {
                self.goodbye(|version| version == 4 || rule != "disconnect-311", |_, _| true)
            }
            "disconnect-5" => self.goodbye(|version| version == 5, |_, reason| reason == 4),
            _ => self.host(rule),
        }
    }

    pub(super) fn wills(&self, holds: impl Fn(&Payload) -> bool) -> Verdict {
        self.connects(|_, _, _, will| {
            will.and_then(|w| Payload::decode(&w.payload[..]).ok()).is_some_and(|p| holds(&p))
        })
    }

    pub(super) fn one_client(&self) -> Verdict {
        for (scene, _) in &self.scenes {
            let ids: BTreeSet<&String> = scene
                .entries
                .iter()
                .filter_map(|e| match &e.event {
                    Event::Connect { client_id, .. } => Some(client_id),
                    _ => None,
                })
                .collect();
            if ids.len() != 1 {
                return Fail(format!("{ids:?}"));
            }
        }
        Pass
    }

    pub(super) fn device_once(&self) -> Verdict {
        self.each_session(|msgs| {
            let mut sets: BTreeMap<Option<String>, BTreeSet<String>> = BTreeMap::new();
            for birth in msgs.iter().filter(|m| m.kind == "DBIRTH") {
                let names = birth.payload.metrics.iter().filter_map(|m| m.name.clone()).collect();
                if sets.insert(birth.device.clone(), names).is_some_and(|old| old != sets[&birth.device]) {
                    return Err(format!("{:?} with different metrics", birth.device));
                }
            }
            Ok(())
        })
    }

    pub(super) fn bdseq_matches(&self) -> Verdict {
        for (scene, msgs) in self.sessions() {
            let will = self.will_of(scene, msgs[0].session).as_ref().and_then(bd_seq);
            for msg in msgs.iter().filter(|m| m.kind == "NBIRTH" || m.kind == "NDEATH") {
                if bd_seq(&msg.payload) != will || will.is_none() {
                    return Fail(format!("{:?} in {}, {will:?} in the will", bd_seq(&msg.payload), msg.kind));
                }
            }
        }
        self.each(&["NDEATH"], |m| bd_seq(&m.payload).is_some())
    }

    pub(super) fn bdseq_counts(&self) -> Verdict {
        let mut wrapped = false;
        for (scene, _) in &self.scenes {
            let wills: Vec<u64> = scene
                .entries
                .iter()
                .filter_map(|e| match &e.event {
                    Event::Connect { will: Some(w), .. } => {
                        Payload::decode(&w.payload[..]).ok().as_ref().and_then(bd_seq)
                    }
                    _ => None,
                })
                .collect();
            let first = if scene.primary_host.is_some() { 0 } else { 253 };
            if wills.first() != Some(&first) {
                return Fail(format!("begins with {:?}, {first} was expected", wills.first()));
            }
            wrapped |= wills.windows(2).any(|w| w == [255, 0]);
            if !wills.windows(2).all(|w| w[1] == (w[0] + 1) % 256) {
                return Fail(format!("{wills:?}"));
            }
        }
        if wrapped { Pass } else { NotExercised("255 was not reached".into()) }
    }

    pub(super) fn subscribed(&self, end: &str) -> Verdict {
        let filters = self.scenes.iter().flat_map(|(s, _)| &s.entries).filter_map(|e| match &e.event {
            Event::Subscribe(filters) => Some(filters),
            _ => None,
        });
        let found: Vec<&(String, u8)> = filters.flatten().filter(|(f, _)| f.contains(end)).collect();
        match found.iter().find(|(_, qos)| *qos != 1) {
            _ if found.is_empty() => Fail(format!("nobody subscribes to {end}")),
            Some(wrong) => Fail(format!("{wrong:?}")),
            None => Pass,
        }
    }

    fn rebirth(&self, rule: &str) -> Verdict {
        let mut some = false;
        for (scene, msgs) in self.scenes.iter().filter(|(s, _)| s.primary_host.is_none()) {
            let asked = scene.entries.iter().position(|e| matches!(&e.event, Event::Told(t) if t.contains("/NCMD/")));
            let Some(asked) = asked else { continue };
            some = true;
            let birth = msgs.iter().position(|m| m.at > asked && m.kind == "NBIRTH");
            let Some(birth) = birth else { return Fail("no birth".into()) };
            // What was on its way already may still come.
            let late =
                |m: &&Msg| m.at > asked && m.at_ms > scene.entries[asked].at_ms + 100 && m.kind.ends_with("DATA");
            let first = msgs.iter().find(|m| m.session == msgs[birth].session).unwrap();
            let devices: BTreeSet<_> = msgs[birth..]
                .iter()
                .take_while(|m| !m.kind.ends_with("DATA"))
                .filter_map(|m| m.device.clone())
                .collect();
            let holds = match rule {
                "rebirth-stops" => !msgs[..birth].iter().any(|m| late(&m)),
                "rebirth-births" => devices.len() == 3,
                _ => bd_seq(&first.payload) == bd_seq(&msgs[birth].payload),
            };
            if !holds {
                return Fail(format!("{}: {devices:?}", scene.name));
            }
        }
        if some { Pass } else { NotExercised("no rebirth was asked for".into()) }
    }

    /// NDEATH before DISCONNECT, in every session that ended with one and had births.
    fn goodbye(&self, which: impl Fn(u8) -> bool, holds: impl Fn(&Msg, u8) -> bool) -> Verdict {
        let mut some = false;
        for (scene, msgs) in self.scenes.iter().filter(|(s, _)| which(s.version)) {
            for (at, entry) in scene.entries.iter().enumerate() {
                let Event::Disconnect(reason) = entry.event else { continue };
                let session = (entry.broker, entry.connection);
                let mine = || msgs.iter().filter(|m| m.session == session);
                if !mine().any(|m| m.kind == "NBIRTH") {
                    continue;
                }
                some = true;
                let Some(last) = mine().next_back().filter(|m| m.at < at) else {
                    return Fail("after DISCONNECT".into());
                };
                if last.kind != "NDEATH" || !holds(last, reason) {
                    return Fail(format!("{}: last was {}, reason {reason}", scene.name, last.kind));
                }
            }
        }
        if some { Pass } else { NotExercised("nobody left".into()) }
    }

    fn host(&self, rule: &str) -> Verdict {
        let scene = self.with_host();
        let msgs = &self.scenes.iter().find(|(s, _)| s.primary_host.is_some()).unwrap().1;
        let told = |n: usize| {
            scene
                .entries
                .iter()
                .enumerate()
                .filter(|(_, e)| matches!(&e.event, Event::Told(t) if t.contains("STATE")))
                .nth(n)
                .map(|(at, _)| at)
        };
        let birth = |from: usize| msgs.iter().find(|m| m.at > from && m.kind == "NBIRTH").map(|m| m.at);
        let (other, online, old, offline) = (told(0), told(1), told(2), told(3));
        let (Some(other), Some(online), Some(old), Some(offline)) = (other, online, old, offline) else {
            return NotExercised("the story was not told to its end".into());
        };
        let first = birth(0).unwrap_or(usize::MAX);
        let verdict = |holds: bool, why: &str| if holds { Pass } else { Fail(why.into()) };
        match rule {
            "host-wait" => verdict(first > online, "born before STATE"),
            "host-other" => verdict(first > online && other < online, "born for another host"),
            // Offline at the second broker: no birth there, and the first one again.
            "host-says-offline" => {
                verdict(!msgs.iter().any(|m| m.session.0 == 2 && m.kind == "NBIRTH"), "born at an offline host")
            }
            "host-old-word" | "host-old-offline" => {
                let between = msgs.iter().filter(|m| m.at > old && m.at < offline);
                verdict(
                    between.clone().count() > 0 && between.clone().all(|m| m.kind != "NDEATH"),
                    "an old word was heeded",
                )
            }
            "host-goes" => {
                let after = msgs.iter().find(|m| m.at > offline && m.kind == "NDEATH").map(|m| m.at);
                let left = scene
                    .entries
                    .iter()
                    .enumerate()
                    .find(|(at, e)| *at > offline && matches!(e.event, Event::Disconnect(_)));
                verdict(after.zip(left).is_some_and(|(death, (left, _))| death < left), "no NDEATH before DISCONNECT")
            }
            "next-broker" => {
                let next = scene.entries.iter().skip(offline).find(|e| matches!(e.event, Event::Connect { .. }));
                verdict(next.is_some_and(|e| e.broker == 2), "the next broker was not asked")
            }
            "one-broker" => {
                let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
                for e in &scene.entries {
                    match e.event {
                        Event::Connect { .. } => drop(open.insert((e.broker, e.connection))),
                        Event::Disconnect(_) | Event::Closed => drop(open.remove(&(e.broker, e.connection))),
                        _ => {}
                    }
                    if open.len() > 1 {
                        return Fail(format!("{open:?} at once"));
                    }
                }
                Pass
            }
            "wait-again" => verdict(!msgs.iter().any(|m| m.session.0 == 2), "spoke at the second broker without STATE"),
            other => Fail(format!("there is no rule {other}")),
        }
    }
}
