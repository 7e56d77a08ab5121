//! `spec.tls`, against the authorization server over TLS.

use serde_json::{Value, json};

use super::oauth2::source;
use super::support::authority::{Authority, Leaf};
use super::support::authorization_server::{AuthorizationServer, ClientSpec};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::Scene;

/// A scene with this server, which runs until this process ends.
pub(super) async fn scene(prefix: &str, server: AuthorizationServer) -> Scene {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace(prefix).await;
    Scene {
        namespace,
        control_plane,
        client: control_plane.client().await,
        server: Box::leak(Box::new(server)),
    }
}

async fn by_authority(prefix: &str, servers: &Authority, clients: &Authority) -> Scene {
    scene(prefix, AuthorizationServer::start_tls(servers, clients)).await
}

/// A client that is identified by its certificate, client.example.com, and its trusted roots.
pub(super) async fn client(scene: &Scene, servers: &Authority) {
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "tls_client_auth",
        tls_client_auth_san_dns: Some("client.example.com".into()),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    scene.secret("credentials", &[("client_id", &scene.namespace)]).await;
    config_map(scene, "roots", json!({"ca.crt": servers.pem})).await;
}

/// A TokenSource of such a client at this endpoint.
fn client_source(scene: &Scene, mut oauth2: Value) -> Value {
    oauth2["clientAuthentication"] = json!({"tls": {}});
    let mut manifest = source(scene, oauth2);
    manifest["spec"]["tls"] = json!({
        "caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}},
        "clientCertificateRef": {"name": "client"},
    });
    manifest
}

pub(super) async fn client_certificate(scene: &Scene, certificate: &Leaf, key: &Leaf) {
    scene.secret("client", &[("tls.crt", &certificate.pem), ("tls.key", &key.key_pem())]).await;
}

pub(super) async fn config_map(scene: &Scene, name: &str, data: Value) {
    let metadata = json!({"name": name});
    scene.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})).await;
}

