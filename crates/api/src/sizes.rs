#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The bounds of the schema, for objects that were stored before it had them: the API server does not judge what is unchanged.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::rules::TOTALS;
use super::{TokenSourceSpec, crd};

/// Bounds the names of all maps, in bytes; the rules of each say less.
const MAX_NAME_BYTES: usize = 317;

/// A part of a spec that is larger than the schema permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// The path of the field.
    pub field: String,
    bound: u64,
    unit: &'static str,
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has more than {} {}: shorten it", self.field, self.bound, self.unit)
    }
}

/// The first part of `spec` that is larger than the schema permits.
#[must_use]
pub fn oversize(spec: &TokenSourceSpec) -> Option<Oversize> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let versions = serde_json::to_value(crd().spec.versions).unwrap_or_default();
        versions.pointer("/0/schema/openAPIV3Schema/properties/spec").cloned().unwrap_or_default()
    });
    find(&serde_json::to_value(spec).unwrap_or_default(), &SCHEMA, "spec")
}

fn find(value: &Value, schema: &Value, field: &str) -> Option<Oversize> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let exceeds = |size: usize, bound: Option<u64>, unit| {
        let bound = bound.filter(|bound| u64::try_from(size).is_ok_and(|size| size > *bound))?;
        Some(Oversize { field: field.to_owned(), bound, unit })
    };
    match value {
        // As the API server counts. What has fewer bytes has fewer characters.
        Value::String(text) => {
            let bound = bound("maxLength");
            exceeds(text.len(), bound, "characters")
                .and_then(|_| exceeds(text.chars().count(), bound, "characters"))
        }
        Value::Array(items) => exceeds(items.len(), bound("maxItems"), "items").or_else(|| {
            let schema = schema.get("items")?;
            items.iter().enumerate().find_map(|(at, item)| find(item, schema, &format!("{field}[{at}]")))
        }),
        Value::Object(members) => exceeds(members.len(), bound("maxProperties"), "members")
            .or_else(|| {
                let (_, bound) = TOTALS.iter().find(|(of, _)| *of == field)?;
                exceeds(total(members), Some(*bound), "characters in all its values together")
            })
            .or_else(|| members.iter().find_map(|(name, value)| member(name, value, schema, field))),
        _ => None,
    }
}

fn member(name: &str, value: &Value, schema: &Value, field: &str) -> Option<Oversize> {
    if name.len() > MAX_NAME_BYTES {
        let bound = u64::try_from(MAX_NAME_BYTES).unwrap_or_default();
        return Some(Oversize { field: format!("a name in {field}"), bound, unit: "bytes" });
    }
    let schema =
        schema.get("properties").and_then(|all| all.get(name)).or(schema.get("additionalProperties"))?;
    find(value, schema, &format!("{field}.{name}"))
}

fn total(members: &Map<String, Value>) -> usize {
    members.values().filter_map(Value::as_str).map(|text| text.chars().count()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::total_rule;

    fn found(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut spec = json!({
            "provider": {"oauth2": {"tokenURL": "https://idp.example.com/token"}},
            "credentials": {"secretRef": {"name": "c"}},
            "target": {"template": {"data": {"a": "b"}}},
        });
        change(&mut spec);
        oversize(&serde_json::from_value(spec).unwrap()).map(|it| it.to_string())
    }

    #[test]
    fn oversize_names_field_and_bound() {
        let parameters = |n: usize, bytes: usize| -> Value {
            (0..n).map(|n| (format!("p{n}"), json!("x".repeat(bytes)))).collect::<Map<_, _>>().into()
        };
        let oauth2 = |name: &'static str, value: Value| {
            move |spec: &mut Value| spec["provider"]["oauth2"][name] = value
        };
        let template = |value: Value| move |spec: &mut Value| spec["target"]["template"]["data"] = value;
        assert_eq!(found(|_| ()), None);
        assert_eq!(found(oauth2("parameters", parameters(32, 1024))), None);
        assert_eq!(found(template(parameters(4, 16384))), None);
        for (found, expected) in [
            (
                found(oauth2("tokenURL", json!("x".repeat(2049)))),
                "spec.provider.oauth2.tokenURL has more than 2048 characters: shorten it",
            ),
            (
                found(oauth2("scopes", json!(vec!["a"; 65]))),
                "spec.provider.oauth2.scopes has more than 64 items: shorten it",
            ),
            (
                found(oauth2("scopes", json!(["a", "x".repeat(257)]))),
                "spec.provider.oauth2.scopes[1] has more than 256 characters: shorten it",
            ),
            (
                found(oauth2("secretParameters", parameters(33, 1))),
                "spec.provider.oauth2.secretParameters has more than 32 members: shorten it",
            ),
            (
                found(oauth2("parameters", parameters(1, 4097))),
                "spec.provider.oauth2.parameters.p0 has more than 4096 characters: shorten it",
            ),
            (
                found(oauth2("parameters", parameters(9, 4096))),
                "spec.provider.oauth2.parameters has more than 32768 characters in all its values together: shorten it",
            ),
            (
                found(oauth2("headers", json!({"x".repeat(318): "a"}))),
                "a name in spec.provider.oauth2.headers has more than 317 bytes: shorten it",
            ),
            (
                found(template(parameters(5, 16384))),
                "spec.target.template.data has more than 65536 characters in all its values together: shorten it",
            ),
            (
                found(|spec| spec["credentials"]["clientID"] = json!("x".repeat(1025))),
                "spec.credentials.clientID has more than 1024 characters: shorten it",
            ),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
        for (field, bound) in TOTALS {
            let rules = serde_json::to_string(&crd()).unwrap();
            assert!(rules.contains(&total_rule(bound)["message"].as_str().unwrap().to_owned()), "{field}");
        }
        // 4,096 characters of two bytes.
        assert_eq!(found(oauth2("parameters", json!({"a": "é".repeat(4096)}))), None);
    }

    /// A text, list or map without a bound could be of any size.
    #[test]
    fn schema_bounds_every_text_list_and_map_of_a_spec() {
        fn unbounded(schema: &Value, field: &str, found: &mut Vec<String>) {
            let has = |name: &str| schema.get(name).is_some();
            let is_bounded = match schema.get("type").and_then(Value::as_str) {
                Some("string") => has("maxLength") || has("enum"),
                Some("array") => has("maxItems"),
                // A member without fields of its own is pruned to `{}`.
                Some("object") => !has("additionalProperties") || has("maxProperties"),
                _ => true,
            };
            if !is_bounded {
                found.push(field.to_owned());
            }
            for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                unbounded(schema, &format!("{field}.{name}"), found);
            }
            for name in ["items", "additionalProperties"] {
                schema
                    .get(name)
                    .into_iter()
                    .for_each(|schema| unbounded(schema, &format!("{field}[]"), found));
            }
        }
        let versions = serde_json::to_value(crd().spec.versions).unwrap();
        let mut found = vec![];
        unbounded(&versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
