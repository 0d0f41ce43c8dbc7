//! An export: step by step over the view of the moment, so that a slow client holds no layer and no head.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;

use crate::export::{Brought, Step, Walk};
use crate::model::{ExportQuery, SeriesSamples, Tenant};
use crate::rocksdb::index::TenantIndex;
use crate::rocksdb::layer::View;
use crate::rocksdb::query::{Catalog, days_of};
use crate::rocksdb::reader::Reader;
use crate::rocksdb::scan::{Detail, Piece, ScanSpec, SeriesScan};
use crate::store::{Export, QueryContext, Result, StoreError};

use super::lanes::Lane;
use super::{Inner, unavailable};

/// Series of a step at most.
const MOST_SERIES: usize = 4_096;
/// What is held of each series: its number, and its place among the others while they are put in order.
const SERIES_BYTES: u64 = 12;

/// An open block can only be decoded from its beginning: a long one is, as a whole, no more often than so.
const HEAD_PASSES: usize = 8;

/// The series of a selector in the contract's order, and where in them the export stands.
pub(super) struct Exporting {
    source: Arc<Source>,
    /// Numbers of the series; never used again for another one.
    order: Vec<u32>,
    walk: Walk,
    /// What was read of a series with a long open block, in pieces.
    ready: VecDeque<SeriesSamples>,
}

/// What every step reads from.
struct Source {
    inner: Arc<Inner>,
    index: Arc<TenantIndex>,
    tenant: Tenant,
    query: ExportQuery,
    context: QueryContext,
    metric: u32,
}

impl Exporting {
    /// Finds the series and puts them in order; blocks. Nothing where there is none.
    ///
    /// # Errors
    /// `QueryTooLarge` when there are more than may be held.
    pub(super) fn begin(
        inner: Arc<Inner>,
        index: Arc<TenantIndex>,
        tenant: Tenant,
        query: ExportQuery,
        context: QueryContext,
    ) -> Result<Option<Self>> {
        let Some(selected) = index.select(&query.selector, days_of(query.range)) else { return Ok(None) };
        if selected.ids.len() as u64 * SERIES_BYTES > context.max_memory {
            return Err(context.memory_exceeded());
        }
        context.check(0)?;
        let mut order = vec![0; selected.ids.len()];
        for (id, rank) in selected.ids.iter().zip(index.ranks(&selected.ids)) {
            order[rank as usize] = *id;
        }
        let walk = Walk::new(order.len(), query.range, query.piece, MOST_SERIES);
        let source = Source { inner, index, tenant, query, context, metric: selected.metric };
        Ok(Some(Self { source: Arc::new(source), order, walk, ready: VecDeque::new() }))
    }
}

#[async_trait]
impl Export for Exporting {
    async fn next(&mut self) -> Result<Vec<SeriesSamples>> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(vec![ready]);
        }
        while let Some(step) = self.walk.next() {
            let (source, ids) = (self.source.clone(), self.order[step.series.clone()].to_vec());
            // In the lane of heavy queries, which it shares with them turn by turn.
            let turn = source.inner.lanes.enter(Lane::Heavy, &source.tenant).await?;
            let (reader, read) = (source.clone(), step.clone());
            let work = move || reader.inner.lanes.pool(Lane::Heavy).install(|| reader.read(&read, &ids));
            let read = tokio::task::spawn_blocking(work).await;
            let (stretches, brought) = read.map_err(StoreError::internal)??;
            drop(turn);
            if !self.walk.done(&step, brought) || stretches.is_empty() {
                continue;
            }
            let piece = self.source.query.piece;
            match stretches.as_slice() {
                [long] if long.timestamps.len() > piece => self.ready = pieces(long, piece),
                _ => return Ok(stretches),
            }
            return Ok(self.ready.pop_front().into_iter().collect());
        }
        Ok(Vec::new())
    }
}

/// A stretch in stretches of at most `piece` samples.
fn pieces(long: &SeriesSamples, piece: usize) -> VecDeque<SeriesSamples> {
    let pieces = long.timestamps.chunks(piece).zip(long.values.chunks(piece));
    let piece = |(timestamps, values): (&[i64], &[f64])| SeriesSamples {
        dimensions: long.dimensions.clone(),
        timestamps: timestamps.to_vec(),
        values: values.to_vec(),
    };
    pieces.map(piece).collect()
}

impl Source {
    /// How many samples a step may bring.
    fn most(&self, step: &Step, view: &View, ids: &[u32]) -> usize {
        let [id] = ids else { return step.most };
        let heads = view.frozen.iter().map(|frozen| &frozen.head).chain([&view.active]);
        let held: usize = heads.map(|head| head.count(*id)).sum();
        step.most.max(held / HEAD_PASSES)
    }

    /// The samples of a step's series, which are in the contract's order.
    fn read(&self, step: &Step, ids: &[u32]) -> Result<(Vec<SeriesSamples>, Brought)> {
        let inner = &self.inner;
        if inner.is_stopping() {
            return Err(unavailable("the store is closing"));
        }
        self.context.check(0)?;
        // Described before they are read: a series that goes away in between has no sample left then.
        let empty = |dimensions| SeriesSamples { dimensions, timestamps: Vec::new(), values: Vec::new() };
        let mut found: Vec<SeriesSamples> = self.index.dimensions(ids).into_iter().map(empty).collect();
        // A scan goes through series by their numbers.
        let mut places: Vec<usize> = (0..ids.len()).collect();
        places.sort_unstable_by_key(|place| ids[*place]);
        let ids: Vec<u32> = places.iter().map(|place| ids[*place]).collect();
        let floor = inner.visible_since(&self.tenant, &self.query.selector.metric);
        let view = inner.view.load_full();
        let most = self.most(step, &view, &ids);
        let reader = Reader::new(&inner.tables, view, floor);
        let spec = ScanSpec::exact(self.metric, step.range, Detail::Samples);
        let mut brought = Brought { samples: 0, stopped: false, last: None };
        let scanned = reader.scan(&spec, &ids, &self.context, &mut |position, piece| {
            let Piece::Samples { times, values } = piece else {
                return Err(StoreError::internal("a summary where samples were asked for"));
            };
            let taken = times.len().min(most - brought.samples);
            let stretch = &mut found[places[position]];
            stretch.timestamps.extend_from_slice(&times[..taken]);
            stretch.values.extend_from_slice(&values[..taken]);
            brought.samples += taken;
            brought.last = stretch.timestamps.last().copied();
            brought.stopped = taken < times.len();
            match brought.stopped {
                true => Err(StoreError::internal("enough")),
                false => Ok(()),
            }
        });
        if !brought.stopped {
            scanned?;
        }
        found.retain(|stretch| !stretch.timestamps.is_empty());
        Ok((found, brought))
    }
}
