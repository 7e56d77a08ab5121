use super::{description, request};
use crate::{
    BasicEncoding, ClientAuthentication, Credentials, Encoding, Grant, MAX_LIFETIME, Pointer,
    RequestDescription, ResponseMapping, Tls, read,
};
use crate::{certificate::CertificateFields, discovery::read_metadata, key::PrivateKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret;

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 3).prop_map(|values| {
        [CONTENT_TYPE, DATE, RETRY_AFTER]
            .into_iter()
            .zip(values)
            .filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value?).ok()?)))
            .collect()
    })
}

/// Objects with the members that are read, and arbitrary values.
fn any_body() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "refresh_token",
        "error",
        "error_description",
        "errors",
        "minorErrorCode",
        "message",
        "code",
    ]);
    let value = prop_oneof![
        any::<String>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
        Just(serde_json::Value::from("invalid_client")),
    ]
    .prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            prop::collection::hash_map("code|message|x", inner, 0..3)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    prop::collection::hash_map(names, value, 0..6).prop_map(|map| {
        let object: serde_json::Map<String, serde_json::Value> =
            map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        serde_json::Value::from(object).to_string()
    })
}

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    let (min, max) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    prop_oneof![Just(min), Just(max), min..=max].prop_map(|second| Timestamp::from_second(second).unwrap())
}

/// A secret that occurs in no message.
fn any_secret() -> impl Strategy<Value = String> {
    "[ -~é]{4}[0-9][%+/=&:\"\\\\ -~ü]{3,20}[0-9]{4}"
}

