//! Discovery over HTTP on loopback.

use crate::site::Site;
use crate::support::authority::Authority;
use crate::{TIMEOUT, TOKEN, transport};
use std::time::{Duration, Instant};
use token_endpoint::{
    BasicEncoding, Class, ClientAuthentication, Credentials, Discovery, Error, ErrorKind, Grant, Issuer,
    RequestDescription, Tls,
};
use tokio::net::TcpListener;

const OPENID: &str = "/realm/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server/realm";

fn describe(issuer: &str) -> RequestDescription {
    let issuer: Issuer = issuer.parse().unwrap();
    RequestDescription {
        issuer: Some(issuer.clone()),
        ..RequestDescription::new(
            issuer.url().clone(),
            Grant::ClientCredentials,
            ClientAuthentication::Basic(BasicEncoding::Percent),
        )
    }
}

fn metadata(site: &Site, endpoint: &str) -> String {
    serde_json::json!({"issuer": site.url("/realm"), "token_endpoint": endpoint}).to_string()
}

async fn locate(discovery: &Discovery, site: &Site) -> Result<String, Error> {
    let located = discovery.locate(&describe(&site.url("/realm")), &Tls::default(), TIMEOUT).await?;
    Ok(located.token_url.into())
}

#[tokio::test]
async fn discovery_openid_metadata_endpoint_is_used() {
    let site = Site::start().await;
    site.write(OPENID, 200, metadata(&site, &site.url("/t")));
    site.write("/t", 200, TOKEN);
    let transport = transport(&["127.0.0.1"]);
    let discovery = Discovery::new(transport.clone());
    let description =
        discovery.locate(&describe(&site.url("/realm")), &Tls::default(), TIMEOUT).await.unwrap();
    let credentials = Credentials {
        client_id: Some("id".into()),
        client_secret: Some("secret".into()),
        ..Credentials::default()
    };
    let request = description.request(&credentials).unwrap();
    assert!(transport.send(&request, TIMEOUT).await.is_ok());
    assert_eq!(site.asked(), [OPENID, "/t"]);
}

#[tokio::test]
async fn discovery_oauth_metadata_is_tried_second() {
    let site = Site::start().await;
    site.write(OAUTH, 200, metadata(&site, &site.url("/t")));
    let discovery = Discovery::new(transport(&["127.0.0.1"]));
    assert_eq!(locate(&discovery, &site).await.unwrap(), site.url("/t"));
    assert_eq!(site.asked(), [OPENID, OAUTH]);
}

