//! `suspend` and `resume`: set and remove `spec.suspend`.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::change::{Change, ChangeArgs, change};
use super::output;

/// The text below the flags in the help of `suspend`.
pub const SUSPEND_HELP: &str = "It sets spec.suspend to true: no token is asked for until `resume`, and the Secret stays as it is until its
token expires. Where manifests come from Git, suspend there: the next sync would undo it.

Exit codes:
  0  all are suspended
  1  one could not be: wrong flags or cluster, not found, or no right";

/// The text below the flags in the help of `resume`.
pub const RESUME_HELP: &str = "It removes spec.suspend. A token that is due is asked for at once.

Exit codes:
  0  none is suspended any more
  1  one could not be resumed: wrong flags or cluster, not found, or no right";

struct Suspend(bool);

impl Change for Suspend {
    fn patch(&self, source: &DynamicObject) -> Option<Value> {
        let suspended = source.data.pointer("/spec/suspend").is_some_and(|suspend| suspend == true);
        let suspend = if self.0 { json!(true) } else { Value::Null };
        (suspended != self.0).then(|| json!({"spec": {"suspend": suspend}}))
    }

    fn said(&self, _: &DynamicObject, changed: bool) -> String {
        match (self.0, changed) {
            (true, true) => "suspended",
            (true, false) => "already suspended",
            (false, true) => "resumed",
            (false, false) => "not suspended",
        }
        .to_owned()
    }
}

/// Suspends TokenSources, or resumes them. Returns the exit code, see [`SUSPEND_HELP`] and [`RESUME_HELP`].
pub async fn run(arguments: ChangeArgs, suspend: bool) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    match change(&arguments, &Suspend(suspend)).await {
        Ok(done) => done.failed.into(),
        Err(error) => output::report_error(&error).into(),
    }
}
