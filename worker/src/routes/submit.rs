//! What the routes that write have in common: from received bytes to what became of each sample.

use std::sync::Arc;

use axum::body::Bytes;
use luminate_crds::worker_config::WorkerConfig;
use luminate_storage::model::{DimensionLimits, SeriesLimits};
use luminate_storage::store::{ErrorKind, MetricsStore, NoSeries, SeriesLookup, StoreError, WriteOutcome};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::admission::Class;
use crate::app::AppState;
use crate::error::{Error, ErrorObject, Fault};
use crate::ingest::body::{self, Encoding};
use crate::ingest::json::JsonError;
use crate::ingest::remote_write::RemoteWriteError;
use crate::ingest::{Decoded, Rejections, Rules, SampleError, TooManySamples};
use crate::tenant::Caller;

/// Bodies of about this size are decoded where the request is handled, in a millisecond or so; larger
/// ones on a thread that may block, so that nobody else's request waits for them.
const INLINE_BYTES: usize = 512 << 10;
/// What is decoded where the request is handled becomes no more than this.
const INLINE_LIMIT: usize = 2 * INLINE_BYTES;
/// How much larger compressed samples usually become.
const EXPANSION: usize = 8;

/// A wire format: how a body is decompressed, and how it is read.
#[derive(Debug, Clone, Copy)]
pub struct Format<U, D> {
    /// Whether there is something to decompress.
    compressed: bool,
    decompress: U,
    decode: D,
}

impl<U, D> Format<U, D>
where
    U: Fn(Bytes, usize) -> Result<Bytes, Error> + Clone + Send + 'static,
    D: Fn(&[u8], &Rules, &dyn SeriesLookup) -> Result<Decoded, Error> + Clone + Send + 'static,
{
    /// A format whose bodies are always compressed: `decompress` undoes that within a limit, and `decode` reads samples
    /// from what comes out.
    pub fn compressed(decompress: U, decode: D) -> Self {
        Self { compressed: true, decompress, decode }
    }
}

/// A format whose bodies may have any content encoding.
pub fn encoded<D>(
    encoding: Encoding,
    decode: D,
) -> Format<impl Fn(Bytes, usize) -> Result<Bytes, Error> + Clone + Send + 'static, D>
where
    D: Fn(&[u8], &Rules, &dyn SeriesLookup) -> Result<Decoded, Error> + Clone + Send + 'static,
{
    let compressed = encoding != Encoding::Identity;
    Format { compressed, decompress: move |wire, limit| Ok(body::decode(wire, encoding, limit)?), decode }
}

/// What became of a request's samples.
#[derive(Debug)]
pub struct Submitted {
    /// Samples stored.
    pub accepted: u64,
    /// Samples refused.
    pub rejections: Rejections,
    /// Samples left out without being an error.
    pub dropped: u64,
    /// Whether the stored ones survive a power cut.
    pub durable: bool,
}

/// The answer to a write.
#[derive(Debug, Serialize, ToSchema)]
pub struct WriteAnswer {
    /// Samples stored.
    #[schema(example = 2)]
    pub accepted: u64,
    /// Samples refused.
    #[schema(example = 1)]
    pub rejected: u64,
    /// The first 100 refused samples.
    pub errors: Vec<SampleError>,
    /// `false` when the stored samples don't survive a power cut yet; absent when they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
    /// Present when the status is 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
}

impl Submitted {
    /// The answer, with the error that goes with its status.
    #[must_use]
    pub fn answer(self, error: Option<ErrorObject>) -> WriteAnswer {
        WriteAnswer {
            accepted: self.accepted,
            rejected: self.rejections.total(),
            errors: self.rejections.listed().to_vec(),
            durable: (!self.durable).then_some(false),
            error,
        }
    }
}

impl From<JsonError> for Error {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooMany { max } => Self::BatchTooLarge { limit: max as u64 },
            JsonError::Syntax(_) | JsonError::Shape(_) => Self::InvalidBody(Fault::whole(error)),
        }
    }
}

impl From<TooManySamples> for Error {
    fn from(TooManySamples { max }: TooManySamples) -> Self {
        Self::BatchTooLarge { limit: max as u64 }
    }
}

impl From<RemoteWriteError> for Error {
    fn from(error: RemoteWriteError) -> Self {
        match error {
            RemoteWriteError::TooMany { max } => Self::BatchTooLarge { limit: max as u64 },
            RemoteWriteError::Malformed { ref field, .. } => {
                Self::InvalidBody(Fault { field: field.clone(), reason: error.to_string() })
            }
        }
    }
}

