//! The Kubernetes API server: how it is reached, the calls, and objects as they are read.

mod calls;
mod client;
mod objects;
mod watches;

pub use calls::{CallError, Kubernetes};
pub(crate) use client::{AGENT, Cluster, ClusterError, api_server_addresses};
pub(crate) use objects::Source;
pub(crate) use watches::{watch_namespaces, watch_secrets, watch_sources};
