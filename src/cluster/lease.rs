//! The calls of leader election: reads and writes of one Lease of coordination.k8s.io.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::call_error::Unavailable;
use super::message::{is_outage, message};

/// Namespace and name of the Lease.
#[derive(Clone, Debug)]
pub struct LeaseName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A call about the Lease failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// 409 or 404: the Lease was written or deleted since it was read.
    #[error("it has changed meanwhile")]
    Conflict,
    /// No response before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// Any other error.
    #[error("{}", message(.0))]
    Api(#[source] Box<kube::Error>),
}

impl LeaseError {
    /// Whether it is a failure of the moment.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            LeaseError::Timeout => true,
            LeaseError::Api(error) => is_outage(error),
            LeaseError::Conflict => false,
        }
    }

    /// How long the API server asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            LeaseError::Api(error) => match &**error {
                kube::Error::Api(status) => Unavailable::from(&**status).retry_after,
                _ => None,
            },
            LeaseError::Conflict | LeaseError::Timeout => None,
        }
    }
}

/// Reads and writes one Lease.
pub(crate) struct LeaseClient {
    api: Api<Lease>,
    name: String,
}

impl LeaseClient {
    /// `client` should be used for nothing else, so that these calls do not wait behind others.
    pub(super) fn new(client: Client, lease: &LeaseName) -> Self {
        LeaseClient { api: Api::namespaced(client, &lease.namespace), name: lease.name.clone() }
    }

    /// Reads the Lease; `None` where it does not exist.
    pub(crate) async fn get(&self, deadline: Instant) -> Result<Option<Lease>, LeaseError> {
        call(deadline, self.api.get_opt(&self.name)).await
    }

    /// Replaces the version of the Lease that its metadata names, or creates it where they name none.
    pub(crate) async fn write(&self, mut lease: Lease, deadline: Instant) -> Result<Lease, LeaseError> {
        let params = PostParams::default();
        if lease.metadata.resource_version.is_some() {
            call(deadline, self.api.replace(&self.name, &params, &lease)).await
        } else {
            lease.metadata.name = Some(self.name.clone());
            call(deadline, self.api.create(&params, &lease)).await
        }
    }
}

async fn call<T>(deadline: Instant, call: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match timeout_at(deadline, call).await {
        Err(_) => Err(LeaseError::Timeout),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
            debug!(code = status.code, "the Lease has changed meanwhile");
            Err(LeaseError::Conflict)
        }
        Ok(result) => result.map_err(|error| LeaseError::Api(Box::new(error))),
    }
}
