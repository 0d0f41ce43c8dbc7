//! Backups while everything goes on, and what is restored from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use luminate_tests::client::{Client, now, sample};
use luminate_tests::only_on;
use luminate_tests::token::{claims, signed};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};
use tempfile::TempDir;

const WRITERS: usize = 4;
const PATH: &str = "/api/v1/admin/backup";

fn backing_up(folder: &TempDir) -> Setup {
    Setup::new().with("storage.rocksdb.backup_path", folder.path().join("backups").display())
}

fn restored(backup: &Path, into: &Path) {
    let arguments = ["restore", backup.to_str().unwrap(), into.to_str().unwrap()];
    let (status, said) = Setup::new().run(&arguments);
    assert!(status.success(), "{said}");
    let (status, said) = Setup::new().run(&["check", into.to_str().unwrap()]);
    assert!(status.success() && said.contains("sound: "), "{said}");
}

fn folder_of(folder: &TempDir, backup: &Value) -> PathBuf {
    folder.path().join("backups").join(backup["name"].as_str().unwrap())
}

/// A writer whose `n`th batch has its samples at `n`, and who says how many it has sent and how many were acked.
fn write(client: &Client, writer: usize, start: i64, stop: &AtomicBool, sent: &AtomicU64, acked: &AtomicU64) {
    let writer = writer.to_string();
    for n in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let one = |series: &str| {
            sample("m", start + i64::from(n), f64::from(n), &[("writer", &writer), ("series", series)])
        };
        sent.fetch_add(1, Ordering::SeqCst);
        client.store(&[one("a"), one("b")]);
        acked.fetch_add(1, Ordering::SeqCst);
    }
}

/// The batches of each writer that a worker has: all of the first `n`, or this panics.
fn batches(worker: &Worker, start: i64) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for writer in 0..WRITERS {
        let question = json!({"queryType": "range", "metricName": "m", "limit": 10_000,
            "filters": {"writer": writer.to_string(), "series": "a"},
            "timeRange": {"start": start, "end": start + 1_000_000}});
        let rows = worker.client().rows(&question);
        for (n, row) in (0_i64..).zip(&rows) {
            assert_eq!((row["timestamp"].as_i64(), row["value"].as_f64()), (Some(start + n), Some(n as f64)));
        }
        let both = json!({"queryType": "aggregate", "metricName": "m", "aggregation": "count",
            "filters": {"writer": writer.to_string()}, "timeRange": {"start": start, "end": start + 1_000_000}});
        let count = worker.client().rows(&both).first().map_or(0, |row| row["count"].as_u64().unwrap());
        assert_eq!(count, 2 * rows.len() as u64, "a batch is there wholly or not at all");
        found.insert(writer.to_string(), rows.len() as u64);
    }
    found
}

#[test]
fn a_backup_under_writes_has_what_was_acked_before_it_and_nothing_that_was_not_written() {
    only_on!(RocksDb, "its own backups");
    let folder = tempfile::tempdir().unwrap();
    let worker = backing_up(&folder).with("storage.rocksdb.seal_window", "1s").start();
    let start = now() - 3_000_000;
    let stop = AtomicBool::new(false);
    let [sent, acked] = [(); 2].map(|()| [(); WRITERS].map(|()| AtomicU64::new(0)));
    let read = |all: &[AtomicU64; WRITERS]| -> Vec<u64> {
        all.iter().map(|one| one.load(Ordering::SeqCst)).collect()
    };
    let taken = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, stop, sent, acked) = (worker.client(), &stop, &sent[writer], &acked[writer]);
            scope.spawn(move || write(&client, writer, start, stop, sent, acked));
        }
        let mut taken = Vec::new();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(1_300));
            let before = read(&acked);
            let backup = worker.client().send("POST", PATH, &[], &[]).expect(200);
            taken.push((before, backup, read(&sent)));
        }
        stop.store(true, Ordering::Relaxed);
        taken
    });
    let listed = worker.client().get(PATH).expect(200);
    let made: Vec<Value> = taken.iter().map(|(_, backup, _)| backup.clone()).collect();
    assert_eq!(listed, json!({"backups": made}));
    for (before, backup, after) in &taken {
        let into = folder.path().join(format!("restored-{}", backup["commit"]));
        restored(&folder_of(&folder, backup), &into);
        let again = Setup::new().with("storage.rocksdb.path", into.display()).start();
        for (writer, found) in batches(&again, start) {
            let writer: usize = writer.parse().unwrap();
            let (least, most) = (before[writer], after[writer]);
            assert!((least..=most).contains(&found), "writer {writer}: {found} of {least} to {most}");
        }
        // What is restored goes on.
        again.client().store(&[sample("after", now(), 1.0, &[])]);
        assert_eq!(again.client().count("after"), 1);
    }
    let whole: Vec<u64> = batches(&worker, start).into_values().collect();
    assert_eq!(whole, read(&acked), "the store itself lost nothing");
}

