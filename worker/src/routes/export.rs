//! `GET /api/v1/admin/export`: every sample, series by series, in a body of any size.

mod text;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use luminate_storage::model::{DimensionKey, ExportQuery, MetricName, Selector, Tenant, TimeRange};
use luminate_storage::store::{ErrorKind, Export, ListQuery, MetricsStore, QueryContext, StoreError};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;
use utoipa::IntoParams;

use self::text::{Encoder, Layout, Writer};
use super::input::{self, NDJSON, Parameters, Time};
use super::openapi::QueryErrors;
use super::query;
use crate::admission::{Admitted, Class};
use crate::app::AppState;
use crate::error::{Error, Fault};
use crate::ingest::bulk::columns::MAX_COLUMNS;
use crate::limits::{Transfer, TransferPermit};
use crate::observe::RequestId;
use crate::tenant::CanAdmin;

/// Samples of a piece.
const PIECE: usize = 64 << 10;
/// Smaller pieces of text are sent together.
const LEAST_BYTES: usize = 64 << 10;
/// Metrics, or keys, that are listed at once.
const PAGE: usize = 1_000;
/// How long an export may take at most. A client that takes nothing is cut off much earlier, as with any answer.
const DEADLINE: Duration = Duration::from_secs(24 * 3_600);
/// How long a piece may take, with the time that it waits for heavy queries.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first time that is exported if no other is named: the year 0.
const EARLIEST: i64 = -62_167_219_200_000;
/// What is written last gets to the client before the connection is cut: that is done only once the server has sent it.
const BEFORE_THE_CUT: Duration = Duration::from_millis(200);

/// What is exported.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    /// The metric; absent: all of them, by name.
    pub metric: Option<String>,
    /// Only samples from this time on: Unix milliseconds or RFC 3339; absent: from the oldest on.
    pub start: Option<String>,
    /// Only samples before this time; absent: all that there are.
    pub end: Option<String>,
    /// Only series with these dimensions: an object such as `{"region":"eu"}`, as in a query.
    pub filters: Option<String>,
    /// `jsonl` (the default) or `csv`.
    pub format: Option<String>,
}

/// Writes out every sample, series by series: metrics by name, series in the order of their dimensions, samples by time.
/// JSON lines are of one series each and end with a line `{"summary": …}`; CSV has a header and a sample a line. When an
/// export ends early, its last line is `{"error": …}` and the connection is cut. It is no snapshot: what is written while
/// it runs may be in it or not. `Accept-Encoding` may ask for gzip or zstd.
#[utoipa::path(
    get,
    path = "/api/v1/admin/export",
    tag = "administer",
    params(ExportParameters),
    responses(
        (status = 200, description = "The samples", content(
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        QueryErrors,
    ),
    security(("token" = ["admin"])),
)]
pub async fn export(
    State(state): State<AppState>,
    id: RequestId,
    caller: CanAdmin,
    Parameters(parameters): Parameters<ExportParameters>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let wanted = Wanted::of(&parameters, &state)?;
    let store = state.store()?;
    let permit = state.limits.transfer(&caller.caller, Transfer::Export)?;
    let admitted = state.gate.enter(Class::HeavyQuery).await?;
    let encoding = accepted(&headers);
    let mut exporter = Exporter::begin(&state, store, caller.tenant(), wanted, (permit, admitted));
    let layout = exporter.layout().await?;
    let kind =
        if matches!(layout, Layout::Csv(_)) { "text/csv; charset=utf-8; header=present" } else { NDJSON };
    exporter.writer = Some((Writer::new(layout), Encoder::new(encoding)?));
    // What fails before anything is written has a status of its own.
    let first = exporter.piece().await?;
    let mut response =
        Body::from_stream(stream::unfold(Sending::Piece(first, exporter, id), send)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// Which of the encodings that are written the client takes, in our order.
fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    let named = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|value| value.split(',')).map(|one| one.to_ascii_lowercase()).collect();
    let takes = |encoding: &str| {
        named.iter().any(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            name.trim() == encoding && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
    };
    ["zstd", "gzip"].into_iter().find(|encoding| takes(encoding))
}

/// A checked request.
struct Wanted {
    metric: Option<MetricName>,
    range: TimeRange,
    filters: Vec<(DimensionKey, String)>,
    csv: bool,
}

impl Wanted {
    fn of(parameters: &ExportParameters, state: &AppState) -> Result<Self, Error> {
        let fault = |field: &str, reason: &str| Error::InvalidParameter(Fault::of(field, reason));
        let time = |field: &'static str, text: &Option<String>, absent: i64| match text {
            None => Ok(absent),
            Some(text) => {
                let reason = "a time must be whole Unix milliseconds or an RFC 3339 time";
                Time::parse(text).map(|time| time.0).ok_or_else(|| fault(field, reason))
            }
        };
        let newest = state.clock.now().saturating_add(state.config.ingest.max_future.millis());
        let start = time("start", &parameters.start, EARLIEST)?;
        let end = time("end", &parameters.end, newest.saturating_add(1))?;
        let range = TimeRange::new(start, end).ok_or_else(|| fault("start", "start must lie before end"))?;
        let csv = match parameters.format.as_deref() {
            None | Some("jsonl") => false,
            Some("csv") => true,
            Some(_) => return Err(fault("format", "format must be jsonl or csv")),
        };
        let metric = parameters.metric.as_deref().map(|name| input::metric("metric", name)).transpose()?;
        Ok(Self { metric, range, filters: filters(parameters.filters.as_deref())?, csv })
    }
}

