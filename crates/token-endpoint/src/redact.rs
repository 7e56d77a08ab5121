//! Redacts in a server's texts what was sent and what looks like a token: some servers echo credentials in error descriptions.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::ops::Range;

/// Bounds a server's text in a message, in characters.
const MAX_LENGTH: usize = 200;
/// A longer text is not a description, and is dropped without being searched. Bytes.
const MAX_INPUT_LENGTH: usize = 8 * 1024;
/// A run of base64url of this length or more is treated as a token.
const MIN_TOKEN_LENGTH: usize = 32;
/// A shorter secret may be part of another text by coincidence. Bytes.
const MIN_CONTAINED_LENGTH: usize = 8;
const REDACTED: &str = "[redacted]";

/// All bytes except RFC 3986's unreserved characters: every form decoder (RFC 6749, appendix B) agrees on the result, and plain
/// ids and secrets stay unchanged.
const RESERVED_BYTES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes every byte outside of `A-Za-z0-9-._~`; a space becomes `%20`.
pub(super) fn percent_encode(value: &str) -> String {
    utf8_percent_encode(value, RESERVED_BYTES).to_string()
}

/// The values that were sent, in every encoding in which a server may echo them.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    sent: Vec<SecretString>,
    /// The secrets among them, unencoded.
    secrets: Vec<SecretString>,
    /// Values that may appear in messages: scopes, audiences, resources.
    plain: Vec<String>,
}

impl Redactor {
    /// Adds a secret.
    pub(super) fn add(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.secrets.push(secret.into());
        }
        self.add_name(secret);
    }

    /// Whether `text` is one of the secrets, or contains one that is too long for a coincidence.
    pub(super) fn secret_is_in(&self, text: &str) -> bool {
        self.secrets
            .iter()
            .map(ExposeSecret::expose_secret)
            .any(|secret| text == secret || (secret.len() >= MIN_CONTAINED_LENGTH && text.contains(secret)))
    }

    /// Adds a value that is redacted in messages but is not a secret: unencoded, percent-encoded, form-encoded, JSON-escaped and
    /// in both alphabets of base64.
    pub(super) fn add_name(&mut self, value: &str) {
        let json = serde_json::Value::from(value).to_string();
        let forms = [
            value.to_owned(),
            percent_encode(value),
            url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
            json.trim_matches('"').to_owned(),
            STANDARD_NO_PAD.encode(value),
            URL_SAFE_NO_PAD.encode(value),
        ];
        for form in forms {
            if !form.is_empty() && !self.sent.iter().any(|known| known.expose_secret() == form) {
                self.sent.push(form.into());
            }
        }
    }

    /// Adds a value that is not redacted in messages.
    pub(super) fn add_plain(&mut self, value: &str) {
        self.plain.extend(value.split_whitespace().map(str::to_owned));
        self.plain.push(value.to_owned());
    }

    /// `text` without everything that was sent, also without what messages may show.
    pub(super) fn without_sent(&self, text: &str) -> String {
        let mut plain: Vec<String> = self.plain.iter().map(|value| value.to_lowercase()).collect();
        plain.retain(|value| !value.is_empty());
        plain.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        let redacted = self.redact(text).replace(REDACTED, " ").to_lowercase();
        plain.iter().fold(redacted, |text, value| text.replace(value, " "))
    }

    /// `text` without what was sent and without what looks like a token, reduced to the characters that RFC 6749, 5.2 allows in
    /// `error_description`, at most 200 of them. `None`: nothing is left.
    pub(super) fn clean(&self, text: &str) -> Option<String> {
        if text.len() > MAX_INPUT_LENGTH {
            return None;
        }
        let redacted = self.redact(text);
        let plain: String = redacted
            .chars()
            .map(|c| match c {
                '"' => '\'',
                '\\' => '/',
                ' '..='~' => c,
                c if c.is_whitespace() || c.is_control() => ' ',
                _ => '?',
            })
            .collect();
        let plain = plain.trim();
        if plain.is_empty() {
            None
        } else if plain.len() > MAX_LENGTH {
            Some(plain.chars().take(MAX_LENGTH - 3).chain("...".chars()).collect())
        } else {
            Some(plain.to_owned())
        }
    }

    /// Replaces every part of `text` that was sent or looks like a token. All are found before any is replaced, so that a short
    /// value inside of a long one does not hide the long one.
    fn redact(&self, text: &str) -> String {
        let mut hidden = vec![false; text.len()];
        // Encoders differ in what they percent-encode: the decoded text has the raw value in every case.
        let (decoded, origins) = percent_decode(text.as_bytes());
        let mut hidden_decoded = vec![false; decoded.len()];
        for sent in &self.sent {
            hide_occurrences(text.as_bytes(), sent.expose_secret().as_bytes(), &mut hidden);
            hide_occurrences(&decoded, sent.expose_secret().as_bytes(), &mut hidden_decoded);
        }
        for (origin, _) in origins.into_iter().zip(hidden_decoded).filter(|(_, hide)| *hide) {
            if let Some(marks) = hidden.get_mut(origin) {
                marks.fill(true);
            }
        }
        hide_tokens(text, &mut hidden);

        let mut out = String::with_capacity(text.len());
        let mut inside = false;
        for (at, c) in text.char_indices() {
            let hide = hidden.get(at).copied().unwrap_or_default();
            if hide && !inside {
                out.push_str(REDACTED);
            }
            if !hide {
                out.push(c);
            }
            inside = hide;
        }
        out
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.sent.len())
    }
}

/// The bytes of `text` with `%XX` decoded, and the range in `text` from which each byte came.
fn percent_decode(text: &[u8]) -> (Vec<u8>, Vec<Range<usize>>) {
    let hex = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut origins = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (byte, length) = match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or_default(), 3),
            _ => (byte, 1),
        };
        decoded.push(byte);
        origins.push(at..at + length);
        at += length;
    }
    (decoded, origins)
}

/// Marks every occurrence of `needle`, in any ASCII case (percent-encoding has two).
fn hide_occurrences(text: &[u8], needle: &[u8], hidden: &mut [bool]) {
    if needle.is_empty() {
        return;
    }
    for (at, window) in text.windows(needle.len()).enumerate() {
        if window.eq_ignore_ascii_case(needle)
            && let Some(marks) = hidden.get_mut(at..at + needle.len())
        {
            marks.fill(true);
        }
    }
}

/// Marks JWTs (`eyJ...`) and long runs of base64url.
fn hide_tokens(text: &str, hidden: &mut [bool]) {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let mut mark = |from: usize, to: usize| {
        if let Some(marks) = hidden.get_mut(from..to) {
            marks.fill(true);
        }
    };
    for (at, _) in text.match_indices("eyJ") {
        let length = text.bytes().skip(at).take_while(|&b| is_token(b) || b == b'.').count();
        mark(at, at + length);
    }
    let mut start = 0;
    for run in text.as_bytes().split(|&b| !is_token(b)) {
        if run.len() >= MIN_TOKEN_LENGTH {
            mark(start, start + run.len());
        }
        start += run.len() + 1;
    }
}
