//! Prompt propagation. The kubelet syncs the volumes of a pod when the pod changes, and otherwise about once a minute:
//! after a write, the pods that mount the target are annotated.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokensource_api::Reason;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::error;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::secret::{Pod, PodMetadata, Pods, UseKind};
use crate::status::{PropagationResult, Reported};
use crate::time::seconds_between;

/// When pods are annotated, after the write. The kubelet watches the Secret and the pod independently of each other: if it
/// sees the pod's change first, it reads the old value. Hence the second round.
const FIRST_ROUND: Duration = Duration::from_millis(500);
const SECOND_ROUND: Duration = Duration::from_secs(5);
/// The wait before a failed round is repeated, if no token is written before: a role may have been granted meanwhile.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// The time after which a round without a result is requested again.
const LOST_ROUND: Duration = Duration::from_secs(60);
/// The longest time after which a kubelet has synced the volumes of its pods by itself, in seconds.
const PERIODIC_SYNC: u64 = 90;
/// Concurrent calls about pods: they bound the load on the API server and the pages of pods in memory.
const MAX_CALLS: usize = 8;
/// The timeout of one round: an annotation after that is not prompt.
const MAX_ROUND: Duration = Duration::from_secs(10);
/// The most characters of an error, perhaps of an admission webhook, in a condition.
const MAX_ERROR_CHARS: usize = 400;

/// The rounds of one TokenSource whose spec asks for prompt propagation.
#[derive(Debug, Default)]
pub struct Prompt {
    /// When the next round is due.
    due: Option<Due>,
    /// When the round was requested that has no result yet.
    requested_at: Option<Instant>,
    /// The result of the last round; `None` where this process has made none yet.
    result: Option<PropagationResult>,
    /// Whether the previous process reported a failure.
    failed_before: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// When the second round is due, where this is the first.
    then: Option<Instant>,
}

impl Prompt {
    /// Starts from the report of the previous process and the age of the token in the target, in seconds. A round is due
    /// where that process reported a problem, or another generation of the spec: otherwise a missing role would be reported
    /// only with the next token; and where the token is recent: the process may have ended before its rounds.
    pub(super) fn take_up(reported: &Reported, generation: Option<i64>, age: Option<u64>) -> Self {
        let problem = reported.pods.as_ref().map(|pods| pods.reason.as_str());
        let is_recent = age.is_some_and(|age| age < PERIODIC_SYNC);
        let is_due = problem.is_some() || Some(reported.generation) != generation || is_recent;
        let now = Instant::now();
        Prompt {
            due: is_due.then(|| Due { at: now, then: is_recent.then_some(now + SECOND_ROUND) }),
            failed_before: problem == Some(Reason::PromptFailed.as_str()),
            ..Prompt::default()
        }
    }

    /// How long a token has been in its target, in seconds: it may have waited before it was written.
    pub(super) fn age(issued_at: Timestamp, stored_at: Option<u32>, now: Timestamp) -> u64 {
        let stored_at = stored_at.and_then(|second| Timestamp::from_second(second.into()).ok());
        seconds_between(stored_at.map_or(issued_at, |at| at.max(issued_at)), now)
    }

    /// A token was written.
    pub(super) fn written(&mut self, now: Instant) {
        self.due = Some(Due { at: now + FIRST_ROUND, then: Some(now + SECOND_ROUND) });
        self.requested_at = None;
    }

