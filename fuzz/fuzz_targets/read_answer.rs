//! For any response of a token endpoint, `read` does not panic, returns no token with line breaks, and its errors contain
//! nothing that was sent.
#![no_main]

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;
use std::sync::LazyLock;
use token_endpoint::{
    ClientAuthentication, Credentials, Grant, RequestDescription, ResponseMapping, TokenRequest, read,
};

const SENT: [&str; 3] = ["canary-client-4711", "canary secret/4711+=", "canary-refresh-4711"];

static REQUESTS: LazyLock<[TokenRequest; 2]> = LazyLock::new(|| {
    let [id, secret, refresh] = SENT;
    let credentials = Credentials {
        client_id: Some(id.into()),
        client_secret: Some(secret.into()),
        refresh_token: Some(refresh.into()),
        ..Credentials::default()
    };
    let plain = RequestDescription::new(
        "https://idp.example.com/token".parse().unwrap(),
        Grant::RefreshToken,
        ClientAuthentication::Post,
    );
    let pointer = |text: &str| Some(text.parse().unwrap());
    let mapped = RequestDescription {
        response: ResponseMapping {
            access_token: pointer("/data/0/token"),
            expires_in: pointer("/data/0/in"),
            expires_at: pointer("/data/0/at"),
            refresh_token: pointer("/data/0/next"),
            omits_token_type: false,
            values: [("value".to_owned(), "/data/0/value".parse().unwrap())].into(),
        },
        ..plain.clone()
    };
    [plain, mapped].map(|description| description.request(&credentials).unwrap())
});

fuzz_target!(|data: &[u8]| {
    // Status (2 bytes), length of the headers (1 byte), headers separated by NUL, body.
    let [high, low, length, rest @ ..] = data else { return };
    let Ok(status) = StatusCode::from_u16(100 + u16::from_be_bytes([*high, *low]) % 900) else { return };
    let (values, body) = rest.split_at(usize::from(*length).min(rest.len()));
    let headers: HeaderMap = [CONTENT_TYPE, DATE, RETRY_AFTER]
        .into_iter()
        .zip(values.split(|byte| *byte == 0))
        .filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(value).ok()?)))
        .collect();
    for request in REQUESTS.iter() {
        match read(status, &headers, body, request) {
            Ok(answer) => {
                assert!(status.is_success());
                let token = answer.access_token.expose_secret();
                assert!(!token.is_empty() && token.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                let shown = [Some(answer.token_type.as_str()), answer.scope.as_deref()];
                let values = answer.values.values().map(|value| value.expose_secret());
                for text in shown.into_iter().flatten().chain(values) {
                    assert!(!text.contains(char::is_control));
                }
                let _ = answer.lifetime("2026-11-22T05:00:00Z".parse().unwrap(), None);
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.len() < 700 && message.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                let printed = format!("{message} {error:?}");
                assert!(SENT.iter().all(|sent| !printed.contains(sent)));
                let _ = (error.class(), error.reason(), error.retry_after(), error.outcome_unknown());
            }
        }
    }
});
