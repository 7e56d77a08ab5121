//! What an answer means: the first rule that fits.

use super::{answer, answer_with, credentials, description};
use crate::Class::{self, Ambiguous, Limited, LockedOut, Malformed, Rejected, Transient, Unclear};
use crate::ErrorKind::{
    self, ClientRejected, GrantRejected, MalformedResponse, RateLimited, RequestRejected, ScopeRejected,
    Unavailable,
};
use crate::error::Reach::{self, Client, Grant, Own, Request};
use crate::{Error, RequestDescription, read};
use http::{HeaderMap, StatusCode};

/// A body with this code, in every place in which codes are read.
fn bodies(code: &str) -> Vec<String> {
    vec![
        format!(r#"{{"error":"{code}","error_description":"Because."}}"#),
        format!(r#"{{"error":"{code}","message":"Because."}}"#),
        format!(r#"{{"error":{{"code":"{code}","message":"Because."}}}}"#),
        format!(r#"{{"errors":[{{"code":"{code}","message":"Because."}}]}}"#),
        format!(r#"{{"minorErrorCode":"{code}","message":"Because.","stackTrace":null}}"#),
        format!(r#"{{"errorCode":"{code}","errorSummary":"Because.","errorLink":"{code}"}}"#),
        format!(r#"{{"ErrorCode":"{code}","Error":"Because."}}"#),
        format!(r#"{{"errorType":"{code}","errorMessage":"Because."}}"#),
        format!(r#"{{"fault":{{"faultstring":"Because.","detail":{{"errorcode":"{code}"}}}}}}"#),
        format!(
            r#"{{"error":"Bad Request","minorErrorCode":"{}","message":"Because."}}"#,
            code.to_uppercase()
        ),
        format!(r#"{{"error":" {} ","message":"Because."}}"#, code.replace('_', "-")),
    ]
}

fn meaning(error: &Error) -> (Class, ErrorKind, Reach) {
    (error.class(), error.kind(), error.reach())
}

#[test]
fn error_known_code_decides_in_any_place_at_any_client_error() {
    let cases: &[(&str, Class, ErrorKind, Reach)] = &[
        ("invalid_client", Rejected, ClientRejected, Client),
        ("unauthorized_client", Rejected, ClientRejected, Request),
        ("access_denied", Rejected, ClientRejected, Request),
        ("AUTHENTICATION_FAILED", Rejected, ClientRejected, Client),
        ("invalid_grant", Rejected, GrantRejected, Grant),
        ("unsupported_grant_type", Rejected, GrantRejected, Request),
        ("invalid_scope", Rejected, ScopeRejected, Request),
        ("invalid_request", Rejected, RequestRejected, Request),
        ("invalid_target", Rejected, RequestRejected, Request),
        ("TOO_MANY_FAILED_LOGINS", LockedOut, RateLimited, Client),
        ("server_error", Transient, Unavailable, Own),
        ("temporarily_unavailable", Transient, Unavailable, Own),
        ("slow_down", Transient, RateLimited, Own),
        ("bad_refresh_token", Rejected, GrantRejected, Request),
        ("incorrect_client_credentials", Rejected, ClientRejected, Request),
    ];
    for (code, class, kind, reach) in cases {
        for body in bodies(code) {
            for status in [302, 400, 401, 403, 404, 422] {
                if status == 401 && *class == Transient {
                    continue; // see below
                }
                let error = answer(status, &body).unwrap_err();
                // The client's own secret is wrong, unless the code says otherwise.
                let by_status = ["unauthorized_client", "bad_refresh_token", "incorrect_client_credentials"];
                let reach = if status == 401 && by_status.contains(code) { Client } else { *reach };
                assert_eq!(meaning(&error), (*class, *kind, reach), "{status} {body}");
                assert_eq!(error.code(), Some(*code), "{status} {body}");
                let message = error.to_string();
                assert!(message.contains(&format!("HTTP {status}, {code}: Because.")), "{message}");
            }
        }
    }
}

/// ServiceNow: https://www.servicenow.com/community/developer-forum/oauth2-token-request-returned-401/td-p/3590623
#[test]
fn error_transient_code_with_401_is_a_rejection_of_the_client() {
    let body = r#"{"error_description":"access_denied","error":"server_error"}"#;
    assert_eq!(meaning(&answer(401, body).unwrap_err()), (Rejected, ClientRejected, Client));
}

#[test]
fn error_lock_out_precedes_429_and_429_precedes_every_other_code() {
    for body in bodies("TOO_MANY_FAILED_LOGINS") {
        for status in [200, 400, 429, 500, 503] {
            let error = answer(status, &body).unwrap_err();
            assert_eq!(meaning(&error), (LockedOut, RateLimited, Client), "{status} {body}");
        }
    }
    let both = r#"{"error":"invalid_client","errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#;
    assert_eq!(answer(401, both).unwrap_err().class(), LockedOut);
    for code in ["invalid_client", "invalid_grant", "access_denied", "server_error", "odd_code", "429"] {
        for body in bodies(code) {
            let error = answer(429, &body).unwrap_err();
            assert_eq!(meaning(&error), (Limited, RateLimited, Client), "{body}");
        }
    }
}

#[test]
fn error_server_failure_with_a_code_of_refusal_is_ambiguous_and_any_other_transient() {
    for (code, kind) in [
        ("access_denied", ClientRejected),
        ("invalid_request", RequestRejected),
        ("unauthorized_client", ClientRejected),
        ("invalid_client", ClientRejected),
        ("invalid_grant", GrantRejected),
        ("bad_refresh_token", GrantRejected),
    ] {
        for body in bodies(code) {
            for status in [500, 502, 503, 599] {
                let error = answer(status, &body).unwrap_err();
                assert_eq!(meaning(&error), (Ambiguous, Unavailable, Client), "{status} {body}");
                assert_eq!(error.lasting_kind(), kind, "{status} {body}");
                assert!(!error.outcome_unknown(), "{status} {body}");
            }
            for status in [408, 425] {
                let error = answer(status, &body).unwrap_err();
                assert_eq!(meaning(&error), (Transient, Unavailable, Own), "{status} {body}");
            }
        }
    }
    for (code, kind) in
        [("server_error", Unavailable), ("odd_code", Unavailable), ("rate_limit_exceeded", RateLimited)]
    {
        for body in bodies(code) {
            let error = answer(503, &body).unwrap_err();
            assert_eq!(meaning(&error), (Transient, kind, Own), "{body}");
        }
    }
}

/// RFC 6749, 5.2 has ASCII codes in lower case; servers differ in case and hyphens, and "Access Denied" is a sentence.
#[test]
fn error_code_is_known_only_exactly() {
    for code in ["INVALID_CLIENT", "Invalid-Client", "invalid-client"] {
        let error = answer(400, &format!(r#"{{"error":"{code}"}}"#)).unwrap_err();
        assert_eq!(error.code(), Some("invalid_client"), "{code}");
    }
    for code in ["invalid client!", "Access Denied", "invalid_client_id", "invalidclient", "invalid__client"]
    {
        let error = answer(400, &format!(r#"{{"error":"{code}"}}"#)).unwrap_err();
        assert_eq!(error.code(), None, "{code}");
    }
}

#[test]
fn error_number_is_no_code_except_429() {
    for body in [
        r#"{"error":{"code":429,"message":"Slow."}}"#,
        r#"{"error":{"code":"429"}}"#,
        r#"{"errors":[{"code":429}]}"#,
        r#"{"code":429,"message":"Slow."}"#,
        r#"{"status":429,"title":"Slow."}"#,
        r#"{"errorCode":429}"#,
    ] {
        for status in [200, 400, 403] {
            let error = answer(status, body).unwrap_err();
            assert_eq!(meaning(&error), (Limited, RateLimited, Client), "{status} {body}");
        }
    }
    for body in [r#"{"error":{"code":401}}"#, r#"{"error":"401"}"#, r#"{"errors":[{"code":"1001"}]}"#] {
        let error = answer(400, body).unwrap_err();
        assert_eq!((error.class(), error.code()), (Unclear, None), "{body}");
    }
}

#[test]
fn error_without_known_code_is_classified_by_status() {
    let html = "<html>secret page</html>";
    let cases: &[(u16, &str, Class, ErrorKind, Reach, &str)] = &[
        (301, "", Rejected, RequestRejected, Own, "HTTP 301"),
        (302, html, Rejected, RequestRejected, Own, "HTTP 302"),
        (307, "", Rejected, RequestRejected, Own, "HTTP 307"),
        (400, "", Unclear, Unavailable, Own, "an empty body"),
        (400, html, Unclear, Unavailable, Own, "24 bytes of text/html"),
        (400, r#"{"error":"some_code"}"#, Rejected, RequestRejected, Request, "HTTP 400, some_code"),
        (400, r#"{"message":"No such thing"}"#, Unclear, RequestRejected, Own, "a message and no error code"),
        (401, "", Rejected, ClientRejected, Client, "HTTP 401 with an empty body"),
        (401, r#"{"error":"Unauthorized"}"#, Rejected, ClientRejected, Client, "HTTP 401, Unauthorized"),
        (
            401,
            r#"{"error":{"code":401,"message":"Who?"}}"#,
            Rejected,
            ClientRejected,
            Client,
            "HTTP 401 with a",
        ),
        (403, html, Unclear, Unavailable, Own, "HTTP 403 with 24 bytes"),
        (403, r#"{"error":"forbidden_here"}"#, Rejected, RequestRejected, Request, "forbidden_here"),
        (404, html, Unclear, Unavailable, Own, "HTTP 404 with 24 bytes"),
        (404, r#"{"error":"Realm does not exist"}"#, Unclear, RequestRejected, Own, ": Realm does not exist"),
        (404, r#"{"error":"not_found"}"#, Unclear, RequestRejected, Own, "HTTP 404, not_found"),
        (407, html, Rejected, RequestRejected, Own, "HTTP 407"),
        (408, "", Transient, Unavailable, Own, "HTTP 408"),
        (415, "", Unclear, Unavailable, Own, "HTTP 415"),
        (418, "", Unclear, Unavailable, Own, "HTTP 418"),
        (425, "", Transient, Unavailable, Own, "HTTP 425"),
        (429, "", Limited, RateLimited, Client, "HTTP 429"),
        (429, r#"{"error":"odd_code"}"#, Limited, RateLimited, Client, "odd_code"),
        (500, "", Transient, Unavailable, Own, "HTTP 500"),
        (500, r#"{"error":"some_code"}"#, Transient, Unavailable, Own, "some_code"),
        (502, html, Transient, Unavailable, Own, "24 bytes of text/html"),
        (503, "", Transient, Unavailable, Own, "HTTP 503"),
        (504, "", Transient, Unavailable, Own, "HTTP 504"),
        (599, "", Transient, Unavailable, Own, "HTTP 599"),
    ];
    for (status, body, class, kind, reach, text) in cases {
        let error = answer_with(*status, &[("content-type", "text/html; charset=utf-8")], body).unwrap_err();
        assert_eq!(meaning(&error), (*class, *kind, *reach), "{status} {body}");
        assert_eq!(error.code(), None, "{status} {body}");
        let message = error.to_string();
        assert!(message.contains(text), "{message}");
        assert!(!message.contains("secret page"), "{message}");
    }
}

#[test]
fn success_is_spoiled_only_by_members_that_report_errors() {
    let token = |more: &str| answer(200, &format!(r#"{{"access_token":"t"{more}}}"#));
    for more in [
        r#","code":0,"message":"ok""#,
        r#","code":429,"message":"Too many requests""#,
        r#","errorCode":"invalid_client""#,
        r#","errorType":"invalid_client","fault":{"detail":{"errorcode":"invalid_client"}}"#,
        r#","error":null,"errors":[],"minorErrorCode":"""#,
    ] {
        assert!(token(more).is_ok(), "{more}");
    }
    for more in
        [r#","error":"invalid_client""#, r#","errors":["x"]"#, r#","minorErrorCode":"invalid_client""#]
    {
        assert!(token(more).is_err(), "{more}");
    }
    // Without a token, the others count too.
    for (body, class, kind) in [
        (r#"{"errorCode":"invalid_client"}"#, Rejected, ClientRejected),
        (r#"{"code":429,"message":"Slow."}"#, Limited, RateLimited),
        (r#"{"errorCode":"odd_code"}"#, Rejected, RequestRejected),
        (r#"{"message":"Too many requests"}"#, Malformed, RateLimited),
        (r#"{"code":0,"message":"ok"}"#, Malformed, MalformedResponse),
        (r#"{"status":"ok"}"#, Malformed, MalformedResponse),
    ] {
        let error = answer(200, body).unwrap_err();
        assert_eq!((error.class(), error.kind()), (class, kind), "{body}");
    }
}

#[test]
fn error_sentence_slows_only_its_own_request_and_makes_none_faster() {
    let cases: &[(u16, &str, Class, ErrorKind, Reach)] = &[
        (400, "Too Many Requests.", Limited, RateLimited, Own),
        (403, "Rate limit exceeded", Limited, RateLimited, Own),
        (400, "Account is locked!", LockedOut, RateLimited, Own),
        (403, "invalid client secret", Rejected, ClientRejected, Own),
        (400, "Unknown or invalid refresh token.", Rejected, GrantRejected, Own),
        // 401 and 3xx wait longer than a limit does.
        (401, "Too many requests", Rejected, RateLimited, Client),
        (302, "Too many requests", Rejected, RateLimited, Own),
        (401, "Account is locked", LockedOut, RateLimited, Client),
        // Not the whole sentence.
        (400, "We never send too many requests", Unclear, RequestRejected, Own),
        (400, "Not invalid client secret", Unclear, RequestRejected, Own),
        (503, "Account is locked", Transient, Unavailable, Own),
    ];
    for (status, sentence, class, kind, reach) in cases {
        for body in [
            format!(r#"{{"error":"{sentence}"}}"#),
            format!(r#"{{"message":"{sentence}"}}"#),
            format!(r#"{{"error":"Access Denied","error_description":"{sentence}"}}"#),
            format!(r#"{{"error":{{"code":4,"message":"{sentence}"}}}}"#),
        ] {
            let error = answer(*status, &body).unwrap_err();
            assert_eq!(meaning(&error), (*class, *kind, *reach), "{status} {body}");
        }
    }
}

/// A tenant chooses scopes and audiences, and servers repeat them.
#[test]
fn error_sentence_that_was_sent_means_nothing() {
    let request = |scope: &str, audience: &str| {
        let description = RequestDescription {
            scopes: vec![scope.into()],
            audience: Some(audience.into()),
            resources: vec!["https://too.many/requests".into()],
            parameters: [("note".to_owned(), "Rate limit exceeded".to_owned())].into(),
            ..description()
        };
        description.request(&credentials()).unwrap()
    };
    let class = |scope: &str, audience: &str, sentence: &str| {
        let body = serde_json::json!({"message": sentence}).to_string();
        let request = request(scope, audience);
        read(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes(), &request).unwrap_err().class()
    };
    assert_eq!(class("read", "api", "Too many requests"), Limited);
    assert_eq!(class("Too many requests", "api", "too many requests"), Unclear);
    assert_eq!(class("read", "Account locked", "Account locked"), Unclear);
    assert_eq!(class("read", "api", "Rate limit exceeded"), Unclear);
    assert_eq!(class("read", "api", "https://too.many/requests"), Unclear);
}

#[test]
fn retry_after_seconds_or_date_is_capped_at_an_hour() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (headers, expected) in [
        (vec![("retry-after", "120")], Some(120)),
        (vec![("retry-after", " 120 ")], Some(120)),
        (vec![("retry-after", "0")], Some(0)),
        (vec![("retry-after", "86400")], Some(3600)),
        (vec![("retry-after", "99999999999999999999999")], Some(3600)),
        (vec![("retry-after", "-5")], None),
        (vec![("retry-after", "")], None),
        (vec![("retry-after", "soon")], None),
        (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), ("date", date)], Some(30)),
        (vec![("retry-after", "Sun, 06 Nov 1994 08:40:00 GMT"), ("date", date)], Some(0)),
        (vec![("retry-after", "Mon, 07 Nov 1994 08:40:00 GMT"), ("date", date)], Some(3600)),
        (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None),
        (vec![], None),
    ] {
        for status in [429, 503] {
            assert_eq!(answer_with(status, &headers, "").unwrap_err().retry_after(), expected, "{headers:?}");
        }
    }
}

#[test]
fn retry_after_of_intermediaries_is_believed_for_five_minutes_and_not_shared() {
    let (html, json) = (("content-type", "text/html"), ("content-type", "application/json"));
    for (status, content_type, body, own, shared) in [
        (429, json, "{}", 3600, Some(3600)),
        (429, json, "", 3600, Some(3600)),
        (503, json, "", 3600, Some(3600)),
        (400, json, r#"{"error":"invalid_scope"}"#, 3600, Some(3600)),
        (403, html, r#"{"message":"x"}"#, 3600, Some(3600)),
        (500, json, "", 3600, None),
        (403, json, "", 300, None),
        (404, html, "<html>", 300, None),
        (429, html, "<html>", 300, None),
        (503, html, "<html>", 300, None),
    ] {
        let error = answer_with(status, &[("retry-after", "7200"), content_type], body).unwrap_err();
        let asked = (error.retry_after(), error.shared_retry_after());
        assert_eq!(asked, (Some(own), shared), "{status} {body}");
    }
}

#[test]
fn error_text_of_unknown_code_or_message_is_only_in_the_detail() {
    for body in [
        r#"{"error":"odd_code","error_description":"private words"}"#,
        r#"{"error":"private words"}"#,
        r#"{"message":"private words"}"#,
        r#"{"errors":[{"code":7,"message":"private words"}]}"#,
    ] {
        let error = answer(400, body).unwrap_err();
        assert!(!error.to_string().contains("private"), "{error}");
        assert_eq!(error.detail(), Some("private words"), "{body}");
    }
    let known = answer(400, r#"{"error":"invalid_scope","message":"Because."}"#).unwrap_err();
    assert!(known.to_string().ends_with("Because.") && known.detail().is_none(), "{known}");
}
