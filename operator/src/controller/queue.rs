//! The queue of resources to look at.

use std::sync::Arc;

use futures_util::Stream;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Guarded;
use super::references::Key;
use crate::progress::Progress;

/// Where resources are put that should be looked at.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Key>,
    receiver: Arc<Mutex<Option<mpsc::UnboundedReceiver<Key>>>>,
    progress: Arc<Progress>,
}

impl Queue {
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))), progress }
    }

    /// `key` should be looked at.
    pub(super) fn push(&self, key: Key) {
        // At the end nobody listens any more.
        let _ = self.sender.send(key);
    }

    /// Everything that is put in, once. What is put in twice before its turn is looked at once.
    pub(super) fn stream(&self) -> impl Stream<Item = ObjectRef<Guarded>> + use<> {
        let receiver = self.receiver.lock().take();
        futures_util::stream::unfold(receiver, |receiver| async {
            let mut receiver = receiver?;
            let key = receiver.recv().await?;
            let object = ObjectRef::new(&key.name).within(&key.namespace);
            Some((object, Some(receiver)))
        })
    }

    /// The age of what waits is measured from here; only of resources that exist.
    pub(super) fn waits(&self, key: &Key) {
        self.progress.waits(key);
    }
}
