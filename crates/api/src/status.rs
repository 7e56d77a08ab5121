use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a TokenSource. It is derived, can be lost without harm, and holds no secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenSourceStatus {
    /// The generation of the spec that this status describes; -1: not reconciled yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, PropagationSafe, and while it applies Reconciling or Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The provider that the spec names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The target Secret (the duck type of servicebinding.io).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The token that the target holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenStatus>,
    /// The last attempt that failed. It stays after recovery, with count 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// The target Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Binding {
    /// The Secret's name.
    pub name: String,
}

/// The token that the target holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenStatus {
    /// The first 12 hex digits of SHA-256(access token): compare with `sha256sum` in the pod.
    pub id: String,
    /// When it was requested (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub issued_at: Timestamp,
    /// When it expires, according to the endpoint or the token (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub expires_at: Timestamp,
    /// When it is refreshed (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub refresh_at: Timestamp,
    /// The token type, usually Bearer.
    #[serde(rename = "type")]
    pub token_type: String,
    /// The scope that was granted, where the endpoint states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The last attempt that failed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When the attempt was made (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// The reason of the failure, from the closed set of the conditions' reasons.
    pub reason: String,
    /// The problem and its remedy. Contains no secret and no response body.
    pub message: String,
    /// How many attempts have failed in a row with the present spec and credentials; 0 after recovery.
    pub count: i32,
    /// When the next attempt is due; absent where none is made before something changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// What was tried: digests of the spec, of the refresh request, and of the credentials Secret's uid and resourceVersion;
    /// and `asked` where the issuer asked to wait.
    /// The wait until the next attempt survives a restart of the operator only while these are unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
}
