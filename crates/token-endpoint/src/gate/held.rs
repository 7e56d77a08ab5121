//! What is told to those who are not let through.

use super::super::error::{Class, Error};
use crate::ErrorKind;
use std::fmt;
use std::time::Duration;

/// Nothing was asked, because somebody else's failure says enough.
#[derive(Clone, Debug)]
pub enum Held {
    /// This very credential was rejected.
    Rejected {
        /// What the endpoint said.
        error: Box<Error>,
        /// When somebody will ask again.
        retry_in: Duration,
    },
    /// The endpoint fails for everybody, and somebody is probing it right now.
    Unavailable {
        /// The last failure.
        error: Box<Error>,
        /// In a row.
        failures: u32,
    },
}

impl Held {
    /// As the failure that was somebody else's.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Held::Rejected { error, .. } | Held::Unavailable { error, .. } => error,
        }
    }

    /// See [`Error::class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.error().class()
    }

    /// See [`Error::reason`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.error().kind()
    }

    /// How long it is of no use to ask again. `None`: for the caller's schedule to say.
    #[must_use]
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Held::Rejected { retry_in, .. } => Some(*retry_in),
            Held::Unavailable { .. } => None,
        }
    }
}

impl std::error::Error for Held {}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Rejected { error, retry_in } => write!(
                f,
                "{error}; these credentials are shared, and not tried again by anybody for {} s",
                retry_in.as_secs().max(1)
            ),
            Held::Unavailable { error, failures } => {
                write!(f, "{error}; the endpoint failed {failures} times in a row and is asked one at a time")
            }
        }
    }
}
