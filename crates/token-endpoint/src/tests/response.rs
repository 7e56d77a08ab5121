use super::{answer, answer_with, header_map, request};
use crate::ErrorKind;
use crate::response::read_keeping;
use crate::{Class, Error, MAX_LIFETIME};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};

#[test]
fn read_vendor_answers_returns_tokens() {
    let vgs = answer(
        200,
        r#"{"access_token":"eyJhbGciOi.J9.x","expires_in":300,"refresh_expires_in":0,"token_type":"bearer",
            "not-before-policy":1620379100,"scope":"cards:write user_id service-account"}"#,
    )
    .unwrap();
    assert_eq!(vgs.access_token.expose_secret(), "eyJhbGciOi.J9.x");
    assert_eq!(vgs.token_type, "Bearer");
    assert!(!vgs.token_type_missing);
    assert_eq!(vgs.expires_in, Some(300));
    assert_eq!(vgs.scope.as_deref(), Some("cards:write user_id service-account"));
    assert!(vgs.refresh_token.is_none());

    let vng = answer(
        200,
        r#"{"token_type":"Bearer","access_token":"eyJ...","expires_in":1800,"refresh_expires_in":0}"#,
    )
    .unwrap();
    assert_eq!((vng.expires_in, vng.scope), (Some(1800), None));

    let vcd = answer(
        200,
        r#"{"access_token":"t","token_type":"Bearer","expires_in":2592000,"refresh_token":null}"#,
    )
    .unwrap();
    assert_eq!(vcd.expires_in, Some(2_592_000));
    assert!(vcd.refresh_token.is_none());
}

