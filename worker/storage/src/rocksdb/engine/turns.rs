//! Whose query works now: few at once, and of each tenant fewer, so that a tenant with many of them delays its own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Tenant;
use crate::store::{Result, StoreError};

/// The turns of a lane's queries.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Queries of one tenant at once.
    each: usize,
    /// Of tenants with a query that works or waits.
    tenants: Mutex<HashMap<Tenant, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    // Given back in this order: the tenant's next query waits for it behind other tenants'.
    _all: OwnedSemaphorePermit,
    _own: Own<'a>,
}

impl Turns {
    /// Turns for `all` queries at once, of which `each` are one tenant's.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, tenants: Mutex::default() }
    }

    /// Waits for a turn of `tenant`.
    ///
    /// # Errors
    /// Never: turns aren't closed.
    pub(super) async fn take(&self, tenant: &Tenant) -> Result<Turn<'_>> {
        let mut own = self.own(tenant);
        let permit = own.semaphore.clone().acquire_owned().await.map_err(StoreError::internal)?;
        own.permit = Some(permit);
        let all = self.all.clone().acquire_owned().await.map_err(StoreError::internal)?;
        Ok(Turn { _all: all, _own: own })
    }

    fn own(&self, tenant: &Tenant) -> Own<'_> {
        let own = || Arc::new(Semaphore::new(self.each));
        let semaphore = self.tenants.lock().entry(tenant.clone()).or_insert_with(own).clone();
        Own { turns: self, tenant: tenant.clone(), semaphore, permit: None }
    }
}

/// A place in a tenant's line, its first or not.
#[derive(Debug)]
struct Own<'a> {
    turns: &'a Turns,
    tenant: Tenant,
    semaphore: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let mut tenants = self.turns.tenants.lock();
        // The permit holds its semaphore too.
        self.permit = None;
        // The map's and this one's: nobody else stands in line.
        if Arc::strong_count(&self.semaphore) == 2 {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn waits(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_tenant_with_many_waits_behind_itself() {
        let turns = Turns::new(2, 1);
        let (many, other, third) = (tenant("many"), tenant("other"), tenant("third"));
        let first = turns.take(&many).await.unwrap();
        let mut second = Box::pin(turns.take(&many));
        assert!(waits(second.as_mut()));
        let others = turns.take(&other).await.unwrap();
        let mut late = Box::pin(turns.take(&third));
        assert!(waits(late.as_mut()), "no more than two at once");
        drop(first);
        assert!(waits(second.as_mut()), "another tenant was first");
        let late = late.await.unwrap();
        drop(others);
        let second = second.await.unwrap();
        drop((late, second));
        assert!(turns.tenants.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_line() {
        let turns = Turns::new(2, 1);
        let tenant = tenant("t");
        let first = turns.take(&tenant).await.unwrap();
        let mut second = Box::pin(turns.take(&tenant));
        assert!(waits(second.as_mut()));
        drop(second);
        drop(first);
        assert!(turns.tenants.lock().is_empty());
        drop(turns.take(&tenant).await.unwrap());
    }
}
