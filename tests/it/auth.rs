//! Tokens: which are taken, which are refused, and what a scope allows.

use std::fs;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use luminate_tests::client::{now, sample};
use luminate_tests::token::{self, SECRET, claims, signed, signed_with};
use luminate_tests::worker::Setup;
use serde_json::{Value, json};

const EVERYTHING: [&str; 3] = ["read", "write", "admin"];

fn but(key: &str, value: Value) -> Value {
    let mut claims = claims("acme", &EVERYTHING);
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = claims("acme", &EVERYTHING);
    claims.as_object_mut().unwrap().remove(key);
    claims
}

/// Tokens of every wrong kind, with what is wrong.
fn wrong_tokens() -> Vec<(&'static str, String)> {
    let seconds = now() / 1_000;
    let good = token::of("acme");
    let parts: Vec<&str> = good.split('.').collect();
    let base64 = |text: &str| -> String { raw_part(text) };
    let header = |text: &str| format!("{}.{}.{}", base64(text), parts[1], parts[2]);
    let mut tokens = vec![
        ("empty", String::new()),
        ("no token at all", "hello".to_owned()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.x")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "another's signature",
            format!("{}.{}.{}", parts[0], parts[1], token::of("other").split('.').nth(2).unwrap()),
        ),
        (
            "other claims under the signature",
            format!("{}.{}.{}", parts[0], raw_part(&claims("other", &EVERYTHING).to_string()), parts[2]),
        ),
        ("algorithm none", header(r#"{"alg":"none"}"#)),
        ("algorithm None", header(r#"{"alg":"None"}"#)),
        ("algorithm of a public key", header(r#"{"alg":"RS256"}"#)),
        ("no algorithm", header(r#"{"typ":"JWT"}"#)),
        ("a critical extension", header(r#"{"alg":"HS256","crit":["x"],"x":1}"#)),
        (
            "signed with nothing",
            signed_with(&Header::new(Algorithm::HS256), &claims("acme", &EVERYTHING), b""),
        ),
        (
            "signed with another secret",
            signed_with(
                &Header::new(Algorithm::HS256),
                &claims("acme", &EVERYTHING),
                b"another secret that is long enough!!",
            ),
        ),
        (
            "signed with half the secret",
            signed_with(
                &Header::new(Algorithm::HS256),
                &claims("acme", &EVERYTHING),
                &SECRET.as_bytes()[..20],
            ),
        ),
        ("8 MB", format!("{}.{}.{}", parts[0], "A".repeat(30_000), parts[2])),
    ];
    for (what, claims) in [
        ("no exp", without("exp")),
        ("exp in the past", but("exp", json!(seconds - 3_600))),
        ("exp as text", but("exp", json!((seconds + 3_600).to_string()))),
        ("exp null", but("exp", Value::Null)),
        ("exp negative", but("exp", json!(-1))),
        ("nbf in the future", but("nbf", json!(seconds + 3_600))),
        ("nbf as text", but("nbf", json!("now"))),
        ("iat in the future", but("iat", json!(seconds + 3_600))),
        ("iat as text", but("iat", json!("now"))),
        ("no tenant", without("tenant_id")),
        ("tenant null", but("tenant_id", Value::Null)),
        ("tenant a number", but("tenant_id", json!(7))),
        ("tenant a list", but("tenant_id", json!(["acme"]))),
        ("tenant empty", but("tenant_id", json!(""))),
        ("tenant with a path", but("tenant_id", json!("../acme"))),
        ("tenant with an escape", but("tenant_id", json!("a%2e"))),
        ("tenant with NUL", but("tenant_id", json!("acme\u{0}"))),
        ("tenant with a space", but("tenant_id", json!("acme "))),
        ("tenant with an umlaut", but("tenant_id", json!("äcme"))),
        ("tenant too long", but("tenant_id", json!("a".repeat(65)))),
        ("scopes as text", but("scopes", json!("read write admin"))),
        ("scopes of numbers", but("scopes", json!([1]))),
        ("tier a number", but("tier", json!(7))),
    ] {
        tokens.push((what, signed(&claims)));
    }
    tokens
}

/// Base64url without padding.
fn raw_part(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        encoded.extend((0..=chunk.len()).map(|at| digit(bits >> (18 - 6 * at))));
    }
    encoded
}

#[test]
fn wrong_tokens_are_401_on_every_route_and_say_nothing_of_themselves() {
    let worker = Setup::new().with_auth().start();
    let good = worker.client_of("acme");
    good.store(&[sample("m", now(), 1.0, &[])]);
    for (what, token) in wrong_tokens() {
        let answer = worker.client().with_token(&token).get("/api/v1/metrics");
        // A token too long for the headers' limit may be refused as such.
        assert!([401, 431].contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        assert!(token.is_empty() || !answer.text().contains(&token), "{what}");
    }
    for (method, path) in [
        ("POST", "/api/v1/write"),
        ("POST", "/api/v1/prom/write"),
        ("POST", "/api/v1/import/prometheus"),
        ("POST", "/api/v2/write"),
        ("POST", "/write"),
        ("POST", "/v1/metrics"),
        ("POST", "/api/v1/query"),
        ("POST", "/api/v1/query/explain"),
        ("GET", "/api/v1/queries"),
        ("DELETE", "/api/v1/queries/x"),
        ("GET", "/api/v1/metrics"),
        ("GET", "/api/v1/metrics/m/dimensions"),
        ("GET", "/api/v1/metrics/m/dimensions/k/values"),
        ("GET", "/api/v1/cardinality"),
        ("DELETE", "/api/v1/admin/metrics/m"),
        ("GET", "/api/v1/admin/retention"),
        ("PUT", "/api/v1/admin/retention"),
        ("GET", "/api/v1/admin/usage"),
        ("GET", "/api/v1/admin/export"),
        ("POST", "/api/v1/admin/import"),
        ("POST", "/api/v1/admin/backup"),
        ("GET", "/api/v1/admin/backup"),
        ("DELETE", "/api/v1/admin/backup/1-1"),
    ] {
        let answer = worker.client().send(method, path, &[], &[]);
        assert!(!answer.refused(401).is_empty(), "{method} {path}");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        let basic = worker.client().send(method, path, &[("authorization", "Basic YTpi")], &[]);
        assert_eq!(basic.status, 401, "{method} {path}");
    }
    assert_eq!(good.count("m"), 1);
    assert!(!worker.log().contains(SECRET));
}

#[test]
fn probes_figures_and_the_description_need_no_token() {
    let worker = Setup::new().with_auth().start();
    let paths = ["", "/live", "/ready", "/startup"].map(|probe| format!("/api/v1/health{probe}"));
    for path in paths.iter().map(String::as_str).chain(["/metrics", "/api/v1/openapi.json"]) {
        assert_eq!(worker.client().get(path).status, 200, "{path}");
    }
}

#[test]
fn no_scope_implies_another() {
    let worker = Setup::new().with_auth().start();
    worker.client_of("acme").store(&[sample("m", now(), 1.0, &[])]);
    let question = json!({"queryType": "range", "metricName": "m", "timeRange": {"relative": "1h"}});
    for scope in EVERYTHING {
        let client = worker.client().with_token(signed(&claims("acme", &[scope])));
        let allowed = |wanted: &str| if scope == wanted { 200 } else { 403 };
        assert_eq!(client.write(&[sample("m", now(), 1.0, &[])]).status, allowed("write"), "{scope}");
        assert_eq!(client.query(&question).status, allowed("read"), "{scope}");
        assert_eq!(client.get("/api/v1/metrics").status, allowed("read"), "{scope}");
        assert_eq!(client.get("/api/v1/cardinality").status, allowed("read"), "{scope}");
        assert_eq!(client.get("/api/v1/admin/usage").status, allowed("admin"), "{scope}");
        assert_eq!(client.get("/api/v1/admin/export").status, allowed("admin"), "{scope}");
        assert_eq!(client.send("POST", "/api/v1/admin/import", &[], &[]).status, allowed("admin"), "{scope}");
        assert_eq!(client.delete("/api/v1/admin/metrics/m?dryRun=true").status, allowed("admin"), "{scope}");
    }
    let nobody = worker.client().with_token(signed(&claims("acme", &[])));
    assert_eq!(nobody.query(&question).status, 403);
}

#[test]
fn every_hmac_is_taken_and_clocks_may_differ_by_the_leeway() {
    let worker = Setup::new().with_auth().start();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = signed_with(&Header::new(algorithm), &claims("acme", &EVERYTHING), SECRET.as_bytes());
        assert_eq!(worker.client().with_token(token).get("/api/v1/metrics").status, 200, "{algorithm:?}");
    }
    let seconds = now() / 1_000;
    let late = signed(&but("exp", json!(seconds - 30)));
    assert_eq!(worker.client().with_token(late).get("/api/v1/metrics").status, 200);
}

#[test]
fn issuer_and_audience_are_checked_once_they_are_set() {
    let worker = Setup::new().with_auth().with("auth.issuer", "us").with("auth.audience", "luminate").start();
    let status = |claims: &Value| worker.client().with_token(signed(claims)).get("/api/v1/metrics").status;
    let both = |issuer: Value, audience: Value| {
        let mut claims = but("iss", issuer);
        claims["aud"] = audience;
        status(&claims)
    };
    assert_eq!(both(json!("us"), json!("luminate")), 200);
    assert_eq!(both(json!("us"), json!(["other", "luminate"])), 200);
    assert_eq!(both(json!("them"), json!("luminate")), 401);
    assert_eq!(both(json!("us"), json!("other")), 401);
    assert_eq!(both(json!(7), json!("luminate")), 401);
    assert_eq!(both(json!("us"), Value::Null), 401);
    assert_eq!(status(&claims("acme", &EVERYTHING)), 401);
}

#[test]
fn public_keys_are_read_from_a_file_and_shared_secrets_are_then_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let path = folder.path().join("key.pem");
    let public = key.public_key_pem();
    fs::write(&path, &public).unwrap();
    let worker = Setup::new().with("auth.enabled", true).with("auth.public_key_file", path.display()).start();
    let private = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::ES256), &claims("acme", &EVERYTHING), &private).unwrap();
    let status = |token: String| worker.client().with_token(token).get("/api/v1/metrics").status;
    assert_eq!(status(token), 200);
    // The public key as if it were a shared secret.
    let confused =
        signed_with(&Header::new(Algorithm::HS256), &claims("acme", &EVERYTHING), public.as_bytes());
    assert_eq!(status(confused), 401);
}
