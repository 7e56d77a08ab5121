//! The flags that kubectl has too, with its meaning of them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use kube::api::DynamicObject;

use super::completion;
use super::output::{self, Progress};
use crate::cluster::{KubeconfigEntry, Scope, UserCluster, UserClusterError, UserConnection};
use crate::key::Key;

/// How the cluster is reached: kubectl's flags.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The namespace; default: that of the kubeconfig.
    #[arg(short = 'n', long, value_name = "NS", add = completion::namespaces())]
    pub namespace: Option<String>,

    /// The kubeconfig; default: KUBECONFIG, else ~/.kube/config.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME", add = completion::kubeconfig_entries(KubeconfigEntry::Context))]
    pub context: Option<String>,

    /// The cluster of the kubeconfig.
    #[arg(long, value_name = "NAME", add = completion::kubeconfig_entries(KubeconfigEntry::Cluster))]
    pub cluster: Option<String>,

    /// The user of the kubeconfig.
    #[arg(long, value_name = "NAME", add = completion::kubeconfig_entries(KubeconfigEntry::User))]
    pub user: Option<String>,

    /// Impersonate this user.
    #[arg(long = "as", value_name = "USER")]
    pub impersonated_user: Option<String>,

    /// Impersonate this group; may be repeated.
    #[arg(long = "as-group", value_name = "GROUP", requires = "impersonated_user")]
    pub impersonated_groups: Vec<String>,

    /// The longest that one response of the API server may take, for example 1s, 2m or 3h; 0: for ever. Default: 30s.
    #[arg(long, value_name = "DURATION", value_parser = request_timeout)]
    pub request_timeout: Option<Duration>,
}

impl ClusterArgs {
    pub(super) fn connection(&self) -> UserConnection {
        let it = self.clone();
        UserConnection {
            kubeconfig: it.kubeconfig,
            context: it.context,
            cluster: it.cluster,
            user: it.user,
            namespace: it.namespace,
            impersonated_user: it.impersonated_user,
            impersonated_groups: it.impersonated_groups,
            request_timeout: it.request_timeout,
        }
    }
}

/// Which TokenSources a command is about.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Names of TokenSources.
    #[arg(value_name = "NAME", value_parser = name, add = completion::sources())]
    pub names: Vec<String>,

    /// Those with these labels, for example team=a or 'tier in (a,b)'.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "names")]
    pub selector: Option<String>,

    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "names", conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

impl SelectionArgs {
    /// The TokenSources as they are, and whether one that is named cannot be read, which is reported.
    pub(super) async fn objects(
        &self,
        cluster: &UserCluster,
    ) -> Result<(Vec<DynamicObject>, bool), UserClusterError> {
        if !self.names.is_empty() {
            return Ok(self.named(cluster).await);
        }
        let (objects, _) = self.listed(cluster).await?;
        if objects.is_empty() {
            output::print_note(&self.none_found(cluster));
        }
        Ok((objects, false))
    }

    /// Those that are named. The ones that cannot be read are reported one by one; true if there are some.
    pub(super) async fn named(&self, cluster: &UserCluster) -> (Vec<DynamicObject>, bool) {
        let (mut objects, mut failed) = (vec![], false);
        for name in &self.names {
            match cluster.source_object(&Key::new(&cluster.namespace, name)).await {
                Ok(object) => objects.push(object),
                Err(error) => failed |= output::report_error(&error),
            }
        }
        (objects, failed)
    }

    /// Those that are not named, with the resource version for a watch.
    pub(super) async fn listed(
        &self,
        cluster: &UserCluster,
    ) -> Result<(Vec<DynamicObject>, String), UserClusterError> {
        let progress = Progress::new();
        let show = |count| progress.show(&format!("{count} listed"));
        let listed = cluster.source_objects(&self.scope(cluster), show).await;
        progress.clear();
        listed
    }

    /// Where those are that are not named.
    pub(super) fn scope(&self, cluster: &UserCluster) -> Scope {
        Scope {
            namespace: (!self.all_namespaces).then(|| cluster.namespace.clone()),
            labels: self.selector.clone(),
        }
    }

    /// kubectl's message where there is none.
    pub(super) fn none_found(&self, cluster: &UserCluster) -> String {
        if self.all_namespaces {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", cluster.namespace)
        }
    }
}

/// Accepts `tokensource/NAME`, too, which `-o name` prints.
fn name(value: &str) -> Result<String, InvalidName> {
    let name = match value.split_once('/') {
        None => value,
        Some(("tokensource" | "tokensources" | "tokensource.tokensource.dev", name)) => name,
        Some(_) => return Err(InvalidName),
    };
    let is_allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-.".contains(&it);
    if name.is_empty() || !name.bytes().all(is_allowed) { Err(InvalidName) } else { Ok(name.to_owned()) }
}

#[derive(Debug, thiserror::Error)]
#[error("write the name of a TokenSource: lower-case letters, digits, hyphens and dots")]
struct InvalidName;

#[derive(Debug, thiserror::Error)]
#[error("write a duration, for example 1s, 2m or 3h; 0 waits for ever")]
pub(super) struct InvalidTimeout;

/// Parses a duration as kubectl does: a number alone is one of seconds.
pub(super) fn request_timeout(value: &str) -> Result<Duration, InvalidTimeout> {
    if let Ok(seconds) = value.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: jiff::SignedDuration = value.parse().map_err(|_| InvalidTimeout)?;
    Duration::try_from(duration).map_err(|_| InvalidTimeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_timeout_is_read_as_kubectl_reads_it() {
        for (value, seconds) in [("0", 0), ("5", 5), ("90s", 90), ("2m", 120), ("1h30m", 5400)] {
            assert_eq!(request_timeout(value).ok(), Some(Duration::from_secs(seconds)), "{value}");
        }
        for wrong in ["", "soon", "-1", "-1s"] {
            assert!(request_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn name_may_have_the_kind_before_it_and_no_path() {
        for right in ["a-1.b", "tokensource/a-1.b", "tokensource.tokensource.dev/a-1.b"] {
            assert_eq!(name(right).unwrap(), "a-1.b");
        }
        for wrong in ["", "secret/a", "a/b/c", "../a", "A", "a?b", "tokensource/"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
