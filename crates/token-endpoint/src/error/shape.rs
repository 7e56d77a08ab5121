//! What came instead of JSON.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

/// What came instead of the JSON that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `type/subtype` in lower case; `None` if absent or not safe to repeat.
    pub(crate) media_type: Option<String>,
    /// `Content-Encoding`, where it is none that can be decoded; `None` if absent or not safe to repeat.
    pub(crate) encoding: Option<String>,
    /// Bytes of the body that were read.
    pub(crate) length: usize,
}

impl Shape {
    pub(super) fn is_web_page(&self) -> bool {
        matches!(self.media_type.as_deref(), Some("text/html" | "application/xhtml+xml"))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.length, self.media_type.as_deref()) {
            (0, _) => f.write_str("an empty body"),
            (length, Some(media_type)) => write!(f, "{length} bytes of {media_type}"),
            (length, None) => write!(f, "{length} bytes of no known media type"),
        }?;
        match &self.encoding {
            Some(encoding) if self.length > 0 => {
                write!(
                    f,
                    " in the encoding {encoding}, though none was asked for (Accept-Encoding: identity)"
                )
            }
            _ => Ok(()),
        }
    }
}
