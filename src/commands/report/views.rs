//! What the report shows of objects: members that are named here, and of everything else nothing. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar, Event, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::commands::redacted::{RedactedValue, shown_url};
use crate::text::shown;

/// Annotations of the operator, of Helm and of Deployments. Those of others are unknown: kubectl keeps the data of Secrets in one.
const ANNOTATIONS: [&str; 3] = ["tokensource.dev/", "meta.helm.sh/", "deployment.kubernetes.io/"];
/// Labels of Secrets that the operator sets or reads.
const SECRET_LABELS: [&str; 2] = ["tokensource.dev/", "app.kubernetes.io/managed-by"];
/// The variables of the operator whose values are its flags.
const FLAG_VARIABLES: &str = "TOKENSOURCE_";
/// Places of a spec whose texts may hold a secret that was written there instead of into a Secret.
const REDACTED_PLACES: [&str; 3] =
    ["/provider/oauth2/parameters/", "/provider/oauth2/headers/", "/target/template/metadata/annotations/"];
const TEMPLATES: &str = "/target/template/data/";

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// The members of an object with these names.
fn kept(object: &Value, names: &[&str]) -> Map<String, Value> {
    let members = names.iter().filter_map(|name| Some(((*name).to_owned(), object.get(name)?.clone())));
    members.filter(|(_, value)| !value.is_null()).collect()
}

fn metadata(metadata: &ObjectMeta) -> Map<String, Value> {
    let mut view = kept(
        &value(metadata),
        &[
            "namespace",
            "name",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "finalizers",
            "ownerReferences",
            "labels",
        ],
    );
    let annotations = with_prefix(metadata.annotations.as_ref(), &ANNOTATIONS);
    if !annotations.is_empty() {
        view.insert("annotations".to_owned(), value(&annotations));
    }
    view
}

fn with_prefix<'a>(
    all: Option<&'a BTreeMap<String, String>>,
    prefixes: &[&str],
) -> BTreeMap<&'a str, &'a str> {
    let is_kept = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let all = all.into_iter().flatten().filter(|(name, _)| is_kept(name));
    all.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A TokenSource or ClusterTokenIssuer, without what may be a secret in a wrong place.
pub(super) fn source(kind: &str, object: &DynamicObject) -> Value {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata(&object.metadata),
        "spec": redacted_spec("", spec),
        "status": object.data.get("status"),
    })
}

fn redacted_spec(path: &str, spec: Value) -> Value {
    match spec {
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                let value = redacted_spec(&format!("{path}/{name}"), value);
                (name, value)
            };
            Value::Object(members.into_iter().map(member).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(|item| redacted_spec(path, item)).collect(),
        Value::String(text) if path.starts_with(TEMPLATES) => redacted_template(&text).into(),
        Value::String(text) if REDACTED_PLACES.iter().any(|place| path.starts_with(place)) => {
            RedactedValue::secret(&text, false).to_string().into()
        }
        Value::String(text) => match Url::parse(&text) {
            Ok(mut url) if url.has_host() => {
                // The API server refuses both in URLs that it knows of.
                let _ = url.set_password(None).and_then(|()| url.set_username(""));
                shown_url(&url, false).into()
            }
            _ => text.into(),
        },
        other => other,
    }
}

/// The expressions of a template, and the lengths of the texts between them and of their own.
fn redacted_template(template: &str) -> String {
    let (mut view, mut rest) = (String::new(), template);
    let length = |text: &str| match text {
        "" => String::new(),
        text => RedactedValue::secret(text, false).to_string(),
    };
    loop {
        let begins = ["{{", "{%", "{#"].iter().filter_map(|opening| rest.find(opening)).min();
        let Some((before, expression)) = begins.and_then(|at| rest.split_at_checked(at)) else { break };
        let closing = match expression.get(..2) {
            Some("{{") => "}}",
            Some("{%") => "%}",
            _ => "#}",
        };
        let Some(end) = expression.find(closing) else { break };
        let Some((expression, after)) = expression.split_at_checked(end + closing.len()) else { break };
        view += &length(before);
        if closing != "#}" {
            if is_raw(expression) {
                return length(template);
            }
            view += &redacted_expression(expression, length);
        }
        rest = after;
    }
    view + &length(rest)
}

