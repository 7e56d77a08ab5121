//! Reads what a token request needs.

mod endpoints;
pub(crate) mod tls;

pub use endpoints::{EndpointArgs, EndpointError};
pub(crate) use endpoints::{propagation_delay, transport, unused_proxies};
