//! Samples as text: JSON lines or CSV, as an import reads them.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use luminate_storage::model::{Dimensions, MetricName, SeriesSamples};

use crate::error::Error;
use crate::ingest::bulk::columns::SAMPLE;
use crate::ingest::bulk::lines::NAME;

/// Samples of a line at most: whatever pieces they came in, lines are always the same.
const LINE: usize = 10_000;
/// Up to here every whole number is an f64, and is written as one.
const MAX_WHOLE: f64 = (1_u64 << 53) as f64;
/// Between size and speed, as transports do it.
const GZIP_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 1;

/// How samples are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// A stretch of a series a line.
    Lines,
    /// A sample a line, with columns for these keys, sorted.
    Csv(Vec<Arc<str>>),
}

/// Writes samples, series by series.
pub struct Writer {
    layout: Layout,
    /// The stretch at hand, which may go on.
    open: Option<(MetricName, SeriesSamples)>,
    begun: bool,
    metrics: u64,
    series: u64,
    samples: u64,
    last_metric: Option<MetricName>,
    integers: itoa::Buffer,
    floats: zmij::Buffer,
}

impl Writer {
    /// Nothing written yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            open: None,
            begun: false,
            metrics: 0,
            series: 0,
            samples: 0,
            last_metric: None,
            integers: itoa::Buffer::new(),
            floats: zmij::Buffer::new(),
        }
    }

    /// Appends a stretch; of the same series as the last, it goes on from that.
    pub fn stretch(&mut self, metric: &MetricName, stretch: SeriesSamples, out: &mut Vec<u8>) {
        self.header(out);
        match &mut self.open {
            Some((own, open)) if own == metric && open.dimensions == stretch.dimensions => {
                open.timestamps.extend_from_slice(&stretch.timestamps);
                open.values.extend_from_slice(&stretch.values);
            }
            _ => {
                self.close(out);
                if !self.counts(metric, &stretch.dimensions) {
                    return;
                }
                self.open = Some((metric.clone(), stretch));
            }
        }
        self.whole_lines(out);
    }

    /// Counts a series that begins; whether it is written at all.
    fn counts(&mut self, metric: &MetricName, dimensions: &Dimensions) -> bool {
        if let Layout::Csv(keys) = &self.layout
            && dimensions
                .iter()
                .any(|(key, _)| keys.binary_search_by(|own| (**own).cmp(key.as_str())).is_err())
        {
            // It began after the header was written, so that nobody can expect it here.
            return false;
        }
        self.series += 1;
        if self.last_metric.as_ref() != Some(metric) {
            self.metrics += 1;
            self.last_metric = Some(metric.clone());
        }
        true
    }

    /// Writes what is open, and how much there was.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.header(out);
        self.close(out);
        if self.layout == Layout::Lines {
            let (metrics, series, samples) = (self.metrics, self.series, self.samples);
            let summary =
                format!(r#"{{"summary":{{"metrics":{metrics},"series":{series},"samples":{samples}}}}}"#);
            out.extend_from_slice(summary.as_bytes());
            out.push(b'\n');
        }
    }

    /// Writes what is open, and then why nothing follows.
    pub fn fail(&mut self, why: &[u8], out: &mut Vec<u8>) {
        self.close(out);
        out.extend_from_slice(why);
        out.push(b'\n');
    }

    fn header(&mut self, out: &mut Vec<u8>) {
        if let (false, Layout::Csv(keys)) = (self.begun, &self.layout) {
            out.extend_from_slice(SAMPLE.join(",").as_bytes());
            for key in keys {
                out.push(b',');
                out.extend_from_slice(key.as_bytes());
            }
            out.push(b'\n');
        }
        self.begun = true;
    }

    fn whole_lines(&mut self, out: &mut Vec<u8>) {
        let Some((metric, mut open)) = self.open.take() else { return };
        let whole = match self.layout {
            Layout::Lines => open.timestamps.len() / LINE * LINE,
            Layout::Csv(_) => open.timestamps.len(),
        };
        if whole > 0 {
            self.write(&metric, &open, whole, out);
            open.timestamps.drain(..whole);
            open.values.drain(..whole);
        }
        self.open = Some((metric, open));
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((metric, open)) = self.open.take() {
            self.write(&metric, &open, open.timestamps.len(), out);
        }
    }

    /// Writes the first `count` samples of a stretch.
    fn write(&mut self, metric: &MetricName, stretch: &SeriesSamples, count: usize, out: &mut Vec<u8>) {
        self.samples += count as u64;
        match &self.layout {
            Layout::Lines => self.lines(metric, stretch, count, out),
            Layout::Csv(keys) => {
                let cells = cells(keys, &stretch.dimensions);
                self.rows(metric, stretch, count, &cells, out);
            }
        }
    }

    fn lines(&mut self, metric: &MetricName, stretch: &SeriesSamples, count: usize, out: &mut Vec<u8>) {
        let object = object(metric, &stretch.dimensions);
        for from in (0..count).step_by(LINE) {
            let to = count.min(from + LINE);
            out.extend_from_slice(b"{\"metric\":");
            out.extend_from_slice(&object);
            out.extend_from_slice(b",\"values\":[");
            for value in &stretch.values[from..to] {
                self.number(*value, out);
                out.push(b',');
            }
            out.pop();
            out.extend_from_slice(b"],\"timestamps\":[");
            for time in &stretch.timestamps[from..to] {
                out.extend_from_slice(self.integers.format(*time).as_bytes());
                out.push(b',');
            }
            out.pop();
            out.extend_from_slice(b"]}\n");
        }
    }

    fn rows(
        &mut self,
        metric: &MetricName,
        stretch: &SeriesSamples,
        count: usize,
        cells: &[u8],
        out: &mut Vec<u8>,
    ) {
        for (time, value) in stretch.timestamps.iter().zip(&stretch.values).take(count) {
            out.extend_from_slice(metric.as_str().as_bytes());
            out.push(b',');
            out.extend_from_slice(self.integers.format(*time).as_bytes());
            out.push(b',');
            self.number(*value, out);
            out.extend_from_slice(cells);
        }
    }

    /// The shortest text that is read as exactly this number.
    fn number(&mut self, value: f64, out: &mut Vec<u8>) {
        #[allow(clippy::cast_possible_truncation, reason = "whole and small enough")]
        let text = if value == 0.0 {
            if value.is_sign_negative() { "-0" } else { "0" }
        } else if value.fract() == 0.0 && value.abs() <= MAX_WHOLE {
            self.integers.format(value as i64)
        } else {
            self.floats.format_finite(value)
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// A series as JSON: its name, then its dimensions.
fn object(metric: &MetricName, dimensions: &Dimensions) -> Vec<u8> {
    let mut object = format!("{{\"{NAME}\":\"{metric}\"").into_bytes();
    for (key, value) in dimensions.iter() {
        object.extend_from_slice(b",\"");
        object.extend_from_slice(key.as_str().as_bytes());
        object.extend_from_slice(b"\":");
        object.extend_from_slice(serde_json::Value::from(value.as_ref()).to_string().as_bytes());
    }
    object.push(b'}');
    object
}

/// The end of a line of CSV: a cell for each of `keys`.
fn cells(keys: &[Arc<str>], dimensions: &Dimensions) -> Vec<u8> {
    let mut cells = Vec::new();
    for key in keys {
        cells.push(b',');
        if let Some(value) = dimensions.get(key) {
            quoted(value, &mut cells);
        }
    }
    cells.push(b'\n');
    cells
}

/// A cell, in quotes where it must be (RFC 4180, section 2).
fn quoted(value: &str, out: &mut Vec<u8>) {
    if memchr::memchr3(b',', b'"', b'\n', value.as_bytes()).is_none() && !value.contains('\r') {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// Compresses what is written, or doesn't.
pub struct Encoder {
    /// What isn't compressed yet.
    text: Vec<u8>,
    compressor: Compressor,
}

enum Compressor {
    Plain,
    /// Gone once it has ended.
    Gzip(Option<GzEncoder<Vec<u8>>>),
    /// Gone once it has ended.
    Zstd(Option<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// Writes in `encoding`: `gzip`, `zstd`, or as it is.
    ///
    /// # Errors
    /// The encoder can't be made.
    pub fn new(encoding: Option<&'static str>) -> Result<Self, Error> {
        let internal = |error: io::Error| Error::Internal(error.to_string());
        let compressor = match encoding {
            Some("gzip") => Compressor::Gzip(Some(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)))),
            Some("zstd") => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(internal)?;
                Compressor::Zstd(Some(encoder))
            }
            _ => Compressor::Plain,
        };
        Ok(Self { text: Vec::new(), compressor })
    }

    /// Takes what `write` appends; returns what is ready to be sent: nothing before there are `least` bytes of it,
    /// unless this is the end.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn write(
        &mut self,
        at_end: bool,
        least: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<Bytes> {
        write(&mut self.text);
        let ready = match &mut self.compressor {
            Compressor::Plain => &mut self.text,
            Compressor::Gzip(encoder) if at_end => return finished(encoder, &self.text, GzEncoder::finish),
            Compressor::Zstd(encoder) if at_end => {
                return finished(encoder, &self.text, zstd::stream::write::Encoder::finish);
            }
            Compressor::Gzip(Some(encoder)) => compressed(encoder, &mut self.text)?.get_mut(),
            Compressor::Zstd(Some(encoder)) => compressed(encoder, &mut self.text)?.get_mut(),
            Compressor::Gzip(None) | Compressor::Zstd(None) => return Ok(Bytes::new()),
        };
        if ready.len() < least && !at_end {
            return Ok(Bytes::new());
        }
        Ok(std::mem::take(ready).into())
    }
}

/// Passes `text` on to `encoder`.
fn compressed<'a, W: Write>(encoder: &'a mut W, text: &mut Vec<u8>) -> io::Result<&'a mut W> {
    encoder.write_all(text)?;
    text.clear();
    Ok(encoder)
}

