//! The certificate of metrics that are served over TLS: from files, which are read again when they change, or made at the start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How often files are compared. The kubelet takes a minute or so to renew those of a Secret.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
/// Bounds a file of a certificate or key, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetricsCertificateError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
    /// A file is not PEM of what it should be.
    #[error("{path} holds no {what} in PEM", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key cannot be used together.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// None can be made.
    #[error("no certificate can be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// TLS for the admin server. It stops following its files when it is dropped.
pub(super) struct MetricsTls {
    pub(super) acceptor: TlsAcceptor,
    reload: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl MetricsTls {
    /// With `tls.crt` and `tls.key` of `folder`; without one, with a self-signed certificate, which no client can verify.
    ///
    /// # Errors
    /// See [`MetricsCertificateError`].
    pub(super) fn start(folder: Option<PathBuf>) -> Result<Self, MetricsCertificateError> {
        let first = match &folder {
            Some(folder) => Files::read(folder)?.key()?,
            None => self_signed()?,
        };
        let certificate = Arc::new(Certificate(RwLock::new(Arc::new(first))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let reload = folder.map(|folder| tokio::spawn(follow(folder, certificate)));
        Ok(MetricsTls { acceptor: TlsAcceptor::from(Arc::new(config)), reload })
    }
}

impl Drop for MetricsTls {
    fn drop(&mut self) {
        if let Some(reload) = &self.reload {
            reload.abort();
        }
    }
}

/// The content of both files, to see whether it has changed.
#[derive(PartialEq)]
struct Files {
    folder: PathBuf,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(folder: &Path) -> Result<Self, MetricsCertificateError> {
        let read = |name: &str| {
            let path = folder.join(name);
            let size = fs::metadata(&path).map(|it| it.len());
            let bytes = size.and_then(|size| match size {
                0..=MAX_FILE_BYTES => fs::read(&path),
                _ => Err(io::ErrorKind::FileTooLarge.into()),
            });
            bytes.map_err(|error| MetricsCertificateError::File { path, error })
        };
        Ok(Files { folder: folder.to_owned(), certificate: read("tls.crt")?, key: read("tls.key")? })
    }

    fn key(&self) -> Result<CertifiedKey, MetricsCertificateError> {
        let pem = |name, what| MetricsCertificateError::Pem { path: self.folder.join(name), what };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| pem("tls.crt", "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| pem("tls.key", "private key"))?;
        Ok(CertifiedKey::from_der(chain, key, &default_provider())?)
    }
}

/// Uses changed files. Those that cannot be used are reported once, and change nothing.
async fn follow(folder: PathBuf, certificate: Arc<Certificate>) {
    let mut last = Files::read(&folder).ok();
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        // Short, and local: not worth a thread.
        let Ok(files) = Files::read(&folder) else { continue };
        if last.as_ref() == Some(&files) {
            continue;
        }
        match files.key() {
            Ok(key) => {
                *certificate.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                info!("the certificate of metrics was renewed");
            }
            Err(error) => warn!(%error, "the renewed certificate of metrics cannot be used"),
        }
        last = Some(files);
    }
}

fn self_signed() -> Result<CertifiedKey, MetricsCertificateError> {
    let made =
        rcgen::generate_simple_self_signed(["tokensource-operator".to_owned(), "localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &default_provider())?)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustls::pki_types::ServerName;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn write(folder: &Path, certificate: &str, key: &str) {
        fs::write(folder.join("tls.crt"), certificate).unwrap();
        fs::write(folder.join("tls.key"), key).unwrap();
    }

    /// The end entity's certificate that a client gets, if it trusts `roots` alone.
    async fn presented(
        tls: &MetricsTls,
        roots: &[CertificateDer<'static>],
    ) -> Option<CertificateDer<'static>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let acceptor = tls.acceptor.clone();
        tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await });
        let mut store = rustls::RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connected = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
        connected.get_ref().1.peer_certificates().unwrap().first().map(|it| it.clone().into_owned())
    }

    #[tokio::test]
    async fn metrics_tls_without_files_makes_a_certificate() {
        let tls = MetricsTls::start(None).unwrap();
        assert_eq!(presented(&tls, &[]).await, None, "no client can verify it");
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_tls_follows_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let new = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (first, second) = (new(), new());
        write(folder.path(), &first.cert.pem(), &first.signing_key.serialize_pem());
        let tls = MetricsTls::start(Some(folder.path().to_owned())).unwrap();
        let roots = [first.cert.der().clone(), second.cert.der().clone()];
        assert_eq!(presented(&tls, &roots).await.as_ref(), Some(first.cert.der()));
        // Half of a renewal cannot be used.
        write(folder.path(), &second.cert.pem(), &first.signing_key.serialize_pem());
        tokio::time::sleep(RELOAD_INTERVAL * 2).await;
        assert_eq!(presented(&tls, &roots).await.as_ref(), Some(first.cert.der()));
        write(folder.path(), &second.cert.pem(), &second.signing_key.serialize_pem());
        tokio::time::sleep(RELOAD_INTERVAL * 2).await;
        assert_eq!(presented(&tls, &roots).await.as_ref(), Some(second.cert.der()));
    }

    #[tokio::test]
    async fn metrics_tls_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = || MetricsTls::start(Some(folder.path().to_owned())).err().unwrap().to_string();
        assert!(error().contains("tls.crt: "), "{}", error());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write(folder.path(), "", &made.signing_key.serialize_pem());
        assert!(error().ends_with("tls.crt holds no certificate in PEM"), "{}", error());
        write(folder.path(), &made.cert.pem(), "");
        assert!(error().ends_with("tls.key holds no private key in PEM"), "{}", error());
    }
}
