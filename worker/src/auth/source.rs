//! Where keys come from, and how new ones are taken up without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use luminate_crds::worker_config::{Auth as Settings, Secret};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::keys::{self, Key, KeyError};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often a URL is fetched.
const FETCH: Duration = Duration::from_secs(300);
/// How soon it is fetched again after a failure, or because a token named an unknown key.
const FETCH_AGAIN: Duration = Duration::from_secs(30);
/// How soon it is fetched again while none of its keys is known.
const FETCH_FIRST: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_SET_BYTES: usize = 1 << 20;

#[derive(Debug)]
enum Origin {
    Secret(Secret),
    SecretFile(PathBuf),
    PemFile(PathBuf),
    JwksFile(PathBuf),
    JwksUrl { url: String, client: reqwest::Client, next: Instant },
}

#[derive(Debug)]
struct Source {
    origin: Origin,
    /// The last keys that could be used.
    keys: Vec<Key>,
    /// What the keys were read from.
    seen: Vec<u8>,
    /// What was complained of last.
    complaint: Option<KeyError>,
}

/// Looks at the sources of keys for as long as the worker runs.
#[derive(Debug)]
pub struct Follower {
    sources: Vec<Source>,
    keys: Arc<ArcSwap<Vec<Key>>>,
    unknown_key: Arc<Notify>,
}

impl Follower {
    /// Reads the keys of files; those at a URL come later.
    ///
    /// # Errors
    /// A file that can't be read or holds no key that can be used.
    pub(super) fn start(settings: &Settings) -> Result<Self, KeyError> {
        let mut sources = Vec::new();
        for origin in origins(settings)? {
            let mut source = Source { origin, keys: Vec::new(), seen: Vec::new(), complaint: None };
            source.look()?;
            sources.push(source);
        }
        let follower = Self { sources, keys: Arc::default(), unknown_key: Arc::default() };
        follower.publish();
        Ok(follower)
    }

    pub(super) fn keys(&self) -> Arc<ArcSwap<Vec<Key>>> {
        Arc::clone(&self.keys)
    }

    pub(super) fn unknown_key(&self) -> Arc<Notify> {
        Arc::clone(&self.unknown_key)
    }

