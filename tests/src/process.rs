//! What the kernel says of a process: processor time and memory.

use std::fs;
use std::time::Duration;

/// Processor time of a process so far, user and system.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The command's name stands in parentheses and may hold anything.
    let after = &stat[stat.rfind(')').expect("a name") + 2..];
    let ticks: u64 =
        after.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1_000 / 100)
}

/// Resident memory of a process now, in bytes.
#[must_use]
pub fn rss(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, in bytes.
#[must_use]
pub fn peak_rss(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Forgets the peak so far, so that [`peak_rss`] begins anew.
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
}

fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    let kilobytes: u64 =
        line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number");
    kilobytes * 1_024
}
