//! `POST /api/v1/admin/import`: samples of any age that retention allows, in a body of any size.

mod feed;
mod reading;

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use luminate_storage::store::{ErrorKind, MetricsStore, Retention, StoreError, WriteOutcome};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::{IntoParams, ToSchema};

use self::reading::{Columns, Kind, Read, Step};
use super::input::{self, Parameters};
use super::openapi::BodyErrors;
use super::submit;
use crate::admission::{Admitted, Class};
use crate::app::AppState;
use crate::error::{Error, ErrorObject, Fault, Reported};
use crate::ingest::body::Encoding;
use crate::ingest::bulk::columns::Columns as CsvColumns;
use crate::ingest::bulk::{BulkRules, Ending, LineError, Piece, Refused};
use crate::lifecycle::Stage;
use crate::limits::Transfer;
use crate::observe::RequestId;
use crate::tenant::{Caller, CanAdmin};

/// Samples of a piece: what becomes one batch.
const MOST_SAMPLES: usize = 256 << 10;
/// How long an import waits for a store that takes nothing, before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest wait for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait for the tenant's budget before that is looked at again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the body is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportParameters {
    /// `jsonl` or `csv`; absent: what `Content-Type` says (`text/csv`), else `jsonl`.
    pub format: Option<String>,
    /// What the columns of a CSV body hold, such as `1:time:unix_s,2:label:host,3:metric:cpu`; absent: the first line
    /// says it.
    pub columns: Option<String>,
    /// `true`: the first line of a CSV body is a header though `columns` is given, and is passed over.
    #[param(value_type = Option<bool>)]
    pub header: Option<String>,
}

/// What became of an import.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImportAnswer {
    /// Samples stored.
    #[schema(example = 2_000_000)]
    pub accepted: u64,
    /// Samples refused; a line that can't be read counts as one.
    pub rejected: u64,
    /// Samples left out without being an error: NaN and infinities.
    pub dropped: u64,
    /// Lines read. Of these everything is stored that isn't refused or left out, also when the import ends early.
    pub lines: u64,
    /// The first 100 lines of which something was refused.
    pub errors: Vec<LineError>,
    /// Of JSON lines: whether the body ends with the summary of an export and has as many samples as that says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// `false` when the stored samples don't survive a power cut yet; absent when they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
    /// Why the import ended early, or accepted nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
}

/// Stores samples of any age that retention allows, from a body of any size, which is read as fast as its samples are
/// stored. JSON lines are those that an export writes, and VictoriaMetrics; CSV has a sample a line under a header, or
/// what `columns` says. A bad line is listed and doesn't hold up the good ones. Importing the same again changes
/// nothing. When an import ends early, `lines` says how far everything is stored.
#[utoipa::path(
    post,
    path = "/api/v1/admin/import",
    tag = "administer",
    params(ImportParameters),
    request_body(
        description = "May be compressed: `Content-Encoding` gzip or zstd",
        content((String = "application/x-ndjson"), (String = "text/csv")),
    ),
    responses(
        (status = 200, description = "All accepted or left out", body = ImportAnswer),
        (status = 207, description = "Some rejected", body = ImportAnswer),
        (status = 400, description = "All rejected, or the body can't be read to its end", body = ImportAnswer),
        BodyErrors,
    ),
    security(("token" = ["admin"])),
)]
pub async fn import(
    State(state): State<AppState>,
    id: RequestId,
    caller: CanAdmin,
    Parameters(parameters): Parameters<ImportParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let kind = kind(&parameters, &headers)?;
    let encoding = encoding(&headers)?;
    let store = state.store()?;
    let _permit = state.limits.transfer(&caller.caller, Transfer::Import)?;
    let retention = store.retention(caller.tenant()).await?;
    state.metrics.writes(&caller.caller);
    let csv = kind != Kind::JsonLines;
    let body = feed::open(body, state.config.server.body_timeout.duration());
    let reading = Read {
        source: feed::Source::new(body, encoding),
        kind,
        longest_line: state.config.server.max_body_bytes.len(),
        rules: {
            let (state, caller, retention) = (state.clone(), caller.caller.clone(), retention.clone());
            Box::new(move || rules(&state, &caller, &retention))
        },
        lookup: {
            let (store, tenant) = (store.clone(), caller.tenant().clone());
            Box::new(move || store.lookup(&tenant))
        },
    };
    let mut import =
        Import { state: &state, caller: &caller.caller, store: store.as_ref(), tally: Tally::default() };
    let failure = import.run(reading).await.err();
    Ok(import.tally.answer(csv, failure, &id))
}

