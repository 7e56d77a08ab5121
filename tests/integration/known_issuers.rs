//! The sample policy `deploy/policies/known-issuers.yaml` against the TokenSources of a tenant.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::chart::objects;
use super::support::eventually;
use super::support::scene::{SOON, Scene};

const POLICY: &str = include_str!("../../deploy/policies/known-issuers.yaml");

/// Providers that lead to a known endpoint, and providers that do not.
fn providers() -> (Vec<Value>, Vec<Value>) {
    let oauth2 = |url: &str| json!({"oauth2": {"tokenURL": url}});
    let issuer = |url: &str| json!({"oauth2": {"issuer": url}});
    let vgs = |url: &str| json!({"vgs": {"tokenURL": url}});
    let vng = |url: &str| json!({"vngCloud": {"tokenURL": url}});
    let git_hub = |host: &str| json!({"gitHubApp": {"installationID": 1, "host": host}});
    let director = |host: &str| json!({"vmwareCloudDirector": {"host": host, "tenant": "a"}});
    let with_url = |host: &str, url: &str| json!({"vmwareCloudDirector": {"host": host, "tenant": "a", "tokenURL": url}});
    let known = "https://idp.example.com/token";
    let permitted = vec![
        oauth2(known),
        oauth2("https://idp.example.com:443/token?a=b"),
        oauth2("https://IDP.example.com/token"),
        issuer("https://idp.example.com"),
        json!({"vgs": {}}),
        vgs(known),
        vng(known),
        git_hub("idp.example.com"),
        director("idp.example.com"),
        director("idp.example.com:443"),
        with_url("idp.example.com", known),
    ];
    let refused = vec![
        oauth2("https://evil.example.com/token"),
        oauth2("https://idp.example.com:8443/token"),
        oauth2("http://idp.example.com/token"),
        oauth2("http://idp.example.com:443/token"),
        oauth2("https://idp.example.com.evil.example.com/token"),
        oauth2("https://evil.example.com/idp.example.com:443"),
        oauth2("https://evil.example.com?idp.example.com"),
        oauth2("https://idp.example.com./token"),
        issuer("https://evil.example.com"),
        issuer("https://idp.example.com:8443"),
        vgs("https://evil.example.com/token"),
        vgs("https://auth.verygoodsecurity.com:8443/token"),
        json!({"vngCloud": {}}),
        vng("https://evil.example.com/token"),
        vng("https://idp.example.com:8443/token"),
        json!({"gitHubApp": {"installationID": 1}}),
        git_hub("evil.example.com"),
        git_hub("idp.example.com:8443"),
        director("evil.example.com"),
        director("idp.example.com:8443"),
        with_url("idp.example.com", "https://evil.example.com/token"),
        with_url("evil.example.com", known),
    ];
    (permitted, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn known_issuers_policy_covers_every_provider_host_and_port() {
    let scene = Scene::bare("known-issuers").await;
    scene.kubectl(&["label", "namespace", &scene.namespace, "tenant=true"], "").await;
    scene.kubectl(&["apply", "-f", "-"], POLICY).await;
    let sources = |providers: &[Value]| {
        let source = |(number, provider): (usize, &Value)| {
            json!({
                "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
                "metadata": {"name": format!("source-{number}")},
                "spec": {"provider": provider, "credentials": {"secretRef": {"name": "credentials"}}},
            })
        };
        let items: Vec<_> = providers.iter().enumerate().map(source).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    };
    let create = ["create", "--dry-run=server", "-o", "name", "-f", "-"];
    let (permitted, refused) = providers();
    eventually("the policy takes effect", SOON, async || {
        match scene.try_kubectl(&create, &sources(&refused[..1])).await {
            Err(said) if said.contains("tokens may come from idp.example.com:443, ") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let said = scene.try_kubectl(&create, &sources(&permitted)).await;
    assert_eq!(said.map(|it| it.lines().count()), Ok(permitted.len()));
    // The endpoints of ClusterTokenIssuers are the platform's.
    let lent = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "lent"},
        "spec": {"issuerRef": {"name": "idp"}},
    });
    scene.kubectl(&create, &lent.to_string()).await;
    let said = scene.try_kubectl(&create, &sources(&refused)).await.unwrap_err();
    for (number, provider) in refused.iter().enumerate() {
        let refusal = format!(
            "tokensources.tokensource.dev \"source-{number}\" is forbidden: ValidatingAdmissionPolicy"
        );
        assert!(said.contains(&refusal), "{provider}: {said}");
    }

    // Every provider of the schema is in the table.
    let names = |providers: &[Value]| -> BTreeSet<String> {
        providers.iter().flat_map(|it| it.as_object().unwrap().keys().cloned()).collect()
    };
    let crd = &objects(include_str!("../../crds/tokensource.dev_tokensources.yaml"))[0];
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/provider/properties";
    let all: BTreeSet<String> = crd.pointer(schema).unwrap().as_object().unwrap().keys().cloned().collect();
    assert_eq!((names(&permitted), names(&refused)), (all.clone(), all));
}
