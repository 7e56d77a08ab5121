//! Error messages of the API server.

/// The message of an error. kube's own text of an API error repeats the whole status.
pub(super) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
