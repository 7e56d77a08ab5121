//! Prompt propagation. The kubelet reads a mounted Secret anew when something about its pod changes, and else about once
//! a minute: so after a write, the pods that mount the target get an annotation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::reconcile::Pass;
use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::secret::{Metadata, Pod, Pods, Way};
use crate::status::{Reported, Told};
use tokensource_api::Reason;

/// When pods are told, after the write. The kubelet watches the Secret and the pod independently of each other: when the
/// pod's news comes first, it reads the old value. Hence the second time.
const FIRST: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(5);
/// What failed is tried again after this time, if the token is not written again before: a role may have been granted.
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// Calls about pods under way at once: more would trample the API server, and each holds a page of pods or waits.
const AT_ONCE: usize = 8;
/// How long one round may take: what comes later is not prompt.
const ROUND: Duration = Duration::from_secs(10);
/// How much of an admission webhook's words a condition repeats, in characters.
const LONGEST_ERROR: usize = 400;

/// What is known of the pods that mount a target, where they are told of new tokens.
#[derive(Debug, Default)]
pub struct Prompt {
    /// When they are told next.
    due: Option<Due>,
    /// What came of it; `None`: this process has not tried yet.
    told: Option<Told>,
    /// The last process said that it failed.
    failed_before: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// When the second time comes, where this is the first.
    then: Option<Instant>,
}

fn interrupted(_: oneshot::error::RecvError) -> Told {
    Told { failed: Some("the round through the namespace's pods was interrupted".into()), fixed: None }
}

impl Prompt {
    /// Takes up what the process before this one said. What it found wrong is looked at again, and so is a spec that
    /// nobody has looked at: else a missing role would show only with the next token.
    pub(super) fn take_up(said: &Reported, generation: Option<i64>, now: Instant) -> Self {
        let wrong = said.pods.as_ref().map(|said| said.reason.as_str());
        let look = wrong.is_some() || Some(said.generation) != generation;
        Prompt {
            due: look.then_some(Due { at: now, then: None }),
            told: None,
            failed_before: wrong == Some(Reason::PromptFailed.as_str()),
        }
    }

    /// A token was written.
    pub(super) fn written(&mut self, now: Instant) {
        self.due = Some(Due { at: now + FIRST, then: Some(now + SECOND) });
    }

    /// When pods are told next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.map(|due| due.at)
    }

    /// What came of it; `None`: this process has not tried yet.
    pub(super) fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    /// Whether pods have to be left to the kubelet's own pace.
    pub(super) fn fails(&self) -> bool {
        self.told.as_ref().map_or(self.failed_before, |told| told.failed.is_some())
    }

    /// Takes in what came of it. Returns whether that is news.
    fn settle(&mut self, told: Told, now: Instant) -> bool {
        let due = self.due.take();
        if let Some(then) = due.and_then(|due| due.then) {
            self.due = Some(Due { at: then, then: None });
            if told.failed.is_some() {
                // The second time may go well, and is what counts.
                return false;
            }
        } else if told.failed.is_some() {
            self.due = Some(Due { at: now + AGAIN, then: None });
        }
        let news = self.told.as_ref() != Some(&told);
        self.told = Some(told);
        news
    }
}

impl Pass<'_> {
    /// Tells the pods that mount the target, where that is due. Returns whether something came of it that status does not
    /// say yet.
    pub(super) async fn tell_pods(&mut self) -> bool {
        let has_token = self.record().is_some();
        let Some(prompt) = &mut self.memory.prompt else { return false };
        if prompt.next().is_none_or(|at| at > Instant::now()) {
            return false;
        }
        if !has_token {
            prompt.due = None;
            return false;
        }
        // No look at a TokenSource waits for pods.
        self.turn = None;
        let told = self.context.rounds.tell(&self.identity.target).await;
        if let Some(message) = &told.failed {
            self.context.metrics.prompt_failed();
            warn!(source = %self.identity.key, error = %message, "pods could not be told of a new token");
        }
        prompt.settle(told, Instant::now())
    }
}

/// Rounds through the pods of namespaces. Whoever asks while one is under way is served by the next, all of them by one.
pub(super) struct Rounds {
    kubernetes: Kubernetes,
    calls: Arc<Semaphore>,
    namespaces: Mutex<HashMap<Arc<str>, Arc<Namespace>>>,
}

#[derive(Default)]
struct Namespace {
    round: tokio::sync::Mutex<()>,
    waiting: Mutex<Vec<Asked>>,
}

