//! Remote write 2.0, `io.prometheus.write.v2.Request`: labels are references into a table of the request's strings.
//!
//! Another request has another table, so references say nothing by themselves. Each symbol is hashed once a request,
//! with the secret of all spellings; a series' spelling is the hashes of its symbols, one behind the other. They are
//! all of one length and keep their order, so equal spellings are equal labels as surely as a hash of 128 bits can
//! say, and nobody without the secret can write one on purpose.
//!
//! Fields as in Prometheus' `prompb/io/prometheus/write/v2/types.proto` of 2.0-rc.5. A series' `created_timestamp` of
//! earlier drafts (6) and a sample's `start_timestamp` (3) are passed over.

use luminate_storage::model::Spelling;

use super::wire::{self, Field, Fields, MalformedMessage};
use super::{Decoded, Defect, Label, Labels, MAX_LABELS, Writer, too_many_labels};

/// What a spelling of this format begins with: no other's begins so.
const TAG: u8 = 0x0B;
/// `Request.symbols`, `.timeseries`.
const SYMBOLS: u32 = 4;
const TIMESERIES: u32 = 5;
/// What 1.0 has at the top, and 2.0 reserves.
const TIMESERIES_OF_V1: u32 = 1;
/// `TimeSeries.labels_refs`, `.samples`, `.histograms`.
const LABELS_REFS: u32 = 1;
const SAMPLES: u32 = 2;
const HISTOGRAMS: u32 = 3;
/// Most symbols of a request, for each sample that it may have: names and values of twice as many labels as a series
/// may have by default, help and unit, an exemplar. A symbol takes two bytes of a body, and forty here.
const SYMBOLS_PER_SAMPLE: usize = 100;
/// Bytes of a symbol's hash.
const HASH: usize = size_of::<u128>();

/// Reads a message into `writer`.
pub(super) fn read(body: &[u8], writer: Writer<'_>) -> Result<Decoded, Defect> {
    let symbols = Symbols::read(body, &writer)?;
    let mut reader = Reader { writer, symbols, spelled: vec![TAG] };
    let (mut fields, mut at) = (Fields::new(body), 0);
    while let Some((number, field)) = fields.next()? {
        if let (TIMESERIES, Field::Bytes(message)) = (number, field) {
            reader.series(message).map_err(|defect| defect.in_series(at))?;
            at += 1;
        }
    }
    Ok(reader.writer.decoded)
}

/// The strings of a request, and their hashes.
struct Symbols<'a> {
    texts: Vec<&'a [u8]>,
    hashes: Vec<[u8; HASH]>,
}

impl<'a> Symbols<'a> {
    /// The symbols of a message, wherever in it they stand.
    fn read(body: &'a [u8], writer: &Writer<'_>) -> Result<Self, Defect> {
        let mut symbols = Self { texts: Vec::new(), hashes: Vec::new() };
        let most = writer.rules.max_batch.saturating_mul(SYMBOLS_PER_SAMPLE);
        let (mut fields, mut has_series) = (Fields::new(body), false);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (SYMBOLS, Field::Bytes(_)) if symbols.texts.len() == most => {
                    return Err(Defect::of("symbols", format!("there are more than {most}")));
                }
                (SYMBOLS, Field::Bytes(text)) => symbols.push(text, writer),
                (TIMESERIES, Field::Bytes(_)) => has_series = true,
                (SYMBOLS | TIMESERIES, _) => {
                    return Err(MalformedMessage("symbols are no strings, or timeseries no messages").into());
                }
                (TIMESERIES_OF_V1, Field::Bytes(_)) => {
                    let reason = "it has fields of prometheus.WriteRequest; Content-Type says which it is";
                    return Err(MalformedMessage(reason).into());
                }
                _ => {}
            }
        }
        match symbols.texts.first() {
            Some(first) if !first.is_empty() => Err(Defect::of("symbols[0]", "it isn't the empty string")),
            None if has_series => Err(Defect::of("symbols", "there are none, not even the empty string")),
            _ => Ok(symbols),
        }
    }

    fn push(&mut self, text: &'a [u8], writer: &Writer<'_>) {
        let Spelling(hash) = writer.resolver.hash(text);
        self.texts.push(text);
        self.hashes.push(hash.to_le_bytes());
    }

    fn hash(&self, reference: u64) -> Option<&[u8; HASH]> {
        self.hashes.get(usize::try_from(reference).ok()?)
    }

    /// The text of a reference that has a hash.
    fn text(&self, reference: u64) -> &'a [u8] {
        usize::try_from(reference).ok().and_then(|place| self.texts.get(place)).copied().unwrap_or_default()
    }

    #[cold]
    fn out_of_range(&self, reference: u64) -> Defect {
        let count = self.texts.len();
        Defect::of("labels_refs", format!("it refers to symbols[{reference}], and there are {count}"))
    }
}

