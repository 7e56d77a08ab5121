//! Refresh tokens that rotate: which one is sent, where the next one is stored, and whose wins. When an unsaved one is
//! tried again is in `refresh_token_saver`, what the Secret holds in `stored`, and what is known of all in `registry`.
//!
//! A person writes the *original* refresh token into the credentials Secret. A server that rotates answers each request
//! with a new one and spends the old one; the new one is then the only copy of the credential. It goes into the Secret
//! `<name>-refresh-token`, together with the digest of the original that it descends from.
//!
//! ```text
//!   Original ─┐ announce: the Secret names the token     ┌─ no new token ──withdraw──▶ as before
//!      ▲      ├──and the process, before it is ──▶ Sent ─┤
//!      │   ┌──┘  sent (conditional write)                └─ a new token ──▶ Unsaved ──save──▶ Stored
//!      │   │                                                                  │  ▲              │
//!      │   └────── the original is the same ◀─────────────┐                   └──┘ the saver    │
//!      └────────── a person wrote another original ◀──────┴─────────────────────────────────────┘
//! ```
//!
//! - *Announce* shows before a token is spent that the Secret can be written. A successor that finds the announcement of
//!   another process waits: that process may hold the next token, and its saver may still save it.
//! - Between *Sent* and *Unsaved* a crash loses the token, and no client can help it.
//! - *Unsaved*: nothing is requested. The token is in the saver's memory before the rest of the response is read.
//! - *Save* reads live where another writer was faster, and lets the newer token win ([`Winner`]).
//! - One request at a time sends a certain refresh token, over all TokenSources, because servers that see a spent token
//!   again end the whole grant.

mod registry;
mod stored;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use token_endpoint::Credentials;
use tokensource_api::{self as api, Reason};
use tracing::{debug, info, warn};

use super::cache::secrets::{CachedSecret, Secrets};
use super::outcome::Outcome;
use crate::cluster::{CallError, Kubernetes};
use crate::digest::sha256;
use crate::key::Key;
use crate::providers::{Description, needs_only_refresh_token};
use crate::secret::{Facts, Version};
use crate::spec::Identity;
use registry::Claim;
pub(super) use registry::RefreshTokens;
use stored::{Announcement, StoredToken};
pub(super) use stored::{StoredSecret, announcer, stores_refresh_token_of};

/// What this process knows of a user's refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownOriginal {
    /// The state of the credentials Secret in which it was read.
    pub(super) version: Version,
    /// SHA-256, in hex.
    pub(super) sha256: String,
    /// The epoch in which no other TokenSource of the namespace rotated it.
    pub(super) exclusive_in: Option<u64>,
}

/// Where the refresh token of a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    /// SHA-256, in hex, of the original that it descends from, or is.
    original_sha256: String,
    /// It is the original itself.
    is_original: bool,
    /// The Secret as it was read, or as it was announced in.
    secret: StoredSecret,
    is_announced: bool,
}

/// The only copy of a rotated refresh token.
pub(super) struct UnsavedRefreshToken {
    pub(super) source: Key,
    /// The Secret that it goes into.
    secret: Key,
    token: StoredToken,
    /// The announcement of the request that brought it.
    announced: Announcement,
    /// The Secret as the announcement left it.
    replaces: Option<Version>,
    /// SHA-256, in hex, of the token that the Secret held then.
    replaces_sha256: Option<String>,
    _claim: Claim,
}

/// Which of two tokens is the newer one, after another writer has changed the Secret.
#[derive(Debug, PartialEq, Eq)]
enum Winner {
    /// The unsaved one.
    Ours,
    /// The one in the Secret.
    Theirs,
    /// Both are the same: the response to an earlier write was lost.
    Same,
}

/// The rotation of one TokenSource's refresh token.
pub(super) struct Rotation<'a> {
    pub(super) kubernetes: &'a Kubernetes,
    pub(super) secrets: &'a Secrets,
    pub(super) tokens: &'a RefreshTokens,
    pub(super) identity: &'a Identity,
}

