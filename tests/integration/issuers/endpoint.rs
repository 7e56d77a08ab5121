//! What an issuer has besides its credentials: where its endpoint may be, its TLS material, and what stays the TokenSource's.

use serde_json::json;

use super::super::prompt::{folder, pod};
use super::super::support::authority::Authority;
use super::super::support::authorization_server::AuthorizationServer;
use super::super::support::eventually;
use super::super::support::scene::{SOON, Scene};
use super::super::support::scripted_server::{Reply, ScriptedServer};
use super::super::tls;
use super::{
    client, issuer, issuer_status, lacks_no_right, names, operator, own_operator, released, source, values,
};

const REFRESH: &str = "tokensource.dev/refresh-requested-at";

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_metadata_place_at_another_host_is_refused_until_the_issuer_lists_it() {
    let release = Scene::bare("issuer-hosts").await;
    client(&release).await;
    released(&release).await;
    let token = json!({"access_token": "elsewhere", "token_type": "Bearer", "expires_in": 3600}).to_string();
    let elsewhere = ScriptedServer::start([Reply::Json(200, token)]).await;
    let metadata = ScriptedServer::start([Reply::Close]).await;
    let members = json!({"issuer": metadata.url(""), "token_endpoint": elsewhere.url("/token")});
    metadata.now(Reply::Json(200, members.to_string()));
    let other = elsewhere.address().to_string();
    let _operator = own_operator(&release).await;
    let mut issuer = issuer(&release, names(&[&release]));
    issuer["spec"]["provider"]["oauth2"]["issuer"] = json!(metadata.url(""));
    release.apply(issuer.clone()).await;
    release.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    let said = release.condition("source", "Ready", "False EndpointRefusedByPolicy").await;
    assert!(!said.contains(&other), "the tenant does not see the platform's host: {said}");
    let (said, _) = issuer_status(&release, "False EndpointRefusedByPolicy").await;
    assert!(said.contains(&format!("{other}: list that host in spec.endpoint.hosts")), "{said}");
    assert_eq!(elsewhere.connections(), 0);

    issuer["spec"]["endpoint"] = json!({"hosts": [other]});
    release.apply(issuer).await;
    release.kubectl(&["annotate", "tokensource", "source", &format!("{REFRESH}=1")], "").await;
    release.condition("source", "Ready", "True TokenValid").await;
    assert_eq!(release.value("source", "access_token").await.as_deref(), Some("elsewhere"));
}

/// Not those of the tenant's namespace that have the same names.
#[tokio::test(flavor = "multi_thread")]
async fn tls_material_of_an_issuer_is_that_of_the_operators_namespace_under_the_charts_rights() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let release = tls::scene("issuer-tls", AuthorizationServer::start_tls(&servers, &clients)).await;
    let tenant = Scene::bare("issuer-tls-tenant").await;
    tls::client(&release, &servers).await;
    let pair = clients.issue_client("client.example.com");
    tls::client_certificate(&release, &pair, &pair).await;
    tls::config_map(&tenant, "roots", json!({"ca.crt": Authority::new("others").pem})).await;
    release.kubectl(&["label", "secret", "credentials", "tokensource.dev/credentials=true"], "").await;
    let values = values(&release, json!({"namespaces": [tenant.namespace], "allowHTTP": false}));
    let (_operator, account) = operator(&release, &values).await;
    let mut issuer = issuer(&release, names(&[&tenant]));
    issuer["spec"]["provider"]["oauth2"]["clientAuthentication"] = json!({"tls": {}});
    issuer["spec"]["credentials"]["secretRef"]["name"] = json!("credentials");
    issuer["spec"]["tls"] = json!({
        "caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}},
        "clientCertificateRef": {"name": "client"},
    });
    issuer["spec"]["allow"] = json!({"withoutScopes": true});
    release.apply(issuer).await;
    tenant.apply(source(&release, "source", json!({}))).await;
    // The certificate is not released for issuers.
    tenant.condition("source", "Ready", "False CredentialsInvalid").await;
    let (said, _) = issuer_status(&release, "False CredentialsInvalid").await;
    assert!(said.contains("Secret client is not labelled"), "{said}");
    release.kubectl(&["label", "secret", "client", "tokensource.dev/credentials=true"], "").await;
    tenant.kubectl(&["annotate", "tokensource", "source", &format!("{REFRESH}=1")], "").await;
    tenant.condition("source", "Ready", "True TokenValid").await;
    let token = tenant.value("source", "access_token").await.unwrap();
    assert!(release.server.is_valid(&token).await);
    lacks_no_right(&account, &[&release, &tenant]);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_of_an_issuer_is_suspended_adopts_templates_and_prompts_as_every_other() {
    let release = Scene::bare("issuer-target").await;
    client(&release).await;
    released(&release).await;
    let _operator = own_operator(&release).await;
    release.apply(issuer(&release, names(&[&release]))).await;
    pod(&release, "reader", "Running", folder()).await;
    release.secret("token", &[("kept", "theirs")]).await;
    release.kubectl(&["annotate", "secret", "token", "tokensource.dev/adopt=source"], "").await;
    let mut suspended = source(&release, "source", json!({"scopes": ["read"]}));
    suspended["spec"]["suspend"] = json!(true);
    suspended["spec"]["target"] = json!({
        "name": "token", "propagation": "Prompt",
        "template": {"data": {"header": "Bearer {{ access_token }}"}},
    });
    release.apply(suspended).await;
    release.ready("False Suspended").await;
    assert_eq!(release.mints().await, 0);

    release.patch("tokensource", "source", json!({"spec": {"suspend": false}})).await;
    release.ready("True TokenValid").await;
    let header = async || release.value("token", "header").await;
    let first = header().await.unwrap();
    let token = first.strip_prefix("Bearer ").expect("as in the template");
    assert!(release.server.is_valid(token).await);
    let label = format!("tokensource.dev/issuer={}", release.namespace);
    let labelled = release.kubectl(&["get", "secret", "-l", &label, "-o", "name"], "").await;
    assert_eq!(labelled, "secret/token\n");
    release.kubectl(&["annotate", "tokensource", "source", &format!("{REFRESH}=1")], "").await;
    eventually("another token, which the pod is told of", SOON, async || {
        let pod = release.kubectl(&["get", "pod", "reader", "-o", "yaml"], "").await;
        let is_told = pod.contains("tokensource.dev/refreshed");
        if is_told && header().await.is_some_and(|now| now != first) { Ok(()) } else { Err(pod) }
    })
    .await;
}
