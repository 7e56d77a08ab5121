mod credentials;
mod readers;
mod target;

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::cluster::CallError;
use crate::digest::provider_digest;
use crate::secret::{Facts, Pod};

/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// A TokenSource of the preset VGS whose token was issued 100 s ago and lives for 300 s; `status` is merged into its status.
fn source(spec: Value, status: Value) -> TokenSource {
    let mut all = json!({
        "metadata": {"name": "vault-api", "namespace": "payments", "uid": "u", "generation": 3},
        "spec": {
            "provider": {"vgs": {}},
            "credentials": {"secretRef": {"name": "vgs-client"}},
            "target": {"name": "vgs-token"},
        },
        "status": {
            "observedGeneration": 3,
            "conditions": [condition("Ready", "True", "TokenValid"), condition("PropagationSafe", "True", "LifetimeSufficient")],
            "token": {"id": "3f9a1c0d42be", "issuedAt": at(-100), "expiresAt": at(200), "refreshAt": at(50), "type": "Bearer"},
        },
    });
    merge(&mut all["spec"], spec);
    merge(&mut all["status"], status);
    serde_json::from_value(all).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "what is wrong", "lastTransitionTime": at(-100)})
}

fn facts(record: Value, keys: &[&str]) -> Facts {
    let owned: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
    let metadata = json!({
        "name": "vgs-token", "uid": "s", "resourceVersion": "9",
        "annotations": {"tokensource.dev/record": record.to_string()},
        "managedFields": [{"manager": "tokensource-operator", "operation": "Apply", "fieldsV1": {"f:data": owned}}],
    });
    Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()
}

fn record(source: &TokenSource, issued: i64, expires: i64) -> Value {
    json!({
        "version": 1,
        "owner": {"name": "vault-api", "uid": "u"},
        "inputs": {"provider": provider_digest(&source.spec), "credentials": {"uid": "c", "resourceVersion": "1"}},
        "issuedAt": at(issued),
        "expiresAt": at(expires),
        "tokenId": "3f9a1c0d42be",
        "tokenType": "Bearer",
    })
}

const KEYS: [&str; 3] = ["access_token", "expires_at", "token_type"];

fn pod(name: &str, started: i64, spec: Value, annotations: Value) -> Pod {
    let mut spec = spec;
    merge(&mut spec, json!({"volumes": [{"name": "t", "secret": {"secretName": "vgs-token"}}]}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": "p", "annotations": annotations},
        "spec": spec,
        "status": {"phase": "Running", "startTime": at(started)},
    }))
    .unwrap()
}

fn folder() -> Value {
    json!({"containers": [{"name": "app", "volumeMounts": [{"name": "t", "mountPath": "/t"}]}]})
}

