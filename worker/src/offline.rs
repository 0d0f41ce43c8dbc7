//! Commands over a data folder that no worker has open: checking it, and restoring a backup.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use luminate_storage::rocksdb::backup;
use luminate_storage::rocksdb::check::{self, Counts, Damage, Report};
use luminate_storage::store::StoreError;

/// What a check found in a folder: nothing, or damage.
const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
/// There is no folder to check.
const UNREADABLE: u8 = 2;

/// A terminal sees more often how far it is than a log does.
const OFTEN: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(10);

/// Checks `folder` and says what is damaged, a line each, as text or as one JSON document: 0 when it is
/// sound, 1 when it is damaged, 2 when it is no data folder, or one that can't be read.
///
/// # Errors
/// Nobody listens.
pub fn check(folder: &Path, json: bool) -> std::io::Result<ExitCode> {
    let started = Instant::now();
    match check_showing(folder) {
        Err(error) => {
            writeln!(std::io::stderr(), "luminate-worker: {error}")?;
            Ok(ExitCode::from(UNREADABLE))
        }
        Ok(report) => {
            let mut out = std::io::stdout().lock();
            match json {
                true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
                false => print(&mut out, &report, started.elapsed())?,
            }
            Ok(ExitCode::from(if report.is_sound() { SOUND } else { DAMAGED }))
        }
    }
}

/// Checks `backup` and, if it is sound, copies it into `folder`: 0 when it is there, durably; 1 when the
/// backup is damaged or the copying fails; 2 when it is no backup, or can't be read.
///
/// # Errors
/// Nobody listens.
pub fn restore(backup: &Path, folder: &Path) -> std::io::Result<ExitCode> {
    let mut err = std::io::stderr();
    let report = match check_showing(backup) {
        Ok(report) => report,
        Err(error) => {
            writeln!(err, "luminate-worker: {error}")?;
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    if !report.is_sound() {
        print(&mut err, &report, Duration::ZERO)?;
        writeln!(err, "luminate-worker: the backup is damaged; nothing was restored")?;
        return Ok(ExitCode::from(DAMAGED));
    }
    match backup::restore(backup, folder) {
        Ok((bytes, files)) => {
            let (backup, folder) = (backup.display(), folder.display());
            writeln!(std::io::stdout(), "restored {backup} into {folder}: {files} files, {bytes} bytes")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(err, "luminate-worker: {error}")?;
            Ok(ExitCode::from(DAMAGED))
        }
    }
}

/// Checks a folder and says now and then how far it is.
fn check_showing(folder: &Path) -> Result<Report, StoreError> {
    let every = if std::io::stderr().is_terminal() { OFTEN } else { SELDOM };
    let started = Instant::now();
    let mut shown = started;
    check::check(folder, &mut |done, total| {
        if shown.elapsed() < every || total == 0 {
            return;
        }
        shown = Instant::now();
        let seconds = started.elapsed().as_secs_f64();
        let left = seconds * (total - done) as f64 / done.max(1) as f64;
        let rate = done as f64 / 1e6 / seconds;
        // Progress that nobody reads is no failure.
        let _unread = writeln!(
            std::io::stderr(),
            "{} % of {:.1} MB of pages, {rate:.0} MB/s, {left:.0} s left",
            done * 100 / total,
            total as f64 / 1e6
        );
    })
}

fn print(out: &mut dyn Write, report: &Report, took: Duration) -> std::io::Result<()> {
    for damage in &report.damage {
        writeln!(out, "damaged: {}", line(damage))?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    let Counts { log_commits, layers, pages, samples, series, bytes } = report.counts;
    let found = report.damage.len() as u64 + report.unlisted;
    let verdict = if found == 0 { "sound".to_owned() } else { format!("damaged in {found} places") };
    writeln!(
        out,
        "{verdict}: {series} series, {samples} samples in {pages} pages of {layers} layers, {log_commits} commits \
         in the log, {bytes} bytes, {:.1} s",
        took.as_secs_f64()
    )
}

/// Whose samples, of what and when; then where they lie and what is wrong.
fn line(damage: &Damage) -> String {
    let mut line = match (&damage.tenant, &damage.metric) {
        (Some(tenant), Some(metric)) => format!("tenant {tenant}, metric {metric}"),
        (Some(tenant), None) => format!("tenant {tenant}, metric unknown"),
        _ => "tenant and metric unknown".to_owned(),
    };
    if let Some((first, last)) = damage.times {
        line += &format!(", {} to {}", time(first), time(last));
    }
    match damage.accepted {
        (None, None) => {}
        (after, before) => {
            let shown = |at: Option<i64>| at.map_or_else(|| "an unknown time".to_owned(), time);
            line += &format!(", accepted between {} and {}", shown(after), shown(before));
        }
    }
    line += &format!(": {}: {}", damage.place, damage.what);
    if damage.pages > 1 {
        line += &format!(" ({} pages)", damage.pages);
    }
    line
}

fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| format!("{millis} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_by_tenant_metric_and_time() {
        let mut damage = Damage {
            place: "tables, layer 7, series 0 to 127".to_owned(),
            tenant: Some("acme".to_owned()),
            metric: Some("cpu".to_owned()),
            times: Some((1_767_225_600_000, 1_767_225_660_500)),
            accepted: (None, None),
            what: "block checksum mismatch".to_owned(),
            pages: 2,
            ..Damage::default()
        };
        let expected = "tenant acme, metric cpu, 2026-01-01T00:00:00Z to 2026-01-01T00:01:00.5Z: tables, layer 7, \
             series 0 to 127: block checksum mismatch (2 pages)";
        assert_eq!(line(&damage), expected);
        damage = Damage {
            place: "x".to_owned(),
            accepted: (Some(0), None),
            what: "lost".to_owned(),
            pages: 1,
            ..Damage::default()
        };
        let expected =
            "tenant and metric unknown, accepted between 1970-01-01T00:00:00Z and an unknown time: x: lost";
        assert_eq!(line(&damage), expected);
    }
}
