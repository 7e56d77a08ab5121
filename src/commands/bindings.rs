//! `bindings`: prints the RoleBindings that grant the operator its rights in each namespace that has TokenSources, to be applied
//! before the operator is switched to rights by namespace.

use std::io::{self, Write};

use clap::Args;

use super::kubectl::ClusterArgs;
use crate::binding::{Grant, ServiceAccountName};
use crate::cluster::{UserCluster, UserClusterError};

/// The flags of `bindings`. Their defaults are the chart's, for the release tokensource-operator in tokensource-system.
#[derive(Debug, Args)]
pub struct BindingsArgs {
    /// The ClusterRole with the rights that the operator has in a namespace.
    #[arg(
        long,
        value_name = "CLUSTERROLE",
        default_value = "tokensource-operator.tokensource-system-served"
    )]
    pub served_role: String,

    /// The operator's ServiceAccount.
    #[arg(long, value_name = "NAMESPACE:NAME", default_value = "tokensource-system:tokensource-operator")]
    pub service_account: ServiceAccountName,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// The RoleBindings cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// The TokenSources cannot be listed.
    #[error(transparent)]
    Cluster(#[from] ListError),
    /// They cannot be written as YAML.
    #[error("the RoleBindings cannot be written: {0}")]
    Yaml(#[from] serde_saphyr::ser_error::Error),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// The TokenSources cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ListError(#[from] UserClusterError);

/// Lists TokenSources with the user's rights, and prints a RoleBinding for each of their namespaces.
///
/// # Errors
/// See [`BindingsError`].
pub async fn run(arguments: BindingsArgs) -> Result<(), BindingsError> {
    token_endpoint::transport::install_crypto_provider();
    let cluster = UserCluster::connect(&arguments.cluster.connection()).await.map_err(ListError)?;
    let grant = Grant { role: arguments.served_role, account: arguments.service_account };
    let mut output = io::stdout().lock();
    for namespace in cluster.namespaces_with_sources().await.map_err(ListError)? {
        let manifest = serde_saphyr::to_string(&grant.manifest(&namespace))?;
        write!(output, "---\n{manifest}")?;
    }
    Ok(output.flush()?)
}
