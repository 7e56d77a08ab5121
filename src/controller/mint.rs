//! The minter: one token request, and what becomes of its answer.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tracing::info;
use url::Url;

use super::cache::secrets::Known;
use super::gather::{Gathered, sha256};
use super::memory::{Disturbance, PendingMint, UnsavedRefreshToken, UnwrittenToken};
use super::reconcile::Pass;
use super::stop::Stop;
use crate::cluster::CallError;
use crate::refresh::{MintReason, attempt_timeout};
use crate::secret::{Inputs, Record};
use crate::status::reason;
use crate::time::seconds_between;
use token_endpoint::{Answer, Error, RequestDescription, Tls};
use tokensource_api::Reason;

/// How long a turn at the endpoint is waited for before people are told.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that was sent.
struct Asked {
    answer: Result<Answer, Error>,
    sent_at: Timestamp,
    took: Duration,
    url: Url,
    /// What a person should know of it.
    remark: Option<String>,
}

impl Pass<'_> {
    /// Asks for a token, and holds the answer in memory until it is written.
    pub(super) async fn mint(&mut self, why: MintReason) -> Result<(), Stop> {
        self.template()?;
        self.check_write(why).await?;
        // First: a turn to send a user's refresh token is not held while this is read.
        let tls = Box::pin(self.tls()).await?;
        let gathered = self.gather().await?;
        self.turn = None;
        let asked = self.ask(&tls, &gathered).await;
        self.go_on().await;
        let Asked { answer, sent_at, took, url, remark } = asked?;

        if why.heals() && (self.memory.healed.is_some() || self.had_token()) {
            let again = Disturbance::again(self.memory.healed.as_deref(), sent_at, self.other_writer());
            self.memory.healed = Some(Box::new(again));
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // It may be the only copy of the credential, whatever is wrong with the rest.
                self.keep_refresh_token(error.refresh_token().cloned(), &gathered, sent_at);
                return Err(Stop::endpoint(&error).with_remark(remark));
            }
        };
        let refresh_token = answer.refresh_token.clone();
        let record = self.new_record(&answer, &gathered, remark, sent_at);
        let refresh_at = self.refresh_at(sent_at, &record);
        info!(
            source = %self.identity.key,
            host = url.host_str().unwrap_or_default(),
            why = %why,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            lifetime_seconds = record.lifetime(),
            token_id = %record.token_id,
            refresh_at = %refresh_at,
            "minted"
        );
        self.memory.pending = Some(Box::new(PendingMint {
            token: Some(UnwrittenToken { record, access_token: answer.access_token, values: answer.values }),
            values: gathered.values,
            refresh_token: None,
            refresh_at,
        }));
        self.keep_refresh_token(refresh_token, &gathered, sent_at);
        Ok(())
    }

    /// The one request, when its turn at the endpoint has come.
    async fn ask(&self, tls: &Tls, gathered: &Gathered) -> Result<Asked, Stop> {
        let description = &self.resolved.description.request;
        let located = self.context.discovery.locate(description, tls, self.attempt_timeout()).await;
        let description = &located.map_err(|error| self.not_minted(&error))?;
        let url = &description.token_url;

        let party = self.context.gate.party(description, &gathered.credentials, tls);
        self.context.secrets.makes(&self.identity.credentials, party);
        if self.is_asked_for() {
            self.context.gate.hasten(url, party);
        }
        let entering = self.context.gate.enter(url, party, self.deadline());
        let metrics = &self.context.metrics;
        let place = tokio::select! {
            entered = tokio::time::timeout(PATIENCE, entering) => match entered {
                Ok(entered) => entered.map_err(|held| Stop::held(&held))?,
                Err(_) => {
                    metrics.waited(self.resolved.host(), PATIENCE);
                    return Err(Stop::no_turn(url.host_str().unwrap_or_default(), PATIENCE));
                }
            },
            () = self.context.leadership.ends() => return Err(Stop::NotLeading),
        };
        metrics.waited(self.resolved.host(), place.waited());
        if !self.is_served() {
            return Err(Stop::NotLeading);
        }
        let timeout = self.context.leadership.lasts(self.attempt_timeout()).await.ok_or(Stop::NotLeading)?;
        // Not before the turn has come: what is signed lives for less than a minute.
        let attempt = self.context.transport.attempt(url);
        let request = description
            .attempt(&gathered.credentials, &attempt)
            .map_err(|error| self.not_minted(&Error::from(error)))?;
        let sent_at = self.context.now();
        let begun = Instant::now();
        let answer = Box::pin(self.context.transport.send_over(&request, tls, timeout)).await;
        place.finish(&answer);
        let (took, remark) = (begun.elapsed(), self.clock_remark(description));
        metrics.minted(
            self.resolved.host(),
            answer.as_ref().err().map(|error| reason(error.kind())),
            Some(took),
        );
        Ok(Asked { answer, sent_at, took, url: url.clone(), remark })
    }

    /// An attempt that failed before the endpoint was asked.
    fn not_minted(&self, error: &Error) -> Stop {
        self.context.metrics.minted(self.resolved.host(), Some(reason(error.kind())), None);
        Stop::endpoint(error)
    }

    /// Somebody has changed the spec, or asks for a token, since the last attempt failed.
    fn is_asked_for(&self) -> bool {
        let tried = self.resolved.tried(None);
        self.memory.failed.as_ref().is_some_and(|failed| failed.failure.tried.is_asked_otherwise(&tried))
    }

    fn attempt_timeout(&self) -> Duration {
        let now = self.context.now();
        let remaining = self.record().map_or(0, |record| seconds_between(now, record.expires_at));
        Duration::from_secs(attempt_timeout(remaining))
    }

    /// Servers refuse assertions that are dated by another clock than theirs.
    fn clock_remark(&self, description: &RequestDescription) -> Option<String> {
        let offset = self.context.transport.clock_offset(&description.token_url)?.as_secs();
        description.signs().then(|| {
            format!(
                "the clock of {} is {} s {} this one's, so assertions are dated by it: is the node's clock right?",
                description.token_url.host_str().unwrap_or_default(),
                offset.unsigned_abs(),
                if offset > 0 { "ahead of" } else { "behind" },
            )
        })
    }

    fn new_record(
        &self,
        answer: &Answer,
        gathered: &Gathered,
        remark: Option<String>,
        sent_at: Timestamp,
    ) -> Record {
        let mut minted = self.resolved.minted(answer, &gathered.credentials, sent_at);
        let more = gathered.remarks.iter().cloned().chain(remark);
        minted.remarks.splice(0..0, more);
        let inputs =
            Inputs { provider: self.resolved.wanted.provider.clone(), credentials: gathered.version.clone() };
        let request = self.resolved.wanted.refresh_request.clone();
        Record::new(self.identity.owner.clone(), inputs, request, minted, self.record().as_deref())
    }

    /// Takes a refresh token out of an answer, if it is another one than was sent.
    fn keep_refresh_token(
        &mut self,
        token: Option<secrecy::SecretString>,
        gathered: &Gathered,
        now: Timestamp,
    ) {
        let (Some(value), Some(seed), Some(sent)) =
            (token, &gathered.seed, &gathered.credentials.refresh_token)
        else {
            return;
        };
        if value.expose_secret() == sent.expose_secret() {
            return;
        }
        let unsaved = UnsavedRefreshToken {
            value,
            seed_sha256: seed.sha256.clone(),
            sent_sha256: sha256(sent),
            replaces: seed.kept.clone(),
        };
        let pending = PendingMint { token: None, values: None, refresh_token: None, refresh_at: now };
        self.memory.pending.get_or_insert(Box::new(pending)).refresh_token = Some(unsaved);
    }

    fn had_token(&self) -> bool {
        self.reported.has_token
    }

    /// Before a first mint of this process, and before one that creates the Secret: does the TokenSource still
    /// exist, and would the API server take the write? A quota, a policy or an immutable Secret then costs no
    /// token.
    async fn check_write(&mut self, why: MintReason) -> Result<(), Stop> {
        let target = self.known(&self.identity.target.clone()).await?;
        if self.memory.write_allowed && !why.heals() && why != MintReason::TemplateChanged {
            return Ok(());
        }
        self.check_alive().await?;
        let seen = match target {
            Known::Present(facts) => Some(facts),
            _ => None,
        };
        let version = seen.as_ref().map(|facts| facts.version.clone());
        let body = self.rehearsal(version.as_ref())?;
        let tried = self.context.kubernetes.apply_secret(&self.identity.target, &body, true).await;
        match (tried, seen) {
            (Err(CallError::AnotherType), Some(facts)) => self.replace(&facts, true).await?,
            (Err(error), _) => return Err(self.write_failed(error, version).await),
            (Ok(_), _) => {}
        }
        self.memory.write_allowed = true;
        Ok(())
    }

    /// Stops if the TokenSource is gone, going, or another one by now: then nothing is healed.
    pub(super) async fn check_alive(&self) -> Result<(), Stop> {
        let identity = &self.identity;
        if self.context.kubernetes.source_is_alive(&identity.key, &identity.owner.uid).await? {
            Ok(())
        } else {
            Err(Stop::Gone)
        }
    }

    /// The error that tells people where a token source has been refused for good reason.
    pub(super) fn refused_target(&self, message: &str) -> Stop {
        Stop::target(
            Reason::TargetRefused,
            format!("the API server refuses to write Secret {}: {message}", self.identity.target.name),
        )
    }
}
