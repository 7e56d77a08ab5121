//! Reads the fields of certificates (RFC 5280) that explain why one is not trusted, and computes thumbprints.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::der::{
    BIT_STRING, DerReader, DerValue, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, UTC_TIME,
};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The value of `x5t#S256` (RFC 7515, 4.1.8).
pub(super) fn thumbprint(certificate: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, certificate))
}

/// The fields of a certificate that are used here.
#[derive(Debug)]
pub(super) struct CertificateFields<'a> {
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The bit string of SubjectPublicKeyInfo.
    pub(super) public_key: &'a [u8],
    /// Whether there is a subjectAltName.
    pub(super) has_names: bool,
}

impl<'a> CertificateFields<'a> {
    /// Reads DER. `None`: it is not a certificate.
    pub(super) fn read(certificate: &'a [u8]) -> Option<Self> {
        let mut whole = DerReader(certificate);
        let mut tbs = whole.enter(SEQUENCE)?.enter(SEQUENCE)?;
        if whole.next().is_some() || !whole.0.is_empty() {
            return None;
        }
        let _ = tbs.enter(0xa0); // version, absent in v1
        tbs.expect(INTEGER)?; // serial number
        tbs.expect(SEQUENCE)?; // signature algorithm
        let issuer = tbs.expect(SEQUENCE)?;
        let mut validity = tbs.enter(SEQUENCE)?;
        let subject = tbs.expect(SEQUENCE)?;
        let mut key = tbs.enter(SEQUENCE)?;
        key.expect(SEQUENCE)?;
        let (_unused_bits, public_key) = key.expect(BIT_STRING)?.split_first()?;
        let extensions = tbs.find(|element| element.tag == 0xa3);
        Some(Self {
            issuer,
            subject,
            not_before: time(validity.next()?)?,
            not_after: time(validity.next()?)?,
            public_key,
            has_names: extensions
                .and_then(|all| DerReader(all.content).enter(SEQUENCE))
                .is_some_and(has_names),
        })
    }

    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11]; // 2.5.29.17

fn has_names(mut extensions: DerReader<'_>) -> bool {
    extensions
        .any(|extension| DerReader(extension.content).expect(OBJECT_IDENTIFIER) == Some(SUBJECT_ALT_NAME))
}

/// RFC 5280, 4.1.2.5: whole seconds, always in UTC.
fn time(element: DerValue<'_>) -> Option<Timestamp> {
    let text = std::str::from_utf8(element.content).ok()?.strip_suffix('Z')?;
    let text = match element.tag {
        GENERALIZED_TIME => text.to_owned(),
        UTC_TIME if text.get(..2)?.parse::<u8>().ok()? < 50 => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    // 99991231235959Z is "no well-defined expiration", and beyond what a timestamp can be.
    Some(time.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |time| time.timestamp()))
}
