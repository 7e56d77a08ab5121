//! TLS configuration: custom roots and client certificates (RFC 8705).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::certificate::CertificateFields;
use super::key::{KeyError, PrivateKey};
use super::limits::{MAX_CHAIN, MAX_CHAIN_CERTIFICATES, MAX_CREDENTIAL};
use super::pem::{PemProblem, certificates};
use super::roots::Roots;
use super::tls_error::TlsError;
use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The TLS configuration of connections; by default the system's roots and no client certificate. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    digest: TlsDigest,
    roots: Option<Arc<Roots>>,
    client: Option<Arc<CertifiedKey>>,
}

/// Identifies a [`Tls`]. Computed from certificates only, since a certificate identifies its key.
pub(super) type TlsDigest = [u8; 32];

impl Tls {
    /// `ca_bundle` is PEM that replaces the system's roots; `client` is a certificate chain in PEM, leaf first, and its key.
    ///
    /// # Errors
    /// A certificate or the key cannot be used, or they do not belong together.
    pub fn new(ca_bundle: Option<&str>, client: Option<(&str, &SecretString)>) -> Result<Self, TlsError> {
        Self::with(ca_bundle.map(Roots::read).transpose()?.map(Arc::new), client)
    }

    /// The same with roots that others may use too.
    pub(super) fn with(
        roots: Option<Arc<Roots>>,
        client: Option<(&str, &SecretString)>,
    ) -> Result<Self, TlsError> {
        let client = client.map(|(chain, key)| read_client(chain, key)).transpose()?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&roots.as_ref().map_or([0; 32], |roots| roots.digest));
        for certificate in client.iter().flat_map(|client| &client.cert) {
            context.update(&(certificate.len() as u64).to_le_bytes());
            context.update(certificate);
        }
        let mut tls = Self { digest: [0; 32], roots, client: client.map(Arc::new) };
        if !tls.is_default() {
            tls.digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        }
        Ok(tls)
    }

    /// Whether it is the system's roots and no client certificate.
    pub(super) fn is_default(&self) -> bool {
        self.roots.is_none() && self.client.is_none()
    }

    /// The bytes of all certificates.
    pub(super) fn certificate_bytes(&self) -> usize {
        let chain = self.client.iter().flat_map(|client| &client.cert).map(|certificate| certificate.len());
        chain.sum::<usize>() + self.roots.as_ref().map_or(0, |roots| roots.bytes)
    }

    /// The bytes of the client certificate.
    #[must_use]
    pub fn chain_bytes(&self) -> usize {
        self.certificate_bytes() - self.roots.as_ref().map_or(0, |roots| roots.bytes)
    }

    /// A digest of the custom roots, and their bytes. Those with the same digest may be the same in memory.
    #[must_use]
    pub fn custom_roots(&self) -> Option<([u8; 32], usize)> {
        self.roots.as_ref().map(|roots| (roots.digest, roots.bytes))
    }

    /// Whether there is a client certificate, so that the issuer's endpoint for mutual TLS is used (RFC 8705, 5).
    #[must_use]
    pub fn has_client_certificate(&self) -> bool {
        self.client.is_some()
    }

    pub(super) fn has_custom_roots(&self) -> bool {
        self.roots.is_some()
    }

    pub(super) fn digest(&self) -> TlsDigest {
        self.digest
    }

    /// For rustls, with HTTP/1.1 only. `used_tls12` is set once a connection is made with TLS 1.2.
    pub(super) fn config(&self, used_tls12: Arc<AtomicBool>) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Verifier::new(self.roots.clone(), Arc::clone(&provider), used_tls12)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            Some(client) => {
                let client = CertifiedKey::clone(client);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read_client(chain: &str, key: &SecretString) -> Result<CertifiedKey, TlsError> {
    if chain.len() > MAX_CHAIN {
        return Err(TlsError::LongChain);
    }
    if key.expose_secret().len() > MAX_CREDENTIAL {
        return Err(TlsError::LongKey);
    }
    let chain = certificates(chain).map_err(|problem| match problem {
        PemProblem::NoPem | PemProblem::Damaged(_) => TlsError::ClientCertificate,
        PemProblem::Trusted => TlsError::Trusted { in_bundle: false },
        PemProblem::Other(label) => TlsError::OtherPem { label, in_bundle: false },
    })?;
    if chain.len() > MAX_CHAIN_CERTIFICATES {
        return Err(TlsError::LongChain);
    }
    let leaf =
        chain.first().and_then(|leaf| CertificateFields::read(leaf)).ok_or(TlsError::ClientCertificate)?;
    let key = PrivateKey::read(key)?;
    if key.public()? != leaf.public_key {
        return Err(TlsError::OtherKey);
    }
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.into_der())
        .map_err(|_| KeyError::Unsupported("by the TLS library"))?;
    Ok(CertifiedKey::new(chain, key))
}

