//! What the controller and the commands share of a token request: the way to token endpoints, TLS material, and the one
//! exchange.

mod endpoints;
mod send;
pub(crate) mod tls;

pub use endpoints::{EndpointArgs, EndpointError};
pub(crate) use endpoints::{propagation_delay, transport, unused_proxies};
pub(crate) use send::send;