#[test]
fn read_expires_in_accepts_known_forms() {
    for (written, read) in [
        ("300", Some(300)),
        (r#""300""#, Some(300)),
        (r#"" 300 ""#, Some(300)),
        ("300.0", Some(300)),
        ("3599.9", Some(3599)),
        (r#""3599.9""#, Some(3599)),
        ("3e2", Some(300)),
        ("0", Some(0)),
        (r#""0""#, Some(0)),
        ("0.9", Some(0)),
        ("-1", None),
        ("-0.5", None),
        (r#""-1""#, None),
        ("null", None),
        (r#""""#, None),
        (r#""soon""#, None),
        (r#""NaN""#, None),
        (r#""inf""#, None),
        ("true", None),
        ("[300]", None),
        ("{}", None),
        ("18446744073709551615", Some(MAX_LIFETIME)),
        ("18446744073709551616", Some(MAX_LIFETIME)),
        ("1e300", Some(MAX_LIFETIME)),
        (r#""99999999999999999999999""#, Some(MAX_LIFETIME)),
    ] {
        let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{written}}}"#);
        assert_eq!(answer(200, &body).unwrap().expires_in, read, "{written}");
    }
    assert_eq!(answer(200, r#"{"access_token":"t"}"#).unwrap().expires_in, None);
}

#[test]
fn read_token_type_accepts_known_forms() {
    for (member, read, missing) in [
        (r#","token_type":"Bearer""#, "Bearer", false),
        (r#","token_type":"bearer""#, "Bearer", false),
        (r#","token_type":"BEARER ""#, "Bearer", false),
        (r#","token_type":"BearerToken""#, "Bearer", false),
        (r#","token_type":null"#, "Bearer", true),
        (r#","token_type":"""#, "Bearer", true),
        ("", "Bearer", true),
        (r#","token_type":"N_A""#, "N_A", false),
        (r#","token_type":"Token""#, "Token", false),
    ] {
        let answer = answer(200, &format!(r#"{{"access_token":"t"{member}}}"#)).unwrap();
        assert_eq!((answer.token_type.as_str(), answer.token_type_missing), (read, missing), "{member}");
    }
    for useless in ["DPoP", "dpop", "mac", "MAC", "pop", "PoP"] {
        let body = format!(r#"{{"access_token":"t","token_type":"{useless}"}}"#);
        let error = answer(200, &body).unwrap_err();
        assert_eq!((error.class(), error.kind()), (Class::Malformed, ErrorKind::MalformedResponse));
        assert!(error.to_string().to_lowercase().contains(&useless.to_lowercase()), "{error}");
    }
}

#[test]
fn read_success_without_usable_token_is_malformed() {
    for (body, message) in [
        ("", "an empty body"),
        ("<html>login</html>", "18 bytes of application/json"),
        ("access_token=t", "14 bytes"),
        ("[]", "2 bytes"),
        (r#""t""#, "3 bytes"),
        (r#"{"access_token":"t"} x"#, "22 bytes"),
        ("{}", "without an access_token"),
        (r#"{"access_token":null}"#, "without an access_token"),
        (r#"{"access_token":["t"]}"#, "without an access_token"),
        (r#"{"accessToken":"t"}"#, "without an access_token"),
        (r#"{"access_token":""}"#, "empty access_token"),
        (r#"{"access_token":"  "}"#, "empty access_token"),
        (r#"{"access_token":"a\nb"}"#, "printable ASCII"),
        (r#"{"access_token":"a\r\nX-Evil: 1"}"#, "printable ASCII"),
        (r#"{"access_token":"a\u0000"}"#, "printable ASCII"),
        (r#"{"access_token":"a\u007f"}"#, "printable ASCII"),
        (r#"{"access_token":"tökén"}"#, "printable ASCII"),
        (r#"{"access_token":"t","scope":"a\nb"}"#, "control characters in scope"),
        (r#"{"access_token":"t","scope":"a\u0085b"}"#, "control characters in scope"),
        (r#"{"access_token":"t","scope":"a\u2028b"}"#, "control characters in scope"),
        (r#"{"access_token":"t","token_type":"a\nb"}"#, "control characters in token_type"),
    ] {
        let error = answer(200, body).unwrap_err();
        assert_eq!((error.class(), error.kind()), (Class::Malformed, ErrorKind::MalformedResponse), "{body}");
        assert!(error.to_string().contains(message), "{body}: {error}");
        assert!(!error.outcome_unknown());
        assert_eq!((error.code(), error.retry_after()), (None, None));
    }
}

#[test]
fn read_success_that_reports_error_is_a_failure() {
    for (body, class, reason) in [
        (r#"{"error":"invalid_client","access_token":"t"}"#, Class::Rejected, ErrorKind::ClientRejected),
        (r#"{"error":"bad_verification_code"}"#, Class::Rejected, ErrorKind::RequestRejected),
        (r#"{"error":"Something is wrong"}"#, Class::Malformed, ErrorKind::MalformedResponse),
        (r#"{"error":{"message":"No"}}"#, Class::Malformed, ErrorKind::MalformedResponse),
        (r#"{"errors":[{"code":"AUTHENTICATION_FAILED"}]}"#, Class::Rejected, ErrorKind::ClientRejected),
        (r#"{"minorErrorCode":"invalid_grant"}"#, Class::Rejected, ErrorKind::GrantRejected),
    ] {
        let error = answer(200, body).unwrap_err();
        assert_eq!((error.class(), error.kind()), (class, reason), "{body}");
        assert!(error.to_string().contains("HTTP 200"), "{error}");
    }
}

#[test]
fn read_success_with_empty_error_members_is_a_token() {
    for member in [
        r#""error":null"#,
        r#""error":"""#,
        r#""error":false"#,
        r#""error":{}"#,
        r#""errors":[]"#,
        r#""message":"ok""#,
        r#""unknown":{"deep":[1,2,{"x":null}]}"#,
        r#""scope":null"#,
        r#""scope":["a"]"#,
        r#""refresh_token":"""#,
        r#""access_token":"first""#, // a duplicate key: the last value is read
    ] {
        let read = answer(201, &format!(r#"{{{member},"access_token":"t"}}"#)).unwrap();
        assert_eq!(read.access_token.expose_secret(), "t", "{member}");
        assert!(read.scope.is_none() && read.refresh_token.is_none(), "{member}");
        // A scope that is there and is not told must not be taken for the one that was asked for.
        assert_eq!(read.scope_is_withheld, member.contains(r#""scope":["#), "{member}");
    }
}

#[test]
fn read_json_with_any_media_type_is_a_token() {
    for media_type in
        ["text/html", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "nonsense", ""]
    {
        let read = answer_with(200, &[("content-type", media_type)], "\u{feff}{\"access_token\":\"t\"}");
        assert!(read.is_ok(), "{media_type}");
    }
    assert!(answer_with(200, &[], r#"{"access_token":"t"}"#).is_ok());
}

/// What is read afterwards may fail, or panic.
#[test]
fn read_gives_a_new_refresh_token_away_before_the_rest_is_read() {
    let kept = |status: u16, body: &str| {
        let mut kept = vec![];
        let headers = header_map(&[("date", "not a date"), ("retry-after", "soon")]);
        let status = StatusCode::from_u16(status).unwrap();
        let keep = |token: &SecretString| kept.push(token.expose_secret().to_owned());
        let _ = read_keeping(status, &headers, body.as_bytes(), &request(), keep);
        kept
    };
    for body in [
        r#"{"access_token":"t","refresh_token":"next"}"#,
        r#"{"refresh_token":"next"}"#,
        r#"{"access_token":1,"token_type":"DPoP","error":"odd","refresh_token":"next"}"#,
    ] {
        assert_eq!(kept(200, body), ["next"], "{body}");
        assert_eq!(kept(400, body), [""; 0], "a failure does not rotate it");
    }
}

#[test]
fn read_unusable_answer_keeps_refresh_token() {
    let read = answer(200, r#"{"access_token":"t","refresh_token":"next"}"#).unwrap();
    assert_eq!(read.refresh_token.unwrap().expose_secret(), "next");

    let refresh_token = |error: &Error| error.refresh_token().map(|token| token.expose_secret().to_owned());
    for body in [
        r#"{"refresh_token":"next"}"#,
        r#"{"access_token":"a\nb","refresh_token":"next"}"#,
        r#"{"access_token":"t","token_type":"DPoP","refresh_token":"next"}"#,
        r#"{"access_token":"t","error":"odd","refresh_token":"next"}"#,
    ] {
        let error = answer(200, body).unwrap_err();
        assert_eq!(refresh_token(&error).as_deref(), Some("next"), "{body}");
        assert!(!format!("{error:?} {error}").contains("next"), "{error:?}");
    }
    // A failure does not rotate the refresh token.
    assert_eq!(
        refresh_token(&answer(400, r#"{"error":"invalid_grant","refresh_token":"next"}"#).unwrap_err()),
        None
    );
}

#[test]
fn token_id_is_start_of_sha256() {
    let read = answer(200, r#"{"access_token":"abc"}"#).unwrap();
    assert_eq!(read.token_id(), "ba7816bf8f01"); // printf abc | sha256sum
}

#[test]
fn answer_debug_prints_no_token() {
    let read = answer(200, r#"{"access_token":"hidden-a","refresh_token":"hidden-r","scope":"s"}"#).unwrap();
    assert!(!format!("{read:?}").contains("hidden"), "{read:?}");
}

#[test]
fn read_date_header_is_server_time() {
    let date = |value| answer_with(200, &[("date", value)], r#"{"access_token":"t"}"#).unwrap().date;
    assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some("1994-11-06T08:49:37Z".parse().unwrap()));
    assert_eq!(date("yesterday"), None);
    assert_eq!(date(""), None);
}
