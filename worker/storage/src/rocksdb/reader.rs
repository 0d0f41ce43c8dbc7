//! Scans one view of the store: layers, frozen heads and the active head become one series again.

use std::cell::OnceCell;
use std::sync::Arc;

use ::rocksdb::DBPinnableSlice;

use crate::store::{QueryContext, Result};

use super::head::Head;
use super::layer::{View, day_of};
use super::merge::merge_samples;
use super::page::{HourColumns, PageData, PageSummary, Scratch};
use super::scan::{Detail, Piece, ScanEstimate, ScanSpec, SeriesScan, Visitor};
use super::summary::HOUR;
use super::tables::{PageKey, Tables};

/// A view with the means to read it; nothing older than `floor` is shown.
#[derive(Debug)]
pub struct Reader<'a> {
    tables: &'a Tables,
    view: Arc<View>,
    floor: i64,
}

impl<'a> Reader<'a> {
    /// Reads `view` from `floor` (Unix milliseconds) on: now − retention.
    #[must_use]
    pub fn new(tables: &'a Tables, view: Arc<View>, floor: i64) -> Self {
        Self { tables, view, floor }
    }
}
