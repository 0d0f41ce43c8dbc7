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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    const ONE: (&str, &str) = (include_str!("testdata/one.pem"), include_str!("testdata/one.key"));
    const TWO: (&str, &str) = (include_str!("testdata/two.pem"), include_str!("testdata/two.key"));

    fn files(name: &str, (cert, key): (&str, &str)) -> Settings {
        let path =
            |kind: &str| std::env::temp_dir().join(format!("luminate-{name}-{}.{kind}", std::process::id()));
        std::fs::write(path("pem"), cert).unwrap();
        std::fs::write(path("key"), key).unwrap();
        Settings { cert_file: Some(path("pem")), key_file: Some(path("key")) }
    }

    /// Whether a client that trusts only `cert` gets through a handshake, and what it then speaks.
    async fn handshake(tls: &Tls, cert: &str) -> Option<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.clone();
        let server =
            tokio::spawn(async move { tls.accept(listener.accept().await.unwrap().0).await.is_ok() });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let client = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        server.await.unwrap();
        client.ok().and_then(|client| client.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn replaced_files_are_taken_up_and_broken_ones_are_not() {
        let settings = files("replaced", ONE);
        let tls = Tls::load(&settings).unwrap().unwrap();
        assert_eq!(handshake(&tls, ONE.0).await.as_deref(), Some(&b"h2"[..]));
        assert_eq!(handshake(&tls, TWO.0).await, None);
        assert!(!tls.reload().unwrap());
        // A certificate and a key that don't belong together, as in the middle of a replacement.
        files("replaced", (TWO.0, ONE.1));
        assert!(tls.reload().is_err());
        assert!(handshake(&tls, ONE.0).await.is_some());
        files("replaced", TWO);
        assert!(tls.reload().unwrap());
        assert!(handshake(&tls, TWO.0).await.is_some());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let missing =
            Settings { cert_file: Some("/nowhere.pem".into()), key_file: Some("/nowhere.key".into()) };
        assert!(Tls::load(&missing).unwrap_err().to_string().contains("/nowhere.pem"));
        let empty = files("empty", ("", ONE.1));
        assert!(Tls::load(&empty).unwrap_err().to_string().contains("no certificate"));
        assert!(Tls::load(&files("mixed", (ONE.0, TWO.1))).is_err());
        assert!(Tls::load(&Settings::default()).unwrap().is_none());
    }
}
