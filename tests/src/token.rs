//! Tokens, good and bad.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::client::now;

/// The secret of every test worker that checks tokens.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

/// Claims that every check lets pass.
#[must_use]
pub fn claims(tenant: &str, scopes: &[&str]) -> Value {
    let now = now() / 1_000;
    json!({"tenant_id": tenant, "scopes": scopes, "iat": now, "exp": now + 3_600})
}

/// A token over any claims, with HS256 and [`SECRET`].
#[must_use]
pub fn signed(claims: &Value) -> String {
    signed_with(&Header::new(Algorithm::HS256), claims, SECRET.as_bytes())
}

/// A token over any claims and header, with an HMAC under `secret`.
#[must_use]
pub fn signed_with(header: &Header, claims: &Value, secret: &[u8]) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret)).expect("claims are JSON")
}

/// A good token of `tenant` with every scope.
#[must_use]
pub fn of(tenant: &str) -> String {
    signed(&claims(tenant, &["read", "write", "admin"]))
}
