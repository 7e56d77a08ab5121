//! The target Secret: its content, its owner, and whether another writer changed it. Pure.

mod controller;
mod facts;
mod ownership;
mod pods;
mod record;
mod render;
mod template;

pub use controller::{ControlledBy, Controller};
pub use facts::{Facts, KeySet, LargePart, RareFacts, SecretMetadata};
pub use ownership::{Ownership, ownership};
pub use pods::{Pod, PodMetadata, Pods, REFRESHED_ANNOTATION, Use, UseKind};
pub use record::{Inputs, Minted, Owner, Record, Version};
pub use render::{RefreshTokenSecret, TargetSecret, metadata_update};
pub use template::{
    DEFAULT_KEYS, Rendered, Template, TemplateError, Token, template_digest, template_key_names,
    template_keys,
};

use crate::key::Key;

/// The field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "tokensource-operator";
/// The annotation on the target Secret that holds its [`Record`].
pub const RECORD_ANNOTATION: &str = "tokensource.dev/record";
/// The annotation by which the owner of a Secret hands it over; its value is the name of the new owning TokenSource.
pub const ADOPT_ANNOTATION: &str = "tokensource.dev/adopt";
/// The annotation on the Secret with a rotating refresh token; its value is the name of the TokenSource.
pub const REFRESH_TOKEN_ANNOTATION: &str = "tokensource.dev/refresh-token-of";
/// The annotation on that Secret that announces which refresh token is about to be sent, and by which process.
pub const REFRESH_TOKEN_SENT_ANNOTATION: &str = "tokensource.dev/refresh-token-sent";
/// The data key of the stored refresh token.
pub const STORED_REFRESH_TOKEN_KEY: &str = "refresh_token";
/// The data key of the digest of an original refresh token whose response had no new one.
pub const UNROTATED_KEY: &str = "unrotated_sha256";
/// Label and value of Secrets with a rotating refresh token.
pub const REFRESH_TOKEN_LABEL: (&str, &str) = ("tokensource.dev/holds", "refresh-token");
/// The annotation on a TokenSource by which a user requests a new token now.
pub const REFRESH_REQUEST_ANNOTATION: &str = "tokensource.dev/refresh-requested-at";
/// Label and value by which the owner of a Secret releases it for use by TokenSources. Evaluated only with
/// `--require-credentials-label`.
pub const CREDENTIALS_LABEL: (&str, &str) = ("tokensource.dev/credentials", "true");
/// Label and value of every Secret that the operator writes.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "tokensource-operator");

/// What to do about a Secret that is not released for use, where the operator uses no other.
#[must_use]
pub fn not_released(secret: &Key) -> String {
    let (label, value) = CREDENTIALS_LABEL;
    let (namespace, name) = (&secret.namespace, &secret.name);
    format!(
        "Secret {name} is not labelled {label}={value}, and this operator uses no other Secrets (--require-credentials-label): kubectl label secret {name} -n {namespace} {label}={value}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_annotations_are_those_that_the_admission_policy_permits() {
        assert_eq!(
            tokensource_api::permitted::OWN_ANNOTATIONS,
            [RECORD_ANNOTATION, REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_SENT_ANNOTATION]
        );
    }
}