/// All that `encoder` still holds, with `text` at its end.
fn finished<W: Write>(
    encoder: &mut Option<W>,
    text: &[u8],
    finish: impl FnOnce(W) -> io::Result<Vec<u8>>,
) -> io::Result<Bytes> {
    let Some(mut encoder) = encoder.take() else { return Ok(Bytes::new()) };
    encoder.write_all(text)?;
    Ok(finish(encoder)?.into())
}

#[cfg(test)]
mod tests {
    use luminate_storage::model::DimensionLimits;

    use super::*;

    fn stretch(pairs: &[(&str, &str)], samples: impl IntoIterator<Item = (i64, f64)>) -> SeriesSamples {
        let dimensions = Dimensions::new(pairs.iter().copied(), &DimensionLimits::default()).unwrap();
        let (timestamps, values) = samples.into_iter().unzip();
        SeriesSamples { dimensions, timestamps, values }
    }

    fn written(layout: Layout, stretches: Vec<SeriesSamples>) -> String {
        let (mut writer, mut out) = (Writer::new(layout), Vec::new());
        let metric = MetricName::new("m").unwrap();
        stretches.into_iter().for_each(|stretch| writer.stretch(&metric, stretch, &mut out));
        writer.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_and_rows_are_what_imports_read() {
        let stretches = || {
            vec![
                stretch(&[], [(5, 1.0)]),
                stretch(&[("host", "a,\"b\"\n")], [(-5, -0.0), (6, 0.1)]),
                stretch(&[("host", "a,\"b\"\n")], [(7, 1e300)]),
                stretch(&[("zone", "é")], [(8, 9_007_199_254_740_993.0)]),
            ]
        };
        let expected = concat!(
            r#"{"metric":{"__name__":"m"},"values":[1],"timestamps":[5]}"#,
            "\n",
            r#"{"metric":{"__name__":"m","host":"a,\"b\"\n"},"values":[-0,0.1,1e300],"timestamps":[-5,6,7]}"#,
            "\n",
            r#"{"metric":{"__name__":"m","zone":"é"},"values":[9007199254740992],"timestamps":[8]}"#,
            "\n",
            r#"{"summary":{"metrics":1,"series":3,"samples":5}}"#,
            "\n"
        );
        assert_eq!(written(Layout::Lines, stretches()).replace("1e+300", "1e300"), expected);
        let keys = ["host", "zone"].map(Arc::from).to_vec();
        let expected = "__name__,__timestamp__,__value__,host,zone\nm,5,1,,\nm,-5,-0,\"a,\"\"b\"\"\n\",\n\
                        m,6,0.1,\"a,\"\"b\"\"\n\",\nm,7,1e300,\"a,\"\"b\"\"\n\",\nm,8,9007199254740992,,é\n";
        assert_eq!(written(Layout::Csv(keys), stretches()).replace("1e+300", "1e300"), expected);
        let host = vec![Arc::from("host")];
        assert!(!written(Layout::Csv(host), stretches()).contains('é'), "its key came after the header");
    }

    #[test]
    fn lines_are_the_same_in_whatever_pieces_samples_come() {
        let samples: Vec<(i64, f64)> = (0..25_000).map(|at| (at, at as f64)).collect();
        let whole = written(Layout::Lines, vec![stretch(&[("h", "a")], samples.clone())]);
        assert_eq!(whole.lines().count(), 4);
        for piece in [1, 999, 10_000, 10_001, 24_999] {
            let pieces =
                samples.chunks(piece).map(|samples| stretch(&[("h", "a")], samples.to_vec())).collect();
            assert!(written(Layout::Lines, pieces) == whole, "{piece}");
        }
    }

    #[test]
    fn every_number_is_read_as_it_was() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut writer = Writer::new(Layout::Lines);
        for _ in 0..50_000 {
            let value = match random.u8(..3) {
                0 => f64::from_bits(random.u64(..)),
                1 => random.i64(-1 << 54..1 << 54) as f64,
                _ => (random.f64() * 1e6).round() / 100.0,
            };
            if value.is_finite() {
                let mut out = Vec::new();
                writer.number(value, &mut out);
                let text = std::str::from_utf8(&out).unwrap();
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
                assert!(serde_json::from_str::<f64>(text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for encoding in [None, Some("gzip"), Some("zstd")] {
            let mut encoder = Encoder::new(encoding).unwrap();
            let mut sent = Vec::new();
            for at in 0..100 {
                let piece = vec![b'a' + at % 20; 5_000];
                sent.extend(encoder.write(at == 99, 8_000, |out| out.extend(piece)).unwrap());
            }
            let decoded = match encoding {
                None => sent,
                Some("gzip") => {
                    let mut text = Vec::new();
                    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&sent[..]), &mut text)
                        .unwrap();
                    text
                }
                _ => zstd::stream::decode_all(&sent[..]).unwrap(),
            };
            assert_eq!(decoded.len(), 500_000, "{encoding:?}");
        }
    }
}
