//! What tenants and servers choose costs no more than the limits say.

use super::{ID, REFRESH, SECRET, credentials, description};
use crate::limits::{
    MAX_CREDENTIAL, MAX_REQUEST, MAX_REQUEST_BODY, MAX_REQUEST_HEADERS, MAX_SCOPE, MAX_TOKEN, MAX_TOKEN_TYPE,
};
use crate::{
    ClientAuthentication, Credentials, Encoding, Error, ErrorKind, Grant, RequestDescription, RequestError,
    TokenRequest, read,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Secret parameters or headers that all name one key.
fn named(prefix: &str, count: usize) -> BTreeMap<String, String> {
    (0..count).map(|n| (format!("{prefix}{n:02}"), "key".to_owned())).collect()
}

fn with_value(value: &str) -> Credentials {
    Credentials { values: [("key".to_owned(), value.into())].into(), ..credentials() }
}

#[test]
fn request_body_is_bounded_however_often_a_value_is_named() {
    let quotes = |length: usize| with_value(&"\"".repeat(length));
    for encoding in [Encoding::Form, Encoding::Json] {
        let description = RequestDescription { encoding, secret_parameters: named("p", 32), ..description() };
        assert_eq!(
            description.request(&quotes(1_000_000)).unwrap_err(),
            RequestError::LongValue("key".into()),
            "{encoding:?}"
        );
        let error = description.request(&quotes(MAX_CREDENTIAL)).unwrap_err();
        assert_eq!(error, RequestError::LongBody("p00".into()), "{encoding:?}");
        assert!(error.to_string().contains("more than 65536 bytes, most of them in \"p00\""), "{error}");
        // Only what escaping makes of it is too long.
        assert_eq!(description.request(&quotes(1200)).unwrap_err(), RequestError::LongBody("p00".into()));
        let largest = description.request(&quotes(600)).unwrap();
        assert!((30_000..=MAX_REQUEST_BODY).contains(&largest.body().expose_secret().len()));
        let error = Error::from(error);
        assert_eq!(
            (error.class(), error.kind()),
            (crate::Class::Configuration, ErrorKind::InvalidDescription)
        );
    }
}

#[test]
fn request_header_section_is_bounded() {
    let description = RequestDescription { secret_headers: named("x-h", 32), ..description() };
    let error = description.request(&with_value(&"v".repeat(4096))).unwrap_err();
    assert!(matches!(&error, RequestError::LongHeaders(name) if name.starts_with("x-h")), "{error:?}");
    assert!(error.to_string().contains(&format!("more than {MAX_REQUEST_HEADERS} bytes")), "{error}");
    assert!(description.request(&with_value(&"v".repeat(900))).is_ok());

    // Percent-encoding and base64 make four bytes of one.
    let long_secret = Credentials { client_secret: Some("+".repeat(10_000).into()), ..credentials() };
    assert_eq!(
        super::description().request(&long_secret).unwrap_err(),
        RequestError::LongHeaders("authorization".into())
    );
}

#[test]
fn request_holds_no_more_bytes_than_are_counted_before_it_is_written() {
    let percent = "%".repeat(3000);
    let secret = Credentials { client_secret: Some(percent.as_str().into()), ..credentials() };
    let exchange = Grant::TokenExchange(crate::TokenExchange {
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
        actor_token_type: None,
        requested_token_type: None,
    });
    let basic = description();
    let post = RequestDescription { client_authentication: ClientAuthentication::Post, ..description() };
    let public = RequestDescription {
        grant: exchange,
        client_authentication: ClientAuthentication::None,
        ..description()
    };
    let many =
        RequestDescription { secret_parameters: named("p", 32), encoding: Encoding::Json, ..description() };
    let headers = RequestDescription { secret_headers: named("x-h", 8), ..description() };
    let scopes = RequestDescription {
        scopes: vec!["a".repeat(500); 8],
        audience: Some("https://api.example.com".into()),
        ..description()
    };
    let subject = Credentials { subject_token: Some("t".repeat(9000).into()), ..credentials() };
    for (description, credentials) in [
        (&basic, credentials()),
        (&basic, secret.clone()),
        (&post, secret),
        (&public, subject),
        (&many, with_value(&"\"".repeat(600))),
        (&headers, with_value(&"v".repeat(900))),
        (&scopes, credentials()),
    ] {
        let (held, counted) =
            (description.request(&credentials).unwrap().bytes(), description.most_bytes(&credentials));
        assert!(held <= counted && counted <= MAX_REQUEST, "{held} of {counted}: {description:?}");
    }
    let huge = with_value(&"\"".repeat(MAX_CREDENTIAL));
    assert_eq!(many.most_bytes(&huge), MAX_REQUEST);
}

#[test]
fn request_holds_a_secret_in_its_body_and_once_to_hide_it() {
    let post = RequestDescription { client_authentication: ClientAuthentication::Post, ..description() };
    let with_secret = |length: usize| {
        let secret = Some("s".repeat(length).into());
        post.request(&Credentials { client_secret: secret, ..credentials() }).unwrap().bytes()
    };
    assert_eq!(with_secret(1010) - with_secret(10), 2 * 1000);
}

#[test]
fn request_credential_above_the_limit_is_named() {
    let long = || "x".repeat(MAX_CREDENTIAL + 1);
    let refresh = RequestDescription { grant: Grant::RefreshToken, ..description() };
    let public = RequestDescription { client_authentication: ClientAuthentication::None, ..description() };
    for (description, credentials, message) in [
        (
            &refresh,
            Credentials { refresh_token: Some(long().into()), ..credentials() },
            "the refresh token has more than 32768 bytes",
        ),
        (
            &refresh,
            Credentials { client_secret: Some(long().into()), ..credentials() },
            "the client secret has more than 32768 bytes",
        ),
        (
            &public,
            Credentials { client_id: Some(long()), ..credentials() },
            "the client id has more than 32768 bytes",
        ),
    ] {
        assert_eq!(description.request(&credentials).unwrap_err().to_string(), message);
    }
}

#[test]
fn answer_tokens_are_bounded() {
    let request = super::request();
    let answer = |body: serde_json::Value| {
        read(StatusCode::OK, &HeaderMap::new(), body.to_string().as_bytes(), &request)
    };
    let long = |bytes: usize| "x".repeat(bytes);
    assert!(answer(json!({"access_token": long(MAX_TOKEN), "refresh_token": long(MAX_CREDENTIAL)})).is_ok());
    for (body, message) in [
        (json!({"access_token": long(MAX_TOKEN + 1)}), "with an access_token of more than 65536 bytes"),
        (
            json!({"access_token": "t", "refresh_token": long(MAX_CREDENTIAL + 1)}),
            "with a refresh_token of more than 32768 bytes",
        ),
    ] {
        let error = answer(body).unwrap_err();
        assert!(error.to_string().ends_with(message) && error.refresh_token().is_none(), "{error}");
    }
}

fn refused(request: &TokenRequest, text: &str) -> String {
    let body = json!({"error": "invalid_client", "error_description": text}).to_string();
    read(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body.as_bytes(), request).unwrap_err().to_string()
}

/// A search for each value compared 10 GB here.
#[test]
fn error_description_costs_little_however_long_it_is_and_however_much_was_sent() {
    let values: BTreeMap<String, String> =
        (0..120).map(|n| (format!("p{n}"), format!("{}{n}", "a".repeat(500)))).collect();
    let request = RequestDescription { parameters: values, ..description() }.request(&credentials()).unwrap();
    let begun = Instant::now();
    for text in ["a".repeat(8192), "a ".repeat(4096), "%61".repeat(2700)] {
        let message = refused(&request, &text);
        assert!(!message.contains("aa") && message.len() < 400, "{message}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn redact_value_that_goes_beyond_what_is_searched_is_hidden() {
    let secret = "correct horse/battery+staple, ".repeat(12);
    let credentials = Credentials { client_secret: Some(secret.as_str().into()), ..credentials() };
    let request = description().request(&credentials).unwrap();
    for encoded in [secret.clone(), crate::redact::percent_encode(&secret)] {
        for before in 0..40 {
            // As many as leave room for what follows in a message.
            let text =
                format!("{}{}", ".".repeat(before), format!("{encoded} ").repeat(8000 / encoded.len()));
            let message = refused(&request, &text);
            assert!(!message.contains("horse") && !message.contains("corr"), "{message}");
        }
    }
    // A server that cuts what it repeats.
    let message = refused(&request, &format!("no {}", &secret[..40]));
    assert!(message.ends_with("no [redacted]"), "{message}");
}

#[test]
fn answer_members_that_many_may_read_repeat_no_secret() {
    const TOKEN: &str = "at.Kanarie-token/1";
    const NEXT: &str = "rt.Kanarie-next~2";
    const ID_TOKEN: &str = "id.Kanarie=3";
    let description = RequestDescription {
        grant: Grant::RefreshToken,
        secret_parameters: [("pin".to_owned(), "key".to_owned())].into(),
        scopes: vec!["cards:read".into(), "https://www.example.com/auth/cloud-platform".into()],
        ..description()
    };
    let request = description.request(&with_value("the-pin-4711")).unwrap();
    let answer = |member: &str, value: &str| {
        let mut body = json!({"access_token": TOKEN, "refresh_token": NEXT, "id_token": ID_TOKEN});
        body[member] = json!(value);
        read(StatusCode::OK, &HeaderMap::new(), body.to_string().as_bytes(), &request).unwrap()
    };
    let mut told: Vec<String> = vec!["x".repeat(MAX_SCOPE + 1), "é".into(), "a\"b".into(), "a\\b".into()];
    for secret in [SECRET, REFRESH, "the-pin-4711", TOKEN, NEXT, ID_TOKEN] {
        told.extend([
            secret.to_owned(),
            format!("x{secret}y"),
            BASE64_STANDARD.encode(secret),
            BASE64_URL_SAFE_NO_PAD.encode(secret),
            BASE64_STANDARD.encode(format!("x{secret}y")),
            BASE64_STANDARD.encode(format!("xx{secret}")),
            crate::redact::percent_encode(secret),
        ]);
    }
    for text in told {
        let of_type = answer("token_type", &text);
        assert_eq!((of_type.token_type.as_str(), of_type.token_type_missing), ("Bearer", true), "{text}");
        assert_eq!(answer("scope", &text).scope, None, "{text}");
        assert_eq!(answer("scope", &format!("cards:read {text}")).scope, None, "{text}");
    }
    for scope in ["cards:read https://www.example.com/auth/cloud-platform", "cards:read other", ""] {
        assert_eq!(answer("scope", scope).scope.as_deref(), Some(scope));
    }
    for token_type in [
        "N_A",
        "Application Access Token",
        "urn:ietf:params:oauth:token-type:x",
        &"x.".repeat(MAX_TOKEN_TYPE / 4),
    ] {
        let told = answer("token_type", token_type);
        assert_eq!((told.token_type.as_str(), told.token_type_missing), (token_type, false));
    }
    assert!(answer("token_type", &"x.".repeat(MAX_TOKEN_TYPE)).token_type_missing);
    assert!(answer("token_type", ID).token_type_missing);

    // An error beside tokens.
    let body = json!({"access_token": TOKEN, "error": "invalid_grant", "error_description": format!("not {TOKEN} {NEXT}")});
    let error = read(StatusCode::OK, &HeaderMap::new(), body.to_string().as_bytes(), &request).unwrap_err();
    assert!(error.to_string().contains("not [redacted] "), "{error}");
    assert!(!error.to_string().contains(TOKEN), "{error}");
}
