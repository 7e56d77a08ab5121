//! The Kubernetes API server: client set-up, calls, and objects as they are read.

mod access;
mod body;
mod call_error;
mod calls;
mod client;
mod date;
mod follow;
mod kept;
mod lease;
mod message;
mod objects;
mod reduce;
mod retry_after;
mod service_accounts;
mod service_networks;
mod user;
mod user_checks;
mod user_objects;
mod user_report;
mod watches;

pub(crate) use access::{Verdict, review};
pub use call_error::{CallError, Unavailable};
pub(crate) use calls::CLUSTER_EVENTS;
pub use calls::Kubernetes;
pub(crate) use client::{AGENT, Cluster, ClusterError};
pub(crate) use follow::{Contact, Event, FollowError};
pub(crate) use kept::{MAX_ISSUED_TOKEN, MAX_MANAGED_FIELDS_BYTES, MAX_SPEC_BYTES};
pub(crate) use lease::LeaseClient;
pub use lease::{LeaseError, LeaseName};
pub(crate) use objects::{IssuerObject, LabelledNamespace, NamespaceObject, SecretObject, SourceObject};
pub(crate) use service_accounts::{AccountFacts, TokenCheck};
pub(crate) use service_networks::service_networks;
pub(crate) use user::{KubeconfigEntry, UserCluster, UserClusterError, UserConnection};
pub(crate) use user_checks::Right;
pub(crate) use user_objects::{Change, Scope, USER_FIELD_MANAGER, WatchEnd};
pub(crate) use user_report::BoundedText;
pub(crate) use watches::{
    may_list_secrets, watch_issuers, watch_labels, watch_namespaces, watch_secrets, watch_sources,
};
