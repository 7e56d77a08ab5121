#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Text of others: in the encodings in which people store it, and as it is shown.

use std::borrow::Cow;

/// Bounds what others wrote where it is shown, in bytes.
const MAX_SHOWN_BYTES: usize = 1024;
/// Bounds a message of this program, which may quote several such texts, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What others wrote (annotations, names, messages of the API server and of webhooks), as it is shown: on one line, without
/// characters that move the cursor or turn the text round, and cut at about 1 kB.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    cut(text, MAX_SHOWN_BYTES)
}

/// The same for a message of this program, where what it quotes was not cut before.
pub(crate) fn shown_message(text: &str) -> Cow<'_, str> {
    cut(text, MAX_MESSAGE_BYTES)
}

/// A text as one word of a POSIX shell, for a command that people copy: quoted, unless it has plain characters only.
pub(crate) fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    // Escaping may lengthen a text, and an escape must not be cut.
    let mut left = max_bytes;
    let mut fits = |c: char| {
        let needed = if is_active(c) { escape_bytes(c) } else { c.len_utf8() };
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    let end = text.char_indices().find(|(_, c)| !fits(*c));
    match end.and_then(|(end, _)| text.get(..end)) {
        Some(start) => Cow::Owned(format!("{}...", escaped(start, is_active))),
        None => escaped(text, is_active),
    }
}

/// The bytes of an escape. A character outside of the first 65,536 is written as two.
fn escape_bytes(c: char) -> usize {
    if matches!(c, '\n' | '\r' | '\t') { 2 } else { 6 * c.len_utf16() }
}

/// Escapes the characters that `escapes` says, as JSON does: so that a document of JSON remains one.
pub(crate) fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escapes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !escapes(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => {
                let mut units = [0; 2];
                out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal, a log or a reader does something else with it than show it: control characters (a line break forges a
/// line, ESC moves the cursor), Unicode's line separators, characters that turn the direction of text round (UAX 9), and those
/// that are not seen at all.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A byte order mark, as it reads in text.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The bytes are neither UTF-8 nor UTF-16 with a byte order mark.
pub(crate) struct NotText;

/// Reads UTF-8, and UTF-16 with a byte order mark, which `>` of Windows PowerShell writes. The mark of UTF-16 is left out.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, NotText> {
    let (unit, rest): (fn([u8; 2]) -> u16, _) = match bytes {
        [0xff, 0xfe, rest @ ..] => (u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => (u16::from_be_bytes, rest),
        _ => return std::str::from_utf8(bytes).map(Cow::from).map_err(|_| NotText),
    };
    let (pairs, []) = rest.as_chunks::<2>() else { return Err(NotText) };
    let units = pairs.iter().map(|pair| unit(*pair));
    char::decode_utf16(units).collect::<Result<String, _>>().map(Cow::from).map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_word_is_one_word_whatever_is_in_it() {
        for (text, expected) in [
            ("https://idp.example.com:8443/a", "https://idp.example.com:8443/a"),
            ("x;curl${IFS}evil|sh", "'x;curl${IFS}evil|sh'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[test]
    fn shown_is_one_line_without_active_characters_and_about_a_kilobyte() {
        for (text, expected) in [
            ("it's plain: é \u{1f511} \"a\" \\n", "it's plain: é \u{1f511} \"a\" \\n"),
            ("a\nlevel=ERROR forged\r\tb", "a\\nlevel=ERROR forged\\r\\tb"),
            ("\u{1b}[2J\u{9b}31m\0\u{7f}", "\\u001b[2J\\u009b31m\\u0000\\u007f"),
            (
                "user\u{202e}nimda\u{2066}\u{2028}\u{200b}\u{feff}",
                "user\\u202enimda\\u2066\\u2028\\u200b\\ufeff",
            ),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(shown_message(text), expected);
        }
        for unit in ["x", "é", "\u{1f511}", "\n", "\u{1b}", "\u{e0041}", "\u{202e}ab"] {
            let long = shown(&unit.repeat(240_000)).into_owned();
            assert!(
                long.ends_with("...") && (1000..=MAX_SHOWN_BYTES + 3).contains(&long.len()),
                "{}",
                long.len()
            );
            assert!(!long.contains(is_active));
            assert!((4000..=MAX_MESSAGE_BYTES + 3).contains(&shown_message(&unit.repeat(240_000)).len()));
        }
        assert_eq!(shown(&"x".repeat(MAX_SHOWN_BYTES)), "x".repeat(MAX_SHOWN_BYTES));
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let text = "a\u{202e}\u{e0041}\n\u{1b}";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escaped(&json, is_active);
        assert!(!escaped.contains(is_active) && escaped.contains("\\u202e"), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn decode_reads_utf_8_and_marked_utf_16_only() {
        let utf16 = |mark: [u8; 2], of: fn(u16) -> [u8; 2]| {
            [mark.to_vec(), "sé🔑\r\n".encode_utf16().flat_map(of).collect()].concat()
        };
        for (bytes, text) in [
            (utf16([0xff, 0xfe], u16::to_le_bytes), Some("sé🔑\r\n")),
            (utf16([0xfe, 0xff], u16::to_be_bytes), Some("sé🔑\r\n")),
            ("\u{feff}s".as_bytes().to_vec(), Some("\u{feff}s")),
            (vec![0xff, 0xfe], Some("")),
            (vec![0xff, 0xfe, b's'], None),
            (vec![0xff, 0xfe, 0x00, 0xd8], None),
            (vec![0xc3], None),
        ] {
            assert_eq!(decode(&bytes).ok().as_deref(), text, "{bytes:?}");
        }
    }
}
