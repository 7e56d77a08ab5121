//! Monitors, alerts, the dashboard, and who may scrape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::chart::{CHART, NAMESPACE, RELEASE, find, helm, render, template};
use super::{arguments, container};

#[test]
fn monitors_select_the_service_and_port_of_the_operator() {
    let from = json!([{"namespaceSelector": {}}]);
    let metrics =
        |kind: &str| render(NAMESPACE, &json!({"metrics": {"from": from, kind: {"enabled": true}}}));
    let objects = metrics("serviceMonitor");
    let monitor = find(&objects, "ServiceMonitor", "");
    let service = find(&objects, "Service", "metrics");
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][name], value);
    }
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let port = container(&objects)["ports"][0]["name"].clone();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
    let objects = metrics("podMonitor");
    assert_eq!(find(&objects, "PodMonitor", "")["spec"]["podMetricsEndpoints"][0]["port"], port);

    // Each has its own settings.
    let own = json!({
        "enabled": true, "namespace": "b", "labels": {"release": "a"}, "interval": "1m", "scrapeTimeout": "9s",
        "endpointAdditionalProperties": {"scheme": "https", "honorTimestamps": false},
    });
    let values =
        json!({"metrics": {"from": from, "podMonitor": own, "serviceMonitor": {"labels": {"release": "c"}}}});
    let objects = render(NAMESPACE, &values);
    let monitor = find(&objects, "PodMonitor", "");
    assert_eq!(
        (&monitor["metadata"]["namespace"], &monitor["metadata"]["labels"]["release"]),
        (&json!("b"), &json!("a"))
    );
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["interval"], &endpoint["scheme"]), (&json!("1m"), &json!("https")));
    assert_eq!(endpoint["scrapeTimeout"], "9s");
    assert_eq!((&endpoint["honorTimestamps"], &endpoint["port"]), (&json!(false), &port));

    // Also where the chart's is true, and not beside another way to authenticate.
    let own = json!({
        "enabled": true,
        "endpointAdditionalProperties": {"tlsConfig": {"insecureSkipVerify": false}, "authorization": {"type": "Bearer"}},
    });
    let values = json!({"metrics": {"from": from, "secure": true, "serviceMonitor": own}});
    let objects = render(NAMESPACE, &values);
    let endpoint = &find(&objects, "ServiceMonitor", "")["spec"]["endpoints"][0];
    assert_eq!(endpoint["tlsConfig"], json!({"insecureSkipVerify": false}));
    assert_eq!(endpoint["bearerTokenFile"], Value::Null);
}

