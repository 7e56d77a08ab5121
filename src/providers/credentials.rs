//! Reads the credentials of a token request from the data of the credentials Secret.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use secrecy::SecretString;

use super::description::Description;
use super::stored_value::{Cut, cut, doubt};
use super::vgs::{ServiceAccountError, read_service_account};
use crate::text::{BYTE_ORDER_MARK, decode};
use token_endpoint::limits::{MAX_CREDENTIAL, MAX_CREDENTIALS};
use token_endpoint::{ClientAuthentication, Credential, Credentials, Grant, asserted_subject};
use tokensource_api::{self as api, Reason};

/// Types of Secrets that are never sent to an endpoint: credentials of the cluster itself, and Helm releases.
const REFUSED_TYPES: [&str; 3] =
    ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];

/// The credentials that were read.
#[derive(Debug)]
pub struct ReadCredentials {
    /// The credentials for the request.
    pub credentials: Credentials,
    /// Remarks for the Ready condition's message.
    pub remarks: Vec<String>,
    /// What may be wrong with the values, for the message of a rejection.
    pub doubts: Vec<String>,
}

/// Credentials that cannot be used. Messages name the Secret, the key and the remedy, and contain no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The Secret does not exist.
    #[error("Secret {secret} does not exist: create it in this namespace, with the key{s} {keys}", s = if keys.contains(',') { "s" } else { "" })]
    SecretNotFound {
        /// The Secret's name.
        secret: String,
        /// The keys that would be read, separated by commas.
        keys: String,
    },
    /// A key does not exist.
    #[error("Secret {secret} has no key {key}{present}: add it, or write the right key in {field}")]
    KeyNotFound {
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// The path of the field that names the key.
        field: &'static str,
        /// The keys that exist, as text for the message.
        present: String,
    },
    /// The value is empty.
    #[error("key {key} of Secret {secret} is empty: write the {what} into it")]
    Empty {
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// What the value should be.
        what: &'static str,
    },
    /// The value is longer than any credential.
    #[error("key {key} of Secret {secret} has {length} bytes, and a {what} may have at most {max}: write the {what} alone into it, or the right key in {field}", max = MAX_CREDENTIAL)]
    TooLong {
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// The path of the field that names the key.
        field: &'static str,
        /// What the value should be.
        what: &'static str,
        /// Its bytes.
        length: usize,
    },
    /// The values are too long together.
    #[error("the keys of Secret {secret} that are used have more than {max} bytes together: use fewer, or shorter ones", max = MAX_CREDENTIALS)]
    TooMuch {
        /// The Secret's name.
        secret: String,
    },
    /// The value is not one line of text.
    #[error("key {key} of Secret {secret} {problem}: write the {what} alone into it")]
    NotALine {
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// What the value should be.
        what: &'static str,
        /// The problem.
        problem: &'static str,
    },
    /// The Secret is of a type that is never used as credentials.
    #[error(
        "Secret {secret} is of type {secret_type}, which is never sent to a token endpoint: name another Secret in spec.credentials.secretRef.name"
    )]
    RefusedType {
        /// The Secret's name.
        secret: String,
        /// The Secret's type.
        secret_type: String,
    },
    /// The value is not the YAML of a VGS service account.
    #[error("key {key} of Secret {secret} {problem}")]
    ServiceAccount {
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// The problem and its remedy.
        problem: String,
    },
}

impl CredentialsError {
    /// The reason of the condition that reports this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            CredentialsError::SecretNotFound { .. } | CredentialsError::KeyNotFound { .. } => {
                Reason::CredentialsNotFound
            }
            _ => Reason::CredentialsInvalid,
        }
    }

    /// The error for a Secret that does not exist.
    #[must_use]
    pub fn secret_not_found(spec: &api::Credentials, description: &Description) -> Self {
        let mut names: Vec<_> = wanted_keys(spec, description).iter().map(|key| key.name).collect();
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let keys = names.join(", ");
        CredentialsError::SecretNotFound { secret: secret_name(spec).to_owned(), keys }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CredentialKind {
    ClientId,
    ClientSecret,
    RefreshToken,
    ServiceAccount,
    PrivateKey,
    Certificate,
    SubjectToken,
    ActorToken,
    Assertion,
    ClientAssertion,
    /// The value of a secret parameter or header.
    Named,
}

/// A key of the credentials Secret that a request needs.
struct WantedKey<'a> {
    kind: CredentialKind,
    name: &'a str,
    field: &'static str,
    required: bool,
}

