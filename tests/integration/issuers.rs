//! ClusterTokenIssuers under the rights and the admission policy of the chart: two tenants, every refusal, withdrawal, narrowing,
//! a rotated credential, and the messages that a tenant sees.

mod bounds;
mod endpoint;
mod limits;
mod migration;
mod narrowing;
mod older_definition;
mod tenants;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::explain::explained;
use super::keyless::{cluster_issuer, host};
use super::pernamespace::start;
use super::support::account::TestAccount;
use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::chart::{Account, install};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::{eventually, gitops};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The values of the chart with issuers of this release alone.
pub(super) fn values(release: &Scene, more: Value) -> Value {
    let mut values = json!({
        "crds": {"enabled": false}, "allowHTTP": true, "egress": {"allow": ["127.0.0.0/8"]}, "log": {"format": "text"},
        "issuers": {"enabled": true, "controller": release.namespace},
    });
    values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    values
}

/// The operator serves these namespaces, which belong to this test.
pub(super) fn selecting(scenes: &[&Scene]) -> Value {
    let names: Vec<_> = scenes.iter().map(|scene| &scene.namespace).collect();
    json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": names}]})
}

/// A client of the authorization server, named as the release, with its credentials in Secret `idp-client` of its namespace.
pub(super) async fn client(release: &Scene) {
    release
        .server
        .client(ClientSpec {
            id: release.namespace.clone(),
            secret: Some("right".into()),
            token_endpoint_auth_method: "client_secret_post",
            scope: "read write admin".into(),
            access_token_ttl: 3600,
            ..ClientSpec::default()
        })
        .await;
    release.secret("idp-client", &[("client_id", &release.namespace), ("client_secret", "right")]).await;
}

pub(super) async fn released(release: &Scene) {
    release.kubectl(&["label", "secret", "idp-client", "tokensource.dev/credentials=true"], "").await;
}

/// An issuer named as the release, which allows scopes `read` and `write`.
pub(super) fn issuer(release: &Scene, namespaces: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": release.namespace},
        "spec": {
            "controller": release.namespace,
            "provider": {"oauth2": {"issuer": release.server.issuer(), "clientAuthentication": {"post": {}}}},
            "credentials": {"secretRef": {"name": "idp-client"}},
            "namespaces": namespaces,
            "allow": {"scopes": ["read", "write"]},
        },
    })
}

pub(super) fn names(scenes: &[&Scene]) -> Value {
    json!({"names": scenes.iter().map(|scene| &scene.namespace).collect::<Vec<_>>()})
}

fn source(release: &Scene, name: &str, request: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": name},
        "spec": {"issuerRef": {"name": release.namespace}, "request": request},
    })
}

/// What Flux and Argo CD make of the issuer: `Current Healthy`.
async fn health(release: &Scene) -> String {
    let issuer = release.kubectl(&["get", "clustertokenissuer", &release.namespace, "-o", "json"], "").await;
    let (flux, argo_cd) = (gitops::kstatus(&issuer).await, gitops::issuer_health(&issuer).await);
    format!("{} {}", flux.split(':').next().unwrap(), argo_cd["status"].as_str().unwrap())
}

