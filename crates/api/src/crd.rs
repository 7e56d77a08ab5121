#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{ClusterTokenIssuer, TokenSource};

/// The CustomResourceDefinition of `TokenSource`, as `tokensource-operator crd` prints it.
///
/// Adds what the derive cannot express: a default status by which kstatus sees that no reconciliation has happened.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    completed(TokenSource::crd())
}

/// The CustomResourceDefinition of `ClusterTokenIssuer`, with the same additions.
#[must_use]
pub fn issuer_crd() -> CustomResourceDefinition {
    completed(ClusterTokenIssuer::crd())
}

fn completed(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        // As JSON, every level of the schema is reached by one recursive function.
        let mut value = serde_json::to_value(&*schema).unwrap_or_default();
        remove_nullable(&mut value);
        value["properties"]["status"]["default"] = json!({"observedGeneration": -1});
        if let Ok(changed) = serde_json::from_value(value) {
            *schema = changed;
        }
    }
    crd
}

/// Removes `nullable`, so that the API server prunes a member that is left empty (`vgs:`), and the rule about exactly
/// one member rejects the object with its message.
fn remove_nullable(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            map.values_mut().for_each(remove_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nullable),
        _ => {}
    }
}
