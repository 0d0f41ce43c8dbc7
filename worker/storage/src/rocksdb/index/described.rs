//! The dimensions of many series at once: they share their keys and most of their values.

use std::sync::Arc;

use crate::model::{DimensionKey, Dimensions};

use super::core::Core;
use super::tenant::TenantIndex;

/// Series that are described under one hold of the lock, some 200 µs.
const AT_ONCE: usize = 1_024;
/// Most values that are kept to be shared: many times those of a machine's dimensions that aren't its own.
const KEPT: usize = 1_024;

impl TenantIndex {
    /// The dimensions of each of `ids`, empty where it is gone.
    pub(super) fn described(&self, ids: &[u32]) -> Vec<Dimensions> {
        let mut texts = Texts::of(ids.len());
        let mut all = Vec::with_capacity(ids.len());
        for part in ids.chunks(AT_ONCE) {
            let core = self.core.read();
            let mut keys = None;
            all.extend(part.iter().map(|id| describe(&core, *id, &mut keys, &mut texts)));
        }
        all
    }
}

/// The dimensions of a series; `keys` are those of the last one's shape.
fn describe(
    core: &Core,
    id: u32,
    keys: &mut Option<(u32, Arc<[DimensionKey]>)>,
    texts: &mut Texts,
) -> Dimensions {
    let Some((number, shape, row)) = core.row(id) else { return Dimensions::default() };
    let keys = match keys {
        Some((last, keys)) if *last == number => keys,
        _ => &mut keys.insert((number, core.keys(shape).cloned().collect())).1,
    };
    let values = core.values(shape, row).map(|text| texts.get(core, text));
    Dimensions::from_stored(keys.clone(), values)
}

/// Texts by their numbers, which name nothing else later, the last one of each slot.
struct Texts(Vec<Option<(u32, Arc<str>)>>);

impl Texts {
    /// For so many series.
    fn of(series: usize) -> Self {
        // What a single series has it has once.
        let slots = if series > 1 { KEPT.min(series.saturating_mul(16).next_power_of_two()) } else { 1 };
        Self(vec![None; slots])
    }

    fn get(&mut self, core: &Core, number: u32) -> Arc<str> {
        let slot = number as usize % self.0.len();
        match &self.0[slot] {
            Some((kept, text)) if *kept == number => text.clone(),
            _ => self.0[slot].insert((number, Arc::from(core.texts.get(number)))).1.clone(),
        }
    }
}
