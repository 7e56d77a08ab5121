//! Reads the credentials Secret, and what `spec.tls` names.

use std::collections::BTreeMap;

use kube::ResourceExt;
use token_endpoint::{Credentials, Tls};
use tokensource_api::{Reason, TokenSource};

use super::context::Context;
use super::outcome::Outcome;
use crate::key::Key;
use crate::providers::{ReadCredentials, read_credentials};
use crate::secret::{Facts, Version, not_released};
use crate::spec::{Identity, Resolved};
use crate::text::shown;
use crate::token_request::tls::Named;

/// The credentials of a TokenSource as they are in the cluster.
pub(super) struct Read {
    pub(super) version: Version,
    pub(super) credentials: Credentials,
    pub(super) remarks: Vec<String>,
    /// For the message of a rejection.
    pub(super) doubts: Vec<String>,
}

/// Reads the credentials Secret, and notes in the cache which state of it was read.
///
/// # Errors
/// [`Outcome::Retry`] where it is gone or may not be used any more; with the state that was read, where its values
/// cannot be used.
pub(super) async fn read(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    spec: &Resolved,
) -> Result<Read, (Option<Version>, Outcome)> {
    let Some(key) = &identity.credentials else {
        let read = without_secret(context, source, identity, spec);
        return read.map_err(|outcome| (Some(Version::of_nothing()), outcome));
    };
    let read = context.secrets.read_shared(key, &context.kubernetes).await;
    let secret = read.map_err(|error| (None, error.into()))?;
    let facts = secret.as_ref().and_then(|secret| Facts::of(&secret.metadata));
    let usable = facts.as_ref().filter(|facts| context.may_use(identity, facts));
    let version = usable.map(|facts| spec.credentials_version(&facts.version));
    let (Some(secret), Some(version)) = (secret, version) else { return Err((None, Outcome::Retry)) };
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    match read_credentials(&source.spec.credentials, &spec.description, secret.type_.as_deref(), data) {
        Ok(ReadCredentials { credentials, remarks, doubts }) => {
            Ok(Read { version, credentials, remarks, doubts })
        }
        // A changed Secret is no trigger then.
        Err(error) if spec.needs_only_assertions => {
            Err((Some(version), Outcome::passing(error.reason(), error.to_string())))
        }
        Err(error) => Err((Some(version), Outcome::configuration(error.reason(), error.to_string()))),
    }
}

/// The credentials of a TokenSource that sends the token of a ServiceAccount, without that token.
fn without_secret(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    spec: &Resolved,
) -> Result<Read, Outcome> {
    let wanted = spec.description.service_account.as_ref().ok_or(Outcome::Retry)?;
    context.service_account_tokens.allows_audience(&wanted.audience)?;
    let credentials = wanted.credentials(&source.spec.credentials, &identity.key.namespace);
    Ok(Read { version: Version::of_nothing(), credentials, remarks: vec![], doubts: vec![] })
}

/// Reads what `spec.tls` names. Nothing of it is watched or kept: a certificate that was renewed is used from the next
/// request on.
///
/// # Errors
/// It is missing, not what it should be, or not released for use. That may be corrected without a trigger, so that it is
/// tried again and again.
pub(super) async fn tls(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    spec: &Resolved,
) -> Result<Tls, Outcome> {
    let transport = &context.endpoints(spec).transport;
    let namespace = identity.material_namespace();
    let Some(spec) = &source.spec.tls else { return Ok(Tls::default()) };
    let named = Named::fetch(spec, &context.kubernetes, namespace).await?;
    for secret in [&named.bundle_secret, &named.client_certificate].into_iter().flatten() {
        let Some(facts) = Facts::of(&secret.metadata) else { continue };
        if !context.may_use(identity, &facts) {
            let key = Key::new(namespace, &secret.name_any());
            return Err(Outcome::passing(Reason::CredentialsInvalid, not_usable(&key, &facts)));
        }
    }
    named.tls(spec, transport).map_err(|error| Outcome::passing(Reason::SpecInvalid, error.to_string()))
}

/// What to do about a Secret that may not be used as credentials: its owner has not released it, or it stores a refresh
/// token.
pub(super) fn not_usable(secret: &Key, facts: &Facts) -> String {
    if let Some(source) = &facts.rare().refresh_token_of {
        let name = &secret.name;
        return format!(
            "Secret {name} stores the refresh token of TokenSource {}, which alone may send it, because it changes with every use: name the Secret that you wrote in spec.credentials.secretRef.name",
            shown(source)
        );
    }
    not_released(secret)
}
