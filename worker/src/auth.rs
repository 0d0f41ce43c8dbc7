//! From a bearer token to a tenant.
//!
//! The library only verifies signatures; what a token must say is checked here, because its defaults
//! accept too much: any token size, a far-future `iat`, `crit`, odd-typed claims, an empty secret.
//! The steps stand in [`Auth::caller`].

mod keys;
mod mint;
mod source;
mod token;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use luminate_crds::worker_config::{Algorithm, Auth as Settings};
use luminate_storage::clock::Clock;
use luminate_storage::model::Tenant;
use tokio::sync::Notify;

use crate::error::Error;
use crate::tenant::{Caller, Scope};

pub use keys::KeyError;
pub use mint::{MintError, Wish, mint};
pub use source::Follower;

use keys::Key;
use token::{Rules, Token};

/// The largest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Who checks tokens.
#[derive(Debug)]
pub struct Auth(Mode);

#[derive(Debug)]
enum Mode {
    /// Everybody is this.
    Disabled(Caller),
    Tokens(Tokens),
}

#[derive(Debug)]
struct Tokens {
    keys: Arc<ArcSwap<Vec<Key>>>,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    clock: Arc<dyn Clock>,
    /// Told when a token names a key that isn't there: perhaps the keys at the URL have changed.
    unknown_key: Arc<Notify>,
}

impl Auth {
    /// Without tokens: everybody is `tenant` with every scope.
    #[must_use]
    pub fn disabled(tenant: Tenant) -> Self {
        Self(Mode::Disabled(Caller { tenant, tier: None, scopes: Scope::ALL.to_vec() }))
    }

    /// Checks tokens as `settings` say, with the keys of its files; the follower goes on looking at
    /// them, and fetches those that have a URL.
    ///
    /// # Errors
    /// A file that can't be read or holds no key that can be used.
    pub fn with_tokens(settings: &Settings, clock: Arc<dyn Clock>) -> Result<(Self, Follower), KeyError> {
        let follower = Follower::start(settings)?;
        let tokens = Tokens {
            keys: follower.keys(),
            algorithms: allowed(settings),
            rules: Rules::of(settings),
            clock,
            unknown_key: follower.unknown_key(),
        };
        Ok((Self(Mode::Tokens(tokens)), follower))
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// `NoToken`, `InvalidToken`; `NoKeys` while none has been fetched: then no token can be judged.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        match &self.0 {
            Mode::Disabled(everybody) => Ok(everybody.clone()),
            Mode::Tokens(tokens) => {
                let token = bearer(headers)?;
                if tokens.keys.load().is_empty() {
                    return Err(Error::NoKeys);
                }
                tokens.caller(token).map_err(Error::InvalidToken)
            }
        }
    }
}

impl Tokens {
    fn caller(&self, text: &str) -> Result<Caller, &'static str> {
        // 1. What the header says may be believed only as far as choosing a key goes.
        let token = Token::parse(text)?;
        let algorithm = self.algorithms.iter().find(|algorithm| keys::name(**algorithm) == token.algorithm);
        let algorithm = *algorithm.ok_or("the token's algorithm is not allowed")?;
        // 2. Only keys made for this algorithm are tried, so a public key is never an HMAC secret.
        let keys = self.keys.load();
        let mut fitting = keys.iter().filter(|key| key.fits(algorithm, token.key_id.as_deref())).peekable();
        if fitting.peek().is_none() {
            self.unknown_key.notify_one();
            return Err("no key fits the token");
        }
        if !fitting.any(|key| key.verifies(&token, algorithm)) {
            return Err("the token's signature is not valid");
        }
        // 3. What it claims.
        token.claims()?.caller(&self.rules, self.clock.now())
    }
}

/// The algorithms allowed: those named, or all.
fn allowed(settings: &Settings) -> Vec<Algorithm> {
    if settings.algorithms.is_empty() { Algorithm::ALL.to_vec() } else { settings.algorithms.clone() }
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Error::NoToken)?;
    if values.next().is_some() {
        return Err(Error::InvalidToken("more than one Authorization header"));
    }
    let text = value.to_str().map_err(|_| Error::InvalidToken("the Authorization header is not text"))?;
    let (scheme, token) = text.split_once(' ').ok_or(Error::NoToken)?;
    // The second is how clients of InfluxDB name the first.
    if !["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Error::NoToken);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Error::InvalidToken("the token is longer than 8 KiB"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests;
