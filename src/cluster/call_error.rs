//! Why a call to the API server failed.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::text::shown;

/// A failed call, classified by what is done next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 409: the precondition does not hold, or the object exists already.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// 404: the object, or its namespace, does not exist.
    #[error("not found")]
    NotFound,
    /// The Secret has another type, which cannot be changed.
    #[error("the Secret is of another type, which cannot be changed")]
    AnotherType,
    /// The Secret is immutable.
    #[error("the Secret is immutable")]
    Immutable,
    /// Another rejection (4xx): quota, admission, RBAC, validation. It is shown as text of others, and not before what it quotes
    /// was taken out of the whole ([`CallError::without`]).
    #[error("{}", shown(.0))]
    Refused(String),
    /// An object, or a part of it, is larger than what is read.
    #[error("{0}")]
    TooLarge(String),
    /// No response, or an error of the API server itself.
    #[error("the Kubernetes API server did not answer as expected: {0}")]
    Unavailable(Unavailable),
}

/// Why there is no response, and how long the API server asks to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The error.
    pub message: String,
    /// `retryAfterSeconds`.
    pub retry_after: Option<Duration>,
    /// The API server answered, with a status.
    pub is_answer: bool,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.message))
    }
}

impl From<String> for Unavailable {
    fn from(message: String) -> Self {
        Unavailable { message, retry_after: None, is_answer: false }
    }
}

impl From<&kube::core::Status> for Unavailable {
    fn from(status: &kube::core::Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Unavailable { message: format!("status {}", status.code), retry_after, is_answer: true }
    }
}

/// Whether a rejection (4xx) is about the operator itself or about this moment, and not about what was asked for: 401 (its own
/// token has expired or was revoked), 408 and 429.
fn is_about_the_moment(code: u16) -> bool {
    matches!(code, 401 | 408 | 429)
}

/// The message of Kubernetes for a write to an immutable Secret, in all versions that have immutable Secrets.
const IMMUTABLE_MESSAGE: &str = "field is immutable when `immutable` is set";

/// Whether Kubernetes itself refuses to change a Secret's type. A webhook may reject a type too; then the Secret must not be
/// deleted.
fn is_type_change(status: &kube::core::Status) -> bool {
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    status.code == 422
        && !status.message.starts_with("admission webhook ")
        && causes().any(|cause| cause.field == "type" && cause.message.ends_with("field is immutable"))
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => CallError::Conflict,
            kube::Error::Api(status) if status.code == 404 => CallError::NotFound,
            kube::Error::Api(status) if is_type_change(&status) => CallError::AnotherType,
            kube::Error::Api(status) if status.code == 422 && status.message.contains(IMMUTABLE_MESSAGE) => {
                CallError::Immutable
            }
            kube::Error::Api(status)
                if (400..500).contains(&status.code) && !is_about_the_moment(status.code) =>
            {
                CallError::Refused(status.message.clone())
            }
            kube::Error::Api(status) => CallError::Unavailable(Unavailable::from(&*status)),
            // Its message may quote the response, which may be a Secret.
            kube::Error::SerdeError(_) => {
                CallError::Unavailable("an answer that cannot be read".to_owned().into())
            }
            other => CallError::Unavailable(other.to_string().into()),
        }
    }
}

impl CallError {
    /// The same without `secret`, which an admission webhook may have quoted.
    #[must_use]
    pub fn without(self, secret: &SecretString) -> Self {
        let raw = secret.expose_secret();
        if raw.len() < 8 {
            // A constant of a template, or a value that reveals nothing: without it the message could not be read.
            return self;
        }
        let encoded = STANDARD.encode(raw);
        let clean = |message: String| message.replace(&encoded, "[redacted]").replace(raw, "[redacted]");
        match self {
            CallError::Refused(message) => CallError::Refused(clean(message)),
            CallError::Unavailable(why) => {
                CallError::Unavailable(Unavailable { message: clean(why.message), ..why })
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rejection_of_the_operator_itself_or_of_this_moment_is_no_refusal_of_the_object() {
        let answered = |code: u16, retry_after: u32| {
            let status = json!({"code": code, "message": "m", "status": "Failure", "details": {"retryAfterSeconds": retry_after}});
            let status: kube::core::Status = serde_json::from_value(status).unwrap();
            CallError::from(kube::Error::Api(Box::new(status)))
        };
        for code in [401, 408, 429, 500, 503] {
            let unavailable = Unavailable {
                message: format!("status {code}"),
                retry_after: Some(Duration::from_secs(7)),
                is_answer: true,
            };
            assert_eq!(answered(code, 7), CallError::Unavailable(unavailable));
        }
        for code in [400, 403, 413, 422] {
            assert_eq!(answered(code, 0), CallError::Refused("m".into()));
        }
    }

    fn rejection(message: &str, cause: &str) -> CallError {
        let status = json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": message,
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": cause, "field": "type"}]},
        });
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn call_error_another_type_only_where_kubernetes_itself_rejects() {
        let message = r#"Secret "token" is invalid: type: Invalid value: "Opaque": field is immutable"#;
        let cause = r#"Invalid value: "Opaque": field is immutable"#;
        assert_eq!(rejection(message, cause), CallError::AnotherType);
        let webhook = format!("admission webhook \"types.example.com\" denied the request: {message}");
        assert_eq!(rejection(&webhook, cause), CallError::Refused(webhook.clone()));
        let other = "Unsupported value: \"a\"";
        assert_eq!(rejection("no such type here", other), CallError::Refused("no such type here".into()));
    }
}
