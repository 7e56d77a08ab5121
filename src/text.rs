#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Text in the encodings in which people store it.

use std::borrow::Cow;

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
