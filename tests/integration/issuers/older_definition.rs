//! A CustomResourceDefinition of a version that has no issuers, as after a downgrade: what docs/issuers.md says of it.

use serde_json::{Value, json};

use super::super::support::control_plane::ControlPlane;
use super::super::support::eventually;
use super::super::support::operator::Operator;
use super::super::support::scene::{SOON, Scene};
use super::{client, issuer, names, released, source};

const CRD: &str = include_str!("../../../crds/tokensource.dev_tokensources.yaml");
/// With these the rules spare TokenSources that have an issuer.
const GUARDS: [&str; 3] =
    ["!has(self.credentials) || ", "!has(self.provider) || ", "!has(self.spec.credentials) || "];

/// The schema before `issuerRef`: provider and credentials are required, and the rules take them for granted.
fn older_schema() -> Value {
    let mut crd: Value = serde_saphyr::from_str(CRD).unwrap();
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    older_rules(&mut schema);
    let spec = &mut schema["properties"]["spec"];
    older_rules(spec);
    spec["required"] = json!(["credentials", "provider"]);
    for field in ["issuerRef", "request"] {
        spec["properties"].as_object_mut().unwrap().remove(field).expect(field);
    }
    schema
}

fn older_rules(schema: &mut Value) {
    let rules = schema["x-kubernetes-validations"].as_array_mut().unwrap();
    rules.retain(|rule| !rule["rule"].as_str().unwrap().contains("issuerRef"));
    for rule in rules {
        let text = GUARDS
            .iter()
            .fold(rule["rule"].as_str().unwrap().to_owned(), |text, guard| text.replace(guard, ""));
        rule["rule"] = json!(text);
    }
}

async fn operator(scene: &Scene) -> Operator {
    let name = scene.namespace.as_str();
    let flags = [
        "--allow-http",
        "--egress-allow",
        "127.0.0.0/8",
        "--issuers-namespace",
        name,
        "--issuers-controller",
        name,
    ];
    Operator::start_at(&scene.control_plane.kubeconfig_path(), name, &flags).await
}

#[tokio::test(flavor = "multi_thread")]
async fn older_definition_refuses_new_sources_of_an_issuer_and_leaves_stored_ones_without_provider() {
    let scene = Scene::new_in(ControlPlane::of_its_own(), "older", 3600).await;
    client(&scene).await;
    released(&scene).await;
    let first = operator(&scene).await;
    scene.apply(issuer(&scene, names(&[&scene]))).await;
    let mut lent = source(&scene, "source", json!({"scopes": ["read"]}));
    lent["spec"]["target"] = json!({"name": "token"});
    scene.apply(lent).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    first.stop().await;

    let older = json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": older_schema()},
    ]);
    let patch = ["patch", "crd", "tokensources.tokensource.dev", "--type=json", "-p"];
    scene.kubectl(&[&patch[..], &[&older.to_string()]].concat(), "").await;
    let new = source(&scene, "new", json!({"scopes": ["read"]})).to_string();
    eventually("a new TokenSource of an issuer is refused", SOON, async || {
        let said =
            scene.try_kubectl(&["create", "--dry-run=server", "--validate=false", "-f", "-"], &new).await;
        match said {
            Err(said)
                if ["spec.provider: Required value", "spec.credentials: Required value"]
                    .iter()
                    .all(|words| said.contains(words)) =>
            {
                Ok(())
            }
            other => Err(other),
        }
    })
    .await;
    let strict = scene.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &new).await.unwrap_err();
    assert!(strict.contains("unknown field \"spec.issuerRef\""), "{strict}");
    let spec = scene.kubectl(&["get", "tokensource", "source", "-o", "jsonpath={.spec}"], "").await;
    let spec: Value = serde_json::from_str(&spec).unwrap();
    assert_eq!(spec, json!({"target": {"name": "token"}}), "the fields are dropped");

    let second = operator(&scene).await;
    // The older rules take credentials for granted, also in a change of the status alone.
    eventually("the status cannot be written", SOON, async || {
        let log = second.log();
        let line = log.lines().find(|line| line.contains("the API server refuses the status"));
        line.filter(|line| line.contains("no such key: credentials")).map(drop).ok_or(log)
    })
    .await;
    let annotate = ["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"];
    let said = scene.try_kubectl(&annotate, "").await.unwrap_err();
    assert!(said.contains("no such key: credentials"), "{said}");
    let mut other = scene.source(json!({"target": {"name": "other"}}));
    other["metadata"]["name"] = json!("other");
    scene.apply(other).await;
    scene.condition("other", "Ready", "True TokenValid").await;
    assert_eq!(scene.mints().await, 2, "one of each");
    assert_eq!(scene.token().await, Some(token), "it stays");

    // With a provider again, as the page says.
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
}
