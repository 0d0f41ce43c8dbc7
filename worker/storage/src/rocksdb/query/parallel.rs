//! Chunks of series on all threads of a pool, or all of them on the caller's, merged in an order that doesn't depend on the
//! threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::ThreadPool;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::store::Result;

/// Chunks for each thread, so that all end at about the same time.
const CHUNKS_PER_THREAD: usize = 8;
/// A page holds up to 128 series: much smaller chunks would open every page several times.
const LEAST: usize = 64;
/// Larger chunks would learn too late which rows nobody wants.
const MOST: usize = 1_024;

/// Who works on a query.
#[derive(Debug, Clone, Copy)]
pub enum Threads<'a> {
    /// All threads of a pool.
    Pool(&'a ThreadPool),
    /// The thread that asks, alone: for little queries, over which another would take longer to wake.
    Caller,
}

impl Threads<'_> {
    /// Runs `work` there.
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Pool(pool) => pool.install(work),
            Self::Caller => work(),
        }
    }

    /// `0..count` in chunks, equally long but for the last; one for the caller alone.
    #[must_use]
    pub fn chunks(self, count: usize) -> Vec<Range<usize>> {
        match self {
            Self::Pool(pool) => chunks(count, pool.current_num_threads()),
            Self::Caller => (count > 0).then_some(0..count).into_iter().collect(),
        }
    }

    /// What `make` makes of each, in their order.
    ///
    /// # Errors
    /// That of one of them.
    pub fn map<T: Send, U: Send>(
        self,
        items: Vec<T>,
        make: impl Fn(T) -> Result<U> + Send + Sync,
    ) -> Result<Vec<U>> {
        match self {
            Self::Pool(_) => items.into_par_iter().map(make).collect(),
            Self::Caller => items.into_iter().map(make).collect(),
        }
    }
}

/// Cuts `0..count` into chunks for `threads` threads, equally long but for the last.
#[must_use]
fn chunks(count: usize, threads: usize) -> Vec<Range<usize>> {
    let size = count.div_ceil(threads.max(1) * CHUNKS_PER_THREAD).clamp(LEAST, MOST);
    (0..count).step_by(size).map(|from| from..(from + size).min(count)).collect()
}

/// Runs `task` on every chunk and merges neighbours pairwise; `None` without a chunk.
///
/// The tree is the same on every run, and so is the rounding of what it adds up.
///
/// # Errors
/// That of a task or merge; chunks that haven't begun then are left out.
pub fn fold<Part: Send>(
    chunks: &[Range<usize>],
    task: &(impl Fn(Range<usize>) -> Result<Part> + Sync),
    merge: &(impl Fn(Part, Part) -> Result<Part> + Sync),
) -> Result<Option<Part>> {
    let failed = AtomicBool::new(false);
    let task = |chunk| match failed.load(Ordering::Relaxed) {
        true => Ok(None),
        false => task(chunk).map(Some).inspect_err(|_| failed.store(true, Ordering::Relaxed)),
    };
    fold_some(chunks, &task, merge)
}

fn fold_some<Part: Send>(
    chunks: &[Range<usize>],
    task: &(impl Fn(Range<usize>) -> Result<Option<Part>> + Sync),
    merge: &(impl Fn(Part, Part) -> Result<Part> + Sync),
) -> Result<Option<Part>> {
    match chunks {
        [] => Ok(None),
        [one] => task(one.clone()),
        _ => {
            let (left, right) = chunks.split_at(chunks.len() / 2);
            let (left, right) =
                rayon::join(|| fold_some(left, task, merge), || fold_some(right, task, merge));
            match (left?, right?) {
                (Some(left), Some(right)) => merge(left, right).map(Some),
                (one, other) => Ok(one.or(other)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn chunks_cover_everything_once_and_are_enough_for_every_thread() {
        for (count, threads) in [(0, 2), (1, 2), (63, 16), (4_000, 2), (4_000, 16), (1_000_000, 4)] {
            let chunks = chunks(count, threads);
            let all: Vec<usize> = chunks.iter().cloned().flatten().collect();
            assert!(all.into_iter().eq(0..count));
            if count >= 4_000 {
                assert!(chunks.len() >= threads * 3, "{} chunks for {threads} threads", chunks.len());
            }
        }
    }

    #[test]
    fn merging_keeps_the_order_and_an_error_comes_through() {
        let join = |mut left: Vec<usize>, right: Vec<usize>| {
            left.extend(right);
            Ok(left)
        };
        let chunks = chunks(1_000, 2);
        let all = fold(&chunks, &|chunk| Ok(chunk.collect::<Vec<usize>>()), &join).unwrap().unwrap();
        assert!(all.into_iter().eq(0..1_000));
        let begun = AtomicUsize::new(0);
        let failing = |chunk: Range<usize>| {
            begun.fetch_add(1, Ordering::Relaxed);
            match chunk.contains(&100) {
                true => Err(crate::store::StoreError::internal("no")),
                false => Ok(Vec::new()),
            }
        };
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(one.install(|| fold(&chunks, &failing, &join)).is_err());
        assert_eq!(begun.load(Ordering::Relaxed), 2, "what comes after the error is not begun");
    }
}