#[test]
fn only_its_own_scope_allows_a_backup() {
    only_on!(RocksDb, "its own backups");
    let folder = tempfile::tempdir().unwrap();
    let worker = backing_up(&folder).with_auth().start();
    for (scopes, status) in [(&["read", "write", "admin"][..], 403), (&["backup"][..], 200)] {
        let client = worker.client().with_token(signed(&claims("acme", scopes)));
        assert_eq!(client.send("POST", PATH, &[], &[]).status, status, "{scopes:?}");
        assert_eq!(client.get(PATH).status, status, "{scopes:?}");
        assert_eq!(client.delete(&format!("{PATH}/1-1")).status, if status == 200 { 404 } else { 403 });
    }
    let backup = worker.client().with_token(signed(&claims("acme", &["backup"])));
    assert_eq!(backup.get("/api/v1/metrics").status, 403, "it implies no other");
}

#[test]
fn a_store_that_makes_none_says_what_does() {
    let worker = Worker::start();
    let message = worker.client().send("POST", PATH, &[], &[]).expect(409)["error"]["message"].to_string();
    let names = match luminate_tests::worker::Backend::of_suite() {
        luminate_tests::worker::Backend::RocksDb => "storage.rocksdb.backup_path",
        luminate_tests::worker::Backend::ClickHouse => "BACKUP DATABASE",
    };
    assert!(message.contains(names), "{message}");
}

#[test]
fn backups_are_deleted_by_name_and_what_was_not_finished_goes_at_the_next_start() {
    only_on!(RocksDb, "its own backups");
    let folder = tempfile::tempdir().unwrap();
    let mut worker = backing_up(&folder).start();
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    let backup = worker.client().send("POST", PATH, &[], &[]).expect(200);
    let name = backup["name"].as_str().unwrap().to_owned();
    let unfinished = folder.path().join("backups").join("17.unfinished");
    fs::create_dir_all(unfinished.join("tables")).unwrap();
    let (status, said) = Setup::new().run(&["restore", unfinished.to_str().unwrap(), "x"]);
    assert!(!status.success() && !said.contains("panicked"), "{said}");
    assert_eq!(worker.client().get(PATH).expect(200)["backups"].as_array().unwrap().len(), 1);
    worker.restart();
    assert!(!unfinished.exists());
    for other in ["17", "..", "%2e%2e", "..%2f..", "log"] {
        assert_eq!(worker.client().delete(&format!("{PATH}/{other}")).status, 404, "{other}");
    }
    assert_eq!(worker.client().delete(&format!("{PATH}/{name}")).status, 204);
    assert_eq!(worker.client().get(PATH).expect(200), json!({"backups": []}));
    assert!(!folder_of(&folder, &backup).exists());
}

#[test]
fn a_restore_refuses_a_folder_that_is_not_empty_and_a_backup_that_is_damaged() {
    only_on!(RocksDb, "its own backups");
    let folder = tempfile::tempdir().unwrap();
    let worker = backing_up(&folder).start();
    worker.client().store(&[sample("m", now(), 1.0, &[])]);
    let backup = folder_of(&folder, &worker.client().send("POST", PATH, &[], &[]).expect(200));
    let run = |from: &Path, into: &Path| {
        Setup::new().run(&["restore", from.to_str().unwrap(), into.to_str().unwrap()])
    };
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("something"), "here").unwrap();
    let (status, said) = run(&backup, &full);
    assert!(status.code() == Some(1) && said.contains("is not empty"), "{said}");
    let segment = fs::read_dir(backup.join("log")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4_096 + 50] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let into = folder.path().join("into");
    let (status, said) = run(&backup, &into);
    assert!(status.code() == Some(1) && said.contains("the backup is damaged"), "{said}");
    assert!(!into.exists());
    // A restore that was cut off is no store.
    fs::create_dir_all(into.join("restoring")).unwrap();
    let (status, said) = Setup::new().over(&into).run(&[]);
    assert!(!status.success() && said.contains("was not finished"), "{said}");
}