proptest! {
    #[test]
    fn read_any_bytes_does_not_panic(
        status in 100u16..1000, headers in any_headers(), body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = read(StatusCode::from_u16(status).unwrap(), &headers, &body, &request())
            .map_err(|error| (error.to_string(), error.class(), error.kind(), error.retry_after()));
    }

    #[test]
    fn read_any_members_returns_safe_texts(status in 100u16..1000, headers in any_headers(), body in any_body()) {
        match read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), &request()) {
            Ok(answer) => {
                prop_assert!((200..300).contains(&status));
                prop_assert!(answer.access_token.expose_secret().bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert!(!answer.token_type.contains(char::is_control));
                prop_assert!(!answer.scope.unwrap_or_default().contains(char::is_control));
            }
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.is_ascii() && !message.contains(|c: char| c.is_control()));
                prop_assert!(message.len() < 700, "{}", message);
            }
        }
    }

    #[test]
    fn read_any_mapping_returns_safe_texts(body in any_body(), text in "(/[a-z_~01]{0,12}){1,3}", status in 200u16..300) {
        let names = ["/access_token", "/error/code", "/errors/0/message", "/expires_in", "/scope/0"];
        for pointer in names.into_iter().chain([text.as_str()]).filter_map(|text| text.parse::<Pointer>().ok()) {
            let response = ResponseMapping {
                access_token: Some(pointer.clone()),
                expires_in: Some(pointer.clone()),
                expires_at: Some(pointer.clone()),
                refresh_token: Some(pointer.clone()),
                omits_token_type: false,
                values: [("value".to_owned(), pointer.clone())].into(),
            };
            let request = RequestDescription { response, ..description() }
                .request(&super::credentials()).unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            match read(status, &HeaderMap::new(), body.as_bytes(), &request) {
                Ok(answer) => for value in answer.values.values() {
                    prop_assert!(!value.expose_secret().contains(char::is_control));
                },
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
            }
        }
    }

    #[test]
    fn keys_certificates_and_metadata_of_any_bytes_do_not_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pem = |label: &str| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(&bytes))
        };
        for key in [text.clone(), format!("{{{text}"), pem("PRIVATE KEY"), pem("RSA PRIVATE KEY"), pem("EC PRIVATE KEY")] {
            prop_assert!(PrivateKey::read(&key.into()).is_err());
        }
        prop_assert!(Tls::new(Some(&text), None).is_err());
        prop_assert!(Tls::new(Some(&pem("CERTIFICATE")), None).is_err());
        let _ = CertificateFields::read(&bytes);
        if let Ok(issuer) = "https://a.example".parse() {
            prop_assert!(read_metadata(&issuer, StatusCode::OK, Some(&bytes)).is_err());
        }
    }

    #[test]
    fn lifetime_any_times_stays_within_maximum(
        expires_in in any::<Option<u64>>(), default in any::<Option<u64>>(), sent_at in any_timestamp(),
        expires_at in prop::option::of(any_timestamp()), date in prop::option::of(any_timestamp()),
        exp in any::<i64>(), iat in any::<i64>(), near in -7200i64..7200,
    ) {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"iat":{iat}}}"#));
        let body = format!(r#"{{"access_token":"e30.{claims}.x"}}"#);
        let mut answer = read(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &request()).unwrap();
        answer.expires_in = expires_in;
        answer.expires_at = expires_at;
        answer.date = date.or_else(|| Timestamp::from_second(sent_at.as_second() + near).ok());
        let lifetime = answer.lifetime(sent_at, default);
        prop_assert!(lifetime.seconds.unwrap_or_default() <= MAX_LIFETIME);
    }

    #[test]
    fn error_with_any_echo_shows_nothing_sent(
        id in any_secret(), secret in any_secret(), token in any_secret(), parameter in any_secret(),
        post in any::<bool>(), encoding in prop::sample::select(vec![Encoding::Form, Encoding::Json]),
        status in prop::sample::select(vec![200u16, 302, 400, 401, 404, 429, 500]),
        code in prop::sample::select(vec!["invalid_client", "odd", "A sentence.", ""]),
        around in "[ -~]{0,40}", which in 0usize..4, form in 0usize..6,
    ) {
        let description = RequestDescription {
            grant: Grant::RefreshToken,
            client_authentication: if post {
                ClientAuthentication::Post
            } else {
                ClientAuthentication::Basic(BasicEncoding::Percent)
            },
            encoding,
            parameters: [("parameter".to_owned(), parameter.clone())].into(),
            ..description()
        };
        let credentials = Credentials {
            client_id: Some(id.clone()),
            client_secret: Some(secret.as_str().into()),
            refresh_token: Some(token.as_str().into()),
            ..Credentials::default()
        };
        let request = description.request(&credentials).unwrap();
        let sent = [&id, &secret, &token, &parameter];
        let echo = match form {
            0 => sent[which].clone(),
            1 => crate::redact::percent_encode(sent[which]),
            2 => BASE64_STANDARD.encode(sent[which]),
            3 => BASE64_URL_SAFE_NO_PAD.encode(sent[which]),
            4 => request.body().expose_secret().to_owned(),
            _ => request.headers().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned(),
        };
        let text = format!("{around} {echo} {around}");
        let headers: HeaderMap = HeaderValue::from_str(&format!("text/{echo}")).map(|value| (CONTENT_TYPE, value)).into_iter().collect();
        for body in [
            serde_json::json!({"error": code, "error_description": text}).to_string(),
            serde_json::json!({"error": code, "message": text}).to_string(),
            serde_json::json!({"error": text}).to_string(),
            serde_json::json!({"error": echo}).to_string(),
            serde_json::json!({"errors": [{"code": echo, "message": text}]}).to_string(),
            serde_json::json!({"access_token": "a\n", "token_type": text}).to_string(),
            text.clone(),
        ] {
            let Err(error) = read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), &request) else {
                continue;
            };
            let printed = format!("{error}\n{error:?}");
            for value in sent {
                for shown in [value.clone(), crate::redact::percent_encode(value), BASE64_STANDARD.encode(value)] {
                    prop_assert!(!printed.contains(&shown), "{}: {}", shown, printed);
                }
            }
        }
    }
}
