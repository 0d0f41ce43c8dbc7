//! The committer: one thread that makes every change of the store, in order.
//!
//! It takes all batches that wait, writes them as one log record, syncs it, applies it to the head and
//! wakes their callers. Deletes, retention and the expiry of series go through it too, so that a batch
//! never races the removal of its own series. After a failed write or sync of the log it never tries
//! again: the page cache can't be trusted, and an ack would be a lie.

mod group;
mod queue;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use super::engine::{Ack, Inner};
use super::head::Head;
use super::layer::{Frozen, day_of, day_start};
use super::log::{Cut, Log};
use super::record;
use crate::model::{MetricName, Tenant};
use crate::store::{ErrorKind, Result, Retention, StoreError};

pub use group::Marks;
pub use queue::{Batch, Done, Queue, Work};

/// Most bytes of one log record before compression: bounds what a caller waits for.
pub const GROUP_BYTES: u64 = 4 << 20;
/// How long the numbers of removed series are compared with the rows of batches: longer than any
/// request can be under way between its lookup and its commit.
const REMOVED_KEPT: Duration = Duration::from_secs(600);
/// How often a log in buffered mode is synced.
const BUFFERED_SYNC: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// The state of the committer's thread.
pub struct Committer {
    inner: Arc<Inner>,
    log: Log,
    /// Definitions whose own commit didn't happen; their series are known already, so they go first
    /// into the next record.
    carried: Vec<Vec<u8>>,
    marks: Marks,
    removed: RoaringBitmap,
    removed_at: Instant,
    synced_at: Instant,
    frozen_at: Instant,
    /// The first commit of the active head.
    head_commit: u64,
}

impl Committer {
    /// A committer that goes on after the log's last commit.
    pub fn new(inner: Arc<Inner>, log: Log, head_commit: u64) -> Self {
        let now = Instant::now();
        Self {
            inner,
            log,
            carried: Vec::new(),
            marks: Marks::default(),
            removed: RoaringBitmap::new(),
            removed_at: now,
            synced_at: now,
            frozen_at: now,
            head_commit,
        }
    }

