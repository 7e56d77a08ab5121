//! What could not be read.

use crate::cluster::CallError;

/// An object of the TokenSource cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The user's rights do not permit it.
    #[error("you may not {action}")]
    Forbidden {
        /// With the place.
        action: String,
        #[source]
        error: CallError,
    },
    #[error("{objects} could not be {verb}: {error}")]
    Failed {
        objects: &'static str,
        verb: &'static str,
        #[source]
        error: CallError,
    },
}

/// The error of a call that was to read something: `action` with the place, and the words for a failure.
pub(super) fn read_error(
    action: String,
    (objects, verb): (&'static str, &'static str),
) -> impl FnOnce(CallError) -> ReadError + use<> {
    move |error| match error {
        CallError::Refused(_) => ReadError::Forbidden { action, error },
        error => ReadError::Failed { objects, verb, error },
    }
}
