use crate::Issuer;
use crate::discovery::read_metadata;
use crate::error::DiscoveryProblem;
use http::StatusCode;

fn issuer(text: &str) -> Issuer {
    text.parse().unwrap()
}

#[test]
fn issuer_locations_follow_both_standards() {
    for (text, openid, oauth) in [
        (
            "https://example.com", // OpenID Connect Discovery 4.1 and RFC 8414, 3.1
            "https://example.com/.well-known/openid-configuration",
            "https://example.com/.well-known/oauth-authorization-server",
        ),
        (
            "https://example.com/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
        ),
        (
            "https://example.com:8443/a/b%20c/",
            "https://example.com:8443/a/b%20c/.well-known/openid-configuration",
            "https://example.com:8443/.well-known/oauth-authorization-server/a/b%20c",
        ),
    ] {
        assert_eq!(issuer(text).locations().map(String::from), [openid, oauth]);
        assert_eq!(issuer(text).as_str(), text);
    }
}

#[test]
fn issuer_invalid_text_is_refused() {
    for text in ["", "example.com", "ftp://example.com", "https://a/?x=1", "https://a/#x", "https://u@a/"] {
        let error = text.parse::<Issuer>().unwrap_err().to_string();
        assert!(error.contains("is no issuer"), "{error}");
    }
}

#[test]
fn metadata_of_other_issuer_is_refused() {
    let read = |text: &str, named: &str| {
        let body = format!(r#"{{"issuer":"{named}","token_endpoint":"https://a.example/token"}}"#);
        read_metadata(&issuer(text), StatusCode::OK, Some(body.as_bytes()))
    };
    assert!(read("https://a.example", "https://a.example").is_ok());
    assert!(read("https://a.example/", "https://a.example/").is_ok());
    for (text, named) in [
        ("https://a.example", "https://a.example/"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example", "https://A.example"),
        ("https://a.example:443", "https://a.example"),
        (
            "https://login.microsoftonline.com/common/v2.0",
            "https://login.microsoftonline.com/{tenantid}/v2.0",
        ),
        (
            "https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0",
            "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
        ),
    ] {
        let problem = read(text, named).unwrap_err();
        assert_eq!(problem, DiscoveryProblem::OtherIssuer(Some(named.to_owned())));
        assert!(problem.to_string().contains(named), "{problem}");
    }
    let token = read("https://a.example", "https://a.example/eyJhbGciOiJub25lIn0.e30.").unwrap_err();
    assert!(!token.to_string().contains("eyJ"), "{token}");
}

#[test]
fn metadata_endpoint_is_url_with_alias_for_mutual_tls() {
    let read = |members: &str| {
        let body = format!(r#"{{"issuer":"https://a.example"{members}}}"#);
        read_metadata(&issuer("https://a.example"), StatusCode::OK, Some(body.as_bytes()))
    };
    let plain = read(r#","token_endpoint":"https://a.example/token""#).unwrap();
    for tls in [false, true] {
        assert_eq!(plain.token_endpoint(tls).as_str(), "https://a.example/token");
    }
    // RFC 8705, 5
    let aliased = read(
        r#","token_endpoint":"https://a.example/token",
           "mtls_endpoint_aliases":{"token_endpoint":"https://mtls.a.example/token"}"#,
    )
    .unwrap();
    assert_eq!(aliased.token_endpoint(false).as_str(), "https://a.example/token");
    assert_eq!(aliased.token_endpoint(true).as_str(), "https://mtls.a.example/token");
    for members in [
        "",
        r#","token_endpoint":"/token""#,
        r#","token_endpoint":7"#,
        r#","token_endpoint":"https://u:p@a/t""#,
    ] {
        assert_eq!(read(members).unwrap_err(), DiscoveryProblem::NoTokenEndpoint, "{members}");
    }
    for (status, body) in
        [(200, Some("<html>")), (200, Some("[]")), (200, None), (404, Some("{}")), (302, None)]
    {
        let status = StatusCode::from_u16(status).unwrap();
        let problem =
            read_metadata(&issuer("https://a.example"), status, body.map(str::as_bytes)).unwrap_err();
        assert_eq!(problem, DiscoveryProblem::NotFound(status));
    }
}

#[test]
fn metadata_with_a_long_token_endpoint_has_none() {
    let read = |length: usize| {
        let endpoint = format!("https://a.example/{}", "x".repeat(length - "https://a.example/".len()));
        let body = format!(r#"{{"issuer":"https://a.example","token_endpoint":"{endpoint}"}}"#);
        read_metadata(&issuer("https://a.example"), StatusCode::OK, Some(body.as_bytes()))
    };
    assert!(read(2048).is_ok());
    assert_eq!(read(2049).unwrap_err(), DiscoveryProblem::NoTokenEndpoint);
}
