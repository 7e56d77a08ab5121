//! Token requests, for the controller and the commands: the transport by the flags, TLS material, and sending.

mod endpoints;
mod send;
mod service_account;
pub(crate) mod tls;

pub use endpoints::{EndpointArgs, EndpointError};
pub(crate) use endpoints::{propagation_delay, transport, unused_proxies};
pub(crate) use send::{Sent, send};
pub use service_account::{AllowedToken, ServiceAccountTokens};
pub(crate) use service_account::{Claims, ServiceAccountTokenError, TokenAccount};
