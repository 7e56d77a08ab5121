//! A client of OAuth 2.0 token endpoints (RFC 6749): it requests access tokens for machines and knows the quirks of many servers.
//! `README.md` in this crate's folder lists what it does and what it does not.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use token_endpoint::{
//!     BasicEncoding, ClientAuthentication, Credentials, Egress, Grant, RequestDescription, Transport,
//! };
//!
//! # async fn request_token() -> Result<(), Box<dyn std::error::Error>> {
//! let description = RequestDescription::new(
//!     "https://idp.example.com/oauth/token".parse()?,
//!     Grant::ClientCredentials,
//!     ClientAuthentication::Basic(BasicEncoding::Percent),
//! );
//! let credentials = Credentials {
//!     client_id: Some(std::env::var("CLIENT_ID")?),
//!     client_secret: Some(std::env::var("CLIENT_SECRET")?.into()),
//!     ..Credentials::default()
//! };
//!
//! // Only https and public addresses.
//! let egress = Egress::new(Vec::new(), None, false, Vec::new());
//! let transport = Transport::new(Arc::new(egress), "my-program/1.0")?;
//!
//! let request = description.request(&credentials)?;
//! let sent_at = jiff::Timestamp::now();
//! match transport.send(&request, Duration::from_secs(10)).await {
//!     Ok(answer) => {
//!         let lifetime = answer.lifetime(sent_at, None);
//!         println!("a token of type {} for {:?} seconds", answer.token_type, lifetime.seconds);
//!     }
//!     Err(error) => match error.hint() {
//!         Some(hint) => println!("{error} ({hint})"),
//!         None => println!("{error}"),
//!     },
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/request_token.rs` is the same as a program.
//!
//! # The flow of a request
//!
//! ```text
//! RequestDescription ─▶ Discovery::locate       the token endpoint, if the description names an issuer
//!                    ─▶ Limiter                 an entry waits until the endpoint and the client may be asked; optional
//!     + Credentials  ─▶ attempt                 writes and signs the TokenRequest; pure
//!                    ─▶ Transport::send_over    one HTTP exchange, within Egress, Tls, Proxies and a time limit
//!                    ─▶ read                    Answer, or Error with class, kind and hint; pure
//! ```

mod address;
mod answer;
mod assertion;
mod certificate;
mod credential;
mod credentials;
mod der;
mod digest;
mod discovery;
mod discovery_cache;
mod egress;
mod error;
mod grant;
mod headers;
mod json;
mod jwt;
mod key;
mod lifetime;
pub mod limiter;
pub mod limits;
mod mapping;
mod pem;
mod proxy;
mod redact;
mod request;
mod response;
mod roots;
mod tenant_cache;
#[cfg(test)]
mod tests;
mod tls;
mod tls_error;
pub mod transport;

pub use answer::Answer;
pub use assertion::{ASSERTION_LIFETIME, Attempt, MAX_ASSERTION_LIFETIME, RESERVED_CLAIMS};
pub use credential::Credential;
pub use credentials::Credentials;
pub use digest::Digest;
pub use discovery::{Issuer, IssuerError};
pub use discovery_cache::Discovery;
pub use egress::{
    Egress, EgressNetwork, EgressNetworkError, EgressRefused, EgressRule, EgressRuleError, Proxied,
    RuleNeeded, without_final_dot,
};
pub use error::{Class, Error, ErrorKind, Hint, Reach, Refusal, RequestError, Undiscovered, Unusable};
pub use grant::{
    BasicEncoding, ClientAuthentication, GitHubApp, Grant, JwtBearer, PrivateKeyJwt, TokenExchange,
};
pub use headers::{REFUSED_HEADERS, is_refused_header};
pub use jwt::asserted_subject;
pub use key::{Algorithm, KeyError, KeyType};
pub use lifetime::{Lifetime, LifetimeSource, MAX_LIFETIME};
pub use limiter::{
    Admission, CircuitOpen, Destination, EndpointPermit, Expedite, GroupClient, KnownRejection,
};
pub use limiter::{Limiter, Limits, RequestIdentity, SharedBy, Tenant, Terms, Underway};
pub use mapping::{Pointer, PointerError, ResponseMapping, SECRET_MEMBERS};
pub use proxy::{Proxies, ProxyError};
pub use redact::Redactor;
pub use request::{Encoding, RESERVED, RequestDescription, TokenRequest, is_reserved};
pub use response::read;
pub use tls::{CertificateProblem, Tls};
pub use tls_error::TlsError;
pub use transport::{Transport, TransportError};