impl Rotation<'_> {
    /// Reads the stored refresh token.
    ///
    /// # Errors
    /// [`Outcome::Retry`] where the decision to send it must be made anew.
    pub(super) async fn stored(&self) -> Result<StoredSecret, Outcome> {
        let key = &self.identity.refresh_token;
        // A Secret of this name that is not ours blocks the decision to request a token.
        let CachedSecret::Present(_) = self.secrets.known_or_read(key, self.kubernetes).await? else {
            return Ok(StoredSecret::default());
        };
        let read = self.secrets.read_secret(key, self.kubernetes).await?;
        let facts = read.as_ref().and_then(|secret| Facts::of(&secret.metadata));
        let (Some(secret), Some(facts)) = (read, facts) else { return Ok(StoredSecret::default()) };
        let source = &self.identity.key;
        let is_ours = stores_refresh_token_of(&facts, source);
        if !is_ours || self.tokens.wait_for_predecessor(source, &facts).is_some() {
            return Err(Outcome::Retry);
        }
        Ok(StoredSecret::of(secret, &facts))
    }

    /// The stored token as all the credentials of a request: while the credentials Secret is as this process has read it,
    /// the stored token descends from the original in it, and the request needs nothing else of it. It saves a read.
    pub(super) fn stored_alone(
        &self,
        stored: &StoredSecret,
        known: Option<&KnownOriginal>,
        spec: &api::Credentials,
        description: &Description,
    ) -> Option<(Credentials, Lineage, Version)> {
        let CachedSecret::Present(credentials) = self.secrets.known(self.identity.credentials.as_ref()?)
        else {
            return None;
        };
        let (known, token) = (known?, stored.token.as_ref()?);
        let is_same = known.version == credentials.version && known.sha256 == token.original_sha256;
        if !is_same || !needs_only_refresh_token(spec, description) {
            return None;
        }
        let credentials = Credentials {
            client_id: spec.client_id.clone(),
            refresh_token: Some(token.value.clone()),
            ..Credentials::default()
        };
        Some((credentials, Lineage::of(stored.clone(), &known.sha256), known.version.clone()))
    }

    /// Stops a request that would send the original of another TokenSource, which has a newer token by now.
    pub(super) async fn check_exclusive(
        &self,
        lineage: &Lineage,
        original: &mut KnownOriginal,
    ) -> Result<(), Outcome> {
        let epoch = self.tokens.epoch();
        if !lineage.is_original || original.exclusive_in == Some(epoch) {
            return Ok(());
        }
        let (source, digest) = (&self.identity.key, &original.sha256);
        let in_memory = self.tokens.unsaved.holder(source, digest).filter(|other| other != source);
        let other = match in_memory {
            Some(other) => Some(other.name.to_string()),
            None => self.kubernetes.other_with_original(source, digest).await?,
        };
        let Some(other) = other else {
            original.exclusive_in = Some(epoch);
            return Ok(());
        };
        Err(Outcome::configuration(
            Reason::GrantRejected,
            format!(
                "TokenSource {other} uses the same refresh token, which changes with every use: create a refresh token for each of them, or mount the target of {other} (if {other} is gone for good, delete Secret {other}-refresh-token)"
            ),
        ))
    }

    /// Announces that a refresh token is about to be sent, where the server may rotate it.
    ///
    /// # Errors
    /// The Secret cannot be written, so that nothing may be sent: the next refresh token could not be saved either.
    pub(super) async fn announce(
        &self,
        lineage: &mut Lineage,
        refresh_token: &SecretString,
    ) -> Result<(), Outcome> {
        if lineage.is_original && lineage.secret.unrotated_sha256.as_ref() == Some(&lineage.original_sha256) {
            return Ok(());
        }
        let announced =
            Announcement { sent_sha256: sha256(refresh_token), process: self.tokens.process.clone() };
        let announcing = StoredSecret { announced: Some(announced), ..lineage.secret.clone() };
        let (key, source) = (&self.identity.refresh_token, &self.identity.key);
        let sent = self.secrets.sending(key);
        match self.kubernetes.apply_secret(key, &announcing.apply(key, source), false).await {
            Ok(facts) => {
                lineage.secret = StoredSecret { version: Some(facts.version.clone()), ..announcing };
                lineage.is_announced = true;
                self.secrets.observe(key, sent, Some(facts));
                Ok(())
            }
            Err(CallError::Conflict | CallError::NotFound) => {
                self.secrets.read_facts(key, self.kubernetes).await?;
                Err(Outcome::Retry)
            }
            Err(error) => Err(refused(key, announcing.without_token(error))),
        }
    }

    /// Withdraws an announcement, because this process holds no new refresh token. `unrotated`: the response had none.
    /// What fails here costs a successor a wait.
    pub(super) async fn withdraw(&self, lineage: &Lineage, unrotated: bool) {
        if !lineage.is_announced {
            return;
        }
        let mut after = StoredSecret { announced: None, ..lineage.secret.clone() };
        if unrotated && lineage.is_original {
            after.unrotated_sha256 = Some(lineage.original_sha256.clone());
        }
        let (key, source) = (&self.identity.refresh_token, &self.identity.key);
        let sent = self.secrets.sending(key);
        match self.kubernetes.apply_secret(key, &after.apply(key, source), false).await {
            Ok(facts) => {
                self.secrets.observe(key, sent, Some(facts));
            }
            Err(error) => {
                let error = after.without_token(error);
                debug!(%source, secret = %key.name, %error, "announcement of a refresh token not withdrawn");
            }
        }
    }

    /// Takes the refresh token of a response in, if it is another one than was sent.
    pub(super) fn received(
        &self,
        refresh_token: &SecretString,
        lineage: &Lineage,
        sent: &SecretString,
    ) -> Option<UnsavedRefreshToken> {
        if refresh_token.expose_secret() == sent.expose_secret() {
            return None;
        }
        let source = &self.identity.key;
        let claim = self.tokens.unsaved.claim(source, &lineage.original_sha256);
        let before = lineage.secret.token.as_ref().filter(|_| !lineage.is_original);
        if lineage.is_original {
            self.tokens.next_epoch();
        }
        Some(UnsavedRefreshToken {
            source: source.clone(),
            secret: self.identity.refresh_token.clone(),
            token: StoredToken {
                value: refresh_token.clone(),
                original_sha256: lineage.original_sha256.clone(),
                rotations: before.map_or(0, |before| before.rotations).saturating_add(1),
            },
            announced: Announcement { sent_sha256: sha256(sent), process: self.tokens.process.clone() },
            replaces: lineage.secret.version.clone(),
            replaces_sha256: lineage.secret.token_sha256(),
            _claim: claim,
        })
    }
}