fn filters(text: Option<&str>) -> Result<Vec<(DimensionKey, String)>, Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let read: Result<BTreeMap<String, String>, _> = serde_json::from_str(text);
    let pairs = read.map_err(|error| {
        let reason =
            format!("filters must be a JSON object of keys and the strings that they must equal: {error}");
        Error::InvalidParameter(Fault::of("filters", reason))
    })?;
    pairs.into_iter().map(|(key, value)| Ok((input::key(&format!("filters.{key}"), &key)?, value))).collect()
}

/// An export under way; dropped, it is cancelled.
struct Exporter {
    store: Arc<dyn MetricsStore>,
    tenant: Tenant,
    wanted: Wanted,
    context: QueryContext,
    /// Metrics that come next, and the last of those that were listed if there are more.
    metrics: VecDeque<MetricName>,
    listed_until: Option<Option<String>>,
    current: Option<(MetricName, Box<dyn Export>)>,
    writer: Option<(Writer, Encoder)>,
    ended: bool,
    _cancel_on_drop: DropGuard,
    /// Its places among the exports and among the queries.
    _places: (TransferPermit, Admitted),
}

impl Exporter {
    fn begin(
        state: &AppState,
        store: Arc<dyn MetricsStore>,
        tenant: &Tenant,
        wanted: Wanted,
        places: (TransferPermit, Admitted),
    ) -> Self {
        let context = query::reading(state, tenant, DEADLINE);
        Self {
            store,
            tenant: tenant.clone(),
            metrics: wanted.metric.iter().cloned().collect(),
            listed_until: wanted.metric.is_none().then_some(None),
            wanted,
            _cancel_on_drop: context.cancel.clone().drop_guard(),
            context,
            current: None,
            writer: None,
            ended: false,
            _places: places,
        }
    }

    /// How samples are written; for CSV the keys of all metrics are the columns.
    async fn layout(&mut self) -> Result<Layout, Error> {
        if !self.wanted.csv {
            return Ok(Layout::Lines);
        }
        let mut keys = BTreeSet::new();
        let mut metrics = Vec::new();
        while let Some(metric) = self.next_metric().await? {
            let mut after = None;
            loop {
                let list = ListQuery { prefix: String::new(), after, limit: PAGE };
                let page = self.store.list_dimension_keys(&self.tenant, &metric, &list).await?;
                after = page.names.last().map(|name| name.to_string());
                keys.extend(page.names);
                if keys.len() > MAX_COLUMNS - 3 {
                    let reason = format!("more than {MAX_COLUMNS} columns; name a metric, or ask for jsonl");
                    return Err(Error::InvalidParameter(Fault::of("format", reason)));
                }
                if !page.more {
                    break;
                }
            }
            metrics.push(metric);
        }
        self.metrics = metrics.into();
        Ok(Layout::Csv(keys.into_iter().collect()))
    }

