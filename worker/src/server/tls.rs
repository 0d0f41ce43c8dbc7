//! TLS whose certificate is replaced while it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use luminate_crds::worker_config::Tls as Settings;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They don't fit.
    #[error("certificate and key can't be used: {0}")]
    Pair(#[from] tokio_rustls::rustls::Error),
}

/// Certificate and key.
#[derive(Debug, Clone)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<ArcSwap<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    files: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Certificate and key of `settings`, if it names both.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) else { return Ok(None) };
        let files = (read(cert)?, read(key)?);
        let loaded = Loaded { config: config(cert, key, &files)?, files };
        let current = Arc::new(ArcSwap::from_pointee(loaded));
        Ok(Some(Self { cert: cert.clone(), key: key.clone(), current }))
    }

    /// The server's side of a handshake.
    ///
    /// # Errors
    /// The client went away or doesn't agree.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(Arc::clone(&self.current.load().config)).accept(stream).await
    }

    /// Takes up replaced files for ever; ones that can't be used are reported once and passed over.
    pub async fn follow_files(self) {
        let mut refused = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let this = self.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || this.reload()).await else { return };
            match result {
                Ok(true) => tracing::info!("took up a new certificate"),
                Ok(false) => refused = None,
                Err(error) => {
                    let reason = error.to_string();
                    if refused.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "the new certificate can't be used; the old one stays");
                        refused = Some(reason);
                    }
                }
            }
        }
    }

    /// Looks at the files; whether they were replaced.
    fn reload(&self) -> Result<bool, TlsError> {
        let files = (read(&self.cert)?, read(&self.key)?);
        if files == self.current.load().files {
            return Ok(false);
        }
        let config = config(&self.cert, &self.key, &files)?;
        self.current.store(Arc::new(Loaded { files, config }));
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn config(cert: &Path, key: &Path, files: &(Vec<u8>, Vec<u8>)) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.0).collect();
    let chain = chain.map_err(|error| file_error(cert, error))?;
    if chain.is_empty() {
        return Err(file_error(cert, "it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.1).map_err(|error| file_error(key, error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
