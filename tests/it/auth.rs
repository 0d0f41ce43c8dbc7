//! Tokens: which are taken, which are refused, and what a scope allows.

use std::fs;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use luminate_tests::client::{now, sample};
use luminate_tests::http::Connection;
use luminate_tests::process;
use luminate_tests::routes::{Route, filled, routes};
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
        ("very long", format!("{}.{}.{}", parts[0], "A".repeat(30_000), parts[2])),
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
    tokens.extend(crafted_tokens());
    tokens
}

/// A token of these very texts, rightly signed with HS256.
fn crafted(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", raw_part(header), raw_part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Tokens whose signature is right, and something else isn't.
fn crafted_tokens() -> Vec<(&'static str, String)> {
    const HS256: &str = r#"{"alg":"HS256"}"#;
    let good = claims("acme", &EVERYTHING).to_string();
    let exp = now() / 1_000 + 3_600;
    let with = |more: &str| format!("{},{more}}}", &good[..good.len() - 1]);
    let long = "x".repeat(10_000);
    let mut tokens: Vec<(&'static str, String)> = Vec::new();
    for (what, header) in [
        ("alg none, signed", r#"{"alg":"none"}"#),
        ("alg NONE, signed", r#"{"alg":"NONE"}"#),
        ("alg empty", r#"{"alg":""}"#),
        ("alg in small letters", r#"{"alg":"hs256"}"#),
        ("alg of another HMAC", r#"{"alg":"HS512"}"#),
        ("alg of another HMAC, shorter", r#"{"alg":"HS384"}"#),
        ("alg ES256, signed with the secret", r#"{"alg":"ES256"}"#),
        ("alg EdDSA, signed with the secret", r#"{"alg":"EdDSA"}"#),
        ("alg PS256, signed with the secret", r#"{"alg":"PS256"}"#),
        ("alg a number", r#"{"alg":256}"#),
        ("alg null", r#"{"alg":null}"#),
        ("alg a list", r#"{"alg":["HS256","none"]}"#),
        ("alg twice", r#"{"alg":"HS256","alg":"none"}"#),
        ("alg twice, the other way", r#"{"alg":"none","alg":"HS256"}"#),
        ("crit", r#"{"alg":"HS256","crit":["exp"]}"#),
        ("crit empty", r#"{"alg":"HS256","crit":[]}"#),
        ("jku", r#"{"alg":"HS256","jku":"http://127.0.0.1/keys"}"#),
        ("jwk", r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#),
        ("x5u", r#"{"alg":"HS256","x5u":"http://127.0.0.1/c"}"#),
        ("x5c", r#"{"alg":"HS256","x5c":["MII"]}"#),
        ("b64", r#"{"alg":"HS256","b64":false}"#),
        ("zip", r#"{"alg":"HS256","zip":"DEF"}"#),
        ("enc", r#"{"alg":"HS256","enc":"A256GCM"}"#),
        ("kid a number", r#"{"alg":"HS256","kid":7}"#),
        ("kid a list", r#"{"alg":"HS256","kid":["a"]}"#),
        ("typ of another kind", r#"{"alg":"HS256","typ":"JWE"}"#),
        ("typ a number", r#"{"alg":"HS256","typ":1}"#),
        ("header a list", r#"["HS256"]"#),
        ("header a text", r#""HS256""#),
        ("header empty", ""),
        ("header with something behind", r#"{"alg":"HS256"}x"#),
        ("header with a byte order mark", "\u{feff}{\"alg\":\"HS256\"}"),
    ] {
        tokens.push((what, crafted(header, &good)));
    }
    tokens.push(("kid very long", crafted(&format!(r#"{{"alg":"HS256","kid":"{long}"}}"#), &good)));
    for (what, claims) in [
        ("no claims", String::new()),
        ("claims a list", format!("[{good}]")),
        ("claims null", "null".to_owned()),
        ("claims with something behind", format!("{good}{good}")),
        ("tenant twice", with(r#""tenant_id":"other""#)),
        ("exp twice", with(&format!(r#""exp":{exp}"#))),
        ("scopes twice", with(r#""scopes":["read"]"#)),
        ("nbf null", with(r#""nbf":null"#)),
        ("nbf a list", with(r#""nbf":[0]"#)),
        ("nbf negative", with(r#""nbf":-1"#)),
        ("tier empty", with(r#""tier":"""#)),
        ("tier very long", with(&format!(r#""tier":"{long}""#))),
        ("tier a list", with(r#""tier":["gold"]"#)),
        ("exp after the last year", good.replace(&format!("\"exp\":{exp}"), "\"exp\":1e300")),
        ("exp of milliseconds", good.replace(&format!("\"exp\":{exp}"), &format!("\"exp\":{exp}000"))),
        ("exp true", good.replace(&format!("\"exp\":{exp}"), "\"exp\":true")),
        ("exp a list", good.replace(&format!("\"exp\":{exp}"), &format!("\"exp\":[{exp}]"))),
        ("exp over all numbers", good.replace(&format!("\"exp\":{exp}"), "\"exp\":1e999")),
        ("iat null", but("iat", Value::Null).to_string()),
        ("iat negative", but("iat", json!(-1)).to_string()),
        ("tenant an object", but("tenant_id", json!({"id": "acme"})).to_string()),
        ("tenant true", but("tenant_id", json!(true)).to_string()),
        ("tenant with a newline", but("tenant_id", json!("acme\n")).to_string()),
        ("tenant of another script", but("tenant_id", json!("acmе")).to_string()),
        ("scopes null", but("scopes", Value::Null).to_string()),
        ("scopes an object", but("scopes", json!({"read": true})).to_string()),
        ("scopes in a list in a list", but("scopes", json!([["read"]])).to_string()),
        ("scopes that don't exist", but("scopes", json!(["read", "root"])).to_string()),
        ("scopes in capitals", but("scopes", json!(["READ"])).to_string()),
    ] {
        tokens.push((what, crafted(HS256, &claims)));
    }
    let right = crafted(HS256, &good);
    let (message, signature) = right.rsplit_once('.').unwrap();
    for (what, token) in [
        ("padding behind", format!("{right}=")),
        ("a dot behind", format!("{right}.")),
        ("a dot before", format!(".{right}")),
        ("a byte more of signature", format!("{right}AA")),
        ("a byte less of signature", right[..right.len() - 2].to_owned()),
        ("the signature twice", format!("{right}.{signature}")),
        ("the signature of the claims alone", {
            let alone = crafted("", &good);
            format!("{message}.{}", alone.rsplit_once('.').unwrap().1)
        }),
        ("a percent escape", right.replacen('.', "%2e", 1)),
        ("a space within", right.replacen('.', " .", 1)),
    ] {
        tokens.push((what, token));
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
    // The control: what the crafted ones differ from is taken.
    let right = crafted(r#"{"alg":"HS256"}"#, &claims("acme", &EVERYTHING).to_string());
    assert_eq!(worker.client().with_token(right).get("/api/v1/metrics").status, 200);
    let vectors = wrong_tokens();
    assert!(vectors.len() >= 100, "{} tokens", vectors.len());
    for (what, token) in vectors {
        let answer = worker.client().with_token(&token).get("/api/v1/metrics");
        // A token too long for the headers' limit may be refused as such.
        assert!([401, 431].contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        assert!(token.is_empty() || !answer.text().contains(&token), "{what}");
    }
    for Route { method, path, needs_token } in routes(&worker) {
        let path = filled(&path, "m");
        let answer = worker.client().send(&method, &path, &[], &[]);
        assert_eq!(answer.status == 401, needs_token, "{method} {path}");
        if !needs_token {
            continue;
        }
        assert!(!answer.refused(401).is_empty(), "{method} {path}");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        let bad = format!("Bearer {}x", token::of("acme"));
        for authorization in ["Basic YTpi", "Bearer", "Bearer ", "Token x", "Bearer null", "", &bad] {
            let refused = worker.client().send(&method, &path, &[("authorization", authorization)], &[]);
            assert_eq!(refused.status, 401, "{method} {path} with {authorization:?}");
        }
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

#[test]
fn what_a_token_names_is_never_opened_or_fetched() {
    let worker = Setup::new().with_auth().start();
    let good = claims("acme", &EVERYTHING).to_string();
    // A name of a key is compared with those that are known: with a shared secret there are none.
    for kid in
        ["../../../../etc/passwd", "/dev/zero", "http://127.0.0.1:1/", "' or 1=1", "a\\u0000b", "%00", ""]
    {
        let token = crafted(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), &good);
        let answer = worker.client().with_token(token).get("/api/v1/metrics");
        assert!([200, 401].contains(&answer.status), "{kid}: {}", answer.text());
        assert!(!answer.text().contains("root:"), "{kid}");
    }
}

#[test]
fn a_token_of_eight_megabytes_costs_no_memory() {
    let worker = Setup::new().with_auth().start();
    let long = format!("{}.{}.x", raw_part(r#"{"alg":"HS256"}"#), "A".repeat(8 << 20));
    process::reset_peak(worker.pid());
    let before = worker.rss();
    for _ in 0..5 {
        let mut connection = Connection::open(worker.address()).unwrap();
        let request = worker.client().with_token(&long).request("GET", "/api/v1/metrics", &[], &[]);
        let _ = connection.send(&request);
        // Refused for its size, or hung up on while it is still being sent.
        if let Ok(answer) = connection.receive() {
            assert!([400, 401, 431].contains(&answer.status), "{}", answer.status);
        }
    }
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{} MB", grown >> 20);
    assert!(worker.is_ready());
}

#[test]
fn a_token_is_taken_from_its_header_only_and_once() {
    let worker = Setup::new().with_auth().start();
    let token = token::of("acme");
    let bearer = format!("Bearer {token}");
    let get = |path: &str, headers: &[(&str, &str)]| worker.client().send("GET", path, headers, &[]).status;
    assert_eq!(get("/api/v1/metrics", &[("authorization", &bearer)]), 200);
    for query in ["access_token", "token", "authorization", "jwt"] {
        assert_ne!(get(&format!("/api/v1/metrics?{query}={token}"), &[]), 200, "{query}");
    }
    for header in ["x-authorization", "proxy-authorization", "x-access-token", "cookie"] {
        assert_eq!(get("/api/v1/metrics", &[(header, &bearer)]), 401, "{header}");
    }
    let other = format!("Bearer {}", token::of("other"));
    assert_eq!(get("/api/v1/metrics", &[("authorization", &bearer), ("authorization", &other)]), 401);
    assert_eq!(get("/api/v1/metrics", &[("authorization", &format!("{bearer}, {other}"))]), 401);
    for header in [("x-tenant-id", "other"), ("x-scope-orgid", "other"), ("x-forwarded-user", "other")] {
        assert_eq!(
            get("/api/v1/metrics", &[("authorization", &bearer), header]),
            200,
            "{header:?} says nothing"
        );
    }
}
