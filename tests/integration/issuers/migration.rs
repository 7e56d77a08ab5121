//! From a Secret in each namespace to one issuer, as docs/issuers.md says it.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;
use tokio::task::JoinHandle;

use super::super::support::authorization_server::Behaviour;
use super::super::support::eventually;
use super::super::support::scene::{SOON, Scene};
use super::{client, issuer, names, operator_for, released, source};

/// Every version of Secret `token` from now on, until the token is another one.
async fn versions(scene: &Scene) -> JoinHandle<Vec<Secret>> {
    let secrets = scene.secrets();
    let first = secrets.get("token").await.unwrap();
    let version = first.metadata.resource_version.clone().unwrap();
    let parameters = WatchParams::default().fields("metadata.name=token");
    let mut seen = vec![first];
    tokio::spawn(async move {
        let mut events = secrets.watch(&parameters, &version).await.unwrap().boxed();
        while let Some(event) = events.next().await {
            match event.unwrap() {
                WatchEvent::Modified(secret) => seen.push(secret),
                WatchEvent::Bookmark(_) => continue,
                other => panic!("the target is changed, and nothing else: {other:?}"),
            }
            if token(&seen[0]) != token(&seen[seen.len() - 1]) {
                break;
            }
        }
        seen
    })
}

fn token(secret: &Secret) -> Option<Vec<u8>> {
    Some(secret.data.as_ref()?.get("access_token")?.0.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_moves_to_an_issuer_keeps_its_target_and_its_old_token_until_the_new_one_is_written() {
    let (release, tenant) = (Scene::bare("issuer-move").await, Scene::new("moved", 3600).await);
    client(&release).await;
    released(&release).await;
    let _operator = operator_for(&release, &[&tenant]).await;
    tenant.apply(tenant.source(json!({}))).await;
    tenant.ready("True TokenValid").await;
    let old = tenant.token().await.unwrap();

    release.apply(issuer(&release, names(&[&tenant]))).await;
    // So that there is time between the change and the new token.
    let slow = Behaviour { delay_ms: 2000, ..Behaviour::default() };
    release.server.behave(&release.namespace, Some(slow)).await;
    let versions = versions(&tenant).await;
    let mut moved = source(&release, "source", json!({"scopes": ["read"]}));
    moved["spec"]["target"] = json!({"name": "token"});
    tenant.apply(moved).await;
    let spec = tenant.kubectl(&["get", "tokensource", "source", "-o", "jsonpath={.spec}"], "").await;
    assert!(!spec.contains("provider") && !spec.contains("credentials"), "one change: {spec}");
    eventually("a token is requested through the issuer", SOON, async || match release.mints().await {
        0 => Err("no request"),
        _ => Ok(()),
    })
    .await;
    assert_eq!(tenant.token().await.as_ref(), Some(&old), "the old one stays meanwhile");
    assert!(tenant.server.is_valid(&old).await);
    let new = tenant.new_token(Some(&old)).await;
    tenant.ready("True TokenValid").await;
    let seen = tokio::time::timeout(SOON, versions).await.expect("the new token was seen").unwrap();
    for secret in &seen {
        assert_eq!(secret.metadata.uid, seen[0].metadata.uid, "the same Secret");
        let token = String::from_utf8(token(secret).expect("a token in every version")).unwrap();
        assert!([&old, &new].contains(&&token), "the old one or the new one");
    }
    let introspected = release.server.introspect(&new).await;
    assert_eq!(introspected.client_id.as_ref(), Some(&release.namespace));
    assert_eq!(introspected.scope.as_deref(), Some("read"));
    let label = format!("tokensource.dev/issuer={}", release.namespace);
    let labelled = tenant.kubectl(&["get", "secret", "-l", &label, "-o", "name"], "").await;
    assert_eq!(labelled, "secret/token\n");

    // The credentials of the namespace are not used any more.
    release.server.behave(&release.namespace, None).await;
    tenant.kubectl(&["delete", "secret", "credentials"], "").await;
    tenant.source_is_seen().await;
    tenant.ready("True TokenValid").await;
    assert_eq!((release.mints().await, tenant.token().await.as_ref()), (1, Some(&new)));
    tenant.force_refresh("1").await;
    tenant.ready("True TokenValid").await;
    assert_eq!((release.mints().await, tenant.mints().await), (2, 1));
}
