//! What the kernel says of a process: processor time and memory.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Processor time of a process so far, user and system.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let clock = clock_getcpuclockid(id(pid)).expect("the process runs");
    clock_gettime(clock).expect("the process runs").into()
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: Signal) {
    kill(id(pid), signal).expect("the process is ours");
}

/// Stops a process where it is, with all that it would do meanwhile; or lets it go on.
pub fn hold(pid: u32, held: bool) {
    signal(pid, if held { Signal::SIGSTOP } else { Signal::SIGCONT });
}

fn id(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("process ids are small"))
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