    /// When the next round is to be requested.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.requested_at {
            Some(requested_at) => Some(requested_at + LOST_ROUND),
            None => self.due.map(|due| due.at),
        }
    }

    /// Whether a round is to be requested now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some() && self.next().is_some_and(|at| at <= now)
    }

    /// A round was requested.
    pub(super) fn requested(&mut self, now: Instant) {
        self.requested_at = Some(now);
    }

    /// No round is needed.
    pub(super) fn forget(&mut self) {
        self.due = None;
        self.requested_at = None;
    }

    /// The result of the last round; `None` where this process has made none yet.
    pub(super) fn result(&self) -> Option<&PropagationResult> {
        self.result.as_ref()
    }

    /// Whether pods depend on the kubelet's periodic sync, because they could not be annotated.
    pub(super) fn fails(&self) -> bool {
        self.result.as_ref().map_or(self.failed_before, |result| result.failed.is_some())
    }

    /// Handles the result of the round that was requested at `requested_at`. One from before the last write says nothing about
    /// the token that was written, and one that was lost has been requested again.
    pub(super) fn settle(&mut self, requested_at: Instant, result: PropagationResult, now: Instant) {
        if self.requested_at != Some(requested_at) {
            return;
        }
        self.requested_at = None;
        if let Some(then) = self.due.take().and_then(|due| due.then) {
            self.due = Some(Due { at: then, then: None });
            if result.failed.is_some() {
                // The second round decides, and may succeed.
                return;
            }
        } else if result.failed.is_some() {
            self.due = Some(Due { at: now + RETRY, then: None });
        }
        self.result = Some(result);
    }
}

/// Rounds through the pods of namespaces, in one task for each namespace. All requests that arrive during a round are
/// served by the next one.
pub(super) struct Rounds {
    kubernetes: Kubernetes,
    calls: Semaphore,
    state: Mutex<RoundsState>,
    ended: (mpsc::UnboundedSender<Key>, tokio::sync::Mutex<mpsc::UnboundedReceiver<Key>>),
}

#[derive(Default)]
struct RoundsState {
    /// The requests by namespace. An entry exists while a task serves that namespace.
    requests: HashMap<Arc<str>, Vec<RoundRequest>>,
    /// With the time at which the round was requested.
    results: HashMap<Key, (Instant, PropagationResult)>,
}

/// The request of a TokenSource to annotate the pods that mount this Secret.
struct RoundRequest {
    source: Key,
    secret: Arc<str>,
    at: Instant,
}

/// The task of a namespace. After a panic another task serves the next request, and the lost rounds are requested again.
struct Serving {
    rounds: Arc<Rounds>,
    namespace: Arc<str>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(
                namespace = &*self.namespace,
                "a bug: a round through the pods of this namespace panicked"
            );
            self.rounds.lock().requests.remove(&self.namespace);
        }
    }
}

/// The pods that use one Secret, as far as a round has come.
#[derive(Default)]
struct SecretPods {
    mounting: usize,
    not_annotated: Pods,
    /// The first error.
    error: Option<String>,
    /// Pods whose way of use never follows a Secret.
    static_mounts: Pods,
}

