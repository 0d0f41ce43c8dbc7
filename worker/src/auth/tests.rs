//! Tokens of every right and wrong kind, through the whole check.

use axum::http::HeaderValue;
use jsonwebtoken::{Algorithm as Alg, EncodingKey};
use luminate_crds::worker_config::{Secret, Span};
use luminate_storage::clock::ManualClock;
use serde_json::{Value, json};

use super::*;

/// Seconds.
const NOW: i64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const RSA: &str = include_str!("testdata/rsa.pem");

fn settings() -> Settings {
    Settings { enabled: true, jwt_secret: Some(Secret::new(SECRET)), ..Settings::default() }
}

fn auth(settings: &Settings) -> Auth {
    let clock = Arc::new(ManualClock::new(NOW * 1_000));
    Auth::with_tokens(settings, clock).unwrap().0
}

fn check(auth: &Auth, token: &str) -> Result<Caller, Error> {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    auth.caller(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn key(algorithm: Alg) -> EncodingKey {
    match algorithm {
        Alg::RS256 => EncodingKey::from_rsa_pem(include_bytes!("testdata/rsa.key")).unwrap(),
        Alg::ES256 => EncodingKey::from_ec_pem(include_bytes!("testdata/ec.key")).unwrap(),
        Alg::EdDSA => EncodingKey::from_ed_pem(include_bytes!("testdata/ed.key")).unwrap(),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    }
}

/// Base64url, by way of the library: it encodes what it signs.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            encoded.push(char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    encoded
}

/// A token with any header and claims, signed.
fn signed_text(header: &str, claims: &str, algorithm: Alg, key: &EncodingKey) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn signed(header: &Value, claims: &Value) -> String {
    signed_text(&header.to_string(), &claims.to_string(), Alg::HS256, &key(Alg::HS256))
}

fn good() -> Value {
    json!({"tenant_id": "acme", "scopes": ["read", "write"], "exp": NOW + 600})
}

/// Good claims but for one.
fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn header_with(name: &str, value: Value) -> Value {
    let mut header = header();
    header[name] = value;
    header
}

#[test]
fn a_good_token_names_its_tenant() {
    let caller = check(&auth(&settings()), &signed(&header(), &with("tier", json!("gold")))).unwrap();
    assert_eq!(caller.tenant.as_str(), "acme");
    assert_eq!(caller.tier.as_deref(), Some("gold"));
    assert_eq!(caller.scopes, [Scope::Read, Scope::Write]);
}

#[test]
fn claims_that_hold_are_accepted() {
    let auth = auth(&settings());
    for claims in [
        good(),
        with("exp", json!(NOW - 59)),
        with("exp", json!(NOW as f64 + 0.5)),
        with("nbf", json!(NOW + 60)),
        with("iat", json!(NOW + 60)),
        with("iat", json!(NOW - 1_000_000)),
        with("aud", json!("anybody")),
        with("iss", json!(7)),
        with("scopes", json!([])),
        without("scopes"),
        with("sub", json!({"odd": [1]})),
        with("tenant_id", json!("a".repeat(64))),
        with("tenant_id", json!("A-b_9")),
    ] {
        assert!(check(&auth, &signed(&header(), &claims)).is_ok(), "{claims}");
    }
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let auth = auth(&settings());
    for (claims, reason) in [
        (without("exp"), "exp is missing"),
        (with("exp", Value::Null), "exp is not a time"),
        (with("exp", json!((NOW + 600).to_string())), "exp is not a time"),
        (with("exp", json!([NOW + 600])), "exp is not a time"),
        (with("exp", json!(true)), "exp is not a time"),
        (with("exp", json!(-1)), "exp is not a time"),
        (with("exp", json!(1e300)), "exp is not a time"),
        (with("exp", json!(u64::MAX)), "exp is not a time"),
        (with("exp", json!(NOW - 60)), "the token has expired"),
        (with("exp", json!(0)), "the token has expired"),
        (with("nbf", json!(NOW + 61)), "the token is not valid yet"),
        (with("nbf", json!("0")), "nbf is not a time"),
        (with("nbf", Value::Null), "nbf is not a time"),
        (with("iat", json!(NOW + 61)), "the token was issued in the future"),
        (with("iat", json!("now")), "iat is not a time"),
        (without("tenant_id"), "tenant_id is missing"),
        (with("tenant_id", json!(7)), "tenant_id is not a text"),
        (with("tenant_id", Value::Null), "tenant_id is not a text"),
        (with("tenant_id", json!("")), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("tenant_id", json!("a".repeat(65))), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("tenant_id", json!("../acme")), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("tenant_id", json!("ac\u{0}me")), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("tenant_id", json!("acme ")), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("tenant_id", json!("\u{430}cme")), "tenant_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (with("scopes", json!("read write")), "scopes is not a list of read, write, admin, backup"),
        (with("scopes", json!(["READ"])), "scopes is not a list of read, write, admin, backup"),
        (with("scopes", json!(["read", 1])), "scopes is not a list of read, write, admin, backup"),
        (with("scopes", json!({"read": true})), "scopes is not a list of read, write, admin, backup"),
        (with("tier", json!(1)), "tier is not a text of 1 to 64 bytes"),
        (with("tier", json!("")), "tier is not a text of 1 to 64 bytes"),
        (with("tier", json!("x".repeat(65))), "tier is not a text of 1 to 64 bytes"),
    ] {
        assert_eq!(check(&auth, &signed(&header(), &claims)), Err(Error::InvalidToken(reason)), "{claims}");
    }
}

#[test]
fn issuer_and_audience_must_be_named_when_they_are_configured() {
    let auth = auth(&Settings {
        issuer: vec!["https://id.example".into()],
        audience: vec!["luminate".into(), "other".into()],
        ..settings()
    });
    let claims = |iss: Value, aud: Value| {
        let mut claims = good();
        claims["iss"] = iss;
        claims["aud"] = aud;
        claims
    };
    let id = || json!("https://id.example");
    for good in
        [claims(id(), json!("luminate")), claims(json!(["x", "https://id.example"]), json!(["y", "other"]))]
    {
        assert!(check(&auth, &signed(&header(), &good)).is_ok(), "{good}");
    }
    for (bad, reason) in [
        (claims(json!("https://id.example.evil"), json!("luminate")), "the token's issuer is not allowed"),
        (claims(Value::Null, json!("luminate")), "the token's issuer is not allowed"),
        (claims(json!([]), json!("luminate")), "the token's issuer is not allowed"),
        (claims(json!(["https://id.example", 1]), json!("luminate")), "the token's issuer is not allowed"),
        (claims(id(), json!("LUMINATE")), "the token is not for this audience"),
        (claims(id(), json!(["x"])), "the token is not for this audience"),
        (claims(id(), json!({"luminate": 1})), "the token is not for this audience"),
        (claims(id(), Value::Null), "the token is not for this audience"),
        (good(), "the token's issuer is not allowed"),
        (with("iss", id()), "the token is not for this audience"),
    ] {
        assert_eq!(check(&auth, &signed(&header(), &bad)), Err(Error::InvalidToken(reason)), "{bad}");
    }
}

#[test]
fn headers_that_would_choose_their_own_rules_are_refused() {
    let auth = auth(&settings());
    const FIELD: &str = "the token's header has a field that is not allowed";
    for (header, reason) in [
        (header_with("alg", json!("none")), "the token's algorithm is not allowed"),
        (header_with("alg", json!("None")), "the token's algorithm is not allowed"),
        (header_with("alg", json!("hs256")), "the token's algorithm is not allowed"),
        (header_with("alg", json!("")), "the token's algorithm is not allowed"),
        (header_with("alg", json!("PS256")), "the token's algorithm is not allowed"),
        (header_with("alg", Value::Null), "the token names no algorithm"),
        (header_with("alg", json!(["HS256"])), "the token names no algorithm"),
        (json!({"typ": "JWT"}), "the token names no algorithm"),
        (header_with("crit", json!(["exp"])), FIELD),
        (header_with("crit", json!([])), FIELD),
        (header_with("jku", json!("https://evil.example/jwks")), FIELD),
        (header_with("jwk", json!({"kty": "oct", "k": "AA"})), FIELD),
        (header_with("x5u", json!("https://evil.example/x")), FIELD),
        (header_with("x5c", json!(["AA"])), FIELD),
        (header_with("b64", json!(false)), FIELD),
        (header_with("zip", json!("DEF")), FIELD),
        (header_with("kid", json!(7)), "the token's kid is not a short text"),
        (header_with("kid", json!("k".repeat(257))), "the token's kid is not a short text"),
        (header_with("typ", json!("JOSE")), "the token's type is not JWT"),
        (header_with("typ", json!(1)), "the token's type is not JWT"),
        (json!(["HS256"]), "the token's header is not a JSON object"),
    ] {
        assert_eq!(check(&auth, &signed(&header, &good())), Err(Error::InvalidToken(reason)), "{header}");
    }
    for fine in [
        json!({"alg": "HS256"}),
        header_with("typ", json!("at+JWT")),
        header_with("kid", json!("../../etc/passwd")),
    ] {
        assert!(check(&auth, &signed(&fine, &good())).is_ok(), "{fine}");
    }
}

#[test]
fn what_is_said_twice_is_refused() {
    let auth = auth(&settings());
    let exp = NOW + 600;
    let twice = format!(r#"{{"tenant_id":"evil","tenant_id":"acme","exp":{exp}}}"#);
    let token = signed_text(&header().to_string(), &twice, Alg::HS256, &key(Alg::HS256));
    let reason = "the token's claims are not a JSON object without repetition";
    assert_eq!(check(&auth, &token), Err(Error::InvalidToken(reason)));
    let unknown_twice = format!(r#"{{"tenant_id":"acme","exp":{exp},"x":1,"x":1}}"#);
    let token = signed_text(&header().to_string(), &unknown_twice, Alg::HS256, &key(Alg::HS256));
    assert_eq!(check(&auth, &token), Err(Error::InvalidToken(reason)));
    let token =
        signed_text(r#"{"alg":"none","alg":"HS256"}"#, &good().to_string(), Alg::HS256, &key(Alg::HS256));
    assert_eq!(check(&auth, &token), Err(Error::InvalidToken("the token's header is not a JSON object")));
}

#[test]
fn broken_tokens_are_refused() {
    let auth = auth(&settings());
    let token = signed(&header(), &good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, claims) = message.split_once('.').unwrap();
    let other = signed(&header(), &with("tenant_id", json!("evil")));
    let other_claims = other.split('.').nth(1).unwrap();
    for broken in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        message.into(),
        format!("{message}."),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!("{head}..{signature}"),
        format!("{head}.{other_claims}.{signature}"),
        format!("{head}.{claims}=.{signature}"),
        format!("{head}.{claims}.{}", &signature[1..]),
        format!("{head}.{claims}.{signature}="),
        format!(" {token}"),
        token.replace('.', " "),
    ] {
        assert!(matches!(check(&auth, &broken), Err(Error::InvalidToken(_))), "{broken}");
    }
    let huge = format!("{head}.{}.{signature}", "a".repeat(8 << 20));
    assert_eq!(check(&auth, &huge), Err(Error::InvalidToken("the token is longer than 8 KiB")));
}

#[test]
fn a_public_key_is_never_a_secret() {
    let path = std::env::temp_dir().join(format!("luminate-confusion-{}", std::process::id()));
    std::fs::write(&path, RSA).unwrap();
    let auth = auth(&Settings { enabled: true, public_key_file: Some(path), ..Settings::default() });
    let with_public_key = EncodingKey::from_secret(RSA.as_bytes());
    for name in ["HS256", "RS256"] {
        let header = json!({"alg": name}).to_string();
        let token = signed_text(&header, &good().to_string(), Alg::HS256, &with_public_key);
        assert!(matches!(check(&auth, &token), Err(Error::InvalidToken(_))), "{name}");
    }
    let token = signed_text(r#"{"alg":"RS256"}"#, &good().to_string(), Alg::RS256, &key(Alg::RS256));
    assert!(check(&auth, &token).is_ok());
}

fn with_jwks() -> Settings {
    let path = std::env::temp_dir().join(format!("luminate-jwks-{}", std::process::id()));
    std::fs::write(&path, include_str!("testdata/jwks.json")).unwrap();
    Settings { enabled: true, jwks_file: Some(path), ..Settings::default() }
}

#[test]
fn each_public_algorithm_works_with_its_own_key_only() {
    let auth = auth(&with_jwks());
    let names =
        [(Alg::RS256, "RS256", "rsa-1"), (Alg::ES256, "ES256", "ec-1"), (Alg::EdDSA, "EdDSA", "ed-1")];
    for (algorithm, name, _) in names {
        for (_, _, kid) in names {
            let header = json!({"alg": name, "kid": kid}).to_string();
            let token = signed_text(&header, &good().to_string(), algorithm, &key(algorithm));
            let own = names.iter().any(|(_, own, own_kid)| *own == name && *own_kid == kid);
            assert_eq!(check(&auth, &token).is_ok(), own, "{header}");
        }
        let token =
            signed_text(&json!({"alg": name}).to_string(), &good().to_string(), algorithm, &key(algorithm));
        assert!(check(&auth, &token).is_ok(), "without a kid: {name}");
    }
    // The set's symmetric key and its key for encryption are not taken up.
    for kid in ["oct-1", "enc-1", "odd-1"] {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        let token = signed_text(&header, &good().to_string(), Alg::RS256, &key(Alg::RS256));
        assert_eq!(check(&auth, &token), Err(Error::InvalidToken("no key fits the token")), "{kid}");
    }
    assert_eq!(check(&auth, &signed(&header(), &good())), Err(Error::InvalidToken("no key fits the token")));
}

#[test]
fn only_allowed_algorithms_are_taken() {
    let auth = auth(&Settings { algorithms: vec![Algorithm::HS512], ..settings() });
    assert!(check(&auth, &signed(&header(), &good())).is_err());
    let header = json!({"alg": "HS512"}).to_string();
    let token = signed_text(&header, &good().to_string(), Alg::HS512, &key(Alg::HS512));
    assert!(check(&auth, &token).is_ok());
    let longer = signed_text(&header, &good().to_string(), Alg::HS256, &key(Alg::HS256));
    assert_eq!(check(&auth, &longer), Err(Error::InvalidToken("the token's signature is not valid")));
}

#[test]
fn weak_and_private_keys_are_refused() {
    for (pem, part) in [
        (include_str!("testdata/rsa1024.pem"), "2048"),
        (include_str!("testdata/p384.pem"), "P-256"),
        (include_str!("testdata/rsa.key"), "only PUBLIC KEY"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        ("nothing", "no PEM block"),
    ] {
        assert!(keys::from_pem(pem).unwrap_err().contains(part), "{part}");
    }
    assert_eq!(keys::from_pem(&format!("{RSA}{}", include_str!("testdata/ed.pem"))).unwrap().len(), 2);
    for secret in ["", &SECRET[1..]] {
        assert!(keys::from_secret(secret.as_bytes()).is_err());
    }
}

#[test]
fn only_one_bearer_header_is_taken() {
    let auth = auth(&settings());
    let token = signed(&header(), &good());
    let asked = |values: &[String]| {
        let header = |value: &String| (AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        auth.caller(&values.iter().map(header).collect())
    };
    assert!(asked(&[format!("bearer {token}")]).is_ok());
    assert!(asked(&[format!("Token {token}")]).is_ok());
    assert_eq!(asked(&[]), Err(Error::NoToken));
    assert_eq!(asked(std::slice::from_ref(&token)), Err(Error::NoToken));
    assert_eq!(asked(&[format!("Basic {token}")]), Err(Error::NoToken));
    assert!(matches!(
        asked(&[format!("Bearer {token}"), format!("Bearer {token}")]),
        Err(Error::InvalidToken(_))
    ));
}

#[test]
fn without_auth_everybody_is_the_default_tenant() {
    let auth = Auth::disabled(Tenant::new("default").unwrap());
    let caller = auth.caller(&HeaderMap::new()).unwrap();
    assert_eq!((caller.tenant.as_str(), caller.scopes.len()), ("default", Scope::ALL.len()));
}

#[test]
fn a_minted_token_is_taken() {
    let settings = Settings { issuer: vec!["me".into()], audience: vec!["you".into()], ..settings() };
    let wish = Wish {
        tenant: Tenant::new("acme").unwrap(),
        scopes: vec![Scope::Admin],
        tier: Some("gold".into()),
        ttl: Span::from_secs(60),
    };
    let token = mint(&settings, &wish, NOW * 1_000).unwrap();
    let caller = check(&auth(&settings), &token).unwrap();
    assert_eq!((caller.tenant.as_str(), caller.scopes.as_slice()), ("acme", [Scope::Admin].as_slice()));
    assert!(matches!(mint(&Settings::default(), &wish, 0), Err(MintError::NoSecret)));
}

#[test]
fn a_token_cannot_be_judged_before_a_key_is_fetched() {
    let url = Some("http://127.0.0.1:1/keys".to_owned());
    let auth = auth(&Settings { enabled: true, jwks_url: url, ..Settings::default() });
    assert_eq!(check(&auth, "any.token.here"), Err(Error::NoKeys));
    assert_eq!(auth.caller(&HeaderMap::new()), Err(Error::NoToken));
}
