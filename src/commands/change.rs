//! Changes of many TokenSources by a merge patch, for `refresh`, `suspend` and `resume`.

use clap::Args;
use futures::{StreamExt, stream};
use kube::api::DynamicObject;
use serde_json::Value;

use super::kubectl::{ClusterArgs, SelectionArgs};
use super::output::{self, Progress};
use crate::cluster::{UserCluster, UserClusterError};
use crate::key::Key;

/// How many changes are under way at once.
const CONCURRENT_CHANGES: usize = 8;

/// Which TokenSources are changed, and whether they are.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Which TokenSources.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// All of the namespace; with -A those of all namespaces.
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub all: bool,

    /// Let the API server check the change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What a command does with each TokenSource.
pub(super) trait Change: Sync {
    /// The patch; `None` where nothing is to be changed.
    fn patch(&self, source: &DynamicObject) -> Option<Value>;
    /// What is said of it after the change, or in place of one: `suspended`, `already suspended`.
    fn said(&self, source: &DynamicObject, changed: bool) -> String;
}

/// What was done.
pub(super) struct Done {
    pub(super) cluster: UserCluster,
    /// The TokenSources as they are after the change.
    pub(super) changed: Vec<DynamicObject>,
    /// Whether one could not be changed.
    pub(super) failed: bool,
}

/// No TokenSources can be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error("name TokenSources, or select them by -l LABELS or --all")]
    NothingSelected,
    #[error(transparent)]
    Cluster(#[from] UserClusterError),
}

/// Changes the selected TokenSources, and reports each. What cannot be changed is reported, and the others are changed.
pub(super) async fn change(arguments: &ChangeArgs, change: &impl Change) -> Result<Done, ChangeError> {
    let selection = &arguments.selection;
    if selection.names.is_empty() && selection.selector.is_none() && !arguments.all {
        return Err(ChangeError::NothingSelected);
    }
    let cluster = UserCluster::connect(&arguments.cluster.connection()).await?;
    let (sources, mut failed) = selection.objects(&cluster).await?;
    let (count, mut ended, progress) = (sources.len(), 0, Progress::new());
    let mut changes = stream::iter(sources)
        .map(|source| one(&cluster, source, change, arguments.dry_run))
        .buffered(CONCURRENT_CHANGES);
    let mut changed = vec![];
    while let Some(result) = changes.next().await {
        progress.clear();
        match result {
            Ok((source, was_changed)) => {
                let prefix = if selection.all_namespaces {
                    format!("{}/", Key::of(&source.metadata).namespace)
                } else {
                    String::new()
                };
                let name = source.metadata.name.as_deref().unwrap_or_default();
                let dry_run = if arguments.dry_run { " (server dry run)" } else { "" };
                let said = change.said(&source, was_changed);
                output::print(&format!("tokensource.tokensource.dev/{prefix}{name} {said}{dry_run}\n"));
                changed.push(source);
            }
            Err(error) => failed |= output::report_error(&error),
        }
        ended += 1;
        progress.show(&format!("{ended} of {count}"));
    }
    progress.clear();
    drop(changes);
    Ok(Done { cluster, changed, failed })
}

async fn one(
    cluster: &UserCluster,
    source: DynamicObject,
    change: &impl Change,
    dry_run: bool,
) -> Result<(DynamicObject, bool), UserClusterError> {
    match change.patch(&source) {
        None => Ok((source, false)),
        Some(patch) => Ok((cluster.patch_source(&Key::of(&source.metadata), &patch, dry_run).await?, true)),
    }
}
