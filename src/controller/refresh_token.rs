//! Refresh tokens that rotate: which one is sent, where the next one is stored, and whose wins.
//!
//! A person writes the *original* refresh token into the credentials Secret. A server that rotates answers each request
//! with a new one and spends the old one; the new one is then the only copy of the credential. It goes into the Secret
//! `<name>-refresh-token`, together with the digest of the original that it descends from.
//!
//! ```text
//!                    no other TokenSource rotates it
//!   Original ──────────────(check)──────────────▶ Sent ◀───────────────┐ the original is the same
//!      ▲                                           │                   │
//!      │ a person wrote another original           │ response with     │
//!      │                                           │ a new token       │
//!      └───────────────── Stored ◀─────save─────── Unsaved             │
//!                           │  (the Secret is as it was,   │           │
//!                           │   or holds what was sent)    │ the Secret holds a newer one: that one stays
//!                           │                              └──────▶ Stored
//!                           └──────────────────────────────────────────┘
//! ```
//!
//! - Between *Sent* and *Unsaved* a crash loses the token, and no client can help it.
//! - *Unsaved*: nothing is requested. The token request tries to save it once, then reconciliations do.
//! - One request at a time sends a certain refresh token, over all TokenSources (the limiter holds this), because servers
//!   that see a spent token again end the whole grant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};
use token_endpoint::Credentials;
use tokensource_api::{self as api, Reason};
use tracing::{info, warn};

use super::cache::secrets::{CachedSecret, Secrets};
use super::outcome::Outcome;
use crate::cluster::{CallError, Kubernetes};
use crate::digest::sha256;
use crate::key::Key;
use crate::providers::{Description, needs_only_refresh_token};
use crate::secret::{Facts, RefreshTokenSecret, Version};
use crate::spec::Identity;

/// What this process knows of a user's refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownOriginal {
    /// The state of the credentials Secret in which it was read.
    pub(super) version: Version,
    /// SHA-256, in hex.
    pub(super) sha256: String,
    /// No other TokenSource of the namespace rotates it. Checked once in a process.
    pub(super) is_exclusive: bool,
}

/// Where the refresh token of a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    /// SHA-256, in hex, of the original that it descends from, or is.
    pub(super) original_sha256: String,
    /// It is the original itself.
    pub(super) is_original: bool,
    /// The Secret with the stored one, as it was read.
    stored: Option<Version>,
}

/// A rotated refresh token as it is stored.
pub(super) struct Stored {
    refresh_token: SecretString,
    original_sha256: String,
    version: Version,
}

/// The only copy of a rotated refresh token.
pub(super) struct UnsavedRefreshToken {
    value: SecretString,
    original_sha256: String,
    /// SHA-256, in hex, of the token that was sent for it.
    sent_sha256: String,
    /// The Secret that held the one before, as it was read.
    replaces: Option<Version>,
    _claim: Claim,
}

/// The originals whose newest descendant is in memory alone, with the TokenSource that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct UnsavedOriginals(Arc<Mutex<HashMap<Original, Key>>>);

/// A namespace, and SHA-256 of an original, in hex.
type Original = (Arc<str>, String);

/// An entry of [`UnsavedOriginals`], until it is dropped.
struct Claim {
    originals: UnsavedOriginals,
    original: Original,
    source: Key,
}

impl UnsavedOriginals {
    fn claim(&self, source: &Key, original_sha256: &str) -> Claim {
        let original = (Arc::clone(&source.namespace), original_sha256.to_owned());
        self.lock().insert(original.clone(), source.clone());
        Claim { originals: self.clone(), original, source: source.clone() }
    }

    fn holder(&self, source: &Key, original_sha256: &str) -> Option<Key> {
        self.lock().get(&(Arc::clone(&source.namespace), original_sha256.to_owned())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Original, Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let originals = &mut *self.originals.lock();
        if originals.get(&self.original) == Some(&self.source) {
            originals.remove(&self.original);
        }
    }
}

impl std::fmt::Debug for UnsavedRefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnsavedRefreshToken").field("replaces", &self.replaces).finish_non_exhaustive()
    }
}

/// Whether a Secret is the one that stores the refresh token of this TokenSource.
pub(super) fn stores_refresh_token_of(secret: &Facts, source: &Key) -> bool {
    secret.refresh_token_of.as_deref() == Some(&source.name)
}

/// The rotation of one TokenSource's refresh token.
pub(super) struct Rotation<'a> {
    pub(super) kubernetes: &'a Kubernetes,
    pub(super) secrets: &'a Secrets,
    pub(super) unsaved: &'a UnsavedOriginals,
    pub(super) identity: &'a Identity,
}

