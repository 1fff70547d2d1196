//! The rules by promtool: each is well-formed, and each alert fires where it must and nowhere else.

use std::path::Path;
use std::process::Command;

fn promtool(args: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus");
    let output = Command::new("promtool").args(args).current_dir(folder).output();
    let output = output.expect("promtool is installed: it comes with Debian's package prometheus");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    println!("{said}");
    assert!(output.status.success() && said.contains("SUCCESS"), "{args:?}: {said}");
}

#[test]
fn every_rule_is_well_formed() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yml"]);
}

#[test]
fn each_alert_fires_where_it_must_and_nowhere_else() {
    promtool(&["test", "rules", "rules_test.yml"]);
}

/// An alert that nobody tests would be one more thing to believe in.
#[test]
fn each_alert_is_tested_both_ways() {
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus").join(file);
        std::fs::read_to_string(path).expect("it is there")
    };
    let (rules, tests) = (read("rules.yml"), read("rules_test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 8, "{alerts:?}");
    for alert in alerts {
        let fires = tests.contains(&format!("alertname: {alert}\n        exp_alerts:"));
        let is_quiet = tests.contains(&format!("alertname: {alert} }}"));
        assert!(fires && is_quiet, "{alert}: must fire {fires}, must not fire {is_quiet}");
    }
}
