#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Which types, labels and annotations a template may give to a Secret, and which keys a type requires. The API server
//! applies the same rules (`template.rs`); the operator repeats them because an older CustomResourceDefinition may be
//! installed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The label of a target Secret whose token came through a ClusterTokenIssuer: the issuer's name.
pub const ISSUER_LABEL: &str = "tokensource.dev/issuer";
/// The type of a Secret whose template has none.
pub const DEFAULT_TYPE: &str = "Opaque";
/// The built-in types of Kubernetes that hold only credentials.
pub const ALLOWED_TYPES: [&str; 4] =
    [DEFAULT_TYPE, "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg", "kubernetes.io/basic-auth"];
/// Domains whose other types are refused because the cluster or its tools act on them: Kubernetes writes a permanent token
/// into a `kubernetes.io/service-account-token`, a `bootstrap.kubernetes.io/token` admits nodes, Helm's types hold releases,
/// those of Cluster API (`cluster.x-k8s.io`) and Rancher (`rke.cattle.io`) hold access to clusters and plans for machines,
/// and Istio's hold keys.
pub const REFUSED_TYPE_DOMAINS: [&str; 6] =
    ["kubernetes.io", "k8s.io", "x-k8s.io", "helm.sh", "istio.io", "cattle.io"];
/// Domains whose labels and annotations are refused because the cluster or its tools act on them: Kubernetes and its special
/// interest groups (Cluster API among them), this operator, Helm, Argo CD, tools that copy Secrets into other namespaces
/// (Reflector, Kubernetes Replicator, Config Syncer), and tools that trust a Secret for its label: Istio (clusters of a mesh),
/// Sealed Secrets (private keys), cert-manager, Rancher and Open Cluster Management (clusters), Jenkins (credentials).
/// Otherwise the creator of a TokenSource could write to namespaces to which they have no access, or give a Secret a power
/// that they do not have. No such list is complete: `--template-metadata-only` permits some keys and no others.
pub const REFUSED_DOMAINS: [&str; 16] = [
    "kubernetes.io",
    "k8s.io",
    "x-k8s.io",
    "tokensource.dev",
    "meta.helm.sh",
    "argocd.argoproj.io",
    "k8s.emberstack.com",
    "replicator.v1.mittwald.de",
    "kubed.appscode.com",
    "istio",
    "istio.io",
    "sealedsecrets.bitnami.com",
    "cert-manager.io",
    "cattle.io",
    "open-cluster-management.io",
    "jenkins.io",
];
/// The label by which Helm finds its releases. Helm trusts every Secret that has it, of any type.
pub const HELM_LABEL: (&str, &str) = ("owner", "helm");
/// The prefix of the names of Helm's releases, by which Helm reads them.
pub const HELM_NAME_PREFIX: &str = "sh.helm.release.v1.";
/// The label of Argo CD that is not refused, because Argo CD finds repository credentials by it.
pub const ARGO_CD_TYPE_LABEL: &str = "argocd.argoproj.io/secret-type";
/// The permitted values of [`ARGO_CD_TYPE_LABEL`]. Not `cluster`: Argo CD would deploy to the cluster that the Secret
/// describes.
pub const ARGO_CD_SECRET_TYPES: [&str; 2] = ["repository", "repo-creds"];

/// Whether a Secret of this type may be written.
#[must_use]
pub fn is_permitted_type(kind: &str) -> bool {
    ALLOWED_TYPES.contains(&kind) || !is_under(kind, &REFUSED_TYPE_DOMAINS)
}

/// Whether a template may set this label.
pub fn is_permitted_label(key: &str, value: &str) -> bool {
    (key == ARGO_CD_TYPE_LABEL && ARGO_CD_SECRET_TYPES.contains(&value))
        || (is_permitted_annotation(key) && (key, value) != HELM_LABEL)
}

/// Whether a template may set this annotation.
pub fn is_permitted_annotation(key: &str) -> bool {
    !is_under(key, &REFUSED_DOMAINS)
}

/// Whether a Secret may have this name.
#[must_use]
pub fn is_permitted_name(name: &str) -> bool {
    !name.starts_with(HELM_NAME_PREFIX)
}

/// The annotations of this operator's own domain that it writes to Secrets itself; `tokensource.dev/adopt` is not among them.
pub const OWN_ANNOTATIONS: [&str; 3] =
    ["tokensource.dev/record", "tokensource.dev/refresh-token-of", "tokensource.dev/refresh-token-sent"];