impl CredentialKind {
    /// The name in messages.
    fn description(self) -> &'static str {
        match self {
            CredentialKind::ClientId => "client id",
            CredentialKind::ClientSecret => "client secret",
            CredentialKind::RefreshToken => "refresh token",
            CredentialKind::ServiceAccount => "output of `vgs apply service-account`",
            CredentialKind::PrivateKey => "private key",
            CredentialKind::Certificate => "certificate",
            CredentialKind::SubjectToken => "subject token",
            CredentialKind::ActorToken => "actor token",
            CredentialKind::Assertion => "assertion",
            CredentialKind::ClientAssertion => "client assertion",
            CredentialKind::Named => "value",
        }
    }
}

impl CredentialKind {
    /// PEM, which readers of keys and certificates judge.
    fn has_lines(self) -> bool {
        matches!(self, CredentialKind::PrivateKey | CredentialKind::Certificate)
    }

    fn credential(self) -> Option<Credential> {
        Some(match self {
            CredentialKind::ClientId => Credential::ClientId,
            CredentialKind::ClientSecret => Credential::ClientSecret,
            CredentialKind::RefreshToken => Credential::RefreshToken,
            CredentialKind::PrivateKey => Credential::PrivateKey,
            CredentialKind::Certificate => Credential::Certificate,
            CredentialKind::SubjectToken => Credential::SubjectToken,
            CredentialKind::ActorToken => Credential::ActorToken,
            CredentialKind::Assertion => Credential::Assertion,
            CredentialKind::ClientAssertion => Credential::ClientAssertion,
            CredentialKind::ServiceAccount | CredentialKind::Named => return None,
        })
    }
}

/// The keys that `spec` and `description` need, with default names where the spec has none.
fn wanted_keys<'a>(spec: &'a api::Credentials, description: &'a Description) -> Vec<WantedKey<'a>> {
    let key = |kind, name: &'a Option<String>, default, field| WantedKey {
        kind,
        name: name.as_deref().unwrap_or(default),
        field,
        required: true,
    };
    let Description { request, keys: named, .. } = description;
    let mut keys = vec![];
    if let Some(name) = &spec.vgs_service_account_key {
        keys.push(WantedKey {
            kind: CredentialKind::ServiceAccount,
            name,
            field: "spec.credentials.vgsServiceAccountKey",
            required: true,
        });
    } else {
        // A public client may have an id. VMware Cloud Director has none, and the API server refuses one there.
        let may_lack_id = matches!(
            request.client_authentication,
            ClientAuthentication::None | ClientAuthentication::Assertion { .. }
        );
        let signs_by_id = matches!(request.grant, Grant::GitHubApp(_));
        let has_id = !may_lack_id || signs_by_id || spec.client_id_key.is_some();
        // The id is the issuer of the assertion, if neither the spec nor Google's key file has one.
        let may_have_id = matches!(&request.grant, Grant::JwtBearer(grant) if grant.issuer.is_none());
        if spec.client_id.is_none() && (has_id || may_have_id) {
            let key = key(
                CredentialKind::ClientId,
                &spec.client_id_key,
                "client_id",
                "spec.credentials.clientIDKey",
            );
            keys.push(WantedKey { required: has_id, ..key });
        }
        if matches!(
            request.client_authentication,
            ClientAuthentication::Basic(_) | ClientAuthentication::Post
        ) {
            let field = "spec.credentials.clientSecretKey";
            keys.push(key(CredentialKind::ClientSecret, &spec.client_secret_key, "client_secret", field));
        }
    }
    if request.grant == Grant::RefreshToken {
        let field = "spec.credentials.refreshTokenKey";
        keys.push(key(CredentialKind::RefreshToken, &spec.refresh_token_key, "refresh_token", field));
    }
    if request.signs() {
        let field = "spec.credentials.privateKeyKey";
        keys.push(key(CredentialKind::PrivateKey, &spec.private_key_key, "private_key.pem", field));
    }
    // What is sent of a ServiceAccount is in no Secret.
    let in_secret = description.service_account.is_none();
    if in_secret && matches!(request.grant, Grant::TokenExchange(_)) {
        let field = "spec.provider.oauth2.grant.tokenExchange.subjectTokenKey";
        keys.push(key(CredentialKind::SubjectToken, &named.subject_token, "subject_token", field));
    }
    if in_secret && request.grant == Grant::Assertion {
        let field = "spec.provider.oauth2.grant.assertion.key";
        keys.push(key(CredentialKind::Assertion, &named.assertion, "assertion", field));
    }
    if in_secret && matches!(request.client_authentication, ClientAuthentication::Assertion { .. }) {
        let field = "spec.provider.oauth2.clientAuthentication.assertion.key";
        keys.push(key(CredentialKind::ClientAssertion, &named.client_assertion, "client_assertion", field));
    }
    for (kind, name, field) in [
        (
            CredentialKind::ActorToken,
            &named.actor_token,
            "spec.provider.oauth2.grant.tokenExchange.actorTokenKey",
        ),
        (
            CredentialKind::Certificate,
            &named.certificate,
            "spec.provider.oauth2.clientAuthentication.privateKeyJWT.certificateKey",
        ),
    ] {
        keys.extend(name.as_deref().map(|name| WantedKey { kind, name, field, required: true }));
    }
    let field_of = |field| {
        move |name: &'a String| WantedKey { kind: CredentialKind::Named, name, field, required: true }
    };
    keys.extend(request.secret_parameters.values().map(field_of("spec.provider.oauth2.secretParameters")));
    keys.extend(request.secret_headers.values().map(field_of("spec.provider.oauth2.secretHeaders")));
    keys
}

