//! Starting, serving, draining, closed: what probes and handlers ask.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use luminate_storage::store::MetricsStore;
use tokio::sync::watch;

/// Where in its life the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The store is being opened.
    Starting,
    /// It serves.
    Serving,
    /// It was told to stop: it still serves, but isn't ready for more.
    Draining,
}

/// The worker's stage and, once it is open, its store.
pub struct Lifecycle {
    stage: watch::Sender<Stage>,
    store: ArcSwapOption<Arc<dyn MetricsStore>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Starting), store: ArcSwapOption::empty() }
    }
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lifecycle").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

impl Lifecycle {
    /// A worker that serves from `store` already.
    #[must_use]
    pub fn serving(store: Arc<dyn MetricsStore>) -> Self {
        let lifecycle = Self::default();
        lifecycle.opened(store);
        lifecycle
    }

    /// The stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// The store, once it is open and until it is closed.
    #[must_use]
    pub fn store(&self) -> Option<Arc<dyn MetricsStore>> {
        self.store.load().as_ref().map(|store| store.as_ref().clone())
    }

    /// The store is open. A drain that began meanwhile goes on.
    pub fn opened(&self, store: Arc<dyn MetricsStore>) {
        self.store.store(Some(Arc::new(store)));
        self.stage.send_if_modified(|stage| {
            let starting = *stage == Stage::Starting;
            if starting {
                *stage = Stage::Serving;
            }
            starting
        });
    }

    /// The worker was told to stop.
    pub fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Takes the store away, to close it.
    #[must_use]
    pub fn take_store(&self) -> Option<Arc<dyn MetricsStore>> {
        self.store.swap(None).map(|store| store.as_ref().clone())
    }
}
