//! Tests the alert rules and the queries of the dashboard with promtool.
#![cfg(test)] // so that clippy lets helpers panic, too

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::promtool::promtool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn rules() -> PathBuf {
    Path::new(ROOT).join("charts/tokensource-operator/files/alerts.yaml")
}

#[test]
fn rules_pass_promtool_check() {
    let file = rules();
    let said = promtool(&["check", "rules", "--lint=all", "--lint-fatal", file.to_str().unwrap()], "");
    said.unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn each_rule_fires_and_clears() {
    let tests = ["platform.yaml", "tenants.yaml"]
        .map(|file| fs::read_to_string(Path::new(ROOT).join("tests/alerts").join(file)).unwrap());
    for test in &tests {
        // The rules, and the pages of this release.
        let test = test.replace("RULES", rules().to_str().unwrap());
        run_promtool_test(&test.replace("VERSION", concat!("v", env!("CARGO_PKG_VERSION"))));
    }
    // Every rule has a test.
    let tested = tests.concat();
    let rules = fs::read_to_string(rules()).unwrap();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<_> = names.filter(|name| !tested.contains(name)).collect();
    assert_eq!(untested, Vec::<&str>::new());
}

/// 2000 TokenSources of one issuer; the first `broken` have no token for half an hour.
fn fleet(broken: usize, success: &str, failed: &str, expected: &Value) -> String {
    let mut series = vec![
        json!({"series": "tokensource_build_info{version=\"1\"}", "values": "1x60"}),
        json!({"series": "tokensource_leader{job=\"operator\"}", "values": "1x60"}),
        json!({"series": "tokensource_reconcile_overdue{job=\"operator\"}", "values": "0x60"}),
        json!({"series": "tokensource_token_requests_total{host=\"idp\", result=\"success\"}", "values": success}),
        json!({"series": format!("tokensource_token_requests_total{{host=\"idp\", result={failed}}}"), "values": "0x5 1+1x55"}),
    ];
    for n in 0..2000 {
        let labels = format!("source_namespace=\"team-{}\", name=\"source-{n}\", host=\"idp\"", n % 200);
        let (late, ready, reason) = if n < broken {
            ("0x5 0.1+0.1x55", "1x15 0x45", "ClientRejected")
        } else {
            ("0x60", "1x60", "TokenValid")
        };
        series.push(
            json!({"series": format!("tokensource_refresh_lateness_ratio{{{labels}}}"), "values": late}),
        );
        series.push(
            json!({"series": format!("tokensource_ready{{{labels}, reason=\"{reason}\"}}"), "values": ready}),
        );
    }
    let test = json!({
        "rule_files": [rules()],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": expected}],
    });
    test.to_string()
}

fn run_promtool_test(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.yaml");
    fs::write(&file, test).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "").unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn one_failing_source_of_two_thousand_warns_its_namespace_and_does_not_page() {
    run_promtool_test(&fleet(
        1,
        "0+10x60",
        "\"ClientRejected\"",
        &json!([
            {"expr": "ALERTS{severity=\"critical\"}", "eval_time": "30m"},
            {
                "expr": "count by (alertname, namespace) (ALERTS{severity=\"warning\", alertstate=\"firing\"})",
                "eval_time": "30m",
                "exp_samples": [
                    {"labels": "{alertname=\"TokenSourceNotReady\", namespace=\"team-0\"}", "value": 1},
                    {"labels": "{alertname=\"TokenSourceRefreshLate\", namespace=\"team-0\"}", "value": 1},
                ],
            },
        ]),
    ));
}

#[test]
fn an_issuer_down_for_two_thousand_sources_fires_one_alert() {
    run_promtool_test(&fleet(
        2000,
        "100x60",
        "\"EndpointUnavailable\"",
        &json!([{
            "expr": "count by (alertname, severity, host) (ALERTS{alertstate=\"firing\"})",
            "eval_time": "30m",
            "exp_samples": [{
                "labels": "{alertname=\"TokenSourceIssuerFailing\", severity=\"critical\", host=\"idp\"}",
                "value": 1,
            }],
        }]),
    ));
}

/// What the Prometheus Operator does with `enforcedNamespaceLabel`: each selector and each alert gets the rules' namespace.
fn enforced(rules: &str, namespace: &str) -> Value {
    let mut rules: Value = serde_saphyr::from_str(rules).unwrap();
    for group in rules["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            let mut rest = rule["expr"].as_str().unwrap();
            let mut expression = String::new();
            while let Some(start) = ["tokensource_", "ALERTS"].iter().filter_map(|name| rest.find(name)).min()
            {
                let length = rest[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap();
                let (name, after) = rest.split_at(start + length);
                let (others, after) = match after.strip_prefix('{') {
                    Some(after) => after.split_once('}').unwrap(),
                    None => ("", after),
                };
                write!(expression, "{name}{{namespace=\"{namespace}\",{others}}}").unwrap();
                rest = after;
            }
            rule["expr"] = json!(expression + rest);
            rule["labels"]["namespace"] = json!(namespace);
        }
    }
    rules
}

#[test]
fn alerts_name_the_source_where_the_namespace_label_is_enforced() {
    let rules = enforced(&fs::read_to_string(rules()).unwrap(), "operators");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.json");
    fs::write(&file, rules.to_string()).unwrap();
    // As scraped: the target's labels, whatever `honorLabels` is.
    let scraped = "namespace=\"operators\", pod=\"a\", job=\"operators/operator\"";
    let series = |name: &str, labels: &str, values: &str| json!({"series": format!("{name}{{{scraped}{labels}}}"), "values": values});
    let source = ", source_namespace=\"payments\", name=\"vault\", host=\"idp\"";
    let labels = "namespace=\"operators\", source_namespace=\"payments\", name=\"vault\", host=\"idp\"";
    let firing = |name: &str| {
        json!({
            "labels": format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\", severity=\"warning\", {labels}}}"),
            "value": 1,
        })
    };
    let test = json!({
        "rule_files": [file],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("tokensource_build_info", "", "1x60"),
                series("tokensource_leader", "", "1x60"),
                series("tokensource_refresh_lateness_ratio", source, "0x5 0.1+0.1x55"),
                series("tokensource_ready", &format!("{source}, reason=\"ClientRejected\""), "0x60"),
            ],
            "promql_expr_test": [{
                "expr": "ALERTS{alertstate=\"firing\"}",
                "eval_time": "30m",
                "exp_samples": [firing("TokenSourceNotReady"), firing("TokenSourceRefreshLate")],
            }],
            "alert_rule_test": [{
                "eval_time": "30m",
                "alertname": "TokenSourceRefreshLate",
                "exp_alerts": [{
                    "exp_labels": {
                        "severity": "warning", "namespace": "operators", "source_namespace": "payments", "name": "vault",
                        "host": "idp",
                    },
                    "exp_annotations": {
                        "summary": "The token of TokenSource payments/vault is overdue for a refresh.",
                        "description": "For TokenSource vault in namespace payments, more than half of the time between the due refresh and the expiry of the token has passed.",
                        "runbook_url": concat!(
                            "https://github.com/tokensource/tokensource-operator/blob/v", env!("CARGO_PKG_VERSION"),
                            "/docs/runbooks/TokenSourceRefreshLate.md"
                        ),
                    },
                }],
            }],
        }],
    });
    run_promtool_test(&test.to_string());
}

