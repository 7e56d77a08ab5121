//! Decodes bodies that are compressed although `Accept-Encoding: identity` was sent, as some gateways do.

use super::limits::MAX_BODY;
use crate::json::parse;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use std::io::{ErrorKind, Read};

/// A body after one layer of compression was removed, if there was one.
pub(super) enum Decoded {
    /// Whole, or not compressed, or damaged and left as it came.
    Body(Vec<u8>),
    /// More than [`MAX_BODY`] bytes.
    TooLarge,
    /// It ends before its end, as where the connection was cut behind a gateway.
    Truncated,
}

/// Decodes by the first bytes, because `Content-Encoding` is missing or wrong on some of these bodies. JSON begins with none of
/// them.
pub(super) fn decode(body: Vec<u8>) -> Decoded {
    let decoded = match body.as_slice() {
        [0x1f, 0x8b, 8, ..] => inflate(GzDecoder::new(body.as_slice())), // RFC 1952, 2.3.1
        // RFC 1950, 2.2: deflate with a window of 32 KiB, and a check number.
        [0x78, flags, ..] if (0x7800 + u16::from(*flags)).is_multiple_of(31) => {
            inflate(ZlibDecoder::new(body.as_slice()))
        }
        _ => return Decoded::Body(body),
    };
    decoded.unwrap_or(Decoded::Body(body))
}

/// `None`: this is no compressed body, or a damaged one.
fn inflate(decoder: impl Read) -> Option<Decoded> {
    let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    match decoder.take(limit).read_to_end(&mut plain) {
        Ok(_) if plain.len() > MAX_BODY => Some(Decoded::TooLarge),
        Ok(_) => Some(Decoded::Body(plain)),
        // Only the check sum is missing: the document may hold the only valid refresh token.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => match parse(&plain) {
            Some(_) => Some(Decoded::Body(plain)),
            None => Some(Decoded::Truncated),
        },
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write as _;

    const JSON: &[u8] = br#"{"access_token":"t"}"#;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn body(bytes: &[u8]) -> Vec<u8> {
        match decode(bytes.to_vec()) {
            Decoded::Body(body) => body,
            Decoded::TooLarge => b"too large".to_vec(),
            Decoded::Truncated => b"truncated".to_vec(),
        }
    }

    #[test]
    fn decode_removes_one_layer_of_gzip_or_zlib() {
        for level in 0..=9 {
            assert_eq!(body(&zlib(JSON, level)), JSON, "level {level}");
        }
        assert_eq!(body(&gzip(JSON)), JSON);
        assert_eq!(body(&gzip(&gzip(JSON))), gzip(JSON));
        for plain in [
            JSON,
            b"",
            b"x",
            b"x^ is no zlib",
            b"\x1f\x8b",
            b"\x1f\x8b\x08\xff damaged, and long enough to see it",
        ] {
            assert!(matches!(body(plain).as_slice(), it if it == plain || it == b"truncated"), "{plain:?}");
        }
        let mut damaged = gzip(JSON);
        damaged[12] ^= 0xff;
        assert_eq!(body(&damaged), damaged);
    }

    #[test]
    fn decode_bounds_what_a_small_body_becomes() {
        for size in [MAX_BODY, MAX_BODY + 1, 64 * MAX_BODY] {
            let decoded = body(&gzip(&vec![b' '; size]));
            assert_eq!(decoded == b"too large", size > MAX_BODY, "{size}");
        }
    }

    #[test]
    fn decode_of_a_cut_body_is_whole_or_truncated() {
        for whole in [gzip(JSON), zlib(JSON, 6)] {
            for length in 3..whole.len() {
                let decoded = body(&whole[..length]);
                assert!(decoded == JSON || decoded == b"truncated", "{length}: {decoded:?}");
            }
        }
    }
}