/// Whether what follows is text, whatever it looks like.
fn is_raw(expression: &str) -> bool {
    expression.trim_matches(['{', '}', '%', '-', '+', ' ', '\t', '\r', '\n']) == "raw"
}

/// An expression without its literals: strings and numbers.
fn redacted_expression(expression: &str, length: impl Fn(&str) -> String) -> String {
    let (mut view, mut rest) = (String::new(), expression);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if matches!(first, '"' | '\'') {
            let mut is_escaped = false;
            let closing = |(_, c): &(usize, char)| {
                let closes = *c == first && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                closes
            };
            rest.char_indices().skip(1).find(closing).map(|(at, c)| at + c.len_utf8())
        } else if is_word(first) {
            rest.find(|c: char| !is_word(c))
        } else {
            Some(first.len_utf8())
        };
        let Some((part, after)) = rest.split_at_checked(end.unwrap_or(rest.len())) else { break };
        let is_literal = matches!(first, '"' | '\'') || first.is_numeric();
        view += &if is_literal { length(part) } else { part.to_owned() };
        rest = after;
    }
    view
}

/// The metadata of a Secret: of its data the names of the keys and the sizes.
pub(super) fn secret(secret: &Secret) -> Value {
    let mut view = metadata(&secret.metadata);
    let labels = with_prefix(secret.metadata.labels.as_ref(), &SECRET_LABELS);
    view.insert("labels".to_owned(), value(&labels));
    let managers: BTreeSet<&str> = secret
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    let keys = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.len()));
    json!({
        "metadata": view,
        "type": secret.type_,
        "immutable": secret.immutable,
        "fieldManagers": managers,
        "bytesOfKeys": keys.collect::<BTreeMap<_, _>>(),
    })
}

/// A Deployment of the operator.
pub(super) fn deployment(deployment: &Deployment) -> Value {
    let whole = value(deployment);
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut template = kept(
        &value(&pod),
        &[
            "serviceAccountName",
            "nodeSelector",
            "tolerations",
            "affinity",
            "topologySpreadConstraints",
            "priorityClassName",
            "hostNetwork",
            "dnsPolicy",
            "dnsConfig",
            "securityContext",
            "terminationGracePeriodSeconds",
        ],
    );
    let containers = pod.iter().flat_map(|pod| &pod.containers).map(container).collect();
    template.insert("containers".to_owned(), containers);
    let mut spec =
        kept(whole.get("spec").unwrap_or(&Value::Null), &["replicas", "paused", "strategy", "selector"]);
    spec.insert("template".to_owned(), template.into());
    json!({"metadata": metadata(&deployment.metadata), "spec": spec, "status": whole.get("status")})
}

fn container(container: &Container) -> Value {
    let mut view = kept(
        &value(container),
        &[
            "name",
            "image",
            "command",
            "args",
            "ports",
            "resources",
            "startupProbe",
            "livenessProbe",
            "readinessProbe",
            "securityContext",
        ],
    );
    view.insert("env".to_owned(), container.env.iter().flatten().map(variable).collect());
    let mounts = container.volume_mounts.iter().flatten();
    let mounts = mounts.map(|it| format!("{}: {}", it.name, it.mount_path)).collect();
    view.insert("volumeMounts".to_owned(), mounts);
    view.into()
}

fn variable(variable: &EnvVar) -> Value {
    let shown = match (&variable.value, &variable.value_from) {
        (Some(value), _) if variable.name.starts_with(FLAG_VARIABLES) => value.clone(),
        (Some(value), _) => RedactedValue::secret(value, false).to_string(),
        (None, Some(_)) => "from another object".to_owned(),
        (None, None) => String::new(),
    };
    json!({"name": variable.name, "value": shown})
}

