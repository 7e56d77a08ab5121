//! What `explain` says of credentials and refresh tokens.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
use crate::commands::explain::service_account::ServiceAccountFacts;
use crate::digest::sha256;

#[test]
fn assess_of_the_refresh_token_says_which_is_sent_next() {
    let grant = json!({"provider": {"vgs": null, "oauth2": {"tokenURL": "https://a.example/token", "grant": {"refreshToken": {}}}}});
    let stored = |owner: &str, data: Value, sent: Option<&str>| -> Result<Option<Secret>, ReadError> {
        let secret = json!({
            "metadata": {"name": "vault-api-refresh-token", "uid": "r", "resourceVersion": "3", "annotations": {
                "tokensource.dev/refresh-token-of": owner, "tokensource.dev/refresh-token-sent": sent,
            }},
            "data": data,
        });
        let mut secret: Value = secret;
        if sent.is_none() {
            secret["metadata"]["annotations"]
                .as_object_mut()
                .unwrap()
                .remove("tokensource.dev/refresh-token-sent");
        }
        Ok(Some(serde_json::from_value(secret).unwrap()))
    };
    let base64 = |text: &str| serde_json::to_value(ByteString(text.into())).unwrap();
    let digest = sha256(&"original".into());
    let said = |refresh_token: Result<Option<Secret>, ReadError>| {
        let mut found = found(source(grant.clone(), json!({})));
        let data = [("client_id", "id"), ("client_secret", "hidden"), ("refresh_token", "original")];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into())));
        found.credentials.as_mut().unwrap().as_mut().unwrap().data = Some(data.into());
        found.refresh_token = refresh_token;
        let report = explain(&found);
        assert!(!report.to_string().contains("rotated"), "{report}");
        let finding = report.refresh_token.unwrap();
        (finding.level, finding.message)
    };
    let descends = json!({"refresh_token": base64("rotated"), "seed_sha256": base64(&digest)});
    let of_another = json!({"refresh_token": base64("rotated"), "seed_sha256": base64("0")});
    for (refresh_token, level, part) in [
        (Ok(None), Level::Well, "that of Secret vgs-client is sent: no other has come back yet"),
        (
            stored("vault-api", descends.clone(), None),
            Level::Well,
            "that of Secret vault-api-refresh-token is sent, which came back last",
        ),
        (
            stored("vault-api", of_another, None),
            Level::Well,
            "that of Secret vgs-client is sent: it is another than the one",
        ),
        (
            stored("vault-api", json!({"unrotated_sha256": base64(&digest)}), None),
            Level::Well,
            "the server returns no other",
        ),
        (stored("vault-api", descends.clone(), Some("x y")), Level::Well, "a request with it is under way"),
        (stored("other", descends, None), Level::Attention, "is not the operator's"),
    ] {
        let (found, message) = said(refresh_token);
        assert_eq!(found, level, "{message}");
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn assess_names_a_missing_key_of_the_credentials() {
    let mut found = found(source(json!({}), json!({})));
    found.credentials = Ok(Some(Secret::default()));
    let report = explain(&found);
    let credentials = report.credentials.unwrap();
    assert_eq!((credentials.level, report.verdict), (Level::Attention, Level::Attention));
    assert!(
        credentials.message.contains("Secret vgs-client has no key client_id"),
        "{}",
        credentials.message
    );
}

#[test]
fn assess_of_credentials_that_are_not_released_has_the_command_where_the_operator_requires_it() {
    let said = |label: Option<&str>, needs_label: bool| {
        let mut found = found(source(json!({}), json!({})));
        let labels = label.map(|value| [("tokensource.dev/credentials".to_owned(), value.to_owned())].into());
        found.credentials.as_mut().unwrap().as_mut().unwrap().metadata.labels = labels;
        let flags = OperatorFlags { needs_label, ..OperatorFlags::default() };
        let report = assess(at(0), "payments", &found, flags);
        let finding = report.credentials.unwrap();
        (finding.level, finding.message)
    };
    let remedy = "kubectl label secret vgs-client -n payments tokensource.dev/credentials=true";
    for label in [None, Some("false")] {
        let (level, message) = said(label, true);
        assert_eq!(level, Level::Attention, "{message}");
        assert!(message.ends_with(remedy), "{message}");
    }
    for (label, needs_label) in [(Some("true"), true), (None, false)] {
        let (level, message) = said(label, needs_label);
        assert_eq!((level, message.as_str()), (Level::Well, "Secret vgs-client has what is needed"));
    }
}

#[test]
fn assess_of_a_service_account_says_what_the_issuer_must_know_and_what_may_not_be_read() {
    let provider = json!({"vgs": null, "oauth2": {
        "tokenURL": "https://a.example/token", "clientAuthentication": {"serviceAccountToken": {}},
    }});
    let credentials = json!({"secretRef": null, "serviceAccountToken": {"name": "payments", "audience": "https://a.example"}});
    let own = source(json!({"provider": provider, "credentials": credentials}), json!({}));
    let lent = source(
        json!({"provider": {"vgs": null}, "credentials": {"secretRef": null}, "issuerRef": {"name": "idp"}, "request": {"serviceAccountName": "payments"}}),
        json!({}),
    );
    let used = crate::providers::describe(&own.spec).unwrap().service_account.unwrap();
    let forbidden =
        || ReadError::Forbidden { action: "read it".into(), error: CallError::Refused(String::new()) };
    let said =
        |source: &TokenSource, used: Result<_, ReadError>, consent: Result<Option<&str>, ReadError>| {
            let mut found = found(source.clone());
            found.service_account = Some(ServiceAccountFacts {
                name: "payments".into(),
                used,
                consent: consent.map(|consent| consent.map(str::to_owned)),
                issuer: Ok("https://cluster.example".into()),
            });
            let report = explain(&found);
            let finding = report.credentials.unwrap();
            (finding.level, finding.message, report.not_known)
        };
    let subject =
        "tokens of ServiceAccount payments: subject system:serviceaccount:payments:payments, audience";
    let told = format!("{subject} https://a.example, issuer https://cluster.example, valid for 10 min");
    for (source, consent, level, end) in [
        (&own, Ok(Some("b, https://a.example")), Level::Well, ""),
        (&lent, Ok(Some("https://a.example")), Level::Well, ""),
        (&own, Ok(None), Level::Attention, "tokensource.dev/audiences=https://a.example"),
        (&lent, Ok(Some("b")), Level::Attention, "tokensource.dev/audiences=https://a.example"),
        (&own, Err(forbidden()), Level::Well, ""),
    ] {
        let is_known = consent.is_ok();
        let (found, message, not_known) = said(source, Ok(used.clone()), consent);
        assert_eq!((found, not_known.is_empty()), (level, is_known), "{message} {not_known:?}");
        assert!(message.starts_with(&told) && message.ends_with(end), "{message}");
    }
    for (consent, end) in [
        (Ok(Some("b")), "; its annotation tokensource.dev/audiences lists b"),
        (Ok(None), "lists none"),
        (Err(forbidden()), "issuer https://cluster.example"),
    ] {
        let (level, message, not_known) = said(&lent, Err(forbidden()), consent);
        assert!(message.starts_with(&format!("{subject} that of the ClusterTokenIssuer")), "{message}");
        assert!(level == Level::Well && message.ends_with(end), "{message}");
        assert_eq!(
            not_known,
            ["you may not read it, so whether the ServiceAccount consents to its audience is not known"]
        );
    }
}
