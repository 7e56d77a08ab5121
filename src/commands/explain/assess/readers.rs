//! The pods that use the target Secret, and which token each of them reads.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;
use tokensource_api::Reason;

use super::Assessment;
use crate::commands::explain::cluster::Found;
use crate::commands::explain::report::{Finding, Level, SecretReader, span, when};
use crate::commands::readers::{HeldToken, Reads};
use crate::secret::{Pod, Use, UseKind, template_key_names};
use crate::time::seconds_between;

impl Assessment<'_> {
    pub(super) fn readers(&mut self, found: &Found, token: Option<&HeldToken>) {
        let secret = self.source.target_name();
        let pods = match found.pods.as_ref() {
            Err(error) => {
                return self.unknown(error, &format!("who uses Secret {secret}, and how, is not known"));
            }
            Ok(pods) => pods,
        };
        let delay = self.propagation_delay();
        let mut readers = vec![];
        let target = self.source.spec.target.as_ref();
        let keys = template_key_names(target.and_then(|target| target.template.as_ref()));
        for pod in pods {
            let missing = pod.missing_item(secret, &keys);
            for used in pod.uses(secret) {
                readers.push(SecretReader {
                    pod: pod.metadata.name.clone(),
                    container: used.container.to_owned(),
                    way: used.way,
                    reads: match missing {
                        Some(key) if used.way != UseKind::Environment => missing_item(key),
                        _ => container_token(self.now, token, delay, pod, used),
                    },
                });
            }
        }
        self.report.readers = Some(readers);
    }

    /// The longest time by which a mounted file lags behind the Secret, in seconds.
    fn propagation_delay(&mut self) -> u64 {
        let failed = self.status.conditions.iter().any(|it| it.reason == Reason::PromptFailed.as_str());
        let Some(resolved) = &mut self.resolved else { return 0 };
        if failed {
            resolved.use_unprompted_delay();
        }
        resolved.policy.propagation_delay
    }
}

fn missing_item(key: &str) -> Finding {
    let text = format!(
        "mounts key {key} by `items`, which spec.target.template does not write: unless another writer adds it, the kubelet updates nothing of the volume, and no new pod with it starts"
    );
    Finding::new(Level::Attention, text)
}

/// Which token a container reads.
pub(super) fn container_token(
    now: Timestamp,
    token: Option<&HeldToken>,
    delay: u64,
    pod: &Pod,
    used: Use<'_>,
) -> Finding {
    let well = |text: String| Finding::new(Level::Well, text);
    let attention = |text: String| Finding::new(Level::Attention, text);
    let Some(token) = token else {
        return match pod.phase() {
            "Running" => well("no token is known that it could have".into()),
            phase => well(format!("is not running yet ({phase})")),
        };
    };
    match Reads::of(now, token, delay, pod, used) {
        Reads::NotRunning => well(format!("is not running yet ({})", pod.phase())),
        Reads::SinceStart(at) => well(format!("has had this token since its start at {}", when(now, at))),
        Reads::SinceAnnotation(at) => well(format!("was annotated for this token at {}", when(now, at))),
        Reads::Since(at) => well(format!("has had this token since {} at the latest", when(now, at))),
        Reads::From(at) => well(format!("may read the token before it until {}", when(now, at))),
        Reads::FixedAtThis(at) => {
            attention(format!("has this token from its start at {}, and will get no other", when(now, at)))
        }
        Reads::Fixed => attention("has the token from its start, and never another".into()),
        Reads::FixedAtEarlier { started_at, ends_at } => {
            let ended = if ends_at <= now { "has ended by now" } else { "is an earlier one" };
            let lifetime = span(seconds_between(token.issued_at, token.expires_at));
            attention(format!(
                "still has the token from its start at {}, which {ended} (tokens live {lifetime})",
                when(now, started_at)
            ))
        }
    }
}