/// A pod of the operator.
pub(super) fn pod(pod: &Pod) -> Value {
    let whole = value(pod);
    let part = |name: &str, members: &[&str]| kept(whole.get(name).unwrap_or(&Value::Null), members);
    json!({
        "metadata": metadata(&pod.metadata),
        "spec": part("spec", &["nodeName", "priorityClassName"]),
        "status": part(
            "status",
            &["phase", "reason", "message", "startTime", "conditions", "containerStatuses", "qosClass"],
        ),
    })
}

/// Another object, of which spec and status contain no text of tenants.
pub(super) fn public_object(meta: &ObjectMeta, object: &impl Serialize) -> Value {
    let whole = value(object);
    let mut spec = whole.get("spec").cloned().unwrap_or_default();
    // Certificates, which are large and say nothing here.
    if let Some(bundle) = spec.pointer_mut("/conversion/webhook/clientConfig/caBundle") {
        *bundle = RedactedValue::secret(bundle.as_str().unwrap_or_default(), false).to_string().into();
    }
    json!({"metadata": metadata(meta), "spec": spec, "status": whole.get("status")})
}

/// Of a view only what holds no text: names, the conditions' reasons, sizes.
pub(super) fn outline(view: &Value) -> Value {
    if let Value::Array(items) = view {
        return items.iter().map(outline).collect();
    }
    let mut outline = kept(view, &["apiVersion", "kind", "exists", "bytesOfKeys"]);
    let names = ["namespace", "name", "uid", "generation", "creationTimestamp", "deletionTimestamp"];
    outline.insert("metadata".to_owned(), kept(view.get("metadata").unwrap_or(&Value::Null), &names).into());
    let conditions = view.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let members = ["type", "status", "reason", "lastTransitionTime", "observedGeneration"];
    let conditions: Vec<Value> = conditions.map(|condition| kept(condition, &members).into()).collect();
    if !conditions.is_empty() {
        outline.insert("conditions".to_owned(), conditions.into());
    }
    outline.into()
}

