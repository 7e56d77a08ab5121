//! Traces of a running operator, as a collector receives them.

use serde_json::json;

use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Recorded, Reply, ScriptedServer};

async fn collector() -> ScriptedServer {
    let media_type = vec![("content-type", "application/x-protobuf".to_owned())];
    ScriptedServer::start([Reply::Answer(200, media_type, vec![])]).await
}

/// The requests as text: strings in a protobuf message are contiguous bytes.
fn text(requests: &[Recorded]) -> String {
    requests.iter().map(|request| String::from_utf8_lossy(&request.body)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_request_is_traced() {
    let scene = Scene::new("traces", 3600).await;
    let collector = collector().await;
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url("")),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=platform".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        // Not used for the collector.
        ("HTTP_PROXY", "http://127.0.0.1:1".to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let operator = Operator::start_in(&scene.namespace, &environment).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token_id = scene.status().await.token.unwrap().id;
    // A failed token request, too.
    scene.credentials("wrong-Kanarie").await;
    scene.ready("True RefreshFailing").await;
    // The last spans are sent at the end of the process.
    let log = operator.stop().await;

    let requests = collector.requests();
    for request in &requests {
        assert!(request.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.header("x-tenant"), Some("platform"));
    }
    let traces = text(&requests);
    for words in [
        "service.name",
        "tokensource-operator",
        "deployment.environment.name",
        "reconcile",
        "token_request",
        "apply",
        "status",
        &scene.namespace,
        "source",
        "127.0.0.1",
        "success",
        "ClientRejected",
        &token_id,
    ] {
        assert!(traces.contains(words), "{words} is missing in {traces}");
    }
    let token = scene.token().await.unwrap();
    let token_url = url::Url::parse(&scene.server.vgs_token_url()).unwrap();
    for secret in [token.as_str(), "wrong-Kanarie", token_url.path()] {
        assert!(!traces.contains(secret), "{secret}");
    }
    let received: Vec<_> = log.lines().filter(|line| line.contains("token received")).collect();
    assert!(!received.is_empty(), "{log}");
    for line in received {
        assert!(!line.contains("reconcile{"), "log lines have no spans: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_disabled_are_not_made_and_lost_collector_is_harmless() {
    let scene = Scene::new("traces-off", 3600).await;
    let collector = collector().await;
    let base = collector.url("");
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()), ("OTEL_SDK_DISABLED", "true")];
    let operator = Operator::start_in(&scene.namespace, &off).await;
    scene.apply(scene.source(json!({}))).await;
    let first = scene.new_token(None).await;
    operator.stop().await;
    assert_eq!(collector.connections(), 0);

    // An unusable address is reported by the name of its variable, without the value, which may be secret.
    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector/Kanarie")];
    let log = Operator::start_in(&scene.namespace, &wrong).await.stop().await;
    assert!(log.contains("no traces are exported error=OTEL_EXPORTER_OTLP_ENDPOINT must be"), "{log}");
    assert!(!log.contains("Kanarie"), "{log}");

    // An unreachable collector delays nothing.
    let lost = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let operator = Operator::start_in(&scene.namespace, &lost).await;
    let second = scene.force_refresh("once").await;
    assert_ne!(first, second);
    eventually("the loss is reported", SOON, async || {
        let said = operator.said("traces cannot be exported");
        if said == 1 { Ok(()) } else { Err(said) }
    })
    .await;
    let log = operator.stop().await;
    assert!(log.contains("stopped"), "{log}");
}
