//! Token requests, for the controller and the commands: the transport by the flags, TLS material, and sending.

mod endpoints;
mod send;
pub(crate) mod tls;

pub use endpoints::{EndpointArgs, EndpointError};
pub(crate) use endpoints::{propagation_delay, transport, unused_proxies};
pub(crate) use send::{Sent, send};
