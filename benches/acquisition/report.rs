//! What a scenario came to, as JSON and for people, each figure beside its target.

use serde_json::{Value as Json, json};

/// A name, its figure, and the target with whether it is met.
type Row = (&'static str, String, Option<(String, bool)>);

/// One scenario's figures; what it does not have is `None`.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    /// Length of the window.
    pub(crate) seconds: f64,
    /// What was done, for people.
    pub(crate) what: String,
    pub(crate) configured: f64,
    pub(crate) achieved: f64,
    pub(crate) missed: u64,
    pub(crate) on_time: f64,
    pub(crate) jitter_us: Option<[u64; 3]>,
    pub(crate) delivered: Option<u64>,
    pub(crate) lost: Option<u64>,
    pub(crate) change_ms: Option<[f64; 2]>,
    pub(crate) reply_ms: Option<[f64; 2]>,
    pub(crate) write_ms: Option<[f64; 4]>,
    pub(crate) drained_s: Option<f64>,
    pub(crate) cpu_percent: f64,
    pub(crate) cpu_s_per_million: f64,
    pub(crate) floor_cpu_s_per_million: Option<f64>,
    /// Of a bare loop that publishes as well.
    pub(crate) publishing_floor: Option<f64>,
    /// The longest that no message came, ms.
    pub(crate) gap_ms: Option<f64>,
    /// One message a value: what a bare loop makes of it.
    pub(crate) bare: Option<Bare>,
    pub(crate) rss_mib: f64,
    /// One poll of one device, values a second over the window: as exact as the achieved rate can be.
    pub(crate) grain: f64,
}

/// A loop that publishes the same messages, and nothing else, on the same broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    /// Messages at the subscriber, a second.
    pub(crate) per_s: f64,
    /// From the making of a message to the subscriber, p50 and p99.
    pub(crate) reply_ms: Option<[f64; 2]>,
    /// The longest that no message came.
    pub(crate) gap_ms: f64,
    /// CPU of the loop.
    pub(crate) cpu_s_per_million: f64,
}

fn rounded(value: f64) -> Json {
    json!((value * 1000.0).round() / 1000.0)
}

fn named<const N: usize>(names: [&str; N], values: Option<[f64; N]>) -> Json {
    values.map_or(Json::Null, |values| names.iter().zip(values).map(|(n, v)| (n.to_string(), rounded(v))).collect())
}

impl Outcome {
    /// One object.
    pub(crate) fn json(&self) -> Json {
        let jitter = self.jitter_us.map(|all| all.map(|us| us as f64));
        json!({
            "scenario": self.scenario,
            "configured_values_per_s": rounded(self.configured),
            "achieved_values_per_s": rounded(self.achieved),
            "cycles_missed": self.missed,
            "on_time_ratio": (self.on_time * 1e6).round() / 1e6,
            "start_jitter_us": named(["p50", "p99", "max"], jitter),
            "messages_delivered": self.delivered,
            "messages_lost": self.lost,
            "change_to_subscriber_ms": named(["p50", "p99"], self.change_ms),
            "reply_to_subscriber_ms": named(["p50", "p99"], self.reply_ms),
            "write_latency_ms": named(["min", "avg", "p99", "max"], self.write_ms),
            "backlog_drained_s": self.drained_s.map(rounded),
            "cpu_percent": rounded(self.cpu_percent),
            "cpu_s_per_million_values": rounded(self.cpu_s_per_million),
            "floor_cpu_s_per_million_values": self.floor_cpu_s_per_million.map(rounded),
            "publishing_floor_cpu_s_per_million_values": self.publishing_floor.map(rounded),
            "rss_mib": rounded(self.rss_mib),
            "delivered_per_s": self.bare.map(|_| rounded(self.delivered_per_s())),
            "longest_gap_ms": self.bare.and(self.gap_ms).map(rounded),
            "bare_loop": self.bare.map(|bare| json!({
                "delivered_per_s": rounded(bare.per_s),
                "made_to_subscriber_ms": named(["p50", "p99"], bare.reply_ms),
                "longest_gap_ms": rounded(bare.gap_ms),
                "cpu_s_per_million_messages": rounded(bare.cpu_s_per_million),
            })),
        })
    }

    /// Messages at the subscriber, a second.
    fn delivered_per_s(&self) -> f64 {
        self.delivered.map_or(0.0, |n| n as f64 / self.seconds)
    }

