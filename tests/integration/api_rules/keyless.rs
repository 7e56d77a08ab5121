//! `spec.credentials.serviceAccountToken`: what the API server refuses and accepts.

use serde_json::{Value, json};

use super::{oauth2, with};

pub(super) const ONE_CREDENTIALS: &str = "exactly one of secretRef and serviceAccountToken must be set";
const TOGETHER: &str = "write it together with one of them";
const NO_SECRET: &str = "with credentials.serviceAccountToken there is no credentials Secret";
const AUDIENCE: &str = "write one audience in printable ASCII, without spaces and commas";

/// A spec that is valid without changes: the token of a ServiceAccount authenticates the client.
fn keyless(oauth2: Value, credentials: Value) -> Value {
    let mut provider = json!({
        "tokenURL": "https://idp.example.com/token", "clientAuthentication": {"serviceAccountToken": {}},
    });
    for (name, value) in oauth2.as_object().unwrap() {
        match value {
            Value::Null => provider.as_object_mut().unwrap().remove(name),
            value => provider.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    let token = json!({"serviceAccountToken": {"name": "payments", "audience": "https://idp.example.com"}});
    json!({"provider": {"oauth2": provider}, "credentials": with(token, credentials)})
}

fn token(change: Value) -> Value {
    let token = json!({"name": "payments", "audience": "https://idp.example.com"});
    keyless(json!({}), json!({"serviceAccountToken": with(token, change)}))
}

/// Specs that are refused, and what the message says.
pub(super) fn refused() -> Vec<(Value, &'static str)> {
    vec![
        (keyless(json!({}), json!({"secretRef": {"name": "c"}})), ONE_CREDENTIALS),
        (
            keyless(json!({}), json!({"clientSecretKey": "a"})),
            "stands in place of a Secret: remove clientIDKey",
        ),
        (
            keyless(json!({}), json!({"privateKeyKey": "a"})),
            "stands in place of a Secret: remove clientIDKey",
        ),
        (keyless(json!({"clientAuthentication": {"none": {}}}), json!({})), TOGETHER),
        (keyless(json!({"clientAuthentication": null}), json!({})), TOGETHER),
        (oauth2(json!({"clientAuthentication": {"serviceAccountToken": {}}})), TOGETHER),
        (oauth2(json!({"grant": {"assertion": {"from": "serviceAccountToken"}}})), TOGETHER),
        (
            oauth2(
                json!({"grant": {"tokenExchange": {"subject": "serviceAccountToken", "subjectTokenType": "a"}}}),
            ),
            TOGETHER,
        ),
        (
            oauth2(json!({"grant": {"custom": {"grantType": "a", "serviceAccountTokenParameter": "jwt"}}})),
            TOGETHER,
        ),
        (
            json!({"provider": {"vgs": {}}, "credentials": {"serviceAccountToken": {"name": "a", "audience": "b"}}}),
            TOGETHER,
        ),
        (keyless(json!({"grant": {"refreshToken": {}}}), json!({})), NO_SECRET),
        (keyless(json!({"grant": {"jwtBearer": {}}}), json!({})), NO_SECRET),
        (keyless(json!({"grant": {"assertion": {"from": "secretKey"}}}), json!({})), NO_SECRET),
        (keyless(json!({"grant": {"tokenExchange": {"subjectTokenType": "a"}}}), json!({})), NO_SECRET),
        (keyless(json!({"secretHeaders": {"X-A": "a"}}), json!({})), NO_SECRET),
        (keyless(json!({"secretParameters": {"a": "a"}}), json!({})), NO_SECRET),
        (
            keyless(
                json!({
                    "grant": {"assertion": {"from": "serviceAccountToken"}}, "clientAuthentication": {"post": {}},
                }),
                json!({}),
            ),
            NO_SECRET,
        ),
        (
            keyless(json!({}), json!({"serviceAccountToken": {"name": "a"}})),
            "write the audience that the endpoint expects in credentials.serviceAccountToken.audience",
        ),
        (
            keyless(
                json!({"clientAuthentication": {"serviceAccountToken": {"sendClientID": true}}}),
                json!({}),
            ),
            "sendClientID and clientAuthentication tls need credentials.clientID",
        ),
        (
            keyless(json!({"grant": {"assertion": {"from": "serviceAccountToken", "key": "a"}}}), json!({})),
            "key is for from: secretKey; remove it",
        ),
        (
            keyless(
                json!({"grant": {"tokenExchange": {
                    "subject": "serviceAccountToken", "subjectTokenKey": "a", "subjectTokenType": "b",
                }}}),
                json!({}),
            ),
            "subjectTokenKey is for subject: secretKey; remove it",
        ),
        (
            keyless(
                json!({"grant": {"custom": {"grantType": "a", "serviceAccountTokenParameter": "Client_ID"}}}),
                json!({}),
            ),
            "(grant_type, client_id, client_assertion, ...) cannot be named here",
        ),
        (
            oauth2(json!({"clientAuthentication": {"assertion": {"from": "serviceAccountToken"}}})),
            "supported values: \"secretKey\"",
        ),
        (token(json!({"audience": "a b"})), AUDIENCE),
        (token(json!({"audience": "a,b"})), AUDIENCE),
        (token(json!({"audience": "é"})), AUDIENCE),
        (token(json!({"expiration": "9m59s"})), "write a duration from 10m to 1h"),
        (token(json!({"expiration": "1h1s"})), "write a duration from 10m to 1h"),
        (token(json!({"name": "A"})), "spec.credentials.serviceAccountToken.name"),
    ]
}

pub(super) fn accepted() -> Vec<Value> {
    vec![
        keyless(json!({}), json!({})),
        keyless(
            json!({"clientAuthentication": {"serviceAccountToken": {"sendClientID": true}}}),
            json!({"clientID": "a"}),
        ),
        keyless(
            json!({"tokenURL": null, "issuer": "https://idp.example.com"}),
            json!({"serviceAccountToken": {"name": "a"}}),
        ),
        keyless(
            json!({"clientAuthentication": null, "grant": {"assertion": {"from": "serviceAccountToken"}}}),
            json!({}),
        ),
        keyless(
            json!({"clientAuthentication": null, "grant": {"tokenExchange": {
                "subject": "serviceAccountToken", "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
            }}}),
            json!({"clientID": "a"}),
        ),
        keyless(
            json!({"clientAuthentication": {"none": {}}, "grant": {"custom": {
                "grantType": "a", "serviceAccountTokenParameter": "jwt",
            }}}),
            json!({"clientID": "a"}),
        ),
        token(
            json!({"audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k", "expiration": "1h"}),
        ),
        token(json!({"audience": "api://AzureADTokenExchange", "expiration": "10m"})),
    ]
}
