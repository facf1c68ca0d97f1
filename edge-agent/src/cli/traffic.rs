//! `edge-agent traffic`: what mobile robots did, from the log; and the same for PlanViz.

use super::look::{FAINT, Table, WARN, span, styled};
use super::{Done, Failure};
use crate::telemetry::payload::rfc3339;
use crate::traffic::{Log, export};
use anstyle::Style;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which log, and what of it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A file of the log: traffic/traffic-*.jsonl in state_dir
    file: PathBuf,
    /// From this time on, as 2026-11-25T08:00:00Z
    #[arg(long, value_parser = time)]
    from: Option<u64>,
    /// Up to this time
    #[arg(long, value_parser = time)]
    to: Option<u64>,
    /// Write what PlanViz shows: this file, and the map beside it (.map)
    #[arg(long, value_name = "OUT.json")]
    planviz: Option<PathBuf>,
}

fn time(text: &str) -> Result<u64, String> {
    let wrong = || format!("found {text:?}, expected a time in UTC, as 2026-11-25T08:00:00Z");
    let time: SystemTime = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).ok_or_else(wrong)
}

pub(super) fn run(options: &Options) -> Result<Done, Failure> {
    let mut log = Log::read(&options.file)?;
    if let (Some(from), Some(to)) = (options.from, options.to)
        && from > to
    {
        return Err(Failure::usage("--from is later than --to".into()));
    }
    if options.from.is_some() || options.to.is_some() {
        log = log.between(options.from.unwrap_or(0), options.to.unwrap_or(u64::MAX));
    }
    let sum = log.summary();
    let mut text = String::new();
    let mut say = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    let seconds = (sum.to - sum.from) as f64 / 1000.0;
    say(format!("{}  {} to {}, {}\n", log.header.floor, rfc3339(sum.from), rfc3339(sum.to), span(seconds)));
    let mut table = Table::new(&["ROBOT", "PLACES REACHED", "METRES", "STANDING", "OF IT WAITING"]);
    let plain = Style::new();
    for robot in &sum.robots {
        let waits = if robot.waiting_s > 0.0 { plain } else { FAINT };
        table.row(vec![
            (robot.name.clone(), plain),
            (robot.reached.to_string(), plain),
            (format!("{:.1}", robot.metres), plain),
            (span(robot.standing_s), plain),
            (span(robot.waiting_s), waits),
        ]);
    }
    say(table.render(0));
    let mut table = Table::new(&["BUSIEST PLACE", "REACHED"]);
    for (place, count) in &sum.busiest {
        table.row(vec![(place.clone(), plain), (count.to_string(), plain)]);
    }
    say(table.render(0).trim_end().to_string());
    if log.torn {
        say(format!("{}: the last line is torn, and left out", styled(WARN, "torn")));
    }
    if log.header.dropped + log.header.failed > 0 {
        say(format!(
            "before this file {} files made room and {} lines were not taken by the disk",
            log.header.dropped, log.header.failed
        ));
    }
    if let Some(out) = &options.planviz {
        let shown = export(&log)?;
        let json = serde_json::to_string(&shown.run).map_err(|e| e.to_string())?;
        let map = out.with_extension("map");
        for (file, text) in [(out, &json), (&map, &shown.map)] {
            std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        say(format!("\n{} and {}: a step is {} ms", out.display(), map.display(), shown.tick_ms));
        if !shown.valid {
            say(format!("{}: as logged, two robots were in one cell or exchanged cells", styled(WARN, "not valid")));
        }
    }
    let json = serde_json::to_value(&sum).map_err(|e| e.to_string())?;
    Ok(Done::new(text, json))
}
