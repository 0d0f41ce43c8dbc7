//! What stops the start, and what is printed.

use std::fs;

use luminate_tests::worker::Setup;

#[test]
fn a_value_out_of_range_stops_the_start_and_names_key_and_value() {
    for (key, value) in [
        ("server.port", "70000"),
        ("server.port", "http"),
        ("server.header_timeout", "soon"),
        ("server.max_body_bytes", "-1"),
        ("storage.backend", "sqlite"),
        ("storage.rocksdb.ack", "never"),
        ("ingest.max_batch", "0"),
        ("ingest.max_age", "7"),
        ("query_limits.max_timeout", "1"),
        ("cardinality_limits.max_dimensions", "many"),
        ("logging.level", "loud"),
        ("auth.enabled", "perhaps"),
    ] {
        let (status, said) = Setup::new().with(key, value).run(&[]);
        assert!(!status.success(), "{key}={value} started");
        assert!(said.contains(key) && said.contains(value), "{key}={value}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn auth_without_a_sound_key_stops_the_start_and_hides_the_secret() {
    let auth = Setup::new().with("auth.enabled", true);
    let (status, said) = auth.run(&[]);
    assert!(!status.success() && said.contains("auth"), "{said}");
    let (status, said) = auth.clone().with("auth.jwt_secret", "short-canary").run(&[]);
    assert!(!status.success() && said.contains("auth.jwt_secret") && said.contains("32"), "{said}");
    assert!(!said.contains("short-canary"), "{said}");
    let (status, said) = auth.with("auth.public_key_file", "/nowhere/key.pem").run(&[]);
    assert!(!status.success() && said.contains("/nowhere/key.pem"), "{said}");
}

#[test]
fn unknown_keys_and_unset_variables_of_the_file_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.yaml");
    let run = |text: &str| {
        fs::write(&file, text).unwrap();
        Setup::new().run(&["--config", file.to_str().unwrap()])
    };
    for (text, word) in [
        ("server: {prt: 1}\n", "prt"),
        ("servers: {}\n", "servers"),
        ("server: {port: ${NO_SUCH_VARIABLE}}\n", "NO_SUCH_VARIABLE"),
        ("server: [\n", "worker.yaml"),
        ("retention: {default: 30}\n", "retention.default"),
    ] {
        let (status, said) = run(text);
        assert!(!status.success() && said.contains(word), "{text}: {said}");
    }
    let (status, said) = Setup::new().run(&["--config", "/nowhere/worker.yaml"]);
    assert!(!status.success() && said.contains("/nowhere/worker.yaml"), "{said}");
}

#[test]
fn config_prints_what_is_in_force_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.yaml");
    fs::write(&file, "server: {idle_timeout: \"${IDLE:-42s}\"}\ningest: {max_batch: 5}\n").unwrap();
    let setup = Setup::new()
        .with("auth.enabled", true)
        .with("auth.jwt_secret", "a-canary-that-nobody-may-see-anywhere")
        .with("ingest.max_batch", 77);
    let (status, said) = setup.run(&["--config", file.to_str().unwrap(), "config"]);
    assert!(status.success(), "{said}");
    assert!(said.contains("42s") && said.contains("77") && said.contains("max_series_per_metric"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    let (status, _) = setup.run(&["--config", file.to_str().unwrap(), "config", "--check"]);
    assert!(status.success());
    let (status, _) = setup.with("server.port", "x").run(&["config", "--check"]);
    assert!(!status.success());
}

#[test]
fn the_readme_names_every_key() {
    let readme = include_str!("../../README.md");
    let (_, printed) = Setup::new().run(&["config"]);
    let mut planned = false;
    for line in printed.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let name = key.trim();
        if key.len() - name.len() <= 2 {
            // The keys of a backend that is planned are there already.
            planned = name == "clickhouse";
        }
        if !planned && !value.is_empty() {
            assert!(readme.contains(&format!("`{name}`")), "the README doesn't name {name}");
        }
    }
}
