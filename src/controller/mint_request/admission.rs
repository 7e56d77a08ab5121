//! Whether a token request may be sent now, waits for its client, or would repeat a known rejection.

use std::sync::Arc;
use std::time::Duration;

use token_endpoint::{Admission, EndpointPermit, Expedite, Terms};

use super::TokenRequest;
use crate::controller::mint_queue::MintRequest;
use crate::key::Key;
use crate::refresh::{is_last_attempt, patience};
use crate::secret::{Record, Version};
use crate::time::seconds_between;

impl TokenRequest<'_> {
    /// Parks or rejects an entry whose client is known from an earlier request with the same credentials, before anything is
    /// read for it. `None`: it was taken back meanwhile.
    pub(super) fn screen(
        &self,
        request: &MintRequest,
        permit: EndpointPermit<Key>,
    ) -> Option<Admission<Key>> {
        if let Some(client) = self.known_lent_client() {
            if request.expedite == Some(Expedite::Asked) {
                self.context.mints.limiter().expedite_group(client);
            }
            return self.judged(request, |permit| permit.screen_group(client, self.terms()), permit);
        }
        // A refresh token has changed since.
        let may_know = !self.spec.sends_refresh_token() && self.knows_by_version();
        let known = may_know.then(|| self.cached_credentials()).flatten().and_then(|version| {
            let key = self.identity.credentials.as_ref()?;
            self.context.secrets.request_identity(key, &version, &self.spec.wanted.provider)
        });
        let Some(identity) = known else { return Some(Admission::Granted(permit)) };
        if let Some(why) = request.expedite {
            self.context.mints.limiter().expedite(&self.identity.key.namespace, identity, why);
        }
        self.judged(request, |permit| permit.screen(identity, self.terms()), permit)
    }

    /// How the request may wait: it depends on the life that is left of the token that it would replace.
    pub(super) fn terms(&self) -> Terms {
        let fits = |record: &&Arc<Record>| record.inputs.provider == self.spec.wanted.provider;
        let now = self.context.now();
        let remaining =
            self.record.as_ref().filter(fits).map_or(0, |record| seconds_between(now, record.expires_at));
        Terms {
            exclusive: self.spec.sends_refresh_token(),
            patience: (remaining > 0).then(|| Duration::from_secs(patience(remaining))),
            is_last_attempt: is_last_attempt(remaining, self.spec.policy.propagation_delay),
        }
    }

    /// Before it is parked it must be back in its slot: it may begin anew at once.
    pub(super) fn judged(
        &self,
        request: &MintRequest,
        judge: impl FnOnce(EndpointPermit<Key>) -> Admission<Key>,
        permit: EndpointPermit<Key>,
    ) -> Option<Admission<Key>> {
        let (mints, key) = (&self.context.mints, &self.identity.key);
        mints.requeue(key, request.clone());
        match judge(permit) {
            Admission::Parked => Some(Admission::Parked),
            other => mints.begin(key).map(|_| other),
        }
    }

    pub(super) fn cached_credentials(&self) -> Option<Version> {
        let Some(key) = &self.identity.credentials else { return Some(Version::of_nothing()) };
        let credentials = self.context.secrets.known(key).present()?;
        Some(self.spec.credentials_version(&credentials.version))
    }
}