/// The name of the credentials Secret; empty where there is none, which is not read.
fn secret_name(spec: &api::Credentials) -> &str {
    spec.secret_ref.as_ref().map_or("", |secret| &secret.name)
}

/// The name of a value that a request cannot be sent without, and that only a credentials Secret could hold.
pub(super) fn needs_secret(spec: &api::Credentials, description: &Description) -> Option<&'static str> {
    wanted_keys(spec, description).iter().find(|key| key.required).map(|key| key.kind.description())
}

/// Whether a request needs only the refresh token of the credentials Secret. While the operator has a stored refresh
/// token, that Secret need not be read.
#[must_use]
pub fn needs_only_refresh_token(spec: &api::Credentials, description: &Description) -> bool {
    wanted_keys(spec, description).iter().all(|key| key.kind == CredentialKind::RefreshToken)
}

/// Whether a request needs nothing of the credentials Secret but assertions that another program renews. A changed Secret
/// then means nothing.
#[must_use]
pub fn needs_only_assertions(spec: &api::Credentials, description: &Description) -> bool {
    let is_assertion =
        |key: &WantedKey<'_>| matches!(key.kind, CredentialKind::Assertion | CredentialKind::ClientAssertion);
    let keys = wanted_keys(spec, description);
    !keys.is_empty() && keys.iter().all(is_assertion)
}

