//! Which Secrets belong to TokenSources, and in which of them the key `client_id` is public. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::Value;
use tokensource_api::DEFAULT_CONTROLLER;

use super::hidden::CLIENT_ID;
use crate::commands::operator::ServedIssuers;
use crate::key::Key;

/// Where a spec names the Secrets of credentials and TLS.
const NAMES_OF_SECRETS: [&str; 3] =
    [CREDENTIALS, "/spec/tls/clientCertificateRef/name", "/spec/tls/caBundle/secretKeyRef/name"];
const CREDENTIALS: &str = "/spec/credentials/secretRef/name";

/// The Secrets of the TokenSources `shown`, each with whether its key `client_id` holds the id of a client. That is so only where
/// each TokenSource of `all`, those of the same namespaces, says so: one must not show what is another's secret. `None`: they are
/// not known, and no key is public.
pub(super) fn secrets_of(shown: &[DynamicObject], all: Option<&[DynamicObject]>) -> BTreeMap<Key, bool> {
    let keys = shown.iter().flat_map(secrets_of_one).map(|(key, _)| (key, all.is_some()));
    let mut secrets: BTreeMap<Key, bool> = keys.collect();
    for (key, has_client_id) in shown.iter().chain(all.into_iter().flatten()).flat_map(secrets_of_one) {
        if let Some(is_public) = secrets.get_mut(&key) {
            *is_public &= has_client_id;
        }
    }
    secrets
}

/// Adds the Secrets of issuers, in the namespaces of the operators that serve them. Their clients' ids are in manifests and
/// messages, too. Returns the names of the issuers with Secrets that no operator of `served` serves.
pub(super) fn add_secrets_of_issuers<'a>(
    secrets: &mut BTreeMap<Key, bool>,
    issuers: &'a [DynamicObject],
    served: &[ServedIssuers],
) -> Vec<&'a str> {
    let mut unserved = vec![];
    for issuer in issuers {
        let controller = issuer.data.pointer("/spec/controller").and_then(Value::as_str);
        let controller = controller.unwrap_or(DEFAULT_CONTROLLER);
        let serving: Vec<_> = served.iter().filter(|served| served.controller == controller).collect();
        if serving.is_empty() && named_secrets(issuer).next().is_some() {
            unserved.push(issuer.metadata.name.as_deref().unwrap_or_default());
        }
        for ServedIssuers { namespace, .. } in serving {
            for (name, is_public) in named_secrets(issuer) {
                let all = secrets.entry(Key::new(namespace, name)).or_insert(is_public);
                *all &= is_public;
            }
        }
    }
    unserved
}

/// The Secrets that belong to a TokenSource, each with whether its key `client_id` holds the id of a client. Another name of the
/// key is a tenant's word: it may be that of a secret.
fn secrets_of_one(source: &DynamicObject) -> Vec<(Key, bool)> {
    let own = Key::of(&source.metadata);
    let target = source.data.pointer("/spec/target/name").and_then(Value::as_str);
    let mut all = vec![
        (own.sibling(target.unwrap_or(&own.name)), false),
        (own.sibling(format!("{}-refresh-token", own.name)), false),
    ];
    all.extend(named_secrets(source).map(|(name, is_public)| (own.sibling(name), is_public)));
    all
}

/// The Secrets of credentials and TLS that a TokenSource or an issuer names, likewise.
fn named_secrets(object: &DynamicObject) -> impl Iterator<Item = (&str, bool)> {
    let text = |path: &str| object.data.pointer(path).and_then(Value::as_str);
    let has_client_id = text("/spec/credentials/clientIDKey").is_none_or(|key| key == CLIENT_ID)
        && !object.data.get("spec").is_some_and(uses_client_id_as_secret);
    NAMES_OF_SECRETS
        .into_iter()
        .filter_map(move |path| Some((text(path)?, has_client_id && path == CREDENTIALS)))
}