/// These rules as a document, from which the chart makes its admission policy (`files/secret-rules.json`).
#[must_use]
pub fn secret_rules() -> Value {
    json!({
        "allowedTypes": ALLOWED_TYPES,
        "refusedTypeDomains": REFUSED_TYPE_DOMAINS,
        "refusedDomains": REFUSED_DOMAINS,
        "refusedLabel": HELM_LABEL,
        "ownAnnotations": OWN_ANNOTATIONS,
        "refusedNamePrefix": HELM_NAME_PREFIX,
        "argoCdLabel": ARGO_CD_TYPE_LABEL,
        "argoCdTypes": ARGO_CD_SECRET_TYPES,
        "issuerLabel": ISSUER_LABEL,
    })
}

fn is_under(name: &str, domains: &[&str]) -> bool {
    let Some((prefix, _)) = name.split_once('/') else { return false };
    let prefix = prefix.to_ascii_lowercase();
    domains.iter().any(|domain| {
        prefix.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

/// Checks the keys of a Secret against its type. Returns the invalid key and the problem with its remedy.
pub fn type_violation<'k>(
    kind: &str,
    text: impl Fn(&str) -> Option<&'k str>,
) -> Option<(&'static str, String)> {
    let (key, problem) = match kind {
        "kubernetes.io/dockerconfigjson" => {
            let key = ".dockerconfigjson";
            (
                key,
                registry_violation(key, text(key), |document| {
                    document.get("auths").and_then(Value::as_object)
                }),
            )
        }
        "kubernetes.io/dockercfg" => {
            let key = ".dockercfg";
            (key, registry_violation(key, text(key), Value::as_object))
        }
        "kubernetes.io/basic-auth" if text("username").or(text("password")).is_none() => {
            ("username", Some("a Secret of type kubernetes.io/basic-auth needs it, or password".to_owned()))
        }
        _ => return None,
    };
    problem.map(|problem| (key, problem))
}

/// Checks credentials for container registries.
fn registry_violation(
    key: &str,
    text: Option<&str>,
    registries: impl Fn(&Value) -> Option<&serde_json::Map<String, Value>>,
) -> Option<String> {
    let shape = if key == ".dockercfg" { "{\"HOST\": {...}}" } else { "{\"auths\": {\"HOST\": {...}}}" };
    let Some(text) = text else { return Some("its type needs this key".to_owned()) };
    let document: Value = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            return Some(format!(
                "what it makes is no JSON, from line {} of it on: let `tojson` write the texts, as in {{\"password\": {{{{ access_token | tojson }}}}}}",
                error.line()
            ));
        }
    };
    let Some(registries) = registries(&document).filter(|registries| !registries.is_empty()) else {
        return Some(format!("what it makes must have the form {shape}"));
    };
    let is_valid = |entry: &Value| {
        let member = |name| entry.get(name).map(|it| it.as_str().unwrap_or_default());
        let pair = member("auth").map(|auth| {
            STANDARD
                .decode(auth)
                .is_ok_and(|pair| pair.iter().position(|byte| *byte == b':').is_some_and(|at| at > 0))
        });
        let named = member("username").is_some_and(|it| !it.is_empty())
            && member("password").is_some_and(|it| !it.is_empty());
        let token = ["identitytoken", "registrytoken"]
            .iter()
            .any(|name| member(name).is_some_and(|it| !it.is_empty()));
        pair.unwrap_or(named || token)
    };
    registries.values().any(|entry| !is_valid(entry)).then(|| {
        "each registry needs username and password, or auth: (USER ~ ':' ~ PASSWORD) | b64encode".to_owned()
    })
}

