//! What the process uses, from `/proc`.

use std::fs;

/// Ticks per second of `/proc/self/stat`: `USER_HZ`, 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// What the process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: f64,
    /// Descriptors.
    pub open_files: f64,
}

/// This process's, where `/proc` is mounted.
#[must_use]
pub fn usage() -> Option<Usage> {
    let cpu_seconds = cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let resident_bytes = resident()?;
    let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(Usage { cpu_seconds, resident_bytes, open_files: open_files as f64 })
}

/// This process's memory in RAM, in bytes, where `/proc` is mounted.
#[must_use]
pub fn resident() -> Option<f64> {
    resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Fields 14 and 15, counted behind the name, which may hold anything but ends with the last `)`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("VmPeak: 5 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 0.0 && usage.open_files > 0.0);
    }
}