fn environment() -> Value {
    json!({"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "vgs-token"}}]}]})
}

fn found(source: TokenSource) -> Found {
    let data = [("client_id", "id"), ("client_secret", "hidden")];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into())));
    Found {
        target: Ok(Some(facts(record(&source, -100, 200), &KEYS))),
        credentials: Ok(Some(Secret {
            data: Some(data.into()),
            metadata: ObjectMeta {
                uid: Some("c".into()),
                resource_version: Some("1".into()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        })),
        refresh_token: Ok(None),
        service_account: None,
        pods: Arc::new(Ok(vec![pod("web-1", -9000, folder(), json!({}))])),
        source,
    }
}

fn explain(found: &Found) -> ExplainReport {
    assess(at(0), "payments", found, OperatorFlags::default())
}

#[test]
fn assess_of_a_valid_token_reports_every_part() {
    let report = explain(&found(source(json!({}), json!({}))));
    assert_eq!(
        report.to_string(),
        "TokenSource payments/vault-api, provider vgs: the token is valid, and nothing is wrong

  Token        3f9a1c0d42be is valid until 2027-01-15T08:03:20Z (in 3 min 20 s), issued 2027-01-15T07:58:20Z (100 s ago)
  Secret       vgs-token holds it as it was written, and status agrees
  Next         a new token at 2027-01-15T08:00:50Z (in 50 s)
  Credentials  Secret vgs-client has what is needed

Conditions
  Ready           True, TokenValid
  PropagationSafe True, LifetimeSufficient

Who uses the Secret
  web-1  app  folder  has had this token since 2027-01-15T07:59:50Z (10 s ago) at the latest
"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["verdict"], &json["readers"][0]["way"]), (&json!("well"), &json!("folder")));
    assert!(!json.to_string().contains("hidden"));
}

#[test]
fn assess_of_a_failure_has_its_message_once_with_the_remedy() {
    let failure = json!({
        "at": at(-13), "reason": "ClientRejected", "message": "invalid_client", "count": 2, "nextAttemptAt": at(100),
    });
    let mut failing = condition("Ready", "True", "RefreshFailing");
    failing["message"] = "invalid_client; the token is valid".into();
    let report = explain(&found(source(json!({}), json!({"lastFailure": failure, "conditions": [failing]}))));
    assert_eq!(report.verdict, Level::Attention);
    let text = report.to_string();
    for part in [
        "the token is valid, but something needs attention",
        "! Next         another attempt at 2027-01-15T08:01:40Z (in 100 s)",
        "! Last failure ClientRejected, 2 times in a row, at 2027-01-15T07:59:47Z (13 s ago): invalid_client",
        "compare client id, client secret",
        "! Ready           True, RefreshFailing\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(text.matches("invalid_client").count(), 1, "{text}");
}

#[test]
fn assess_next_by_spec_and_status() {
    let none = || json!({});
    let failed = |next: Value| json!({"lastFailure": {"at": at(-900), "reason": "RateLimited", "message": "m", "count": 1, "nextAttemptAt": next}});
    for (spec, status, part) in [
        (none(), json!({"observedGeneration": -1}), "no operator has reconciled it"),
        (
            none(),
            json!({"observedGeneration": 2}),
            "not reconciled the present spec (generation 3) yet, only generation 2",
        ),
        (json!({"suspend": true}), none(), "nothing: spec.suspend is true"),
        (none(), failed(Value::Null), "nothing, before something changes"),
        (
            none(),
            failed(json!(at(-600))),
            "another attempt has been due since 2027-01-15T07:50:00Z (10 min ago): check that the operator runs",
        ),
        (none(), json!({"token": {"refreshAt": at(-600)}}), "a new token has been due since"),
        // The operator runs, and says itself what is in the way.
        (
            none(),
            json!({"token": {"refreshAt": at(-600)}, "conditions": [condition("Ready", "True", "RefreshFailing")]}),
            "a new token, once the problem in the conditions is solved",
        ),
    ] {
        let next = explain(&found(source(spec, status))).next;
        assert_eq!(next.level, Level::Attention, "{part}");
        assert!(next.message.contains(part), "{part}: {}", next.message);
    }
    let mut found = found(source(none(), none()));
    let request = ("tokensource.dev/refresh-requested-at".to_owned(), "1".to_owned());
    found.source.metadata.annotations = Some([request].into());
    assert_eq!(explain(&found).next.message, "a new token at once: the annotation asks for it");
    let blocked = json!([condition("Ready", "False", "CredentialsNotFound")]);
    found.source.status.as_mut().unwrap().conditions = serde_json::from_value(blocked).unwrap();
    let next = explain(&found).next;
    assert_eq!(next.message, "a new token, once the problem in the conditions is solved");
}

#[test]
fn assess_without_rights_reports_the_status_and_what_is_not_known() {
    let forbidden = |action: &str| ReadError::Forbidden {
        action: format!("{action} in payments"),
        error: CallError::Refused(String::new()),
    };
    let found = Found {
        source: source(json!({}), json!({})),
        target: Err(forbidden("read Secret vgs-token")),
        credentials: Err(forbidden("read Secret vgs-client")),
        refresh_token: Ok(None),
        service_account: None,
        pods: Arc::new(Err(forbidden("list pods"))),
    };
    let report = explain(&found);
    assert_eq!(report.verdict, Level::Well, "{report}");
    let text = report.to_string();
    for part in [
        "  Token        3f9a1c0d42be is valid until",
        "vgs-token, as status says",
        "Not known\n  - you may not read Secret vgs-token in payments, so what status says of the token is taken for true\n",
        "  - you may not read Secret vgs-client in payments, so whether the credentials are complete is not known\n",
        "  - you may not list pods in payments, so who uses Secret vgs-token, and how, is not known\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("Who uses"), "{text}");
}

#[test]
fn troubleshooting_page_shows_the_output() {
    const PAGE: &str = include_str!("../../../../docs/troubleshooting.md");
    let message = "the token endpoint answered HTTP 401, invalid_client";
    let failure = json!({
        "at": at(-13), "reason": "ClientRejected", "message": message, "count": 2, "nextAttemptAt": at(100),
    });
    let mut failing = condition("Ready", "True", "RefreshFailing");
    failing["message"] = message.into();
    let conditions = [failing, condition("PropagationSafe", "True", "LifetimeSufficient")];
    let mut found = found(source(json!({}), json!({"lastFailure": failure, "conditions": conditions})));
    found.pods = Arc::new(Ok(vec![
        pod("batch-7", -9000, environment(), json!({})),
        pod("web-1", -9000, folder(), json!({})),
        pod("web-2", -30, folder(), json!({})),
    ]));
    let output = explain(&found).to_string();
    assert!(
        PAGE.contains(&format!("\n$ tokensource-operator explain -n payments vault-api\n{output}```\n")),
        "the page lacks:\n{output}"
    );
}

#[test]
fn explain_shows_texts_of_others_on_their_line() {
    let foreign = "x\n! Token        forged\u{1b}[2J\u{202e}";
    let source = source(
        json!({}),
        json!({
            "conditions": [{"type": "Ready", "status": "False", "reason": "TargetConflict", "message": foreign, "lastTransitionTime": at(-100)}],
            "lastFailure": {"at": at(-10), "reason": "TargetRefused", "message": foreign, "count": 1},
        }),
    );
    let mut found = found(source);
    let metadata = json!({
        "name": "vgs-token", "uid": "s", "resourceVersion": "9",
        "ownerReferences": [{"apiVersion": "v1", "kind": foreign, "name": foreign, "uid": "x", "controller": true}],
    });
    found.target = Ok(Some(Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()));
    let text = explain(&found).to_string();
    assert!(text.contains("forged"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\n! Token        forged"), "{text}");
}
