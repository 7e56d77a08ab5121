//! The manifests of `examples/`: the API server accepts them without a warning, and the operator understands them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::chart::helm;
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::Scene;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The manifests: the path below `examples/`, and the text.
fn examples() -> Vec<(String, String)> {
    let mut examples = vec![];
    for part in ["providers", "deliveries"] {
        for entry in fs::read_dir(folder().join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{part}/{}", path.file_name().unwrap().to_string_lossy());
            examples.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    examples.sort();
    examples
}

fn sources(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|it| it["kind"] == "TokenSource").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn example_manifests_are_applied_and_lack_only_what_the_reader_provides() {
    let scene = Scene::bare("examples").await;
    // Pods that violate the restricted profile cause a warning.
    let strict = ["label", "namespace", &scene.namespace, "pod-security.kubernetes.io/warn=restricted"];
    scene.kubectl(&strict, "").await;
    // No vendor is called.
    let flags = ["--egress-only", "idp.example.invalid."];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    let folders = ["providers", "deliveries"].map(|part| folder().join(part).display().to_string());
    let arguments = ["-n", &scene.namespace, "apply", "-o", "name", "-f", &folders[0], "-f", &folders[1]];
    let output = ControlPlane::shared().kubectl(&arguments, "").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    for (path, text) in examples() {
        let sources = sources(&text);
        assert_eq!(sources.len(), 1, "{path}");
        let name = sources[0]["metadata"]["name"].as_str().unwrap();
        // What the reader has to replace or provide.
        let (expected, words) = match name {
            "example-exchanged" => ("False CredentialsNotFound", "example-idp-token"),
            "example-issued" => ("False IssuerNotReady", "serves no ClusterTokenIssuers"),
            "example-keyless" => ("False EndpointRefusedByPolicy", "sends no tokens of ServiceAccounts"),
            "example-mtls" => ("False SpecInvalid", "example-mtls-certificate: there is no such Secret"),
            "example-github" | "example-google" | "example-signing" => {
                ("False CredentialsInvalid", "private key")
            }
            _ => ("False EndpointRefusedByPolicy", "is not among the hosts"),
        };
        let message = scene.condition(name, "Ready", expected).await;
        assert!(message.contains(words), "{path}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quickstart_manifests_and_values_are_accepted() {
    let scene = Scene::bare("quickstart").await;
    // The manifest is for a namespace of its own, which a dry run does not create.
    let manifest = fs::read_to_string(folder().join("quickstart.yaml")).unwrap();
    let label = "pod-security.kubernetes.io/enforce: restricted";
    assert!(manifest.contains(label));
    let strict = ["label", "namespace", &scene.namespace, "pod-security.kubernetes.io/warn=restricted"];
    scene.kubectl(&strict, "").await;
    let manifest = manifest.replace("namespace: quickstart", &format!("namespace: {}", scene.namespace));
    let arguments = ["apply", "--dry-run=server", "-o", "name", "-f", "-"];
    let output = ControlPlane::shared().kubectl(&arguments, &manifest).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");

    // The page's own command, which renders the chart here.
    let page = include_str!("../../docs/quickstart.md");
    let command = page.split("```").find_map(|block| block.split_once("\nhelm install ")).unwrap().1;
    let words = command.split("\nkubectl").next().unwrap().split_whitespace();
    let words = words.filter(|word| !["\\", "--wait", "--create-namespace"].contains(word));
    let words: Vec<_> = ["template"].into_iter().chain(words).collect();
    let rendered = helm(None, &words, "").unwrap();
    for line in [
        "image: tokensource-operator:quickstart\n",
        "- --allow-http\n",
        "- --egress-allow=issuer.quickstart.svc\n",
    ] {
        assert!(rendered.contains(line), "{line}: {rendered}");
    }
}

#[test]
fn every_provider_grant_and_client_authentication_has_an_example() {
    let schema = serde_json::to_value(tokensource_api::crd()).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let members = |path: &str| -> BTreeSet<String> {
        let members = schema.pointer(&format!("{spec}/{path}/properties")).unwrap().as_object().unwrap();
        members.keys().cloned().collect()
    };
    let shown = |path: &str| -> BTreeSet<String> {
        let sources = examples().into_iter().flat_map(|(_, text)| sources(&text));
        let parts = sources.filter_map(|it| it["spec"].pointer(path).and_then(Value::as_object).cloned());
        parts.flat_map(|part| part.keys().cloned().collect::<Vec<_>>()).collect()
    };
    assert_eq!(shown("/provider"), members("provider"));
    let oauth2 = "provider/properties/oauth2/properties";
    // Client credentials are the default, and the others are under it.
    let grants = members(&format!("{oauth2}/grant"));
    let missing: Vec<_> = grants.difference(&shown("/provider/oauth2/grant")).cloned().collect();
    assert_eq!(missing, ["assertion", "clientCredentials"], "by default, or as the client authentication");
    let ways = members(&format!("{oauth2}/clientAuthentication"));
    let missing: Vec<_> = ways.difference(&shown("/provider/oauth2/clientAuthentication")).cloned().collect();
    assert_eq!(missing, ["basic"], "by default");
}

#[test]
fn index_of_examples_lists_every_manifest() {
    let index = fs::read_to_string(folder().join("README.md")).unwrap();
    for (path, text) in examples() {
        assert!(index.contains(&format!("]({path})")), "{path}");
        assert!(text.starts_with("# "), "{path} begins with what it is for");
    }
}
