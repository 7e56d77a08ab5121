//! Every field of the API, from the schema of the CustomResourceDefinition.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{cell, code, wrap};

const HEAD: &str = "# The API: every field

Generated from the CustomResourceDefinition by `make generate`. [Providers](../providers.md), [templates](../templates.md) and
[how the operator decides](../how-it-decides.md) explain the fields; `kubectl explain tokensource.spec` prints this page's
first columns.

The API server refuses an object that breaks a rule of this page, with the message in the last column. Bounds have messages of
the API server, which name the field, the value and the bound; those of Kubernetes 1.37 are:

| bound | message |
|---|---|
| required | `spec.credentials: Required value` |
| characters, at most | `spec.refresh.before: Too long: may not be more than 32 bytes` |
| characters, at least | `spec.target.name: Invalid value: \"\": spec.target.name in body should be at least 1 chars long` |
| members, at most | `spec.provider.oauth2.scopes: Too many: 65: must have at most 64 items` |
| matches | `spec.target.name: Invalid value: \"A\": spec.target.name in body should match '^[a-z]...'` |
| one of | `spec.target.deletionPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"` |
| unknown field | `strict decoding error: unknown field \"spec.targets\"` |

What the schema cannot check, because it depends on other objects or on the flags of the operator, the operator reports in the
condition `Ready`: [troubleshooting](../troubleshooting.md).
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for crd in [tokensource_api::crd(), tokensource_api::issuer_crd()] {
        kind(&mut page, &serde_json::to_value(crd).unwrap_or_default());
    }
    page
}

/// A section for each version of a kind.
fn kind(page: &mut String, crd: &Value) {
    let kind = crd.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default();
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    for version in versions.into_iter().flatten() {
        let name = version.pointer("/name").and_then(Value::as_str).unwrap_or_default();
        let _ = write!(page, "\n## tokensource.dev/{name}, {kind}\n");
        let Some(schema) = version.pointer("/schema/openAPIV3Schema") else { continue };
        rules(page, schema);
        for part in ["spec", "status"] {
            if let Some(schema) = schema.pointer(&format!("/properties/{part}")) {
                object(page, part, schema);
            }
        }
    }
}

/// A section for an object, and the sections of the objects in it.
fn object(page: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let _ = write!(page, "\n### {path}\n");
    if let Some(text) = description(schema) {
        let _ = write!(page, "\n{}\n", wrap(&cell(text), ""));
    }
    rules(page, schema);
    if properties.is_empty() {
        return;
    }
    page.push_str("\n| field | value | description | refused with |\n|---|---|---|---|\n");
    for (name, property) in properties {
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|it| it == name));
        let refused = messages_of(schema, property, name);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            code(name),
            value(property, required),
            cell(description(property).unwrap_or_default()),
            refused.iter().map(|message| cell(message)).collect::<Vec<_>>().join("<br>"),
        );
    }
    for (name, property) in properties {
        let path = format!("{path}.{name}");
        object(page, &path, property);
        for (inner, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
            if let Some(inner) = property.get(inner) {
                object(page, &format!("{path}{suffix}"), inner);
            }
        }
    }
}

fn description(schema: &Value) -> Option<&str> {
    schema.get("description").and_then(Value::as_str)
}

/// The validation rules of a schema: the path that a message is reported for, and the message.
fn validations(schema: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().map(|rule| {
        let text = |member: &str| rule.get(member).and_then(Value::as_str);
        (text("fieldPath"), text("message").unwrap_or_default())
    })
}

/// The messages for a member: its own rules, those of its items, and rules of the object that name it.
fn messages_of<'a>(object: &'a Value, property: &'a Value, name: &str) -> Vec<&'a str> {
    let path = format!(".{name}");
    let named = validations(object).filter(|(at, _)| *at == Some(&path)).map(|(_, message)| message);
    // Objects with members have a section of their own.
    let own = [Some(property), property.get("items"), property.get("additionalProperties")];
    let own = own.into_iter().flatten().filter(|schema| schema.get("properties").is_none());
    own.flat_map(validations).map(|(_, message)| message).chain(named).collect()
}

/// The rules of an object that concern several of its members.
fn rules(page: &mut String, schema: &Value) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let is_member = |path: &str| {
        let name = path.trim_start_matches('.');
        properties.is_some_and(|properties| properties.contains_key(name))
    };
    let general: Vec<_> = validations(schema).filter(|(path, _)| !path.is_some_and(is_member)).collect();
    if !general.is_empty() {
        page.push_str("\nRefused with:\n\n");
    }
    for (path, message) in general {
        let at = path.map(|path| format!("`{}`: ", path.trim_start_matches('.'))).unwrap_or_default();
        let _ = writeln!(page, "{}", wrap(&format!("- {at}{}", cell(message)), "  "));
    }
}

/// Type and bounds.
fn value(schema: &Value, required: bool) -> String {
    let mut parts = vec![];
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any value");
    parts.push(match (kind, schema.get("items"), schema.get("additionalProperties")) {
        (_, Some(items), _) => format!("list of {}", plural(items)),
        (_, _, Some(values)) => format!("map to {}", plural(values)),
        _ => kind.to_owned(),
    });
    if required {
        parts.push("**required**".to_owned());
    }
    parts.extend(bounds(schema));
    for inner in ["items", "additionalProperties"].iter().filter_map(|inner| schema.get(inner)) {
        let inner = bounds(inner);
        if !inner.is_empty() {
            parts.push(format!("each {}", inner.join(", ")));
        }
    }
    parts.join(", ")
}

fn plural(schema: &Value) -> String {
    format!("{}s", schema.get("type").and_then(Value::as_str).unwrap_or("value"))
}

fn bounds(schema: &Value) -> Vec<String> {
    let none = Map::new();
    let schema = schema.as_object().unwrap_or(&none);
    let range = |least: &str, most: &str, unit: &str| match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most} {unit}")),
        (None, Some(most)) => Some(format!("at most {most} {unit}")),
        (Some(least), None) => Some(format!("at least {least} {unit}")),
        (None, None) => None,
    };
    let mut bounds: Vec<String> = [
        range("minLength", "maxLength", "characters"),
        range("minItems", "maxItems", "items"),
        range("minProperties", "maxProperties", "members"),
        range("minimum", "maximum", "").map(|range| range.trim_end().to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        bounds.push(format.to_owned());
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(code).collect();
        bounds.push(format!("one of {}", values.join(", ")));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        bounds.push(format!("matches {}", code(pattern)));
    }
    if let Some(default) = schema.get("default") {
        bounds.push(format!("default {}", code(&default.to_string())));
    }
    bounds
}
