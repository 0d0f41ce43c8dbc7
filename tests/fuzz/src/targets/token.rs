//! Tokens: nobody gets in without the secret, and with it only by claims that a second reading accepts too.

use std::sync::{Arc, LazyLock};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey};
use luminate_crds::worker_config::{Auth as Settings, Secret};
use luminate_storage::clock::ManualClock;
use luminate_storage::model::Tenant;
use luminate_worker::auth::Auth;

use crate::json::Json;
use crate::memory;

/// Words of tokens.
pub const WORDS: &[&str] = &[
    "\"alg\":",
    "\"HS256\"",
    "\"none\"",
    "\"typ\":",
    "\"kid\":",
    "\"jku\":",
    "\"jwk\":",
    "\"crit\":",
    "\"b64\":",
    "\"tenant_id\":",
    "\"scopes\":",
    "\"read\"",
    "\"write\"",
    "\"admin\"",
    "\"exp\":",
    "\"nbf\":",
    "\"iat\":",
    "\"aud\":",
    "\"iss\":",
    "\"tier\":",
    "1800000600",
    "\"https://id.example\"",
    "\"luminate\"",
];

/// Seconds.
const NOW: i64 = 1_800_000_000;
const LEEWAY: f64 = 60.0;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "luminate";

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let settings = Settings {
        enabled: true,
        jwt_secret: Some(Secret::new(SECRET)),
        issuer: vec![ISSUER.into()],
        audience: vec![AUDIENCE.into()],
        ..Settings::default()
    };
    Auth::with_tokens(&settings, Arc::new(ManualClock::new(NOW * 1_000)))
        .expect("a secret that is long enough")
        .0
});

/// The first byte says whether the rest is a token, or a header and, behind the first new line, claims to be signed.
pub fn check(input: &[u8]) {
    match input.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => signed(rest),
        Some((_, token)) => assert_eq!(tenant(&[b"Bearer ", token].concat()), None, "nobody has signed this"),
        None => {}
    }
}

fn tenant(header: &[u8]) -> Option<Tenant> {
    let header = HeaderValue::from_bytes(header).ok()?;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, header)]);
    memory::within((1 << 20) + 64 * headers[AUTHORIZATION].len(), || AUTH.caller(&headers))
        .ok()
        .map(|caller| caller.tenant)
}

fn signed(text: &[u8]) {
    let mut parts = text.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a secret");
    let token = format!("Bearer {message}.{signature}");
    let fits = message.len() + 1 + signature.len() <= 8 << 10;
    let expected = expected(header, claims).filter(|_| fits);
    assert_eq!(tenant(token.as_bytes()).map(|tenant| tenant.to_string()), expected);
}

fn base64(text: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in text.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len())
            .for_each(|at| encoded.push(char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63])));
    }
    encoded
}

/// The tenant that a token signed by HS256 stands for, by the rules one by one.
fn expected(header: &[u8], claims: &[u8]) -> Option<String> {
    let (header, claims) = (Json::read(header)?, Json::read(claims)?);
    if header.overflows() || claims.overflows() {
        return None;
    }
    let refused = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];
    let kinds = ["jwt", "at+jwt", "application/at+jwt"];
    let kind =
        |kind: &Json| kind.text().is_some_and(|kind| kinds.contains(&kind.to_ascii_lowercase().as_str()));
    let honest = header.members()?.iter().all(|(name, _)| !refused.contains(&name.as_str()))
        && header.get("alg")?.text() == Some("HS256")
        && header.get("typ").is_none_or(kind)
        && header.get("kid").is_none_or(|id| id.text().is_some_and(|id| id.len() <= 256));
    claims.members()?;
    let now = NOW as f64;
    let holds = honest
        && seconds(claims.get("exp")?)? + LEEWAY > now
        && claims.get("nbf").is_none_or(|from| seconds(from).is_some_and(|from| from <= now + LEEWAY))
        && claims.get("iat").is_none_or(|at| seconds(at).is_some_and(|at| at <= now + LEEWAY))
        && names(claims.get("iss")?, ISSUER)
        && names(claims.get("aud")?, AUDIENCE)
        && claims
            .get("tier")
            .is_none_or(|tier| tier.text().is_some_and(|tier| (1..=64).contains(&tier.len())))
        && claims.get("scopes").is_none_or(scopes);
    let tenant = claims.get("tenant_id")?.text()?;
    (holds && Tenant::new(tenant).is_ok()).then(|| tenant.to_owned())
}

fn seconds(time: &Json) -> Option<f64> {
    time.number().filter(|time| (0.0..=253_402_300_799.0).contains(time))
}

fn names(claim: &Json, wanted: &str) -> bool {
    match claim {
        Json::Text(text) => text == wanted,
        Json::List(items) => {
            items.iter().all(|item| item.text().is_some())
                && items.iter().any(|item| item.text() == Some(wanted))
        }
        _ => false,
    }
}

fn scopes(scopes: &Json) -> bool {
    let known = |scope: &Json| scope.text().is_some_and(|scope| ["read", "write", "admin"].contains(&scope));
    matches!(scopes, Json::List(items) if items.iter().all(known))
}

/// Tokens to sign, and one that somebody else has signed.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"a"}"#;
    let claims = r#"{"tenant_id":"acme","scopes":["read","write"],"exp":1800000600,"nbf":1,"iat":1800000000.5,"iss":"https://id.example","aud":["x","luminate"],"tier":"gold"}"#;
    let stranger =
        format!("\0{}.{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()), base64(&[7; 32]));
    let none = format!("\0{}.{}.", base64(br#"{"alg":"none"}"#), base64(claims.as_bytes()));
    vec![format!("\u{1}{header}\n{claims}").into_bytes(), stranger.into_bytes(), none.into_bytes()]
}
