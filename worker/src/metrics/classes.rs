//! Which tenants write, and in which class their series are counted: their tier, never their name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use luminate_storage::model::Tenant;
use luminate_storage::store::MetricsStore;
use parking_lot::Mutex;

use crate::tenant::Caller;

/// Asking the store for every tenant costs: at most so often.
const REFRESH: Duration = Duration::from_secs(30);
/// Tenants that are remembered; of more, the first count.
const MOST_TENANTS: usize = 1_000;
/// Tiers that are told apart; a token may make up any.
const MOST_CLASSES: usize = 32;
/// The class of tenants without a tier, and of those beyond the limit.
const DEFAULT: &str = "default";

/// The classes of tenants that write.
#[derive(Debug, Default)]
pub struct Classes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<Tenant, Arc<str>>,
    classes: Vec<Arc<str>>,
    refreshed: Option<Instant>,
}

impl Classes {
    /// `caller` writes.
    pub fn note(&self, caller: &Caller) {
        let mut known = self.0.lock();
        let wanted = caller.tier.as_deref().unwrap_or(DEFAULT);
        if known.tenants.get(&caller.tenant).is_some_and(|class| class.as_ref() == wanted) {
            return;
        }
        if known.tenants.len() >= MOST_TENANTS && !known.tenants.contains_key(&caller.tenant) {
            return;
        }
        let class = known.class(wanted);
        known.tenants.insert(caller.tenant.clone(), class);
    }

    /// The tenants, when it is time to ask for their series again.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Vec<(Tenant, Arc<str>)>> {
        let mut known = self.0.lock();
        if known.refreshed.is_some_and(|at| now.duration_since(at) < REFRESH) {
            return None;
        }
        known.refreshed = Some(now);
        Some(known.tenants.iter().map(|(tenant, class)| (tenant.clone(), Arc::clone(class))).collect())
    }
}

impl Known {
    fn class(&mut self, name: &str) -> Arc<str> {
        if let Some(class) = self.classes.iter().find(|class| class.as_ref() == name) {
            return Arc::clone(class);
        }
        let class: Arc<str> = Arc::from(if self.classes.len() < MOST_CLASSES { name } else { DEFAULT });
        if !self.classes.contains(&class) {
            self.classes.push(Arc::clone(&class));
        }
        class
    }
}

/// Series of `tenants` by class; a tenant whose usage can't be had counts nothing.
pub async fn series(tenants: Vec<(Tenant, Arc<str>)>, store: &dyn MetricsStore) -> BTreeMap<Arc<str>, u64> {
    let mut series = BTreeMap::new();
    for (tenant, class) in tenants {
        let held = store.usage(&tenant).await.map_or(0, |usage| usage.series);
        *series.entry(class).or_insert(0) += held;
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(classes: &Classes, tenant: &str, tier: Option<&str>) {
        let tenant = Tenant::new(tenant).unwrap();
        classes.note(&Caller { tenant, tier: tier.map(Arc::from), scopes: Vec::new() });
    }

    #[test]
    fn a_tenant_counts_in_its_latest_tier() {
        let classes = Classes::default();
        note(&classes, "a", None);
        note(&classes, "a", Some("gold"));
        let due = classes.due(Instant::now()).unwrap();
        assert_eq!(due.iter().map(|(_, class)| class.as_ref()).collect::<Vec<_>>(), ["gold"]);
    }

    #[test]
    fn made_up_tiers_do_not_grow_the_page() {
        let classes = Classes::default();
        for tier in 0..1_000 {
            note(&classes, &format!("t{tier}"), Some(&format!("tier{tier}")));
        }
        assert!(classes.0.lock().classes.len() <= MOST_CLASSES + 1);
        assert_eq!(classes.0.lock().tenants.len(), 1_000);
    }

    #[test]
    fn the_store_is_not_asked_at_every_look() {
        let classes = Classes::default();
        let now = Instant::now();
        assert!(classes.due(now).is_some() && classes.due(now).is_none());
        assert!(classes.due(now + REFRESH).is_some());
    }
}
