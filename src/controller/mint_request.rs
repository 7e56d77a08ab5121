//! One token request: sees whether a token is still needed, reads what the request needs, sends it once, and saves a rotated
//! refresh token.

mod admission;
mod clock;
mod lent;
mod material;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use token_endpoint::{
    Admission, Answer, Class, Credentials, Digest, Discovery, EndpointPermit, Error, RequestDescription, Tls,
};
use tokensource_api::{Reason, TokenSource};
use tokio::time::Instant;
use tracing::{debug, info};

use super::api_permits::ApiPermit;
use super::attempt_memory::{held_bytes, most_bytes};
use super::cache::source::CachedSource;
use super::context::Context;
use super::mint_queue::{MintRequest, MintResult, NewToken};
use super::outcome::Outcome;
use super::refresh_token::{KnownOriginal, Lineage, Rotation};
use super::spans;
use crate::key::Key;
use crate::providers::Description;
use crate::refresh::{MintReason, Observed, attempt_timeout, needed, refresh_at};
use crate::secret::{Inputs, Ownership, Record, Version, ownership};
use crate::spec::{Identity, Resolved, other_host};
use crate::status::reason;
use crate::time::seconds_between;
use crate::token_request::{Sent, TokenAccount, send};

/// A shorter wait is not logged.
const WAIT_TO_LOG: Duration = Duration::from_millis(100);

/// How a token request ended.
pub(super) enum Ended {
    Result(Box<MintResult>),
    /// It waits for its client, and begins anew.
    Parked,
    /// The TokenSource is reconciled, to see what it needs.
    NotNeeded,
}

/// What a request needs, as it was read.
struct Material {
    tls: Tls,
    credentials: Credentials,
    version: Version,
    remarks: Vec<String>,
    /// What may be wrong with the credentials, should they be rejected.
    doubts: Vec<String>,
    /// A digest of the user's values, where they were read. A stored refresh token is none of them.
    values: Option<Digest>,
    lineage: Option<Lineage>,
    original: Option<Box<KnownOriginal>>,
    /// The token of a ServiceAccount that is sent: when it ends, and whose it is.
    subject: Option<(Timestamp, TokenAccount)>,
}

impl Material {
    /// What it and the request that is made of it hold in memory, without the CA bundle.
    fn bytes(&self, description: &Description) -> usize {
        held_bytes(description, &self.credentials) + self.tls.chain_bytes()
    }
}

/// One request, for the TokenSource as it is in the caches now.
struct TokenRequest<'a> {
    context: &'a Context,
    source: &'a TokenSource,
    identity: &'a Identity,
    spec: &'a Resolved,
    /// The record on the target, where that is ours.
    record: Option<Arc<Record>>,
}

/// Requests a token for a TokenSource as it is in the caches now.
pub(super) async fn request_token(
    context: &Context,
    key: &Key,
    request: MintRequest,
    permit: EndpointPermit<Key>,
) -> Ended {
    let waited = permit.waited();
    let Some(cached) = context.sources.get(key) else { return Ended::NotNeeded };
    let Some((source, identity, mut spec)) = resolved(&cached, context).await else {
        return Ended::NotNeeded;
    };
    spec.policy = request.policy;
    let Some(mint_reason) = still_needed(context, &source, &identity, &spec) else { return Ended::NotNeeded };
    spans::is_about(spec.host());
    let record = context.record(&identity).map(|dated| dated.record);
    let minting = TokenRequest { context, source: &source, identity: &identity, spec: &spec, record };

    let permit = match minting.screen(&request, permit) {
        Some(Admission::Granted(permit)) => permit,
        Some(Admission::Parked) => return Ended::Parked,
        Some(Admission::Rejected(known)) => {
            let credentials = minting.cached_credentials();
            let mut result = MintResult::empty(identity.owner.uid.clone(), mint_reason, request.cause);
            result.tried = Some(spec.tried(credentials.as_ref()));
            result.outcome = Err(Outcome::known_rejection(&known));
            return Ended::Result(Box::new(result));
        }
        None => return Ended::NotNeeded,
    };
    context.metrics.request_waited(spec.host(), waited);
    if waited >= WAIT_TO_LOG {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        debug!(source = %key, host = spec.host(), waited_ms, "token request waited for its endpoint");
    }
    let begun = Instant::now();
    let ended = minting.run(request, mint_reason, permit).await;
    if let Ended::Result(result) = &ended {
        minting.note_answer(result, begun);
    }
    ended
}