    /// Works until the queue is closed and empty.
    pub fn run(mut self) {
        while let Some(work) = self.inner.queue.take(TICK) {
            let batches = work.batches;
            if !batches.is_empty() {
                self.commit_batches(batches);
            }
            if let Some(other) = work.other {
                self.perform(other);
            }
            self.sync_buffered();
            self.freeze_if_due();
        }
        if self.log.close().is_err() {
            self.inner.fail("the log could not be synced at the end");
        }
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Delete { tenant, metric, before, done } => {
                done.answer(self.delete(&tenant, metric, before));
            }
            Work::Retention { tenant, retention, done } => {
                done.answer(self.set_retention(&tenant, retention));
            }
            Work::Expire { tenant, done } => {
                self.expire(&tenant);
                done.answer(Ok(()));
            }
            Work::Freeze { done } => {
                self.freeze();
                done.answer(Ok(()));
            }
            Work::HoldLog { done } => {
                self.log.hold();
                done.answer(Ok(()));
            }
            Work::CutLog { cut } => {
                // Nobody waits for it any more after a failure on the other side.
                let _gone = cut.send(self.cut_log());
            }
            Work::LetLogGo => self.log.let_go(),
            Work::Sealed { through } => self.log.release(through),
        }
    }

    fn commit_batches(&mut self, batches: Vec<Batch>) {
        // 1. Refuse batches of series that are gone.
        let mut accepted = Vec::with_capacity(batches.len());
        for batch in batches {
            if self.is_stale(&batch) {
                if !batch.definitions.is_empty() {
                    self.carried.push(batch.definitions);
                }
                batch.done.answer(Err(StoreError::new(ErrorKind::StaleSeries, "a series is gone")));
            } else {
                accepted.push(batch);
            }
        }
        if accepted.is_empty() {
            return;
        }
        // 2. Log them: from here on they are there after a crash.
        let now = self.inner.options.clock.now();
        let mut body = Vec::new();
        record::put_accepted(&mut body, now);
        for batch in &accepted {
            if !batch.definitions.is_empty() {
                record::put_definitions(&mut body, &batch.definitions);
            }
            record::put_rows(&mut body, &batch.rows);
        }
        if let Err(error) = self.append(body) {
            for batch in accepted {
                if !batch.definitions.is_empty() {
                    self.carried.push(batch.definitions);
                }
                batch.done.answer(Err(error.clone()));
            }
            return;
        }
        // 3. Make them visible.
        let rows: Vec<_> = accepted.iter().map(|batch| &batch.rows).collect();
        self.inner.view.load().active.apply(&rows);
        for batch in &accepted {
            self.marks.mark(&self.inner, &batch.rows);
            self.inner.count_accepted(&batch.rows, now);
        }
        // 4. Wake the callers.
        for batch in accepted {
            batch.done.answer(Ok(()));
        }
    }

    fn is_stale(&mut self, batch: &Batch) -> bool {
        if self.removed.is_empty() {
            return false;
        }
        if self.removed_at.elapsed() > REMOVED_KEPT {
            self.removed.clear();
            return false;
        }
        batch.rows.ids.iter().any(|id| self.removed.contains(*id))
    }

    /// Logs `body` behind what is carried, as the next commit; durable when this returns, unless
    /// the store is set to buffer.
    fn append(&mut self, body: Vec<u8>) -> Result<u64> {
        self.inner.check_working()?;
        let mut whole = Vec::new();
        for blob in &self.carried {
            record::put_definitions(&mut whole, blob);
        }
        let commit = self.log.last_commit() + 1;
        let whole = if whole.is_empty() {
            body
        } else {
            whole.extend_from_slice(&body);
            whole
        };
        let durable = self.inner.options.ack == Ack::Durable;
        let result =
            self.log.append(commit, &whole).and_then(|()| if durable { self.log.sync() } else { Ok(()) });
        match result {
            Ok(()) => {
                self.carried.clear();
                Ok(commit)
            }
            Err(error) if matches!(error.kind, ErrorKind::Unavailable { .. }) => Err(error),
            Err(error) => {
                self.inner.fail(&error.message);
                self.inner.check_working().and(Err(error))
            }
        }
    }

    fn cut_log(&mut self) -> Result<Cut> {
        self.inner.check_working()?;
        self.log.cut().inspect_err(|error| self.inner.fail(&error.message))
    }

    fn delete(&mut self, tenant: &Tenant, metric: u32, before: i64) -> Result<()> {
        let mut body = Vec::new();
        record::put_delete(&mut body, metric, before);
        let commit = self.append(body)?;
        let removed = self.inner.apply_delete(tenant, metric, before, commit);
        self.remember_removed(removed);
        Ok(())
    }

    fn set_retention(&mut self, tenant: &Tenant, retention: Retention) -> Result<()> {
        let mut body = Vec::new();
        record::put_retention(&mut body, tenant, &retention);
        self.append(body)?;
        self.inner.retention.write().insert(tenant.clone(), retention);
        self.expire(tenant);
        Ok(())
    }

    fn expire(&mut self, tenant: &Tenant) {
        let removed = self.inner.apply_expiry(tenant);
        self.remember_removed(removed);
    }

    fn remember_removed(&mut self, removed: Vec<u32>) {
        // A day may be present again after it was deleted, so every mark is made anew.
        self.marks = Marks::default();
        if !removed.is_empty() {
            self.removed.extend(removed);
            self.removed_at = Instant::now();
        }
    }

    fn sync_buffered(&mut self) {
        if self.inner.options.ack == Ack::Buffered && self.synced_at.elapsed() >= BUFFERED_SYNC {
            self.synced_at = Instant::now();
            if let Err(error) = self.log.sync() {
                self.inner.fail(&error.message);
            }
        }
    }

    fn freeze_if_due(&mut self) {
        let head = self.inner.view.load().active.clone();
        let options = &self.inner.options;
        self.inner.set_log_bytes(self.log.unreleased_bytes());
        let due = head.bytes() > options.head_bytes()
            || self.log.unreleased_bytes() > options.log_cap
            || self.frozen_at.elapsed() > options.seal_window;
        if due && head.samples() > 0 {
            self.freeze();
        }
    }

    /// Gives the active head to the sealer, unless it still works on the one before.
    fn freeze(&mut self) {
        let last_commit = self.log.last_commit();
        if !self.inner.view.load().frozen.is_empty() || last_commit < self.head_commit {
            return;
        }
        // What the log has covered must be on disk before tables claim to replace it.
        if self.log.sync().is_err() {
            self.inner.fail("the log could not be synced before a seal");
            return;
        }
        let first_commit = self.head_commit;
        let accepted = Arc::new(self.inner.accepted.lock().clone());
        self.inner.change_view(|view| {
            let head = std::mem::replace(&mut view.active, Arc::new(Head::default()));
            view.frozen.push(Frozen { head, first_commit, last_commit, accepted });
        });
        self.head_commit = last_commit + 1;
        self.frozen_at = Instant::now();
        self.inner.wake_sealer();
    }
}

