//! `spec.issuerRef` of TokenSources, and ClusterTokenIssuers: what the API server refuses and accepts.

use serde_json::{Value, json};

use super::with;

const PROVIDER: &str = "write provider and credentials, or issuerRef alone";
pub(super) const IMMUTABLE: &str = "spec.controller cannot be changed";

fn lent(more: Value) -> Value {
    with(json!({"issuerRef": {"name": "idp"}, "request": {"scopes": ["read"]}}), more)
}

/// Specs of TokenSources that are refused, and what the message says.
pub(super) fn refused_sources() -> Vec<(Value, &'static str)> {
    let own = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "credentials"}}});
    vec![
        (json!({}), PROVIDER),
        (json!({"credentials": {"secretRef": {"name": "c"}}}), PROVIDER),
        (json!({"provider": {"vgs": {}}}), PROVIDER),
        (lent(json!({"provider": {"vgs": {}}})), PROVIDER),
        (lent(json!({"credentials": {"secretRef": {"name": "c"}}})), PROVIDER),
        (lent(json!({"tls": {}})), PROVIDER),
        (lent(own.clone()), PROVIDER),
        (with(own, json!({"request": {"scopes": ["read"]}})), "request is for issuerRef"),
        (lent(json!({"issuerRef": {"name": "Idp"}})), "spec.issuerRef.name"),
        (lent(json!({"issuerRef": {"name": "i".repeat(64)}})), "may not be more than 63"),
        (lent(json!({"issuerRef": {}})), "spec.issuerRef.name: Required value"),
        (lent(json!({"request": {"scopes": ["a b"]}})), "write one scope per list item"),
        (lent(json!({"request": {"scopes": []}})), "should have at least 1 items"),
        (lent(json!({"request": {"resources": ["a"]}})), "write absolute URIs without fragment and spaces"),
        (lent(json!({"request": {"serviceAccountName": "A"}})), "spec.request.serviceAccountName"),
        (lent(json!({"request": {"headers": {"a": "b"}}})), "unknown field \"spec.request.headers\""),
        (lent(json!({"request": {"parameters": {"a": "b"}}})), "unknown field \"spec.request.parameters\""),
        (lent(json!({"request": {"response": {}}})), "unknown field \"spec.request.response\""),
        (lent(json!({"target": {"name": "sh.helm.release.v1.a.v1"}})), "belong to Helm"),
        (lent(json!({"target": {"name": "source-refresh-token"}})), "is where the operator keeps"),
    ]
}

pub(super) fn accepted_sources() -> Vec<Value> {
    vec![
        json!({"issuerRef": {"name": "idp"}}),
        lent(json!({"target": {"name": "token", "template": {"data": {"a": "{{ access_token }}"}}}})),
        lent(json!({"suspend": true, "refresh": {"maxInterval": "10m"}})),
        lent(json!({"request": {
            "scopes": ["read"], "audience": "api", "resources": ["https://api.example.com"],
            "serviceAccountName": "payments",
        }})),
    ]
}

fn issuer(more: Value) -> Value {
    named("idp", more)
}

fn named(name: &str, more: Value) -> Value {
    let spec = json!({
        "provider": {"oauth2": {"issuer": "https://idp.example.com"}},
        "credentials": {"secretRef": {"name": "client"}},
        "namespaces": {"names": ["payments"]},
        "allow": {"scopes": ["read", "write"], "defaultScopes": ["read"], "audiences": ["https://api.example.com"]},
    });
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": name},
        "spec": with(spec, more),
    })
}

fn oauth2(more: Value) -> Value {
    issuer(json!({"provider": {"oauth2": with(json!({"tokenURL": "https://idp.example.com/t"}), more)}}))
}

fn keyless(oauth2: Value, token: Value, credentials: Value) -> Value {
    let provider = with(
        json!({"tokenURL": "https://idp.example.com/t", "clientAuthentication": {"serviceAccountToken": {}}}),
        oauth2,
    );
    let token = with(json!({"from": "TokenSourceNamespace", "audience": "idp"}), token);
    issuer(json!({
        "provider": {"oauth2": provider}, "credentials": with(json!({"serviceAccountToken": token}), credentials),
    }))
}