/// `None` where its reconciliation finds out what is wrong.
async fn resolved(
    cached: &Arc<CachedSource>,
    context: &Context,
) -> Option<(Box<TokenSource>, Identity, Resolved)> {
    let mut source = if cached.lacks_spec() {
        let _permit = context.permits.acquire(&cached.key.namespace).await;
        context.with_spec(cached).await.ok()??.source().ok()?
    } else {
        cached.source().ok()?
    };
    let mut identity = Identity::of(&source, &cached.key)?;
    let spec = context.resolve(&mut source, &mut identity).ok()?;
    Some((source, identity, spec))
}

/// Why a token is needed by the caches and the present spec, if it is.
fn still_needed(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    spec: &Resolved,
) -> Option<MintReason> {
    if !context.leadership.may_start() || !context.may_act_in(&identity.key.namespace) {
        return None;
    }
    let target = context.secrets.known(&identity.target).observed()?;
    let credentials = context.credentials_version(identity, spec)?;
    let is_ours = target.as_deref().is_none_or(|target| {
        let ownership = ownership(target, &identity.owner);
        !target.terminating && matches!(ownership, Ownership::Ours | Ownership::Offered)
    });
    let is_wanted =
        source.metadata.deletion_timestamp.is_none() && source.spec.suspend != Some(true) && is_ours;
    let dated = context.record(identity);
    let observed = Observed {
        credentials: Some(&credentials),
        target: target.as_deref(),
        dated: dated.as_ref(),
        ..Observed::nothing(&identity.owner, &spec.wanted, spec.policy)
    };
    needed(context.now(), &observed).filter(|_| is_wanted)
}

