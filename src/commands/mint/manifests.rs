//! Manifests, as `kubectl apply -f` takes them: YAML or JSON, several documents, lists. What the API server would refuse or
//! drop silently is an error. No message contains a value of a Secret.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use serde_json::{Map, Value};

use super::input::Input;
use crate::token_request::tls::Named;
use tokensource_api::TokenSource;

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("{file}, line {line}: neither YAML nor JSON")]
    Syntax { file: String, line: u64 },
    #[error("{file}: {problem}")]
    Object { file: String, problem: String },
    #[error("no TokenSource{} in these files", name.as_ref().map(|name| format!(" {name}")).unwrap_or_default())]
    NotFound { name: Option<String> },
    #[error("several TokenSources ({names}): write the name of one behind the flags")]
    Ambiguous { names: String },
}

/// The objects of all files.
#[derive(Default)]
pub(super) struct Manifests {
    sources: Vec<TokenSource>,
    secrets: Vec<Secret>,
    config_maps: Vec<ConfigMap>,
}

impl Manifests {
    /// Adds the objects of a file. Objects of other kinds are ignored.
    pub(super) fn add(&mut self, file: &str, text: &str) -> Result<(), ManifestError> {
        // The parser's message quotes the text around the error, which may be a secret: only the line is used.
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| ManifestError::Syntax {
                file: file.to_owned(),
                line: error.location().map_or(1, |location| location.line()),
            })?;
        let mut documents = documents.into_iter();
        documents
            .try_for_each(|document| self.add_object(document))
            .map_err(|problem| ManifestError::Object { file: file.to_owned(), problem })
    }

    fn add_object(&mut self, mut object: Value) -> Result<(), String> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (text("apiVersion").as_str(), text("kind").as_str()) {
            ("v1", "List") => {
                let Some(Value::Array(items)) = object.get_mut("items").map(Value::take) else {
                    return Ok(());
                };
                items.into_iter().try_for_each(|item| self.add_object(item))
            }
            ("v1", "Secret") => {
                self.secrets.push(secret(&object)?);
                Ok(())
            }
            ("v1", "ConfigMap") => {
                let config_map = serde_json::from_value(object);
                self.config_maps.push(config_map.map_err(|error| format!("this ConfigMap: {error}"))?);
                Ok(())
            }
            ("tokensource.dev/v1alpha1", "TokenSource") => {
                self.sources.push(source(object)?);
                Ok(())
            }
            (version, "TokenSource") => {
                Err(format!("apiVersion {version:?}: write tokensource.dev/v1alpha1"))
            }
            _ => Ok(()),
        }
    }

    /// The TokenSource of this name, or the only one, with the objects that it names.
    pub(super) fn choose(self, namespace: Option<&str>, name: Option<&str>) -> Result<Input, ManifestError> {
        let mut found: Vec<TokenSource> = self
            .sources
            .into_iter()
            .filter(|it| name.is_none_or(|name| it.name_any() == name))
            .filter(|it| is_same_namespace(it.metadata.namespace.as_deref(), namespace))
            .collect();
        let source = match (found.pop(), found.is_empty()) {
            (Some(source), true) => source,
            (None, _) => return Err(ManifestError::NotFound { name: name.map(str::to_owned) }),
            (Some(last), false) => {
                let names: Vec<String> =
                    found.iter().chain([&last]).map(kube::ResourceExt::name_any).collect();
                return Err(ManifestError::Ambiguous { names: names.join(", ") });
            }
        };
        let own = source.metadata.namespace.as_deref().or(namespace);
        let secrets = &self.secrets;
        let secret = |name: &str| find(secrets, name, own);
        let credentials = source.spec.credentials.secret_ref.as_ref().and_then(|it| secret(&it.name));
        let mut named = Named::default();
        if let Some(tls) = &source.spec.tls {
            let bundle = tls.ca_bundle.as_ref();
            let config_map = bundle.and_then(|bundle| bundle.config_map_key_ref.as_ref());
            named.bundle_config_map = config_map.and_then(|it| find(&self.config_maps, &it.name, own));
            let bundle = bundle.and_then(|bundle| bundle.secret_key_ref.as_ref());
            named.bundle_secret = bundle.and_then(|reference| secret(&reference.name));
            let client = tls.client_certificate_ref.as_ref();
            named.client_certificate = client.and_then(|reference| secret(&reference.name));
        }
        Ok(Input {
            namespace: own.map(str::to_owned),
            credentials,
            named,
            source,
            issuer: None,
            cluster: None,
        })
    }
}

/// Whether two namespaces are the same. An object without one belongs to any.
fn is_same_namespace(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The last object of this name: the one that `kubectl apply` would leave in the cluster.
fn find<O: kube::ResourceExt + Clone>(objects: &[O], name: &str, namespace: Option<&str>) -> Option<O> {
    let matches =
        |it: &&O| it.name_any() == name && is_same_namespace(it.meta().namespace.as_deref(), namespace);
    objects.iter().rev().find(matches).cloned()
}

fn source(object: Value) -> Result<TokenSource, String> {
    let source: TokenSource =
        serde_json::from_value(object.clone()).map_err(|error| format!("this TokenSource: {error}"))?;
    let mut known = serde_json::to_value(&source.spec).unwrap_or_default();
    // They are left out where they are empty, as beside `issuerRef`.
    for member in ["provider", "credentials"] {
        known.as_object_mut().map(|known| known.entry(member).or_insert_with(|| Value::Object(Map::new())));
    }
    let mut problems = vec![];
    find_dropped("spec", object.get("spec").unwrap_or(&Value::Null), &known, &mut problems);
    if problems.is_empty() {
        Ok(source)
    } else {
        Err(format!("TokenSource {}: {}", source.name_any(), problems.join("; ")))
    }
}

/// Finds members of `given` that are not in `known`: misspelled ones, and those left empty.
fn find_dropped(path: &str, given: &Value, known: &Value, problems: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => find_dropped(&path, value, known, problems),
                    None if value.is_null() => problems.push(format!(
                        "{path} is left empty, and the API server drops it: remove it, or write `{name}: {{}}`"
                    )),
                    None => problems.push(format!("{path} is no field")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (at, (given, known)) in given.iter().zip(known).enumerate() {
                find_dropped(&format!("{path}[{at}]"), given, known, problems);
            }
        }
        _ => {}
    }
}

