//! The table as alert rules for Prometheus: one rule a row, and one for the agent that cannot speak for itself any more.

use super::TABLE;
use std::fmt::Write;

/// The name of a row's rule: `line-down` is `LightsoutLineDown`.
pub(crate) fn rule_name(id: &str) -> String {
    let words = id
        .split('-')
        .map(|w| w.chars().next().map_or(String::new(), |c| c.to_uppercase().to_string() + &w[c.len_utf8()..]));
    format!("Lightsout{}", words.collect::<String>())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `configs/prometheus/alerts.yml`, made from the table.
pub fn rules() -> String {
    let mut out = String::from(
        "# Made from the alarm table (edge-agent/src/alarms/table.rs): UPDATE_EXPECT=1 cargo test -p edge-agent --test alerts\n\
         # A row is raised by the agent itself, after its own delay; shelved alarms do not alert. `subject` names the machine, line or device,\n\
         # `gateway` (given by the scrape) whose it is: an alert for each.\n\n\
         groups:\n  - name: lightsout\n    rules:\n",
    );
    let mut rule = |name: &str, expr: &str, wait: &str, priority: &str, means: &str, action: &str| {
        let _ = write!(
            out,
            "      - alert: {name}\n        expr: {expr}\n        for: {wait}\n        labels:\n          severity: {priority}\n        \
             annotations:\n          summary: {}\n          action: {}\n",
            quoted(means),
            quoted(action)
        );
    };
    rule(
        "LightsoutAgentDown",
        "up{job=\"lightsout\"} == 0",
        "30s",
        "critical",
        "The agent of {{ $labels.gateway }} cannot be scraped.",
        "Check whether the service runs and the network is there: systemctl status lightsout on the gateway.",
    );
    for row in TABLE {
        let expr = format!("lightsout_alarm{{alarm=\"{}\"}} > 0", row.id);
        let means = format!("{{{{ $labels.subject }}}}: {}", row.means);
        rule(&rule_name(row.id), &expr, "0s", row.priority.name(), &means, row.action);
    }
    out
}
