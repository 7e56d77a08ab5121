use jiff::Timestamp;

use super::*;

fn observed(ready: (bool, Reason)) -> ObservedSource {
    let now = Timestamp::now().as_second();
    let token = Some(TokenTimes { refresh_at: now + 100, expires_at: now + 200 });
    ObservedSource { ready, token, suspended: false }
}

fn valid() -> ObservedSource {
    observed((true, Reason::TokenValid))
}

pub(super) fn text(metrics: &Metrics) -> String {
    let mut text = String::new();
    (0..metrics.parts()).for_each(|part| metrics.write(part, &mut text));
    text
}

/// One reconciliation.
fn reconcile(metrics: &Metrics, source: &Key, host: &str, observed: ObservedSource) {
    let _timer = metrics.reconciling(source);
    metrics.set_host(source, host, None);
    metrics.observed(source, observed);
}

/// Metrics with at least one series of each.
pub(super) fn one_of_each() -> Metrics {
    let metrics = Metrics::new(Arc::default());
    reconcile(&metrics, &Key::new("ns", "a"), "h", valid());
    metrics.token_requested("h", None, None, Some(Duration::ZERO));
    metrics.request_waited("h", Duration::ZERO);
    metrics.endpoint_clock_difference("h", 1);
    metrics.api_request("get", "secrets", Some(200));
    metrics.object_too_large("secrets");
    metrics.set_issuers(vec![issuer("idp", Some(true))]);
    metrics.set_issuers_unread(vec![("clustertokenissuers", Duration::ZERO)]);
    metrics
}

fn issuer(name: &str, ready: Option<bool>) -> ObservedIssuer {
    ObservedIssuer { name: name.into(), ready: ready.map(|ready| (ready, "Reason".to_owned())), sources: 3 }
}

