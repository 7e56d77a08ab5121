//! Two namespaces at one issuer: the trouble of one is not the other's.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::support::authority::Authority;
use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// The operator for both namespaces.
async fn start(one: &Scene, other: &Scene) -> Operator {
    let both = ["--namespace", &other.namespace, "--allow-http", "--egress-allow", "127.0.0.0/8"];
    Operator::start_with(&one.namespace, &both).await
}

/// Certificates with a byte too many, with which no HTTP client can be made.
fn trailing_byte() -> String {
    let pem = Authority::new("roots").pem;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = BASE64_STANDARD.decode(body).unwrap();
    der.push(0);
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}

fn named(mut source: Value, name: &str) -> Value {
    source["metadata"]["name"] = json!(name);
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_whose_requests_fail_opens_no_circuit_of_another() {
    let (attacker, honest) = (Scene::new("attacker", 300).await, Scene::new("honest", 300).await);
    // An endpoint of their own: others of this test server are not to be held up.
    let url = json!({"provider": {"vgs": {"tokenURL": format!("{}?shares", honest.server.vgs_token_url())}}});
    let roots = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"},
        "data": {"ca.crt": trailing_byte()}});
    attacker.apply(roots).await;
    let mut items = vec![];
    for n in 0..8 {
        let client = format!("{}-{n}", attacker.namespace);
        let spec = ClientSpec {
            id: client.clone(),
            token_endpoint_auth_method: "client_secret_post",
            ..ClientSpec::default()
        };
        attacker.server.client(spec).await;
        let fails = Behaviour { status: Some(503), ..Behaviour::default() };
        attacker.server.behave(&client, Some(fails)).await;
        let credentials = format!("credentials-{n}");
        attacker.secret(&credentials, &[("client_id", &client), ("client_secret", "secret")]).await;
        let mut change = url.clone();
        change["credentials"] = json!({"secretRef": {"name": credentials}});
        change["target"] = json!({"name": format!("token-{n}")});
        if n % 4 == 0 {
            change["tls"] = json!({"caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}}});
        }
        items.push(named(attacker.source(change), &format!("source-{n}")));
    }
    let operator = start(&attacker, &honest).await;
    attacker.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
    // The circuit of the attacker's namespace opens with five of them, and after nine its next probe is 4 s away.
    eventually("nine requests have failed", SOON, async || {
        let mut total = 0;
        for n in 0..8 {
            total += attacker.server.requests(&format!("{}-{n}", attacker.namespace)).await.total;
        }
        if total >= 9 { Ok(()) } else { Err(total) }
    })
    .await;
    honest.apply(honest.source(url)).await;
    honest.ready("True TokenValid").await;
    for value in ["1", "2", "3", "4", "5"] {
        honest.force_refresh(value).await;
    }
    // With the attacker's circuit, the first would have waited for that probe. A busy machine takes less than a second.
    let log = operator.log();
    let own = format!("token request waited for its endpoint source={}/", honest.namespace);
    for line in log.lines().filter(|line| line.contains(&own)) {
        let (_, waited) = line.split_once("waited_ms=").unwrap();
        assert!(waited.trim().parse::<u64>().unwrap() < 1000, "{line}");
    }
    let failed = honest.status().await.last_failure;
    assert_eq!(failed.map(|failed| failed.message), None);
    assert_eq!(honest.mints().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_is_not_held_back_by_answers_to_the_same_client_in_another() {
    let (attacker, honest) = (Scene::new("crafted", 300).await, Scene::new("same-client", 300).await);
    let client = [("client_id", honest.namespace.as_str()), ("client_secret", "right")];
    attacker.secret("credentials", &client).await;
    let limits = Behaviour {
        status: Some(429),
        headers: [("retry-after".to_owned(), json!("3600"))].into_iter().collect(),
        times: Some(1),
        ..Behaviour::default()
    };
    honest.server.behave(&honest.namespace, Some(limits)).await;
    let _operator = start(&attacker, &honest).await;
    attacker.apply(attacker.source(json!({}))).await;
    attacker.ready("False RateLimited").await;
    honest.apply(honest.source(json!({}))).await;
    honest.ready("True TokenValid").await;
    assert_eq!(honest.status().await.last_failure, None);
    // In the namespace of the answer it holds for the next source, which sends nothing.
    let mut second = attacker.source(json!({"target": {"name": "second"}}));
    second["metadata"]["name"] = json!("second");
    attacker.apply(second).await;
    attacker.condition("second", "Ready", "False RateLimited").await;
    assert_eq!(honest.mints().await, 2, "one of each namespace");
}
