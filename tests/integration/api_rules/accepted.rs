//! Manifests that the API server accepts.

use serde_json::{Value, json};

use super::{credentials, named, oauth2, of, source, vcd, vgs, with};

pub(super) fn accepted() -> Vec<Value> {
    let before = |before: &str| vgs(json!({"refresh": {"before": before}}));
    [
        vgs(json!({})),
        vgs(json!({"suspend": true})),
        vgs(json!({"target": {"template": {
            "type": "mykubernetes.io/token",
            "metadata": {
                "labels": {"argocd.argoproj.io/secret-type": "repo-creds", "example.com/Team_1": "a.b", "empty": ""},
                "annotations": {"reloader.example.com/match": "true", "a": "b\nc"},
            },
            "data": {".netrc": "machine a", "a_B-c.d": ""},
        }}})),
        vgs(json!({"target": {"template": {}}})),
        oauth2(json!({"response": {"values": {"instance_url": "/instance_url", "_1": "/data/0/token_type"}}})),
        of(json!({"vgs": {"tokenURL": "http://127.0.0.1:8080/token"}})),
        of(json!({"vngCloud": {"scopes": ["email", "a:b/c.d"]}})),
        of(json!({"vgs": {"scopes": ["cards:write", "network-tokens:read"]}})),
        of(json!({"gitHubApp": {"installationID": 9_007_199_254_740_991_i64}})),
        of(json!({"gitHubApp": {
            "installationID": 1, "host": "github.example.com:8443",
            "repositories": ["website", ".github", "a_b-c.d"], "permissions": {"contents": "read", "pull_requests": "write"},
        }})),
        oauth2(json!({"resources": ["00000003-0000-0000-C000-000000000000"]})),
        oauth2(json!({
            "grant": {"assertion": {"from": "secretKey"}},
            "clientAuthentication": {"assertion": {"from": "secretKey", "key": "svid.jwt", "type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"}},
        })),
        vcd(json!({"host": "vcd.example.com", "tenant": "My Org & Söhne"})),
        vcd(json!({"host": "vcd.example.com:8443", "system": true})),
        vcd(json!({"host": "[2001:db8::1]:8443", "tenant": "a", "system": false})),
        vcd(json!({"host": "vcd", "tenant": "..a"})),
        of(json!({"oauth2": {"issuer": "https://idp.example.com/tenant/"}})),
        oauth2(json!({"tokenURL": "https://user.example.com:8443/a@b/token?x=y@z"})),
        oauth2(json!({"clientAuthentication": {"none": {}}, "grant": {"refreshToken": {}}, "requestEncoding": "JSON"})),
        oauth2(json!({"parameters": {"organization": "acme", "api.version": "2", "resource_owner": "me"}})),
        oauth2(json!({
            "grant": {"custom": {"grantType": "account_credentials"}},
            "audience": "https://api.example.com",
            "resources": ["https://api.example.com/a?b=c", "urn:example:api"],
            "secretParameters": {"apikey": "api_key"},
            "headers": {"X-Tenant": "acme & co", "Terminal": "", "Accept-Language": "en"},
            "secretHeaders": {"X-Api-Key": "api_key"},
            "response": {"accessToken": "/data/0/a~1b", "expiresAt": "/data/expires at", "refreshToken": "/r"},
        })),
        with(
            oauth2(json!({
                "grant": {"jwtBearer": {"claims": {"scope": "a b"}, "algorithm": "EdDSA", "lifetime": "1h"}},
                "clientAuthentication": {"privateKeyJWT": {"keyID": "k", "certificateKey": "tls.crt"}},
            })),
            json!({"credentials": {"secretRef": {"name": "c"}, "privateKeyKey": "tls.key"}}),
        ),
        oauth2(json!({"grant": {"tokenExchange": {"subjectTokenType": "urn:ietf:params:oauth:token-type:jwt"}}})),
        with(
            oauth2(json!({"clientAuthentication": {"tls": {}}})),
            json!({"tls": {"clientCertificateRef": {"name": "client"}, "caBundle": {"secretKeyRef": {"name": "client", "key": "ca.crt"}}}}),
        ),
        vgs(json!({"tls": {"caBundle": {"configMapKeyRef": {"name": "source", "key": "ca.crt"}}}})),
        credentials(json!({"vgsServiceAccountKey": "credentials.yaml"})),
        credentials(json!({"clientID": "a", "clientSecretKey": "b", "refreshTokenKey": ".c"})),
        vgs(json!({"target": {"name": "a.b-c", "deletionPolicy": "Retain"}})),
        before("1s"),
        before("1h30m"),
        before("8760h"),
        vgs(json!({"refresh": {"maxInterval": "30s", "defaultLifetime": "1m", "propagationDelay": "1h"}})),
    ]
    .into_iter()
    .map(source)
    .chain([named(&"n".repeat(239), vgs(json!({})))])
    .collect()
}
