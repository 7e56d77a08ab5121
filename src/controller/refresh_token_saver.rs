//! Holds the unsaved refresh tokens, and tries to save each until that has worked, also while this process does not
//! lead and after the TokenSource is deleted. What a save is, and whose token wins, is in `refresh_token`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokensource_api::Reason;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, warn};

use super::cache::secrets::Secrets;
use super::outcome::Outcome;
use super::refresh_token::UnsavedRefreshToken;
use crate::cluster::Kubernetes;
use crate::key::Key;
use crate::status::Problem;

/// The longest attempt: its calls, where packets vanish.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at once.
const MAX_ATTEMPTS: usize = 32;
/// The wait after the first failed attempt. It doubles, with jitter.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait while the API server does not answer.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The longest wait while it refuses the write.
const MAX_REFUSED_WAIT: Duration = Duration::from_secs(10);
/// Unsaved refresh tokens of a namespace from which on it spends no other. Each may have 32 KiB, and takes attempts of others.
const MAX_OF_NAMESPACE: usize = 64;
/// How often the saver shows that it makes progress.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Saver {
    entries: Mutex<HashMap<Key, Entry>>,
    /// How many there are.
    held: watch::Sender<usize>,
}

struct Entry {
    token: Arc<UnsavedRefreshToken>,
    state: EntryState,
    /// In a row.
    failures: u32,
    problem: Option<Problem>,
}

#[derive(Clone, Copy, PartialEq)]
enum EntryState {
    Due(Instant),
    /// An attempt is under way.
    Tried,
}

impl Saver {
    pub(super) fn new() -> Self {
        Saver { entries: Mutex::default(), held: watch::Sender::new(0) }
    }

    /// Takes a refresh token in. It is this saver's until it is saved.
    pub(super) fn hold(&self, token: UnsavedRefreshToken) {
        let source = token.source.clone();
        // The token request that brought it makes the first attempt.
        let state = EntryState::Due(Instant::now() + FIRST_WAIT);
        let entry = Entry { token: Arc::new(token), state, failures: 0, problem: None };
        let mut entries = self.lock();
        entries.insert(source, entry);
        self.held.send_replace(entries.len());
    }

    /// Whether it holds a refresh token of this TokenSource.
    pub(super) fn holds(&self, source: &Key) -> bool {
        self.lock().contains_key(source)
    }

    /// How many refresh tokens it holds.
    pub(super) fn len(&self) -> usize {
        *self.held.borrow()
    }

    /// Before a TokenSource of this namespace spends a refresh token.
    ///
    /// # Errors
    /// Too many of its new ones are not saved yet.
    pub(super) fn has_room(&self, namespace: &str) -> Result<(), Outcome> {
        let held = self.lock().keys().filter(|source| &*source.namespace == namespace).count();
        if held < MAX_OF_NAMESPACE {
            return Ok(());
        }
        Err(Outcome::passing(
            Reason::TargetRefused,
            format!(
                "{held} new refresh tokens of this namespace are not saved yet, so that no other is requested: the operator's log says which, and why (refresh token not saved)"
            ),
        ))
    }

    /// Why the refresh token of a TokenSource is not saved yet, once an attempt has failed.
    pub(super) fn problem(&self, source: &Key) -> Option<Problem> {
        self.lock().get(source)?.problem.clone()
    }

    /// Waits until it holds none.
    pub(super) async fn all_saved(&self) {
        // The sender lives as long as `self`.
        let _ = self.held.subscribe().wait_for(|held| *held == 0).await;
    }

