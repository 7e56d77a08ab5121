#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::TokenSource;

/// The CustomResourceDefinition of `TokenSource`, as `tokensource-operator crd` prints it.
///
/// What the derive cannot say is added here: the annotation by which Helm keeps it, and a status that tells
/// kstatus that nobody has looked yet.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = TokenSource::crd();
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        // The round trip through JSON reaches every level of the schema with one walk.
        let mut value = serde_json::to_value(&*schema).unwrap_or_default();
        tidy(&mut value);
        value["properties"]["status"]["default"] = json!({"observedGeneration": -1});
        if let Ok(tidied) = serde_json::from_value(value) {
            *schema = tidied;
        }
    }
    crd
}

/// Drops `nullable`, so that a member left empty (`vgs:`) is dropped by the API server and the rule about
/// exactly one member answers.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
