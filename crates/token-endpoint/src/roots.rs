//! Roots of trust of CA bundles, parsed once for all that have the same bundle.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::certificate::CertificateFields;
use super::limits::{MAX_BUNDLE, MAX_BUNDLE_CERTIFICATES};
use super::pem::{PemProblem, certificates};
use super::tls_error::TlsError;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// SHA-256.
type Thumbprint = [u8; 32];

/// The certificates of a CA bundle.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// Of all certificates, so that one of them is trusted as a server's: see `Verifier`.
    pinned: Vec<Thumbprint>,
    /// Of the bundle.
    pub(super) digest: Thumbprint,
    /// Of all certificates.
    pub(super) bytes: usize,
}

impl Roots {
    /// Reads PEM.
    pub(super) fn read(pem: &str) -> Result<Self, TlsError> {
        Self::parse(pem, bundle_digest(pem)?)
    }

    fn parse(pem: &str, digest: Thumbprint) -> Result<Self, TlsError> {
        let certificates = certificates(pem).map_err(|problem| match problem {
            PemProblem::NoPem => TlsError::EmptyBundle,
            PemProblem::Damaged(at) => TlsError::DamagedBundle(at),
            PemProblem::Trusted => TlsError::Trusted { in_bundle: true },
            PemProblem::Other(label) => TlsError::OtherPem { label, in_bundle: true },
        })?;
        let damaged =
            certificates.iter().position(|certificate| CertificateFields::read(certificate).is_none());
        if let Some(at) = damaged {
            return Err(TlsError::DamagedBundle(at + 1));
        }
        if certificates.len() > MAX_BUNDLE_CERTIFICATES {
            return Err(TlsError::LongBundle);
        }
        let pinned = certificates.iter().map(|certificate| thumbprint(certificate)).collect();
        let bytes = certificates.iter().map(|certificate| certificate.len()).sum();
        let mut store = RootCertStore::empty();
        // Bundles of old hosts hold some that webpki does not read. With none at all, no connection can be made.
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            return Err(TlsError::UnusableBundle);
        }
        Ok(Self { store: Arc::new(store), pinned, digest, bytes })
    }

    pub(super) fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.contains(&thumbprint(certificate))
    }
}

/// The digest of a bundle that is not too long to be read.
fn bundle_digest(pem: &str) -> Result<Thumbprint, TlsError> {
    if pem.len() > MAX_BUNDLE { Err(TlsError::LongBundle) } else { Ok(thumbprint(pem.as_bytes())) }
}

fn thumbprint(bytes: &[u8]) -> Thumbprint {
    let mut thumbprint = Thumbprint::default();
    thumbprint.iter_mut().zip(digest(&SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
    thumbprint
}

/// The roots that are in use, by their bundles. Bundles may be the choice of untrusted parties, so that nothing is kept beyond.
#[derive(Debug, Default)]
pub(super) struct RootsInUse(Mutex<HashMap<Thumbprint, Weak<Roots>>>);

impl RootsInUse {
    pub(super) fn read(&self, pem: &str) -> Result<Arc<Roots>, TlsError> {
        let digest = bundle_digest(pem)?;
        if let Some(roots) = self.get(&digest) {
            return Ok(roots);
        }
        // It takes milliseconds, so not under the lock: at worst two requests do the same.
        let roots = Arc::new(Roots::parse(pem, digest)?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, roots| roots.strong_count() > 0);
        if let Some(others) = all.get(&digest).and_then(Weak::upgrade) {
            return Ok(others);
        }
        all.insert(digest, Arc::downgrade(&roots));
        Ok(roots)
    }

    fn get(&self, digest: &Thumbprint) -> Option<Arc<Roots>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).and_then(Weak::upgrade)
    }
}
