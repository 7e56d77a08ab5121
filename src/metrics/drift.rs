//! Documentation, alerts and dashboard must agree with the exposed metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::tests::{one_of_each, text};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

const ALERTS: &str = "charts/tokensource-operator/files/alerts.yaml";
const DASHBOARD: &str = "charts/tokensource-operator/files/dashboard.json";

/// The exposed metrics, with type and labels.
fn exposed() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = text(&one_of_each());
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((sample, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let name = family(sample);
            let labels =
                rest.split_once('}').unwrap().0.split("\",").map(|label| label.split('=').next().unwrap());
            let labels = labels.filter(|label| *label != "le").map(str::to_owned);
            metrics.get_mut(name).unwrap().1.extend(labels);
        }
    }
    metrics
}

/// The metric of a sample.
fn family(sample: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| sample.strip_suffix(suffix).filter(|name| name.ends_with("_seconds")))
        .unwrap_or(sample)
}

#[test]
fn metrics_reference_matches_the_exposed_metrics() {
    let mut documented = BTreeMap::new();
    for row in read("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `tokensource_") || line.starts_with("| `process_"))
    {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let labels: BTreeSet<_> =
            cells[3].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        documented.insert(cells[1].clone(), (cells[2].clone(), labels));
    }
    let mut exposed = exposed();
    if cfg!(not(target_os = "linux")) {
        documented.retain(|name, _| !name.starts_with("process_"));
        exposed.retain(|name, _| !name.starts_with("process_"));
    }
    assert_eq!(exposed, documented);
}

/// A scrape gives each sample the labels of its target. Where the sample has one of them, Prometheus renames one of both, which
/// one depends on settings that others own.
#[test]
fn no_label_is_one_that_a_scrape_adds() {
    let of_targets = [
        "namespace",
        "pod",
        "container",
        "endpoint",
        "service",
        "job",
        "instance",
        "node",
        "cluster",
        "prometheus",
        "prometheus_replica",
        "tenant",
        "tenant_id",
    ];
    for (metric, (_, labels)) in exposed() {
        let clash = labels
            .iter()
            .find(|label| of_targets.contains(&label.as_str()) || label.starts_with("exported_"));
        assert_eq!(clash, None, "{metric}");
    }
}

/// The words of a text that may be names in PromQL.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// All expressions of alerts and dashboard.
fn expressions() -> Vec<String> {
    let mut found = vec![];
    let alerts: serde_json::Value = serde_saphyr::from_str(&read(ALERTS)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut todo = vec![&alerts, &dashboard];
    while let Some(value) = todo.pop() {
        match value {
            serde_json::Value::Array(items) => todo.extend(items),
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    match value.as_str().filter(|_| matches!(name.as_str(), "expr" | "definition")) {
                        Some(expression) => found.push(expression.to_owned()),
                        None => todo.push(value),
                    }
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn alerts_and_dashboard_use_exposed_metrics_and_labels() {
    let exposed = exposed();
    let mut used = BTreeSet::new();
    for expression in expressions() {
        let mut labels: BTreeSet<&str> =
            ["__name__", "job", "instance", "le", "alertname", "alertstate", "severity", "reason"].into();
        for word in
            words(&expression).filter(|word| word.starts_with("tokensource_") || word.starts_with("process_"))
        {
            let (_, its) = exposed.get(family(word)).unwrap_or_else(|| panic!("{word} in {expression}"));
            labels.extend(its.iter().map(String::as_str));
            used.insert(family(word).to_owned());
        }
        // Labels are in matchers, and in lists after `by` and `on`.
        let matchers = expression.split('{').skip(1).flat_map(|it| it.split('}').next().unwrap().split(", "));
        let matched = matchers.filter_map(|it| it.split(['=', '!', '~']).next()).map(str::trim);
        let lists = ["by (", "on ("].into_iter().flat_map(|before| expression.split(before).skip(1));
        let listed = lists.flat_map(|it| it.split(')').next().unwrap().split(", "));
        for label in matched.chain(listed).filter(|label| !label.is_empty()) {
            // Prometheus adds the operator's `namespace`.
            assert!(labels.contains(label) || label == "namespace", "{label} in {expression}");
        }
    }
    let unused: Vec<_> =
        exposed.keys().filter(|name| name.starts_with("tokensource_") && !used.contains(*name)).collect();
    assert_eq!(unused, Vec::<&String>::new(), "used by no alert and no panel");
}

#[test]
fn alerts_and_runbooks_match() {
    let alerts = read(ALERTS);
    let reference = read("docs/metrics.md");
    let names: BTreeSet<String> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let pages: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(names, pages);
    for name in names {
        // Those of this release.
        let url = format!(
            "https://github.com/tokensource/tokensource-operator/blob/v{}/docs/runbooks/{name}.md\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(alerts.matches(&url).count(), 1, "{name}");
        let rule = alerts.split(&format!("- alert: {name}\n")).nth(1).unwrap();
        let severity = rule.split("severity: ").nth(1).unwrap().lines().next().unwrap();
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n\nSeverity: {severity}.")), "{name}");
        for part in ["## Meaning", "## Impact", "## Diagnosis", "## Remedy"] {
            assert!(page.contains(part), "{part} of {name}");
        }
        assert!(reference.contains(&format!("| [{name}](runbooks/{name}.md) | {severity} |")), "{name}");
    }
}
