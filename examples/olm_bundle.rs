//! Writes a bundle for the Operator Lifecycle Manager from the plain manifests: `olm_bundle install.yaml FOLDER`.
//!
//! The bundle has the same Deployment and the same rights. The Operator Lifecycle Manager makes ServiceAccount and bindings
//! itself, and accepts no ValidatingAdmissionPolicy: docs/install.md says how that is added.

#![allow(
    clippy::indexing_slicing,
    reason = "of JSON: what is missing is null; the manifests are this project's own"
)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const ICON: &str = include_str!("../docs/pictures/icon.svg");
const PACKAGE: &str = "tokensource-operator";
const CHANNEL: &str = "alpha";
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const GENERATED: &str = "# Generated from the chart by 'make generate'.\n";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [manifests, folder] = &arguments[..] else {
        return Err("usage: olm_bundle install.yaml FOLDER".into());
    };
    let text = fs::read_to_string(manifests)?;
    let objects = text.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<Vec<Value>, _>>()?;

    let folder = Path::new(folder);
    fs::create_dir_all(folder.join("manifests"))?;
    fs::create_dir_all(folder.join("metadata"))?;
    let write = |file: &str, object: &Value| -> Result<(), Box<dyn Error>> {
        Ok(fs::write(folder.join(file), format!("{GENERATED}{}", serde_saphyr::to_string(object)?))?)
    };
    write(&format!("manifests/{PACKAGE}.clusterserviceversion.yaml"), &service_version(&objects)?)?;
    for object in &objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match object["kind"].as_str() {
            Some("CustomResourceDefinition") => {
                write("manifests/tokensource.dev_tokensources.yaml", &plain(object, name))?;
            }
            // The roles of people, which are aggregated to `view`, `edit` and `admin`.
            Some("ClusterRole") if name.ends_with("-view") || name.ends_with("-edit") => {
                let name = format!("{PACKAGE}{}", &name[name.len() - "-view".len()..]);
                write(&format!("manifests/{name}.clusterrole.yaml"), &plain(object, &name))?;
            }
            _ => {}
        }
    }
    write("metadata/annotations.yaml", &json!({"annotations": annotations()}))?;
    let labels: Vec<String> = annotations()
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("LABEL {key}={}\n", value.as_str().unwrap_or_default()))
        .collect();
    let dockerfile = format!(
        "{GENERATED}FROM scratch\n{}COPY manifests /manifests/\nCOPY metadata /metadata/\n",
        labels.concat()
    );
    Ok(fs::write(folder.join("bundle.Dockerfile"), dockerfile)?)
}

/// Of the bundle, its image and its metadata.
fn annotations() -> Value {
    json!({
        "operators.operatorframework.io.bundle.mediatype.v1": "registry+v1",
        "operators.operatorframework.io.bundle.manifests.v1": "manifests/",
        "operators.operatorframework.io.bundle.metadata.v1": "metadata/",
        "operators.operatorframework.io.bundle.package.v1": PACKAGE,
        "operators.operatorframework.io.bundle.channels.v1": CHANNEL,
        "operators.operatorframework.io.bundle.channel.default.v1": CHANNEL,
    })
}

/// The object under this name, with those of its labels that mean something to the cluster.
fn plain(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let labels: serde_json::Map<_, _> =
        labels.into_iter().filter(|(key, _)| key.starts_with("rbac.authorization.k8s.io/")).collect();
    object["metadata"]["name"] = name.into();
    object["metadata"]["labels"] = labels.into();
    object
}

fn service_version(objects: &[Value]) -> Result<Value, Box<dyn Error>> {
    let find = |kind: &str, suffix: &str| {
        let fits = |it: &&Value| {
            it["kind"] == kind && it["metadata"]["name"].as_str().is_some_and(|it| it.ends_with(suffix))
        };
        objects.iter().find(fits).ok_or_else(|| format!("the manifests have no {kind} *{suffix}"))
    };
    let deployment = find("Deployment", PACKAGE)?;
    let cluster_role = find("ClusterRole", ".tokensource-system")?;
    let role = find("Role", "-leader-election")?;
    let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    let example = json!([{
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "metadata": {"name": "vault-api"},
        "spec": {
            "provider": {"vgs": {}},
            "credentials": {"secretRef": {"name": "vgs-client"}},
            "target": {"name": "vgs-token"},
        },
    }]);
    let modes = [
        ("OwnNamespace", false),
        ("SingleNamespace", false),
        ("MultiNamespace", false),
        ("AllNamespaces", true),
    ];
    Ok(json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {
            "name": format!("{PACKAGE}.v{VERSION}"),
            "namespace": "placeholder",
            "annotations": {
                "alm-examples": serde_json::to_string(&example)?,
                "capabilities": "Deep Insights",
                "categories": "Security",
                "containerImage": image,
                "description": env!("CARGO_PKG_DESCRIPTION"),
                "repository": REPOSITORY,
                "support": "The tokensource-operator authors",
            },
        },
        "spec": {
            "displayName": "TokenSource operator",
            "description": "Keeps short-lived OAuth 2.0 access tokens fresh in Secrets. An application reads one file at every \
                call, and that file always contains a valid token.\n\nA TokenSource names the token endpoint, the Secret with \
                the credentials, and the Secret that receives the token.",
            "version": VERSION,
            "minKubeVersion": "1.31.0",
            "maturity": "alpha",
            "provider": {"name": "The tokensource-operator authors", "url": REPOSITORY},
            "links": [
                {"name": "Manual", "url": "https://tokensource.github.io/tokensource-operator/"},
                {"name": "Source", "url": REPOSITORY},
            ],
            "keywords": ["oauth2", "oidc", "token", "secrets"],
            "icon": [{"base64data": STANDARD.encode(ICON), "mediatype": "image/svg+xml"}],
            // What a mirror for a disconnected cluster copies.
            "relatedImages": [{"name": "operator", "image": image}],
            "installModes": modes.map(|(kind, is_supported)| json!({"type": kind, "supported": is_supported})),
            "install": {
                "strategy": "deployment",
                "spec": {
                    "clusterPermissions": [{"serviceAccountName": account, "rules": cluster_role["rules"]}],
                    "permissions": [{"serviceAccountName": account, "rules": role["rules"]}],
                    "deployments": [{
                        "name": PACKAGE,
                        // `kubectl tokensource` looks for them.
                        "label": deployment["spec"]["template"]["metadata"]["labels"],
                        "spec": deployment["spec"],
                    }],
                },
            },
            "customresourcedefinitions": {
                "owned": [{
                    "name": "tokensources.tokensource.dev",
                    "kind": "TokenSource",
                    "version": "v1alpha1",
                    "displayName": "TokenSource",
                    "description": "Where a token comes from, with which credentials, and into which Secret",
                }],
            },
        },
    }))
}
