//! A small thread that keeps empty segments ready, so that a commit rarely waits for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::store::{Result, StoreError};

use super::LogOptions;
use super::segment;

/// Empty segments, and the thread that makes and collects them.
#[derive(Debug)]
pub(super) struct Spares {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    options: LogOptions,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<PathBuf>,
    released: Vec<PathBuf>,
    wanted: bool,
    stopping: bool,
}

impl Spares {
    /// Starts the thread with the spares that are there already.
    ///
    /// # Errors
    /// `Internal` when there can be no thread.
    pub(super) fn start(directory: &Path, options: &LogOptions, found: Vec<PathBuf>) -> Result<Self> {
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            options: options.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        for spare in found {
            shared.keep(spare);
        }
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("log-spares".to_owned()).spawn(move || own.work());
        Ok(Self { shared, thread: Some(thread.map_err(StoreError::internal)?) })
    }

    /// A spare, if one is ready.
    pub(super) fn take(&self) -> Option<PathBuf> {
        self.shared.state.lock().ready.pop()
    }

    /// Asks for one to be ready soon.
    pub(super) fn want(&self) {
        self.shared.state.lock().wanted = true;
        self.shared.changed.notify_one();
    }

    /// Hands over segments that are no longer needed, oldest first.
    pub(super) fn recycle(&self, segments: impl Iterator<Item = PathBuf>) {
        self.shared.state.lock().released.extend(segments);
        self.shared.changed.notify_one();
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps log segments ready panicked");
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if !state.released.is_empty() {
                let released = std::mem::take(&mut state.released);
                let room = self.options.spares.saturating_sub(state.ready.len());
                drop(state);
                let collected = self.collect(released, room);
                state = self.state.lock();
                state.ready.extend(collected);
            } else if state.stopping {
                return;
            } else if state.wanted && state.ready.is_empty() {
                drop(state);
                let made = segment::create_spare(&self.directory, self.options.segment_bytes);
                state = self.state.lock();
                state.wanted = false;
                match made {
                    Ok(spare) => state.ready.push(spare),
                    // Not fatal: the commit that needs one tries again, and reports it.
                    Err(error) => tracing::warn!(%error, "no log segment could be made ready"),
                }
            } else {
                self.changed.wait(&mut state);
            }
        }
    }

    /// Renames what is of use and removes the rest; durable before any of it is used again, since
    /// a new header under an old name would be taken for damage.
    fn collect(&self, released: Vec<PathBuf>, room: usize) -> Vec<PathBuf> {
        let mut collected = Vec::new();
        for path in released {
            if !self.is_of_use(&path) || collected.len() >= room {
                self.remove(&path);
                continue;
            }
            match segment::make_spare(&path) {
                Ok(spare) => collected.push(spare),
                Err(error) => tracing::warn!(%error, file = %path.display(), "a log segment can't be reused"),
            }
        }
        if let Err(error) = segment::sync_directory(&self.directory) {
            tracing::warn!(%error, "released log segments can't be reused");
            return Vec::new();
        }
        collected
    }

    fn is_of_use(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == self.options.segment_bytes)
    }

    fn keep(&self, spare: PathBuf) {
        let mut state = self.state.lock();
        if self.is_of_use(&spare) && state.ready.len() < self.options.spares {
            state.ready.push(spare);
        } else {
            self.remove(&spare);
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, file = %path.display(), "a log file that isn't needed can't be removed");
        }
    }
}
