//! The state on which the tests decide.

use std::sync::Arc;

use super::super::*;
use crate::refresh::cause::caused;
use crate::refresh::schedule::DEFAULT_MAX_INTERVAL;
use crate::secret::{ControlledBy, Minted};

/// Everything that an [`Observed`] borrows. In the initial state nothing is to be done; each test changes one thing.
#[derive(Clone)]
pub(super) struct World {
    pub(super) source: Owner,
    pub(super) wanted: Wanted,
    pub(super) credentials: Option<Version>,
    pub(super) seen_credentials: Option<Version>,
    pub(super) seen_as_minted: bool,
    pub(super) target: Option<Facts>,
    pub(super) foreign_refresh_token: bool,
    pub(super) failure: Option<Failure>,
    /// What it was requested with, when it would be refreshed, and when it expires.
    pub(super) pending: Option<(Inputs, Timestamp, Timestamp)>,
    pub(super) unsaved_refresh_token: bool,
    pub(super) predecessor_until: Option<Timestamp>,
    pub(super) metadata_restored_at: Option<Timestamp>,
    pub(super) replace_at: Option<Timestamp>,
    pub(super) deleting: bool,
    pub(super) suspended: bool,
    pub(super) tried: Tried,
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn version(uid: &str, resource_version: &str) -> Version {
    Version { uid: uid.into(), resource_version: resource_version.into() }
}

fn controlled_by(kind: &str, uid: &str) -> ControlledBy {
    ControlledBy::Other(Box::new((kind.into(), "vault-api".into(), uid.into())))
}

/// A token of 300 s, issued at 0, refreshed between 135 and 150.
pub(super) fn world() -> World {
    let source = Owner { name: "vault-api".into(), uid: "uid".into() };
    let credentials = version("cred", "7");
    let minted = Minted {
        issued_at: at(0),
        expires_at: at(300),
        token_id: "3f9a1c0d42be".into(),
        token_type: "Bearer".into(),
        scope: None,
        lifetime_is_assumed: false,
        is_jwt: false,
        remarks: vec![],
    };
    let inputs = Inputs { provider: "p".into(), credentials: credentials.clone() };
    let keys = KeySet::from_iter(["access_token"]);
    World {
        target: Some(Facts {
            // Changes of the record are none of the controller here.
            controlled_by: Some(controlled_by("TokenSource", "uid")),
            record: Some(Arc::new(Record::new(source.clone(), inputs, None, minted, None))),
            owned_keys: keys,
            ..Facts::labelled(version("target", "12"))
        }),
        source,
        wanted: Wanted {
            provider: "p".into(),
            refresh_request: None,
            template: None,
            keys,
            owner_reference: true,
        },
        credentials: Some(credentials),
        seen_credentials: None,
        seen_as_minted: false,
        foreign_refresh_token: false,
        failure: None,
        pending: None,
        unsaved_refresh_token: false,
        predecessor_until: None,
        metadata_restored_at: None,
        replace_at: None,
        deleting: false,
        suspended: false,
        tried: Tried { spec: "s".into(), request: "r".into(), credentials: "c".into() },
    }
}

impl World {
    pub(super) fn with(mut self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn target(&mut self) -> &mut Facts {
        self.target.as_mut().unwrap()
    }

    /// Its controller is vault-api of this kind and uid.
    pub(super) fn controlled_by(&mut self, kind: &str, uid: &str) {
        self.target().controlled_by = Some(controlled_by(kind, uid));
    }

    pub(super) fn record(&mut self) -> &mut Record {
        Arc::make_mut(self.target.as_mut().unwrap().record.as_mut().unwrap())
    }

    pub(super) fn failed(&mut self, next_attempt_at: Option<i64>) -> &mut Failure {
        self.failure.insert(Failure {
            tried: self.tried.clone(),
            failed_at: at(0),
            next_attempt_at: next_attempt_at.map(at),
            issuer_asks_to_wait: false,
            refused_target: None,
        })
    }

    pub(super) fn dated(&self) -> Option<DatedRecord> {
        let record = self.target.as_ref().and_then(|target| target.record.clone());
        record.map(|record| DatedRecord { record, replace_at: self.replace_at })
    }

    pub(super) fn observed<'a>(&'a self, dated: Option<&'a DatedRecord>) -> Observed<'a> {
        Observed {
            source: &self.source,
            deleting: self.deleting,
            suspended: self.suspended,
            policy: Policy {
                before: None,
                max_interval: DEFAULT_MAX_INTERVAL,
                propagation_delay: 90,
                min_interval: 0,
            },
            wanted: &self.wanted,
            credentials: self.credentials.as_ref(),
            seen_credentials: self.seen_credentials.as_ref(),
            seen_as_minted: self.seen_as_minted,
            target: self.target.as_ref(),
            foreign_refresh_token: self.foreign_refresh_token,
            failure: self.failure.as_ref(),
            pending: self.pending.as_ref().map(|(inputs, refresh_at, expires_at)| Pending {
                inputs,
                refresh_at: *refresh_at,
                expires_at: *expires_at,
            }),
            unsaved_refresh_token: self.unsaved_refresh_token,
            predecessor_until: self.predecessor_until,
            minting: false,
            metadata_restored_at: self.metadata_restored_at,
            dated,
        }
    }

    pub(super) fn decide(&self, now: i64) -> Decision {
        decide(at(now), &self.observed(self.dated().as_ref()), &self.tried)
    }

    /// Whose change a token request answers, and when it is made in any case.
    pub(super) fn caused(&self, now: i64) -> Option<(Cause, Option<i64>)> {
        let Decision::Mint(reason) = self.decide(now) else { panic!("no token is requested") };
        let caused = caused(at(now), &self.observed(self.dated().as_ref()), &self.tried, reason)?;
        Some((caused.cause, caused.in_any_case_at.map(Timestamp::as_second)))
    }
}
