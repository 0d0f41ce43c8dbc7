//! An operator that is started again whenever it ends, as a kubelet would.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::api_proxy::{Victim, held};
use crate::operator::Setup;

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// The log that is shown of a failure.
const LINES: usize = 12;

/// An operator that is kept running until [`Subject::stop`].
#[derive(Debug)]
pub struct Subject {
    shared: Arc<Shared>,
    keeping: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    ended: AtomicU64,
    /// Ends that no signal was the reason of.
    on_its_own: AtomicU64,
    logs: Mutex<String>,
}

impl Subject {
    /// Starts an operator, of which `victim` tells the process.
    #[must_use]
    pub fn start(setup: Setup, victim: Victim) -> Self {
        let shared = Arc::new(Shared::default());
        let keeping = tokio::spawn(keep(Arc::clone(&shared), setup, victim));
        Self { shared, keeping }
    }

    /// How often it has ended so far.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// How often it has ended without being killed.
    #[must_use]
    pub fn on_its_own(&self) -> u64 {
        self.shared.on_its_own.load(Ordering::Relaxed)
    }

    /// Kills it for good, and hands out the end of what it and those before it logged.
    pub async fn stop(self) -> String {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // It never panics but by a bug of the harness, which has been printed then.
        let _kept = self.keeping.await;
        held(&self.shared.logs).clone()
    }
}

async fn keep(shared: Arc<Shared>, setup: Setup, victim: Victim) {
    use std::os::unix::process::ExitStatusExt;
    while !shared.stopped.load(Ordering::Relaxed) {
        let mut operator = setup.launch();
        victim.is(Some(operator.pid()));
        let ended = loop {
            match operator.ended() {
                Some(status) => break Some(status),
                None if shared.stopped.load(Ordering::Relaxed) => break None,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        victim.is(None);
        if let Some(status) = ended {
            shared.ended.fetch_add(1, Ordering::Relaxed);
            shared.on_its_own.fetch_add(u64::from(status.signal().is_none()), Ordering::Relaxed);
        }
        let log = operator.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"DEBUG\"")).collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        held(&shared.logs).push_str(&format!("-- one ended with {ended:?}; its log's end:\n{end}\n"));
        operator.kill();
    }
}
