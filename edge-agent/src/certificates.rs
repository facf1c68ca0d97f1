//! Certificates run out, and what trusts them stops that day. Looked at once a minute: every one that the configuration names, and the one
//! that each peer has shown last.
//!
//! ```text
//!   files of [http], [mqtt], [[line]] ──┐
//!   pki/own, pki/trusted ───────────────┼──> Certificates ──> lightsout_certificate_days_left, alarms at 30 and at 7 days
//!   what brokers and PLCs have shown ───┘                          "broker mqtts://a:8883, CN=a: runs out on 2027-01-31, in 6 days"
//! ```

use crate::config::{DriverPlan, LinePlan, Plan};
use arc_swap::ArcSwap;
use device_drivers::modbus::Endpoint;
use device_drivers::opcua::Identity;
use device_drivers::opcua::pki::{Pki, Place};
use device_drivers::tls::{Certificate, Tls, shown};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Days before the end from which on somebody should renew it, and from which on it is urgent.
pub(crate) const SOON_DAYS: f64 = 30.0;
pub(crate) const URGENT_DAYS: f64 = 7.0;
const DAY_S: f64 = 86_400.0;
/// Certificates that are told of one by one; a folder that somebody has filled makes no thousand figures.
const TOLD_MAX: usize = 500;

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// In a file: what it is for, and where.
    File(String, PathBuf),
    /// In a folder of OPC UA: our own, and those that are trusted.
    Pki(PathBuf),
    /// With a peer at `host:port`: what it is to us.
    Peer(String, String),
}

/// A certificate and its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Ends {
    /// Which file, or whose.
    pub name: String,
    /// Whose it is, and the day it runs out.
    pub said: String,
    /// Days until then; fewer than none when it has run out.
    pub days_left: f64,
}

/// All that is known of.
#[derive(Default)]
pub struct Certificates {
    sources: Mutex<BTreeSet<Source>>,
    found: ArcSwap<Vec<Ends>>,
}

impl Certificates {
    /// Those that a configuration names.
    pub fn of(plan: &Plan) -> Arc<Certificates> {
        let all = Arc::new(Certificates::default());
        all.watch(plan);
        all
    }

    /// Those that another configuration names, from now on.
    pub fn watch(&self, plan: &Plan) {
        let mut sources = BTreeSet::new();
        if let Some(tls) = &plan.http.tls {
            sources.insert(Source::File("page".into(), tls.certificate.clone()));
        }
        for (mqtt, tls) in plan.mqtt.iter().filter_map(|m| m.tls.as_ref().map(|tls| (m, tls))) {
            files("mqtt", tls, &mut sources);
            for broker in mqtt.brokers.iter().filter(|b| b.tls) {
                sources.insert(Source::Peer(format!("broker {broker}"), format!("{}:{}", broker.host, broker.port)));
            }
        }
        plan.lines.iter().for_each(|line| of_line(line, &mut sources));
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// What was found when last looked.
    pub fn all(&self) -> Arc<Vec<Ends>> {
        self.found.load_full()
    }

    /// Looks. Reads files: not on a task that others wait for.
    pub fn look(&self, now: SystemTime) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found: Vec<Ends> = sources.iter().flat_map(|source| look_at(source, now)).collect();
        found.truncate(TOLD_MAX);
        self.found.store(Arc::new(found));
    }

    /// Looks for as long as it lives.
    pub async fn keep_looking(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let all = self.clone();
            let _ = tokio::task::spawn_blocking(move || all.look(SystemTime::now())).await;
        }
    }
}

fn files(what: &str, tls: &Tls, sources: &mut BTreeSet<Source>) {
    sources.insert(Source::File(format!("{what} ca"), tls.ca.clone()));
    if let Some((certificate, _)) = &tls.own {
        sources.insert(Source::File(format!("{what} certificate"), certificate.clone()));
    }
}

fn of_line(line: &LinePlan, sources: &mut BTreeSet<Source>) {
    let name = format!("line {}", line.name);
    match &line.driver {
        DriverPlan::Modbus(spec) => {
            if let Endpoint::Tls(at, tls) = &spec.endpoint {
                files(&name, tls, sources);
                sources.insert(Source::Peer(name, at.clone()));
            }
        }
        DriverPlan::OpcUa(spec) => {
            if let Identity::Certificate { certificate, .. } = &spec.identity {
                sources.insert(Source::File(format!("{name} user_certificate"), certificate.clone()));
            }
            if !spec.is_insecure() {
                sources.insert(Source::Pki(spec.pki_dir.clone()));
                sources.insert(Source::Peer(name, line.driver.peer()));
            }
        }
    }
}

fn look_at(source: &Source, now: SystemTime) -> Vec<Ends> {
    match source {
        Source::File(what, path) => {
            let name = format!("{what} {}", path.display());
            // One that cannot be read is told by who needs it; of several in a file the first to end counts.
            let all = Certificate::all_in(path).unwrap_or_default();
            all.iter().min_by_key(|c| c.until_s).map(|c| ends(name, c, now)).into_iter().collect()
        }
        Source::Peer(what, at) => shown::of(at).map(|c| ends(what.clone(), &c, now)).into_iter().collect(),
        Source::Pki(dir) => of_pki(dir, now),
    }
}

/// Opening a folder makes it: one that is not there yet has nothing.
fn of_pki(dir: &Path, now: SystemTime) -> Vec<Ends> {
    let all = if dir.is_dir() { Pki::open(dir).map(|pki| pki.list()).unwrap_or_default() } else { Vec::new() };
    let counted = all.into_iter().filter(|(place, _)| *place != Place::Rejected);
    let told = counted.map(|(place, c)| {
        let place = if place == Place::Own { "own" } else { "trusted" };
        let short = c.thumbprint.get(..12).unwrap_or(&c.thumbprint);
        let name = format!("OPC UA {place} {short}");
        end(name, (&c.subject, &c.valid.1), c.valid_s.1, now)
    });
    told.collect()
}

fn ends(name: String, certificate: &Certificate, now: SystemTime) -> Ends {
    end(name, (&certificate.subject, &certificate.until), certificate.until_s, now)
}

fn end(name: String, (subject, until): (&str, &str), until_s: i64, now: SystemTime) -> Ends {
    let now_s = now.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let days_left = (until_s as f64 - now_s) / DAY_S;
    let when = if days_left < 0.0 { "has run out" } else { "runs out" };
    Ends { name, said: format!("{subject}: {when} on {until}"), days_left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_last_second_and_the_past_is_below_none() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let of = |until_s: i64| end("ca.pem".into(), ("CN=Plant CA", "1970-01-12"), until_s, now);
        assert_eq!(of(1_000_000 + 86_400 * 6).days_left, 6.0);
        assert_eq!(of(1_000_000 - 43_200).days_left, -0.5);
        assert_eq!(of(0).said, "CN=Plant CA: has run out on 1970-01-12");
    }
}
