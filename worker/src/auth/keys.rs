//! Keys, and for which algorithm each one is.

use std::path::PathBuf;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use luminate_crds::worker_config::Algorithm;
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;

/// The shortest HMAC secret: as long as the shortest digest (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;
/// The shortest RSA modulus, 2048 bits (RFC 7518, section 3.3).
const MIN_RSA_BYTES: usize = 256;
/// An uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;
/// A set with more keys isn't one.
const MAX_KEYS: usize = 100;
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// Why keys can't be had or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A file can't be read.
    #[error("{path}: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was read holds no key that can be used.
    #[error("{origin}: {reason}")]
    Unusable {
        /// A file or a URL.
        origin: String,
        /// Why.
        reason: &'static str,
    },
    /// A URL doesn't answer as it should.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
}

/// A key that verifies signatures of some algorithms.
#[derive(Debug, Clone)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Key {
    /// Whether it is made for `algorithm`, and is the one named, if both have names.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (self.id.as_deref(), id) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        };
        named && self.algorithms.contains(&algorithm)
    }

    /// Whether `token` is signed with it; HMACs are compared in constant time.
    #[must_use]
    pub fn verifies(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let message = token.message.as_bytes();
        let verified = jsonwebtoken::crypto::verify(token.signature, message, &self.key, library(algorithm));
        verified.unwrap_or(false)
    }
}

/// An algorithm's name in a token.
#[must_use]
pub fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
    }
}

/// The library's name for an algorithm.
#[must_use]
pub fn library(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// The key of a shared secret.
///
/// # Errors
/// It is too short.
pub fn from_secret(secret: &[u8]) -> Result<Vec<Key>, &'static str> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err("the secret is shorter than 32 bytes");
    }
    Ok(vec![Key { id: None, algorithms: HMAC.to_vec(), key: DecodingKey::from_secret(secret) }])
}

/// The public keys of a PEM file, one or more.
///
/// # Errors
/// There is none, or one that isn't a public key of RSA (≥ 2048 bits), P-256 or Ed25519.
pub fn from_pem(text: &str) -> Result<Vec<Key>, &'static str> {
    const BEGIN: &str = "-----BEGIN ";
    let blocks: Vec<&str> = text.split(BEGIN).skip(1).collect();
    if blocks.is_empty() {
        return Err("there is no PEM block");
    }
    blocks.into_iter().map(|block| public_key(&format!("{BEGIN}{block}"))).collect()
}

fn public_key(pem: &str) -> Result<Key, &'static str> {
    if !pem.starts_with("-----BEGIN PUBLIC KEY") && !pem.starts_with("-----BEGIN RSA PUBLIC KEY") {
        return Err("only PUBLIC KEY and RSA PUBLIC KEY blocks are keys to verify with");
    }
    let bytes = pem.as_bytes();
    let key = |algorithm, key| Ok(Key { id: None, algorithms: vec![algorithm], key });
    let (algorithm, found) = if let Ok(found) = DecodingKey::from_ec_pem(bytes) {
        (Algorithm::ES256, found)
    } else if let Ok(found) = DecodingKey::from_ed_pem(bytes) {
        (Algorithm::EdDSA, found)
    } else if let Ok(found) = DecodingKey::from_rsa_pem(bytes) {
        (Algorithm::RS256, found)
    } else {
        return Err("the block is not a public key of RSA, P-256 or Ed25519");
    };
    check_size(algorithm, &found)?;
    key(algorithm, found)
}

fn check_size(algorithm: Algorithm, key: &DecodingKey) -> Result<(), &'static str> {
    let fits = match (algorithm, key.kind()) {
        // The DER of a key holds its modulus, so it is longer than that.
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => der.len() > MIN_RSA_BYTES,
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => n.len() >= MIN_RSA_BYTES,
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => point.len() == P256_POINT_BYTES,
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => point.len() == ED25519_BYTES,
        _ => false,
    };
    if fits { Ok(()) } else { Err("the key is not RSA of at least 2048 bits, P-256 or Ed25519") }
}

/// The keys of a JSON Web Key Set (RFC 7517) that verify signatures; others are passed over.
///
/// # Errors
/// It isn't a set, or no key of it can be used.
pub fn from_jwks(bytes: &[u8]) -> Result<Vec<Key>, &'static str> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "this is not a JSON Web Key Set")?;
    if set.keys.len() > MAX_KEYS {
        return Err("there are more than 100 keys");
    }
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
    let keys: Vec<Key> = keys.filter_map(|key: Jwk| from_jwk(&key)).collect();
    if keys.is_empty() { Err("no key in it is one to verify RS256, ES256 or EdDSA with") } else { Ok(keys) }
}

fn from_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let verifies =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    // A symmetric key in a set that others can read would be no secret.
    let (algorithm, own) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let named = common.key_algorithm.is_none_or(|named| named == own);
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs && verifies && named)?;
    check_size(algorithm, &key).ok()?;
    Some(Key { id: common.key_id.clone(), algorithms: vec![algorithm], key })
}
