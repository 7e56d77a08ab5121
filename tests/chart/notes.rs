//! What Helm prints after an installation.

use serde_json::{Value, json};
use tokensource_api::{ClusterTokenIssuer, TokenSource};

use super::support::chart::{CHART, NAMESPACE, RELEASE, helm, objects};

/// The notes, and the manifests in them.
fn notes(values: &Value) -> (String, Vec<Value>) {
    let install = ["install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", "-"];
    let printed = helm(None, &install, &values.to_string()).unwrap_or_else(|said| panic!("{values}: {said}"));
    let (_, notes) = printed.rsplit_once("\nNOTES:\n").expect("notes");
    let manifests = notes.split_once("<<YAML\n").unwrap().1.split_once("     YAML\n").unwrap().0;
    let unindented: String =
        manifests.lines().map(|line| format!("{}\n", line.strip_prefix("     ").unwrap_or(line))).collect();
    (notes.to_owned(), objects(&unindented))
}

#[test]
fn notes_create_what_the_operator_serves_with_these_values() {
    let label = "label secret my-client tokensource.dev/credentials=true";
    for (values, secrets, is_labelled) in [
        (json!({}), "NAMESPACE", false),
        (json!({"requireCredentialsLabel": true}), "NAMESPACE", true),
        (json!({"issuers": {"enabled": true}}), "NAMESPACE", false),
        (
            json!({"issuers": {"enabled": true, "required": true, "controller": "a.example/b"}}),
            NAMESPACE,
            true,
        ),
    ] {
        let (notes, manifests) = notes(&values);
        assert!(notes.contains(&format!("kubectl -n {secrets} create secret generic my-client ")), "{notes}");
        assert_eq!(
            notes.contains(&format!("kubectl -n {secrets} {label}\n")),
            is_labelled,
            "{values}: {notes}"
        );
        assert_eq!(notes.contains(label), is_labelled, "{values}: {notes}");
        let (source, issuers) = manifests.split_last().unwrap();
        let source: TokenSource = serde_json::from_value(source.clone()).unwrap();
        let is_required = values["issuers"]["required"] == true;
        assert_eq!(source.spec.issuer_ref.is_some(), is_required, "{values}");
        assert_eq!(source.spec.credentials.secret_ref.is_none(), is_required, "{values}");
        assert_eq!(issuers.len(), usize::from(is_required), "{values}");
        if let [issuer] = issuers {
            let issuer: ClusterTokenIssuer = serde_json::from_value(issuer.clone()).unwrap();
            assert_eq!(issuer.metadata.name.unwrap(), source.spec.issuer_ref.unwrap().name);
            assert_eq!(issuer.spec.controller, "a.example/b");
        }
    }
}

#[test]
fn notes_say_how_helm_test_shows_what_it_finds() {
    let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "a"}}});
    let of = |values: &Value| {
        let mut values = values.clone();
        values["helmTest"] = json!({"spec": spec});
        notes(&values).0
    };
    let test = format!("     helm test {RELEASE} --namespace {NAMESPACE}");
    for values in [json!({}), json!({"namespaceOverride": NAMESPACE})] {
        let notes = of(&values);
        assert!(notes.contains(&format!("{test} --logs\n")), "{notes}");
        assert!(!notes.contains(&format!("logs {RELEASE}-test")), "{notes}");
    }
    // Helm looks for the pod in the namespace of the release, and fails.
    let notes = of(&json!({"namespaceOverride": "elsewhere", "fullnameOverride": "ours"}));
    assert!(notes.contains(&format!("{test}\n     kubectl -n elsewhere logs ours-test\n")), "{notes}");
    assert!(!notes.contains("--logs"), "{notes}");
    let notes = of(&json!({"createOperator": false}));
    assert!(!notes.contains("helm test"), "there is no test: {notes}");
}
