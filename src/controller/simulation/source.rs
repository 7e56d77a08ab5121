//! One TokenSource of a simulation: its Secrets, and what the process remembers of it.

use std::sync::Arc;

use jiff::Timestamp;
use token_endpoint::{Error, KnownRejection};

use super::run::POLICY;
use crate::refresh::{DatedRecord, FailedAttempt, Failure, Observed, Pending, Tried, Wanted, wait};
use crate::secret::{ControlledBy, Facts, KeySet, Owner, Record, Version};
use crate::time::plus;

/// One TokenSource with its Secrets, and what the process remembers of it.
pub(super) struct Simulated {
    pub(super) n: usize,
    pub(super) owner: Owner,
    pub(super) wanted: Wanted,
    pub(super) target: Option<Facts>,
    /// The record on the target.
    pub(super) dated: Option<DatedRecord>,
    pub(super) credentials: Version,
    /// The version that was read, and the number of its secret.
    pub(super) seen: Option<(Version, usize)>,
    pub(super) minted_with: Option<usize>,
    pub(super) pending: Option<(Record, Timestamp, usize)>,
    pub(super) failed: Option<(Failure, u32)>,
    pub(super) in_second: (u64, usize),
    pub(super) write_failed: bool,
}

/// What a token request brought.
pub(super) struct Brought {
    pub(super) tried: Tried,
    pub(super) secret: usize,
    pub(super) credentials: Version,
    pub(super) sent_at: Timestamp,
    pub(super) outcome: Result<u64, Failed>,
}

pub(super) enum Failed {
    Answered(Error),
    Known(KnownRejection),
}

impl Simulated {
    pub(super) fn new(n: usize, seed: u64) -> Self {
        let wanted = Wanted {
            provider: "p".into(),
            refresh_request: None,
            template: None,
            keys: KeySet::from_iter(["access_token"]),
            owner_reference: true,
        };
        Self {
            n,
            owner: Owner { name: format!("source-{n}").into(), uid: format!("uid-{seed}-{n}").into() },
            wanted,
            target: None,
            dated: None,
            credentials: Version { uid: "credentials".into(), resource_version: "1".into() },
            seen: None,
            minted_with: None,
            pending: None,
            failed: None,
            in_second: (0, 0),
            write_failed: false,
        }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.target.as_ref()?.record.as_deref()
    }

    pub(super) fn tried(&self) -> Tried {
        Tried {
            spec: "s".into(),
            request: self.wanted.refresh_request.as_deref().unwrap_or_default().into(),
            credentials: self.credentials.resource_version.to_string(),
        }
    }

    pub(super) fn observed(&self, minting: bool) -> Observed<'_> {
        let seen_as_minted = match (&self.seen, self.minted_with) {
            (Some((_, seen)), Some(minted)) => *seen == minted,
            _ => false,
        };
        Observed {
            credentials: Some(&self.credentials),
            seen_credentials: self.seen.as_ref().map(|(version, _)| version),
            seen_as_minted,
            target: self.target.as_ref(),
            failure: self.failed.as_ref().map(|(failure, _)| failure),
            minting,
            pending: self.pending.as_ref().map(|(record, due, _)| Pending {
                inputs: &record.inputs,
                refresh_at: *due,
                expires_at: record.expires_at,
            }),
            dated: self.dated.as_ref(),
            ..Observed::nothing(&self.owner, &self.wanted, POLICY)
        }
    }

    /// A failed attempt, as the reconciliation takes it in.
    pub(super) fn failed(&mut self, now: Timestamp, tried: Tried, failed: Failed) {
        let before = self.failed.as_ref().map_or(0, |(_, count)| *count);
        let (class, error, held_back) = match failed {
            Failed::Answered(error) => (error.class(), error, None),
            Failed::Known(known) => (known.class, *known.error, Some(known.retry_in.as_secs() + 1)),
        };
        let retry_after = error.retry_after().filter(|_| held_back.is_none());
        let count = if held_back.is_some() { before.max(1) } else { before + 1 };
        let waits = wait(
            now,
            &FailedAttempt {
                class,
                count,
                retry_after,
                held_back,
                expires_at: self.record().map(|record| record.expires_at),
                propagation_delay: POLICY.propagation_delay,
                may_be_spent: false,
                uid: &self.owner.uid,
            },
        );
        let failure = Failure {
            tried,
            failed_at: now,
            next_attempt_at: waits.map(|seconds| plus(now, seconds)),
            issuer_asks_to_wait: retry_after.is_some(),
            refused_target: None,
        };
        self.failed = Some((failure, count));
    }

    pub(super) fn write(&mut self, record: Record, secret: usize) {
        let version =
            self.target.as_ref().map_or(0, |it| it.version.resource_version.parse().unwrap_or(0)) + 1;
        self.minted_with = Some(secret);
        let record = Arc::new(record);
        self.dated = Some(DatedRecord { record: Arc::clone(&record), replace_at: None });
        self.target = Some(Facts {
            controlled_by: Some(ControlledBy::Recorded),
            record: Some(Arc::clone(&record)),
            owned_keys: self.wanted.keys,
            ..Facts::labelled(Version { uid: "target".into(), resource_version: version.to_string().into() })
        });
    }
}
