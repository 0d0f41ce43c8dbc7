//! Imports and exports: few at once, since each holds megabytes and works for as long as its client does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use luminate_storage::model::Tenant;
use parking_lot::Mutex;

use crate::error::Error;

/// Of one tenant at once, of each kind.
const OF_TENANT: usize = 2;
/// Of all tenants at once, of each kind.
const OF_ALL: usize = 4;
/// When it is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Into the store.
    Import,
    /// Out of the store.
    Export,
}

impl Transfer {
    fn limit(self) -> &'static str {
        match self {
            Self::Import => "concurrent_imports",
            Self::Export => "concurrent_exports",
        }
    }
}

/// The transfers that run, of either kind.
#[derive(Debug, Default)]
pub struct Transfers {
    imports: Arc<Mutex<HashMap<Tenant, usize>>>,
    exports: Arc<Mutex<HashMap<Tenant, usize>>>,
}

/// The right to one transfer; given back when it is dropped.
#[derive(Debug)]
pub struct TransferPermit {
    running: Arc<Mutex<HashMap<Tenant, usize>>>,
    tenant: Tenant,
}

impl Transfers {
    /// The right to one more transfer of `tenant`.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn begin(&self, tenant: &Tenant, transfer: Transfer) -> Result<TransferPermit, Error> {
        let running = match transfer {
            Transfer::Import => &self.imports,
            Transfer::Export => &self.exports,
        };
        let mut tenants = running.lock();
        let own = tenants.get(tenant).copied().unwrap_or(0);
        if own >= OF_TENANT || tenants.values().sum::<usize>() >= OF_ALL {
            return Err(Error::RateLimited { limit: transfer.limit(), retry_after: RETRY_AFTER });
        }
        tenants.insert(tenant.clone(), own + 1);
        Ok(TransferPermit { running: running.clone(), tenant: tenant.clone() })
    }
}

impl Drop for TransferPermit {
    fn drop(&mut self) {
        let mut tenants = self.running.lock();
        if let Some(own) = tenants.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_run_at_once_and_make_room_when_they_end() {
        let transfers = Transfers::default();
        let tenant = |name: &str| Tenant::new(name).unwrap();
        let begin = |name: &str| transfers.begin(&tenant(name), Transfer::Import);
        let (first, second) = (begin("a").unwrap(), begin("a").unwrap());
        assert!(matches!(begin("a"), Err(Error::RateLimited { limit: "concurrent_imports", .. })));
        assert!(transfers.begin(&tenant("a"), Transfer::Export).is_ok());
        let _others = [begin("b").unwrap(), begin("c").unwrap()];
        assert!(begin("d").is_err());
        drop(first);
        assert!(begin("d").is_ok());
        drop(second);
        assert!(!transfers.imports.lock().contains_key(&tenant("a")));
    }
}