struct Reader<'a, 'b> {
    writer: Writer<'a>,
    symbols: Symbols<'b>,
    /// The tag, the hashes of the labels at hand, and what is left of series with more.
    spelled: Vec<u8>,
}

impl Reader<'_, '_> {
    fn series(&mut self, message: &[u8]) -> Result<(), Defect> {
        // References stand in one block; those of a series that has them otherwise are gathered.
        let (mut packed, mut gathered): (&[u8], _) = (&[], Vec::new());
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (LABELS_REFS, Field::Bytes(block)) if packed.is_empty() => packed = block,
                (LABELS_REFS, Field::Bytes(block)) => gathered.extend_from_slice(block),
                (LABELS_REFS, Field::Varint(reference)) => wire::append_varint(&mut gathered, reference),
                (SAMPLES, Field::Bytes(sample)) => self.writer.sample(sample)?,
                (HISTOGRAMS, Field::Bytes(_)) => self.writer.histogram()?,
                (LABELS_REFS | SAMPLES | HISTOGRAMS, _) => {
                    let reason = "labels_refs are no integers, or samples or histograms no messages";
                    return Err(MalformedMessage(reason).into());
                }
                _ => {}
            }
        }
        if !gathered.is_empty() {
            gathered.splice(..0, packed.iter().copied());
            packed = &gathered;
        }
        let length = self.spell(packed)?;
        let spelled = &self.spelled[..length];
        Ok(self.writer.series(&References { symbols: &self.symbols, packed, spelled })?)
    }

    /// Spells the labels that `packed` refers to; returns the spelling's length.
    fn spell(&mut self, packed: &[u8]) -> Result<usize, Defect> {
        let most = packed.len().min(2 * MAX_LABELS);
        if self.spelled.len() < 1 + most * HASH {
            self.spelled.resize(1 + most * HASH, 0);
        }
        let (places, _) = self.spelled[1..].as_chunks_mut::<HASH>();
        let (mut at, mut count) = (0, 0);
        while at < packed.len() {
            let (reference, end) = wire::varint(packed, at)?;
            let Some(hash) = self.symbols.hash(reference) else {
                return Err(self.symbols.out_of_range(reference));
            };
            let Some(place) = places.get_mut(count) else { return Err(too_many_labels().into()) };
            *place = *hash;
            (at, count) = (end, count + 1);
        }
        if count.is_multiple_of(2) { Ok(1 + count * HASH) } else { Err(no_pairs(count)) }
    }
}

#[cold]
fn no_pairs(count: usize) -> Defect {
    Defect::of("labels_refs", format!("{count} references are no pairs of name and value"))
}

/// Labels as references into the table, all of which are in it.
struct References<'a> {
    symbols: &'a Symbols<'a>,
    packed: &'a [u8],
    spelled: &'a [u8],
}