#[tokio::test]
async fn discovery_concurrent_callers_share_one_cached_request() {
    let site = Site::start().await;
    site.write(OPENID, 200, metadata(&site, &site.url("/t")));
    let discovery = Discovery::new(transport(&["127.0.0.1"]));
    let all = futures::future::join_all((0..50).map(|_| locate(&discovery, &site))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(site.asked(), [OPENID]);
    // Metadata is not shared between different roots of trust.
    let tls = Tls::new(Some(&Authority::new("a").pem), None).unwrap();
    discovery.locate(&describe(&site.url("/realm")), &tls, TIMEOUT).await.unwrap();
    assert_eq!(site.asked(), [OPENID]);
}

/// A source whose token is about to expire waits for no other one.
#[tokio::test]
async fn discovery_caller_with_less_time_does_not_wait_for_one_with_more() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let description = describe(&format!("http://{}/realm", silent.local_addr().unwrap()));
    let discovery = Discovery::new(transport(&["127.0.0.1"]));
    let (tls, started) = (Tls::default(), Instant::now());
    let patient = discovery.locate(&description, &tls, Duration::from_secs(60));
    let hasty = discovery.locate(&description, &tls, Duration::from_secs(1));
    tokio::select! {
        biased;
        _ = patient => panic!("nothing answers"),
        error = hasty => assert!(matches!(error, Err(Error::Timeout { seconds: 1, .. })), "{error:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test]
async fn discovery_outage_uses_stale_metadata_for_a_day() {
    let site = Site::start().await;
    site.write(OPENID, 200, metadata(&site, &site.url("/t")));
    let discovery = Discovery::new(transport(&["127.0.0.1"]));
    locate(&discovery, &site).await.unwrap();
    site.write(OPENID, 503, "");
    site.write(OAUTH, 503, "");
    site.asked();

    let later = async |by: Duration| {
        // Paused only here: a paused clock advances while the test waits for sockets.
        tokio::time::pause();
        tokio::time::advance(by).await;
        tokio::time::resume();
    };
    later(Duration::from_secs(3599)).await;
    assert_eq!(locate(&discovery, &site).await.unwrap(), site.url("/t"));
    assert!(site.asked().is_empty());
    later(Duration::from_secs(2)).await;
    assert_eq!(locate(&discovery, &site).await.unwrap(), site.url("/t"));
    assert_eq!(site.asked(), [OPENID, OAUTH]);
    assert_eq!(locate(&discovery, &site).await.unwrap(), site.url("/t"));
    assert!(site.asked().is_empty(), "a failure is cached too");

    later(Duration::from_secs(24 * 3600)).await;
    let error = locate(&discovery, &site).await.unwrap_err();
    assert_eq!((error.class(), error.kind()), (Class::Transient, ErrorKind::Unavailable));
    site.write(OPENID, 200, metadata(&site, &site.url("/new")));
    later(Duration::from_secs(6)).await;
    assert_eq!(locate(&discovery, &site).await.unwrap(), site.url("/new"));
}

#[tokio::test]
async fn discovery_failure_of_one_tenant_holds_back_no_other() {
    let site = Site::start().await;
    let discovery = Discovery::new(transport(&["127.0.0.1"]));
    let (one, other) = (discovery.for_tenant("one"), discovery.for_tenant("other"));
    site.write(OPENID, 500, String::new());
    locate(&one, &site).await.unwrap_err();
    site.write(OPENID, 200, metadata(&site, &site.url("/t")));
    site.write("/t", 200, TOKEN);
    locate(&one, &site).await.expect_err("its own failure is cached");
    assert_eq!(locate(&other, &site).await.unwrap(), site.url("/t"));
    assert_eq!(locate(&one, &site).await.unwrap(), site.url("/t"), "what is found is for all");
}

#[tokio::test]
async fn discovery_unusable_metadata_is_classified() {
    let other = r#"{"issuer":"https://other.example","token_endpoint":"https://other.example/t"}"#;
    for (openid, oauth, class, kind, message) in [
        ((404, ""), (404, ""), Class::Unclear, ErrorKind::Unavailable, "(HTTP 404)"),
        ((404, ""), (503, ""), Class::Transient, ErrorKind::Unavailable, "HTTP 503"),
        ((503, ""), (404, ""), Class::Transient, ErrorKind::Unavailable, "HTTP 503"),
        ((302, ""), (302, ""), Class::Unclear, ErrorKind::Unavailable, "HTTP 302"),
        ((200, "<html>"), (404, ""), Class::Unclear, ErrorKind::Unavailable, "(HTTP 404)"),
        (
            (200, other),
            (404, ""),
            Class::Rejected,
            ErrorKind::MalformedResponse,
            "another issuer, https://other.example",
        ),
        ((404, ""), (200, "{}"), Class::Rejected, ErrorKind::MalformedResponse, "which it does not name"),
    ] {
        let site = Site::start().await;
        site.write(OPENID, openid.0, openid.1);
        site.write(OAUTH, oauth.0, oauth.1);
        let error = locate(&Discovery::new(transport(&["127.0.0.1"])), &site).await.unwrap_err();
        assert!(matches!(error, Error::Discovery(_)), "{error:?}");
        assert_eq!((error.class(), error.kind()), (class, kind), "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.outcome_unknown());
    }
}

#[tokio::test]
async fn discovery_egress_policy_applies_to_issuer_and_endpoint() {
    let site = Site::start().await;
    let refused = locate(&Discovery::new(transport(&[])), &site).await.unwrap_err();
    assert!(matches!(refused, Error::Egress(_)), "{refused:?}");
    assert!(site.asked().is_empty());
    for endpoint in ["http://169.254.169.254/token", "http://[::1]/token", "file:///etc/passwd"] {
        site.write(OPENID, 200, metadata(&site, endpoint));
        let discovery = Discovery::new(transport(&["127.0.0.1"]));
        let refused = locate(&discovery, &site).await.unwrap_err();
        assert!(matches!(refused, Error::Egress(_) | Error::Discovery(_)), "{refused:?}");
    }
}
