//! The values of the Secrets that belong to the TokenSources. They are read only to be taken out of all texts: what another
//! program or a person wrote into a log, an event or a manifest may repeat one. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use token_endpoint::Redactor;

use crate::secret::RECORD_ANNOTATION;

/// A shorter value may be part of a text by coincidence. Bytes.
const MIN_VALUE_BYTES: usize = 8;
/// A shorter word of a value is hidden only as a part of the whole. Bytes.
const MIN_WORD_BYTES: usize = 16;
/// The redactor finds a part of this length in every encoding. Bytes.
const PART_BYTES: usize = 1024;
/// A longer part of a word between dots and hyphens is no part of a name.
const MAX_NAME_PART_BYTES: usize = 20;
/// The most parts of values that are looked for: each takes about 10 kB while texts are searched.
const MAX_PARTS: usize = 10_000;

/// The key of a client's id, which manifests and messages repeat.
pub(super) const CLIENT_ID: &str = "client_id";

/// What is taken out of all texts.
#[derive(Debug, Default)]
pub(super) struct SecretValues {
    redactor: Redactor,
    parts: BTreeSet<String>,
    /// Whether there are more values than are looked for: free text must be left out.
    pub(super) too_many: bool,
}

impl SecretValues {
    /// Adds the values of a Secret, except for the id of a client where it has one.
    pub(super) fn add(&mut self, secret: &Secret, has_client_id: bool) {
        // What the operator writes has tokens under every name that a template chooses.
        let is_target =
            secret.metadata.annotations.iter().flatten().any(|(name, _)| name == RECORD_ANNOTATION);
        let is_public = |key: &str| has_client_id && !is_target && key == CLIENT_ID;
        for (_, value) in secret.data.iter().flatten().filter(|(key, _)| !is_public(key)) {
            match std::str::from_utf8(&value.0) {
                Ok(text) => self.add_text(text),
                Err(_) => self.add_part(&STANDARD.encode(&value.0)),
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        // A line break at the end is not sent, and not logged.
        for part in std::iter::once(text).chain(text.lines()) {
            self.add_part(part);
            self.add_part(part.trim());
        }
        for word in words(text) {
            self.add_part(word);
            // Such as `auth` of a docker configuration.
            if let Some(decoded) = STANDARD.decode(word).ok().and_then(|bytes| String::from_utf8(bytes).ok())
            {
                words(&decoded).for_each(|word| self.add_part(word));
            }
        }
    }

    fn add_part(&mut self, value: &str) {
        let is_public = value.parse::<Timestamp>().is_ok();
        if value.len() < MIN_VALUE_BYTES || is_public {
            return;
        }
        for part in value.as_bytes().chunks(PART_BYTES).filter(|part| part.len() >= MIN_VALUE_BYTES) {
            // What a cut makes of a character is not looked for.
            let part = String::from_utf8_lossy(part);
            let part = part.trim_matches(char::REPLACEMENT_CHARACTER);
            if self.parts.len() >= MAX_PARTS && !self.parts.contains(part) {
                self.too_many = true;
            } else if self.parts.insert(part.to_owned()) {
                self.redactor.add(part);
            }
        }
    }

    /// The text without these values, and without what looks like a token.
    pub(super) fn hide(&self, text: &str) -> String {
        self.redactor.hide(text)
    }

    /// The same for all texts of a document.
    pub(super) fn hide_in(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.hide(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.hide_in(item)).collect()),
            Value::Object(members) => {
                Value::Object(members.into_iter().map(|(name, value)| (name, self.hide_in(value))).collect())
            }
            other => other,
        }
    }
}

/// The words that may be credentials: of the characters of RFC 6750's `b64token`, and no names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part_of_word = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let words = text.split(move |c| !is_part_of_word(c)).flat_map(|word| [word, word.trim_matches('=')]);
    words.filter(|word| word.len() >= MIN_WORD_BYTES && !is_name(word))
}

/// Whether it is a host, a path or a name.
fn is_name(word: &str) -> bool {
    let is_part = |part: &str| {
        part.len() <= MAX_NAME_PART_BYTES
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    word.split(['.', '-', '_', '/']).all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(data: &[(&str, &[u8])]) -> Secret {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
        serde_json::from_value(json!({"data": data})).unwrap()
    }

    fn values(data: &[(&str, &[u8])]) -> SecretValues {
        let mut values = SecretValues::default();
        values.add(&secret(data), true);
        values
    }

    #[test]
    fn values_of_secrets_are_hidden_whole_and_by_their_words() {
        let token = "Zq5rNfLk2YbWtVx8.part";
        let docker =
            json!({"auths": {"registry.example.com": {"auth": STANDARD.encode(format!("user:{token}"))}}});
        let npmrc = format!("//registry.example.com/:_authToken={token}\n");
        let long = format!("{}-{}", "ab1".repeat(400), "the end of it");
        let key =
            "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49\n-----END PRIVATE KEY-----\n";
        let values = values(&[
            ("client_secret", b"correct horse"),
            // As `echo` writes it.
            ("password", b"S3cr3t!Pass\n"),
            ("pin", b"1234567890"),
            (".dockerconfigjson", docker.to_string().as_bytes()),
            (".npmrc", npmrc.as_bytes()),
            ("long", long.as_bytes()),
            ("key.pem", key.as_bytes()),
            ("binary", b"\xff\xfe\x00keystore of bytes\x01"),
        ]);
        for (text, hidden) in [
            ("it is correct horse!", "it is [redacted]!"),
            ("password S3cr3t!Pass was refused", "password [redacted] was refused"),
            ("pin 1234567890", "pin [redacted]"),
            (&format!("Bearer {token}"), "Bearer [redacted]"),
            (&long, "[redacted]"),
            ("line MIGHAgEAMBMGByqGSM49AgEGCCqGSM49", "line [redacted]"),
            (&format!("x {}", STANDARD.encode(b"\xff\xfe\x00keystore of bytes\x01")), "x [redacted]"),
            ("registry.example.com stays", "registry.example.com stays"),
        ] {
            assert_eq!(values.hide(text), hidden);
        }
        assert_eq!(values.hide_in(json!({"a": ["correct horse", 1]})), json!({"a": ["[redacted]", 1]}));
    }

    #[test]
    fn values_that_are_no_secrets_stay() {
        let values = values(&[
            ("client_id", b"payments-team-client"),
            ("token_type", b"Bearer"),
            ("expires_at", b"2027-01-15T08:03:20Z"),
        ]);
        let text = "payments-team-client has a Bearer until 2027-01-15T08:03:20Z";
        assert_eq!(values.hide(text), text);
    }

    #[test]
    fn client_id_is_hidden_where_it_is_none() {
        let mut target = secret(&[("client_id", b"Zq5rNfLk2YbWtVx8")]);
        target.metadata.annotations =
            Some([(RECORD_ANNOTATION.to_owned(), "{}".to_owned())].into_iter().collect());
        for (secret, has_client_id) in
            [(target, true), (secret(&[("client_id", b"Zq5rNfLk2YbWtVx8")]), false)]
        {
            let mut values = SecretValues::default();
            values.add(&secret, has_client_id);
            assert_eq!(values.hide("it is Zq5rNfLk2YbWtVx8"), "it is [redacted]");
        }
    }

    #[test]
    fn more_values_than_are_looked_for_are_reported() {
        let many: String = (0..MAX_PARTS).map(|n| format!("Word-{n:032} ")).collect();
        assert!(values(&[("many", many.as_bytes())]).too_many);
        assert!(!values(&[("few", b"Word-00000000000000001")]).too_many);
    }
}
