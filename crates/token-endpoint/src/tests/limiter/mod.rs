//! Simulations in paused time: tokio's clock jumps to the next timer as soon as no task can run. Politeness is what the
//! endpoint sees: its requests are counted.

mod ambiguous;
mod circuit;
mod doubt;
mod group;
mod limits;
mod queue;
mod rejections;
mod retry_after;
mod sharing;
mod tenants;

use super::{TENANT, answer, answer_with, credentials, description};
use crate::{
    Admission, Class, ClientAuthentication, Credentials, EndpointPermit, Error, ErrorKind, Expedite, Grant,
    KnownRejection, Limiter, Limits, RequestDescription, RequestIdentity, Tenant, Terms, Tls,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

type Permit = EndpointPermit<usize>;
type Waiting = (RequestIdentity, Terms, oneshot::Sender<Result<Permit, KnownRejection>>);

/// A limiter with one task that takes entries as they may begin, and gives each the permit that it waits for.
#[derive(Clone)]
struct Simulation {
    tenant: Tenant,
    limiter: Limiter<usize>,
    waiting: Arc<Mutex<HashMap<usize, Waiting>>>,
    keys: Arc<AtomicUsize>,
}

impl Simulation {
    fn new(limits: Limits) -> Self {
        let simulation = Simulation {
            tenant: TENANT.into(),
            limiter: Limiter::new(limits),
            waiting: Arc::default(),
            keys: Arc::default(),
        };
        let served = simulation.clone();
        tokio::spawn(async move {
            loop {
                let (key, permit) = served.limiter.next().await;
                let Some((who, terms, reply)) = served.waiting.lock().unwrap().remove(&key) else {
                    continue;
                };
                let answer = match permit.admit(who, terms) {
                    Admission::Granted(permit) => Ok(permit),
                    Admission::Rejected(rejection) => Err(rejection),
                    Admission::Parked => {
                        served.waiting.lock().unwrap().insert(key, (who, terms, reply));
                        continue;
                    }
                };
                drop(reply.send(answer));
            }
        });
        simulation
    }

    /// The same limiter, for another tenant.
    fn of(&self, tenant: &str) -> Self {
        Simulation { tenant: tenant.into(), ..self.clone() }
    }

    async fn enter(
        &self,
        url: &Url,
        who: RequestIdentity,
        deadline: Instant,
    ) -> Result<Permit, KnownRejection> {
        self.enter_with(url, who, deadline, Terms::default()).await
    }

    async fn enter_with(
        &self,
        url: &Url,
        who: RequestIdentity,
        deadline: Instant,
        terms: Terms,
    ) -> Result<Permit, KnownRejection> {
        let (reply, answer) = oneshot::channel();
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().unwrap().insert(key, (who, terms, reply));
        self.limiter.enqueue(key, &self.tenant, url, deadline);
        let _leaves = Leaves(&self.limiter, key);
        answer.await.unwrap()
    }

    /// One request that is answered like this. The error: it was not sent.
    async fn send(&self, who: RequestIdentity, answer: Result<(), Error>) -> Result<(), KnownRejection> {
        self.send_with(who, Terms::default(), answer).await.map(|_| ())
    }

    async fn send_with(
        &self,
        who: RequestIdentity,
        terms: Terms,
        answer: Result<(), Error>,
    ) -> Result<Option<(Class, Duration)>, KnownRejection> {
        let permit = self.enter_with(&url(), who, Instant::now(), terms).await?;
        Ok(permit.finish(&answer))
    }

    /// A client with its own credentials.
    fn client(&self, client: usize) -> RequestIdentity {
        let credentials = Credentials { client_id: Some(format!("client-{client}")), ..credentials() };
        self.limiter.identity(&self.tenant, &description(), &credentials, &Tls::default())
    }

    /// Requests of one client for different scopes.
    fn scope(&self, scope: usize) -> RequestIdentity {
        let description = RequestDescription { scopes: vec![format!("scope-{scope}")], ..description() };
        self.limiter.identity(&self.tenant, &description, &credentials(), &Tls::default())
    }

    /// Requests of one client with different refresh tokens.
    fn refresh_token(&self, token: usize) -> RequestIdentity {
        let description = RequestDescription { grant: Grant::RefreshToken, ..description() };
        let token = format!("refresh-token-{token}").into();
        let credentials = Credentials { refresh_token: Some(token), ..credentials() };
        self.limiter.identity(&self.tenant, &description, &credentials, &Tls::default())
    }

    /// Requests that nothing authenticates, with different refresh tokens.
    fn public(&self, client_id: Option<&str>, refresh_token: usize) -> RequestIdentity {
        let none = ClientAuthentication::None;
        let description = RequestDescription { client_authentication: none, ..description() };
        let credentials = Credentials {
            client_id: client_id.map(str::to_owned),
            refresh_token: Some(format!("refresh-token-{refresh_token}").into()),
            ..Credentials::default()
        };
        self.limiter.identity(&self.tenant, &description, &credentials, &Tls::default())
    }

    fn expedite(&self, who: RequestIdentity) {
        self.limiter.expedite(&self.tenant, who, Expedite::Asked);
    }

    fn remembered(&self) -> usize {
        self.limiter.remembered()
    }
}

/// The requests that the endpoint sees, by second and source.
type Seen = Arc<Mutex<Vec<(u64, usize)>>>;

/// Sources whose requests the endpoint answers like this, for so long. As in the operator, a source waits 30 s, 2 min, 10
/// min, then half an hour after refusals, and as long as a known one says; one that succeeded asks again after a minute.
async fn sources(
    simulation: &Simulation,
    all: Vec<RequestIdentity>,
    lasts: Duration,
    answer: fn(usize) -> Result<(), Error>,
) -> Vec<(u64, usize)> {
    let (seen, started) = (Seen::default(), Instant::now());
    let mut tasks = JoinSet::new();
    for (source, who) in all.into_iter().enumerate() {
        let (simulation, seen) = (simulation.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            let mut refusals = 0;
            loop {
                let wait = match simulation.enter(&url(), who, Instant::now() + seconds(30)).await {
                    Ok(permit) => {
                        seen.lock().unwrap().push((started.elapsed().as_secs(), source));
                        sleep(LATENCY).await;
                        let answer = answer(source);
                        refusals = if answer.is_ok() { 0 } else { refusals + 1 };
                        let held = permit.finish(&answer).map(|(_, wait)| wait);
                        held.unwrap_or(
                            [60, 30, 120, 600].get(refusals).map_or(seconds(1800), |it| seconds(*it)),
                        )
                    }
                    Err(known) => known.retry_in + seconds(1),
                };
                sleep(wait).await;
            }
        });
    }
    // They have no end.
    if let Ok(Some(ended)) = timeout(lasts, tasks.join_next()).await {
        ended.unwrap();
    }
    tasks.abort_all();
    let seen = seen.lock().unwrap();
    seen.clone()
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation::new(Limits::default())
    }
}

