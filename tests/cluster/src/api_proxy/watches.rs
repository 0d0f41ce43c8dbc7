//! Watches on bad days.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{sleep, timeout_at};

use super::HangUp;

/// What happens to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFault {
    /// It ends after so long, as if the server had ended it.
    EndsAfter(Duration),
    /// Its connection breaks after so long, maybe amid an event.
    BreaksAfter(Duration),
    /// It breaks after so many events or parts of events.
    BreaksAfterParts(usize),
    /// Nothing comes for so long, then all of it.
    Lags(Duration),
    /// Nothing comes for so long, then that its version is too old to go on from: all has to be listed anew.
    Gone(Duration),
}

const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: a fault that was put in on purpose","reason":"Expired","code":410}}
"#;

type Part = Result<Frame<Bytes>, HangUp>;

/// The body of a watch's answer as `fault` lets it through.
pub(super) fn weathered(body: Body, fault: WatchFault) -> UnsyncBoxBody<Bytes, HangUp> {
    let (sender, receiver) = channel(16);
    tokio::spawn(deliver(body, fault, sender));
    let parts = futures_util::stream::unfold(receiver, |mut receiver| async {
        let part: Part = receiver.recv().await?;
        Some((part, receiver))
    });
    StreamBody::new(parts).boxed_unsync()
}

/// Ends when the body does, when the fault says so, or when nobody listens any more.
async fn deliver(mut body: Body, fault: WatchFault, sender: Sender<Part>) {
    let began = tokio::time::Instant::now();
    let (until, parts) = match fault {
        WatchFault::EndsAfter(time) | WatchFault::BreaksAfter(time) => (Some(began + time), usize::MAX),
        WatchFault::BreaksAfterParts(parts) => (None, parts),
        WatchFault::Lags(time) => {
            sleep(time).await;
            (None, usize::MAX)
        }
        WatchFault::Gone(time) => {
            sleep(time).await;
            let said = sender.send(Ok(Frame::data(Bytes::from_static(EXPIRED.as_bytes())))).await;
            // Whoever has gone needs no answer.
            return said.unwrap_or_default();
        }
    };
    for _ in 0..parts {
        let next = tokio::select! {
            next = next(&mut body, until) => next,
            () = sender.closed() => return,
        };
        let Some(part) = next else { break };
        if sender.send(Ok(part)).await.is_err() {
            return;
        }
    }
    if !matches!(fault, WatchFault::EndsAfter(_)) {
        // The same.
        let _gone = sender.send(Err(HangUp)).await;
    }
}

/// The next part, unless there is none or its time is over.
async fn next(body: &mut Body, until: Option<tokio::time::Instant>) -> Option<Frame<Bytes>> {
    match until {
        None => body.frame().await,
        Some(until) => timeout_at(until, body.frame()).await.ok().flatten(),
    }?
    .ok()
}
