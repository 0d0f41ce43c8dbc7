//! TLS, and certificates that are replaced while the worker serves.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::worker::{Setup, free_address};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Writes a new certificate and its key, and returns it.
fn renew(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// The status line of a probe over TLS, by a client that trusts `certificate` only.
fn probe(address: SocketAddr, certificate: &CertificateDer<'static>) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let request = b"GET /api/v1/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Tries until it answers; a worker that speaks TLS can't be asked whether it is ready in the plain.
fn answers_within(patience: Duration, address: SocketAddr, certificate: &CertificateDer<'static>) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if probe(address, certificate) == Ok("HTTP/1.1 200".to_owned()) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

#[test]
fn a_replaced_certificate_is_taken_up_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = renew(folder.path());
    let address = free_address();
    let worker = Setup::new()
        .with("server.tls.cert_file", folder.path().join("cert.pem").display())
        .with("server.tls.key_file", folder.path().join("key.pem").display())
        .start_at(address);
    assert!(answers_within(Duration::from_secs(30), address, &first), "{}", worker.log());
    let second = renew(folder.path());
    assert!(answers_within(Duration::from_secs(30), address, &second), "{}", worker.log());
    assert!(probe(address, &first).is_err(), "the old certificate is gone");
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = plain.write_all(b"GET /api/v1/metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "nothing is said in the plain");
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    renew(folder.path());
    let key = folder.path().join("key.pem");
    let (status, said) = Setup::new()
        .with("server.tls.cert_file", key.display())
        .with("server.tls.key_file", key.display())
        .run(&[]);
    assert!(!status.success() && said.contains("key.pem"), "{said}");
    let (status, said) = Setup::new().with("server.tls.cert_file", key.display()).run(&[]);
    assert!(!status.success() && said.contains("server.tls"), "{said}");
}