impl Inner {
    /// Applies a delete that commit `commit` logged; returns the series that are gone altogether.
    pub(super) fn apply_delete(&self, tenant: &Tenant, metric: u32, before: i64, commit: u64) -> Vec<u32> {
        let numbers = self.numbers.read();
        self.view.load().active.delete_before(before, |id| numbers.metric_of(id) == Some(metric));
        drop(numbers);
        self.change_view(|view| Arc::make_mut(&mut view.cut_offs).insert(metric, commit, before));
        let Some(index) = self.index.find_tenant(tenant) else { return Vec::new() };
        let first_kept = if before == i64::MAX { i32::MAX } else { day_of(before) };
        let days: Vec<i32> = index.days().into_iter().filter(|day| *day < first_kept).collect();
        // Before too: whoever drops definitions meanwhile must know that these days change.
        self.mark_dirty(tenant, days.iter().copied());
        let removed = index.delete_days(metric, first_kept);
        self.mark_dirty(tenant, days.into_iter());
        removed
    }

    /// Removes the series of `tenant` whose last day has expired; returns them.
    pub(super) fn apply_expiry(&self, tenant: &Tenant) -> Vec<u32> {
        let Some(index) = self.index.find_tenant(tenant) else { return Vec::new() };
        let living = self.living(tenant);
        let days = index.days();
        self.mark_dirty(tenant, days.iter().copied());
        let removed = index.expire(&|metric| living.of(metric));
        self.expired.lock().insert(tenant.clone(), living);
        self.mark_dirty(tenant, days.into_iter());
        removed
    }

    /// Whether days of `tenant` may have expired since [`Inner::apply_expiry`] looked last.
    pub(super) fn expiry_is_due(&self, tenant: &Tenant) -> bool {
        self.index.find_tenant(tenant).is_some()
            && self.expired.lock().get(tenant) != Some(&self.living(tenant))
    }

    pub(super) fn living(&self, tenant: &Tenant) -> Living {
        let now = self.options.clock.trusted();
        let retention = self.retention_of(tenant);
        let first = |millis: i64| day_of(now.saturating_sub(millis));
        Living {
            default: first(retention.default),
            metrics: retention.metrics.into_iter().map(|(metric, millis)| (metric, first(millis))).collect(),
        }
    }

    /// Counts samples accepted at `time` on its day, for [`crate::store::Usage`].
    pub(super) fn count_accepted(&self, rows: &record::Rows, time: i64) {
        let today = day_of(time);
        let mut accepted = self.accepted.lock();
        let (day, samples) = accepted.entry(rows.tenant.clone()).or_insert((today, 0));
        if *day != today {
            (*day, *samples) = (today, 0);
        }
        *samples += rows.ids.len() as u64;
    }

    fn mark_dirty(&self, tenant: &Tenant, days: impl Iterator<Item = i32>) {
        let mut dirty = self.dirty_days.lock();
        dirty.extend(days.map(|day| (tenant.clone(), day)));
    }
}

/// The first UTC day that lives of each metric of a tenant.
#[derive(Debug, PartialEq, Eq)]
pub struct Living {
    default: i32,
    metrics: BTreeMap<MetricName, i32>,
}

impl Living {
    /// The first time that lives of every metric: only what is older can be past for some.
    pub fn of_all(&self) -> i64 {
        day_start(self.metrics.values().copied().fold(self.default, i32::max))
    }

    /// The first day that lives of `metric`.
    pub fn of(&self, metric: &MetricName) -> i32 {
        self.metrics.get(metric).copied().unwrap_or(self.default)
    }
}

/// Days whose presence differs from what `meta` holds.
pub type DirtyDays = BTreeSet<(Tenant, i32)>;
/// Samples accepted per tenant on the day named.
pub type Accepted = HashMap<Tenant, (i32, u64)>;