/// The expressions of a dashboard's panels, with Grafana's variables filled in.
fn queries(panels: &[Value]) -> Vec<String> {
    let expressions = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    expressions
        .map(|target| {
            let expression = target["expr"].as_str().unwrap();
            expression.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$host", ".*")
        })
        .collect()
}

fn dashboard() -> Value {
    let file = Path::new(ROOT).join("charts/tokensource-operator/files/dashboard.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// TokenSources of issuers have `issuer/NAME` for a host, and token requests the host itself.
#[test]
fn dashboard_offers_the_hosts_of_sources_and_those_of_token_requests() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = variables.iter().find(|variable| variable["name"] == "host").unwrap();
    let offered = variable["query"]["query"].as_str().unwrap();
    assert_eq!(variable["definition"], offered);
    let by_host = queries(dashboard["panels"].as_array().unwrap());
    for metric in ["tokensource_ready", "tokensource_token_requests_total"] {
        assert!(by_host.iter().any(|query| query.contains(&format!("{metric}{{"))), "{metric}");
        assert!(offered.contains(metric), "{offered}");
    }
}

#[test]
fn dashboard_queries_pass_promtool_check() {
    let dashboard = dashboard();
    let queries = queries(dashboard["panels"].as_array().unwrap());
    assert!(queries.len() > 15, "{queries:?}");
    // One rule for each, so that promtool reports all errors at once.
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (n, query) in queries.iter().enumerate() {
        writeln!(rules, "  - {{record: 'panel:{n}', expr: {}}}", json!(query)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yaml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "").unwrap_or_else(|said| panic!("{said}"));
}
