//! The queries that run now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::Tenant;
use crate::store::{QueryContext, RunningQuery};

/// Every running query, by the order in which they began.
#[derive(Debug)]
pub struct Running {
    queries: Mutex<BTreeMap<u64, Entry>>,
    /// Queries that began so far.
    begun: AtomicU64,
    /// In ids that are made here, so that those of two processes differ.
    process: u64,
}

#[derive(Debug)]
struct Entry {
    tenant: Tenant,
    id: String,
    began: Instant,
    scanned: Arc<AtomicU64>,
    cancel: CancellationToken,
}

impl Default for Running {
    fn default() -> Self {
        Self { queries: Mutex::default(), begun: AtomicU64::new(0), process: fastrand::u64(..) }
    }
}

impl Running {
    /// Lists a query until what is returned is dropped.
    pub fn enter(self: &Arc<Self>, tenant: &Tenant, context: &QueryContext) -> Registered {
        let mut queries = self.queries.lock();
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let mut context = QueryContext { cancel: context.cancel.child_token(), ..context.clone() };
        if context.id.is_empty() || queries.values().any(|entry| entry.id == context.id) {
            // Two queries with one id can't be told apart by who cancels them.
            context.id = format!("{}{:016x}-{number}", context.id, self.process);
        }
        let entry = Entry {
            tenant: tenant.clone(),
            id: context.id.clone(),
            began: Instant::now(),
            scanned: context.scanned.clone(),
            cancel: context.cancel.clone(),
        };
        queries.insert(number, entry);
        Registered { running: self.clone(), number, tenant: tenant.clone(), context }
    }

    /// The queries of `tenant`, oldest first.
    pub fn of(&self, tenant: &Tenant) -> Vec<RunningQuery> {
        let queries = self.queries.lock();
        let own = queries.values().filter(|entry| entry.tenant == *tenant);
        own.map(|entry| RunningQuery {
            id: entry.id.clone(),
            age: entry.began.elapsed(),
            scanned: entry.scanned.load(Ordering::Relaxed),
        })
        .collect()
    }

    /// Cancels the query of `tenant` called `id`; whether there is one.
    pub fn cancel(&self, tenant: &Tenant, id: &str) -> bool {
        let queries = self.queries.lock();
        let found = queries.values().find(|entry| entry.tenant == *tenant && entry.id == id);
        found.inspect(|entry| entry.cancel.cancel()).is_some()
    }
}

/// A query that is listed; dropped, it is cancelled and listed no more.
#[derive(Debug)]
pub struct Registered {
    running: Arc<Running>,
    number: u64,
    tenant: Tenant,
    context: QueryContext,
}

impl Registered {
    /// What the backend gets: the caller's bounds, a unique id, and a cancel token of its own.
    pub fn context(&self) -> &QueryContext {
        &self.context
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.context.cancel.cancel();
        self.running.queries.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_unique_and_the_oldest_comes_first() {
        let running = Arc::<Running>::default();
        let tenant = Tenant::new("a").unwrap();
        let named = |id: &str| QueryContext {
            id: id.to_owned(),
            ..QueryContext::with_timeout(Duration::from_secs(9))
        };
        let all = ["x", "", "x", ""].map(|id| running.enter(&tenant, &named(id)));
        let ids: Vec<String> = running.of(&tenant).into_iter().map(|query| query.id).collect();
        assert_eq!(ids, all.each_ref().map(|one| one.context().id.clone()));
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_eq!(ids[0], "x");
        drop(all);
        assert!(running.of(&tenant).is_empty());
    }
}
