//! Invalid changes of a spec, derived from the schema that the API server applies.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use tokensource_api::TokenSource;

use crate::random::Random;

/// How deep a change goes into the spec.
const MAX_DEPTH: usize = 6;

/// The schema of `spec`.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(TokenSource::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
});

/// Makes one member of `spec` invalid, and returns what was changed, as text.
pub fn invalidate(spec: &mut Value, random: &mut Random) -> String {
    loop {
        let mut changed = spec.clone();
        let mut path = Vec::new();
        if let Some(what) = descend(&mut changed, &SCHEMA, random, &mut path) {
            *spec = changed;
            return format!("spec.{}: {what}", path.join("."));
        }
    }
}

/// Goes down at random, through members that may be missing, and spoils the one where it ends.
fn descend(value: &mut Value, schema: &Value, random: &mut Random, path: &mut Vec<String>) -> Option<String> {
    let members: Vec<_> = schema["properties"].as_object().into_iter().flat_map(Map::keys).collect();
    if members.is_empty() || path.len() >= MAX_DEPTH || (!path.is_empty() && random.below(4) == 0) {
        let (what, wrong) = wrong_values(schema).get(random.below(8))?.clone();
        if path.is_empty() {
            return None;
        }
        *value = wrong;
        return Some(what);
    }
    let member = (*random.one_of(&members)).clone();
    if !value.is_object() {
        *value = json!({});
    }
    path.push(member.clone());
    let inside = value.as_object_mut()?.entry(member.clone()).or_insert(Value::Null);
    descend(inside, &schema["properties"][&member], random, path)
}

/// Values that the schema forbids, each with its name.
fn wrong_values(schema: &Value) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    let mut add = |what: &str, value: Value| wrong.push((what.to_owned(), value));
    match schema["type"].as_str() {
        Some("string") => {
            add("a number instead of a string", json!(7));
            add("an object instead of a string", json!({}));
            if let Some(most) = schema["maxLength"].as_u64() {
                add("too long", json!("x".repeat(usize::try_from(most).unwrap() + 1)));
            }
            if schema["minLength"].as_u64().unwrap_or(0) > 0 {
                add("empty", json!(""));
            }
            if schema["pattern"].is_string() {
                add("against the pattern", json!(" /\n"));
            }
            if schema["enum"].is_array() {
                add("not in the enumeration", json!("Nonsense"));
            }
        }
        Some("boolean") => add("a string instead of a boolean", json!("yes")),
        Some("integer") => add("a string instead of an integer", json!("1")),
        Some("array") => {
            add("a string instead of a list", json!("x"));
            add("a list of numbers", json!([7]));
            if let Some(most) = schema["maxItems"].as_u64() {
                add("too many items", json!(vec!["x"; usize::try_from(most).unwrap() + 1]));
            }
            if schema["minItems"].as_u64().unwrap_or(0) > 0 {
                add("no items", json!([]));
            }
        }
        Some("object") => {
            add("a string instead of an object", json!("x"));
            add("a list instead of an object", json!([]));
            if schema["required"].as_array().is_some_and(|required| !required.is_empty()) {
                add("without what is required", json!({}));
            }
            if schema["additionalProperties"]["type"] == "string" {
                add("numbers as values", json!({"a": 7}));
            }
        }
        _ => {}
    }
    wrong
}

#[test]
fn invalid_changes_reach_most_members_of_the_schema() {
    let mut random = Random::new(1);
    let start = json!({"provider": {"oauth2": {}}, "credentials": {"secretRef": {"name": "a"}}});
    let paths: std::collections::BTreeSet<_> =
        (0..2000).map(|_| invalidate(&mut start.clone(), &mut random)).collect();
    assert!(paths.len() > 100, "{paths:#?}");
}
