//! Prompt propagation. The kubelet reads a mounted Secret anew when something about its pod changes, and else about once
//! a minute: so after a write, the pods that mount the target get an annotation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokensource_api::Reason;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::secret::{Metadata, Pod, Pods, Way};
use crate::status::{Reported, Told};

/// When pods are touched, after the write. The kubelet watches the Secret and the pod independently of each other: if the
/// pod's change comes first, it reads the old value. Hence the second round.
const FIRST_ROUND: Duration = Duration::from_millis(500);
const SECOND_ROUND: Duration = Duration::from_secs(5);
/// What failed is tried again after this time, if no token is written before: a role may have been granted.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// A round without a result after this time is asked for again.
const LOST_ROUND: Duration = Duration::from_secs(60);
/// Calls about pods in flight: more would overload the API server, and each holds a page of pods or waits.
const MAX_CALLS: usize = 8;
/// The longest that one round takes: what comes later is not prompt.
const MAX_ROUND: Duration = Duration::from_secs(10);
/// How much of an admission webhook's words a condition repeats, in characters.
const MAX_ERROR: usize = 400;

/// What is known of the pods that mount a target, where the spec asks for prompt propagation.
#[derive(Debug, Default)]
pub struct Prompt {
    /// When the next round is due.
    due: Option<Due>,
    /// When the round was asked for that has no result yet.
    asked_at: Option<Instant>,
    /// What came of the last round; `None`: this process has made none yet.
    result: Option<Told>,
    /// The last process reported that it failed.
    failed_before: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// When the second round comes, where this is the first.
    then: Option<Instant>,
}

impl Prompt {
    /// Takes up what the process before this one reported. What it found wrong is tried again, and so is a spec that no
    /// process has seen: else a missing role would show only with the next token.
    pub(super) fn take_up(reported: &Reported, generation: Option<i64>) -> Self {
        let wrong = reported.pods.as_ref().map(|pods| pods.reason.as_str());
        let is_due = wrong.is_some() || Some(reported.generation) != generation;
        Prompt {
            due: is_due.then(|| Due { at: Instant::now(), then: None }),
            failed_before: wrong == Some(Reason::PromptFailed.as_str()),
            ..Prompt::default()
        }
    }

    /// A token was written.
    pub(super) fn written(&mut self, now: Instant) {
        self.due = Some(Due { at: now + FIRST_ROUND, then: Some(now + SECOND_ROUND) });
        self.asked_at = None;
    }

    /// When the next round is due that was not asked for yet.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.asked_at {
            Some(asked_at) => Some(asked_at + LOST_ROUND),
            None => self.due.map(|due| due.at),
        }
    }

    /// Whether a round is to be asked for now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some() && self.next().is_some_and(|at| at <= now)
    }

    /// A round was asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// No round is needed.
    pub(super) fn forget(&mut self) {
        self.due = None;
        self.asked_at = None;
    }

    /// What came of the last round; `None`: this process has made none yet.
    pub(super) fn result(&self) -> Option<&Told> {
        self.result.as_ref()
    }

    /// Whether pods have to be left to the kubelet's own pace.
    pub(super) fn fails(&self) -> bool {
        self.result.as_ref().map_or(self.failed_before, |result| result.failed.is_some())
    }

    /// Takes in what came of a round.
    pub(super) fn settle(&mut self, result: Told, now: Instant) {
        self.asked_at = None;
        if let Some(then) = self.due.take().and_then(|due| due.then) {
            self.due = Some(Due { at: then, then: None });
            if result.failed.is_some() {
                // The second round may go well, and is what counts.
                return;
            }
        } else if result.failed.is_some() {
            self.due = Some(Due { at: now + RETRY, then: None });
        }
        self.result = Some(result);
    }
}

/// Rounds through the pods of namespaces, each a task of its own. What is asked for while a round is under way is served by
/// the next, all of it by one.
pub(super) struct Rounds {
    kubernetes: Kubernetes,
    calls: Semaphore,
    state: Mutex<State>,
    ended: (mpsc::UnboundedSender<Key>, tokio::sync::Mutex<mpsc::UnboundedReceiver<Key>>),
}

#[derive(Default)]
struct State {
    /// What is asked for, by namespace; an entry is there while a task serves that namespace.
    asked: HashMap<Arc<str>, Vec<Asked>>,
    results: HashMap<Key, Told>,
}

/// A TokenSource wants the pods touched that mount this Secret.
struct Asked {
    source: Key,
    secret: Arc<str>,
}

/// What is found out about one Secret.
#[derive(Default)]
struct Finding {
    mounting: usize,
    untold: Pods,
    error: Option<String>,
    fixed: Pods,
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

