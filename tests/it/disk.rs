//! A disk that is full for a while, and one that can only be read. Both need root.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use luminate_tests::client::{now, sample};
use luminate_tests::only_on;
use luminate_tests::worker::{Setup, Worker};
use serde_json::Value;
use tempfile::TempDir;

/// A file system of its own, unmounted when it goes.
struct Disk(TempDir);

impl Disk {
    /// One in memory of `bytes`; none without root.
    fn small(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder.path()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn mount(arguments: &[&str], on: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(on).output();
    let mounted = mounted.is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: mounting needs root");
    }
    mounted
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a worker that a failed test leaves may still hold files.
        let _left = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn batch(round: u32) -> Vec<Value> {
    let start = now() - 600_000;
    // Of full entropy, so that it takes room whatever packs it.
    let mut random = fastrand::Rng::with_seed(u64::from(round));
    let row = |n: i64| sample("m", start + n, random.f64(), &[("round", &round.to_string())]);
    (0..2_000).map(row).collect()
}

fn worker_on(disk: &Disk) -> Worker {
    Setup::new()
        .with("storage.rocksdb.path", disk.path().join("data").display())
        .with("storage.rocksdb.log_cap", "1MiB")
        .with("storage.rocksdb.seal_window", "2s")
        .start()
}

#[test]
fn a_full_disk_refuses_writes_and_answers_questions_until_it_has_room() {
    only_on!(RocksDb, "its disk");
    let Some(disk) = Disk::small(64 << 20) else { return };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 32 << 20]).unwrap();
    let mut worker = worker_on(&disk);
    let client = worker.client();
    // 1. Until it is full. Seals fail as well, some time.
    let mut stored = Vec::new();
    let mut refused = 0;
    for round in 0..5_000 {
        let answer = client.write(&batch(round));
        match answer.status {
            200 => stored.push(round),
            503 | 507 => {
                assert!(answer.header("retry-after").is_some());
                refused += 1;
                thread::sleep(Duration::from_millis(100));
            }
            other => panic!("{other}: {}", answer.text()),
        }
        if refused > 60 {
            break;
        }
    }
    assert!(refused > 60 && stored.len() > 50, "{} stored, {refused} refused", stored.len());
    assert_eq!(client.count("m"), 2_000 * stored.len() as u64);
    for probe in ["live", "ready"] {
        assert_eq!(client.get(&format!("/api/v1/health/{probe}")).status, 200, "{probe}");
    }
    // 2. Room again: within 5 s it takes writes.
    fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    let mut round = 10_000;
    while client.write(&batch(round)).status != 200 {
        assert!(freed.elapsed() < Duration::from_secs(5), "{}", worker.log());
        thread::sleep(Duration::from_millis(50));
        round += 1;
    }
    stored.push(round);
    println!("{} rounds stored, writes resumed after {:?}", stored.len(), freed.elapsed());
    // 3. Seals too: the store is healthy again.
    while client.get("/api/v1/health").status != 200 {
        assert!(freed.elapsed() < Duration::from_secs(40), "{}", worker.log());
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.count("m"), 2_000 * stored.len() as u64);
    worker.restart();
    assert_eq!(worker.client().count("m"), 2_000 * stored.len() as u64);
}

/// A file system on a loop device, which the kernel lets only be read after its first error.
struct Loop {
    disk: Disk,
    image: tempfile::NamedTempFile,
    device: String,
}

impl Loop {
    fn new() -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(256 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).output();
        let folder = tempfile::tempdir().unwrap();
        let path = image.path().to_str().unwrap().to_owned();
        let made = made.is_ok_and(|output| output.status.success());
        if !made || !mount(&["-o", "loop,errors=remount-ro", &path], folder.path()) {
            return None;
        }
        let disk = Disk(folder);
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let own = mounts.lines().find(|line| line.contains(disk.path().to_str().unwrap())).unwrap();
        let device = own.split(' ').next().unwrap().trim_start_matches("/dev/").to_owned();
        Some(Self { disk, image, device })
    }

    /// Makes the kernel meet an error.
    fn fail(&self) -> bool {
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device), "1").is_ok()
    }
}

#[test]
fn a_disk_that_fails_under_a_worker_leaves_reads_and_every_acked_sample() {
    only_on!(RocksDb, "its disk");
    let Some(volume) = Loop::new() else { return };
    let mut worker = worker_on(&volume.disk);
    let client = worker.client();
    client.store(&batch(1));
    thread::sleep(Duration::from_secs(3));
    client.store(&batch(2));
    if !volume.fail() {
        println!("skipped: this kernel can't be told to meet an error");
        return;
    }
    for round in 3..8 {
        let answer = client.write(&batch(round));
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(client.count("m"), 4_000, "questions are answered");
    assert_eq!(client.get("/api/v1/health").status, 503);
    assert!(worker.is_ready(), "or nobody would be led to it");
    worker.kill();
    let folder = volume.disk.path();
    let device = format!("/dev/{}", volume.device);
    assert!(Command::new("umount").arg(folder).status().unwrap().success());
    let checked = Command::new("fsck.ext4").args(["-p", &device]).output();
    let mounted = mount(&["-o", "loop", volume.image.path().to_str().unwrap()], folder);
    assert!(mounted, "{checked:?}");
    worker.start_again();
    assert_eq!(worker.client().count("m"), 4_000);
    worker.client().store(&batch(9));
    drop(worker);
}

#[test]
fn a_disk_that_can_only_be_read_is_refused_at_the_start_and_can_be_checked() {
    only_on!(RocksDb, "its disk");
    let Some(disk) = Disk::small(64 << 20) else { return };
    let mut worker = worker_on(&disk);
    worker.client().store(&batch(1));
    worker.terminate();
    worker.wait(Duration::from_secs(30));
    if !mount(&["-o", "remount,ro"], disk.path()) {
        return;
    }
    let data = disk.path().join("data");
    let (status, said) = Setup::new().over(&data).run(&[]);
    assert!(!status.success(), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("Read-only file system"), "{said}");
    let (status, said) = Setup::new().run(&["check", data.to_str().unwrap()]);
    assert!(status.success() && said.starts_with("sound: "), "{said}");
}
