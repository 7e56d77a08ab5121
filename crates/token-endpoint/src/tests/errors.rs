use super::{ID, REFRESH, SECRET, answer, answer_with, credentials, description};
use crate::{
    BasicEncoding, Class, ClientAuthentication, Credentials, Egress, Error, ErrorKind, Hint,
    RequestDescription, RequestError, read,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};

#[test]
fn hint_follows_from_status_and_body() {
    let html = "<html></html>";
    for (status, body, hint) in [
        (301, "", Some(Hint::UseRedirectTarget)),
        (302, html, Some(Hint::UseRedirectTarget)),
        (400, html, None),
        (403, html, Some(Hint::CheckIntermediary)),
        (403, r#"{"error":"forbidden_here"}"#, None),
        (404, html, Some(Hint::CheckTokenUrlPath)),
        (404, r#"{"error":"not_found"}"#, Some(Hint::CheckTokenUrlPath)),
        (407, html, Some(Hint::AuthenticateToProxy)),
        (400, r#"{"error":"TOO_MANY_FAILED_LOGINS"}"#, Some(Hint::WaitForUnlock)),
        (200, html, Some(Hint::CheckTokenUrl)),
        (200, "{}", None),
        (500, "", None),
    ] {
        assert_eq!(answer(status, body).unwrap_err().hint(), hint, "{status} {body}");
    }
}

#[test]
fn outcome_unknown_bad_gateway_without_known_code_is_true() {
    for (status, body, unknown) in [
        (502, "", true),
        (504, "<html>", true),
        (500, "", false),
        (503, "", false),
        (502, r#"{"error":"invalid_grant"}"#, false),
    ] {
        assert_eq!(answer(status, body).unwrap_err().outcome_unknown(), unknown, "{status} {body}");
    }
}

#[test]
fn error_description_is_capped_and_reduced_to_plain_characters() {
    let long = "word ".repeat(100);
    let message = answer(400, &format!(r#"{{"error":"invalid_request","error_description":"{long}"}}"#))
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("...") && message.len() < 300, "{message}");

    let message =
        answer(400, r#"{"error":"invalid_request","error_description":"a\"b\\c\n\u001b[31md\u202eé"}"#)
            .unwrap_err()
            .to_string();
    assert!(message.ends_with("a'b/c  [31md??"), "{message}");

    let huge = "word ".repeat(10_000);
    let message = answer(400, &format!(r#"{{"error":"invalid_request","error_description":"{huge}"}}"#))
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("invalid_request"), "{message}");
}

#[test]
fn error_description_with_sent_values_or_tokens_is_redacted() {
    let percent = "correct%20horse%2Fbattery%2Bstaple";
    let echoes = [
        SECRET.to_owned(),
        ID.to_owned(),
        percent.to_owned(),
        percent.to_lowercase(),
        "c%6Frrect%20horse%2fbattery%2Bstaple".to_owned(),
        ID.replace('-', "%2D"),
        "correct+horse%2Fbattery%2Bstaple".to_owned(),
        BASE64_STANDARD.encode(SECRET),
        BASE64_URL_SAFE_NO_PAD.encode(SECRET),
        BASE64_STANDARD.encode(format!("{ID}:{percent}")),
        format!("{ID}:{SECRET}"),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln".to_owned(),
        "0123456789abcdef0123456789ABCDEF".to_owned(),
    ];
    for echo in &echoes {
        for body in [
            serde_json::json!({"error": "invalid_client", "error_description": format!("no '{echo}' here")}),
            serde_json::json!({"error": format!("no '{echo}' here")}),
            serde_json::json!({"error": echo}),
            serde_json::json!({"message": echo}),
        ] {
            let error = answer(400, &body.to_string()).unwrap_err();
            let shown = format!("{error} {}", error.detail().unwrap_or_default());
            for printed in [shown, format!("{error:?}")] {
                assert!(!printed.to_lowercase().contains(&echo.to_lowercase()), "{body}: {printed}");
                assert!(printed.contains("[redacted]"), "{body}: {printed}");
            }
        }
    }
    let description = RequestDescription {
        parameters: [("pin".to_owned(), "4711-secret".to_owned())].into(),
        grant: crate::Grant::RefreshToken,
        ..description()
    };
    let body = format!(r#"{{"error":"invalid_grant","error_description":"{REFRESH} 4711-secret"}}"#);
    let error = read(
        StatusCode::BAD_REQUEST,
        &HeaderMap::new(),
        body.as_bytes(),
        &description.request(&credentials()).unwrap(),
    )
    .unwrap_err();
    assert!(error.to_string().ends_with("invalid_grant: [redacted] [redacted]"), "{error}");
}

#[test]
fn redact_short_value_inside_long_one_hides_both() {
    let credentials = Credentials {
        client_id: Some("abc".into()),
        client_secret: Some("abcdef".into()),
        ..Credentials::default()
    };
    let error = read(
        StatusCode::BAD_REQUEST,
        &HeaderMap::new(),
        br#"{"error":"invalid_client","error_description":"tried abcdef"}"#,
        &description().request(&credentials).unwrap(),
    )
    .unwrap_err();
    assert!(error.to_string().ends_with("tried [redacted]"), "{error}");
}

#[test]
fn error_description_with_scope_is_not_redacted() {
    let description = RequestDescription { scopes: vec!["cards:read".into()], ..description() };
    let error = read(
        StatusCode::BAD_REQUEST,
        &HeaderMap::new(),
        br#"{"error":"invalid_scope","error_description":"Invalid scopes: cards:read"}"#,
        &description.request(&credentials()).unwrap(),
    )
    .unwrap_err();
    assert!(error.to_string().ends_with("Invalid scopes: cards:read"), "{error}");
}

#[test]
fn hint_rejection_after_percent_encoding_is_avoid_percent_encoding() {
    let hint = |authentication: ClientAuthentication, secret: &str, body: &str| {
        let description = RequestDescription { client_authentication: authentication, ..description() };
        let credentials = Credentials {
            client_id: Some("id".into()),
            client_secret: Some(secret.into()),
            ..Credentials::default()
        };
        let request = description.request(&credentials).unwrap();
        read(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body.as_bytes(), &request).unwrap_err().hint()
    };
    let percent = || ClientAuthentication::Basic(BasicEncoding::Percent);
    let rejected = r#"{"error":"invalid_client"}"#;
    assert_eq!(hint(percent(), "a+b", rejected), Some(Hint::AvoidPercentEncoding));
    assert_eq!(hint(percent(), "a+b", ""), Some(Hint::AvoidPercentEncoding));
    assert_eq!(hint(percent(), "ab", rejected), None);
    assert_eq!(hint(percent(), "ab", ""), Some(Hint::CheckClientCredentials));
    assert_eq!(hint(ClientAuthentication::None, "ab", ""), Some(Hint::CheckGrant));
    assert_eq!(hint(percent(), "a+b", r#"{"error":"invalid_scope"}"#), None);
    assert_eq!(hint(ClientAuthentication::Basic(BasicEncoding::Raw), "a+b", rejected), None);
    assert_eq!(hint(ClientAuthentication::Post, "a+b", rejected), None);
}

#[test]
fn error_media_type_without_valid_form_is_not_shown() {
    let shown = |value| answer_with(502, &[("content-type", value)], "x").unwrap_err().to_string();
    assert!(shown("Text/HTML ; charset=x").contains("1 bytes of text/html "));
    for odd in ["nonsense", "text/<script>", "", "a/b/c", "text/the-client-id"] {
        let message = shown(odd);
        assert!(!message.contains("script") && !message.contains(ID), "{message}");
    }
}

#[test]
fn error_before_sending_is_of_class_configuration() {
    let egress = Egress::new(Vec::new(), None, false, Vec::new());
    let refused: Error = egress.check_url(&"http://127.0.0.1/".parse().unwrap()).unwrap_err().into();
    assert_eq!((refused.class(), refused.kind()), (Class::Configuration, ErrorKind::EgressRefused));

    let missing: Error = description().request(&Credentials::default()).unwrap_err().into();
    assert_eq!((missing.class(), missing.kind()), (Class::Configuration, ErrorKind::MissingCredential));
    let reserved: Error = RequestError::Reserved("scope".into()).into();
    assert_eq!((reserved.class(), reserved.kind()), (Class::Configuration, ErrorKind::InvalidDescription));
    assert!(!refused.outcome_unknown() && !missing.outcome_unknown());
}