/// Stores what `wire` holds; while the worker is busy, only what needs no new series.
///
/// # Errors
/// The body is refused as a whole, a limit is used up, or the store failed. `Shed` when samples of new series were left
/// out, after the others are stored: sending all of them again changes nothing.
pub async fn submit<U, D>(
    state: &AppState,
    caller: &Caller,
    wire: Bytes,
    format: Format<U, D>,
) -> Result<Submitted, Error>
where
    U: Fn(Bytes, usize) -> Result<Bytes, Error> + Clone + Send + 'static,
    D: Fn(&[u8], &Rules, &dyn SeriesLookup) -> Result<Decoded, Error> + Clone + Send + 'static,
{
    let store = state.store()?;
    let rules = rules(state, caller);
    let limit = state.config.server.max_body_bytes.len();
    let lookup = store.lookup(&caller.tenant);
    // 1. CPU, may refuse the body: bytes become a batch.
    let Format { compressed, decompress, decode } = format;
    let size = if compressed { wire.len() * EXPANSION } else { wire.len() };
    // What it is decompressed to is made anew where it is needed twice: it would be held while others wait for memory.
    let read = |lookup: Arc<dyn SeriesLookup>| {
        let (wire, decompress, decode) = (wire.clone(), decompress.clone(), decode.clone());
        off_the_loop(&state.decoders, (size, limit), move |limit| {
            decode(&decompress(wire.clone(), limit)?, &rules, lookup.as_ref())
        })
    };
    let decoded = read(Arc::clone(&lookup)).await?;
    // 2. May refuse the request: the tenant's budget of samples, and of memory.
    state.limits.samples(caller, decoded.batch.len() as u64)?;
    let mut held = state.bodies.share(Some(&caller.tenant));
    held.grow_to(decoded.batch.bytes())?;
    let own = held.bytes() + wire.len() as u64;
    // 3. IO: on stable storage when it returns.
    let stored = match store_batch(state, store.as_ref(), caller, decoded, own).await {
        Err(error) if error.kind == ErrorKind::StaleSeries => {
            let decoded = read(Arc::new(NoSeries(lookup.hasher().clone()))).await?;
            store_batch(state, store.as_ref(), caller, decoded, own).await
        }
        stored => stored,
    };
    let (submitted, shed) = stored.inspect_err(|error| {
        if matches!(error.kind, ErrorKind::Overloaded { .. }) {
            state.metrics.shed(Class::KnownSeries);
        }
    })?;
    // 4. Count.
    state.metrics.admitted(Class::KnownSeries);
    state.metrics.written(submitted.accepted, submitted.rejections.counts(), submitted.dropped);
    if shed { Err(state.gate.shed(Class::NewSeries)) } else { Ok(submitted) }
}

/// What dimensions must keep to.
pub fn dimension_limits(config: &WorkerConfig) -> DimensionLimits {
    let limits = &config.cardinality_limits;
    DimensionLimits {
        max_dimensions: limits.max_dimensions as usize,
        max_value_chars: limits.max_dimension_value as usize,
    }
}

fn rules(state: &AppState, caller: &Caller) -> Rules {
    let config = &state.config;
    Rules {
        now: state.clock.now(),
        max_age: config.ingest.max_age.millis(),
        max_future: config.ingest.max_future.millis(),
        max_batch: config.ingest.max_batch as usize,
        dimensions: dimension_limits(config),
        series: state.limits.series(caller),
    }
}

/// Stores a batch of a request that holds `own` bytes, and says whether samples of new series were left out since the
/// worker is busy.
async fn store_batch(
    state: &AppState,
    store: &dyn MetricsStore,
    caller: &Caller,
    decoded: Decoded,
    own: u64,
) -> Result<(Submitted, bool), StoreError> {
    let described = decoded.described_rows();
    let Decoded { mut batch, mut rejections, dropped, .. } = decoded;
    let rows = batch.len() as u64;
    if rows == 0 {
        return Ok((Submitted { accepted: 0, rejections, dropped, durable: true }, false));
    }
    // Only the store can tell which of the described series are new.
    let known_only = !batch.new_series.is_empty() && !state.gate.may_create(own);
    if known_only {
        batch.limits = SeriesLimits::NOTHING_NEW;
    }
    let WriteOutcome { refused, durable } = store.write(&caller.tenant, batch).await?;
    let accepted = rows - refused.len() as u64;
    let shed = known_only && !refused.is_empty();
    if !shed {
        rejections.add_refused(described.locate(&refused));
    }
    Ok((Submitted { accepted, rejections, dropped, durable }, shed))
}

/// Does `work` over `bytes` here if they are few, and become no more than a few, else on a thread that may block, when it
/// is its turn; it is told how many bytes may come out.
async fn off_the_loop<T: Send + 'static>(
    decoders: &Semaphore,
    (bytes, limit): (usize, usize),
    work: impl Fn(usize) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let inline = limit.min(INLINE_LIMIT);
    if bytes <= INLINE_BYTES {
        match work(inline) {
            // It becomes more than such bodies usually do: a bomb, or samples that are much alike.
            Err(Error::BodyTooLarge { .. }) if inline < limit => {}
            done => return done,
        }
    }
    let internal = |error: &dyn std::error::Error| Error::Internal(error.to_string());
    let _turn = decoders.acquire().await.map_err(|error| internal(&error))?;
    tokio::task::spawn_blocking(move || work(limit)).await.map_err(|error| internal(&error))?
}