fn secret(object: &Value) -> Result<Secret, String> {
    let metadata: ObjectMeta = object
        .get("metadata")
        .and_then(|metadata| serde_json::from_value(metadata.clone()).ok())
        .unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let mut data = BTreeMap::new();
    for (key, value) in values(object, &name, "data")? {
        let packed: String = value.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(packed).map_err(|_| {
            format!("Secret {name}: data.{key} is not base64: encode it, or write it under stringData")
        })?;
        data.insert(key, ByteString(bytes));
    }
    for (key, value) in values(object, &name, "stringData")? {
        data.insert(key, ByteString(value.into_bytes()));
    }
    let type_ = object.get("type").and_then(Value::as_str).map(str::to_owned);
    Ok(Secret { metadata, data: Some(data), type_, ..Secret::default() })
}

fn values(object: &Value, secret: &str, field: &str) -> Result<Vec<(String, String)>, String> {
    let none = Map::new();
    let members = match object.get(field) {
        None | Some(Value::Null) => &none,
        Some(Value::Object(members)) => members,
        Some(_) => return Err(format!("Secret {secret}: {field} must have keys with values")),
    };
    members
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            Value::Null => Ok((key.clone(), String::new())),
            _ => Err(format!("Secret {secret}: {field}.{key} must be a text: put quotes around it")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {name: api, namespace: payments}
spec:
  provider: {vgs: {}}
  credentials: {secretRef: {name: client}}
";

    fn read(text: &str) -> Result<Manifests, ManifestError> {
        let mut manifests = Manifests::default();
        manifests.add("a.yaml", text)?;
        Ok(manifests)
    }

    fn value(input: &Input, key: &str) -> Option<String> {
        let data = input.credentials.as_ref()?.data.as_ref()?;
        data.get(key).map(|bytes| String::from_utf8(bytes.0.clone()).unwrap())
    }

    #[test]
    fn add_reads_documents_lists_and_json_and_ignores_other_kinds() {
        let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"client"},"data":{"client_id":"aWQ=","both":"b2xk"},"stringData":{"client_secret":"s","both":"new"}}"#;
        let list = format!(
            r#"{{"apiVersion":"v1","kind":"List","items":[{secret},{{"apiVersion":"v1","kind":"ConfigMap"}}]}}"#
        );
        for text in [
            format!("{SOURCE}---\n{secret}\n"),
            format!("---\n{secret}\n---\n# nothing\n---\n{SOURCE}"),
            format!("{SOURCE}---\n{list}\n---\nkind: Deployment\n"),
        ] {
            let input = read(&text).unwrap().choose(None, None).unwrap();
            assert_eq!(input.namespace.as_deref(), Some("payments"));
            assert_eq!(value(&input, "client_id").as_deref(), Some("id"), "{text}");
            assert_eq!(value(&input, "client_secret").as_deref(), Some("s"));
            assert_eq!(value(&input, "both").as_deref(), Some("new"), "stringData takes precedence");
        }
    }

    #[test]
    fn choose_among_several_requires_a_name() {
        let two = format!("{SOURCE}---\n{}", SOURCE.replace("name: api", "name: other"));
        let message =
            |name, namespace| read(&two).unwrap().choose(namespace, name).err().unwrap().to_string();
        assert!(message(None, None).contains("several TokenSources (api, other)"));
        assert!(message(Some("none"), None).contains("no TokenSource none"));
        assert!(message(Some("api"), Some("elsewhere")).contains("no TokenSource api"));
        assert!(read(&two).unwrap().choose(None, Some("other")).unwrap().credentials.is_none());
        let foreign = "apiVersion: v1\nkind: Secret\nmetadata: {name: client, namespace: other}\n";
        let input = read(&format!("{SOURCE}---\n{foreign}")).unwrap().choose(None, None).unwrap();
        assert!(input.credentials.is_none(), "the Secret is in another namespace");
    }

    #[test]
    fn add_names_mistakes_and_no_values() {
        let secret =
            |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: client}}\n{data}\n");
        for (text, message) in [
            (SOURCE.replace("{vgs: {}}", "{vgs: }"), "spec.provider.vgs is left empty"),
            (SOURCE.replace("vgs: {}", "vgs: {tokenUrl: x}"), "spec.provider.vgs.tokenUrl is no field"),
            (SOURCE.replace("v1alpha1", "v1"), "write tokensource.dev/v1alpha1"),
            (SOURCE.replace("{secretRef: {name: client}}", "7"), "this TokenSource: "),
            (secret("data: {k: hunter2!}"), "a.yaml: Secret client: data.k is not base64"),
            (secret("stringData: {k: 12345}"), "stringData.k must be a text"),
            (secret("stringData: hunter2"), "stringData must have keys"),
            (secret("stringData: {k: [hunter2"), "neither YAML nor JSON"),
        ] {
            let error = read(&text).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("12345"), "{error}");
        }
    }
}
