//! Texts of any length, of which secrets are taken out.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::super::Redactor;
use super::SECRET;

fn redactor() -> Redactor {
    let mut redactor = Redactor::default();
    redactor.add(SECRET);
    redactor
}

#[test]
fn hide_finds_a_secret_anywhere_in_a_long_text_in_every_encoding() {
    let encoded =
        |form: &str| format!("{}\nlevel=INFO it is {form} here\nthe end\n", "a line\n".repeat(5000));
    for form in [
        SECRET.to_owned(),
        SECRET.to_uppercase(),
        STANDARD.encode(SECRET),
        STANDARD.encode(format!("id:{SECRET}")),
        URL_SAFE_NO_PAD.encode(format!("{{\"password\":\"{SECRET}\"}}")),
        url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect(),
        "correct%20horse%2Fbattery%2bstaple".to_owned(),
    ] {
        let hidden = redactor().hide(&encoded(&form));
        assert!(!hidden.contains(&form) && hidden.contains("[redacted]"), "{form}");
        assert!(hidden.ends_with(" here\nthe end\n") && hidden.starts_with("a line\n"), "{form}");
    }
}

#[test]
fn hide_keeps_names_and_hides_what_looks_like_a_token() {
    for stays in [
        "pod tokensource-operator-7d9f8c6b54-x2x9q of tokensource-operator-and-a-longer-name",
        "uid 3f2504e0-4f89-41d3-9a0c-0305e82c3301, tokensource_reconcile_duration_seconds_bucket",
        "image ghcr.io/a/b@sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "ValidatingAdmissionPolicyBindings, token 3f9a1c0d42be",
    ] {
        assert_eq!(redactor().hide(stays), stays);
    }
    for token in [
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln",
        "dGhlIHJlc3Qgb2YgYSBrZXkgaW4gUEVNIGZvcm1hdAo",
    ] {
        assert_eq!(redactor().hide(&format!("it is {token} here")), "it is [redacted] here", "{token}");
    }
}