/// The lines with this name.
fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
    text(metrics).lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn series_of_a_source_are_removed_with_it() {
    let metrics = Metrics::new(Arc::default());
    let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
    reconcile(&metrics, &a, "idp.example.com", valid());
    reconcile(&metrics, &b, "idp.example.com", valid());
    let labels = r#"{source_namespace="ns",name="a",host="idp.example.com""#;
    assert!(lines(&metrics, &format!("tokensource_ready{labels},reason=\"TokenValid\"}} 1")).len() == 1);
    assert_eq!(lines(&metrics, &format!("tokensource_refresh_lateness_ratio{labels}}} 0")).len(), 1);
    assert_eq!(lines(&metrics, &format!("tokensource_token_expired_seconds_total{labels}}} 0")).len(), 1);
    assert_eq!(lines(&metrics, &format!("tokensource_token_expiry_timestamp_seconds{labels}}} ")).len(), 1);

    reconcile(&metrics, &a, "idp.example.com", observed((false, Reason::ClientRejected)));
    assert_eq!(
        lines(&metrics, "tokensource_ready{source_namespace=\"ns\",name=\"a\"").len(),
        1,
        "one reason at a time"
    );

    metrics.token_requested("idp.example.com", None, None, Some(Duration::from_millis(80)));
    metrics.token_requested("idp.example.com", None, Some(Reason::ClientRejected), None);
    metrics.request_waited("idp.example.com", Duration::ZERO);
    let requests = lines(&metrics, "tokensource_token_requests_total{");
    assert!(requests.iter().any(|line| line.ends_with(r#"result="success"} 1"#)), "{requests:?}");
    assert!(requests.iter().any(|line| line.ends_with(r#"result="ScopeRejected"} 0"#)), "{requests:?}");

    metrics.forget(&a);
    assert!(!text(&metrics).contains("name=\"a\""));
    assert!(text(&metrics).contains("idp.example.com"), "b uses it");
    metrics.forget(&b);
    assert!(!text(&metrics).contains("idp.example.com"), "no source uses it");
}

#[test]
fn series_of_a_source_name_the_issuer_that_lends_its_endpoint_and_not_the_host() {
    let metrics = Metrics::new(Arc::default());
    let (lent, own) = (Key::new("ns", "lent"), Key::new("ns", "own"));
    reconcile(&metrics, &lent, "idp.internal", valid());
    reconcile(&metrics, &own, "idp.internal", valid());
    for issuer in ["a", "b"] {
        metrics.set_host(&lent, "idp.internal", Some(&issuer.into()));
        let text = text(&metrics);
        let series: Vec<_> = text.lines().filter(|line| line.contains("name=\"lent\"")).collect();
        let label = format!("host=\"issuer/{issuer}\"");
        assert!(series.len() == 4 && series.iter().all(|line| line.contains(&label)), "{series:?}");
    }
    assert_eq!(
        lines(&metrics, "tokensource_ready{source_namespace=\"ns\",name=\"own\",host=\"idp.").len(),
        1
    );
    metrics.token_requested("idp.internal", None, None, None);
    let requests = "tokensource_token_requests_total{host=\"idp.internal\",result=\"success\"} 1";
    assert_eq!(lines(&metrics, requests).len(), 1, "the platform's count is by host");
    metrics.set_host(&lent, "unknown", None);
    assert!(!text(&metrics).contains("issuer/"));
}

#[test]
fn series_of_a_host_are_removed_when_its_last_source_changes_the_host() {
    let metrics = Metrics::new(Arc::default());
    let source = Key::new("ns", "a");
    reconcile(&metrics, &source, "one.example.com", valid());
    reconcile(&metrics, &source, "two.example.com", valid());
    reconcile(&metrics, &source, "two.example.com", valid());
    assert!(!text(&metrics).contains("one.example.com"));
    metrics.forget(&source);
    assert!(!text(&metrics).contains("two.example.com"), "counted once");
}

#[test]
fn series_of_hosts_are_bounded() {
    let metrics = Metrics::new(Arc::default());
    for n in 0..220 {
        reconcile(&metrics, &Key::new("ns", &n.to_string()), &format!("host-{n}"), valid());
    }
    metrics.token_requested("host-210", None, None, None);
    assert_eq!(
        lines(&metrics, "tokensource_ready{").iter().filter(|line| line.contains("host=\"other\"")).count(),
        20
    );
    assert_eq!(
        lines(&metrics, "tokensource_token_requests_total{host=\"other\",result=\"success\"} 1").len(),
        1
    );
    assert_eq!(lines(&metrics, "tokensource_token_requests_total{").len(), 201 * 9);
    metrics.forget_all();
    assert!(!text(&metrics).contains("host-"));
}

#[test]
fn reconciliations_are_counted_timed_and_overdue() {
    let metrics = Metrics::new(Arc::default());
    let source = Key::new("ns", "a");
    reconcile(&metrics, &source, "h", valid());
    drop(metrics.reconciling(&source));
    metrics.queues(2, 30, 4);
    assert_eq!(lines(&metrics, "tokensource_reconcile_pending 2").len(), 1);
    assert_eq!(lines(&metrics, "tokensource_token_requests_queued 30").len(), 1);
    assert_eq!(lines(&metrics, "tokensource_unwritten_tokens 4").len(), 1);
    assert_eq!(lines(&metrics, "tokensource_reconcile_duration_seconds_count 2").len(), 1);
    for (ago, overdue) in [(0, 0), (50, 0), (70, 1)] {
        let due = Instant::now().checked_sub(Duration::from_secs(ago)).unwrap();
        lock(&metrics.sources).next_reconcile(&source, Some(due));
        assert_eq!(lines(&metrics, &format!("tokensource_reconcile_overdue {overdue}")).len(), 1);
    }
    let _timer = metrics.reconciling(&source);
    assert_eq!(lines(&metrics, "tokensource_reconcile_overdue 0").len(), 1, "one is running");
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new(Arc::default());
    reconcile(&metrics, &Key::new("ns", "a"), "evil\"} 1\nfake 2", valid());
    assert_eq!(lines(&metrics, "fake"), Vec::<String>::new());
}

#[test]
fn text_of_ten_thousand_sources_has_less_than_6_mib() {
    let metrics = Metrics::new(Arc::default());
    for n in 0..10_000 {
        reconcile(
            &metrics,
            &Key::new(&format!("team-{}", n % 100), &format!("source-{n}")),
            "idp.example.com",
            valid(),
        );
    }
    let text = text(&metrics);
    assert_eq!(text.lines().filter(|line| line.contains("source-")).count(), 40_000);
    assert!(text.len() < 6 * 1024 * 1024, "{}", text.len());
}

#[test]
fn series_of_issuers_are_those_of_the_last_report_and_none_of_what_is_unknown() {
    let metrics = Metrics::new(Arc::default());
    metrics.set_issuers(vec![issuer("a", Some(false)), issuer("b", Some(true)), issuer("c", None)]);
    let expected = [r#"issuer="a",reason="Reason"} 0"#, r#"issuer="b",reason="Reason"} 1"#];
    assert_eq!(
        lines(&metrics, "tokensource_issuer_ready"),
        expected.map(|line| format!("tokensource_issuer_ready{{{line}"))
    );
    assert_eq!(lines(&metrics, r#"tokensource_issuer_sources{issuer="c"} 3"#).len(), 1);
    metrics.set_issuers(vec![]);
    assert!(lines(&metrics, "tokensource_issuer_").is_empty());
}

#[test]
fn token_requests_of_an_issuer_are_counted_by_result_while_it_is_reported() {
    let metrics = Metrics::new(Arc::default());
    let ask = |issuer: &str, failed| metrics.token_requested("h", Some(&issuer.into()), failed, None);
    let count = |issuer: &str, result: &str, count: u32| {
        let series = format!(
            "tokensource_issuer_token_requests_total{{issuer=\"{issuer}\",result=\"{result}\"}} {count}"
        );
        lines(&metrics, &series).len() == 1
    };
    // The report comes some seconds after the first request.
    ask("a", None);
    metrics.set_issuers(vec![issuer("a", None), issuer("b", None)]);
    ask("a", None);
    ask("a", Some(Reason::ScopeRejected));
    ask("a", Some(Reason::SpecInvalid));
    assert!(count("a", "success", 2) && count("a", "ScopeRejected", 1) && count("a", "SpecInvalid", 1));
    assert!(count("b", "success", 0) && count("b", "ClientRejected", 0));
    assert_eq!(
        lines(&metrics, "tokensource_token_requests_total{host=\"other\",result=\"success\"} 2").len(),
        1
    );
    metrics.set_issuers(vec![issuer("b", None)]);
    // One that was under way when its issuer was deleted.
    ask("a", None);
    metrics.set_issuers(vec![issuer("b", None)]);
    assert!(!text(&metrics).contains("issuer=\"a\"") && count("b", "success", 0));
}
