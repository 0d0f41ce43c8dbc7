//! An export: first which series there are, in their order; then, few at a time, what describes them and their samples.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use clickhouse::Row;
use serde::Deserialize;

use super::range::{DescribedRow, FirstRow, dimensions};
use super::{Chosen, FEW, Reader, one_more};
use crate::clickhouse::open::Parts;
use crate::export::{Brought, Step, Walk};
use crate::model::{ExportQuery, SeriesSamples, Tenant};
use crate::store::{Export, QueryContext, Result};

/// What is held of each series: its fingerprint, also while they come in.
const SERIES_BYTES: u64 = 16;

#[derive(Debug, Row, Deserialize)]
struct Listed {
    fp: u64,
}

/// The series of a selector in the contract's order, and where in them the export stands.
pub struct Exporting {
    parts: Arc<Parts>,
    tenant: Tenant,
    query: ExportQuery,
    context: QueryContext,
    fps: Vec<u64>,
    walk: Walk,
}

impl Exporting {
    /// Finds the series and has them put in order.
    ///
    /// # Errors
    /// `Timeout`, `Cancelled`, `QueryTooLarge`, `Unavailable`, `Internal`.
    pub async fn begin(
        parts: Arc<Parts>,
        tenant: &Tenant,
        query: &ExportQuery,
        context: &QueryContext,
    ) -> Result<Self> {
        let reader = parts.reader(tenant);
        let selected = reader.selected(&query.selector, &query.range, 0);
        let text = reader.text(&selected).fill(include_str!("../sql/export_series.sql"));
        let listed: Vec<Listed> = reader.ask(reader.statement(text, &selected), context).await?;
        if listed.len() as u64 * SERIES_BYTES > context.max_memory {
            return Err(context.memory_exceeded());
        }
        let fps: Vec<u64> = listed.into_iter().map(|series| series.fp).collect();
        let walk = Walk::new(fps.len(), query.range, query.piece, FEW as usize);
        let (tenant, query, context) = (tenant.clone(), query.clone(), context.clone());
        Ok(Self { parts, tenant, query, context, fps, walk })
    }

    /// The samples of a step's series, which are in the contract's order.
    async fn read(&self, step: &Step) -> Result<(Vec<SeriesSamples>, Brought)> {
        let reader = self.parts.reader(&self.tenant);
        let fps = &self.fps[step.series.clone()];
        let mut selected = reader.selected(&self.query.selector, &step.range, 0);
        (selected.chosen, selected.fps) = (Chosen::Few, fps.to_vec());
        let text = reader.text(&selected).fill(include_str!("../sql/described_series.sql"));
        let statement = reader.statement(text, &selected).param("fews", FEW + 1);
        let described: Vec<DescribedRow> = reader.ask(statement, &self.context).await?;
        let rows = self.samples(&reader, &selected, step.most).await?;
        let brought = Brought {
            samples: rows.len().min(step.most),
            stopped: rows.len() > step.most,
            last: rows.iter().take(step.most).next_back().map(|row| row.time),
        };
        self.context.check(rows.len() as u64)?;
        Ok((stretches(fps, described, &rows[..brought.samples])?, brought))
    }

    async fn samples(
        &self,
        reader: &Reader<'_>,
        selected: &super::Selected<'_>,
        most: usize,
    ) -> Result<Vec<FirstRow>> {
        let text = reader.text(selected).fill(include_str!("../sql/export_samples.sql"));
        reader.ask(reader.statement(text, selected).param("rows", one_more(most)), &self.context).await
    }
}

/// Rows by series, as stretches in the order of `fps`; a series that went away in between has none.
fn stretches(fps: &[u64], described: Vec<DescribedRow>, rows: &[FirstRow]) -> Result<Vec<SeriesSamples>> {
    let mut described: HashMap<u64, Vec<(String, String)>> =
        described.into_iter().map(|series| (series.fp, series.pairs)).collect();
    let mut stretches = HashMap::with_capacity(fps.len());
    for rows in rows.chunk_by(|one, next| one.fp == next.fp) {
        let Some(pairs) = described.remove(&rows[0].fp) else { continue };
        let (timestamps, values) = rows.iter().map(|row| (row.time, row.value)).unzip();
        stretches.insert(rows[0].fp, SeriesSamples { dimensions: dimensions(pairs)?, timestamps, values });
    }
    Ok(fps.iter().filter_map(|fp| stretches.remove(fp)).collect())
}

#[async_trait]
impl Export for Exporting {
    async fn next(&mut self) -> Result<Vec<SeriesSamples>> {
        while let Some(step) = self.walk.next() {
            let (stretches, brought) = self.read(&step).await?;
            if self.walk.done(&step, brought) && !stretches.is_empty() {
                return Ok(stretches);
            }
        }
        Ok(Vec::new())
    }
}