/// A task that stops waiting takes its entry out.
struct Leaves<'a>(&'a Limiter<usize>, usize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

const LATENCY: Duration = Duration::from_millis(200);

fn url() -> Url {
    "https://idp.example.com/oauth/token".parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Entries wait for the rate, for some milliseconds, before they are answered.
fn rounded(wait: Duration) -> Duration {
    Duration::from_secs_f64(wait.as_secs_f64().round())
}

fn transient() -> Error {
    answer(503, "").unwrap_err()
}

fn refused(status: u16, code: &str) -> Error {
    answer(status, &format!(r#"{{"error":"{code}"}}"#)).unwrap_err()
}

fn rejected() -> Error {
    refused(401, "invalid_client")
}

fn with_rate(per_second: u32) -> Simulation {
    Simulation::new(Limits { per_second, ..Limits::default() })
}

/// An issuer that allows so many requests in every second and tells the others to come back.
struct Issuer {
    allowed: usize,
    seen: Mutex<BTreeMap<u64, usize>>,
    refused: AtomicUsize,
    started: Instant,
}

impl Issuer {
    fn new(allowed: usize) -> Arc<Self> {
        Arc::new(Self {
            allowed,
            seen: Mutex::default(),
            refused: AtomicUsize::new(0),
            started: Instant::now(),
        })
    }

    async fn ask(&self) -> Result<(), Error> {
        let second = self.started.elapsed().as_secs();
        let seen = {
            let mut all = self.seen.lock().unwrap();
            let seen = all.entry(second).or_default();
            *seen += 1;
            *seen
        };
        sleep(LATENCY).await;
        if seen <= self.allowed {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(answer_with(429, &[("retry-after", "1")], "").unwrap_err())
    }
}