    /// A block for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}  {}\n", self.scenario, self.what);
        for (name, value, target) in self.rows() {
            let (target, verdict) = match target {
                Some((target, true)) => (target, "pass"),
                Some((target, false)) => (target, "MISS"),
                None => (String::new(), ""),
            };
            text.push_str(format!("  {name:<28} {value:>34}   {target:<22} {verdict}").trim_end());
            text.push('\n');
        }
        text
    }

    fn rows(&self) -> Vec<Row> {
        let s3 = self.scenario.starts_with("s3");
        let (ceiling, small) = (self.scenario == "ceiling", self.scenario == "small");
        let at_most = |limit: f64, value: f64, unit: &str| Some((format!("<= {limit} {unit}"), value <= limit));
        let achieved = if ceiling {
            Some((">= 2000000".to_string(), self.achieved >= 1.99e6))
        } else if self.scenario == "dead-units" {
            None
        } else {
            let exact = (self.achieved - self.configured).abs() <= self.configured * 0.002 + self.grain;
            Some((format!("{:.0}", self.configured), exact))
        };
        let on_time = if ceiling { ("99.9 %", 0.999) } else { ("100 %", 1.0) };
        let missed = (!ceiling).then(|| ("0".to_string(), self.missed == 0));
        let mut rows = vec![
            ("values/s", format!("{:.0}", self.achieved), achieved),
            ("cycles missed", self.missed.to_string(), missed),
            ("on time", format!("{:.4} %", self.on_time * 100.0), Some((on_time.0.into(), self.on_time >= on_time.1))),
        ];
        if let Some([p50, p99, max]) = self.jitter_us {
            rows.push(("start late, p50/p99/max", format!("{p50} / {p99} / {max} us"), None));
        }
        if let Some(delivered) = self.delivered {
            rows.push(("messages delivered", delivered.to_string(), None));
        }
        if let Some(lost) = self.lost {
            rows.push(("messages lost", lost.to_string(), Some(("0".into(), lost == 0))));
        }
        if let Some([p50, p99]) = self.change_ms {
            rows.push(("change -> subscriber p50/p99", format!("{p50:.1} / {p99:.1} ms"), None));
        }
        if let Some([p50, p99]) = self.reply_ms {
            let text = format!("{p50:.2} / {p99:.2} ms");
            rows.push(("reply -> subscriber p50/p99", text, at_most(1.0, p50, "ms p50")));
        }
        if let Some([min, avg, p99, max]) = self.write_ms {
            let text = format!("{min:.2} / {avg:.2} / {p99:.2} / {max:.2} ms");
            let met = avg <= 5.0 && p99 <= 20.0;
            rows.push(("write min/avg/p99/max", text, Some(("avg <= 5, p99 <= 20 ms".into(), met))));
        }
        if let Some(drained) = self.drained_s {
            rows.push(("backlog drained after", format!("{drained:.2} s"), None));
        }
        if let Some(bare) = self.bare {
            let (ours, theirs) = (self.delivered_per_s(), bare.per_s);
            let most = Some((">= 0.9 of the loop's".to_string(), ours >= 0.9 * theirs));
            rows.push(("delivered a second, loop's", format!("{ours:.0}, {theirs:.0}"), most));
            if let Some([p50, p99]) = bare.reply_ms {
                rows.push(("  loop's p50/p99", format!("{p50:.2} / {p99:.2} ms"), None));
            }
            let gap = self.gap_ms.unwrap_or_default();
            rows.push(("longest gap, loop's", format!("{gap:.0}, {:.0} ms", bare.gap_ms), at_most(1000.0, gap, "ms")));
            rows.push(("  loop's CPU s per million", format!("{:.3}", bare.cpu_s_per_million), None));
        }
        rows.push(("CPU", format!("{:.2} % of a core", self.cpu_percent), None));
        let cost = match () {
            () if ceiling => at_most(0.5, self.cpu_s_per_million, ""),
            () if small => at_most(3.6, self.cpu_s_per_million, ""),
            () => None,
        };
        rows.push(("CPU s per million values", format!("{:.3}", self.cpu_s_per_million), cost));
        if let Some(floor) = self.floor_cpu_s_per_million {
            let (times, most) = (self.cpu_s_per_million / floor, if self.delivered.is_some() { 6.0 } else { 3.0 });
            let target = if s3 { at_most(most, times, "x floor") } else { None };
            rows.push(("  of a bare loop, and times", format!("{floor:.3}, x {times:.2}"), target));
        }
        if let Some(floor) = self.publishing_floor {
            let times = self.cpu_s_per_million / floor;
            rows.push(("  of one that publishes", format!("{floor:.3}, x {times:.2}"), None));
        }
        let memory = match () {
            () if s3 => at_most(40.0, self.rss_mib, "MiB"),
            () if small => at_most(20.0, self.rss_mib, "MiB"),
            () => None,
        };
        rows.push(("peak memory", format!("{:.1} MiB", self.rss_mib), memory));
        rows
    }
}