impl Rotation<'_> {
    /// Reads the stored refresh token, if there is one.
    pub(super) async fn stored(&self) -> Result<Option<Stored>, Outcome> {
        let key = &self.identity.refresh_token;
        // A Secret of this name that is not ours blocks the decision to request a token.
        let CachedSecret::Present(_) = self.secrets.known_or_read(key, self.kubernetes).await? else {
            return Ok(None);
        };
        let Some(secret) = self.kubernetes.secret(key).await? else {
            self.secrets.observe(key, None);
            return Ok(None);
        };
        let Some(facts) = Facts::of(&secret.metadata) else { return Ok(None) };
        let version = facts.version.clone();
        let is_ours = stores_refresh_token_of(&facts, &self.identity.key);
        self.secrets.observe(key, Some(facts));
        if !is_ours {
            return Err(Outcome::Retry);
        }
        let mut data = secret.data.unwrap_or_default();
        let mut text = |name| data.remove(name).and_then(|ByteString(bytes)| String::from_utf8(bytes).ok());
        Ok(text("refresh_token").zip(text("seed_sha256")).map(|(refresh_token, original_sha256)| Stored {
            refresh_token: refresh_token.into(),
            original_sha256,
            version,
        }))
    }

    /// The stored token as all the credentials of a request: while the credentials Secret is as this process has read it,
    /// the stored token descends from the original in it, and the request needs nothing else of it. It saves a read.
    pub(super) fn stored_alone(
        &self,
        stored: &Stored,
        known: Option<&KnownOriginal>,
        spec: &api::Credentials,
        description: &Description,
    ) -> Option<(Credentials, Lineage, Version)> {
        let CachedSecret::Present(credentials) = self.secrets.known(&self.identity.credentials) else {
            return None;
        };
        let known = known?;
        let is_same = known.version == credentials.version && known.sha256 == stored.original_sha256;
        if !is_same || !needs_only_refresh_token(spec, description) {
            return None;
        }
        let lineage = Lineage {
            original_sha256: stored.original_sha256.clone(),
            is_original: false,
            stored: Some(stored.version.clone()),
        };
        let credentials = Credentials {
            client_id: spec.client_id.clone(),
            refresh_token: Some(stored.refresh_token.clone()),
            ..Credentials::default()
        };
        Some((credentials, lineage, known.version.clone()))
    }

    /// Stops a request that would send the original of another TokenSource, which has a newer token by now.
    pub(super) async fn check_exclusive(&self, original_sha256: &str) -> Result<(), Outcome> {
        let source = &self.identity.key;
        let in_memory = self.unsaved.holder(source, original_sha256).filter(|other| other != source);
        let other = match in_memory {
            Some(other) => Some(other.name.to_string()),
            None => self.kubernetes.other_with_original(source, original_sha256).await?,
        };
        let Some(other) = other else { return Ok(()) };
        Err(Outcome::configuration(
            Reason::GrantRejected,
            format!(
                "TokenSource {other} uses the same refresh token, which changes with every use: create a refresh token for each of them, or mount the target of {other} (if {other} is gone for good, delete Secret {other}-refresh-token)"
            ),
        ))
    }

    /// Takes the refresh token of a response in, if it is another one than was sent.
    pub(super) fn received(
        &self,
        refresh_token: Option<&SecretString>,
        lineage: Option<&Lineage>,
        sent: &Credentials,
    ) -> Option<UnsavedRefreshToken> {
        let (value, lineage, sent) = (refresh_token?, lineage?, sent.refresh_token.as_ref()?);
        (value.expose_secret() != sent.expose_secret()).then(|| UnsavedRefreshToken {
            value: value.clone(),
            original_sha256: lineage.original_sha256.clone(),
            sent_sha256: sha256(sent),
            replaces: lineage.stored.clone(),
            _claim: self.unsaved.claim(&self.identity.key, &lineage.original_sha256),
        })
    }

    /// Saves a rotated refresh token. Until that has worked, `unsaved` is the only copy.
    pub(super) async fn save(&self, unsaved: &UnsavedRefreshToken) -> Result<(), Outcome> {
        let key = &self.identity.refresh_token;
        let body = |seen: Option<&Version>| {
            RefreshTokenSecret {
                name: &key.name,
                source: &self.identity.key.name,
                refresh_token: &unsaved.value,
                seed_sha256: &unsaved.original_sha256,
            }
            .apply(seen)
        };
        let saved = match self.kubernetes.apply_secret(key, &body(unsaved.replaces.as_ref()), false).await {
            Err(CallError::Conflict) => match self.resolve_conflict(unsaved).await? {
                Conflict::Overwrite(seen) => {
                    self.kubernetes.apply_secret(key, &body(seen.as_ref()), false).await
                }
                Conflict::TheirsIsNewer(facts) => Ok(facts),
            },
            other => other,
        };
        match saved.map_err(|error| error.without(&unsaved.value)) {
            Ok(facts) => {
                self.secrets.observe(key, Some(facts));
                info!(source = %self.identity.key, secret = %key.name, "refresh token saved");
                Ok(())
            }
            Err(refused @ (CallError::Refused(_) | CallError::Immutable | CallError::AnotherType)) => {
                Err(Outcome::passing(
                    Reason::TargetRefused,
                    format!(
                        "the API server refuses to write Secret {}, which keeps the refresh token: {refused}",
                        key.name
                    ),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The Secret was written meanwhile. It is overwritten if it still holds what was sent; else theirs is newer.
    async fn resolve_conflict(&self, unsaved: &UnsavedRefreshToken) -> Result<Conflict, Outcome> {
        let key = &self.identity.refresh_token;
        let Some(secret) = self.kubernetes.secret(key).await? else { return Ok(Conflict::Overwrite(None)) };
        let Some(facts) = Facts::of(&secret.metadata) else { return Ok(Conflict::Overwrite(None)) };
        if !stores_refresh_token_of(&facts, &self.identity.key) {
            return Err(Outcome::passing(
                Reason::TargetConflict,
                format!(
                    "Secret {} was created by another writer just when a new refresh token was to be kept in it: delete it soon, because only this process holds that refresh token now",
                    key.name
                ),
            ));
        }
        let value = secret.data.unwrap_or_default().remove("refresh_token");
        let held = value.and_then(|value| String::from_utf8(value.0).ok()).map(SecretString::from);
        if held.is_none_or(|held| sha256(&held) == unsaved.sent_sha256) {
            Ok(Conflict::Overwrite(Some(facts.version)))
        } else {
            warn!(source = %self.identity.key, secret = %key.name, "another process has saved a newer refresh token; it stays");
            Ok(Conflict::TheirsIsNewer(facts))
        }
    }
}

/// What is done about a Secret that another writer has written meanwhile.
enum Conflict {
    /// It is overwritten, if it is still in this state (`None`: absent).
    Overwrite(Option<Version>),
    /// It holds a newer token.
    TheirsIsNewer(Facts),
}

/// Chooses the refresh token of a request: the stored one where it descends from the user's, else the user's. A person's
/// token wins only if it is another one: a label on the credentials Secret must not bring a spent token back.
pub(super) fn choose(
    read: &mut Credentials,
    stored: Option<Stored>,
    version: &Version,
    known: Option<&KnownOriginal>,
) -> Option<(Lineage, KnownOriginal)> {
    let original_sha256 = read.stored_refresh_token().map(sha256)?;
    let descends = stored.as_ref().is_some_and(|stored| stored.original_sha256 == original_sha256);
    let lineage = Lineage {
        original_sha256: original_sha256.clone(),
        is_original: !descends,
        stored: stored.as_ref().map(|stored| stored.version.clone()),
    };
    if let Some(stored) = stored.filter(|_| descends) {
        read.replace_refresh_token(stored.refresh_token);
    }
    let is_exclusive = known.is_some_and(|known| known.sha256 == original_sha256 && known.is_exclusive);
    Some((lineage, KnownOriginal { version: version.clone(), sha256: original_sha256, is_exclusive }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(resource_version: &str) -> Version {
        Version { uid: "u".into(), resource_version: resource_version.into() }
    }

    fn of_user(token: &str) -> Credentials {
        Credentials { refresh_token: Some(token.into()), ..Credentials::default() }
    }

    fn stored(token: &str, original: &str) -> Stored {
        Stored {
            refresh_token: token.into(),
            original_sha256: sha256(&original.into()),
            version: version("7"),
        }
    }

    fn sent(credentials: &Credentials) -> &str {
        credentials.refresh_token.as_ref().unwrap().expose_secret()
    }

    #[test]
    fn original_is_sent_while_nothing_is_stored() {
        let mut read = of_user("original");
        let (lineage, known) = choose(&mut read, None, &version("1"), None).unwrap();
        assert_eq!((sent(&read), lineage.is_original, lineage.stored), ("original", true, None));
        assert_eq!((known.is_exclusive, known.version), (false, version("1")));
    }

    #[test]
    fn stored_is_sent_while_it_descends_from_the_original_whatever_version_that_has() {
        let mut read = of_user("original");
        let (lineage, known) =
            choose(&mut read, Some(stored("second", "original")), &version("2"), None).unwrap();
        assert_eq!((sent(&read), lineage.is_original, lineage.stored), ("second", false, Some(version("7"))));
        assert_eq!(known.sha256, lineage.original_sha256);
    }

    #[test]
    fn original_that_a_person_replaced_wins_over_the_stored_one() {
        let known =
            KnownOriginal { version: version("1"), sha256: sha256(&"original".into()), is_exclusive: true };
        let mut read = of_user("another");
        let (lineage, after) =
            choose(&mut read, Some(stored("second", "original")), &version("2"), Some(&known)).unwrap();
        assert_eq!((sent(&read), lineage.is_original, lineage.stored), ("another", true, Some(version("7"))));
        assert!(!after.is_exclusive, "it is to be checked anew");
        let mut read = of_user("original");
        assert!(choose(&mut read, None, &version("2"), Some(&known)).unwrap().1.is_exclusive);
        assert!(choose(&mut Credentials::default(), None, &version("1"), None).is_none());
    }

    #[test]
    fn unsaved_original_is_claimed_by_its_holder_until_it_is_dropped() {
        let (originals, source) = (UnsavedOriginals::default(), Key::new("ns", "a"));
        let claim = originals.claim(&source, "sha");
        assert_eq!(originals.holder(&source.sibling("b"), "sha"), Some(source.clone()));
        assert_eq!(originals.holder(&Key::new("other", "b"), "sha"), None, "in its namespace");
        drop(claim);
        assert_eq!(originals.holder(&source, "sha"), None);
    }
}
