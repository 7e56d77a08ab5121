//! Metrics over TLS, for authorized scrapers.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::account::kubeconfig_of;
use super::support::authorization_server::http_client_with;
use super::support::chart::{Account, install};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// The token in a kubeconfig of a ServiceAccount.
async fn token_of(scene: &Scene, account: &str) -> String {
    scene.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})).await;
    let folder = kubeconfig_of(&scene.namespace, account).await;
    let text = std::fs::read_to_string(folder.path().join("kubeconfig")).unwrap();
    let kubeconfig: serde_json::Value = serde_json::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn secure_metrics_are_served_to_authorized_scrapers_alone() {
    let scene = Scene::bare("secure-metrics").await;
    let name = &scene.namespace;
    let values = json!({
        "crds": {"enabled": false},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "metrics": {"secure": true},
    });
    install(name, values).await;
    let reader = format!("--clusterrole=tokensource-operator.{name}-metrics-reader");
    let binding =
        ["create", "clusterrolebinding", name, &reader, &format!("--serviceaccount={name}:scraper")];
    scene.kubectl(&binding, "").await;
    let (scraper, other) = (token_of(&scene, "scraper").await, token_of(&scene, "other").await);
    let account = Account::of(name).await;
    for (who, what) in [
        (account.user.as_str(), ["create", "tokenreviews.authentication.k8s.io"]),
        (&format!("system:serviceaccount:{name}:scraper"), ["get", "/metrics"]),
    ] {
        let question = ["auth", "can-i", what[0], what[1], &format!("--as={who}")];
        eventually("the rights take effect", SOON, async || scene.try_kubectl(&question, "").await).await;
    }
    let selector = format!("kubernetes.io/metadata.name={name}");
    let flags = [
        &["run", "--admin-address", "127.0.0.1:0", "--metrics-secure", "--leader-election-namespace", name][..],
        &["--namespace-selector", &selector],
    ];
    let operator = Operator::launch(&account.kubeconfig(), "secure", &flags.concat()).await;

    // As a scraper that verifies no certificate (`insecureSkipVerify`).
    let client = http_client_with(|client| client.tls_danger_accept_invalid_certs(true));
    let address = operator.admin_address();
    // Status and body of a request with this bearer token.
    let get = async |path: &str, token: Option<&str>| {
        let request = client.get(format!("https://{address}{path}"));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/livez", None).await, (200, "ok".to_owned()));
    assert_eq!(get("/metrics", None).await.0, 401);
    for _ in 0..50 {
        assert_eq!(get("/metrics", Some("wrong")).await.0, 401);
        assert_eq!(get("/metrics", Some(&other)).await.0, 403);
    }
    let mut body = String::new();
    for _ in 0..10 {
        let (status, metrics) = get("/metrics", Some(&scraper)).await;
        assert_eq!(status, 200, "{metrics}");
        body = metrics;
    }
    let count = |resource: &str| {
        let start = format!("tokensource_kubernetes_requests_total{{verb=\"create\",resource=\"{resource}\"");
        let line = body.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{body}"));
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    // Once for each token, and for each user.
    assert_eq!((count("tokenreviews"), count("subjectaccessreviews")), ("3".to_owned(), "2".to_owned()));
    // Neither a handshake nor a head that does not come occupies a connection for long.
    let began = Instant::now();
    let mut silent = TcpStream::connect(&address).await.unwrap();
    timeout(SOON, silent.read_to_end(&mut vec![])).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let log = operator.log();
    assert!(!log.contains(&scraper) && !log.contains(&other));
}
