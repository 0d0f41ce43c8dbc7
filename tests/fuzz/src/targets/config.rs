//! The worker's file: what is read is printed as a file that means the same, and says no secret.

use luminate_crds::worker_config::{Secret, WorkerConfig};
use luminate_worker::config::{Environment, Loaded, parse, print};

use crate::memory;

/// Words of such files.
pub const WORDS: &[&str] = &[
    "server:\\x0a",
    "  port: ",
    "auth:\\x0a",
    "  jwt_secret: ",
    "storage:\\x0a",
    "  backend: clickhouse",
    "${PORT}",
    "${SECRET}",
    "${NONE:-5 MB}",
    "  clickhouse:\\x0a",
    "    endpoints: [",
    "retention:\\x0a",
    "  default: 90d",
    "rate_limits:\\x0a",
    "tiers:",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|-\\x0a",
    "query_limits:\\x0a",
    "logging:\\x0a",
];

const SECRET: &str = "a secret that must not be printed";

/// Reads a file.
pub fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let environment =
        Environment::from([("PORT", "9000"), ("SECRET", SECRET), ("LUMINATE_SERVER_PORT", "8081")]);
    // A reader of YAML takes some memory for each level, and its messages repeat what is wrong.
    match memory::within((4 << 20) + 512 * text.len(), || parse(text, &environment)) {
        Err(error) => assert!(!error.to_string().contains(SECRET) || !names_it_as_a_secret_only(text)),
        Ok(Loaded { config, .. }) => {
            let printed = print(&config).expect("every configuration can be printed");
            let with_others = print(&with_other_secrets(&config)).expect("only the secrets differ");
            assert_eq!(printed, with_others, "what is printed doesn't depend on secrets");
            if !printed.contains("***") {
                let again = parse(&printed, &Environment::default());
                let again = again.unwrap_or_else(|error| panic!("{error}:\n{printed}"));
                assert_eq!(again.config, config, "{printed}");
            }
        }
    }
}

/// Whether the variable stands for the token's secret and for nothing else, whose value a message may show.
fn names_it_as_a_secret_only(text: &str) -> bool {
    text.starts_with("auth:\n  jwt_secret: ${SECRET}\n") && text.matches("SECRET").count() == 1
}

fn with_other_secrets(config: &WorkerConfig) -> WorkerConfig {
    let mut config = config.clone();
    for secret in [&mut config.auth.jwt_secret, &mut config.storage.clickhouse.password] {
        *secret = secret.as_ref().map(|secret| Secret::new(format!("not {}", secret.expose())));
    }
    config
}

/// Files that workers start with.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "server:\n  port: ${PORT}\n  max_body_bytes: ${SIZE:-5 MB}\nauth:\n  jwt_secret: \"${SECRET}\"\n",
        "storage:\n  backend: clickhouse\n  clickhouse:\n    endpoints: [\"http://clickhouse:8123\"]\n    ack: durable\nauth:\n  enabled: false\n",
        "auth: {enabled: false}\nretention:\n  default: 90d\nrate_limits:\n  write_rps: 7\nlogging:\n  level: debug\n",
        "auth:\n  jwt_secret: ${SECRET}\nserver:\n  port: 8080\n",
        "# nothing\n",
    ];
    files.map(|file| file.as_bytes().to_vec()).into()
}
