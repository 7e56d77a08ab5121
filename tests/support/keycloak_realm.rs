//! The realm of tests with Keycloak: it trusts a cluster, and has a client that is a ServiceAccount, by the settings of
//! docs/keyless.md.

use serde_json::{Value, json};

/// The name of the realm.
pub const REALM: &str = "payments";
/// The name of the ServiceAccount, and the id of its client.
pub const ACCOUNT: &str = "payments";
/// A client that asks about tokens, and its secret.
pub const RESOURCE_SERVER: (&str, &str) = ("resource-server", "a secret of the test");

/// The realm (RealmRepresentation), for ServiceAccounts of a namespace. `keys`: the URL of the cluster's keys.
pub fn realm(namespace: &str, issuer: &str, keys: &str) -> Value {
    let trust = json!({
        "issuer": issuer, "jwksUrl": keys, "useJwksUrl": "true", "validateSignature": "true",
        "supportsClientAssertions": "true", "supportsClientAssertionReuse": "true",
    });
    let subject = format!("system:serviceaccount:{namespace}:{ACCOUNT}");
    let (id, secret) = RESOURCE_SERVER;
    // Keycloak answers questions about a token only to those that it is for.
    let audience = json!({
        "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
        "config": {"included.client.audience": id, "access.token.claim": "true", "introspection.token.claim": "true"},
    });
    json!({
        "realm": REALM, "enabled": true, "accessTokenLifespan": 300,
        "identityProviders": [{"alias": "cluster", "providerId": "kubernetes", "enabled": true, "config": trust}],
        "clients": [
            {
                "clientId": ACCOUNT, "enabled": true, "publicClient": false, "serviceAccountsEnabled": true,
                "clientAuthenticatorType": "federated-jwt",
                "attributes": {"jwt.credential.issuer": "cluster", "jwt.credential.sub": subject},
                "protocolMappers": [audience],
            },
            {"clientId": id, "enabled": true, "publicClient": false, "secret": secret},
        ],
    })
}
