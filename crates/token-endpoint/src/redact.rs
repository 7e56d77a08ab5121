//! Redacts in a server's texts what was sent and what looks like a token: some servers echo credentials in error descriptions.
//!
//! What a text costs is bounded, although both the text and the values are the choice of others: a text is searched up to
//! [`MAX_SEARCHED`] bytes, once for all values, each of which is found by its beginning. [`Redactor::hide`] alone searches the whole
//! of a text, for callers that bound it themselves.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Bounds a server's text in a message, in characters.
const MAX_LENGTH: usize = 200;
/// A longer text is not a description, and is dropped without being searched. Bytes.
const MAX_INPUT_LENGTH: usize = 8 * 1024;
/// What follows in a text is dropped. Bytes.
const MAX_SEARCHED: usize = 2 * 1024;
/// A value is found by as many bytes of its beginning.
const ANCHOR_LENGTH: usize = 32;
/// A value that begins before [`MAX_SEARCHED`] is found although it ends later: percent-encoding makes three bytes of one.
const LOOK_AHEAD: usize = 4 * ANCHOR_LENGTH;
/// A run of base64url of this length or more is treated as a token.
const MIN_TOKEN_LENGTH: usize = 32;
/// A shorter secret may be part of another text by coincidence. Bytes.
const MIN_CONTAINED_LENGTH: usize = 8;
/// A longer part of a name between hyphens may be a token.
const MAX_WORD_LENGTH: usize = 20;
const REDACTED: &str = "[redacted]";

/// All bytes except RFC 3986's unreserved characters: every form decoder (RFC 6749, appendix B) agrees on the result, and plain
/// ids and secrets stay unchanged.
const RESERVED_BYTES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes every byte outside of `A-Za-z0-9-._~`; a space becomes `%20`.
pub(super) fn percent_encode(value: &str) -> String {
    utf8_percent_encode(value, RESERVED_BYTES).to_string()
}

/// Takes secrets out of texts: the values that it was given, in every encoding in which others may repeat them, and what looks like
/// a token. The client uses it for the answers of servers.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Shared by the redactors that are made of this one.
    values: Vec<(Kind, Arc<SecretString>)>,
    /// Values that may appear in messages: scopes, audiences, resources.
    plain: Vec<String>,
    /// Built when a first text is searched: most answers have none.
    anchors: OnceLock<Anchors>,
}

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is redacted in texts.
    Name,
    /// The same, and no member of an answer that is kept may contain it.
    Secret,
    /// No member may contain it, but it is too short to be redacted in texts.
    ShortSecret,
}

impl Redactor {
    /// Adds a secret. Of one that is longer than 2 KiB only the beginning is found: add it in parts.
    pub fn add(&mut self, secret: &str) {
        self.push(Kind::Secret, secret);
    }

