//! `refresh`: requests new tokens, and waits for them on request.

mod pods;
mod wait;

use std::time::Duration;

use clap::Args;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::change::{Change, ChangeArgs, change};
use super::kubectl::request_timeout;
use super::output;
use super::readers::HeldToken;
use crate::cluster::{UserCluster, UserClusterError};
use crate::key::Key;
use crate::secret::REFRESH_REQUEST_ANNOTATION;
use crate::text::shown_message;
use wait::{Progress, Request};

/// The text below the flags in the help of `refresh`.
pub const HELP: &str = "It sets the annotation tokensource.dev/refresh-requested-at, which the operator acts on at once, or as soon as 30 s have passed
since the last such request. The present token stays valid as long as the issuer lets it.

Exit codes:
  0  the tokens are requested; with --wait they are written, and with --pods all containers that follow the Secret have them
  1  one could not be requested: wrong flags or cluster, not found, or no right
  2  with --wait: the operator could not get a new token, or not in time
  3  with --pods: the tokens are written, and a container keeps an earlier one (subPath, environment variable), is not running
     yet or could not be read";

/// How often status is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How many TokenSources are read at once.
const CONCURRENT_READS: usize = 8;

/// The flags of `refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// Wait until the new tokens are written.
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,

    /// With --wait: wait until pods read them, too.
    #[arg(long, requires = "wait")]
    pub pods: bool,

    /// The longest to wait for all of them; 0: for ever.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = request_timeout)]
    pub timeout: Duration,

    /// Which TokenSources.
    #[command(flatten)]
    pub change: ChangeArgs,
}

struct RequestToken {
    /// The value of the annotation: another than before.
    value: String,
}

impl Change for RequestToken {
    fn patch(&self, _: &DynamicObject) -> Option<Value> {
        Some(json!({"metadata": {"annotations": {REFRESH_REQUEST_ANNOTATION: self.value}}}))
    }

    fn said(&self, source: &DynamicObject, _: bool) -> String {
        if source.data.pointer("/spec/suspend").is_some_and(|suspend| suspend == true) {
            "refresh requested; it is suspended, and the token is asked for after `resume`".to_owned()
        } else {
            "refresh requested".to_owned()
        }
    }
}

/// Requests tokens. Returns the exit code, see [`HELP`].
pub async fn run(arguments: RefreshArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    let start = Instant::now();
    let request = RequestToken { value: format!("{:.3}", Timestamp::now()) };
    let done = match change(&arguments.change, &request).await {
        Ok(done) => done,
        Err(error) => return output::report_error(&error).into(),
    };
    if !arguments.wait {
        return done.failed.into();
    }
    let limit = Some(arguments.timeout).filter(|timeout| !timeout.is_zero());
    let deadline = limit.and_then(|limit| start.checked_add(limit));
    let all_namespaces = arguments.change.selection.all_namespaces;
    let waited: Vec<u8> = stream::iter(&done.changed)
        .map(|source| one(&done.cluster, source, deadline, arguments.pods, all_namespaces))
        .buffer_unordered(CONCURRENT_READS)
        .collect()
        .await;
    waited.into_iter().chain([done.failed.into()]).max_by_key(|code| severity(*code)).unwrap_or_default()
}

/// The order of exit codes: one that could not be requested counts most.
fn severity(code: u8) -> u8 {
    match code {
        0 => 0,
        1 => u8::MAX,
        code => 10 - code,
    }
}

/// Waits for the token of one TokenSource. Returns the exit code for it.
async fn one(
    cluster: &UserCluster,
    source: &DynamicObject,
    deadline: Option<Instant>,
    pods: bool,
    with_namespace: bool,
) -> u8 {
    let key = Key::of(&source.metadata);
    let name = if with_namespace { key.to_string() } else { key.name.to_string() };
    let name = format!("tokensource.tokensource.dev/{name}");
    let (token, source) = match written(cluster, &key, source, deadline, &name).await {
        Ok(written) => written,
        Err(error) => {
            output::report_error(&error);
            return 2;
        }
    };
    output::print(&format!(
        "{name} refreshed: token {} is written, and valid until {}\n",
        token.id, token.expires_at
    ));
    if pods { pods::wait(cluster, &key, &name, &source, &token, deadline).await } else { 0 }
}

/// No new token has been written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("{name}: no new token: {message}")]
    Ended { name: String, message: String },
    #[error("{name}: no new token in time: {message}")]
    InTime { name: String, message: String },
    #[error(transparent)]
    Cluster(#[from] UserClusterError),
}

/// Waits until the token is written; returns the TokenSource as it is then, too.
async fn written(
    cluster: &UserCluster,
    key: &Key,
    source: &DynamicObject,
    deadline: Option<Instant>,
    name: &str,
) -> Result<(HeldToken, DynamicObject), NotWritten> {
    let request = Request::of(source);
    let mut last = None;
    loop {
        let now = match cluster.source_object(key).await {
            Ok(now) => now,
            // The token may be written all the same.
            Err(error) => {
                let Some(asked) = error.passes() else { return Err(error.into()) };
                let message = error.to_string();
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Err(NotWritten::InTime { name: name.to_owned(), message });
                }
                if last.as_ref() != Some(&message) {
                    output::print_note(&format!("{name}: {}", shown_message(&message)));
                }
                last = Some(message);
                let next = Instant::now() + asked.unwrap_or_default().max(POLL_INTERVAL);
                sleep_until(deadline.map_or(next, |deadline| next.min(deadline))).await;
                continue;
            }
        };
        match request.progress(&now) {
            Progress::Written(token) => return Ok((token, now)),
            Progress::Ended(message) => return Err(NotWritten::Ended { name: name.to_owned(), message }),
            Progress::Waiting => {}
            Progress::Blocked(message) => {
                if last.as_ref() != Some(&message) {
                    output::print_note(&format!("{name}: {message}"));
                }
                last = Some(message);
            }
            Progress::Failed { message, next_attempt_at } => {
                let said = format!("{message}; the next attempt is at {next_attempt_at}");
                if last.as_ref() != Some(&said) {
                    output::print_note(&format!("{name}: {said}"));
                }
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let until = next_attempt_at.duration_since(Timestamp::now());
                if left.is_some_and(|left| Duration::try_from(until).is_ok_and(|until| until > left)) {
                    return Err(NotWritten::Ended { name: name.to_owned(), message: said });
                }
                last = Some(said);
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let message = last.unwrap_or_else(|| {
                "see whether the operator runs and serves this namespace: kubectl tokensource check"
                    .to_owned()
            });
            return Err(NotWritten::InTime { name: name.to_owned(), message });
        }
        sleep(POLL_INTERVAL).await;
    }
}
