//! Errors in specs.

use tokensource_api::{Oversize, Reason};

/// An error in a spec that the validation rules of the API server did not find.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None or several members of `spec.provider` are set.
    #[error("spec.provider must have exactly one member")]
    Provider,
    /// The URL of the token endpoint cannot be parsed.
    #[error(
        "{field}: {value:?} is not a URL: {problem}; write for example https://idp.example.com/oauth/token"
    )]
    Url {
        /// The field's path.
        field: &'static str,
        /// The field's value.
        value: String,
        /// The parser's error.
        #[source]
        problem: url::ParseError,
    },
    /// A value is invalid.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's path.
        field: &'static str,
        /// The problem and the value.
        problem: String,
    },
    /// A part is larger than the schema permits, which is newer than the object.
    #[error("{0}")]
    TooLarge(Oversize),
    /// A duration cannot be parsed.
    #[error("{field}: {value:?} is not a duration; write for example 90s or 1h30m")]
    Duration {
        /// The field's path.
        field: &'static str,
        /// The field's value.
        value: String,
    },
}

impl SpecError {
    /// The reason of the condition that reports this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::SpecInvalid
    }
}