async fn start(scene: &Scene) -> Operator {
    Operator::start_with(&scene.namespace, &["--egress-allow", "127.0.0.0/8"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_private_authority_is_trusted_through_ca_bundle() {
    let servers = Authority::new("servers");
    let scene = by_authority("tls-authority", &servers, &Authority::new("clients")).await;
    let client =
        ClientSpec { id: scene.namespace.clone(), secret: Some("right".into()), ..ClientSpec::default() };
    scene.server.client(client).await;
    scene.credentials("right").await;
    let _operator = start(&scene).await;
    let mut manifest = source(&scene, json!({"tokenURL": scene.server.vgs_token_url()}));
    scene.apply(manifest.clone()).await;
    scene.reports("False EndpointUnavailable", &["not trusted", "spec.tls.caBundle"]).await;

    // The changed TokenSource is tried at once; the ConfigMap is not watched, but read at every attempt.
    manifest["spec"]["tls"] = json!({"caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}}});
    scene.apply(manifest).await;
    scene.reports("False SpecInvalid", &["key ca.crt of ConfigMap roots", "no such ConfigMap"]).await;
    config_map(&scene, "roots", json!({"other": "x"})).await;
    scene.reports("False SpecInvalid", &["key ca.crt of ConfigMap roots", "no such key"]).await;
    config_map(&scene, "roots", json!({"ca.crt": "no certificate"})).await;
    let ask = async |value: &str| {
        let request = format!("tokensource.dev/refresh-requested-at={value}");
        scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", &request], "").await;
    };
    ask("1").await;
    scene.reports("False SpecInvalid", &["ConfigMap roots", "the CA bundle holds no certificate"]).await;
    assert_eq!(scene.mints().await, 0);
    config_map(&scene, "roots", json!({"ca.crt": servers.pem})).await;
    ask("2").await;
    scene.ready("True TokenValid").await;

    // The wrong roots: read again at the next token request, and the old token stays.
    config_map(&scene, "roots", json!({"ca.crt": Authority::new("others").pem})).await;
    ask("3").await;
    scene.reports("True RefreshFailing", &["not trusted"]).await;
    assert_eq!(scene.mints().await, 1);

    // As during the replacement of an authority: the old and the new one.
    let both = format!("{}{}", Authority::new("others").pem, servers.pem);
    config_map(&scene, "roots", json!({"ca.crt": both})).await;
    scene.force_refresh("4").await;
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_self_signed_director_is_trusted_through_ca_bundle() {
    let leaf = Leaf::self_signed(|_| ());
    let scene = scene("tls-director", AuthorizationServer::start_self_signed(&leaf)).await;
    let client =
        ClientSpec { tenant: Some("acme".into()), ..ClientSpec::public(&scene.namespace, "refresh_token") };
    scene.server.client(client).await;
    let original = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("credentials", &[("refresh_token", &original)]).await;
    scene.secret("vcd", &[("certificate", &leaf.pem)]).await;
    let _operator = start(&scene).await;
    let host = scene.server.url().trim_start_matches("https://");
    let mut manifest = scene.source(json!({}));
    manifest["spec"]["provider"] = json!({"vmwareCloudDirector": {"host": host, "tenant": "acme"}});
    scene.apply(manifest.clone()).await;
    scene.reports("False EndpointUnavailable", &["it is self-signed", "spec.tls.caBundle"]).await;
    manifest["spec"]["tls"] = json!({"caBundle": {"secretKeyRef": {"name": "vcd", "key": "certificate"}}});
    scene.apply(manifest).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_client_certificate_is_used_and_rotated() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let scene = by_authority("tls-client", &servers, &clients).await;
    client(&scene, &servers).await;
    let flags = ["--egress-allow", "127.0.0.0/8", "--log-level", "trace"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    scene.apply(client_source(&scene, json!({"issuer": scene.server.issuer()}))).await;
    scene
        .reports("False SpecInvalid", &["spec.tls.clientCertificateRef, Secret client", "no such Secret"])
        .await;

    let (first, second) =
        (clients.issue_client("client.example.com"), clients.issue_client("client.example.com"));
    client_certificate(&scene, &first, &second).await;
    scene.reports("False SpecInvalid", &["Secret client", "is not that of the private key"]).await;
    client_certificate(&scene, &first, &first).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    let last = scene.server.requests(&scene.namespace).await.last.unwrap();
    assert_eq!(last.parameters, ["grant_type", "client_id"]);

    // A certificate that the server refuses, and one that it accepts, without a restart.
    let other = clients.issue_client("other.example.com");
    client_certificate(&scene, &other, &other).await;
    let ask = |value: &str| format!("tokensource.dev/refresh-requested-at={value}");
    scene.kubectl(&["annotate", "tokensource", "source", &ask("1")], "").await;
    scene.reports("True RefreshFailing", &["invalid_client"]).await;
    client_certificate(&scene, &second, &second).await;
    scene.force_refresh("2").await;
    scene.ready("True TokenValid").await;
    let log = operator.stop().await;
    for line in [first, second, other]
        .iter()
        .flat_map(|leaf| leaf.key_pem().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        assert!(line.starts_with("-----") || !log.contains(&line), "a key is logged");
    }
}

/// The metadata of the server name a separate endpoint for client certificates (RFC 8705, 5).
#[tokio::test(flavor = "multi_thread")]
async fn tls_mtls_endpoint_alias_is_used() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let scene = scene("tls-alias", AuthorizationServer::start_mtls_alias(&servers, &clients)).await;
    client(&scene, &servers).await;
    let pair = clients.issue_client("client.example.com");
    client_certificate(&scene, &pair, &pair).await;
    let _operator = start(&scene).await;
    // The usual endpoint requests no certificate, so none is sent to it.
    scene.apply(client_source(&scene, json!({"tokenURL": scene.server.vgs_token_url()}))).await;
    scene.reports("False ClientRejected", &["invalid_client"]).await;
    scene.apply(client_source(&scene, json!({"issuer": scene.server.issuer()}))).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
}
