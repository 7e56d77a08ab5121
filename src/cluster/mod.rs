//! The Kubernetes API server: client set-up, calls, and objects as they are read.

mod access;
mod calls;
mod client;
mod date;
mod lease;
mod message;
mod objects;
mod retry_after;
mod service_networks;
mod user;
mod watches;

pub(crate) use access::{Verdict, review};
pub use calls::{CallError, Kubernetes, Unavailable};
pub(crate) use client::{AGENT, Cluster, ClusterError};
pub(crate) use lease::LeaseClient;
pub use lease::{LeaseError, LeaseName};
pub(crate) use objects::SourceObject;
pub(crate) use service_networks::service_networks;
pub(crate) use user::{UserCluster, UserClusterError};
pub(crate) use watches::{watch_namespaces, watch_secrets, watch_sources};
