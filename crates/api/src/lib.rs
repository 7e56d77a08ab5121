//! The Kubernetes API of this project: types, schema, validation rules and the reasons of conditions.
//! Pure: no client, no clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod assertion;
mod crd;
mod github_app;
mod issuer;
mod issuer_reference;
mod issuer_status;
mod oauth2;
pub mod permitted;
mod reason;
mod reference;
mod remedy;
pub mod reserved;
mod rules;
mod service_account_token;
mod sizes;
mod status;
mod template;
mod tls;
mod token_source;

pub use assertion::{
    Algorithm, AssertionGrant, AssertionSource, ClientAssertion, JwtBearer, PrivateKeyJwt, TokenOrigin,
};
pub use crd::{crd, issuer_crd};
pub use github_app::GitHubApp;
pub use issuer::{
    Addresses, ClusterTokenIssuer, ClusterTokenIssuerSpec, DEFAULT_CONTROLLER, IdentityOrigin, IssuerAllow,
    IssuerCredentials, IssuerEndpoint, IssuerLimits, IssuerNamespaces, IssuerRefresh,
    IssuerServiceAccountToken, NamespaceLabels,
};
pub use issuer_reference::{IssuerReference, IssuerRequest};
pub use issuer_status::ClusterTokenIssuerStatus;
pub use oauth2::{
    Basic, BasicEncoding, ClientAuthentication, CustomGrant, Empty, Grant, OAuth2, RequestEncoding,
    ResponseMapping, ServiceAccountTokenAssertion, TokenExchange,
};
pub use reason::Reason;
pub use reference::{KeyReference, SecretReference};
pub use service_account_token::{AUDIENCES_ANNOTATION, ServiceAccountToken};
pub use sizes::{Oversize, oversize};
pub use status::{Binding, LastFailure, TokenSourceStatus, TokenStatus};
pub use template::{Template, TemplateMetadata};
pub use tls::{CaBundle, Tls};
pub use token_source::{
    Credentials, DeletionPolicy, Propagation, Provider, Refresh, Target, TokenSource, TokenSourceSpec, Vgs,
    VmwareCloudDirector, VngCloud,
};