fn kind(parameters: &ImportParameters, headers: &HeaderMap) -> Result<Kind, Error> {
    let fault = |field: &str, reason: &str| Err(Error::InvalidParameter(Fault::of(field, reason)));
    let csv = match parameters.format.as_deref() {
        Some("jsonl") => false,
        Some("csv") => true,
        Some(_) => return fault("format", "format must be jsonl or csv"),
        None => input::is_media(headers, "text/csv"),
    };
    let skip_header = input::flag("header", parameters.header.as_deref())?;
    match (csv, &parameters.columns) {
        (false, None) if !skip_header => Ok(Kind::JsonLines),
        (false, _) => fault("columns", "columns and header are for CSV: add format=csv"),
        (true, None) => Ok(Kind::Csv(Columns::OfHeader)),
        (true, Some(mapping)) => {
            let columns = CsvColumns::of_mapping(mapping).map_err(Error::InvalidParameter)?;
            Ok(Kind::Csv(Columns::Given { columns: columns.into(), skip_header }))
        }
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Error> {
    let unsupported = Error::UnsupportedEncoding { allowed: "gzip, zstd or identity" };
    match Encoding::of(headers) {
        Ok(Encoding::Snappy) | Err(_) => Err(unsupported),
        Ok(encoding) => Ok(encoding),
    }
}

fn rules(state: &AppState, caller: &Caller, retention: &Retention) -> BulkRules {
    let max_future = state.config.ingest.max_future.millis();
    let mut rules = BulkRules::new(state.clock.now(), retention, max_future, MOST_SAMPLES);
    rules.series = state.limits.series(caller);
    rules.dimensions = submit::dimension_limits(&state.config);
    rules
}

/// What has been stored so far.
#[derive(Debug)]
struct Tally {
    accepted: u64,
    refused: Refused,
    dropped: u64,
    lines: u64,
    /// Samples of all lines.
    samples: u64,
    /// What the summaries of exports say that there are; nothing once another line follows.
    promised: u64,
    ends_with_summary: bool,
    durable: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            accepted: 0,
            refused: Refused::default(),
            dropped: 0,
            lines: 0,
            samples: 0,
            promised: 0,
            ends_with_summary: false,
            durable: true,
        }
    }
}

impl Tally {
    fn answer(self, csv: bool, failure: Option<Error>, id: &RequestId) -> Response {
        let rejected = self.refused.total();
        let error = match (&failure, rejected, self.accepted) {
            (Some(error), ..) => Some(error.clone()),
            (None, 1.., 0) => Some(Error::AllRejected),
            _ => None,
        };
        let complete = self.ends_with_summary && self.promised == self.samples && failure.is_none();
        let answer = ImportAnswer {
            accepted: self.accepted,
            rejected,
            dropped: self.dropped,
            lines: self.lines,
            errors: self.refused.listed().to_vec(),
            complete: (!csv).then_some(complete),
            durable: (!self.durable).then_some(false),
            error: error.as_ref().map(|error| error.body(Some(&id.0)).error),
        };
        match error {
            Some(error) => failed(&error, &answer, id),
            None if rejected > 0 => (StatusCode::MULTI_STATUS, Json(answer)).into_response(),
            None => Json(answer).into_response(),
        }
    }
}

/// The response of `error`, with what was stored before it.
fn failed(error: &Error, answer: &ImportAnswer, id: &RequestId) -> Response {
    let mut response = error.response(Some(&id.0));
    if error.status().is_server_error() {
        // The layer that logs errors would write the answer anew, without what was stored.
        response.extensions_mut().remove::<Reported>();
        let code = error.code().name();
        tracing::warn!(request_id = &*id.0, lines = answer.lines, code, error = %error, "an import ended early");
    }
    match serde_json::to_vec(answer) {
        Ok(body) => {
            // It is JSON like the error's own.
            *response.body_mut() = Body::from(body);
            response
        }
        Err(error) => Error::Internal(error.to_string()).response(Some(&id.0)),
    }
}