impl Labels for References<'_> {
    fn spelled(&self) -> &[u8] {
        self.spelled
    }

    fn read(&self) -> Result<Vec<Label<'_>>, MalformedMessage> {
        let (mut labels, mut at) = (Vec::new(), 0);
        while at < self.packed.len() {
            let (name, end) = wire::varint(self.packed, at)?;
            let (value, end) = wire::varint(self.packed, end)?;
            labels.push(Label { name: self.symbols.text(name), value: self.symbols.text(value) });
            at = end;
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::super::testing::{KnownSeries, NOW, errors, rows, rules};
    use super::super::testing::{Metadata, Request, Sample, TimeSeries, request};
    use super::super::{RemoteWriteError, Version, decode};
    use super::*;

    fn decoded(request: &Request) -> Result<Decoded, RemoteWriteError> {
        decode(&request.encode_to_vec(), Version::V2, &rules(), &KnownSeries::none())
    }

    fn two() -> Request {
        request(&[
            (&[("__name__", "up"), ("job", "a")], &[(NOW, 1.0), (NOW + 1, 2.0)]),
            (&[("__name__", "up"), ("job", "b")], &[(NOW, 3.0)]),
        ])
    }

    #[test]
    fn a_series_is_known_again_under_another_table() {
        let first = two();
        let mut known = KnownSeries::none();
        known.learn(&decoded(&first).unwrap());
        let mut second = first.clone();
        second.symbols.reverse();
        second.symbols.insert(0, String::new());
        let last = second.symbols.len() as u32 - 1;
        for series in &mut second.timeseries {
            series.labels_refs.iter_mut().for_each(|reference| *reference = last - *reference);
        }
        assert_ne!(first.timeseries[0].labels_refs, second.timeseries[0].labels_refs);
        let again = decode(&second.encode_to_vec(), Version::V2, &rules(), &known).unwrap();
        assert_eq!((again.batch.len(), again.batch.new_series.len()), (3, 0));
    }

    #[test]
    fn other_labels_under_the_same_references_are_another_series() {
        let mut known = KnownSeries::none();
        known.learn(&decoded(&two()).unwrap());
        for (from, to) in [("a", "c"), ("job", "role"), ("up", "down")] {
            let mut other = two();
            let at = other.symbols.iter().position(|symbol| symbol == from).unwrap();
            other.symbols[at] = to.into();
            let other = decode(&other.encode_to_vec(), Version::V2, &rules(), &known).unwrap();
            assert!(!other.batch.new_series.is_empty(), "{from} {to}");
        }
        let mut swapped = two();
        swapped.timeseries[0].labels_refs.swap(2, 3);
        let swapped = decode(&swapped.encode_to_vec(), Version::V2, &rules(), &known).unwrap();
        assert_eq!(swapped.batch.new_series.len(), 1);
    }

    #[test]
    fn neither_place_nor_packing_of_fields_matters() {
        let message = two();
        let mut body = Vec::new();
        for series in &message.timeseries {
            let mut encoded = TimeSeries { labels_refs: Vec::new(), ..series.clone() }.encode_to_vec();
            for reference in &series.labels_refs {
                encoded.extend_from_slice(&[0x08, *reference as u8]);
            }
            wire::append(&mut body, 0x2A, &encoded);
        }
        for symbol in &message.symbols {
            wire::append(&mut body, 0x22, symbol.as_bytes());
        }
        let scattered = decode(&body, Version::V2, &rules(), &KnownSeries::none()).unwrap();
        assert_eq!(rows(&scattered), rows(&decoded(&message).unwrap()));
        assert_eq!(rows(&scattered), ["up{job=a} 0 1", "up{job=a} 1 2", "up{job=b} 0 3"]);
    }

    #[test]
    fn what_is_wrong_with_a_message_is_said_with_its_place() {
        let with = |change: &dyn Fn(&mut Request)| {
            let mut request = two();
            change(&mut request);
            match decoded(&request).unwrap_err() {
                RemoteWriteError::Malformed { field, reason, .. } => {
                    format!("{}: {reason}", field.unwrap_or_default())
                }
                other => other.to_string(),
            }
        };
        for (change, expected) in [
            (
                (&|request: &mut Request| request.timeseries[1].labels_refs[3] = 6) as &dyn Fn(&mut Request),
                "timeseries[1].labels_refs: it refers to symbols[6], and there are 6",
            ),
            (
                &|request| request.timeseries[0].labels_refs.push(0),
                "timeseries[0].labels_refs: 5 references are no pairs of name and value",
            ),
            (&|request| request.symbols[0] = "x".into(), "symbols[0]: it isn't the empty string"),
            (&|request| request.symbols.clear(), "symbols: there are none, not even the empty string"),
            (
                &|request| request.symbols.resize(1_000_001, String::new()),
                "symbols: there are more than 1000000",
            ),
        ] {
            assert_eq!(with(change), expected);
        }
        assert!(decoded(&Request::default()).unwrap().batch.is_empty(), "an empty message is one");
    }

    #[test]
    fn native_histograms_are_refused_and_the_samples_kept() {
        let mut request = two();
        request.timeseries[0].histograms = vec![Metadata { kind: 7, ..Metadata::default() }; 2];
        request.timeseries[1].samples.clear();
        request.timeseries[1].histograms = vec![Metadata::default()];
        let decoded = decoded(&request).unwrap();
        assert_eq!(rows(&decoded), ["up{job=a} 0 1", "up{job=a} 1 2"]);
        let why = "native histograms are not stored; send classic ones, with send_native_histograms: false";
        let expected = [2, 3, 4].map(|place| format!("{place} InvalidSample: {why}"));
        assert_eq!(errors(&decoded), expected);
        assert_eq!(decoded.rejections.listed()[2].metric.as_deref(), Some("up"));
    }

    #[test]
    fn histograms_count_as_samples_of_a_request() {
        let mut request = two();
        request.timeseries[1].histograms = vec![Metadata::default(); 3];
        let rules = |max_batch| super::super::Rules { max_batch, ..rules() };
        let decode =
            |max| decode(&request.encode_to_vec(), Version::V2, &rules(max), &KnownSeries::none()).map(drop);
        assert_eq!(decode(6), Ok(()));
        assert_eq!(decode(5), Err(RemoteWriteError::TooMany { max: 5 }));
    }

    #[test]
    fn metadata_exemplars_start_times_and_unknown_fields_are_passed_over() {
        let mut request = two();
        let series = &mut request.timeseries[0];
        series.exemplars = vec![Metadata { kind: 1, help: 99, unit: 99 }];
        series.metadata = Some(Metadata { kind: 1, help: 99, unit: 99 });
        series.created = NOW - 1;
        series.samples[0] = Sample { start: NOW - 1, ..series.samples[0].clone() };
        let decoded = decoded(&request).unwrap();
        assert_eq!((decoded.batch.len(), decoded.rejections.total()), (3, 0));
    }

    /// What prost reads of the finite samples in the window.
    fn oracle(body: &[u8]) -> Option<Vec<(i64, u64)>> {
        let request = Request::decode(body).ok()?;
        let samples = request.timeseries.iter().flat_map(|series| &series.samples);
        let kept = samples.filter(|sample| sample.value.is_finite() && rules().accepts(sample.timestamp));
        Some(kept.map(|sample| (sample.timestamp, sample.value.to_bits())).collect())
    }

    #[test]
    fn truncated_or_mutated_it_agrees_with_prost() {
        let request = two();
        let body = request.encode_to_vec();
        let mut known = KnownSeries::none();
        known.learn(&decoded(&request).unwrap());
        for cut in 0..body.len() {
            if oracle(&body[..cut]).is_none() {
                let ours = decode(&body[..cut], Version::V2, &rules(), &known);
                assert!(ours.is_err(), "cut at {cut}");
            }
        }
        let mut random = fastrand::Rng::with_seed(4);
        let mut agreed = 0;
        for _ in 0..50_000 {
            let mut body = body.clone();
            for _ in 0..random.usize(1..3) {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            let ours = decode(&body, Version::V2, &rules(), &known);
            // Groups, text that isn't UTF-8 and references into nothing are judged otherwise.
            let Some(theirs) = oracle(&body) else { continue };
            let Ok(ours) = ours else { continue };
            if ours.rejections.total() == 0 {
                let batch = &ours.batch;
                let samples = batch.timestamps.iter().zip(&batch.values);
                let samples: Vec<(i64, u64)> =
                    samples.map(|(time, value)| (*time, value.to_bits())).collect();
                assert_eq!(samples, theirs);
                agreed += 1;
            }
        }
        assert!(agreed > 10_000, "{agreed}");
    }
}
