//! `helm test` where the namespace holds no secret: with a token of a ServiceAccount, and through a ClusterTokenIssuer.
//! `tests/helm.rs` has the rest.

use serde_json::json;

use super::issuers::{client, issuer, names, operator, released, selecting};
use super::keyless::{account, exchanging, host};
use super::pernamespace::start;
use super::support::chart::{Account, install};
use super::support::helm_test::HelmTest;
use super::support::scene::Scene;
use super::{issuers, keyless};

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_with_a_token_of_a_service_account_succeeds_or_says_why_not() {
    let scene = exchanging("helm-test-keyless").await;
    let (namespace, idp) = (&scene.namespace, scene.server.issuer());
    let allowed = json!([{"audience": idp, "hosts": [host(&idp)]}]);
    let mut values = keyless::values(&scene, allowed, &["payments"]);
    let spec = &keyless::source(&scene, "test", json!({"issuer": idp}), json!({"name": "payments"}))["spec"];
    values["helmTest"] = json!({"spec": spec});
    install(namespace, values.clone()).await;
    let _operator = start(namespace, &values, &Account::of(namespace).await).await;

    let test = HelmTest::create(namespace, &values).await;
    test.says(0, &["nothing is wrong", "tokens of ServiceAccount payments"]).await;
    account(&scene, "payments", "https://other.example.com").await;
    test.again().await;
    test.says(2, &["does not list this audience", "kubectl annotate serviceaccount payments"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_through_an_issuer_succeeds_or_says_why_not() {
    let (release, tenant) = (Scene::bare("helm-test-issuer").await, Scene::bare("helm-test-tenant").await);
    client(&release).await;
    released(&release).await;
    let spec = json!({"issuerRef": {"name": release.namespace}, "request": {"scopes": ["read"]}});
    let values = issuers::values(
        &release,
        json!({
            "namespaceSelector": selecting(&[&release, &tenant]),
            "helmTest": {"namespace": tenant.namespace, "spec": spec},
        }),
    );
    let (_operator, _account) = operator(&release, &values).await;
    release.apply(issuer(&release, names(&[&tenant]))).await;

    let test = HelmTest::create(&release.namespace, &values).await;
    test.says(0, &["nothing is wrong", "through ClusterTokenIssuer"]).await;
    let mut narrowed = issuer(&release, names(&[&tenant]));
    narrowed["spec"]["allow"]["scopes"] = json!(["write"]);
    release.apply(narrowed).await;
    test.again().await;
    test.says(2, &["NotAllowedByIssuer", "does not allow the scope read"]).await;
}