/// The API server has refused nothing to the operator in these namespaces.
fn lacks_no_right(operator: &Account, scenes: &[&Scene]) {
    for scene in scenes {
        let lines = ControlPlane::shared().audit(&scene.namespace);
        let refused: Vec<_> =
            lines.iter().filter(|line| line.user == operator.user && line.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

/// Waits until the Ready condition of the issuer is this, and returns its message and the counts of the status.
async fn issuer_status(release: &Scene, expected: &str) -> (String, [i64; 3]) {
    let name = &release.namespace;
    eventually(&format!("the issuer is {expected}"), SOON, async || {
        let issuer = release.kubectl(&["get", "clustertokenissuer", name, "-o", "json"], "").await;
        let issuer: Value = serde_json::from_str(&issuer).unwrap();
        let (status, ready) = (&issuer["status"], &issuer["status"]["conditions"][0]);
        let found = format!(
            "{} {}",
            ready["status"].as_str().unwrap_or_default(),
            ready["reason"].as_str().unwrap_or_default()
        );
        if found != expected || ready["observedGeneration"] != issuer["metadata"]["generation"] {
            return Err(status.to_string());
        }
        let counts = ["sources", "namespaces", "tokens"].map(|count| status[count].as_i64().unwrap());
        Ok((ready["message"].as_str().unwrap().to_owned(), counts))
    })
    .await
}

/// The operator with the rights of the chart, which has just been installed.
pub(super) async fn operator(release: &Scene, values: &Value) -> (Operator, Account) {
    install(&release.namespace, values.clone()).await;
    let account = Account::of(&release.namespace).await;
    eventually("the roles take effect", SOON, async || {
        account.kubectl(&["auth", "can-i", "list", "clustertokenissuers.tokensource.dev"], "").await
    })
    .await;
    (start(&release.namespace, values, &account).await, account)
}

/// An operator of the release's namespace alone, which is that of its issuers too.
async fn own_operator(release: &Scene) -> Operator {
    operator_for(release, &[]).await
}

/// The same for the namespaces of these tenants, too.
async fn operator_for(release: &Scene, tenants: &[&Scene]) -> Operator {
    let name = release.namespace.as_str();
    let mut flags = vec!["--allow-http", "--egress-allow", "127.0.0.0/8"];
    flags.extend(["--issuers-namespace", name, "--issuers-controller", name]);
    flags.extend(tenants.iter().flat_map(|tenant| ["--namespace", &tenant.namespace]));
    Operator::start_with(name, &flags).await
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_lends_to_the_namespaces_it_names_what_it_allows_until_it_does_not() {
    let release = Scene::bare("issuer").await;
    let (a, b) = (Scene::bare("issuer-a").await, Scene::bare("issuer-b").await);
    client(&release).await;
    let values = values(&release, json!({"namespaceSelector": selecting(&[&release, &a, &b])}));
    let (operator, account) = operator(&release, &values).await;
    let name = &release.namespace;

    // The TokenSource first: the issuer comes later.
    a.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    let said = a.condition("source", "Ready", "False NotAllowedByIssuer").await;
    let nothing_for_it = format!(
        "ClusterTokenIssuer {name} does not exist, or is not for TokenSources of this namespace: ask the platform"
    );
    assert_eq!(said, nothing_for_it);
    release.apply(issuer(&release, names(&[&a]))).await;
    // Its Secret is not for issuers yet. The tenant reads a class of failure, and nothing of the platform's.
    let said = a.condition("source", "Ready", "False CredentialsInvalid").await;
    assert!(
        said.contains(&format!("through ClusterTokenIssuer {name} failed (CredentialsInvalid)")),
        "{said}"
    );
    let (said, _) = issuer_status(&release, "False CredentialsInvalid").await;
    assert!(said.contains("kubectl label secret idp-client"), "{said}");
    assert_eq!(health(&release).await, "InProgress Degraded");
    released(&release).await;
    a.condition("source", "Ready", "True TokenValid").await;
    issuer_status(&release, "True RequestSucceeded").await;
    assert_eq!(health(&release).await, "Current Healthy");
    let token = a.value("source", "access_token").await.unwrap();
    assert_eq!(release.server.introspect(&token).await.scope.as_deref(), Some("read"));
    let labelled = a
        .kubectl(&["get", "secret", "-l", &format!("tokensource.dev/issuer={name}"), "-o", "name"], "")
        .await;
    assert_eq!(labelled, "secret/source\n");

    // The other tenant, and requests that the issuer allows to none.
    b.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    let said = b.condition("source", "Ready", "False NotAllowedByIssuer").await;
    assert_eq!(said, nothing_for_it, "as if there were none");
    for (source_name, request, expected) in [
        ("scope", json!({"scopes": ["read", "admin"]}), "does not allow the scope admin"),
        ("none", json!({}), "requires it: write spec.request.scopes"),
        ("audience", json!({"scopes": ["read"], "audience": "api"}), "does not allow the audience api"),
        (
            "resource",
            json!({"scopes": ["read"], "resources": ["https://a"]}),
            "does not allow the resource https://a",
        ),
        (
            "account",
            json!({"scopes": ["read"], "serviceAccountName": "default"}),
            "does not use it: remove spec.request.serviceAccountName",
        ),
    ] {
        a.apply(source(&release, source_name, request)).await;
        let said = a.condition(source_name, "Ready", "False NotAllowedByIssuer").await;
        assert!(said.contains(expected), "{said}");
    }
    release.apply(issuer(&release, names(&[&a, &b]))).await;
    b.condition("source", "Ready", "True TokenValid").await;

    // A rotated credential reaches both tenants.
    let tokens = async || (a.value("source", "access_token").await, b.value("source", "access_token").await);
    let before = tokens().await;
    release.server.set_secret(name, "rotated").await;
    release.patch("secret", "idp-client", json!({"stringData": {"client_secret": "rotated"}})).await;
    eventually("new tokens with the rotated credential", SOON, async || {
        let now = tokens().await;
        if now.0 != before.0 && now.1 != before.1 { Ok(()) } else { Err("old tokens") }
    })
    .await;

    // Withdrawn: no new token, and the old one stays.
    release.apply(issuer(&release, names(&[&b]))).await;
    a.condition("source", "Ready", "False NotAllowedByIssuer").await;
    let (kept, sent) = (a.value("source", "access_token").await, release.server.requests(name).await.total);
    a.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    // Narrowed: as withdrawn, for what is not allowed any more.
    let mut narrowed = issuer(&release, names(&[&b]));
    narrowed["spec"]["allow"]["scopes"] = json!(["write"]);
    release.apply(narrowed).await;
    b.condition("source", "Ready", "False NotAllowedByIssuer").await;
    assert_eq!(a.value("source", "access_token").await, kept);
    assert_eq!(release.server.requests(name).await.total, sent, "no further request");

    // A rejected client is a class of failure for tenants, and all of it for the platform.
    release.server.set_secret(name, "unknown").await;
    release.apply(issuer(&release, names(&[&b]))).await;
    b.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    let said = b.condition("source", "Ready", "True RefreshFailing").await;
    assert!(said.contains("failed (ClientRejected)"), "{said}");
    // The tenant that was withdrawn counts by its token alone; none of its other TokenSources has one.
    let (said, counts) = issuer_status(&release, "False ClientRejected").await;
    assert!(said.contains("invalid_client") && said.contains("127.0.0.1"), "the platform reads why: {said}");
    assert_eq!(counts, [1, 1, 2]);
    // Events about objects of the cluster are in this namespace, which more people may read.
    let of_issuer = format!("involvedObject.name={name},type=Warning");
    eventually("an event says so", SOON, async || {
        let events = ["get", "events", "-n", "default", "-o", "yaml", "--field-selector"];
        let events = release.kubectl(&[&events[..], &[&of_issuer]].concat(), "").await;
        assert!(!events.contains("127.0.0.1"), "{events}");
        if events.contains("reason: ClientRejected") { Ok(()) } else { Err(events) }
    })
    .await;
    let log = operator.stop().await;
    assert!(log.contains("invalid_client"), "the platform reads why");
    for tenant in [&a, &b] {
        let shown = tenant.kubectl(&["get", "tokensources,events", "-o", "yaml"], "").await;
        for word in ["127.0.0.1", "idp-client", "invalid_client"] {
            assert!(!shown.contains(word), "{word}: {shown}");
        }
    }
    lacks_no_right(&account, &[&release, &a, &b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_with_a_scope_that_the_issuer_does_not_allow_is_not_written_and_slows_nobody_else() {
    let release = Scene::bare("granted").await;
    client(&release).await;
    released(&release).await;
    let name = release.namespace.as_str();
    let operator = own_operator(&release).await;
    release.apply(issuer(&release, names(&[&release]))).await;
    let body =
        json!({"access_token": "wide", "token_type": "Bearer", "expires_in": 300, "scope": "read admin"});
    let wide = Behaviour { status: Some(200), body: Some(body), times: Some(1), ..Behaviour::default() };
    release.server.behave(name, Some(wide)).await;
    release.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    let said = release.condition("source", "Ready", "False NotAllowedByIssuer").await;
    assert!(said.contains("the endpoint granted a scope that ClusterTokenIssuer"), "{said}");
    assert!(!said.contains("admin"), "{said}");
    assert_eq!(release.value("source", "access_token").await, None);
    assert_eq!(operator.said("the endpoint granted a scope that the issuer does not allow"), 1);
    // The endpoint answered well, so that its next request is not held back.
    release.apply(source(&release, "other", json!({"scopes": ["write"]}))).await;
    release.condition("other", "Ready", "True TokenValid").await;
    // An issuer that is widened is tried at once.
    let mut wider = issuer(&release, names(&[&release]));
    wider["spec"]["allow"]["scopes"] = json!(["read", "write", "admin"]);
    release.apply(wider).await;
    release.condition("source", "Ready", "True TokenValid").await;
}

/// Also in the namespace that the operator watches alone, an issuer must name it; and each namespace is a subject of its own.
#[tokio::test(flavor = "multi_thread")]
async fn issuer_takes_tokens_of_the_source_namespace_under_the_charts_rights_in_one_namespace() {
    let (release, tenant) = (Scene::bare("issuer-keyless").await, Scene::bare("issuer-own").await);
    let (namespace, idp) = (&tenant.namespace, release.server.issuer());
    let jwks = release.kubectl(&["get", "--raw", "/openid/v1/jwks"], "").await;
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    let client = ClientSpec {
        scope: "read".into(),
        subject_tokens: Some(json!({
            "jwks": jwks, "issuer": cluster_issuer(&release).await, "audience": idp,
            "subject": format!("system:serviceaccount:{namespace}:payments"),
        })),
        ..ClientSpec::public(&release.namespace, EXCHANGE)
    };
    release.server.client(client).await;
    let host = host(&idp);
    let values = values(
        &release,
        json!({
            "namespaces": [namespace],
            "serviceAccountTokens": {"allowed": [{"audience": idp, "hosts": [host]}], "names": ["payments"]},
        }),
    );
    let (_operator, account) = operator(&release, &values).await;
    let mut issuer = issuer(&release, json!({"all": true}));
    issuer["spec"]["provider"] = json!({"oauth2": {
        "issuer": idp, "grant": {"tokenExchange": {"subject": "serviceAccountToken", "subjectTokenType": JWT}},
    }});
    issuer["spec"]["credentials"] = json!({
        "clientID": release.namespace, "serviceAccountToken": {"from": "TokenSourceNamespace"},
    });
    release.apply(issuer.clone()).await;
    tenant.kubectl(&["create", "serviceaccount", "payments"], "").await;
    tenant
        .apply(source(&release, "source", json!({"scopes": ["read"], "serviceAccountName": "payments"})))
        .await;
    tenant.condition("source", "Ready", "False NotAllowedByIssuer").await;
    issuer["spec"]["namespaces"] = names(&[&tenant]);
    release.apply(issuer).await;
    // The message says what the owner of the ServiceAccount must do, though an issuer lends the rest.
    let said = tenant.condition("source", "Ready", "False CredentialsInvalid").await;
    let consent =
        format!("kubectl annotate serviceaccount payments -n {namespace} tokensource.dev/audiences={idp}");
    assert!(said.contains(&consent), "{said}");
    let consent: Vec<_> = consent.split(' ').skip(1).collect();
    tenant.kubectl(&consent, "").await;
    tenant
        .kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "")
        .await;
    tenant.condition("source", "Ready", "True TokenValid").await;
    lacks_no_right(&account, &[&tenant]);

    // The platform sees what the issuer was told of the tenant; the tenant, who may not read issuers, what is its own.
    let subject = format!("subject system:serviceaccount:{namespace}:payments");
    let of_cluster = format!("issuer {}", cluster_issuer(&release).await);
    let told = format!("{subject}, audience {idp}, {of_cluster}, valid for 10 min");
    explained(&tenant, &ControlPlane::shared().kubeconfig_path(), 0, &["provider issuerRef", &told]).await;
    let owner = TestAccount::new(&tenant, "owner").await;
    owner
        .may(json!([
            {"apiGroups": ["tokensource.dev"], "resources": ["tokensources"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]},
        ]))
        .await;
    let unread = format!("you may not read ClusterTokenIssuer {}, so", release.namespace);
    let listed = format!("{subject}, audience that of the ClusterTokenIssuer");
    let lists = format!("tokensource.dev/audiences lists {idp}");
    explained(&tenant, &owner.kubeconfig(), 0, &[&unread, &listed, &lists]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_open_an_issuer_and_required_issuers_leave_nothing_else_under_rights_by_namespace() {
    let (release, tenant) = (Scene::bare("issuer-required").await, Scene::new("issuer-label", 3600).await);
    client(&release).await;
    released(&release).await;
    // It is there before issuers are required.
    tenant.apply(tenant.source(json!({}))).await;
    let mut values = values(
        &release,
        json!({
            "rbac": {"mode": "perNamespace", "bind": [tenant.namespace]},
            "namespaceSelector": selecting(&[&tenant]),
        }),
    );
    values["issuers"]["required"] = json!(true);
    let (_operator, account) = operator(&release, &values).await;
    let said = tenant.condition("source", "Ready", "False EndpointRefusedByPolicy").await;
    assert!(said.contains("--require-issuer"), "{said}");
    assert_eq!(tenant.mints().await, 0);
    let mut own = tenant.source(json!({"target": {"name": "second"}}));
    own["metadata"]["name"] = json!("second");
    eventually("the admission policy refuses a provider", SOON, async || {
        match tenant.try_kubectl(&["apply", "--dry-run=server", "-f", "-"], &own.to_string()).await {
            Err(said) if said.contains("TokenSources use ClusterTokenIssuers only") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // What is there may be labelled, and is refused when it changes.
    tenant.kubectl(&["label", "tokensource", "source", "a=b"], "").await;
    let suspended =
        ["patch", "tokensource", "source", "--type=merge", "-p", r#"{"spec": {"suspend": true}}"#];
    assert!(tenant.try_kubectl(&suspended, "").await.is_err());

    let label = format!("issuers.tokensource.dev/{}", release.namespace);
    release.apply(issuer(&release, json!({"selector": {"matchLabels": {label.as_str(): "yes"}}}))).await;
    tenant.apply(source(&release, "lent", json!({"scopes": ["read"]}))).await;
    tenant.condition("lent", "Ready", "False NotAllowedByIssuer").await;
    tenant.kubectl(&["label", "namespace", &tenant.namespace, &format!("{label}=yes")], "").await;
    tenant.condition("lent", "Ready", "True TokenValid").await;
    tenant.kubectl(&["label", "namespace", &tenant.namespace, &format!("{label}-")], "").await;
    tenant.condition("lent", "Ready", "False NotAllowedByIssuer").await;
    lacks_no_right(&account, &[&release, &tenant]);
}

/// Without --issuers-namespace nothing is ignored: the TokenSource says that no issuers are served.
#[tokio::test(flavor = "multi_thread")]
async fn source_with_an_issuer_is_told_where_the_operator_serves_none() {
    let scene = Scene::bare("issuers-off").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(source(&scene, "source", json!({"scopes": ["read"]}))).await;
    scene.reports("False IssuerNotReady", &["--issuers-namespace", "issuers.enabled"]).await;
}

const LABELS: &str = include_str!("../../deploy/policies/issuer-labels.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn issuer_labels_policy_lets_only_those_change_labels_who_may_change_issuers() {
    let scene = Scene::bare("issuer-labels").await;
    scene.kubectl(&["apply", "-f", "-"], LABELS).await;
    let name = &scene.namespace;
    let resources = "--resource=namespaces,namespaces/status,namespaces/finalize";
    let rules = ["--verb=get,patch,update,create", resources];
    scene.kubectl(&[&["create", "clusterrole", name], &rules[..]].concat(), "").await;
    let subject = format!("--user=tenant-{name}");
    scene.kubectl(&["create", "clusterrolebinding", name, "--clusterrole", name, &subject], "").await;
    let user = format!("tenant-{name}");
    let label = async |change: &str| {
        scene.try_kubectl(&["label", "namespace", name, "--overwrite", change, "--as", &user], "").await
    };
    let words = "labels that begin with issuers.tokensource.dev/";
    // Another value each time: one that was let through before is no change, and is let through again.
    let attempts = AtomicUsize::new(0);
    eventually("the policy takes effect", SOON, async || {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        match label(&format!("issuers.tokensource.dev/a={attempt}")).await {
            Err(said) if said.contains(words) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    label("team=a").await.unwrap();
    scene.kubectl(&["label", "namespace", name, "--overwrite", "issuers.tokensource.dev/a=b"], "").await;
    for change in ["issuers.tokensource.dev/a=c", "issuers.tokensource.dev/a-", "issuers.tokensource.dev/d=e"]
    {
        assert!(label(change).await.unwrap_err().contains(words), "{change}");
    }
    label("team=b").await.unwrap();
    // The API server stores labels that come with a part of a namespace, too.
    let patch = r#"{"metadata":{"labels":{"issuers.tokensource.dev/d":"e"}}}"#;
    let status = ["patch", "namespace", name, "--subresource=status", "--type=merge", "-p", patch];
    let said = scene.try_kubectl(&[&status[..], &["--as", &user]].concat(), "").await.unwrap_err();
    assert!(said.contains(words), "{said}");
    let new = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": format!("{name}-new"), "labels": {"issuers.tokensource.dev/a": "b"}},
    });
    let said = scene.try_kubectl(&["create", "-f", "-", "--as", &user], &new.to_string()).await.unwrap_err();
    assert!(said.contains(words), "{said}");
    for kind in ["clusterrolebinding", "clusterrole"] {
        scene.kubectl(&["delete", kind, name], "").await;
    }
}
