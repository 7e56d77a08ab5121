//! Whom a token endpoint is trusted to be, and as whom it is spoken to: custom roots and client certificates (RFC 8705).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::certificate::Outline;
use super::key::{KeyError, PrivateKey, unfold};
use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;

/// What a connection is made with; by default the system's roots and no client certificate. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    digest: TlsDigest,
    roots: Option<Arc<[CertificateDer<'static>]>>,
    client: Option<Arc<CertifiedKey>>,
}

/// Tells one [`Tls`] from another. Of certificates only: they name their keys.
pub(super) type TlsDigest = [u8; 32];

/// Why certificates cannot be used, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// There is none, or something else.
    #[error("the CA bundle holds no certificate: store PEM, from -----BEGIN CERTIFICATE----- on")]
    EmptyBundle,
    /// The text of one cannot be decoded.
    #[error("the CA bundle is damaged at certificate {0}: store the file unchanged")]
    DamagedBundle(usize),
    /// There is none, or it cannot be decoded.
    #[error("the client certificate is not PEM: store the file that begins with -----BEGIN CERTIFICATE-----")]
    ClientCertificate,
    /// See [`KeyError`].
    #[error("for the client certificate: {0}")]
    Key(#[from] KeyError),
    /// A half-done rotation, mostly.
    #[error(
        "the client certificate is not that of the private key: `openssl x509 -in tls.crt -noout -pubkey` and \
         `openssl pkey -in tls.key -pubout` must print the same"
    )]
    OtherKey,
}

impl Tls {
    /// `ca_bundle` is PEM that replaces the system's roots; `client` a certificate chain in PEM, leaf first, and its key.
    ///
    /// # Errors
    /// Something is not what it should be.
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

    /// Whether there is a client certificate, so that a server's mutual TLS endpoint is to be used (RFC 8705, 5).
    #[must_use]
    pub fn has_client_certificate(&self) -> bool {
        self.client.is_some()
    }

    pub(super) fn digest(&self) -> TlsDigest {
        self.digest
    }

    /// What rustls needs. HTTP/1.1 only.
    pub(super) fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Verifier::new(self.roots.as_deref(), Arc::clone(&provider))?);
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

fn read_bundle(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(unfold(pem).as_bytes()) {
        let damaged = TlsError::DamagedBundle(certificates.len() + 1);
        let certificate = certificate.map_err(|_| damaged.clone())?;
        Outline::read(&certificate).ok_or(damaged)?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(TlsError::EmptyBundle) } else { Ok(certificates) }
}

fn read_client(chain: &str, key: &SecretString) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(unfold(chain).as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::ClientCertificate)?;
    let leaf = chain.first().and_then(|leaf| Outline::read(leaf)).ok_or(TlsError::ClientCertificate)?;
    let key = PrivateKey::read(key)?;
    if key.public()? != leaf.public_key {
        return Err(TlsError::OtherKey);
    }
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.into_der())
        .map_err(|_| KeyError::Unsupported)?;
    Ok(CertifiedKey::new(chain, key))
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateProblem {
    Expired,
    NotYetValid,
    OtherName,
    /// A common name only.
    NoName,
    SelfSigned,
    UnknownAuthority,
    Revoked,
    NotForServers,
    Other,
}

impl CertificateProblem {
    /// With the remedy.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Expired => {
                "it has expired: whoever runs the server must renew it (if it is fresh, is the node's clock right?)"
            }
            Self::NotYetValid => "it is not valid yet: is the node's clock right?",
            Self::OtherName => {
                "it is for another name (only subjectAltName counts, not the common name): write a name that it has \
                 into the URL, or have it issued for this one"
            }
            Self::NoName => {
                "it has a common name and no subjectAltName, which alone counts: it must be issued anew, with \
                 `-addext subjectAltName=DNS:...` where openssl makes it"
            }
            Self::SelfSigned => {
                "it is self-signed: if it is the right one, put it into spec.tls.caBundle (`openssl s_client \
                 -showcerts -connect HOST:443` prints it)"
            }
            Self::UnknownAuthority => {
                "no authority that this operator trusts has issued it, or the server does not send its \
                 intermediates: put the authority's certificate into spec.tls.caBundle"
            }
            Self::Revoked => "it is revoked: whoever runs the server must replace it",
            Self::NotForServers => {
                "it was not issued for servers (extended key usage): it must be issued anew"
            }
            Self::Other => "it does not hold what a server's certificate must hold",
        }
    }

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
        f.write_str(self.message())
    }
}

impl std::error::Error for CertificateProblem {}

/// Wraps the verifier that decides. It adds two things: what stands in the bundle byte for byte is trusted although webpki
/// refuses a certificate that is both an authority and a server (usual on private servers that sign for themselves),
/// and an error says what a person can do.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(
        roots: Option<&[CertificateDer<'static>]>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let Some(roots) = roots else {
            let inner = Arc::new(rustls_platform_verifier::Verifier::new(provider)?);
            return Ok(Self { inner, pinned: Vec::new() });
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(store.into(), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner, pinned: roots.to_vec() })
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
        let outline = Outline::read(leaf);
        if let Some(outline) = outline.as_ref().filter(|_| self.pinned.contains(leaf)) {
            check_validity(outline, now)?;
            return match verify_server_name(&ParsedCertificate::try_from(leaf)?, name) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(rustls::Error::InvalidCertificate(refused)) => Err(explained(&refused, Some(outline))),
                Err(error) => Err(error),
            };
        }
        Err(explained(&refused, outline.as_ref()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
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

fn check_validity(outline: &Outline<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let now =
        Timestamp::from_second(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    if now < outline.not_before {
        return Err(problem(CertificateProblem::NotYetValid));
    }
    if now > outline.not_after {
        return Err(problem(CertificateProblem::Expired));
    }
    Ok(())
}

/// With what the certificate says of itself a better reason may be found.
fn explained(refused: &CertificateError, outline: Option<&Outline<'_>>) -> rustls::Error {
    problem(match (CertificateProblem::of(refused), outline) {
        (CertificateProblem::OtherName, Some(outline)) if !outline.has_names => CertificateProblem::NoName,
        (CertificateProblem::UnknownAuthority | CertificateProblem::Other, Some(outline))
            if outline.is_self_issued() =>
        {
            CertificateProblem::SelfSigned
        }
        (problem, _) => problem,
    })
}

fn problem(problem: CertificateProblem) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}