/// Whether a member other than `clientIDKey` names the key `client_id`.
fn uses_client_id_as_secret(spec: &Value) -> bool {
    match spec {
        Value::String(text) => text == CLIENT_ID,
        Value::Array(items) => items.iter().any(uses_client_id_as_secret),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name != "clientIDKey" && uses_client_id_as_secret(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn client_id_is_public_only_under_its_own_name_and_where_nothing_else_uses_it() {
        let of = |spec: Value| -> Vec<(String, bool)> {
            let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
            let source: DynamicObject = serde_json::from_value(object).unwrap();
            secrets_of_one(&source).into_iter().map(|(key, public)| (key.name.to_string(), public)).collect()
        };
        let credentials = |members: Value| {
            let mut spec = json!({"credentials": {"secretRef": {"name": "c"}}});
            for (name, value) in members.as_object().unwrap() {
                spec["credentials"][name] = value.clone();
            }
            of(spec)
        };
        let all = |is_public| {
            [("a", false), ("a-refresh-token", false), ("c", is_public)]
                .map(|(name, it)| (name.to_owned(), it))
        };
        assert_eq!(credentials(json!({})), all(true));
        assert_eq!(credentials(json!({"clientIDKey": "client_id"})), all(true));
        for secret in [json!({"clientIDKey": "client_secret"}), json!({"clientSecretKey": "client_id"})] {
            assert_eq!(credentials(secret.clone()), all(false), "{secret}");
        }
    }

    #[test]
    fn client_id_is_public_only_where_every_source_of_the_namespace_says_so() {
        let source = |name: &str, members: Value| -> DynamicObject {
            let mut credentials = json!({"secretRef": {"name": "shared"}});
            for (name, value) in members.as_object().unwrap() {
                credentials[name] = value.clone();
            }
            let metadata = json!({"name": name, "namespace": "b"});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"credentials": credentials}}))
                .unwrap()
        };
        let [shown, same, other] = [
            source("shown", json!({})),
            source("same", json!({})),
            source("other", json!({"clientSecretKey": "client_id"})),
        ];
        let shown = std::slice::from_ref(&shown);
        let is_public = |all: Option<&[DynamicObject]>| secrets_of(shown, all)[&Key::new("b", "shared")];
        assert!(is_public(Some(std::slice::from_ref(&same))));
        assert!(!is_public(Some(&[same, other])));
        assert!(!is_public(None));
        assert_eq!(secrets_of(shown, None).len(), 3, "of those that are shown alone");
    }

    fn served(controller: &str, namespace: &str) -> ServedIssuers {
        ServedIssuers { controller: controller.into(), namespace: namespace.into() }
    }

    #[test]
    fn secrets_of_an_issuer_are_those_in_the_namespace_of_its_operator() {
        let issuer = |name: &str, controller: Option<&str>, secret: Option<&str>| -> DynamicObject {
            let credentials = secret.map(|name| json!({"secretRef": {"name": name}}));
            let mut spec = json!({"credentials": credentials.unwrap_or_else(|| json!({}))});
            if let Some(controller) = controller {
                spec["controller"] = json!(controller);
            }
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        let issuers = [
            issuer("default", None, Some("of-a")),
            issuer("other", Some("example.com/other"), Some("of-b")),
            issuer("unknown", Some("example.com/gone"), Some("of-none")),
            issuer("without-secrets", Some("example.com/gone"), None),
        ];
        let of = |all: &[ServedIssuers]| {
            let mut secrets = BTreeMap::new();
            let unserved = add_secrets_of_issuers(&mut secrets, &issuers, all);
            (secrets.into_keys().map(|key| key.to_string()).collect::<Vec<_>>(), unserved)
        };
        let (a, b) = (served("tokensource.dev/operator", "a"), served("example.com/other", "b"));
        assert_eq!(of(&[a.clone(), b.clone()]), (vec!["a/of-a".into(), "b/of-b".into()], vec!["unknown"]));
        assert_eq!(of(&[b]), (vec!["b/of-b".into()], vec!["default", "unknown"]));
        assert_eq!(of(&[]), (vec![], vec!["default", "other", "unknown"]));
    }

    #[test]
    fn client_id_of_an_issuer_is_public_unless_another_use_of_its_secret_says_otherwise() {
        let issuer = |members: Value| -> DynamicObject {
            let mut credentials = json!({"secretRef": {"name": "shared"}});
            credentials.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            let tls = json!({"clientCertificateRef": {"name": "certificate"}});
            let spec = json!({"credentials": credentials, "tls": tls});
            serde_json::from_value(json!({"metadata": {"name": "idp"}, "spec": spec})).unwrap()
        };
        let served = [served("tokensource.dev/operator", "o")];
        let of = |before: &[(&str, bool)], issuers: &[DynamicObject]| {
            let mut secrets = before.iter().map(|(name, public)| (Key::new("o", name), *public)).collect();
            assert_eq!(add_secrets_of_issuers(&mut secrets, issuers, &served), Vec::<&str>::new());
            (secrets[&Key::new("o", "shared")], secrets[&Key::new("o", "certificate")])
        };
        let (plain, other) = (issuer(json!({})), issuer(json!({"clientSecretKey": "client_id"})));
        assert_eq!(of(&[], std::slice::from_ref(&plain)), (true, false));
        assert_eq!(of(&[("shared", false)], std::slice::from_ref(&plain)), (false, false));
        assert_eq!(of(&[("shared", true)], &[plain, other]), (false, false));
    }
}