#[test]
fn monitoring_without_its_kinds_is_rendered_skipped_or_refused_as_the_render_mode_says() {
    let kinds = [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor")];
    for (value, kind) in kinds.into_iter().chain([("prometheusRule", "PrometheusRule")]) {
        let rendered = |mode: &str, version: &str| {
            let values = json!({
                "metrics": {"from": [{"namespaceSelector": {}}], "renderMode": mode, value: {"enabled": true}},
            });
            let arguments =
                ["template", RELEASE, CHART, "--skip-tests", "--api-versions", version, "--values", "-"];
            helm(None, &arguments, &values.to_string())
                .map(|text| text.contains(&format!("\nkind: {kind}\n")))
        };
        let present = format!("monitoring.coreos.com/v1/{kind}");
        for mode in ["alwaysRender", "skipIfMissing", "failIfMissing"] {
            assert_eq!(rendered(mode, &present), Ok(true), "{kind}, {mode}");
        }
        // The group alone does not have the kind.
        let absent = "monitoring.coreos.com/v1";
        assert_eq!(rendered("alwaysRender", absent), Ok(true), "{kind}");
        assert_eq!(rendered("skipIfMissing", absent), Ok(false), "{kind}");
        let said = rendered("failIfMissing", absent).unwrap_err();
        assert!(said.contains(&format!("the cluster has no {kind}")), "{said}");
    }
}

#[test]
fn secure_metrics_have_their_port_rights_and_monitors() {
    let secure = |mut metrics: Value| {
        metrics["secure"] = json!(true);
        metrics["from"] = json!([{"namespaceSelector": {}}]);
        json!({"metrics": metrics})
    };
    let objects = render(NAMESPACE, &secure(json!({"serviceMonitor": {"enabled": true}})));
    let operator = container(&objects);
    let arguments = arguments(&objects);
    for argument in ["--admin-address=:8443", "--metrics-secure"] {
        assert!(arguments.iter().any(|it| it == argument), "{argument}: {arguments:?}");
    }
    assert_eq!(operator["ports"][0], json!({"name": "admin", "containerPort": 8443, "protocol": "TCP"}));
    let ports = &find(&objects, "NetworkPolicy", "")["spec"]["ingress"][0]["ports"];
    assert_eq!(ports, &json!([{"port": "admin", "protocol": "TCP"}]));
    let endpoint = |objects: &[Value], kind: &str, endpoints: &str| {
        find(objects, kind, "")["spec"][endpoints][0].clone()
    };
    let scraped = endpoint(&objects, "ServiceMonitor", "endpoints");
    assert_eq!(scraped["scheme"], "https");
    assert_eq!(scraped["tlsConfig"], json!({"insecureSkipVerify": true}));
    assert_eq!(scraped["bearerTokenFile"], "/var/run/secrets/kubernetes.io/serviceaccount/token");
    let reader = find(&objects, "ClusterRole", "-metrics-reader");
    assert_eq!(reader["rules"], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));

    let files = json!({"tls": {"secretName": "certificate"}, "serviceMonitor": {"enabled": true}});
    let objects = render(NAMESPACE, &secure(files));
    let mounts = container(&objects)["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|it| it["name"] == "metrics-certificate").unwrap();
    let flag = format!("--metrics-cert-path={}", mount["mountPath"].as_str().unwrap());
    assert!(self::arguments(&objects).contains(&flag), "{flag}");
    let tls = &endpoint(&objects, "ServiceMonitor", "endpoints")["tlsConfig"];
    let service = find(&objects, "Service", "metrics")["metadata"]["name"].as_str().unwrap();
    assert_eq!(tls["serverName"], format!("{service}.{NAMESPACE}.svc"));
    assert_eq!(tls["ca"]["secret"], json!({"name": "certificate", "key": "ca.crt"}));

    let authorization = json!({"credentials": {"name": "token", "key": "token"}});
    let pods = json!({"podMonitor": {"enabled": true, "authorization": authorization}});
    let objects = render(NAMESPACE, &secure(pods));
    let scraped = endpoint(&objects, "PodMonitor", "podMetricsEndpoints");
    assert_eq!((&scraped["authorization"], &scraped["bearerTokenFile"]), (&authorization, &Value::Null));

    for (values, words) in [
        (secure(json!({"podMonitor": {"enabled": true}})), "metrics.podMonitor.authorization"),
        (
            json!({"namespaces": ["a"], "metrics": {"secure": true}}),
            "metrics.secure needs rights in the cluster",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    // Off by default, with no further rights.
    let objects = render(NAMESPACE, &json!({}));
    assert!(!self::arguments(&objects).iter().any(|it| it.contains("--metrics")));
    assert!(!format!("{objects:?}").contains("tokenreviews"));
}

#[test]
fn network_policy_admits_scrapers_and_a_monitor_asks_for_them() {
    let from = |values: Value| {
        find(&render(NAMESPACE, &values), "NetworkPolicy", "")["spec"]["ingress"][0]["from"].clone()
    };
    let peer = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    assert_eq!(from(json!({})), Value::Null);
    let both = json!({"metrics": {"from": [peer("prometheus")]}, "networkPolicy": {"from": [peer("a")]}});
    assert_eq!(from(both), json!([peer("a"), peer("prometheus")]));
    for monitor in ["serviceMonitor", "podMonitor"] {
        let values = |from: Value| json!({"metrics": {"from": from, monitor: {"enabled": true}}});
        let said = template(NAMESPACE, &values(json!([]))).unwrap_err();
        assert!(said.contains("metrics.from is empty") && said.contains("ipBlock"), "{said}");
        assert_eq!(from(values(json!([peer("prometheus")]))), json!([peer("prometheus")]));
        let off = json!({"networkPolicy": {"enabled": false}, "metrics": {monitor: {"enabled": true}}});
        template(NAMESPACE, &off).unwrap();
    }
}

#[test]
fn alerts_and_dashboard_are_rendered_unchanged() {
    let values = json!({"metrics": {"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}}});
    let objects = render(NAMESPACE, &values);
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/files/{file}")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&read("alerts.yaml")).unwrap();
    assert_eq!(find(&objects, "PrometheusRule", "")["spec"], alerts);
    let dashboard = find(&objects, "ConfigMap", "");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = dashboard["data"]["tokensource-operator.json"].as_str().unwrap();
    assert_eq!(text.trim(), read("dashboard.json").trim());
}

/// By alert, its rule.
fn rules(settings: &Value) -> BTreeMap<String, Value> {
    let mut settings = settings.clone();
    settings["enabled"] = json!(true);
    let objects = render(NAMESPACE, &json!({"metrics": {"prometheusRule": settings}}));
    let groups = find(&objects, "PrometheusRule", "")["spec"]["groups"].as_array().unwrap().clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

#[test]
fn alerts_can_be_left_out_and_relabelled_and_have_runbooks_elsewhere() {
    let plain = rules(&json!({}));
    let changed = rules(&json!({
        "ruleLabels": {"team": "platform"},
        "runbookURL": "https://wiki.example.com/{alert}.html",
        "rules": {
            "TokenSourcePanics": {"enabled": false},
            "TokenSourceNoLeader": {"for": "10m", "labels": {"severity": "info"}, "annotations": {"summary": "other"}},
        },
    }));
    assert_eq!(plain.len(), changed.len() + 1);
    assert!(!changed.contains_key("TokenSourcePanics"));
    for (name, rule) in &changed {
        assert_eq!(rule["labels"]["team"], "platform");
        assert_eq!(rule["annotations"]["runbook_url"], format!("https://wiki.example.com/{name}.html"));
        assert_eq!(rule["expr"], plain[name]["expr"]);
    }
    let (before, after) = (&plain["TokenSourceNoLeader"], &changed["TokenSourceNoLeader"]);
    assert_eq!((&after["for"], &after["labels"]["severity"]), (&json!("10m"), &json!("info")));
    assert_eq!(after["annotations"]["summary"], "other");
    assert_eq!(after["annotations"]["description"], before["annotations"]["description"]);

    let unknown =
        json!({"metrics": {"prometheusRule": {"enabled": true, "rules": {"TokenSourcePanic": {}}}}});
    let said = template(NAMESPACE, &unknown).unwrap_err();
    assert!(said.contains("there is no such alert; there are TokenSourceIssuerFailing"), "{said}");
}

#[test]
fn links_lead_to_the_pages_of_the_release() {
    let version = concat!("/blob/v", env!("CARGO_PKG_VERSION"), "/docs/runbooks/");
    for (name, rule) in rules(&json!({})) {
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(runbook.ends_with(&format!("{version}{name}.md")), "{runbook}");
    }
    for file in ["README.md", "templates/NOTES.txt", "files/alerts.yaml", "files/dashboard.json"] {
        let text = std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
        assert!(!text.contains("/main/"), "{file}: a link to a branch");
    }
}
