//! For any template, rendering does not panic, the output fits into a Secret, and errors do not contain the token.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use secrecy::{ExposeSecret, SecretString};
use tokensource_api as api;
use tokensource_api::permitted::ALLOWED_TYPES;
use tokensource_operator::secret::{Template, Token};

const TOKEN: &str = "canary-token-4711+/=";
const KEYS: [&str; 4] = [".dockerconfigjson", ".dockercfg", "password", "key"];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Values separated by NUL. The length selects the type, so that all bytes go to the templates.
    let sources = KEYS.into_iter().zip(text.split('\0'));
    let spec = api::Template {
        kind: ALLOWED_TYPES.get(text.len() % 8).map(|kind| (*kind).to_owned()),
        metadata: None,
        data: Some(sources.map(|(key, source)| (key.to_owned(), source.to_owned())).collect()),
    };
    let values: BTreeMap<String, SecretString> =
        [("url", "https://a.example.com"), ("n", "7")].map(|(name, value)| (name.to_owned(), value.into())).into();
    let access_token = TOKEN.into();
    let token = Token {
        access_token: &access_token,
        token_type: "Bearer",
        issued_at: "2026-11-22T05:00:00Z".parse().unwrap(),
        expires_at: "2026-11-22T05:05:00Z".parse().unwrap(),
        scope: "read".into(),
        values: &values,
    };
    match Template::of(Some(&spec), &["url", "n", "absent"]).and_then(|template| template.render(&token)) {
        Ok(rendered) => {
            let size: usize = rendered.data.values().map(|value| value.expose_secret().len()).sum();
            assert!(size <= 1024 * 1024);
            assert_ne!(rendered.kind, "kubernetes.io/service-account-token");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 1000 && !message.contains("canary"));
        }
    }
});
