//! Signs the assertions of a request.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::RequestDescription;
use crate::assertion::{ASSERTION_LIFETIME, Assertion, Attempt, RESERVED_CLAIMS};
use crate::certificate::{CertificateFields, thumbprint};
use crate::credentials::Credentials;
use crate::discovery::Issuer;
use crate::error::RequestError;
use crate::grant::{Grant, JwtBearer, PrivateKeyJwt};
use crate::key::PrivateKey;
use crate::pem::{PemProblem, certificates};

/// The inputs of an assertion.
pub(super) struct Signer<'a> {
    pub(super) description: &'a RequestDescription,
    pub(super) credentials: &'a Credentials,
    pub(super) key: &'a PrivateKey,
    pub(super) attempt: &'a Attempt,
}

impl Signer<'_> {
    /// The assertion that is the grant (RFC 7523, 2.1).
    pub(super) fn grant(&self, grant: &JwtBearer) -> Result<String, RequestError> {
        let google = self.key.google();
        let mut claims = grant.claims.clone();
        if let Some(name) = claims.keys().find(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
            return Err(RequestError::ReservedClaim(name.clone()));
        }
        if self.claims_scope() {
            claims.insert("scope".into(), self.description.scopes.join(" ").into());
        }
        let issuer = match (&grant.issuer, google) {
            (Some(issuer), _) => issuer,
            (None, Some(google)) => &google.client_email,
            (None, None) => self.credentials.client_id()?,
        };
        let assertion = Assertion {
            issuer,
            subject: grant.subject.as_deref(),
            audience: grant.audience.as_deref().unwrap_or_else(|| self.audience()),
            lifetime: grant.lifetime,
            // Differs from the `jti` of the client's assertion in the same request.
            jti: format!("{}-grant", self.attempt.jti),
            claims,
            key_id: grant.key_id.as_deref().or(google.and_then(|google| google.private_key_id.as_deref())),
            thumbprint: None,
        };
        Ok(assertion.sign(self.key, grant.algorithm, self.attempt.now)?)
    }

    /// The assertion that authenticates the client (RFC 7523, 2.2 and 3): `iss` and `sub` are the client id.
    pub(super) fn client(&self, method: &PrivateKeyJwt) -> Result<String, RequestError> {
        let client_id = self.credentials.client_id()?;
        let assertion = Assertion {
            issuer: client_id,
            subject: Some(client_id),
            audience: method.audience.as_deref().unwrap_or_else(|| self.audience()),
            lifetime: ASSERTION_LIFETIME,
            jti: self.attempt.jti.clone(),
            claims: serde_json::Map::new(),
            key_id: method.key_id.as_deref(),
            thumbprint: if method.certificate { Some(self.thumbprint()?) } else { None },
        };
        Ok(assertion.sign(self.key, method.algorithm, self.attempt.now)?)
    }

    fn audience(&self) -> &str {
        let token_url = self.description.token_url.as_str();
        self.description.issuer.as_ref().map_or(token_url, Issuer::as_str)
    }

    /// Google reads scopes only in the assertion.
    pub(super) fn claims_scope(&self) -> bool {
        matches!(self.description.grant, Grant::JwtBearer(_))
            && self.key.google().is_some()
            && !self.description.scopes.is_empty()
    }

    fn thumbprint(&self) -> Result<String, RequestError> {
        let certificates = certificates(self.credentials.certificate()?).map_err(|problem| {
            RequestError::Certificate(match problem {
                PemProblem::Trusted => {
                    "is a TRUSTED CERTIFICATE, which only OpenSSL reads: store what `openssl x509 -in trusted.pem -out plain.pem` writes"
                }
                _ => "is not PEM of a certificate",
            })
        })?;
        let certificate = certificates.into_iter().next().ok_or(RequestError::Certificate("is absent"))?;
        let fields = CertificateFields::read(&certificate).ok_or(RequestError::Certificate("is damaged"))?;
        if fields.public_key != self.key.public()?.as_slice() {
            return Err(RequestError::Certificate("is not that of the private key"));
        }
        Ok(thumbprint(&certificate))
    }
}