struct Import<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    store: &'a dyn MetricsStore,
    tally: Tally,
}

impl Import<'_> {
    /// Stores piece after piece; while one is stored, the next is decoded, and no more is read.
    async fn run(&mut self, reading: Read) -> Result<(), Error> {
        let mut steps = reading.begin();
        loop {
            match steps.recv().await {
                Some(Step::Piece(piece, again)) => self.piece(*piece, again).await?,
                Some(Step::End) => return Ok(()),
                Some(Step::Failed(error)) => return Err(error),
                None => return Err(Error::Internal("the thread that decodes an import has ended".into())),
            }
        }
    }

    async fn piece(&mut self, mut piece: Piece, again: reading::Again) -> Result<(), Error> {
        // 1. May wait: the tenant's budget of imported samples. May end: a worker that stops finishes only what it began.
        if self.tally.lines > 0 {
            self.check_serving()?;
        }
        while let Err(wait) = self.state.limits.imported(self.caller, piece.batch.len() as u64) {
            self.check_serving()?;
            sleep(wait.min(LONGEST_WAIT)).await;
        }
        let _admitted = self.turn().await?;
        // 2. IO: on stable storage when it returns.
        let places = piece.take_places();
        let rows = piece.batch.len() as u64;
        let (lines, samples, dropped, ending) =
            (piece.lines, piece.samples(), piece.dropped, piece.ending.take());
        let mut refused = std::mem::take(&mut piece.refused);
        let outcome = match rows {
            0 => WriteOutcome { refused: Vec::new(), durable: true },
            _ => self.store(piece, again).await?,
        };
        // 3. Count.
        refused.append(places.refused(&outcome.refused));
        let accepted = rows - outcome.refused.len() as u64;
        self.state.metrics.written(accepted, refused.counts(), dropped);
        let tally = &mut self.tally;
        tally.accepted += accepted;
        tally.refused.append(refused);
        tally.dropped += dropped;
        tally.durable &= outcome.durable;
        tally.samples += samples;
        tally.lines += lines;
        match ending {
            Some(Ending::Summary(promised)) => {
                (tally.promised, tally.ends_with_summary) = (tally.promised.saturating_add(promised), true);
            }
            Some(Ending::Failed(why)) => {
                let reason = format!("line {}: the export that wrote this ended early: {why}", tally.lines);
                return Err(Error::InvalidBody(Fault::whole(reason)));
            }
            None => tally.ends_with_summary &= samples == 0,
        }
        Ok(())
    }

    /// Waits until the worker has room for what can wait longest; an import that has stored nothing yet is shed instead.
    async fn turn(&self) -> Result<Admitted, Error> {
        loop {
            match self.state.gate.enter(Class::Import).await {
                Err(_) if self.tally.lines > 0 => self.check_serving()?,
                turn => return turn,
            }
            sleep(SHORTEST_WAIT).await;
        }
    }

    /// Stores a batch, also when the store takes nothing for a while: imports come last.
    async fn store(&self, piece: Piece, again: reading::Again) -> Result<WriteOutcome, Error> {
        let mut batch = piece.batch;
        let patient_until = Instant::now() + PATIENCE;
        let mut describe_all = false;
        loop {
            let error = match self.store.write(&self.caller.tenant, batch).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match error.kind {
                ErrorKind::StaleSeries if !describe_all => describe_all = true,
                ErrorKind::Overloaded { retry_after } | ErrorKind::Unavailable { retry_after }
                    if Instant::now() < patient_until =>
                {
                    self.check_serving()?;
                    sleep(retry_after.clamp(SHORTEST_WAIT, LONGEST_WAIT)).await;
                }
                _ => return Err(error.into()),
            }
            let decoded = again.clone();
            let decoded = tokio::task::spawn_blocking(move || decoded.decode(describe_all));
            batch = decoded.await.map_err(StoreError::internal)?.batch;
        }
    }

    /// # Errors
    /// `NotServing` when the worker stops: another one can go on behind the lines that are stored.
    fn check_serving(&self) -> Result<(), Error> {
        match self.state.lifecycle.stage() {
            Stage::Draining => Err(Error::NotServing),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