/// Why a server's certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// The validity period has ended.
    Expired,
    /// The validity period has not begun.
    NotYetValid,
    /// The host of the URL is not among the names of the certificate.
    OtherName,
    /// The certificate has a common name and no subjectAltName.
    NoName,
    /// The certificate is its own issuer, and not in the CA bundle.
    SelfSigned,
    /// No trusted authority issued it, or an intermediate is missing.
    UnknownAuthority,
    /// The issuer has revoked it.
    Revoked,
    /// The extended key usage excludes servers.
    NotForServers,
    /// The certificate is malformed.
    Other,
}

impl CertificateProblem {
    pub(super) fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::NotForServers
            }
            CertificateError::Other(OtherError(other)) => {
                other.downcast_ref().copied().unwrap_or(Self::Other)
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => {
                "it has expired: the server's administrator must renew it (if it is new, is the local clock right?)"
            }
            Self::NotYetValid => "it is not valid yet: is the local clock right?",
            Self::OtherName => {
                "it is for another name (only subjectAltName counts, not the common name): write a name that it has \
                 into the URL, or have it issued for this one"
            }
            Self::NoName => {
                "it has a common name and no subjectAltName, which alone counts: it must be issued anew, with \
                 `-addext subjectAltName=DNS:...` where openssl makes it"
            }
            Self::SelfSigned => "it is self-signed",
            Self::UnknownAuthority => {
                "no trusted authority has issued it, or the server does not send its intermediates"
            }
            Self::Revoked => "it is revoked: the server's administrator must replace it",
            Self::NotForServers => {
                "it was not issued for servers (extended key usage): it must be issued anew"
            }
            Self::Other => "it does not hold what a server's certificate must hold",
        })
    }
}

impl std::error::Error for CertificateProblem {}

/// Wraps the actual verifier and adds two things. A certificate that is in the bundle byte for byte is trusted as a server's,
/// although webpki refuses one that is both an authority and a server, as self-signed certificates of private servers often are.
/// And errors are refined by the fields of the certificate.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    roots: Option<Arc<Roots>>,
    used_tls12: Arc<AtomicBool>,
}

impl Verifier {
    fn new(
        roots: Option<Arc<Roots>>,
        provider: Arc<CryptoProvider>,
        used_tls12: Arc<AtomicBool>,
    ) -> Result<Self, rustls::Error> {
        let Some(roots) = roots else {
            let inner = Arc::new(rustls_platform_verifier::Verifier::new(provider)?);
            return Ok(Self { inner, roots: None, used_tls12 });
        };
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.store), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner, roots: Some(roots), used_tls12 })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(refused)) => refused,
            verdict => return verdict,
        };
        let fields = CertificateFields::read(leaf);
        let is_pinned = |leaf| self.roots.as_ref().is_some_and(|roots| roots.contain(leaf));
        if let Some(fields) = fields.as_ref().filter(|_| is_pinned(leaf)) {
            check_validity(fields, now)?;
            return match verify_server_name(&ParsedCertificate::try_from(leaf)?, name) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(rustls::Error::InvalidCertificate(refused)) => Err(refined(&refused, Some(fields))),
                Err(error) => Err(error),
            };
        }
        Err(refined(&refused, fields.as_ref()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.used_tls12.store(true, Ordering::Relaxed);
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn check_validity(fields: &CertificateFields<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let now =
        Timestamp::from_second(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    if now < fields.not_before {
        return Err(invalid(CertificateProblem::NotYetValid));
    }
    if now > fields.not_after {
        return Err(invalid(CertificateProblem::Expired));
    }
    Ok(())
}

/// Refines the verifier's error by the fields of the certificate.
fn refined(refused: &CertificateError, fields: Option<&CertificateFields<'_>>) -> rustls::Error {
    invalid(match (CertificateProblem::of(refused), fields) {
        (CertificateProblem::OtherName, Some(fields)) if !fields.has_names => CertificateProblem::NoName,
        (CertificateProblem::UnknownAuthority | CertificateProblem::Other, Some(fields))
            if fields.is_self_issued() =>
        {
            CertificateProblem::SelfSigned
        }
        (problem, _) => problem,
    })
}

fn invalid(problem: CertificateProblem) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}