/// Reads the credentials that `description` needs from the data of the credentials Secret.
///
/// # Errors
/// A value is missing or invalid, or the type of the Secret is refused.
pub fn read_credentials(
    spec: &api::Credentials,
    description: &Description,
    secret_type: Option<&str>,
    data: &BTreeMap<String, ByteString>,
) -> Result<ReadCredentials, CredentialsError> {
    let secret = secret_name(spec);
    if let Some(refused) = secret_type.filter(|it| REFUSED_TYPES.contains(it)) {
        return Err(CredentialsError::RefusedType {
            secret: secret.to_owned(),
            secret_type: refused.to_owned(),
        });
    }
    let mut resolved = ReadCredentials {
        credentials: Credentials { client_id: spec.client_id.clone(), ..Credentials::default() },
        remarks: vec![],
        doubts: vec![],
    };
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut left = MAX_CREDENTIALS;
    for key in wanted_keys(spec, description) {
        let Some(bytes) = data.get(key.name) else {
            if !key.required {
                continue;
            }
            return Err(CredentialsError::KeyNotFound {
                secret: secret.to_owned(),
                key: key.name.to_owned(),
                field: key.field,
                present: present(data),
            });
        };
        if bytes.0.len() > MAX_CREDENTIAL {
            return Err(CredentialsError::TooLong {
                secret: secret.to_owned(),
                key: key.name.to_owned(),
                field: key.field,
                what: key.kind.description(),
                length: bytes.0.len(),
            });
        }
        if seen.insert(key.name) {
            let rest = left.checked_sub(bytes.0.len());
            left = rest.ok_or_else(|| CredentialsError::TooMuch { secret: secret.to_owned() })?;
        }
        let text = decode(&bytes.0).map_err(|_| not_a_line(secret, &key, "is not text (UTF-8)"))?;
        let place = format!("key {} of Secret {secret}", key.name);
        if let Cow::Owned(_) = text {
            let remark = "is in UTF-16, as `>` of Windows PowerShell writes it, and was read so";
            resolved.remarks.push(format!("{place} {remark}"));
        }
        let text: &str = &text;
        let credentials = &mut resolved.credentials;
        if key.kind == CredentialKind::ServiceAccount {
            let (id, client_secret) = read_service_account(text.trim_start_matches(BYTE_ORDER_MARK))
                .map_err(|problem: ServiceAccountError| CredentialsError::ServiceAccount {
                    secret: secret.to_owned(),
                    key: key.name.to_owned(),
                    problem: problem.to_string(),
                })?;
            credentials.client_id = Some(id);
            credentials.client_secret = Some(client_secret);
            continue;
        }
        let Cut { value, remark } = match key.kind {
            // PEM has several lines and ends in a newline.
            CredentialKind::PrivateKey | CredentialKind::Certificate => Cut { value: text, remark: None },
            // A password may begin and end in anything but the newline that `echo` writes.
            CredentialKind::Named => cut_newline(text),
            _ => cut(text),
        };
        let value = not_empty(secret, &key, value)?;
        if !key.kind.has_lines() {
            one_line(secret, &key, value)?;
            resolved
                .doubts
                .extend(doubt(value, key.kind.description()).map(|doubt| format!("{place} {doubt}")));
        }
        resolved.remarks.extend(remark.map(|remark| format!("{place} {remark}")));
        let stored = cut_newline(text).value;
        if let Some(which) = key.kind.credential().filter(|_| stored != value && !key.kind.has_lines()) {
            credentials.stored.insert(which, stored.into());
        }
        let subject = || asserted_subject(value).unwrap_or(place);
        match key.kind {
            CredentialKind::PrivateKey => credentials.private_key = Some(value.into()),
            CredentialKind::Certificate => credentials.certificate = Some(value.to_owned()),
            CredentialKind::SubjectToken => credentials.subject_token = Some(value.into()),
            CredentialKind::ActorToken => credentials.actor_token = Some(value.into()),
            CredentialKind::Assertion => {
                credentials.asserted = Some(subject());
                credentials.assertion = Some(value.into());
            }
            CredentialKind::ClientAssertion => {
                credentials.client_asserted = Some(subject());
                credentials.client_assertion = Some(value.into());
            }
            CredentialKind::ClientId => credentials.client_id = Some(value.to_owned()),
            CredentialKind::ClientSecret => credentials.client_secret = Some(value.into()),
            CredentialKind::RefreshToken => credentials.refresh_token = Some(value.into()),
            CredentialKind::Named | CredentialKind::ServiceAccount => {
                credentials.values.insert(key.name.to_owned(), SecretString::from(value));
            }
        }
    }
    Ok(resolved)
}

/// The value without the trailing newline that `echo` writes. This form identifies a credential, whatever is cut off besides.
fn cut_newline(text: &str) -> Cut<'_> {
    let value = text.trim_end_matches(['\n', '\r']);
    let remark = (value.len() != text.len()).then(|| "ends in a newline, which was left out".to_owned());
    Cut { value, remark }
}

fn one_line(secret: &str, key: &WantedKey<'_>, value: &str) -> Result<(), CredentialsError> {
    if value.contains(['\n', '\r']) {
        return Err(not_a_line(secret, key, "has several lines"));
    }
    if value.chars().any(char::is_control) {
        return Err(not_a_line(secret, key, "has a control character in it"));
    }
    Ok(())
}

fn not_empty<'a>(secret: &str, key: &WantedKey<'_>, text: &'a str) -> Result<&'a str, CredentialsError> {
    if !text.trim().is_empty() {
        return Ok(text);
    }
    Err(CredentialsError::Empty {
        secret: secret.to_owned(),
        key: key.name.to_owned(),
        what: key.kind.description(),
    })
}

fn not_a_line(secret: &str, key: &WantedKey<'_>, problem: &'static str) -> CredentialsError {
    CredentialsError::NotALine {
        secret: secret.to_owned(),
        key: key.name.to_owned(),
        what: key.kind.description(),
        problem,
    }
}

/// The names of the existing keys. They are not secret, and usually reveal a misspelling.
fn present(data: &BTreeMap<String, ByteString>) -> String {
    match data.len() {
        0 => " and is empty".into(),
        n => {
            let names: Vec<_> = data.keys().take(5).map(String::as_str).collect();
            format!(" (it has {}{})", names.join(", "), if n > 5 { ", ..." } else { "" })
        }
    }
}

#[cfg(test)]
mod tests;
