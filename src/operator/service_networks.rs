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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::json;
    use token_endpoint::Egress;

    use super::*;

    /// An API server that starts may refuse before it has read its roles, and a right may be given later.
    #[tokio::test(start_paused = true)]
    async fn service_networks_are_listed_again_a_minute_after_a_refusal() {
        token_endpoint::transport::install_crypto_provider();
        let network = json!({"metadata": {}, "items": [{"spec": {"cidrs": ["34.118.224.0/20"]}}]});
        let refusal = json!({"kind": "Status", "status": "Failure", "code": 403, "message": "no", "reason": "Forbidden"});
        let script = Arc::new(Mutex::new(vec![(200, network), (503, json!({})), (403, refusal)]));
        let left = Arc::clone(&script);
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let reply = script.lock().unwrap().pop();
            async move {
                let Some((status, body)) = reply else { return std::future::pending().await };
                let response = http::Response::builder().status(status);
                Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
            }
        });
        let egress = Arc::new(Egress::new(vec![], None, false, vec![]));
        let transport = Transport::new(egress, "tokensource-operator/test").unwrap();
        let address: IpAddr = "34.118.230.1".parse().unwrap();
        let is_refused = || transport.egress().check_address("idp.example.com", 443, address).is_err();
        let _task = ServiceNetworks::start(Client::new(service, "default"), transport.clone()).await;
        assert_eq!(left.lock().unwrap().len(), 2);
        tokio::time::sleep(INTERVAL + Duration::from_secs(1)).await;
        assert_eq!((left.lock().unwrap().len(), is_refused()), (1, false), "a failure says nothing");
        tokio::time::sleep(RETRY + Duration::from_secs(1)).await;
        assert!(left.lock().unwrap().is_empty() && is_refused());
    }
}