/// Somebody wants the pods told that mount this Secret.
struct Asked {
    secret: Arc<str>,
    answer: oneshot::Sender<Told>,
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
    pub(super) fn new(kubernetes: Kubernetes) -> Self {
        Rounds { kubernetes, calls: Arc::new(Semaphore::new(AT_ONCE)), namespaces: Mutex::default() }
    }

    /// Tells the running pods that mount this Secret.
    async fn tell(&self, secret: &Key) -> Told {
        let namespace = {
            let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            namespaces.retain(|_, namespace| Arc::strong_count(namespace) > 1);
            Arc::clone(namespaces.entry(secret.namespace.clone()).or_default())
        };
        let (answer, mut answered) = oneshot::channel();
        let waiting = || namespace.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting().push(Asked { secret: secret.name.clone(), answer });
        tokio::select! {
            biased;
            told = &mut answered => return told.unwrap_or_else(interrupted),
            _round = namespace.round.lock() => {
                let asked = std::mem::take(&mut *waiting());
                self.round(&secret.namespace, asked).await;
            }
        }
        answered.await.unwrap_or_else(interrupted)
    }

    async fn round(&self, namespace: &str, asked: Vec<Asked>) {
        let mut findings: Vec<Finding> = asked.iter().map(|_| Finding::default()).collect();
        let through = self.through(namespace, &asked, &mut findings);
        let stopped = match tokio::time::timeout(ROUND, through).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the pods of namespace {namespace} cannot be listed: {error}")),
            Err(_) => Some(format!("not all pods could be told within {} s", ROUND.as_secs())),
        };
        for (asked, finding) in asked.into_iter().zip(findings) {
            // Who asked may be gone.
            let _ = asked.answer.send(finding.told(stopped.as_deref()));
        }
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
            let touch = |(pod, of_pod): (Metadata, Vec<usize>)| {
                let (kubernetes, calls) = (self.kubernetes.clone(), Arc::clone(&self.calls));
                let namespace = namespace.to_owned();
                async move {
                    let _call = calls.acquire().await;
                    let result = kubernetes.touch_pod(&namespace, &pod).await;
                    (pod, of_pod, result)
                }
            };
            let mut touched = stream::iter(mounting).map(touch).buffer_unordered(AT_ONCE);
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
        self.error.get_or_insert_with(|| error.to_string().chars().take(LONGEST_ERROR).collect());
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

    #[test]
    fn pods_are_told_twice_and_the_second_time_counts() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        assert_eq!(prompt.next(), None);
        prompt.written(now);
        assert_eq!(prompt.next(), Some(now + FIRST));
        assert!(!prompt.settle(told(true), now + FIRST) && !prompt.fails());
        assert_eq!(prompt.next(), Some(now + SECOND));
        assert!(prompt.settle(told(false), now + SECOND));
        assert_eq!(prompt.next(), None);
        prompt.written(now);
        assert!(!prompt.settle(told(false), now), "the same is no news");
    }

    #[test]
    fn what_failed_is_tried_again_and_recovers_at_the_first_success() {
        let (mut prompt, now) = (Prompt::default(), Instant::now());
        prompt.written(now);
        prompt.settle(told(true), now);
        assert!(prompt.settle(told(true), now) && prompt.fails());
        assert_eq!(prompt.next(), Some(now + AGAIN));
        assert!(!prompt.settle(told(true), now + AGAIN));
        assert_eq!(prompt.next(), Some(now + AGAIN + AGAIN));
        prompt.written(now);
        assert!(prompt.settle(told(false), now) && !prompt.fails());
        assert_eq!(prompt.next(), Some(now + SECOND));
    }

    #[test]
    fn a_new_process_looks_only_where_something_was_wrong_or_is_new() {
        let said = |generation: i64, reason: &str| {
            let condition = json!({"type": "PropagationSafe", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "2026-11-24T20:00:00Z"});
            let status = json!({"observedGeneration": generation, "conditions": [condition]});
            Reported::of(&serde_json::from_value(status).unwrap())
        };
        let now = Instant::now();
        for (generation, reason, looks, fails) in [
            (2, "LifetimeSufficient", false, false),
            (1, "LifetimeSufficient", true, false),
            (2, "StaticMount", true, false),
            (2, "PromptFailed", true, true),
        ] {
            let prompt = Prompt::take_up(&said(generation, reason), Some(2), now);
            assert_eq!((prompt.next().is_some(), prompt.fails()), (looks, fails), "{generation} {reason}");
        }
    }
}