impl Rounds {
    pub(super) fn new(kubernetes: Kubernetes) -> Arc<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(Rounds {
            kubernetes,
            calls: Semaphore::new(MAX_CALLS),
            state: Mutex::default(),
            ended: (sender, tokio::sync::Mutex::new(receiver)),
        })
    }

    /// Requests a round that annotates the running pods that mount this Secret.
    pub(super) fn request(self: &Arc<Self>, source: &Key, secret: &Key, at: Instant) {
        let request = RoundRequest { source: source.clone(), secret: Arc::clone(&secret.name), at };
        let namespace = Arc::clone(&source.namespace);
        match self.lock().requests.entry(Arc::clone(&namespace)) {
            Entry::Occupied(mut entry) => return entry.get_mut().push(request),
            Entry::Vacant(entry) => drop(entry.insert(vec![request])),
        }
        let serving = Serving { rounds: Arc::clone(self), namespace };
        tokio::spawn(async move {
            let Serving { rounds, namespace } = &serving;
            while let Some(requests) = rounds.take_requests(namespace) {
                rounds.round(namespace, requests).await;
            }
        });
    }

    /// Waits until a round has ended, and returns its TokenSource.
    pub(super) async fn ended(&self) -> Key {
        match self.ended.1.lock().await.recv().await {
            Some(source) => source,
            None => std::future::pending().await, // the sender lives as long as `self`
        }
    }

    /// Takes out the result of a TokenSource's round, with the time at which that was requested.
    pub(super) fn take(&self, source: &Key) -> Option<(Instant, PropagationResult)> {
        self.lock().results.remove(source)
    }

    /// Takes out the requests of a namespace; `None`, and the task ends, where there are none.
    fn take_requests(&self, namespace: &Arc<str>) -> Option<Vec<RoundRequest>> {
        let state = &mut *self.lock();
        let requests = std::mem::take(state.requests.get_mut(namespace)?);
        if requests.is_empty() {
            state.requests.remove(namespace);
            return None;
        }
        Some(requests)
    }

    async fn round(&self, namespace: &str, requests: Vec<RoundRequest>) {
        let mut found: Vec<SecretPods> = requests.iter().map(|_| SecretPods::default()).collect();
        let annotating = self.annotate_pods(namespace, &requests, &mut found);
        let stopped = match tokio::time::timeout(MAX_ROUND, annotating).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the pods of namespace {namespace} cannot be listed: {error}")),
            Err(_) => Some(format!("not all pods could be annotated within {} s", MAX_ROUND.as_secs())),
        };
        for (request, pods) in requests.into_iter().zip(found) {
            let result = (request.at, pods.result(stopped.as_deref()));
            self.lock().results.insert(request.source.clone(), result);
            // The receiver lives as long as `self`.
            let _ = self.ended.0.send(request.source);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RoundsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads page by page, so that the pods of a large namespace are never all in memory.
    async fn annotate_pods(
        &self,
        namespace: &str,
        requests: &[RoundRequest],
        found: &mut [SecretPods],
    ) -> Result<(), CallError> {
        let mut next = None;
        loop {
            let mut mounting = vec![];
            let each = |pod: Pod| {
                if pod.is_terminating() {
                    return;
                }
                let each = requests.iter().zip(found.iter_mut()).enumerate();
                let mounted: Vec<usize> = each
                    .filter_map(|(at, (request, pods))| pods.add(&pod, &request.secret).then_some(at))
                    .collect();
                if !mounted.is_empty() {
                    mounting.push((pod.metadata, mounted));
                }
            };
            next = {
                let _call = self.calls.acquire().await;
                self.kubernetes.pods(namespace, "status.phase=Running", next.as_deref(), each).await?
            };
            let annotate = |(pod, mounted): (PodMetadata, Vec<usize>)| async move {
                let _call = self.calls.acquire().await;
                let result = self.kubernetes.annotate_pod(namespace, &pod).await;
                (pod, mounted, result)
            };
            let mut annotated = stream::iter(mounting).map(annotate).buffer_unordered(MAX_CALLS);
            while let Some((pod, mounted, result)) = annotated.next().await {
                let Err(error) = result else { continue };
                for at in mounted {
                    if let Some(pods) = found.get_mut(at) {
                        pods.not_annotated(&pod, &error);
                    }
                }
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl SecretPods {
    /// Adds a pod. Returns whether it mounts the Secret as a folder, or may do so.
    fn add(&mut self, pod: &Pod, secret: &str) -> bool {
        if pod.is_too_large {
            return true;
        }
        let uses = pod.uses(secret);
        let static_uses: Vec<_> = uses.iter().filter(|used| !used.way.follows()).collect();
        if !static_uses.is_empty() {
            let ways: Vec<_> = static_uses
                .iter()
                .map(|used| format!("container {}: {}", used.container, used.way))
                .collect();
            self.static_mounts.add(format!("{} ({})", pod.metadata.name, ways.join(", ")));
        }
        let mounts = uses.iter().any(|used| used.way == UseKind::Folder);
        self.mounting += usize::from(mounts);
        mounts
    }

    fn not_annotated(&mut self, pod: &PodMetadata, error: &CallError) {
        self.not_annotated.add(pod.name.clone());
        self.error.get_or_insert_with(|| error.to_string().chars().take(MAX_ERROR_CHARS).collect());
    }

    fn result(self, stopped: Option<&str>) -> PropagationResult {
        let not_annotated = self.error.map(|error| {
            format!(
                "{} of {} pods that mount the Secret could not be annotated ({}): {error}",
                self.not_annotated.count(),
                self.mounting,
                self.not_annotated
            )
        });
        let failed = [stopped.map(str::to_owned), not_annotated]
            .into_iter()
            .flatten()
            .reduce(|a, b| format!("{a}; {b}"));
        let static_mounts = (self.static_mounts.count() > 0).then(|| self.static_mounts.to_string());
        PropagationResult { failed, static_mounts }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(failed: bool) -> PropagationResult {
        PropagationResult { failed: failed.then(|| "why".into()), static_mounts: None }
    }

    fn next_after_settling(prompt: &mut Prompt, failed: bool, now: Instant) -> Option<Instant> {
        prompt.requested(now);
        prompt.settle(now, result(failed), now);
        prompt.next()
    }

    #[test]
    fn prompt_after_a_write_makes_two_rounds_and_the_second_one_decides() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        assert_eq!(prompt.next(), None);
        prompt.written(now);
        assert_eq!(prompt.next(), Some(now + FIRST_ROUND));
        assert!(!prompt.is_due(now) && prompt.is_due(now + FIRST_ROUND));
        assert_eq!(next_after_settling(&mut prompt, true, now + FIRST_ROUND), Some(now + SECOND_ROUND));
        assert!(!prompt.fails());
        assert_eq!(next_after_settling(&mut prompt, false, now + SECOND_ROUND), None);
        assert!(prompt.result().is_some());
    }

    #[test]
    fn prompt_failed_round_is_repeated_until_a_round_succeeds() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        prompt.written(now);
        next_after_settling(&mut prompt, true, now);
        assert_eq!(next_after_settling(&mut prompt, true, now), Some(now + RETRY));
        assert!(prompt.fails());
        prompt.written(now);
        assert_eq!(next_after_settling(&mut prompt, false, now), Some(now + SECOND_ROUND));
        assert!(!prompt.fails());
    }

    #[test]
    fn prompt_round_that_ends_after_the_next_write_is_none_of_that_ones() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        prompt.written(now);
        prompt.requested(now);
        let next = now + Duration::from_secs(3);
        prompt.written(next);
        prompt.settle(now, result(false), next);
        assert_eq!(prompt.next(), Some(next + FIRST_ROUND), "its first round is not skipped");
        prompt.requested(next + FIRST_ROUND);
        prompt.settle(now, result(false), next);
        assert!(prompt.result().is_none(), "nor is an earlier round its own");
        prompt.settle(next + FIRST_ROUND, result(false), next);
        assert_eq!(prompt.next(), Some(next + SECOND_ROUND));
    }

    #[test]
    fn prompt_requested_round_is_requested_again_only_when_lost() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        prompt.written(now);
        prompt.requested(now + FIRST_ROUND);
        assert!(!prompt.is_due(now + SECOND_ROUND) && prompt.is_due(now + FIRST_ROUND + LOST_ROUND));
        prompt.forget();
        assert_eq!(prompt.next(), None);
    }

    #[test]
    fn prompt_age_of_a_token_that_waited_before_it_was_written_counts_from_the_write() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(Prompt::age(at(1000), Some(1300), at(1310)), 10);
        assert_eq!(Prompt::age(at(1000), Some(900), at(1310)), 310, "the API server's clock is behind");
        assert_eq!(Prompt::age(at(1000), None, at(1310)), 310);
    }

    #[test]
    fn prompt_in_a_new_process_is_due_only_after_a_problem_with_a_new_spec_or_with_a_recent_token() {
        let reported = |generation: i64, reason: &str| {
            let condition = json!({"type": "PropagationSafe", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "2026-11-24T20:00:00Z"});
            let status = json!({"observedGeneration": generation, "conditions": [condition]});
            Reported::of(&serde_json::from_value(status).unwrap())
        };
        for (generation, reason, age, is_due, fails) in [
            (2, "LifetimeSufficient", None, false, false),
            (2, "LifetimeSufficient", Some(90), false, false),
            (2, "LifetimeSufficient", Some(89), true, false),
            (1, "LifetimeSufficient", Some(3600), true, false),
            (2, "StaticMount", Some(3600), true, false),
            (2, "PromptFailed", Some(3600), true, true),
        ] {
            let prompt = Prompt::take_up(&reported(generation, reason), Some(2), age);
            let found = (prompt.next().is_some(), prompt.fails());
            assert_eq!(found, (is_due, fails), "{generation} {reason} {age:?}");
        }
    }
}