    /// `text`, of any length, without the secrets that were added and without what looks like a token. Names, UIDs and digests of
    /// images stay. Each line is searched by itself: a secret of several lines is found where it is written on one, and otherwise by
    /// those of its lines that were added.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let hidden = |line: &str| self.redacted(line, line.len(), is_identifier);
        text.split_inclusive('\n').map(hidden).collect()
    }

    /// Adds a value that is redacted in messages but is not a secret.
    pub(super) fn add_name(&mut self, value: &str) {
        self.push(Kind::Name, value);
    }

    fn push(&mut self, kind: Kind, value: &str) {
        if !value.is_empty() {
            self.values.push((kind, Arc::new(value.into())));
            self.anchors = OnceLock::new();
        }
    }

    /// The bytes of the values that were added.
    pub(super) fn bytes(&self) -> usize {
        let values = self.values.iter().map(|(_, value)| value.expose_secret().len());
        values.chain(self.plain.iter().map(String::len)).sum()
    }

    /// Adds a value that is not redacted in messages.
    pub(super) fn add_plain(&mut self, value: &str) {
        self.plain.extend(value.split_whitespace().map(str::to_owned));
        self.plain.push(value.to_owned());
    }

    /// The same, with the answer's own tokens, which it may repeat.
    pub(super) fn with<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let mut with = self.clone();
        for token in tokens {
            match token.len() {
                0 => {}
                // No token, and in every text.
                1..MIN_CONTAINED_LENGTH => with.push(Kind::ShortSecret, token),
                _ => with.add(token),
            }
        }
        with
    }

    /// Whether `text` is one of the secrets, or contains one that is too long for a coincidence.
    pub(super) fn secret_is_in(&self, text: &str) -> bool {
        self.values
            .iter()
            .filter(|(kind, _)| *kind != Kind::Name)
            .map(|(_, value)| value.expose_secret())
            .any(|secret| text == secret || (secret.len() >= MIN_CONTAINED_LENGTH && text.contains(secret)))
    }

    /// Whether a message may have `text` unchanged, which came beside these tokens. Of its words, those that were sent as what
    /// messages may have are permitted anyway.
    pub(super) fn permits<'a>(&'a self, text: &str, tokens: impl IntoIterator<Item = &'a str>) -> bool {
        let others: Vec<&str> =
            text.split(' ').filter(|word| !self.plain.iter().any(|plain| plain == word)).collect();
        let others = others.join(" ");
        // Every answer with a scope comes here: what cannot be in it is not prepared for a search.
        let tokens = tokens.into_iter().filter(|token| token.len() >= MIN_CONTAINED_LENGTH);
        let fits = |value: &&str| shortest_anchor(value) <= others.len();
        let anchors = Anchors::of(self.searched().chain(tokens).filter(fits));
        others.len() <= MAX_SEARCHED && anchors.redact(&others, MAX_SEARCHED, |_, _| false) == others
    }

    /// The values that are searched in texts.
    fn searched(&self) -> impl Iterator<Item = &str> {
        let values = self.values.iter().filter(|(kind, _)| *kind != Kind::ShortSecret);
        values.map(|(_, value)| value.expose_secret())
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
        self.cleaned(text, |_, _| false)
    }

    /// The same of an identifier, whose long words stay: the GUID of a tenant, for example.
    pub(super) fn clean_identifier(&self, text: &str) -> Option<String> {
        self.cleaned(text, is_identifier)
    }

    fn cleaned(&self, text: &str, stays: fn(&str, Range<usize>) -> bool) -> Option<String> {
        if text.len() > MAX_INPUT_LENGTH {
            return None;
        }
        let redacted = self.redacted(text, MAX_SEARCHED, stays);
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

    /// Replaces every part of the beginning of `text` that was sent or looks like a token. All are found before any is replaced,
    /// so that a short value inside of a long one does not hide the long one.
    fn redact(&self, text: &str) -> String {
        self.redacted(text, MAX_SEARCHED, |_, _| false)
    }

    /// The same for the first `max` bytes. A run of characters that looks like a token stays where `stays` says so of the text and
    /// its place.
    fn redacted(&self, text: &str, max: usize, stays: fn(&str, Range<usize>) -> bool) -> String {
        self.anchors.get_or_init(|| Anchors::of(self.searched())).redact(text, max, stays)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

/// Finds the beginnings of values, in one pass for all of them.
#[derive(Clone)]
struct Anchors {
    /// `None`: it could not be built, and everything is hidden.
    automaton: Option<AhoCorasick>,
    /// How many bytes are hidden from an anchor on, by its number.
    lengths: Vec<usize>,
}

impl Anchors {
    fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut anchors: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for value in values {
            // What follows cannot be in a text that is searched.
            for form in forms(beginning(value, MAX_SEARCHED + LOOK_AHEAD)) {
                let anchor: Vec<u8> =
                    form.bytes().take(ANCHOR_LENGTH).map(|byte| byte.to_ascii_lowercase()).collect();
                let length = anchors.entry(anchor).or_default();
                *length = form.len().max(*length);
            }
        }
        anchors.remove(&Vec::new());
        let (anchors, lengths): (Vec<_>, Vec<_>) = anchors.into_iter().unzip();
        // In any ASCII case: percent-encoding has two.
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(anchors)
            .ok();
        Self { automaton, lengths }
    }

    /// See [`Redactor::redacted`].
    fn redact(&self, text: &str, max: usize, stays: fn(&str, Range<usize>) -> bool) -> String {
        let shown = beginning(text, max);
        let searched = beginning(text, shown.len() + LOOK_AHEAD);
        let mut hidden = vec![false; searched.len()];
        self.hide(searched.as_bytes(), &mut hidden);
        // Encoders differ in what they percent-encode: the decoded text has the raw value in every case.
        let (decoded, origins) = percent_decode(searched.as_bytes());
        let mut hidden_decoded = vec![false; decoded.len()];
        self.hide(&decoded, &mut hidden_decoded);
        for (origin, _) in origins.into_iter().zip(hidden_decoded).filter(|(_, hide)| *hide) {
            if let Some(marks) = hidden.get_mut(origin) {
                marks.fill(true);
            }
        }
        hide_tokens(searched, &mut hidden, stays);

        let mut out = String::with_capacity(shown.len());
        let mut inside = false;
        for (at, c) in shown.char_indices() {
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

    fn hide(&self, text: &[u8], hidden: &mut [bool]) {
        let Some(automaton) = &self.automaton else { return hidden.fill(true) };
        // Where what begins here or before ends: each byte is marked once, however many values overlap.
        let mut ends = vec![0; text.len()];
        for found in automaton.find_overlapping_iter(text) {
            let length = self.lengths.get(found.pattern().as_usize()).copied().unwrap_or_default();
            if let Some(end) = ends.get_mut(found.start()) {
                *end = length.saturating_add(found.start()).max(*end);
            }
        }
        let mut until = 0;
        for (at, (end, hide)) in ends.into_iter().zip(hidden).enumerate() {
            until = until.max(end);
            *hide |= at < until;
        }
    }
}

/// The least length of what a value is found by. Of its [`forms`] only the inner ones in base64 may be shorter than the value.
fn shortest_anchor(value: &str) -> usize {
    let inner = (value.len() / 3 * 4).saturating_sub(4).max(MIN_CONTAINED_LENGTH);
    value.len().min(inner).min(ANCHOR_LENGTH)
}

/// A value unencoded, percent-encoded, form-encoded, JSON-escaped, and in both alphabets of base64, alone and inside of a longer
/// value.
fn forms(value: &str) -> Vec<String> {
    let json = serde_json::Value::from(value).to_string();
    let mut forms = vec![
        value.to_owned(),
        percent_encode(value),
        url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        json.trim_matches('"').to_owned(),
    ];
    for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.push(alphabet.encode(value));
        // The characters at both ends depend on the neighbours.
        for before in 0..3 {
            let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(value.bytes()).collect();
            let whole = bytes.get(..bytes.len() / 3 * 3).unwrap_or_default();
            let inner: String =
                alphabet.encode(whole).chars().skip(if before == 0 { 0 } else { 4 }).collect();
            forms.extend((inner.len() >= MIN_CONTAINED_LENGTH).then_some(inner));
        }
    }
    forms
}

/// At most the first `max` bytes, of whole characters.
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
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

/// Marks JWTs (`eyJ...`), and long runs of base64url except those of which `stays` is true.
fn hide_tokens(text: &str, hidden: &mut [bool], stays: fn(&str, Range<usize>) -> bool) {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let mut mark = |from: usize, to: usize| {
        if let Some(marks) = hidden.get_mut(from..to) {
            marks.fill(true);
        }
    };
    let mut until = 0;
    for (at, _) in text.match_indices("eyJ") {
        if at >= until {
            until = at + text.bytes().skip(at).take_while(|&b| is_token(b) || b == b'.').count();
            mark(at, until);
        }
    }
    let mut start = 0;
    for run in text.as_bytes().split(|&b| !is_token(b)) {
        let end = start + run.len();
        if run.len() >= MIN_TOKEN_LENGTH && !stays(text, start..end) {
            mark(start, end);
        }
        start = end + 1;
    }
}

/// Whether a run is made of words, as names, UIDs and metrics are, or is the digest of an image.
fn is_identifier(text: &str, place: Range<usize>) -> bool {
    const DIGEST: &str = "sha256:";
    let run = text.get(place.clone()).unwrap_or_default();
    let is_word = |word: &str| {
        word.len() <= MAX_WORD_LENGTH && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let is_digest = || {
        let is_hex = run.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        run.len() == 64 && is_hex && text.get(..place.start).is_some_and(|before| before.ends_with(DIGEST))
    };
    run.bytes().all(|b| b.is_ascii_alphabetic()) || run.split(['-', '_']).all(is_word) || is_digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shortest_anchor_is_no_longer_than_that_of_any_form(value in "\\PC{1,60}|[\"\\\\a%+/ ]{1,12}") {
            for form in forms(&value) {
                prop_assert!(shortest_anchor(&value) <= form.len().min(ANCHOR_LENGTH), "{form}");
            }
        }
    }

    #[test]
    fn permits_refuses_what_was_sent_and_tokens_of_the_answer_in_texts_as_short_as_they_are() {
        let mut redactor = Redactor::default();
        redactor.add("secret12");
        redactor.add_name("id");
        redactor.add_plain("read");
        for (text, permitted) in [
            ("", true),
            ("read", true),
            ("read all", true),
            ("secret12", false),
            ("c2VjcmV0MTI", false),
            ("read id", false),
            ("tokens-1", false),
            ("tokens", true),
        ] {
            assert_eq!(redactor.permits(text, ["tokens-1", "all"]), permitted, "{text}");
        }
    }
}
