//! Waits until pods read a new token.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::DynamicObject;
use tokio::time::{Instant, sleep};

use crate::cluster::{CallError, UserCluster};
use crate::commands::output;
use crate::commands::readers::{HeldToken, Reads, pods_of};
use crate::key::Key;
use crate::spec::Resolved;
use crate::text::{shown, shown_message};
use tokensource_api::TokenSource;

/// The propagation delay that `run` has by default, in seconds.
const DEFAULT_PROPAGATION_DELAY: u64 = 90;
/// How often pods are listed: the operator annotates them shortly after it writes the Secret.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Waits until all containers that follow the target have `token`. Returns the exit code for it.
pub(super) async fn wait(
    cluster: &UserCluster,
    key: &Key,
    name: &str,
    source: &DynamicObject,
    token: &HeldToken,
    deadline: Option<Instant>,
) -> u8 {
    let read = serde_json::to_value(source).and_then(serde_json::from_value::<TokenSource>);
    let Some((secret, delay)) = read.ok().and_then(|source| {
        let delay = Resolved::of(&source, DEFAULT_PROPAGATION_DELAY).ok()?.policy.propagation_delay;
        Some((source.target_name().to_owned(), delay))
    }) else {
        output::print_error(&format!("{name}: this version of the command cannot read its spec"));
        return 3;
    };
    let kubernetes = cluster.kubernetes();
    let mut said = None;
    loop {
        let pods = match pods_of(&kubernetes, &key.namespace, |pod| !pod.uses(&secret).is_empty()).await {
            Ok(pods) => pods,
            Err(error @ CallError::Unavailable(_))
                if deadline.is_none_or(|deadline| Instant::now() < deadline) =>
            {
                let waiting = format!("{name}: {error}");
                if said.as_ref() != Some(&waiting) {
                    output::print_note(&shown_message(&waiting));
                    said = Some(waiting);
                }
                sleep(POLL_INTERVAL).await;
                continue;
            }
            Err(error) => {
                let message = format!("{name}: whether pods read the token is not known: {error}");
                output::print_error(&shown_message(&message));
                return 3;
            }
        };
        let now = Timestamp::now();
        let (mut follow, mut last, mut others) = (0, None::<Timestamp>, vec![]);
        for pod in &pods {
            for used in pod.uses(&secret) {
                let container = format!("pod/{} container {}", pod.metadata.name, used.container);
                match Reads::of(now, token, delay, pod, used) {
                    Reads::SinceStart(_) | Reads::SinceAnnotation(_) | Reads::Since(_) => follow += 1,
                    Reads::From(at) => last = last.max(Some(at)),
                    Reads::FixedAtThis(_) => follow += 1,
                    Reads::FixedAtEarlier { .. } | Reads::Fixed => others.push(format!(
                        "{container} keeps an earlier token ({}): restart it, and mount the Secret as a folder",
                        used.way
                    )),
                    Reads::NotRunning => others.push(format!("{container} is not running yet")),
                }
            }
        }
        if let Some(at) = last.filter(|_| deadline.is_none_or(|deadline| Instant::now() < deadline)) {
            let waiting = format!("{name}: waiting for pods, until {at} at the latest");
            if said.as_ref() != Some(&waiting) {
                output::print_note(&waiting);
                said = Some(waiting);
            }
            sleep(POLL_INTERVAL).await;
            continue;
        }
        if let Some(at) = last {
            others.push(format!("pods may read the token before it until {at}"));
        }
        for other in &others {
            output::print_note(&format!("{name}: {}", shown(other)));
        }
        let containers =
            if follow == 1 { "1 container has".to_owned() } else { format!("{follow} containers have") };
        output::print(&format!("{name}: {containers} the new token\n"));
        return if others.is_empty() { 0 } else { 3 };
    }
}