/// Issuers that are refused, and what the message says.
pub(super) fn refused() -> Vec<(Value, &'static str)> {
    let none = || json!({});
    let asks = "scopes, audience and resources belong to the requests of TokenSources";
    let provider = "an issuer has provider oauth2, vgs or vngCloud";
    let consent = "exactly one of names, selector and `all: true` must be set";
    let used = "write it together with one of them";
    let hosts = "write hosts alone, with a port if it is not 443";
    vec![
        (named(&"i".repeat(64), none()), "the name may have at most 63 characters and no dots"),
        (named("i.dp", none()), "the name may have at most 63 characters and no dots"),
        (issuer(json!({"provider": {"gitHubApp": {"installationID": 1}}})), provider),
        (issuer(json!({"provider": {"vmwareCloudDirector": {"host": "a", "system": true}}})), provider),
        (oauth2(json!({"scopes": ["read"]})), asks),
        (oauth2(json!({"audience": "a"})), asks),
        (oauth2(json!({"resources": ["https://a.example.com"]})), asks),
        (issuer(json!({"provider": {"vgs": {"scopes": ["read"]}}})), asks),
        (issuer(json!({"provider": {"vngCloud": {"scopes": ["read"]}}})), asks),
        (oauth2(json!({"grant": {"refreshToken": {}}})), "an issuer has no grant refreshToken"),
        (
            oauth2(json!({"clientAuthentication": {"tls": {}}})),
            "name its Secret in spec.tls.clientCertificateRef",
        ),
        (oauth2(json!({"clientAuthentication": {"serviceAccountToken": {}}})), used),
        (keyless(json!({"clientAuthentication": {"none": {}}}), none(), none()), used),
        (
            keyless(json!({"secretHeaders": {"X-A": "a"}}), none(), none()),
            "with credentials.serviceAccountToken there is no credentials Secret",
        ),
        (
            issuer(json!({
                "provider": {"oauth2": {
                    "tokenURL": "https://idp.example.com/t", "clientAuthentication": {"serviceAccountToken": {}},
                }},
                "credentials": {"serviceAccountToken": {"from": "TokenSourceNamespace"}},
            })),
            "write the audience that the endpoint expects in credentials.serviceAccountToken.audience",
        ),
        (
            keyless(
                json!({"clientAuthentication": {"serviceAccountToken": {"sendClientID": true}}}),
                none(),
                none(),
            ),
            "sendClientID and clientAuthentication tls need credentials.clientID",
        ),
        (keyless(none(), json!({"audience": "a b"}), none()), "write one audience in printable ASCII"),
        (keyless(none(), json!({"expiration": "1m"}), none()), "write a duration from 10m to 1h"),
        (keyless(none(), json!({"from": "Operator"}), none()), "supported values: \"TokenSourceNamespace\""),
        (
            keyless(none(), none(), json!({"clientSecretKey": "a"})),
            "remove clientIDKey, clientSecretKey, privateKeyKey",
        ),
        (keyless(none(), none(), json!({"secretRef": {"name": "a"}})), super::keyless::ONE_CREDENTIALS),
        (issuer(json!({"credentials": {}})), super::keyless::ONE_CREDENTIALS),
        (
            issuer(json!({"credentials": {"secretRef": {"name": "a"}, "clientID": "a", "clientIDKey": "b"}})),
            "clientID is the id itself, clientIDKey the key of the Secret that holds it",
        ),
        (
            issuer(json!({"credentials": {"secretRef": {"name": "a"}, "vgsServiceAccountKey": "a"}})),
            "vgsServiceAccountKey is for provider vgs",
        ),
        (
            issuer(json!({
                "provider": {"vgs": {}},
                "credentials": {"secretRef": {"name": "a"}, "vgsServiceAccountKey": "a", "clientID": "b"},
            })),
            "vgsServiceAccountKey holds both id and secret",
        ),
        (issuer(json!({"namespaces": {}})), consent),
        (issuer(json!({"namespaces": {"all": false}})), consent),
        (issuer(json!({"namespaces": {"names": ["a"], "all": true}})), consent),
        (issuer(json!({"namespaces": {"names": []}})), "should have at least 1 items"),
        (
            issuer(json!({"namespaces": {"selector": {"matchLabels": {}}}})),
            "should have at least 1 properties",
        ),
        (issuer(json!({"namespaces": {"selector": {}}})), "matchLabels: Required value"),
        (issuer(json!({"allow": {"scopes": ["read"], "defaultScopes": ["write"]}})), "must all be in scopes"),
        (issuer(json!({"allow": {"defaultScopes": ["write"]}})), "must all be in scopes"),
        (issuer(json!({"allow": {"scopes": ["a b"]}})), "write one scope per list item"),
        (issuer(json!({"allow": {"resources": ["a"]}})), "write absolute URIs without fragment and spaces"),
        (issuer(json!({"endpoint": {"addresses": "Any"}})), "supported values: \"Public\", \"Private\""),
        (issuer(json!({"endpoint": {"hosts": ["https://idp.example.com"]}})), hosts),
        (issuer(json!({"endpoint": {"hosts": ["idp.example.com/a"]}})), hosts),
        (issuer(json!({"endpoint": {"hosts": ["*.example.com"]}})), hosts),
        (issuer(json!({"limits": {"maxInFlight": 0}})), "spec.limits.maxInFlight"),
    ]
}

pub(super) fn accepted() -> Vec<Value> {
    vec![
        issuer(json!({})),
        issuer(json!({"namespaces": {"all": true}, "allow": {}})),
        issuer(json!({"namespaces": {"selector": {"matchLabels": {"issuers.tokensource.dev/idp": "yes"}}}})),
        issuer(json!({"controller": "example.com/second", "limits": {"maxInFlight": 8, "maxPerSecond": 5}})),
        issuer(json!({"endpoint": {"addresses": "Private", "hosts": ["idp.example.com:8443", "[::1]"]}})),
        issuer(json!({
            "provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "a"}, "vgsServiceAccountKey": "a"},
        })),
        issuer(json!({"provider": {"vngCloud": {}}})),
        issuer(json!({"allow": {"withoutScopes": true, "resources": ["https://api.example.com"]}})),
        keyless(json!({}), json!({"name": "tokens", "expiration": "1h"}), json!({})),
    ]
}

/// An issuer of a controller, to be changed.
pub(super) fn of_controller(name: &str, controller: &str) -> Value {
    named(name, json!({"controller": controller}))
}
