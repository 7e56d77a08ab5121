//! The token endpoints of a simulation, which check what the limiter promises them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use token_endpoint::{
    BasicEncoding, ClientAuthentication, Credentials, Error, Grant, Limiter, Limits, RequestDescription,
    RequestIdentity, Tls, read,
};
use tokio::time::{Instant, sleep};

use super::plan::{Plan, TroubleKind};
use crate::key::Key;

/// The least time for which a rejected client is left alone.
const REJECTION_WAIT: Duration = Duration::from_secs(30);
/// What a request may be early, by the rounding of timers.
const ROUNDING: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Endpoints {
    states: Vec<EndpointState>,
    /// By endpoint, client and the number of its secret.
    rejected: HashMap<Who, Instant>,
    /// What a source waits for after a 429, with the number of the secret: another one need not wait.
    asked_to_wait: HashMap<(Key, usize), Instant>,
    pub(super) requests: usize,
}

#[derive(Default)]
struct EndpointState {
    in_flight: usize,
    begun: VecDeque<Instant>,
    in_second: HashMap<u64, usize>,
}

/// Endpoint, client, and the number of its secret.
pub(super) type Who = (usize, usize, usize);

/// A request that has arrived.
pub(super) struct Arrived {
    who: Who,
    answer: Expected,
}

enum Expected {
    Token,
    Hang,
    Error(Error),
}

pub(super) fn description(endpoint: usize) -> RequestDescription {
    RequestDescription::new(
        format!("https://idp-{endpoint}.example.com/token").parse().unwrap(),
        Grant::ClientCredentials,
        ClientAuthentication::Basic(BasicEncoding::Percent),
    )
}

fn credentials(client: usize, secret: usize) -> Credentials {
    Credentials {
        client_id: Some(format!("client-{client}")),
        client_secret: Some(format!("secret-{secret}").into()),
        ..Credentials::default()
    }
}

pub(super) fn identity(
    limiter: &Limiter<Key>,
    key: &Key,
    endpoint: usize,
    client: usize,
    secret: usize,
) -> RequestIdentity {
    limiter.identity(&key.namespace, &description(endpoint), &credentials(client, secret), &Tls::default())
}

fn error(status: u16, retry_after: Option<u64>, body: &str) -> Error {
    let request = description(0).request(&credentials(0, 0)).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    if let Some(retry_after) = retry_after {
        headers.insert("retry-after", retry_after.to_string().parse().unwrap());
    }
    read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), &request).unwrap_err()
}

/// An answer that never came.
pub(super) fn timed_out() -> Error {
    error(503, None, "")
}

impl Endpoints {
    pub(super) fn new(plan: &Plan) -> Self {
        Endpoints {
            states: (0..plan.endpoints).map(|_| EndpointState::default()).collect(),
            ..Self::default()
        }
    }

    /// A request arrives. The text says what the limiter or the schedule should have prevented.
    pub(super) fn arrive(
        &mut self,
        plan: &Plan,
        key: &Key,
        who: Who,
        started: Instant,
    ) -> (Arrived, Option<String>) {
        let wrong = self.is_unexpected(plan, key, who);
        let answer = self.expected(plan, who, started.elapsed());
        (Arrived { who, answer }, wrong)
    }

    fn is_unexpected(&mut self, plan: &Plan, key: &Key, who: Who) -> Option<String> {
        let now = Instant::now();
        self.requests += 1;
        let (endpoint, client, secret) = who;
        let Limits { in_flight, per_second } = plan.limits;
        let state = &mut self.states[endpoint];
        state.in_flight += 1;
        state.begun.push_back(now);
        while state.begun.front().is_some_and(|at| now - *at >= Duration::from_secs(1) - ROUNDING) {
            state.begun.pop_front();
        }
        if state.in_flight > in_flight {
            return Some(format!("{} requests in flight at endpoint {endpoint}", state.in_flight));
        }
        // Rounding lets one in early, and a place that is given back another.
        if state.begun.len() > per_second as usize + 2 {
            return Some(format!("{} requests within a second at endpoint {endpoint}", state.begun.len()));
        }
        if let Some(at) = self.rejected.get(&who)
            && now - *at + ROUNDING < REJECTION_WAIT
        {
            return Some(format!("{key}: client {client} was rejected {:?} ago", now - *at));
        }
        if let Some(until) = self.asked_to_wait.remove(&(key.clone(), secret))
            && now + ROUNDING < until
        {
            return Some(format!("{key} was asked to wait {:?} longer", until - now));
        }
        None
    }

    fn expected(&mut self, plan: &Plan, (endpoint, client, secret): Who, elapsed: Duration) -> Expected {
        let in_second = self.states[endpoint].in_second.entry(elapsed.as_secs()).or_default();
        *in_second += 1;
        let trouble =
            plan.troubles.iter().find(|it| it.endpoint == endpoint && (it.from..it.to).contains(&elapsed));
        match trouble.map(|trouble| trouble.kind) {
            Some(TroubleKind::Unavailable) => return Expected::Error(error(503, None, "")),
            Some(TroubleKind::Hanging) => return Expected::Hang,
            Some(TroubleKind::Throttled { per_second, retry_after }) if *in_second > per_second => {
                return Expected::Error(error(429, retry_after, ""));
            }
            _ => {}
        }
        let is_wrong = plan.wrong[client].is_some_and(|(from, _)| elapsed >= from) && secret == 0;
        if is_wrong {
            Expected::Error(error(401, None, r#"{"error":"invalid_client"}"#))
        } else {
            Expected::Token
        }
    }

    /// The request has been answered, or given up.
    pub(super) fn leave(&mut self, key: &Key, arrived: &Arrived, outcome: &Result<(), Error>) {
        self.states[arrived.who.0].in_flight -= 1;
        let now = Instant::now();
        let Err(error) = outcome else { return };
        if error.class() == token_endpoint::Class::Rejected {
            self.rejected.insert(arrived.who, now);
        }
        if let Some(wait) = error.retry_after() {
            self.asked_to_wait.insert((key.clone(), arrived.who.2), now + Duration::from_secs(wait));
        }
    }
}

impl Arrived {
    /// The answer, within the attempt's timeout.
    pub(super) async fn answer(&self, latency: Duration, timeout: Duration) -> Result<(), Error> {
        match &self.answer {
            Expected::Hang => {
                sleep(timeout).await;
                Err(timed_out())
            }
            _ if latency > timeout => {
                sleep(timeout).await;
                Err(timed_out())
            }
            Expected::Token => {
                sleep(latency).await;
                Ok(())
            }
            Expected::Error(error) => {
                sleep(latency).await;
                Err(error.clone())
            }
        }
    }
}
