//! TLS configuration: custom roots and client certificates (RFC 8705).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::certificate::CertificateFields;
use super::key::{KeyError, PrivateKey};
use super::limits::{MAX_BUNDLE, MAX_BUNDLE_CERTIFICATES, MAX_CHAIN, MAX_CHAIN_CERTIFICATES, MAX_CREDENTIAL};
use super::pem::{PemProblem, certificates};
use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The TLS configuration of connections; by default the system's roots and no client certificate. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    digest: TlsDigest,
    roots: Option<Arc<[CertificateDer<'static>]>>,
    client: Option<Arc<CertifiedKey>>,
}

/// Identifies a [`Tls`]. Computed from certificates only, since a certificate identifies its key.
pub(super) type TlsDigest = [u8; 32];

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

impl Tls {
    /// `ca_bundle` is PEM that replaces the system's roots; `client` is a certificate chain in PEM, leaf first, and its key.
    ///
    /// # Errors
    /// A certificate or the key cannot be used, or they do not belong together.
    pub fn new(ca_bundle: Option<&str>, client: Option<(&str, &SecretString)>) -> Result<Self, TlsError> {
        let roots = ca_bundle.map(read_bundle).transpose()?;
        let client = client.map(|(chain, key)| read_client(chain, key)).transpose()?;
        let mut context = digest::Context::new(&digest::SHA256);
        for certificates in [roots.as_deref(), client.as_ref().map(|client| client.cert.as_slice())] {
            context.update(&certificates.map_or(u64::MAX, |all| all.len() as u64).to_le_bytes());
            for certificate in certificates.into_iter().flatten() {
                context.update(&(certificate.len() as u64).to_le_bytes());
                context.update(certificate);
            }
        }
        let mut tls = Self { digest: [0; 32], roots: roots.map(Into::into), client: client.map(Arc::new) };
        if tls.roots.is_some() || tls.client.is_some() {
            tls.digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        }
        Ok(tls)
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

    /// For rustls, with HTTP/1.1 only. `used_tls12` is set once a connection is made with TLS 1.2. The system's roots apply to
    /// the server that is called `proxy`, whatever the others are.
    pub(super) fn config(
        &self,
        used_tls12: Arc<AtomicBool>,
        proxy: Option<&str>,
    ) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut verifier = Verifier::new(self.roots.as_deref(), Arc::clone(&provider), used_tls12)?;
        if let Some(proxy) = proxy.filter(|_| self.roots.is_some()) {
            verifier.proxy = Some(ProxyVerifier::new(proxy, Arc::clone(&provider))?);
        }
        let verifier = Arc::new(verifier);
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

/// The command that takes the certificates out of a form that holds some.
fn conversion(label: &str) -> &'static str {
    match label {
        "PKCS7" | "CMS" => " (`openssl pkcs7 -print_certs -in FILE -out certificates.pem` takes it out)",
        _ => "",
    }
}

fn read_bundle(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if pem.len() > MAX_BUNDLE {
        return Err(TlsError::LongBundle);
    }
    let certificates = certificates(pem).map_err(|problem| match problem {
        PemProblem::NoPem => TlsError::EmptyBundle,
        PemProblem::Damaged(at) => TlsError::DamagedBundle(at),
        PemProblem::Trusted => TlsError::Trusted { in_bundle: true },
        PemProblem::Other(label) => TlsError::OtherPem { label, in_bundle: true },
    })?;
    let damaged = certificates.iter().position(|certificate| CertificateFields::read(certificate).is_none());
    if let Some(at) = damaged {
        return Err(TlsError::DamagedBundle(at + 1));
    }
    if certificates.len() > MAX_BUNDLE_CERTIFICATES {
        return Err(TlsError::LongBundle);
    }
    Ok(certificates)
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
    pinned: Vec<CertificateDer<'static>>,
    used_tls12: Arc<AtomicBool>,
    proxy: Option<ProxyVerifier>,
}

/// Verifies the certificate of a proxy by the system's roots.
#[derive(Debug)]
struct ProxyVerifier {
    name: ServerName<'static>,
    inner: rustls_platform_verifier::Verifier,
}

impl ProxyVerifier {
    fn new(host: &str, provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { name, inner: rustls_platform_verifier::Verifier::new(provider)? })
    }
}

impl Verifier {
    fn new(
        roots: Option<&[CertificateDer<'static>]>,
        provider: Arc<CryptoProvider>,
        used_tls12: Arc<AtomicBool>,
    ) -> Result<Self, rustls::Error> {
        let Some(roots) = roots else {
            let inner = Arc::new(rustls_platform_verifier::Verifier::new(provider)?);
            return Ok(Self { inner, pinned: Vec::new(), used_tls12, proxy: None });
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(store.into(), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner, pinned: roots.to_vec(), used_tls12, proxy: None })
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
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.name == *name) {
            return proxy.inner.verify_server_cert(leaf, intermediates, name, ocsp, now);
        }
        let refused = match self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(refused)) => refused,
            verdict => return verdict,
        };
        let fields = CertificateFields::read(leaf);
        if let Some(fields) = fields.as_ref().filter(|_| self.pinned.contains(leaf)) {
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
