//! `luminate-worker check`: what it finds, and that it changes nothing; and folders that a worker refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luminate_tests::client::{now, sample};
use luminate_tests::only_on;
use luminate_tests::worker::{Setup, Worker};
use serde_json::Value;

fn check(folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["check", folder.to_str().unwrap()], more].concat();
    let (status, said) = Setup::new().run(&arguments);
    assert!(!said.contains("panicked"), "{said}");
    (status.code(), said)
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// A folder that was closed, with sealed samples of one tenant and a few that only the log holds.
fn folder() -> (Worker, PathBuf) {
    let mut worker = Setup::new().with("storage.rocksdb.seal_window", "1s").start();
    let samples: Vec<Value> = (0..8_000)
        .map(|n| sample("cpu", now() - 100_000 + n, n as f64 * 0.37, &[("host", &(n % 80).to_string())]))
        .collect();
    worker.client().store(&samples);
    let deadline = Instant::now() + Duration::from_secs(60);
    while largest_table(&worker.data()).1 < 10_000 {
        assert!(Instant::now() < deadline, "no table was written");
        std::thread::sleep(Duration::from_millis(50));
    }
    worker.terminate();
    worker.wait(Duration::from_secs(30));
    let data = worker.data();
    (worker, data)
}

fn largest_table(data: &Path) -> (PathBuf, usize) {
    let tables = fs::read_dir(data.join("tables")).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|suffix| suffix == "sst"));
    let sizes =
        tables.map(|path| (path.clone(), fs::metadata(&path).map_or(0, |found| found.len() as usize)));
    sizes.max_by_key(|(_, size)| *size).unwrap_or_default()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_sound_folder_is_called_so_and_not_touched() {
    only_on!(RocksDb, "its folder");
    let (_worker, data) = folder();
    let before = files(&data);
    let (code, said) = check(&data, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("sound: 80 series, 8000 samples"), "{said}");
    let (code, said) = check(&data, &["--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, &report["damage"], &report["counts"]["samples"]),
        (Some(0), &serde_json::json!([]), &8_000.into())
    );
    assert!(files(&data) == before, "a check changes nothing");
}

#[test]
fn damage_is_named_by_tenant_metric_and_time() {
    only_on!(RocksDb, "its folder");
    let (_worker, data) = folder();
    let (table, size) = largest_table(&data);
    let before = fs::read(&table).unwrap();
    flip(&table, size / 2);
    let (code, said) = check(&data, &[]);
    assert_eq!(code, Some(1), "{said}");
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("damaged: tenant default, metric cpu, 20"), "{said}");
    assert!(first.contains("Z to 20") && said.contains("damaged in 1 places"), "{said}");
    let (code, said) = check(&data, &["--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &report["damage"][0]["metric"]), (Some(1), &"cpu".into()), "{said}");
    fs::write(&table, before).unwrap();
    assert_eq!(check(&data, &[]).0, Some(0));
}

#[test]
fn a_folder_in_use_and_what_is_no_folder_are_refused_in_one_sentence() {
    only_on!(RocksDb, "its folder");
    let worker = Worker::start();
    let (code, said) = check(&worker.data(), &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("is in use by a running worker"), "{said}");
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    let empty = tempfile::tempdir().unwrap();
    for (path, why) in
        [(empty.path().to_owned(), "no data folder"), (empty.path().join("none"), "No such file")]
    {
        let (code, said) = check(&path, &[]);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_folder_of_another_version_is_refused_in_one_sentence_by_check_and_worker() {
    only_on!(RocksDb, "its folder");
    let (_worker, data) = folder();
    for entry in fs::read_dir(data.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "log") {
            let mut bytes = fs::read(&path).unwrap();
            bytes[8] = 9;
            fs::write(&path, bytes).unwrap();
        }
    }
    let (code, said) = check(&data, &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("format 9; this version of Luminate reads and writes format 1"), "{said}");
    let (status, said) = Setup::new().over(&data).run(&[]);
    assert!(!status.success(), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("format 9"), "{said}");
}

#[test]
fn a_locked_folder_is_refused_in_one_sentence() {
    only_on!(RocksDb, "its folder");
    let worker = Worker::start();
    let (status, said) = Setup::new()
        .with("storage.rocksdb.path", worker.data().display())
        .with("server.port", luminate_tests::worker::free_address().port())
        .run(&[]);
    assert!(!status.success(), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("is in use by another process"), "{said}");
}

#[test]
fn a_folder_that_lacks_its_list_of_tables_is_refused_and_kept() {
    only_on!(RocksDb, "its folder");
    let (_worker, data) = folder();
    fs::remove_file(data.join("tables").join("CURRENT")).unwrap();
    let (status, said) = Setup::new().with("storage.rocksdb.path", data.display()).run(&[]);
    assert!(!status.success() && said.contains("CURRENT is missing"), "{said}");
    assert!(largest_table(&data).1 > 10_000, "nothing was removed");
    assert_eq!(check(&data, &[]).0, Some(1));
}