impl TokenRequest<'_> {
    fn rotation(&self) -> Rotation<'_> {
        self.context.rotation(self.identity)
    }

    /// A permit to call the API server. What has begun goes before what has not: it holds an endpoint's permit, which a
    /// more urgent request may wait for.
    async fn api_permit(&self) -> ApiPermit {
        self.context.permits.acquire(&self.identity.key.namespace).await
    }

    async fn run(&self, request: MintRequest, mint_reason: MintReason, permit: EndpointPermit<Key>) -> Ended {
        let mut result = MintResult::empty(self.identity.owner.uid.clone(), mint_reason, request.cause);
        let most = most_bytes(self.source.spec.tls.as_ref());
        let mut memory = self.context.attempt_memory.reserve(&self.payer(), most, permit.deadline()).await;
        let material = match self.material(request.original.as_deref(), &mut result).await {
            Ok(material) => {
                memory.keep(material.bytes(&self.spec.description), material.tls.custom_roots());
                material
            }
            Err(outcome) => {
                result.outcome = Err(outcome);
                return Ended::Result(Box::new(result));
            }
        };
        result.tried = Some(self.spec.tried(Some(&material.version)));
        if material.values.is_some() {
            result.credentials = Some((material.version.clone(), material.values));
        }
        result.original.clone_from(&material.original);

        let asked = &self.spec.description.request;
        let located = self.discovery().locate(asked, &material.tls, self.timeout()).await;
        let description = match located {
            Ok(description) if self.allows_endpoint(&description) => description,
            // The permit is given back: nothing was sent.
            Ok(description) => {
                result.outcome = Err(Outcome::passing(
                    Reason::EndpointRefusedByPolicy,
                    other_host(&description.token_url),
                ));
                return Ended::Result(Box::new(result));
            }
            Err(error) => {
                result.outcome = Err(self.not_sent(&error));
                permit.finish(&Err::<(), _>(error));
                return Ended::Result(Box::new(result));
            }
        };
        let (limiter, tenant) = (self.context.mints.limiter(), &self.identity.key.namespace);
        let Material { credentials, tls, .. } = &material;
        let lent = self.lent_client();
        let identity = match lent {
            Some(issuer) => limiter.identity_in_group((&issuer.name, tenant), &description, credentials, tls),
            None => limiter.identity(tenant, &description, credentials, tls),
        };
        if let Some(issuer) = lent {
            self.context.issuers.remember_client(issuer, &material.version, identity.group_client());
        }
        if let Some(key) = self.identity.credentials.as_ref().filter(|_| self.spec.issuer.is_none()) {
            let provider = &self.spec.wanted.provider;
            self.context.secrets.remember_request(key, &material.version, provider, identity);
        }
        if let Some(why) = request.expedite {
            limiter.expedite(tenant, identity, why);
        }
        match self.judged(&request, |permit| permit.admit(identity, self.terms()), permit) {
            Some(Admission::Granted(permit)) => {
                // Another TokenSource may present the same refresh token as another client.
                let refresh_token = material.credentials.refresh_token.clone();
                let refresh_token = refresh_token.filter(|_| self.spec.sends_refresh_token());
                let sending = refresh_token.map(|it| self.context.refresh_tokens.begin_sending(&it));
                if let Some(None) = sending {
                    return Ended::NotNeeded;
                }
                result.outcome = self.send(&description, material, permit, &mut result).await;
            }
            Some(Admission::Parked) => return Ended::Parked,
            Some(Admission::Rejected(known)) => result.outcome = Err(Outcome::known_rejection(&known)),
            None => return Ended::NotNeeded,
        }
        Ended::Result(Box::new(result))
    }

    /// Look-ups of names are shared out among namespaces.
    fn discovery(&self) -> Discovery {
        self.context.endpoints(self.spec).discovery.for_tenant(&self.identity.key.namespace)
    }

    async fn send(
        &self,
        description: &RequestDescription,
        mut material: Material,
        permit: EndpointPermit<Key>,
        result: &mut MintResult,
    ) -> Result<Box<NewToken>, Outcome> {
        self.prepare(&mut material, result.original.as_deref_mut()).await?;
        self.add_service_account_token(description, &mut material).await?;
        let rewound = self.context.clock.rewound();
        let begun_at = Instant::now();
        let sent = self.exchange(description, &material).await;
        self.settle(&material, sent.as_ref().is_ok_and(|sent| sent.outcome.is_ok())).await;
        let sent = sent?;
        result.sent_at = Some((sent.at, begun_at));
        let underway = permit.underway();
        if let Err(error) = &sent.outcome
            && let Some(uncounted) = self.uncounted(error, &material).await
        {
            return Err(uncounted); // the permit ends, and nothing is learnt
        }
        let held_back = permit.finish(&sent.outcome);
        let remark = self.clock_remark(description);
        match sent.outcome {
            Ok(answer) => {
                self.check_granted(&answer)?;
                let mut token =
                    self.new_token(answer, material, remark, result.reason, (sent.at, rewound), sent.took);
                token.unwritten = Some(self.context.mints.count_unwritten(underway));
                Ok(token)
            }
            Err(error) => {
                let doubts = material.doubts.into_iter().filter(|_| error.class() == Class::Rejected);
                let outcome = Outcome::token_request(&error, held_back);
                Err(doubts.chain(remark).fold(outcome, |outcome, remark| outcome.with_remark(Some(remark))))
            }
        }
    }

    /// Sends the request. A new refresh token is the saver's before the rest of the response is read.
    async fn exchange(&self, description: &RequestDescription, material: &Material) -> Result<Sent, Outcome> {
        let leadership = &self.context.leadership;
        let timeout = leadership.request_timeout(self.timeout()).await.ok_or(Outcome::NotLeading)?;
        let transport = &self.context.endpoints(self.spec).transport.for_tenant(&self.identity.key.namespace);
        // Not before its turn has come: what is signed lives for less than a minute.
        let request = description
            .attempt(&material.credentials, &transport.attempt(&description.token_url))
            .map_err(|error| self.not_sent(&Error::from(error)))?;
        let keep = |refresh_token: &SecretString| {
            let (Some(lineage), Some(sent)) = (&material.lineage, &material.credentials.refresh_token) else {
                return;
            };
            if let Some(unsaved) = self.rotation().received(refresh_token, lineage, sent) {
                self.context.saver.hold(unsaved);
            }
        };
        let (now, differed) = (self.context.now(), transport.clock_difference(&description.token_url));
        let sent = Box::pin(send(transport, &request, &material.tls, timeout, now, keep)).await;
        let failed = sent.outcome.as_ref().err().map(|error| reason(error.kind()));
        self.count(failed, Some(sent.took));
        self.note_clock(&description.token_url, differed);
        Ok(sent)
    }

    /// After a refresh token was sent, or was not: the first attempt to save its successor, while the permits are held, so
    /// that no other request sends what was spent. The saver makes the further ones.
    async fn settle(&self, material: &Material, succeeded: bool) {
        let Some(lineage) = &material.lineage else { return };
        let Context { saver, kubernetes, secrets, .. } = self.context;
        if saver.holds(&self.identity.key) {
            saver.attempt(&self.identity.key, kubernetes, secrets).await;
        } else {
            let _permit = self.api_permit().await;
            self.rotation().withdraw(lineage, succeeded).await;
        }
    }

    fn new_token(
        &self,
        answer: Answer,
        material: Material,
        remark: Option<String>,
        mint_reason: MintReason,
        (sent_at, rewound): (Timestamp, u64),
        took: Duration,
    ) -> Box<NewToken> {
        let subject_ends = material.subject.as_ref().map(|(ends, _)| *ends);
        let mut minted = self.spec.minted(&answer, &material.credentials, sent_at);
        if let Some(ends) =
            subject_ends.filter(|ends| minted.lifetime_is_assumed && *ends < minted.expires_at)
        {
            // Some issuers' tokens live no longer than what they were given for.
            minted.expires_at = ends;
        }
        // Where an issuer lends, they are about the platform's Secret and the endpoint's host.
        let remarks = material.remarks.into_iter().chain(remark).filter(|_| self.spec.issuer.is_none());
        minted.remarks.splice(0..0, remarks);
        let wanted = &self.spec.wanted;
        let inputs = Inputs { provider: wanted.provider.clone(), credentials: material.version };
        let owner = self.identity.owner.clone();
        let before = self.record.as_deref();
        let record = Record::new(owner, inputs, wanted.refresh_request.clone(), minted, before);
        let refresh_at = refresh_at(&self.identity.owner.uid, &self.spec.policy, &record);
        info!(
            source = %self.identity.key,
            host = self.spec.host(),
            reason = %mint_reason,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            lifetime_seconds = record.lifetime(),
            token_id = %record.token_id,
            refresh_at = %refresh_at,
            "token received"
        );
        spans::received(&record.token_id);
        Box::new(NewToken {
            record,
            replaces: before.map(|record| record.token_id.clone()),
            access_token: answer.access_token,
            values: answer.values,
            credentials: material.values,
            refresh_at,
            is_unusable: false,
            rewound,
            received_at: Instant::now(),
            unwritten: None,
            is_blocked: false,
        })
    }

    /// A request that failed before it was sent.
    fn not_sent(&self, error: &Error) -> Outcome {
        self.count(Some(reason(error.kind())), None);
        Outcome::token_request(error, None)
    }

    /// Counts a request: the reason of its failure, and its duration if it was sent.
    fn count(&self, failed: Option<Reason>, took: Option<Duration>) {
        let issuer = self.spec.issuer.as_ref().map(|issuer| &issuer.name);
        self.context.metrics.token_requested(self.spec.host(), issuer, failed, took);
    }

    fn timeout(&self) -> Duration {
        let now = self.context.now();
        let remaining = self.record.as_ref().map_or(0, |record| seconds_between(now, record.expires_at));
        let spends = self.spec.sends_refresh_token();
        Duration::from_secs(attempt_timeout(remaining, self.spec.policy.propagation_delay, spends))
    }
}
