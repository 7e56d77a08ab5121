//! Certificates that cannot be used.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::key::KeyError;
use super::limits::{MAX_BUNDLE, MAX_BUNDLE_CERTIFICATES, MAX_CHAIN, MAX_CHAIN_CERTIFICATES, MAX_CREDENTIAL};

/// Certificates cannot be used. The message has the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The text holds no certificate.
    #[error("the CA bundle holds no certificate: store PEM, from -----BEGIN CERTIFICATE----- on")]
    EmptyBundle,
    /// The certificate at this position, from 1, cannot be decoded.
    #[error("the CA bundle is damaged at certificate {0}: store the file unchanged")]
    DamagedBundle(usize),
    /// No certificate of the bundle can be that of an authority or of a server.
    #[error(
        "the CA bundle holds no certificate that can be used: it must be X.509 version 3, in DER without further bytes"
    )]
    UnusableBundle,
    /// More than [`MAX_BUNDLE`] bytes or [`MAX_BUNDLE_CERTIFICATES`] certificates.
    #[error("the CA bundle has more than {max} bytes or {many} certificates: store only those of the authorities of this endpoint", max = MAX_BUNDLE, many = MAX_BUNDLE_CERTIFICATES)]
    LongBundle,
    /// More than [`MAX_CHAIN`] bytes or [`MAX_CHAIN_CERTIFICATES`] certificates.
    #[error("the client certificate has more than {max} bytes or {many} certificates: store it with its intermediates alone", max = MAX_CHAIN, many = MAX_CHAIN_CERTIFICATES)]
    LongChain,
    /// The private key of the client certificate has more than [`MAX_CREDENTIAL`] bytes.
    #[error("the private key of the client certificate has more than {max} bytes: store it alone", max = MAX_CREDENTIAL)]
    LongKey,
    /// A certificate in the form that OpenSSL writes with `-trustout`.
    #[error(
        "this is a TRUSTED CERTIFICATE, which only OpenSSL reads: store what `openssl x509 -in trusted.pem -out plain.pem` \
         writes"
    )]
    Trusted {
        /// Else it is the client certificate.
        in_bundle: bool,
    },
    /// PEM of something else.
    #[error("this is PEM of a {label} and holds no certificate: store PEM with -----BEGIN CERTIFICATE-----{}", conversion(.label))]
    OtherPem {
        /// The label of the first block.
        label: String,
        /// Else it is the client certificate.
        in_bundle: bool,
    },
    /// The client certificate is absent or cannot be decoded.
    #[error("the client certificate is not PEM: store the file that begins with -----BEGIN CERTIFICATE-----")]
    ClientCertificate,
    /// The private key of the client certificate cannot be used.
    #[error("for the client certificate: {0}")]
    Key(#[from] KeyError),
    /// Certificate and key do not belong together, as after a partial rotation.
    #[error(
        "the client certificate is not that of the private key: `openssl x509 -in tls.crt -noout -pubkey` and \
         `openssl pkey -in tls.key -pubout` must print the same"
    )]
    OtherKey,
}

impl TlsError {
    /// Whether it is about the CA bundle and not about the client certificate.
    #[must_use]
    pub fn is_about_bundle(&self) -> bool {
        match self {
            TlsError::EmptyBundle
            | TlsError::DamagedBundle(_)
            | TlsError::UnusableBundle
            | TlsError::LongBundle => true,
            TlsError::Trusted { in_bundle } | TlsError::OtherPem { in_bundle, .. } => *in_bundle,
            TlsError::ClientCertificate
            | TlsError::LongChain
            | TlsError::LongKey
            | TlsError::Key(_)
            | TlsError::OtherKey => false,
        }
    }
}

/// The command that takes the certificates out of a form that holds some.
fn conversion(label: &str) -> &'static str {
    match label {
        "PKCS7" | "CMS" => " (`openssl pkcs7 -print_certs -in FILE -out certificates.pem` takes it out)",
        _ => "",
    }
}
