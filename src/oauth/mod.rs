//! A client of OAuth 2.0 token endpoints (RFC 6749). It knows no Kubernetes.
//!
//! ```text
//! RequestDescription + Credentials ─▶ TokenRequest ─▶ Transport ─▶ read ─▶ Answer | Error
//!            (pure: request)                        (the effect)  (pure: response)
//! ```
//!
//! What may be connected to is for [`Egress`] to say.

mod address;
mod dialect;
mod egress;
mod error;
mod lifetime;
mod mapping;
mod redact;
mod request;
mod response;
#[cfg(test)]
mod tests;
pub mod transport;

pub use egress::{Egress, EgressRefused, EgressRule, EgressRuleError};
pub use error::{Class, Error, Refusal, Unusable};
pub use lifetime::{Lifetime, LifetimeSource, MAX_LIFETIME};
pub use mapping::{Pointer, PointerError, ResponseMapping};
pub use request::{
    BasicEncoding, ClientAuthentication, Credential, Credentials, Encoding, Grant, RESERVED,
    RequestDescription, RequestError, TokenRequest, is_reserved,
};
pub use response::{Answer, read};
pub use transport::{Transport, TransportError};
