//! From bytes to batches, on a thread of its own: it waits for the body on one side and for the store on the other.

use std::sync::Arc;

use luminate_storage::store::{NoSeries, SeriesLookup};
use tokio::sync::mpsc;

use super::feed::Source;
use crate::error::{Error, Fault};
use crate::ingest::bulk::columns::Columns as CsvColumns;
use crate::ingest::bulk::{BulkRules, Format, Piece, csv, decode};

/// Bytes of a piece.
const PIECE: usize = 4 << 20;

/// What the body is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// JSON lines.
    JsonLines,
    /// CSV.
    Csv(Columns),
}

/// Who says what the columns hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// The first line.
    OfHeader,
    /// The request.
    Given {
        /// The columns.
        columns: Arc<CsvColumns>,
        /// Whether the first line is passed over.
        skip_header: bool,
    },
}

/// What the thread makes of the body.
#[derive(Debug)]
pub enum Step {
    /// A batch, and how to make it again.
    Piece(Box<Piece>, Again),
    /// That was all.
    End,
    /// The body can't be read any further.
    Failed(Error),
}

type Make<T> = Box<dyn Fn() -> T + Send>;

/// A body to read.
pub struct Read {
    /// Its bytes.
    pub source: Source,
    /// What it is.
    pub kind: Kind,
    /// Most bytes of a line.
    pub longest_line: usize,
    /// What samples must keep to, by the time that it is then.
    pub rules: Make<BulkRules>,
    /// The series that are known then.
    pub lookup: Make<Arc<dyn SeriesLookup>>,
}

/// A piece's text, from which it can be decoded again.
#[derive(Clone)]
pub struct Again {
    text: Arc<Vec<u8>>,
    format: Format,
    line: u64,
    rules: Arc<BulkRules>,
    lookup: Arc<dyn SeriesLookup>,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Again").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Again {
    /// Decodes it; with `describe_all` as if no series were known.
    #[must_use]
    pub fn decode(&self, describe_all: bool) -> Piece {
        let with = |lookup: &dyn SeriesLookup| {
            decode(&self.format, &self.text, true, self.line, &self.rules, lookup)
        };
        if describe_all { with(&NoSeries(self.lookup.hasher().clone())) } else { with(self.lookup.as_ref()) }
    }
}

impl Read {
    /// Begins to read; nothing waits but the step at hand and one that is being made.
    #[must_use]
    pub fn begin(self) -> mpsc::Receiver<Step> {
        let (steps, receiver) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            let last = match self.run(&steps) {
                Ok(()) => Step::End,
                Err(error) => Step::Failed(error),
            };
            // The import may have ended on the other side.
            let _ended = steps.blocking_send(last);
        });
        receiver
    }

    fn run(mut self, steps: &mpsc::Sender<Step>) -> Result<(), Error> {
        let (mut text, mut line, mut wanted, mut of_header) = (Vec::new(), 1, PIECE, 0);
        let mut format = self.format();
        loop {
            let came = self.source.fill(&mut text, wanted);
            let ended = *came.as_ref().unwrap_or(&false);
            if format.is_none() {
                let Some(header) = csv::header(&text, ended).map_err(Error::InvalidBody)? else {
                    came?;
                    wanted = self.longer(text.len(), line)?;
                    continue;
                };
                of_header = memchr::memchr_iter(b'\n', &text[..header.end]).count() as u64;
                line += of_header;
                text.drain(..header.end);
                format = Some(Format::Csv(self.columns(&header)?));
            }
            let Some(format) = &format else { continue };
            let (rules, lookup) = (Arc::new((self.rules)()), (self.lookup)());
            let mut piece = decode(format, &text, ended, line, &rules, lookup.as_ref());
            wanted = PIECE;
            if piece.consumed > 0 {
                let rest = text.split_off(piece.consumed);
                let own = Arc::new(std::mem::replace(&mut text, rest));
                let again = Again { text: own, format: format.clone(), line, rules, lookup };
                line += piece.lines;
                piece.lines += std::mem::take(&mut of_header);
                if steps.blocking_send(Step::Piece(Box::new(piece), again)).is_err() {
                    return Ok(());
                }
            } else if !ended && came.is_ok() {
                wanted = self.longer(text.len(), line)?;
            }
            // Whole lines that came before the body broke are stored.
            came?;
            if ended && text.is_empty() {
                return Ok(());
            }
        }
    }

    /// How lines are read, unless the first of them says it.
    fn format(&self) -> Option<Format> {
        match &self.kind {
            Kind::JsonLines => Some(Format::JsonLines),
            Kind::Csv(Columns::Given { columns, skip_header: false }) => Some(Format::Csv(columns.clone())),
            Kind::Csv(_) => None,
        }
    }

    /// What the columns hold whose first line is `header`.
    fn columns(&self, header: &csv::Header) -> Result<Arc<CsvColumns>, Error> {
        match &self.kind {
            Kind::Csv(Columns::Given { columns, .. }) => Ok(columns.clone()),
            _ => {
                let cells: Vec<&str> = header.cells.iter().map(String::as_str).collect();
                CsvColumns::of_header(&cells).map(Arc::new).map_err(Error::InvalidBody)
            }
        }
    }

    /// How much is read where there is no whole line in `length` bytes.
    fn longer(&self, length: usize, line: u64) -> Result<usize, Error> {
        let most = self.longest_line;
        if length >= most {
            let reason = format!("line {line} is longer than {most} bytes");
            return Err(Error::InvalidBody(Fault::whole(reason)));
        }
        Ok((2 * length).max(PIECE).min(most))
    }
}