impl UnsavedRefreshToken {
    /// Tries once to save it. Until that has worked, this is the only copy.
    pub(super) async fn save(&self, kubernetes: &Kubernetes, secrets: &Secrets) -> Result<(), Outcome> {
        let (source, key) = (&self.source, &self.secret);
        let sent = secrets.sending(key);
        let written = match self.write(kubernetes, self.replaces.clone()).await {
            Err(CallError::Conflict | CallError::NotFound) => match self.overwritten(kubernetes).await? {
                Some(seen) => self.write(kubernetes, seen).await,
                None => return Ok(()),
            },
            other => other,
        };
        match written {
            Ok(facts) => {
                secrets.observe(key, sent, Some(facts));
                info!(%source, secret = %key.name, "refresh token saved");
                Ok(())
            }
            Err(CallError::NotFound) => {
                warn!(%source, secret = %key.name, "refresh token dropped, because its namespace is gone");
                Ok(())
            }
            Err(error) => Err(refused(key, error)),
        }
    }

    async fn write(&self, kubernetes: &Kubernetes, seen: Option<Version>) -> Result<Facts, CallError> {
        let saved =
            StoredSecret { version: seen, token: Some(self.token.clone()), ..StoredSecret::default() };
        let body = saved.apply(&self.secret, &self.source);
        let written = kubernetes.apply_secret(&self.secret, &body, false).await;
        written.map_err(|error| error.without(&self.token.value))
    }