    async fn next_metric(&mut self) -> Result<Option<MetricName>, Error> {
        if let (true, Some(after)) = (self.metrics.is_empty(), self.listed_until.take()) {
            let list = ListQuery { prefix: String::new(), after, limit: PAGE };
            let page = self.store.list_metrics(&self.tenant, &list).await?;
            self.listed_until = page.names.last().filter(|_| page.more).map(|last| Some(last.to_string()));
            for name in page.names {
                self.metrics.push_back(MetricName::new(&name).map_err(StoreError::internal)?);
            }
        }
        Ok(self.metrics.pop_front())
    }

    /// The next piece of text; nothing behind the last.
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let text = match self.samples().await? {
                Some((metric, stretches)) => {
                    self.write(move |writer, out| {
                        stretches.into_iter().for_each(|stretch| writer.stretch(&metric, stretch, out));
                    })
                    .await?
                }
                None => {
                    self.ended = true;
                    self.write(Writer::end).await?
                }
            };
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    /// The samples that come next, and whose they are.
    async fn samples(
        &mut self,
    ) -> Result<Option<(MetricName, Vec<luminate_storage::model::SeriesSamples>)>, Error> {
        let late = |_| StoreError::new(ErrorKind::Timeout, "a piece of the export took too long");
        loop {
            if self.current.is_none() {
                let Some(metric) = self.next_metric().await? else { return Ok(None) };
                let selector = Selector::new(metric.clone(), self.wanted.filters.clone());
                let query = ExportQuery { selector, range: self.wanted.range, piece: PIECE };
                let begun = self.store.export(&self.tenant, &query, &self.context);
                self.current = Some((metric, timeout(PATIENCE, begun).await.map_err(late)??));
            }
            let Some((metric, export)) = &mut self.current else { continue };
            let stretches = timeout(PATIENCE, export.next()).await.map_err(late)??;
            if !stretches.is_empty() {
                return Ok(Some((metric.clone(), stretches)));
            }
            self.current = None;
        }
    }

    /// Writes, on a thread that may block, and takes what is ready to be sent.
    async fn write(
        &mut self,
        write: impl FnOnce(&mut Writer, &mut Vec<u8>) + Send + 'static,
    ) -> Result<Bytes, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let Some((mut writer, mut encoder)) = self.writer.take() else {
            return Err(Error::Internal("an export went on after its end".into()));
        };
        let ended = self.ended;
        let written = tokio::task::spawn_blocking(move || {
            let text = encoder.write(ended, LEAST_BYTES, |out| write(&mut writer, out))?;
            Ok::<_, std::io::Error>((text, writer, encoder))
        });
        let (text, writer, encoder) =
            written.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        self.writer = Some((writer, encoder));
        Ok(text)
    }

    /// The last line of an export that ends early.
    async fn give_up(&mut self, error: &Error, id: &RequestId) -> Bytes {
        self.ended = true;
        self.current = None;
        let line = serde_json::to_vec(&error.body(Some(&id.0))).unwrap_or_default();
        let written = self.write(move |writer, out| writer.fail(&line, out)).await;
        written.unwrap_or_default()
    }
}

/// What is sent next.
enum Sending {
    Piece(Option<Bytes>, Exporter, RequestId),
    Next(Exporter, RequestId),
    Cut,
}

async fn send(sending: Sending) -> Option<(std::io::Result<Bytes>, Sending)> {
    match sending {
        Sending::Piece(piece, exporter, id) => Some((Ok(piece?), Sending::Next(exporter, id))),
        Sending::Next(mut exporter, id) => match exporter.piece().await {
            Ok(piece) => Some((Ok(piece?), Sending::Next(exporter, id))),
            Err(error) => {
                let code = error.code().name();
                tracing::warn!(request_id = &*id.0, code, error = %error, "an export ended early");
                Some((Ok(exporter.give_up(&error, &id).await), Sending::Cut))
            }
        },
        Sending::Cut => {
            tokio::time::sleep(BEFORE_THE_CUT).await;
            // Nobody shall take what there is for all.
            Some((Err(std::io::Error::other("the export ended early")), Sending::Cut))
        }
    }
}

#[cfg(test)]
mod tests;
