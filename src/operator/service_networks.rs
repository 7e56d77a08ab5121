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
        let mut told = false;
        let mut pause = list(&client, &transport, &mut told).await;
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                pause = list(&client, &transport, &mut told).await;
            }
        }))
    }
}

impl Drop for ServiceNetworks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns after how long to list again: a right may be given later, and an API server that starts may refuse. `told`: whether
/// it was told that they cannot be listed.
async fn list(client: &Client, transport: &Transport, told: &mut bool) -> Duration {
    match service_networks(client).await {
        Ok(Some(networks)) => {
            transport.egress().set_internal(networks);
            *told = false;
            INTERVAL
        }
        Ok(None) => {
            if !std::mem::replace(told, true) {
                info!(
                    "ServiceCIDRs cannot be listed: where the addresses of Services look public, set --egress-deny"
                );
            }
            INTERVAL
        }
        Err(error) => {
            debug!(%error, "ServiceCIDRs were not listed");
            RETRY
        }
    }
}
