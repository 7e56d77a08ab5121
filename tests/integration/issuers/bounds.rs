//! What one tenant can do to an issuer, and what it reads of it.

use serde_json::{Value, json};

use super::super::support::authorization_server::Behaviour;
use super::super::support::eventually;
use super::super::support::scene::{SOON, Scene};
use super::{client, issuer, issuer_status, names, operator, released, selecting, source, values};

#[tokio::test(flavor = "multi_thread")]
async fn tenant_of_an_issuer_causes_no_more_tokens_than_it_allows_and_reads_and_breaks_nothing_of_it() {
    let (release, tenant) = (Scene::bare("issuer-bounds").await, Scene::bare("bounded").await);
    client(&release).await;
    released(&release).await;
    let name = release.namespace.as_str();
    let values = values(&release, json!({"namespaceSelector": selecting(&[&release, &tenant])}));
    let (operator, _account) = operator(&release, &values).await;
    let mut issuer = issuer(&release, names(&[&tenant]));
    issuer["spec"]["refresh"] = json!({"minInterval": "10m"});
    release.apply(issuer).await;
    tenant.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    tenant.condition("source", "Ready", "True TokenValid").await;

    // What it reads: no host, and no version of the platform's Secret.
    let (_, _, metrics) = operator.admin("/metrics").await;
    let of_tenant = format!("source_namespace=\"{}\",name=\"source\",host=", tenant.namespace);
    let hosts: Vec<_> = metrics.lines().filter_map(|line| line.split(&of_tenant).nth(1)).collect();
    let shown = format!("\"issuer/{name}\"");
    assert!(hosts.len() >= 3 && hosts.iter().all(|host| host.starts_with(&shown)), "{hosts:?}");
    assert!(metrics.contains("tokensource_token_requests_total{host=\"127.0.0.1\""), "{metrics}");
    let target: Value =
        serde_json::from_str(&tenant.kubectl(&["get", "secret", "source", "-o", "json"], "").await).unwrap();
    let record = target["metadata"]["annotations"]["tokensource.dev/record"].as_str().unwrap();
    let uid = release.kubectl(&["get", "secret", "idp-client", "-o", "jsonpath={.metadata.uid}"], "").await;
    assert!(!record.contains(uid.trim()) && record.contains("resourceVersion"), "{record}");

    // The first that is requested comes at once, and the second one waits.
    let token = async || tenant.value("source", "access_token").await;
    let refresh = async |request: &str| {
        let request = format!("tokensource.dev/refresh-requested-at={request}");
        tenant.kubectl(&["annotate", "tokensource", "source", "--overwrite", &request], "").await;
    };
    let before = token().await;
    refresh("1").await;
    eventually("another token", SOON, async || {
        let now = token().await;
        if now.is_some() && now != before { Ok(()) } else { Err(now) }
    })
    .await;
    refresh("2").await;
    eventually("the second one waits", SOON, async || {
        let said = tenant.status_text("source").await;
        if said.contains("another token was requested just before") { Ok(()) } else { Err(said) }
    })
    .await;
    // Likewise of the target.
    tenant.kubectl(&["delete", "secret", "source"], "").await;
    tenant.condition("source", "Ready", "True TokenValid").await;
    tenant.kubectl(&["delete", "secret", "source"], "").await;
    tenant.condition("source", "Ready", "False ConflictingWriter").await;
    assert_eq!(release.server.requests(name).await.total, 3);

    // What it is denied says nothing of the issuer, in a report that is made after it.
    let denied = Behaviour {
        status: Some(403),
        body: Some(json!({"error": "access_denied"})),
        times: Some(1),
        ..Behaviour::default()
    };
    release.server.behave(name, Some(denied)).await;
    tenant.apply(source(&release, "denied", json!({"scopes": ["write"]}))).await;
    tenant.condition("denied", "Ready", "False ClientRejected").await;
    let mut suspended = source(&release, "suspended", json!({"scopes": ["write"]}));
    suspended["spec"]["suspend"] = json!(true);
    tenant.apply(suspended).await;
    eventually("the issuer is Ready, with three TokenSources", SOON, async || {
        let (_, counts) = issuer_status(&release, "True RequestSucceeded").await;
        if counts[0] == 3 { Ok(()) } else { Err(counts) }
    })
    .await;
}
