//! The parts of a token (RFC 7515, RFC 7519) and what it must claim.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use luminate_crds::worker_config::Auth as Settings;
use luminate_storage::model::Tenant;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::tenant::{Caller, Scope};

/// Header fields that would let the token choose its own key or its own rules.
const REFUSED_FIELDS: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];
/// A key's name is only compared, but it is kept short all the same.
const MAX_KEY_ID: usize = 256;
const MAX_TIER: usize = 64;
/// The end of the year 9999: a later time is no time.
const MAX_SECONDS: f64 = 253_402_300_799.0;

type Refused = &'static str;

/// A token whose header has been read and whose signature has not been checked.
#[derive(Debug)]
pub struct Token<'a> {
    /// What is signed: header and claims as they were sent.
    pub message: &'a str,
    /// The signature, base64url.
    pub signature: &'a str,
    /// The header's `alg`.
    pub algorithm: String,
    /// The header's `kid`.
    pub key_id: Option<String>,
    claims: &'a str,
}

impl<'a> Token<'a> {
    /// Splits `text` and reads its header.
    ///
    /// # Errors
    /// What is wrong with it, in words for the client.
    pub fn parse(text: &'a str) -> Result<Self, Refused> {
        let (message, signature) = text.rsplit_once('.').ok_or("the token does not have three parts")?;
        let (header, claims) = message.split_once('.').ok_or("the token does not have three parts")?;
        if claims.contains('.') {
            return Err("the token does not have three parts");
        }
        let header = object(header).ok_or("the token's header is not a JSON object")?;
        if REFUSED_FIELDS.iter().any(|field| header.contains_key(*field)) {
            return Err("the token's header has a field that is not allowed");
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if is_token_type(kind) => {}
            Some(_) => return Err("the token's type is not JWT"),
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err("the token names no algorithm");
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID => Some(id.clone()),
            Some(_) => return Err("the token's kid is not a short text"),
        };
        Ok(Self { message, signature, algorithm: algorithm.clone(), key_id, claims })
    }

    /// What it claims: believe this only once the signature has been checked.
    ///
    /// # Errors
    /// It isn't a JSON object, or says something twice.
    pub fn claims(&self) -> Result<Claims, Refused> {
        object(self.claims).map(Claims).ok_or("the token's claims are not a JSON object without repetition")
    }
}

fn is_token_type(kind: &str) -> bool {
    ["jwt", "at+jwt", "application/at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// A base64url part as an object; no member twice.
fn object(part: &str) -> Option<BTreeMap<String, Value>> {
    // The library reads the middle part of anything as claims, which lends us its base64url.
    let lent = format!(".{part}.");
    jsonwebtoken::dangerous::insecure_decode_claims::<Object>(lent).ok().map(|object| object.0)
}

struct Object(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut object = BTreeMap::new();
                while let Some((name, value)) = members.next_entry()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member appears twice"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// What every token must claim.
#[derive(Debug)]
pub struct Rules {
    leeway: f64,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

impl Rules {
    /// As configured.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            leeway: settings.leeway.duration().as_secs_f64(),
            issuers: settings.issuer.clone(),
            audiences: settings.audience.clone(),
        }
    }
}

/// What a token claims.
#[derive(Debug)]
pub struct Claims(BTreeMap<String, Value>);

impl Claims {
    /// The tenant, when everything claimed holds at `now` (Unix milliseconds).
    ///
    /// # Errors
    /// The first claim that doesn't, in words for the client.
    pub fn caller(&self, rules: &Rules, now: i64) -> Result<Caller, Refused> {
        let now = now as f64 / 1_000.0;
        let expires = self.seconds("exp", "exp is not a time")?.ok_or("exp is missing")?;
        if expires + rules.leeway <= now {
            return Err("the token has expired");
        }
        if self.seconds("nbf", "nbf is not a time")?.is_some_and(|from| from > now + rules.leeway) {
            return Err("the token is not valid yet");
        }
        if self.seconds("iat", "iat is not a time")?.is_some_and(|at| at > now + rules.leeway) {
            return Err("the token was issued in the future");
        }
        if !rules.issuers.is_empty() && !self.names_one_of("iss", &rules.issuers) {
            return Err("the token's issuer is not allowed");
        }
        if !rules.audiences.is_empty() && !self.names_one_of("aud", &rules.audiences) {
            return Err("the token is not for this audience");
        }
        Ok(Caller { tenant: self.tenant()?, tier: self.tier()?, scopes: self.scopes()? })
    }

    fn seconds(&self, name: &str, wrong: Refused) -> Result<Option<f64>, Refused> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
        seconds.map(Some).ok_or(wrong)
    }

    /// Whether a text, or one of a list of texts, is among `allowed`; a list of anything else is no list.
    fn names_one_of(&self, name: &str, allowed: &[String]) -> bool {
        let is_allowed = |text: &str| allowed.iter().any(|allowed| allowed == text);
        match self.0.get(name) {
            Some(Value::String(text)) => is_allowed(text),
            Some(Value::Array(items)) => {
                items.iter().all(Value::is_string) && items.iter().filter_map(Value::as_str).any(is_allowed)
            }
            _ => false,
        }
    }

    fn tenant(&self) -> Result<Tenant, Refused> {
        let id = self.0.get("tenant_id").ok_or("tenant_id is missing")?;
        let id = id.as_str().ok_or("tenant_id is not a text")?;
        Tenant::new(id).map_err(|_| "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -")
    }

    fn tier(&self) -> Result<Option<Arc<str>>, Refused> {
        match self.0.get("tier") {
            None => Ok(None),
            Some(Value::String(tier)) if (1..=MAX_TIER).contains(&tier.len()) => {
                Ok(Some(Arc::from(tier.as_str())))
            }
            Some(_) => Err("tier is not a text of 1 to 64 bytes"),
        }
    }

    fn scopes(&self) -> Result<Vec<Scope>, Refused> {
        const ALLOWED: Refused = "scopes is not a list of read, write, admin, backup";
        let Some(scopes) = self.0.get("scopes") else { return Ok(Vec::new()) };
        let scope = |name: &Value| Scope::ALL.into_iter().find(|scope| name == scope.name()).ok_or(ALLOWED);
        scopes.as_array().ok_or(ALLOWED)?.iter().map(scope).collect()
    }
}
