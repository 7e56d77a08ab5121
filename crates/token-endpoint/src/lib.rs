//! A client of OAuth 2.0 token endpoints (RFC 6749). It knows no Kubernetes.
//!
//! ```text
//! RequestDescription + Credentials + Attempt ─▶ TokenRequest ─▶ Transport ─▶ read ─▶ Answer | Error
//!            (pure: request, assertion)                        (the effect)  (pure: response)
//! ```
//!
//! What may be connected to is for [`Egress`] to say, whom to trust and as whom to speak for [`Tls`], which way to go for
//! [`Proxies`]. [`Discovery`] finds the endpoints of issuers, and [`Gate`] says who asks when. One attempt, all told:
//!
//! ```text
//! let description = discovery.locate(&description, &tls, timeout).await?;
//! let place = gate.enter(&description.token_url, gate.party(&description, &credentials, &tls), deadline).await?;
//! let request = description.attempt(&credentials, &transport.attempt(&description.token_url))?;
//! let outcome = transport.send_over(&request, &tls, timeout).await;
//! place.finish(&outcome);
//! ```

mod address;
mod assertion;
mod certificate;
mod credentials;
mod der;
mod digest;
mod discovery;
mod discovery_cache;
mod egress;
mod error;
mod error_body;
pub mod gate;
mod grant;
mod headers;
mod key;
mod lifetime;
mod mapping;
mod proxy;
mod redact;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod tls;
pub mod transport;

pub use assertion::{ASSERTION_LIFETIME, Attempt, MAX_ASSERTION_LIFETIME, RESERVED_CLAIMS};
pub use credentials::{Credential, Credentials};
pub use digest::Digest;
pub use discovery::{Issuer, IssuerError};
pub use discovery_cache::Discovery;
pub use egress::{Egress, EgressRefused, EgressRule, EgressRuleError, RuleNeeded};
pub use error::{Class, Error, ErrorKind, Hint, Refusal, Undiscovered, Unusable};
pub use gate::{Gate, Held, Limits, Party, Place};
pub use grant::{BasicEncoding, ClientAuthentication, Grant, JwtBearer, PrivateKeyJwt, TokenExchange};
pub use headers::{REFUSED_HEADERS, is_refused_header};
pub use key::{Algorithm, KeyError, KeyType};
pub use lifetime::{Lifetime, LifetimeSource, MAX_LIFETIME};
pub use mapping::{Pointer, PointerError, ResponseMapping, SECRET_MEMBERS};
pub use proxy::{Proxies, ProxyError};
pub use request::{Encoding, RESERVED, RequestDescription, RequestError, TokenRequest, is_reserved};
pub use response::{Answer, read};
pub use tls::{CertificateProblem, Tls, TlsError};
pub use transport::{Transport, TransportError};