    /// The Secret was written meanwhile. Returns the state in which it is to be overwritten; `None` where it need not be.
    async fn overwritten(&self, kubernetes: &Kubernetes) -> Result<Option<Option<Version>>, Outcome> {
        let (source, key) = (&self.source, &self.secret);
        let secret = kubernetes.secret(key).await?;
        let facts = secret.as_ref().and_then(|secret| Facts::of(&secret.metadata));
        let (Some(secret), Some(facts)) = (secret, facts) else { return Ok(Some(None)) };
        if !stores_refresh_token_of(&facts, source) {
            return Err(Outcome::passing(
                Reason::TargetConflict,
                format!(
                    "Secret {} was created by another writer just when a new refresh token was to be kept in it: delete it soon, because only this process holds that refresh token now",
                    key.name
                ),
            ));
        }
        match self.winner(&StoredSecret::of(secret, &facts)) {
            Winner::Ours => Ok(Some(Some(facts.version))),
            Winner::Same => {
                info!(%source, secret = %key.name, "refresh token saved");
                Ok(None)
            }
            Winner::Theirs => {
                warn!(%source, secret = %key.name, "another process has saved a newer refresh token; it stays");
                Ok(None)
            }
        }
    }

    fn winner(&self, stored: &StoredSecret) -> Winner {
        let held = stored.token_sha256();
        if held == Some(sha256(&self.token.value)) {
            return Winner::Same;
        }
        // Nothing was sent since: a successor would have announced that.
        if stored.announced.as_ref() == Some(&self.announced) {
            return Winner::Ours;
        }
        // A backup from before the first rotation, or a successor that has nothing but the original, which is spent.
        let sends_original = |announced: &Announcement| announced.sent_sha256 == self.token.original_sha256;
        if held.is_none() && stored.announced.as_ref().is_some_and(sends_original) {
            return Winner::Ours;
        }
        // A successor sends neither what was sent for this one nor what is stored: a person has written another original.
        let is_other = |announced: &Announcement| {
            announced.sent_sha256 != self.announced.sent_sha256
                && Some(&announced.sent_sha256) != held.as_ref()
        };
        if stored.announced.as_ref().is_some_and(is_other) {
            return Winner::Theirs;
        }
        let is_ancestor = match &stored.token {
            Some(token) if token.original_sha256 == self.token.original_sha256 => {
                token.rotations < self.token.rotations
            }
            // Of another original: only what this one was to replace anyway is older.
            _ => held == self.replaces_sha256,
        };
        if is_ancestor { Winner::Ours } else { Winner::Theirs }
    }
}

fn refused(secret: &Key, error: CallError) -> Outcome {
    match error {
        CallError::Refused(_) | CallError::Immutable | CallError::AnotherType => Outcome::passing(
            Reason::TargetRefused,
            format!(
                "the API server refuses to write Secret {}, which keeps the refresh token: {error}",
                secret.name
            ),
        ),
        error => error.into(),
    }
}

impl Lineage {
    /// The lineage of a token that descends from this original, or is it.
    fn of(secret: StoredSecret, original_sha256: &str) -> Self {
        let descends = secret.token.as_ref().is_some_and(|token| token.original_sha256 == original_sha256);
        Lineage {
            original_sha256: original_sha256.to_owned(),
            is_original: !descends,
            secret,
            is_announced: false,
        }
    }
}

/// Chooses the refresh token of a request: the stored one where it descends from the user's, else the user's. A person's
/// token wins only if it is another one: a label on the credentials Secret must not bring a spent token back.
pub(super) fn choose(
    read: &mut Credentials,
    stored: StoredSecret,
    version: &Version,
    known: Option<&KnownOriginal>,
) -> Option<(Lineage, KnownOriginal)> {
    // Of the form that is sent: a person who removes a byte order mark around a spent token has not written another one.
    let original_sha256 = read.refresh_token.as_ref().map(sha256)?;
    let lineage = Lineage::of(stored, &original_sha256);
    if let Some(stored) = lineage.secret.token.as_ref().filter(|_| !lineage.is_original) {
        read.replace_refresh_token(stored.value.clone());
    }
    let known = known.filter(|known| known.sha256 == original_sha256);
    let exclusive_in = known.and_then(|known| known.exclusive_in);
    Some((lineage, KnownOriginal { version: version.clone(), sha256: original_sha256, exclusive_in }))
}

impl fmt::Debug for UnsavedRefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsavedRefreshToken").field("replaces", &self.replaces).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