    /// Follows the sources for ever. Keys that can't be had or used are reported once; the old ones stay.
    pub async fn run(mut self) {
        let mut asked = false;
        loop {
            for source in &mut self.sources {
                let changed = match &source.origin {
                    Origin::JwksUrl { .. } => source.fetch(asked).await,
                    _ => source.look(),
                };
                source.report(changed);
            }
            self.publish();
            asked = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = self.unknown_key.notified() => true,
            };
            // However many tokens name unknown keys.
            if asked {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn publish(&self) {
        let keys: Vec<Key> = self.sources.iter().flat_map(|source| source.keys.iter().cloned()).collect();
        self.keys.store(Arc::new(keys));
    }
}

fn origins(settings: &Settings) -> Result<Vec<Origin>, KeyError> {
    let mut origins = Vec::new();
    origins.extend(settings.jwt_secret.clone().map(Origin::Secret));
    origins.extend(settings.jwt_secret_file.clone().map(Origin::SecretFile));
    origins.extend(settings.public_key_file.clone().map(Origin::PemFile));
    origins.extend(settings.jwks_file.clone().map(Origin::JwksFile));
    if let Some(url) = &settings.jwks_url {
        let client = client().map_err(|error| unreachable(url, &error))?;
        origins.push(Origin::JwksUrl { url: url.clone(), client, next: Instant::now() });
    }
    Ok(origins)
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    // Only the first call in a process installs it.
    let _installed = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("luminate-worker/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Source {
    /// Reads a file or secret again; whether its keys are new.
    fn look(&mut self) -> Result<bool, KeyError> {
        let bytes = match &self.origin {
            Origin::Secret(secret) => secret.expose().as_bytes().to_vec(),
            Origin::SecretFile(path) | Origin::PemFile(path) | Origin::JwksFile(path) => std::fs::read(path)
                .map_err(|error| KeyError::Unreadable { path: path.clone(), reason: error.to_string() })?,
            Origin::JwksUrl { .. } => return Ok(false),
        };
        self.take_up(bytes)
    }

    /// Fetches a URL when it is due; whether its keys are new.
    async fn fetch(&mut self, asked: bool) -> Result<bool, KeyError> {
        let now = Instant::now();
        let Origin::JwksUrl { url, client, next } = &mut self.origin else { return Ok(false) };
        // `next` lies FETCH after a success; a token with an unknown key may bring it forward.
        let due = *next <= now || (asked && *next <= now + (FETCH - FETCH_AGAIN));
        if !due {
            return Ok(false);
        }
        *next = now + if self.keys.is_empty() { FETCH_FIRST } else { FETCH_AGAIN };
        let bytes = get(client, url).await?;
        *next = now + FETCH;
        self.take_up(bytes)
    }

    fn take_up(&mut self, bytes: Vec<u8>) -> Result<bool, KeyError> {
        if bytes == self.seen {
            return Ok(false);
        }
        let keys = match &self.origin {
            Origin::Secret(_) => keys::from_secret(&bytes),
            Origin::SecretFile(_) => keys::from_secret(trimmed(&bytes)),
            Origin::PemFile(_) => {
                std::str::from_utf8(&bytes).map_err(|_| "this is not text").and_then(keys::from_pem)
            }
            Origin::JwksFile(_) | Origin::JwksUrl { .. } => keys::from_jwks(&bytes),
        };
        self.keys = keys.map_err(|reason| KeyError::Unusable { origin: self.name(), reason })?;
        self.seen = bytes;
        Ok(true)
    }

    fn report(&mut self, looked: Result<bool, KeyError>) {
        match looked {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(origin = self.name(), keys = self.keys.len(), "took up new keys");
                self.complaint = None;
            }
            Err(error) if self.complaint.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(%error, keys = self.keys.len(), "keys can't be renewed; the old ones stay");
                self.complaint = Some(error);
            }
        }
    }

    fn name(&self) -> String {
        match &self.origin {
            Origin::Secret(_) => "auth.jwt_secret".to_owned(),
            Origin::SecretFile(path) | Origin::PemFile(path) | Origin::JwksFile(path) => {
                path.display().to_string()
            }
            Origin::JwksUrl { url, .. } => url.clone(),
        }
    }
}

/// Without the line end that editors and `echo` leave behind.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// The secret of a file.
///
/// # Errors
/// `Unreadable`; `Unusable` when it is too short.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = std::fs::read(path)
        .map_err(|error| KeyError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
    let secret = trimmed(&bytes);
    let unusable = |reason| KeyError::Unusable { origin: path.display().to_string(), reason };
    keys::from_secret(secret).map_err(unusable)?;
    Ok(secret.to_vec())
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, KeyError> {
    let failed = |error: reqwest::Error| unreachable(url, &error);
    let mut response = client.get(url).send().await.map_err(failed)?;
    if response.status() != reqwest::StatusCode::OK {
        let reason = format!("it answered {}", response.status());
        return Err(KeyError::Unreachable { url: url.to_owned(), reason });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_SET_BYTES {
            let reason = "the answer is larger than 1 MiB";
            return Err(KeyError::Unusable { origin: url.to_owned(), reason });
        }
    }
    Ok(bytes)
}

fn unreachable(url: &str, error: &reqwest::Error) -> KeyError {
    // The causes say more than the error, which only repeats the URL.
    let mut reason = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason = error.to_string();
        cause = error.source();
    }
    if reason.is_empty() {
        reason = if error.is_timeout() { "no answer in time".to_owned() } else { "no answer".to_owned() };
    }
    KeyError::Unreachable { url: url.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use luminate_crds::worker_config::Algorithm;

    use super::*;

    const JWKS: &str = include_str!("testdata/jwks.json");
    const PEM: &str = include_str!("testdata/ed.pem");

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("luminate-keys-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn fits(follower: &Follower, algorithm: Algorithm) -> bool {
        follower.keys().load().iter().any(|key| key.fits(algorithm, None))
    }

    #[test]
    fn every_source_adds_its_keys() {
        let settings = Settings {
            jwt_secret_file: Some(file("secret", "0123456789abcdef0123456789abcdef\n")),
            public_key_file: Some(file("pem", PEM)),
            jwks_file: Some(file("jwks", JWKS)),
            ..Settings::default()
        };
        let follower = Follower::start(&settings).unwrap();
        assert!(Algorithm::ALL.into_iter().all(|algorithm| fits(&follower, algorithm)));
    }

    #[test]
    fn a_file_that_cannot_be_used_stops_the_start() {
        let short = Settings { jwt_secret_file: Some(file("short", "short\n")), ..Settings::default() };
        assert!(Follower::start(&short).unwrap_err().to_string().contains("shorter than 32 bytes"));
        let missing = Settings { jwks_file: Some("/nonexistent/jwks".into()), ..Settings::default() };
        assert!(matches!(Follower::start(&missing), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn a_replaced_file_is_taken_up_and_a_broken_one_is_not() {
        let path = file("replaced", PEM);
        let settings = Settings { public_key_file: Some(path.clone()), ..Settings::default() };
        let mut follower = Follower::start(&settings).unwrap();
        let source = &mut follower.sources[0];
        assert_eq!(source.look(), Ok(false));
        std::fs::write(&path, "broken").unwrap();
        assert!(source.look().is_err() && source.keys.len() == 1);
        std::fs::write(&path, include_str!("testdata/ec.pem")).unwrap();
        assert_eq!(source.look(), Ok(true));
        follower.publish();
        assert!(fits(&follower, Algorithm::ES256) && !fits(&follower, Algorithm::EdDSA));
    }

    /// Answers one connection after the other with these texts.
    async fn server(answers: Vec<String>) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_last_good_keys_of_a_url_stay() {
        let failing = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
        let moved =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned();
        let url = server(vec![ok(JWKS), failing, moved, ok("{}")]).await;
        let settings = Settings { jwks_url: Some(url), ..Settings::default() };
        let mut source = Follower::start(&settings).unwrap().sources.remove(0);
        assert_eq!(source.fetch(false).await, Ok(true));
        assert_eq!(source.fetch(false).await, Ok(false), "not due yet");
        for _ in 0..3 {
            let Origin::JwksUrl { next, .. } = &mut source.origin else { unreachable!() };
            *next = Instant::now();
            assert!(source.fetch(false).await.is_err());
            assert_eq!(source.keys.len(), 3);
        }
    }

    #[tokio::test]
    async fn unknown_keys_do_not_make_it_fetch_all_the_time() {
        let url = server(vec![ok(JWKS)]).await;
        let settings = Settings { jwks_url: Some(url), ..Settings::default() };
        let mut source = Follower::start(&settings).unwrap().sources.remove(0);
        assert_eq!(source.fetch(true).await, Ok(true));
        assert_eq!(source.fetch(true).await, Ok(false));
    }
}