/// An event on one line.
pub(super) fn event(event: &Event) -> String {
    let series = event.series.as_ref();
    let at = series
        .and_then(|series| series.last_observed_time.as_ref().map(|time| time.0))
        .or_else(|| event.last_timestamp.as_ref().map(|time| time.0))
        .or_else(|| event.event_time.as_ref().map(|time| time.0));
    let count = series.and_then(|series| series.count).or(event.count).unwrap_or(1);
    let text = |text: &Option<String>| shown(text.as_deref().unwrap_or_default()).into_owned();
    let about = &event.involved_object;
    format!(
        "{} {} {} {}/{} {}: {}{}\n",
        at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        text(&event.type_),
        text(&about.kind),
        text(&about.namespace),
        text(&about.name),
        text(&event.reason),
        text(&event.message),
        if count > 1 { format!(" ({count} times)") } else { String::new() },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_shown_without_texts_that_may_be_secrets_in_the_wrong_place() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
            "metadata": {
                "name": "a", "namespace": "b", "labels": {"team": "c"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "hunter2",
                    "tokensource.dev/refresh-requested-at": "now",
                },
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "provider": {"oauth2": {
                    "tokenURL": "https://user:hunter2@idp.example.com/token?key=hunter2&hunter2#hunter2",
                    "parameters": {"audience": "hunter2"}, "headers": {"X-Key": "hunter2"},
                    "scopes": ["read"], "secretHeaders": {"X-Secret": "its-key"},
                }},
                "target": {"template": {
                    "data": {"config": "password = hunter2\ntoken = {{ access_token | default('hunter2') }}"},
                    "metadata": {"annotations": {"note": "hunter2"}},
                }},
            },
            "status": {"conditions": [{"type": "Ready", "message": "said"}]},
        }))
        .unwrap();
        let view = source("TokenSource", &object);
        assert!(!view.to_string().contains("hunter2"), "{view}");
        assert_eq!(
            view["spec"],
            json!({
                "provider": {"oauth2": {
                    "tokenURL": "https://idp.example.com/token?key=[redacted, 7 characters]&[redacted, 7 characters]#[redacted, 7 characters]",
                    "parameters": {"audience": "[redacted, 7 characters]"},
                    "headers": {"X-Key": "[redacted, 7 characters]"},
                    "scopes": ["read"], "secretHeaders": {"X-Secret": "its-key"},
                }},
                "target": {"template": {
                    "data": {"config": "[redacted, 27 characters]{{ access_token | default([redacted, 9 characters]) }}"},
                    "metadata": {"annotations": {"note": "[redacted, 7 characters]"}},
                }},
            })
        );
        assert_eq!(view["metadata"]["annotations"], json!({"tokensource.dev/refresh-requested-at": "now"}));
        assert_eq!(
            (&view["metadata"]["managedFields"], &view["status"]),
            (&Value::Null, &object.data["status"])
        );
    }

    #[test]
    fn template_that_does_not_close_is_not_shown() {
        assert_eq!(redacted_template("{# hunter2 #}a{{ hunter2"), "[redacted, 11 characters]");
        assert_eq!(redacted_template("{{ access_token }}"), "{{ access_token }}");
        for template in [
            r#"{{ '{"password":"hunter2"}' }}"#,
            r#"{{ "it's hunter2" }}"#,
            r#"{{ "a\"hunter2\"" }}"#,
            "{{ 'hunter2",
            "{%- raw -%}{{ hunter2 }}{% endraw %}",
            "{{ access_token | default(4711004711) }}",
        ] {
            let view = redacted_template(template);
            assert!(!view.contains("hunter2") && !view.contains("4711"), "{template}: {view}");
        }
    }

    #[test]
    fn secret_is_shown_without_values_and_without_metadata_of_others() {
        let whole: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": "s", "namespace": "n",
                "labels": {"owner": "hunter2", "tokensource.dev/credentials": "true"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "hunter2", "tokensource.dev/record": "{}",
                },
                "managedFields": [{"manager": "kubectl"}, {"manager": "kubectl"}],
            },
            "type": "Opaque",
            "data": {"client_secret": "aHVudGVyMg=="},
        }))
        .unwrap();
        assert_eq!(
            secret(&whole),
            json!({
                "metadata": {
                    "name": "s", "namespace": "n", "labels": {"tokensource.dev/credentials": "true"},
                    "annotations": {"tokensource.dev/record": "{}"},
                },
                "type": "Opaque", "immutable": null, "fieldManagers": ["kubectl"],
                "bytesOfKeys": {"client_secret": 7},
            })
        );
    }

    #[test]
    fn deployment_is_shown_with_its_flags_and_without_values_of_other_variables() {
        let whole: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "o", "annotations": {"meta.helm.sh/release-name": "o", "note": "hunter2"}},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"annotations": {"vault": "hunter2"}},
                    "spec": {
                        "imagePullSecrets": [{"name": "pull"}],
                        "containers": [{
                            "name": "operator", "image": "i", "args": ["run", "--log-level=info"],
                            "env": [
                                {"name": "TOKENSOURCE_LOG_LEVEL", "value": "debug"},
                                {"name": "HTTPS_PROXY", "value": "http://user:hunter2@proxy:3128"},
                                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                            ],
                            "volumeMounts": [{"name": "v", "mountPath": "/run"}],
                        }],
                    },
                },
            },
            "status": {"availableReplicas": 1},
        }))
        .unwrap();
        let view = deployment(&whole);
        assert!(!view.to_string().contains("hunter2"), "{view}");
        let container = &view["spec"]["template"]["containers"][0];
        assert_eq!(container["args"], json!(["run", "--log-level=info"]));
        assert_eq!(
            container["env"],
            json!([
                {"name": "TOKENSOURCE_LOG_LEVEL", "value": "debug"},
                {"name": "HTTPS_PROXY", "value": "[redacted, 30 characters]"},
                {"name": "KEY", "value": "from another object"},
            ])
        );
        assert_eq!(view["status"]["availableReplicas"], 1);
    }
}
