//! A minimal reader of DER (ITU-T X.690), to classify keys and certificates and to explain errors. aws-lc-rs and webpki parse
//! what is accepted.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// A tag and its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct DerValue<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
}

/// Reads a sequence of values.
#[derive(Clone, Copy, Debug)]
pub(super) struct DerReader<'a>(pub(super) &'a [u8]);

impl<'a> DerReader<'a> {
    /// The content of the next value if it has this tag; otherwise nothing is consumed.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let value = ahead.next().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value.content)
    }

    /// A reader of the content of the next value if it has this tag.
    pub(super) fn enter(&mut self, tag: u8) -> Option<DerReader<'a>> {
        self.expect(tag).map(DerReader)
    }
}

impl<'a> Iterator for DerReader<'a> {
    type Item = DerValue<'a>;

    fn next(&mut self) -> Option<DerValue<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (bytes, after) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(n, _)| n.len() <= 4)?;
            rest = after;
            bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte))
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some(DerValue { tag, content })
    }
}
