//! Keeps the egress policy informed of the networks of Services.

use std::time::Duration;

use kube::Client;
use token_endpoint::Transport;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use crate::cluster::service_networks;

/// How often the networks are listed. A cluster gets another one rarely.
const INTERVAL: Duration = Duration::from_secs(60);
/// Likewise after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The task that lists the networks. It stops when it is dropped.
pub(super) struct ServiceNetworks(JoinHandle<()>);

impl ServiceNetworks {
    /// Lists them once before it returns, so that they are known before the first token request.
    pub(super) async fn start(client: Client, transport: Transport) -> Self {
        let mut next = list(&client, &transport).await;
        Self(tokio::spawn(async move {
            while let Some(pause) = next {
                tokio::time::sleep(pause).await;
                next = list(&client, &transport).await;
            }
        }))
    }
}

impl Drop for ServiceNetworks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns when to list again; `None`: never, because there is nothing to list.
async fn list(client: &Client, transport: &Transport) -> Option<Duration> {
    match service_networks(client).await {
        Ok(Some(networks)) => {
            transport.egress().set_internal(networks);
            Some(INTERVAL)
        }
        Ok(None) => {
            info!(
                "ServiceCIDRs cannot be listed: where the addresses of Services look public, set --egress-deny"
            );
            None
        }
        Err(error) => {
            debug!(%error, "ServiceCIDRs were not listed");
            Some(RETRY)
        }
    }
}
