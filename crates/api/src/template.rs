//! `spec.target.template`: what the target Secret holds instead of the three default keys.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rules::{self, MAX_ANNOTATIONS, MAX_TEMPLATES, total_rule};
use crate::permitted::{
    ALLOWED_TYPES, ARGO_CD_SECRET_TYPES, ARGO_CD_TYPE_LABEL, HELM_LABEL, REFUSED_DOMAINS,
    REFUSED_TYPE_DOMAINS,
};

/// The type, metadata and keys of the target Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new(DOCKER_CONFIG_JSON).message("type kubernetes.io/dockerconfigjson needs the key .dockerconfigjson in data").field_path(".data"),
    validation = Rule::new(DOCKER_CFG).message("type kubernetes.io/dockercfg needs the key .dockercfg in data").field_path(".data"),
    validation = Rule::new(BASIC_AUTH).message("type kubernetes.io/basic-auth needs the key username or password in data").field_path(".data"),
)]
pub struct Template {
    /// The Secret's type: Opaque, kubernetes.io/dockerconfigjson, kubernetes.io/dockercfg, kubernetes.io/basic-auth, or one of your own; default: Opaque. When it changes, the Secret is deleted and created again.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "type_schema")]
    pub kind: Option<String>,
    /// Labels and annotations of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The Secret's keys, each with a template in Jinja syntax: `Bearer {{ access_token }}`; default: access_token, token_type and expires_at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "data_schema")]
    pub data: Option<BTreeMap<String, String>>,
}

/// Labels and annotations of the Secret. The values are not templates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct TemplateMetadata {
    /// Labels, in addition to the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations, in addition to the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: Option<BTreeMap<String, String>>,
}

const DOCKER_CONFIG_JSON: &str = "!(has(self.type) && self.type == 'kubernetes.io/dockerconfigjson') || (has(self.data) && '.dockerconfigjson' in self.data)";
const DOCKER_CFG: &str = "!(has(self.type) && self.type == 'kubernetes.io/dockercfg') || (has(self.data) && '.dockercfg' in self.data)";
const BASIC_AUTH: &str = "!(has(self.type) && self.type == 'kubernetes.io/basic-auth') || (has(self.data) && ('username' in self.data || 'password' in self.data))";

fn type_schema(_: &mut SchemaGenerator) -> Schema {
    let allowed = quoted(&ALLOWED_TYPES);
    let refused = domain_pattern(&REFUSED_TYPE_DOMAINS);
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": "^[a-zA-Z0-9]([-._/a-zA-Z0-9]*[a-zA-Z0-9])?$",
        "x-kubernetes-validations": [{
            "rule": format!("self in [{allowed}] || !self.lowerAscii().matches('{refused}')"),
            "message": format!("write one of {}, or a type of your own, for example example.com/token; Kubernetes' and Helm's other types mean something to the cluster, and are refused", ALLOWED_TYPES.join(", ")),
        }],
    })
}

fn data_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 16384},
        "x-kubernetes-validations": [{
            "rule": format!("self.all(key, size(key) <= 253 && key.matches('{}') && key != '.' && !key.startsWith('..'))", rules::SECRET_KEY),
            "message": "a key may have at most 253 letters, digits, and the characters - _ . and must not begin with two dots",
        }, total_rule(MAX_TEMPLATES)],
    })
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    let label = json!({"type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"});
    let exception =
        format!(" || (key == '{ARGO_CD_TYPE_LABEL}' && self[key] in [{}])", quoted(&ARGO_CD_SECRET_TYPES));
    let in_words = format!(" (but for {ARGO_CD_TYPE_LABEL}: repository or repo-creds)");
    let (owner, helm) = HELM_LABEL;
    let of_helm = json!({
        "rule": format!("!('{owner}' in self) || self['{owner}'] != '{helm}'"),
        "message": format!("the label {owner}={helm} makes a Secret a release of Helm's, and cannot be set here"),
    });
    metadata(&label, &exception, &in_words, Some(of_helm))
}

fn annotations_schema(_: &mut SchemaGenerator) -> Schema {
    metadata(&json!({"type": "string", "maxLength": 4096}), "", "", Some(total_rule(MAX_ANNOTATIONS)))
}

fn metadata(value: &Value, exception: &str, exception_in_words: &str, further: Option<Value>) -> Schema {
    let refused = domain_pattern(&REFUSED_DOMAINS);
    let rules = [
        json!({
            "rule": "self.all(key, size(key) <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
            "message": "write keys as Kubernetes has them, for example team or example.com/team",
        }),
        json!({
            "rule": format!("self.all(key, !key.lowerAscii().matches('{refused}'){exception})"),
            "message": format!("keys under {} mean something to the cluster or to its tools, and cannot be set here{exception_in_words}", REFUSED_DOMAINS.join(", ")),
        }),
    ];
    let rules: Vec<Value> = rules.into_iter().chain(further).collect();
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": value,
        "x-kubernetes-validations": rules,
    })
}

/// A pattern of keys and types, in lower case, under one of these domains or their subdomains.
fn domain_pattern(domains: &[&str]) -> String {
    let domains: Vec<String> = domains.iter().map(|domain| domain.replace('.', "\\\\.")).collect();
    format!("^([^/]*\\\\.)?({})/", domains.join("|"))
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    words.join(", ")
}
