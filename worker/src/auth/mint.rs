//! Making a token from the configured secret: for first steps and for tests.

use jsonwebtoken::{EncodingKey, Header, encode};
use luminate_crds::worker_config::{Algorithm, Auth as Settings, Span};
use luminate_storage::model::Tenant;
use serde::Serialize;

use super::keys::{self, KeyError};
use crate::tenant::Scope;

/// Why no token can be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// There is nothing to sign with.
    #[error(
        "auth.jwt_secret or auth.jwt_secret_file is needed to sign a token, and auth.algorithms must allow HS256, HS384 or HS512"
    )]
    NoSecret,
    /// The secret can't be used.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// The library refuses.
    #[error("the token can't be signed: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

/// The token that is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whose.
    pub tenant: Tenant,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Its tier.
    pub tier: Option<String>,
    /// How long it is valid.
    pub ttl: Span,
}

#[derive(Serialize)]
struct Claims<'a> {
    tenant_id: &'a str,
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// A token that [`super::Auth`] with the same `settings` takes, made at `now` (Unix milliseconds).
///
/// # Errors
/// [`MintError`].
pub fn mint(settings: &Settings, wish: &Wish, now: i64) -> Result<String, MintError> {
    let secret = secret(settings)?.ok_or(MintError::NoSecret)?;
    let allowed = super::allowed(settings);
    let algorithm = allowed.into_iter().find(|algorithm: &Algorithm| algorithm.is_symmetric());
    let header = Header::new(keys::library(algorithm.ok_or(MintError::NoSecret)?));
    let issued = now.div_euclid(1_000);
    let claims = Claims {
        tenant_id: wish.tenant.as_str(),
        scopes: wish.scopes.iter().map(|scope| scope.name()).collect(),
        tier: wish.tier.as_deref(),
        iat: issued,
        exp: issued.saturating_add(wish.ttl.millis() / 1_000),
        iss: settings.issuer.first().map(String::as_str),
        aud: settings.audience.first().map(String::as_str),
    };
    Ok(encode(&header, &claims, &EncodingKey::from_secret(&secret))?)
}

fn secret(settings: &Settings) -> Result<Option<Vec<u8>>, KeyError> {
    if let Some(secret) = &settings.jwt_secret {
        return Ok(Some(secret.expose().as_bytes().to_vec()));
    }
    settings.jwt_secret_file.as_deref().map(super::source::read_secret).transpose()
}
