//! What `explain` says of credentials and refresh tokens.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
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
