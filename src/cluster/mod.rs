//! The Kubernetes API server: client set-up, calls, and objects as they are read.

mod calls;
mod client;
mod lease;
mod objects;
mod user;

pub use calls::{CallError, Kubernetes};
pub(crate) use client::{AGENT, Cluster, ClusterError};
pub(crate) use lease::LeaseClient;
pub use lease::{LeaseError, LeaseName};
pub(crate) use objects::{SecretHead, Source};
pub(crate) use user::{UserCluster, UserClusterError};
