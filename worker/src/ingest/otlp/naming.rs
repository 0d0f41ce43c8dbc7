//! Names: from a metric's name and unit to ours, with the suffixes that Prometheus gives them.
//!
//! The rules are those of OpenTelemetry's "Prometheus and OpenMetrics Compatibility" and of Prometheus' own receiver,
//! so that what was written for the same programs behind a Prometheus finds the same names here.

use std::borrow::Cow;

use crate::ingest::line::plain;

/// What a metric's values mean, as far as its name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Something measured.
    Gauge,
    /// A total since a start, which never falls.
    Counter,
    /// Only what came since the sample before.
    Delta,
    /// Anything else.
    Other,
}

/// The word behind a name whose samples each hold only what came since the one before: `rate` would take them for a
/// counter that is reset all the time, while their `sum` is what they count. A name of their own keeps them apart.
const DELTA: &str = "delta";

/// Units by their code (UCUM), and the words that Prometheus has for them.
const UNITS: [(&str, &str); 26] = [
    ("1", ""),
    ("%", "percent"),
    ("A", "amperes"),
    ("By", "bytes"),
    ("Cel", "celsius"),
    ("GBy", "gigabytes"),
    ("GiBy", "gibibytes"),
    ("Hz", "hertz"),
    ("J", "joules"),
    ("KBy", "kilobytes"),
    ("KiBy", "kibibytes"),
    ("MBy", "megabytes"),
    ("MiBy", "mebibytes"),
    ("TBy", "terabytes"),
    ("TiBy", "tibibytes"),
    ("V", "volts"),
    ("W", "watts"),
    ("d", "days"),
    ("g", "grams"),
    ("h", "hours"),
    ("m", "meters"),
    ("min", "minutes"),
    ("ms", "milliseconds"),
    ("ns", "nanoseconds"),
    ("s", "seconds"),
    ("us", "microseconds"),
];

/// The same behind a slash.
const PER: [(&str, &str); 7] = [
    ("d", "day"),
    ("h", "hour"),
    ("m", "minute"),
    ("mo", "month"),
    ("s", "second"),
    ("w", "week"),
    ("y", "year"),
];

/// The name of a metric's samples, before what their parts add to it; empty when nothing of `name` can be kept.
pub fn name(name: &str, unit: &str, meaning: Meaning, suffixes: bool) -> String {
    if !suffixes {
        let name = plain(Cow::Borrowed(name));
        return if meaning == Meaning::Delta { format!("{name}_{DELTA}") } else { name.into_owned() };
    }
    let mut words: Vec<Cow<'_, str>> = words(name).map(Cow::Borrowed).collect();
    if words.is_empty() {
        return String::new();
    }
    add_unit(&mut words, unit);
    match meaning {
        Meaning::Counter => move_to_end(&mut words, "total"),
        Meaning::Gauge if unit.trim() == "1" => move_to_end(&mut words, "ratio"),
        Meaning::Delta => move_to_end(&mut words, DELTA),
        Meaning::Gauge | Meaning::Other => {}
    }
    plain(Cow::Owned(words.join("_"))).into_owned()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// Adds a unit's words where the name hasn't got them; what stands in braces is no unit but a remark.
fn add_unit<'a>(name: &mut Vec<Cow<'a, str>>, unit: &'a str) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let main = word_of(main, &UNITS);
    if !main.is_empty() && !name.contains(&main) {
        name.push(main);
    }
    let per = word_of(per, &PER);
    if !per.is_empty() && !name.contains(&per) {
        name.push(Cow::Borrowed("per"));
        name.push(per);
    }
}

fn word_of<'a>(unit: &'a str, known: &[(&str, &'static str)]) -> Cow<'a, str> {
    let unit = unit.trim();
    if unit.contains(['{', '}']) {
        return Cow::Borrowed("");
    }
    match known.iter().find(|(code, _)| *code == unit) {
        Some((_, word)) => Cow::Borrowed(word),
        None => Cow::Owned(words(unit).collect::<Vec<_>>().join("_")),
    }
}

fn move_to_end<'a>(name: &mut Vec<Cow<'a, str>>, word: &'static str) {
    name.retain(|own| own != word);
    name.push(Cow::Borrowed(word));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_gives() {
        use Meaning::{Counter, Delta, Gauge, Other};
        for (from, unit, meaning, expected) in [
            ("http.server.request.duration", "s", Other, "http_server_request_duration_seconds"),
            ("system.cpu.time", "s", Counter, "system_cpu_time_seconds_total"),
            ("system.memory.usage", "By", Other, "system_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Gauge, "system_cpu_utilization_ratio"),
            ("system.cpu.load_average.1m", "{thread}", Gauge, "system_cpu_load_average_1m"),
            ("process.open_file_descriptor.count", "{count}", Other, "process_open_file_descriptor_count"),
            ("network.io", "By/s", Gauge, "network_io_bytes_per_second"),
            ("requests", "{request}/m", Gauge, "requests_per_minute"),
            ("a.total.of.bytes", "By", Counter, "a_of_bytes_total"),
            ("http_requests_total", "", Counter, "http_requests_total"),
            ("http.requests", "1", Counter, "http_requests_total"),
            ("http.requests", "{request}", Delta, "http_requests_delta"),
            ("queue..depth", "furlong-2", Gauge, "queue_depth_furlong_2"),
            ("5xx.count", "", Gauge, "_5xx_count"),
            ("größe", "", Gauge, "gr_e"),
            ("...", "s", Counter, ""),
            ("", "s", Counter, ""),
        ] {
            assert_eq!(name(from, unit, meaning, true), expected, "{from} {unit}");
        }
    }

    #[test]
    fn without_suffixes_only_deltas_are_told_apart() {
        assert_eq!(name("system.cpu.time", "s", Meaning::Counter, false), "system_cpu_time");
        assert_eq!(name("http.requests", "", Meaning::Delta, false), "http_requests_delta");
        assert_eq!(name("5xx", "", Meaning::Gauge, false), "_5xx");
    }
}
