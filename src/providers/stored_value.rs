//! Values of the credentials Secret as people store them: what is around a credential and cannot be a part of it is cut off,
//! what may be a part of it is only doubted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::text::BYTE_ORDER_MARK;

/// Shorter text is valid base64 too often by chance. Bytes.
const MIN_BASE64_LENGTH: usize = 16;

/// A value without what cannot be a part of a credential.
pub(super) struct Cut<'a> {
    pub(super) value: &'a str,
    /// What was cut off, as a clause of a remark.
    pub(super) remark: Option<String>,
}

/// Cuts off the ends what is no VSCHAR (RFC 6749, appendix A), the characters of ids, secrets and tokens: line breaks, byte
/// order marks, no-break spaces. An ASCII space is one, and stays.
pub(super) fn cut(text: &str) -> Cut<'_> {
    let foreign = |c: char| !(' '..='~').contains(&c);
    let end = text.trim_start_matches(foreign);
    let value = end.trim_end_matches(foreign);
    let before = text.strip_suffix(end).unwrap_or_default();
    let after = end.strip_prefix(value).unwrap_or_default();
    let remark = match (before.is_empty(), after.is_empty()) {
        (true, true) => None,
        (true, false) if named(after) == NEWLINE => Some("ends in a newline, which was left out".to_owned()),
        (true, false) => Some(format!("ends in {}, which was left out", named(after))),
        (false, true) => Some(format!("begins with {}, which was left out", named(before))),
        (false, false) => {
            Some(format!("begins with {} and ends in {}, which were left out", named(before), named(after)))
        }
    };
    Cut { value, remark }
}

const NEWLINE: &str = "a newline";

fn named(cut: &str) -> &'static str {
    if cut.chars().all(|c| c == BYTE_ORDER_MARK) {
        "a byte order mark"
    } else if cut.chars().all(|c| matches!(c, '\r' | '\n')) {
        NEWLINE
    } else {
        "characters that are not printable ASCII"
    }
}

/// Why a value may not be what its issuer gave, as a question that follows the key's name. Only a rejection makes it worth
/// asking, since each of these may be right.
pub(super) fn doubt(value: &str, what: &str) -> Option<String> {
    let is_quoted = |quote: char| {
        value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
            .is_some_and(|inside| !inside.is_empty())
    };
    if value.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK) != value {
        Some(format!("begins or ends in a space: is that a part of the {what}?"))
    } else if is_quoted('"') || is_quoted('\'') {
        Some(format!("is in quotes: are they a part of the {what}?"))
    } else if is_base64_of_text(value) {
        Some(
            "is base64 of a text: was it encoded twice (`data` takes base64, `stringData` the text itself)?"
                .to_owned(),
        )
    } else {
        None
    }
}

/// Whether base64 makes printable text of it, which that of random bytes does not.
fn is_base64_of_text(value: &str) -> bool {
    let is_text = |bytes: &[u8]| {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        !bytes.is_empty() && bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
    };
    value.len() >= MIN_BASE64_LENGTH && STANDARD.decode(value).is_ok_and(|bytes| is_text(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_takes_only_what_is_no_vschar_off_the_ends() {
        for (text, value, remark) in [
            ("s3", "s3", None),
            (" s3 ", " s3 ", None),
            ("\"s3\"", "\"s3\"", None),
            ("s\u{a0}\u{feff}3", "s\u{a0}\u{feff}3", None),
            ("s3\r\n\n", "s3", Some("ends in a newline, which was left out")),
            ("\u{feff}s3", "s3", Some("begins with a byte order mark, which was left out")),
            ("\n\ts3", "s3", Some("begins with characters that are not printable ASCII, which was left out")),
            ("s3\u{200b}", "s3", Some("ends in characters that are not printable ASCII, which was left out")),
            (
                "\u{feff}s3\r\n",
                "s3",
                Some("begins with a byte order mark and ends in a newline, which were left out"),
            ),
            (
                "\u{feff}\n",
                "",
                Some("begins with characters that are not printable ASCII, which was left out"),
            ),
        ] {
            let cut = cut(text);
            assert_eq!((cut.value, cut.remark.as_deref()), (value, remark), "{text:?}");
        }
    }

    #[test]
    fn doubt_is_about_spaces_quotes_and_base64_of_text() {
        for (value, expected) in [
            (" s3", Some("begins or ends in a space: is that a part of the client secret?")),
            ("s3\u{a0}", Some("begins or ends in a space: is that a part of the client secret?")),
            ("'s3'", Some("is in quotes: are they a part of the client secret?")),
            (
                "aHVudGVyMiBodW50ZXIyCg==",
                Some(
                    "is base64 of a text: was it encoded twice (`data` takes base64, `stringData` the text itself)?",
                ),
            ),
            ("aHVudGVy", None),                 // short
            ("3q2+7wABAgMEBQYHCAkKCw==", None), // of random bytes
            ("0123456789abcdef0123456789abcdef", None),
            ("\"\"", None),
            ("s3 s3", None),
        ] {
            assert_eq!(doubt(value, "client secret").as_deref(), expected, "{value}");
        }
    }
}
