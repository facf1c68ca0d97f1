//! What ships for Prometheus and Grafana says what the code says: alert rules made from the alarm table and tried by promtool, and no
//! query of a dashboard asks for a figure that is not there.
//! After a change of the table: `UPDATE_EXPECT=1 cargo test -p edge-agent --test alerts`.

mod support;

use edge_agent::alarms::{TABLE, rules};
use edge_agent::metrics;
use expect_test::expect_file;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

fn configs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)
}

#[test]
fn the_shipped_rules_are_those_of_the_table() {
    expect_file!["../../configs/prometheus/alerts.yml"].assert_eq(&rules());
}

#[test]
fn the_readme_says_what_each_alarm_means_and_what_to_do() {
    let readme = std::fs::read_to_string(configs("../README.md")).unwrap();
    for row in TABLE {
        let line = format!("| `{}` | {} | {} | {} |", row.id, row.priority.name(), row.means, row.action);
        assert!(readme.contains(&line), "README.md lacks this row of the alarm table:\n{line}");
    }
}

/// Who is called at night reads which machine, line or device it is.
#[test]
fn every_alert_of_the_table_names_what_it_is_about() {
    let text = rules();
    for row in TABLE {
        let rule = text.split("      - alert: ").find(|r| r.starts_with(&format!("{}\n", rule_name(row.id)))).unwrap();
        assert!(rule.contains(&format!("expr: lightsout_alarm{{alarm=\"{}\"}} > 0", row.id)), "{rule}");
        assert!(rule.contains("summary: \"{{ $labels.subject }}: "), "{rule}");
    }
}

/// Each rule fires for its own alarm and for no other.
#[test]
fn promtool_tries_every_rule() {
    let test = "promtool_tries_every_rule";
    let Some(promtool) = support::installed("promtool", test) else { return };
    let names: Vec<&str> = TABLE.iter().map(|r| r.id).collect();
    let dir = tempfile::tempdir().unwrap();
    let rules = configs("prometheus/alerts.yml").canonicalize().unwrap();
    let mut text = format!("rule_files: [{}]\nevaluation_interval: 15s\ntests:\n", rules.display());
    for (n, id) in names.iter().enumerate() {
        let other = names[(n + 1) % names.len()];
        let (own, theirs) = (rule_name(id), rule_name(other));
        let row = TABLE.iter().find(|r| r.id == *id).unwrap();
        let _ = write!(
            text,
            "  - interval: 15s\n    input_series:\n      - series: 'lightsout_alarm{{alarm=\"{id}\",subject=\"rack.lift\",gateway=\"gw\"}}'\n        values: '0 0 1 1 1 0'\n      \
             - series: 'lightsout_alarm{{alarm=\"{other}\",subject=\"rack.lift\",gateway=\"gw\"}}'\n        values: '0 0 0 0 0 0'\n    alert_rule_test:\n      \
             - {{eval_time: 15s, alertname: {own}, exp_alerts: []}}\n      - {{eval_time: 45s, alertname: {theirs}, exp_alerts: []}}\n      \
             - eval_time: 45s\n        alertname: {own}\n        exp_alerts:\n          - exp_labels: {{severity: {}, alarm: {id}, subject: rack.lift, gateway: gw}}\n            \
             exp_annotations: {{summary: {:?}, action: {:?}}}\n      - {{eval_time: 75s, alertname: {own}, exp_alerts: []}}\n",
            row.priority.name(),
            format!("rack.lift: {}", row.means),
            row.action
        );
    }
    let file = dir.path().join("alerts_test.yml");
    std::fs::write(&file, &text).unwrap();
    let output = Command::new(promtool).args(["test", "rules"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
}

fn rule_name(id: &str) -> String {
    let word = |w: &str| w[..1].to_uppercase() + &w[1..];
    format!("Lightsout{}", id.split('-').map(word).collect::<String>())
}

#[test]
fn every_panel_says_what_it_shows_and_asks_for_figures_there_are() {
    let known: BTreeSet<&str> = metrics::TABLE.iter().map(|f| f.name).collect();
    let mut asked = BTreeSet::new();
    for name in ["beat", "field", "fleet", "spool"] {
        let text = std::fs::read_to_string(configs(&format!("grafana/{name}.json"))).unwrap();
        let board: serde_json::Value = serde_json::from_str(&text).unwrap();
        let panels = board["panels"].as_array().unwrap();
        assert!(panels.len() >= 8, "{name}");
        for panel in panels {
            let said = panel["description"].as_str().unwrap_or_default();
            assert!(said.len() > 20 && said.ends_with('.'), "{name}, {}: says nothing of itself", panel["title"]);
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let figures: Vec<&str> =
                    words.filter(|w| w.starts_with("lightsout_") || w.starts_with("process_")).collect();
                assert!(!figures.is_empty(), "{name}: {expr}");
                for figure in figures {
                    let base = figure.strip_suffix("_bucket").unwrap_or(figure);
                    assert!(known.contains(base), "{name}, {}: there is no {figure}", panel["title"]);
                    asked.insert(base.to_string());
                }
            }
        }
    }
    assert!(asked.len() > 40, "{asked:?}");
    for what in ["lightsout_samples_lost_total", "lightsout_device_tags_bad", "lightsout_alarm"] {
        assert!(asked.contains(what), "no panel shows {what}");
    }
}