/// The first label or annotation of a template that is refused: `labels` or `annotations`, and the key.
pub fn refused_metadata<'a>(
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
) -> Option<(&'static str, &'a str)> {
    let label = labels
        .iter()
        .find(|(key, value)| !is_permitted_label(key, value))
        .map(|(key, _)| ("labels", key.as_str()));
    let annotation = || {
        annotations.keys().find(|key| !is_permitted_annotation(key)).map(|key| ("annotations", key.as_str()))
    };
    label.or_else(annotation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_type_refuses_types_that_the_cluster_acts_on() {
        for kind in
            ["Opaque", "kubernetes.io/dockerconfigjson", "example.com/token", "mykubernetes.io/a", "token"]
        {
            assert!(is_permitted_type(kind), "{kind}");
        }
        for kind in [
            "kubernetes.io/service-account-token",
            "kubernetes.io/tls",
            "Kubernetes.io/service-account-token",
            "bootstrap.kubernetes.io/token",
            "a.k8s.io/b",
            "helm.sh/release.v1",
            "cluster.x-k8s.io/secret",
            "rke.cattle.io/machine-plan",
            "istio.io/key-and-cert",
        ] {
            assert!(!is_permitted_type(kind), "{kind}");
        }
    }

    #[test]
    fn is_permitted_label_and_annotation_refuse_keys_of_the_cluster_and_its_tools() {
        for key in [
            "team",
            "example.com/team",
            "notkubernetes.io/a",
            "kubernetes.io",
            "helm.sh/a",
            "emberstack.com/a",
            "myistio/a",
            "example.com/istio",
            "reloader.stakater.com/ignore",
        ] {
            assert!(is_permitted_annotation(key), "{key}");
        }
        for key in [
            "kubernetes.io/service-account.name",
            "app.kubernetes.io/managed-by",
            "node.k8s.io/a",
            "tokensource.dev/adopt",
            "a.tokensource.dev/b",
            "meta.helm.sh/release-name",
            "ArgoCD.argoproj.io/sync-options",
            "cluster.x-k8s.io/cluster-name",
            "reflector.v1.k8s.emberstack.com/reflection-auto-enabled",
            "replicator.v1.mittwald.de/replicate-to",
            "kubed.appscode.com/sync",
            "istio/multiCluster",
            "security.istio.io/a",
            "sealedsecrets.bitnami.com/sealed-secrets-key",
            "cert-manager.io/allow-direct-injection",
            "provisioning.cattle.io/a",
            "jenkins.io/credentials-type",
        ] {
            assert!(!is_permitted_annotation(key) && !is_permitted_label(key, "a"), "{key}");
        }
        assert!(
            !is_permitted_label("owner", "helm")
                && is_permitted_label("owner", "me")
                && is_permitted_annotation("owner")
        );
        assert!(
            is_permitted_label(ARGO_CD_TYPE_LABEL, "repository")
                && is_permitted_label(ARGO_CD_TYPE_LABEL, "repo-creds")
        );
        assert!(
            !is_permitted_label(ARGO_CD_TYPE_LABEL, "cluster")
                && !is_permitted_annotation(ARGO_CD_TYPE_LABEL)
        );
    }

    #[test]
    fn type_violation_names_the_key_and_no_value() {
        let json = |text: &str| {
            type_violation("kubernetes.io/dockerconfigjson", |key| {
                (key == ".dockerconfigjson").then(|| text.to_owned().leak() as &str)
            })
        };
        for good in [
            r#"{"auths": {"r.example.com": {"username": "u", "password": "p"}}}"#,
            r#"{"auths": {"r.example.com": {"auth": "dTpw"}, "s": {"identitytoken": "t"}}}"#,
        ] {
            assert_eq!(json(good), None, "{good}");
        }
        for (bad, expected) in [
            ("{\n\"auths\": hunter2}", "no JSON, from line 2"),
            (r#"["hunter2"]"#, "must have the form"),
            (r#"{"auths": {}}"#, "must have the form"),
            (r#"{"r.example.com": {"auth": "dTpw"}}"#, "must have the form"),
            (r#"{"auths": {"r": {"auth": "hunter2"}}}"#, "each registry needs"),
            (r#"{"auths": {"r": {"auth": "OnA="}}}"#, "each registry needs"),
            (r#"{"auths": {"r": {"username": "hunter2"}}}"#, "each registry needs"),
            (r#"{"auths": {"r": "hunter2"}}"#, "each registry needs"),
        ] {
            let (key, problem) = json(bad).unwrap();
            assert!(
                key == ".dockerconfigjson" && problem.contains(expected) && !problem.contains("hunter2"),
                "{problem}"
            );
        }
        let none = |_: &str| None;
        assert!(type_violation("kubernetes.io/dockerconfigjson", none).is_some());
        assert!(type_violation("kubernetes.io/dockercfg", none).is_some());
        assert!(type_violation("kubernetes.io/dockercfg", |_| Some(r#"{"r": {"auth": "dTpw"}}"#)).is_none());
        assert!(type_violation("kubernetes.io/basic-auth", none).is_some());
        assert!(
            type_violation("kubernetes.io/basic-auth", |key| (key == "password").then_some("p")).is_none()
        );
        assert!(type_violation("Opaque", none).is_none());
    }
}