    /// Asks for the running pods that mount this Secret to be touched.
    pub(super) fn ask(self: &Arc<Self>, source: &Key, secret: &Key) {
        let asked = Asked { source: source.clone(), secret: Arc::clone(&secret.name) };
        let namespace = Arc::clone(&source.namespace);
        match self.lock().asked.entry(Arc::clone(&namespace)) {
            Entry::Occupied(mut entry) => return entry.get_mut().push(asked),
            Entry::Vacant(entry) => drop(entry.insert(vec![asked])),
        }
        let rounds = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(asked) = rounds.take_asked(&namespace) {
                rounds.round(&namespace, asked).await;
            }
        });
    }

    /// Waits for a TokenSource whose round has ended.
    pub(super) async fn ended(&self) -> Key {
        match self.ended.1.lock().await.recv().await {
            Some(source) => source,
            None => std::future::pending().await, // the sender lives as long as `self`
        }
    }

    /// The result of a TokenSource's round, which is the caller's from now on.
    pub(super) fn take(&self, source: &Key) -> Option<Told> {
        self.lock().results.remove(source)
    }

    /// All that is asked for in a namespace; where that is nothing, its task ends.
    fn take_asked(&self, namespace: &Arc<str>) -> Option<Vec<Asked>> {
        let state = &mut *self.lock();
        let asked = std::mem::take(state.asked.get_mut(namespace)?);
        if asked.is_empty() {
            state.asked.remove(namespace);
            return None;
        }
        Some(asked)
    }

    async fn round(&self, namespace: &str, asked: Vec<Asked>) {
        let mut findings: Vec<Finding> = asked.iter().map(|_| Finding::default()).collect();
        let through = self.through(namespace, &asked, &mut findings);
        let stopped = match tokio::time::timeout(MAX_ROUND, through).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the pods of namespace {namespace} cannot be listed: {error}")),
            Err(_) => Some(format!("not all pods could be told within {} s", MAX_ROUND.as_secs())),
        };
        for (asked, finding) in asked.into_iter().zip(findings) {
            self.lock().results.insert(asked.source.clone(), finding.told(stopped.as_deref()));
            // The receiver lives as long as `self`.
            let _ = self.ended.0.send(asked.source);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Page by page, so that the pods of a large namespace are never in memory all at once.
    async fn through(
        &self,
        namespace: &str,
        asked: &[Asked],
        findings: &mut [Finding],
    ) -> Result<(), CallError> {
        let mut next = None;
        loop {
            let mut page = {
                let _call = self.calls.acquire().await;
                self.kubernetes.pods(namespace, "status.phase=Running", next.as_deref()).await?
            };
            next = page.next_page();
            let mut mounting = vec![];
            for pod in page.items.into_iter().filter(|pod| !pod.is_terminating()) {
                let each = asked.iter().zip(findings.iter_mut()).enumerate();
                let of_pod: Vec<usize> = each
                    .filter_map(|(at, (asked, finding))| finding.look(&pod, &asked.secret).then_some(at))
                    .collect();
                if !of_pod.is_empty() {
                    mounting.push((pod.metadata, of_pod));
                }
            }
            let touch = |(pod, of_pod): (Metadata, Vec<usize>)| async move {
                let _call = self.calls.acquire().await;
                let result = self.kubernetes.touch_pod(namespace, &pod).await;
                (pod, of_pod, result)
            };
            let mut touched = stream::iter(mounting).map(touch).buffer_unordered(MAX_CALLS);
            while let Some((pod, of_pod, result)) = touched.next().await {
                let Err(error) = result else { continue };
                for at in of_pod {
                    if let Some(finding) = findings.get_mut(at) {
                        finding.untold(&pod, &error);
                    }
                }
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl Finding {
    /// Takes in how a pod uses the Secret. Returns whether it mounts it as a folder.
    fn look(&mut self, pod: &Pod, secret: &str) -> bool {
        let uses = pod.uses(secret);
        let fixed: Vec<_> = uses.iter().filter(|used| !used.way.follows()).collect();
        if !fixed.is_empty() {
            let ways: Vec<_> =
                fixed.iter().map(|used| format!("container {}: {}", used.container, used.way)).collect();
            self.fixed.add(format!("{} ({})", pod.metadata.name, ways.join(", ")));
        }
        let mounts = uses.iter().any(|used| used.way == Way::Folder);
        self.mounting += usize::from(mounts);
        mounts
    }

    fn untold(&mut self, pod: &Metadata, error: &CallError) {
        self.untold.add(pod.name.clone());
        self.error.get_or_insert_with(|| error.to_string().chars().take(MAX_ERROR).collect());
    }

    fn told(self, stopped: Option<&str>) -> Told {
        let untold = self.error.map(|error| {
            format!(
                "{} of {} pods that mount the Secret could not be touched ({}): {error}",
                self.untold.count(),
                self.mounting,
                self.untold
            )
        });
        let failed =
            [stopped.map(str::to_owned), untold].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
        let fixed = (self.fixed.count() > 0).then(|| self.fixed.to_string());
        Told { failed, fixed }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(failed: bool) -> Told {
        Told { failed: failed.then(|| "why".into()), fixed: None }
    }

    fn next_after_settling(prompt: &mut Prompt, failed: bool, now: Instant) -> Option<Instant> {
        prompt.asked(now);
        prompt.settle(told(failed), now);
        prompt.next()
    }

    #[test]
    fn pods_are_touched_twice_after_a_write_and_the_second_round_counts() {
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
    fn failed_rounds_are_repeated_and_recover_at_the_first_success() {
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
    fn rounds_that_were_asked_for_are_not_asked_for_again_until_they_are_lost() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        prompt.written(now);
        prompt.asked(now + FIRST_ROUND);
        assert!(!prompt.is_due(now + SECOND_ROUND) && prompt.is_due(now + FIRST_ROUND + LOST_ROUND));
        prompt.forget();
        assert_eq!(prompt.next(), None);
    }

    #[test]
    fn new_process_makes_a_round_only_where_something_was_wrong_or_is_new() {
        let said = |generation: i64, reason: &str| {
            let condition = json!({"type": "PropagationSafe", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "2026-11-24T20:00:00Z"});
            let status = json!({"observedGeneration": generation, "conditions": [condition]});
            Reported::of(&serde_json::from_value(status).unwrap())
        };
        for (generation, reason, is_due, fails) in [
            (2, "LifetimeSufficient", false, false),
            (1, "LifetimeSufficient", true, false),
            (2, "StaticMount", true, false),
            (2, "PromptFailed", true, true),
        ] {
            let prompt = Prompt::take_up(&said(generation, reason), Some(2));
            assert_eq!((prompt.next().is_some(), prompt.fails()), (is_due, fails), "{generation} {reason}");
        }
    }
}