    /// Tries once, unless an attempt is under way. Returns whether what is to be reported has changed.
    pub(super) async fn attempt(&self, source: &Key, kubernetes: &Kubernetes, secrets: &Secrets) -> bool {
        let Some(mut attempt) = self.begin(source) else { return false };
        let saving = AssertUnwindSafe(Box::pin(attempt.token.save(kubernetes, secrets))).catch_unwind();
        let saved = match timeout(ATTEMPT_TIMEOUT, saving).await {
            Ok(Ok(saved)) => saved,
            Ok(Err(_)) => {
                error!(%source, "a bug: saving a refresh token panicked");
                Err(Outcome::ApiServer("a bug of the operator: see its log".to_owned().into()))
            }
            Err(_) => {
                let message = format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs());
                Err(Outcome::ApiServer(message.into()))
            }
        };
        attempt.end(saved)
    }

    /// Saves what it holds, for as long as the process lives. `beat` shows that it makes progress; `changed` has a
    /// TokenSource reconciled.
    pub(super) async fn run(
        &self,
        kubernetes: &Kubernetes,
        secrets: &Secrets,
        beat: impl Fn(),
        changed: impl Fn(Key),
    ) {
        let mut held = self.held.subscribe();
        let mut attempts = FuturesUnordered::new();
        loop {
            beat();
            let due = self.due(MAX_ATTEMPTS.saturating_sub(attempts.len()));
            attempts.extend(due.into_iter().map(|source| async move {
                let has_changed = self.attempt(&source, kubernetes, secrets).await;
                (source, has_changed)
            }));
            let next = self.next();
            tokio::select! {
                Some((source, has_changed)) = attempts.next() => {
                    if has_changed {
                        changed(source);
                    }
                }
                // The sender lives as long as `self`.
                _ = held.changed() => {}
                () = sleep(next) => {}
            }
        }
    }

    fn begin<'a>(&'a self, source: &'a Key) -> Option<Attempt<'a>> {
        let mut entries = self.lock();
        let entry = entries.get_mut(source).filter(|entry| entry.state != EntryState::Tried)?;
        entry.state = EntryState::Tried;
        Some(Attempt { saver: self, source, token: Arc::clone(&entry.token) })
    }

    /// The TokenSources whose refresh token is to be tried now. The longest due goes first, so that those whose attempts hang
    /// keep none from its turn.
    fn due(&self, count: usize) -> Vec<Key> {
        let now = Instant::now();
        let entries = self.lock();
        let mut due: Vec<_> = entries
            .iter()
            .filter_map(|(source, entry)| match entry.state {
                EntryState::Due(at) if at <= now => Some((at, source)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        due.into_iter().take(count).map(|(_, source)| source.clone()).collect()
    }

    /// How long nothing is due.
    fn next(&self) -> Duration {
        let entries = self.lock();
        let due = entries.values().filter_map(|entry| match entry.state {
            EntryState::Due(at) => Some(at),
            EntryState::Tried => None,
        });
        // Where attempts are limited, something is due already: one of them ends first.
        let next = due.min().map_or(HEARTBEAT, |at| at.saturating_duration_since(Instant::now()));
        next.clamp(Duration::from_millis(100), HEARTBEAT)
    }

    /// Another attempt has its time.
    fn wake(&self) {
        self.held.send_modify(|_| {});
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that is under way. Dropped before it has ended, it is tried again.
struct Attempt<'a> {
    saver: &'a Saver,
    source: &'a Key,
    token: Arc<UnsavedRefreshToken>,
}

impl Attempt<'_> {
    fn end(&mut self, saved: Result<(), Outcome>) -> bool {
        let mut entries = self.saver.lock();
        let Some(entry) = entries.get_mut(self.source).filter(|entry| Arc::ptr_eq(&entry.token, &self.token))
        else {
            return false;
        };
        let Err(outcome) = saved else {
            entries.remove(self.source);
            self.saver.held.send_replace(entries.len());
            return true;
        };
        entry.failures = entry.failures.saturating_add(1);
        let mut asked = Duration::ZERO;
        let (problem, max_wait) = match outcome {
            Outcome::Failed(attempt) => {
                let passes = attempt.reason != Reason::TargetConflict;
                (Problem { reason: attempt.reason, message: attempt.message, passes }, MAX_REFUSED_WAIT)
            }
            Outcome::ApiServer(why) => {
                asked = why.retry_after.unwrap_or_default();
                let message = format!("the new refresh token is not saved yet: {why}");
                (Problem { reason: Reason::KubernetesApiError, message, passes: true }, MAX_WAIT)
            }
            Outcome::Retry | Outcome::Gone | Outcome::NotLeading | Outcome::Outdated => {
                let message = "the new refresh token is not saved yet: its Secret has changed".to_owned();
                (Problem { reason: Reason::KubernetesApiError, message, passes: true }, MAX_WAIT)
            }
        };
        let wait = backoff(self.source, entry.failures, max_wait).max(asked.min(max_wait));
        entry.state = EntryState::Due(Instant::now() + wait);
        self.saver.wake();
        warn!(source = %self.source, error = %problem.message, count = entry.failures, "refresh token not saved; trying again");
        entry.problem.replace(problem.clone()) != Some(problem)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut entries = self.saver.lock();
        if let Some(entry) = entries.get_mut(self.source)
            && entry.state == EntryState::Tried
            && Arc::ptr_eq(&entry.token, &self.token)
        {
            entry.state = EntryState::Due(Instant::now() + FIRST_WAIT);
            self.saver.wake();
        }
    }
}

/// The wait after so many failures: doubles up to `max`, between a half and the whole of it.
fn backoff(source: &Key, failures: u32, max: Duration) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(max);
    let mut hasher = DefaultHasher::new();
    (source, failures).hash(&mut hasher);
    longest.mul_f64(0.5 + f64::from(u8::try_from(hasher.finish() % 256).unwrap_or_default()) / 512.0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::super::refresh_token::tests::unsaved;
    use super::*;

    #[derive(Clone, Copy)]
    enum Reply {
        Never,
        Unavailable,
        Written,
    }

    /// An API server that follows a script.
    fn api_server(script: impl IntoIterator<Item = Reply>) -> Kubernetes {
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let reply = script.lock().unwrap().pop_front().expect("no further call");
            async move {
                let metadata = json!({"name": "a-refresh-token", "uid": "u", "resourceVersion": "8"});
                let (status, body) = match reply {
                    Reply::Never => std::future::pending().await,
                    Reply::Unavailable => (503, String::new()),
                    Reply::Written => (200, json!({"metadata": metadata}).to_string()),
                };
                let response = http::Response::builder().status(status);
                Ok::<_, Infallible>(response.body(Body::from(body.into_bytes())).unwrap())
            }
        });
        Kubernetes::new(Client::new(service, "default"))
    }

    fn holding() -> (Saver, Key) {
        let saver = Saver::new();
        saver.hold(unsaved("second", "original", 1, "original", None));
        assert_eq!(saver.len(), 1);
        (saver, Key::new("ns", "a"))
    }

    /// Runs the saver until nothing is left. Returns how long that took, and the longest time between two heartbeats.
    async fn run(saver: &Saver, kubernetes: &Kubernetes) -> (Duration, Duration, Vec<Key>) {
        let (begun, secrets) = (Instant::now(), Secrets::new(1, Arc::default()));
        let beats = Mutex::new((begun, Duration::ZERO));
        let beat = || {
            let (last, longest) = &mut *beats.lock().unwrap();
            *longest = (*longest).max(last.elapsed());
            *last = Instant::now();
        };
        let changed = Mutex::new(vec![]);
        tokio::select! {
            () = saver.run(kubernetes, &secrets, beat, |source| changed.lock().unwrap().push(source)) => {}
            // Until the end of the last attempt is reported.
            () = async { saver.all_saved().await; sleep(HEARTBEAT).await } => {}
        }
        let longest = beats.lock().unwrap().1;
        (begun.elapsed() - HEARTBEAT, longest, changed.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn saver_saves_when_packets_arrive_again_and_ticks_meanwhile() {
        let (saver, key) = holding();
        let hangs = std::iter::repeat_n(Reply::Never, 30);
        let kubernetes = api_server(hangs.chain([Reply::Unavailable, Reply::Unavailable, Reply::Written]));
        let (took, longest, changed) = run(&saver, &kubernetes).await;
        // Each attempt ends after 10 s, and the next one begins at most 5 s later.
        assert!(took > Duration::from_secs(300) && took <= Duration::from_secs(32 * 15 + 1), "{took:?}");
        assert!(longest <= HEARTBEAT, "{longest:?}");
        assert!(!saver.holds(&key) && saver.problem(&key).is_none());
        assert_eq!(changed, [key.clone(), key.clone(), key], "no answer; another error; saved");
    }

    #[tokio::test(start_paused = true)]
    async fn saver_tries_again_after_an_attempt_whose_token_request_was_dropped() {
        let (saver, key) = holding();
        let kubernetes = api_server([Reply::Never, Reply::Written]);
        let secrets = Secrets::new(1, Arc::default());
        let attempt = saver.attempt(&key, &kubernetes, &secrets);
        assert!(timeout(Duration::from_secs(3), attempt).await.is_err());
        let (took, ..) = run(&saver, &kubernetes).await;
        assert!(took <= FIRST_WAIT, "{took:?}");
    }

    #[test]
    fn saver_with_many_tokens_of_a_namespace_has_room_for_those_of_others() {
        let saver = Saver::new();
        for n in 0..MAX_OF_NAMESPACE {
            assert!(saver.has_room("ns").is_ok(), "{n}");
            let mut token = unsaved("second", "original", 1, "original", None);
            token.source = Key::new("ns", &format!("source-{n}"));
            saver.hold(token);
        }
        assert!(saver.has_room("other").is_ok());
        let Err(Outcome::Failed(attempt)) = saver.has_room("ns") else { panic!("there is room") };
        assert!(
            attempt.message.starts_with("64 new refresh tokens of this namespace"),
            "{}",
            attempt.message
        );
    }

    #[test]
    fn saver_backoff_doubles_with_jitter_up_to_its_longest_wait() {
        let key = Key::new("ns", "a");
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (4, 5), (1000, 5)] {
            let wait = backoff(&key, failures, MAX_WAIT);
            let longest = Duration::from_secs(longest);
            assert!(wait >= longest / 2 && wait <= longest, "{failures}: {wait:?}");
        }
    }
}
