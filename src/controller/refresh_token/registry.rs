//! What this process knows of the refresh tokens of all TokenSources: which are being sent, which originals are rotated, and
//! what other processes have announced.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::stored::is_by;
use crate::digest::sha256;
use crate::key::Key;
use crate::secret::Facts;

/// How long a saver has, after the lease of its process has ended, before a successor sends the announced token itself.
const SAVER_TIME: Duration = Duration::from_secs(60);

/// What this process knows of the refresh tokens of all TokenSources, beside the unsaved ones.
pub(in crate::controller) struct RefreshTokens {
    /// The name of this process, which no other has.
    pub(super) process: String,
    /// How long another process's announcement holds this one up.
    successor_wait: Duration,
    /// Grows with every term of leadership and with every original that is rotated first: what was exclusive before is
    /// checked again.
    epoch: AtomicU64,
    /// SHA-256 of the refresh tokens that are being sent.
    sending: Mutex<HashSet<String>>,
    /// The announcements of other processes, by TokenSource, since this process met them in office.
    met: Mutex<HashMap<Key, (String, Instant)>>,
    pub(super) unsaved: UnsavedOriginals,
}

/// A refresh token is being sent, until this is dropped.
#[must_use]
pub(in crate::controller) struct Sending<'a> {
    tokens: &'a RefreshTokens,
    sha256: String,
}

/// The originals whose newest descendant is in memory alone, with the TokenSource that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct UnsavedOriginals(Arc<Mutex<HashMap<Original, Key>>>);

/// A namespace, and SHA-256 of an original, in hex.
type Original = (Arc<str>, String);

/// An entry of [`UnsavedOriginals`], until it is dropped.
pub(super) struct Claim {
    originals: UnsavedOriginals,
    original: Original,
    source: Key,
}

impl RefreshTokens {
    /// For the process of this name; `lease` is how long a predecessor may lead at most after its last renewal.
    pub(in crate::controller) fn new(process: String, lease: Duration) -> Self {
        RefreshTokens {
            process,
            successor_wait: lease + SAVER_TIME,
            epoch: AtomicU64::new(0),
            sending: Mutex::default(),
            met: Mutex::default(),
            unsaved: UnsavedOriginals::default(),
        }
    }

    /// The epoch; see the member.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// An original is rotated for the first time, or a term of leadership ends: another TokenSource may have the same one.
    pub(super) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// A term of leadership ends: others may rotate originals, and announce requests.
    pub(in crate::controller) fn end_term(&self) {
        self.next_epoch();
        lock(&self.met).clear();
    }

    /// A TokenSource is gone.
    pub(in crate::controller) fn forget(&self, source: &Key) {
        lock(&self.met).remove(source);
    }

    /// A refresh token is about to be sent. `None`: it is being sent, for another TokenSource.
    pub(in crate::controller) fn begin_sending(&self, refresh_token: &SecretString) -> Option<Sending<'_>> {
        let sha256 = sha256(refresh_token);
        let is_new = lock(&self.sending).insert(sha256.clone());
        is_new.then(|| Sending { tokens: self, sha256 })
    }

    /// How long to wait because another process announced a request, and may hold the next refresh token. From when this
    /// process first met the announcement in office, by its own clock.
    pub(in crate::controller) fn wait_for_predecessor(
        &self,
        source: &Key,
        facts: &Facts,
    ) -> Option<Duration> {
        let mut met = lock(&self.met);
        let announced = facts.rare().refresh_token_sent.as_deref();
        let Some(announced) = announced.filter(|announced| !is_by(announced, &self.process)) else {
            met.remove(source);
            return None;
        };
        let now = Instant::now();
        let (known, since) = met.entry(source.clone()).or_insert_with(|| (announced.to_owned(), now));
        if known != announced {
            (*known, *since) = (announced.to_owned(), now);
        }
        let left = self.successor_wait.saturating_sub(now.saturating_duration_since(*since));
        (!left.is_zero()).then_some(left)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        lock(&self.tokens.sending).remove(&self.sha256);
    }
}

impl UnsavedOriginals {
    pub(super) fn claim(&self, source: &Key, original_sha256: &str) -> Claim {
        let original = (Arc::clone(&source.namespace), original_sha256.to_owned());
        lock(&self.0).insert(original.clone(), source.clone());
        Claim { originals: self.clone(), original, source: source.clone() }
    }

    pub(super) fn holder(&self, source: &Key, original_sha256: &str) -> Option<Key> {
        lock(&self.0).get(&(Arc::clone(&source.namespace), original_sha256.to_owned())).cloned()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let originals = &mut *lock(&self.originals.0);
        if originals.get(&self.original) == Some(&self.source) {
            originals.remove(&self.original);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Ignores poisoning: no code panics between the steps of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
