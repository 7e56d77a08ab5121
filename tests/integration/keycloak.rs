//! Keycloak takes tokens of ServiceAccounts, which it verifies with the API server's own keys. `make test` leaves this out where
//! Keycloak cannot be had.

use serde_json::{Value, json};

use super::keyless::{account, cluster_issuer, host};
use super::support::keycloak::Keycloak;
use super::support::keycloak_realm::{REALM, RESOURCE_SERVER, realm};
use super::support::operator::Operator;
use super::support::scene::Scene;

/// Also an audience that the platform allows, for Keycloak's host.
const OTHER_AUDIENCE: &str = "https://other.example.com";

fn source(name: &str, issuer: &str, authentication: Value, credentials: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": name},
        "spec": {
            "provider": {"oauth2": {
                "issuer": issuer, "clientAuthentication": {"serviceAccountToken": authentication},
            }},
            "credentials": credentials,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_takes_the_token_of_a_service_account_in_place_of_a_client_secret() {
    let scene = Scene::bare("keycloak").await;
    // Keycloak reads the cluster's keys without credentials.
    let binding = format!("issuer-discovery-{}", scene.namespace);
    let (role, group) =
        ("--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated");
    scene.kubectl(&["create", "clusterrolebinding", &binding, role, group], "").await;
    let keycloak = Keycloak::start(&scene.control_plane.dir().join("certs/apiserver.crt")).await;
    let cluster = cluster_issuer(&scene).await;
    keycloak.realm(realm(&scene.namespace, &cluster, &format!("{cluster}/openid/v1/jwks"))).await;
    let issuer = keycloak.issuer(REALM);
    account(&scene, "payments", &format!("{issuer},{OTHER_AUDIENCE}")).await;
    account(&scene, "silent", OTHER_AUDIENCE).await;
    account(&scene, "stranger", &issuer).await;

    let pair = |audience: &str| format!("{audience}={}", host(&issuer));
    let allowed = [pair(&issuer), pair(OTHER_AUDIENCE)];
    let flag = "--service-account-tokens-allowed";
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", flag, &allowed[0], flag, &allowed[1]];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    let token = |name: &str| json!({"serviceAccountToken": {"name": name}});
    for manifest in [
        source("ten-minutes", &issuer, json!({}), token("payments")),
        source(
            "hour",
            &issuer,
            json!({}),
            json!({"serviceAccountToken": {"name": "payments", "expiration": "1h"}}),
        ),
        source(
            "audience",
            &issuer,
            json!({}),
            json!({"serviceAccountToken": {"name": "payments", "audience": OTHER_AUDIENCE}}),
        ),
        source("silent", &issuer, json!({}), token("silent")),
        source("stranger", &issuer, json!({}), token("stranger")),
        source(
            "client-id",
            &issuer,
            json!({"sendClientID": true}),
            json!({
                "clientID": "payments", "serviceAccountToken": {"name": "payments"},
            }),
        ),
    ] {
        scene.apply(manifest).await;
    }

    for name in ["ten-minutes", "hour"] {
        scene.condition(name, "Ready", "True TokenValid").await;
        let token = scene.value(name, "access_token").await.unwrap();
        let said = keycloak.introspect(REALM, RESOURCE_SERVER, &token).await;
        let seconds = said["exp"].as_i64().zip(said["iat"].as_i64()).map(|(exp, iat)| exp - iat);
        assert_eq!(
            (&said["active"], &said["client_id"], seconds),
            (&json!(true), &json!("payments"), Some(300))
        );
    }
    for (name, expected, words) in [
        ("audience", "False ClientRejected", "Invalid token audience"),
        ("silent", "False CredentialsInvalid", "does not list the audience"),
        ("stranger", "False ClientRejected", "invalid_client"),
    ] {
        let said = scene.condition(name, "Ready", expected).await;
        assert!(said.contains(words), "{name}: {said}");
    }
    // 26.5 compares it with the subject, later versions with the client.
    if keycloak.version.starts_with("26.5.") {
        let said = scene.condition("client-id", "Ready", "False ClientRejected").await;
        assert!(said.contains("client_id parameter does not match sub claim"), "{said}");
    } else {
        scene.condition("client-id", "Ready", "True TokenValid").await;
    }
    let shown =
        operator.stop().await + &scene.kubectl(&["get", "tokensources,events", "-o", "yaml"], "").await;
    assert!(!shown.contains("eyJ"), "a token is shown");
    scene.kubectl(&["delete", "clusterrolebinding", &binding], "").await;
}
