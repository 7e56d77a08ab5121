//! The networks of a cluster's Services. Their addresses may look public, though they are not.

use std::time::Duration;

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;
use tokio::time::timeout;

use super::body::{page, parse};
use super::call_error::CallError;
use super::kept;
use token_endpoint::EgressNetwork;

/// The versions of ServiceCIDR, in this order: of Kubernetes 1.33, and of 1.31.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// The timeout of one list.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most objects that are read. A cluster has one or two.
const MAX_OBJECTS: u32 = 100;

#[derive(Deserialize)]
struct ServiceCidr {
    #[serde(default)]
    spec: ServiceCidrSpec,
}

#[derive(Default, Deserialize)]
struct ServiceCidrSpec {
    #[serde(default)]
    cidrs: Vec<String>,
}

/// Lists the networks of Services; `None` where the cluster has no ServiceCIDRs, or where the operator may not list them.
///
/// # Errors
/// The API server does not answer, or not as expected.
pub(crate) async fn service_networks(client: &Client) -> Result<Option<Vec<EgressNetwork>>, CallError> {
    for version in VERSIONS {
        let path = format!("/apis/networking.k8s.io/{version}/servicecidrs");
        let list = Request::new(path).list(&ListParams::default().limit(MAX_OBJECTS));
        let request = list.map_err(|error| CallError::from(kube::Error::BuildRequest(error)))?;
        let mut networks = vec![];
        let listing = page(client, request, kept::SERVICE_CIDR.list, |reduced| {
            let ServiceCidr { spec } = parse(reduced)?;
            networks.extend(spec.cidrs.iter().filter_map(|cidr| cidr.parse::<EgressNetwork>().ok()));
            Ok(())
        });
        let listed = timeout(LIST_TIMEOUT, listing).await;
        let listed = listed.map_err(|_| CallError::Unavailable("no answer in time".to_owned().into()))?;
        match listed {
            Ok(_) => return Ok(Some(networks)),
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
