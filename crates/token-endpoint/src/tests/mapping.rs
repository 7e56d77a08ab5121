use super::{credentials, description};
use crate::{Answer, Error, Hint, Pointer, PointerError, RequestDescription, ResponseMapping, read};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;

fn pointer(text: &str) -> Option<Pointer> {
    Some(text.parse().unwrap())
}

fn mapped(response: ResponseMapping, body: &str) -> Result<Answer, Error> {
    let request = RequestDescription { response, ..description() }.request(&credentials()).unwrap();
    read(StatusCode::CREATED, &HeaderMap::new(), body.as_bytes(), &request)
}

#[test]
fn pointer_parses_rfc_6901_only() {
    for text in ["/a", "/a/b/0", "/", "/a~1b", "/m~0n", "/ü"] {
        assert_eq!(text.parse::<Pointer>().unwrap().to_string(), text);
    }
    for text in ["", "a", "a/b", "#/a", "$.a", "/a~", "/a~2", "/~~0"] {
        let error: PointerError = text.parse::<Pointer>().unwrap_err();
        assert!(error.to_string().contains("RFC 6901"), "{error}");
    }
}

#[test]
fn read_access_token_is_found_at_mapped_pointer() {
    let at = |text| ResponseMapping { access_token: pointer(text), ..ResponseMapping::default() };
    for (text, body) in [
        ("/token", r#"{"token":"t"}"#),
        ("/accessToken", r#"{"accessToken":"t","access_token":"other"}"#),
        ("/data/access.token", r#"{"data":{"access.token":"t"}}"#),
        ("/tokens/0/value", r#"{"tokens":[{"value":"t"}]}"#),
        ("/a~1b/m~0n", r#"{"a/b":{"m~n":"t"}}"#),
    ] {
        assert_eq!(mapped(at(text), body).unwrap().access_token.expose_secret(), "t", "{text}");
    }
    for body in [r#"{"access_token":"t"}"#, r#"{"token":null}"#, r#"{"token":{"x":"t"}}"#, r#"{"token":7}"#] {
        let error = mapped(at("/token"), body).unwrap_err();
        assert!(error.to_string().ends_with("without a text at /token"), "{error}");
        assert_eq!(error.hint(), Some(Hint::CheckAccessTokenPointer));
    }
}

#[test]
fn read_scope_is_also_found_beside_a_wrapped_token() {
    let wrapped = || ResponseMapping { access_token: pointer("/data/0/token"), ..ResponseMapping::default() };
    for (members, scope, is_withheld) in [
        (r#""data":[{"token":"t","scope":"read admin"}]"#, Some("read admin"), false),
        (r#""data":[{"token":"t"}],"scope":"read""#, Some("read"), false),
        (r#""data":[{"token":"t","scope":"read"}],"scope":"read""#, Some("read"), false),
        // Which one holds is not known.
        (r#""data":[{"token":"t","scope":"read"}],"scope":"admin""#, None, true),
        (r#""data":[{"token":"t","scope":["admin"]}],"scope":"read""#, None, true),
        (r#""data":[{"token":"t"}]"#, None, false),
    ] {
        let read = mapped(wrapped(), &format!("{{{members}}}")).unwrap();
        assert_eq!((read.scope.as_deref(), read.scope_is_withheld), (scope, is_withheld), "{members}");
    }
}

#[test]
fn read_expires_at_accepts_known_forms() {
    for (written, read) in [
        (r#""2026-11-22T05:00:00Z""#, Some("2026-11-22T05:00:00Z")),
        (r#""2026-11-22T12:00:00+07:00""#, Some("2026-11-22T05:00:00Z")),
        (r#"" 2026-11-22T05:00:00.999Z ""#, Some("2026-11-22T05:00:00.999Z")),
        ("1795323600", Some("2026-11-22T05:00:00Z")),
        (r#""1795323600""#, Some("2026-11-22T05:00:00Z")),
        ("1795323600.9", Some("2026-11-22T05:00:00Z")),
        ("1795323600000", Some("2026-11-22T05:00:00Z")),
        (r#""1795323600999""#, Some("2026-11-22T05:00:00Z")),
        ("1e300", Some("9999-12-30T22:00:00.999999999Z")),
        (r#""9999-12-31T23:59:59Z""#, Some("9999-12-30T22:00:00.999999999Z")),
        (r#""9999-12-31T23:59:59.9999999+00:00""#, Some("9999-12-30T22:00:00.999999999Z")),
        (r#""0001-01-01T00:00:00Z""#, None),
        (r#""9999-12-31T23:59:59""#, None), // no time zone
        ("0", None),
        ("-1", None),
        (r#""2026-11-22T05:00:00""#, None), // no time zone
        (r#""tomorrow""#, None),
        (r#""NaN""#, None),
        ("null", None),
        ("true", None),
        ("{}", None),
    ] {
        let mapping =
            ResponseMapping { expires_at: pointer("/session/expiresAt"), ..ResponseMapping::default() };
        let body = format!(r#"{{"access_token":"t","session":{{"expiresAt":{written}}}}}"#);
        assert_eq!(
            mapped(mapping, &body).unwrap().expires_at.map(|time| time.to_string()).as_deref(),
            read,
            "{written}"
        );
    }
    // Without a pointer it is not read.
    let body = r#"{"access_token":"t","expires_at":1795323600}"#;
    assert_eq!(mapped(ResponseMapping::default(), body).unwrap().expires_at, None);
}

#[test]
fn read_values_are_scalars_without_control_characters() {
    let mapping = |name: &str, at: &str| ResponseMapping {
        values: [(name.to_owned(), at.parse().unwrap())].into(),
        ..ResponseMapping::default()
    };
    for (value, read) in [
        (r#""https://a.example.com""#, Some("https://a.example.com")),
        ("7", Some("7")),
        ("1.5", Some("1.5")),
        ("true", Some("true")),
        ("null", None),
        ("{}", None),
        (r#"["x"]"#, None),
    ] {
        let body = format!(r#"{{"access_token":"t","instance":{{"url":{value}}}}}"#);
        let answer = mapped(mapping("instance_url", "/instance/url"), &body).unwrap();
        assert_eq!(answer.values.get("instance_url").map(|value| value.expose_secret()), read, "{value}");
        assert!(!format!("{answer:?}").contains("a.example.com"));
    }
    let error = mapped(mapping("x", "/x"), r#"{"access_token":"t","x":"a\nb: c"}"#).unwrap_err();
    assert!(error.to_string().contains("control characters in /x"), "{error}");
}

#[test]
fn read_unusable_answer_keeps_mapped_refresh_token() {
    let mapping = || ResponseMapping { refresh_token: pointer("/data/next"), ..ResponseMapping::default() };
    let body = r#"{"access_token":"t","refresh_token":"other","data":{"next":"r"}}"#;
    assert_eq!(mapped(mapping(), body).unwrap().refresh_token.unwrap().expose_secret(), "r");
    let error = mapped(mapping(), r#"{"data":{"next":"r"}}"#).unwrap_err();
    assert_eq!(error.refresh_token().unwrap().expose_secret(), "r");
}

#[test]
fn read_value_pointer_to_secret_is_refused() {
    let mapping = |at: &str| ResponseMapping {
        values: [("x".to_owned(), at.parse().unwrap())].into(),
        ..ResponseMapping::default()
    };
    let secret = super::SECRET;
    let long = "x".repeat(4097);
    for (at, body, message) in [
        ("/x", json!({"x": secret}), "with a secret at /x"),
        ("/x", json!({"x": format!("https://me:{secret}@a.example.com")}), "with a secret at /x"),
        ("/x", json!({"x": "r-new", "refresh_token": "r-new"}), "with a secret at /x"),
        ("/refresh_token", json!({"refresh_token": "r-new"}), "with a secret at /refresh_token"),
        ("/a/idToken", json!({"a": {"idToken": "i"}}), "with a secret at /a/idToken"),
        ("/x", json!({"x": long}), "with more than 4096 bytes at /x"),
    ] {
        let mut body = body;
        body["access_token"] = json!("t");
        let error = mapped(mapping(at), &body.to_string()).unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        let is_long = message.contains("4096");
        let hint = if is_long { Hint::CheckValuePointer } else { Hint::RemoveValuePointer };
        assert_eq!(error.hint(), Some(hint));
        assert!(!format!("{error} {error:?}").contains(secret));
        // The refresh token may be the only valid one.
        assert_eq!(error.refresh_token().is_some(), body.get("refresh_token").is_some());
    }
    // The client id is not a secret.
    let answer = mapped(mapping("/x"), &json!({"access_token": "t", "x": super::ID}).to_string()).unwrap();
    assert_eq!(answer.values["x"].expose_secret(), super::ID);
}
