//! The target Secret: what stands in it, whose it is, and whether somebody changed it. Pure.

mod facts;
mod ownership;
mod pods;
mod record;
mod render;
mod template;

pub use facts::{Controller, Facts, Head, KeySet};
pub use ownership::{Ownership, ownership};
pub use pods::{Metadata, Pod, PodList, Pods, REFRESHED_ANNOTATION, Use, Way};
pub use record::{Inputs, Minted, Owner, Record, Version};
pub use render::{RefreshTokenSecret, TargetSecret, restamp};
pub use template::{DEFAULT_KEYS, Rendered, Template, TemplateError, Token, template_digest, template_keys};

/// The field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "tokensource-operator";
/// The annotation with the record, on the target.
pub const RECORD_ANNOTATION: &str = "tokensource.dev/record";
/// The annotation by which somebody hands a Secret over, with the name of the TokenSource that may have it.
pub const ADOPT_ANNOTATION: &str = "tokensource.dev/adopt";
/// The annotation that names the TokenSource, on the Secret with its rotating refresh token.
pub const REFRESH_TOKEN_ANNOTATION: &str = "tokensource.dev/refresh-token-of";
/// The label by which Secrets with a rotating refresh token are found, with its value.
pub const REFRESH_TOKEN_LABEL: (&str, &str) = ("tokensource.dev/holds", "refresh-token");
/// The annotation on a TokenSource by which a person asks for a new token now.
pub const REFRESH_REQUEST_ANNOTATION: &str = "tokensource.dev/refresh-requested-at";
/// The label by which a Secret's owner says that a TokenSource may use it, with its value: looked at only where the
/// operator is started so.
pub const CREDENTIALS_LABEL: (&str, &str) = ("tokensource.dev/credentials", "true");
/// The label that every Secret of the operator carries, with its value.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "tokensource-operator");
