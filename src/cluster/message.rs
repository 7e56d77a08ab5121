//! Error messages of the API server, which admission webhooks and the authors of objects may write: as they are shown.

use crate::text::shown;

/// Whether it is a failure of the moment: the API server does not answer, or says that it cannot now.
pub(super) fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// The message of an error. kube's own text of an API error repeats the whole status.
pub(super) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => shown(&status.message).into_owned(),
        error => shown(&error.to_string()).into_owned(),
    }
}
