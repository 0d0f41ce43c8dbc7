//! The body of a request: read whole, within its limit, its time and a budget that all requests share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::AppState;
use crate::error::{Error, Fault};

/// Requests hold their share of the budget in steps of this many bytes.
const STEP: u64 = 4096;

/// Bytes that bodies may hold together while they are received and handled.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let steps = usize::try_from(bytes / STEP).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(steps.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// A share of `bytes` in whole steps, or the error of a worker that holds too much already.
    fn share(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        let steps = u32::try_from(bytes.div_ceil(STEP)).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(steps).map_err(|_| Error::Overloaded)
    }
}

/// A request's whole body as it was sent: still encoded, at most `server.max_body_bytes`.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Bytes,
    /// Gives the bytes back to the budget when the request is done.
    _share: Option<OwnedSemaphorePermit>,
}

impl FromRequest<AppState> for Received {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let server = &state.config.server;
        let limit = server.max_body_bytes.bytes();
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > limit) {
            return Err(Error::BodyTooLarge { limit });
        }
        read(request.into_body(), limit, server.body_timeout.duration(), &state.bodies).await
    }
}

/// Reads `body` to its end.
///
/// # Errors
/// `BodyTooLarge`, `RequestTimeout`, `Overloaded`, `InvalidBody` when the client stops in the middle.
async fn read(body: Body, limit: u64, timeout: Duration, budget: &BodyBudget) -> Result<Received, Error> {
    tokio::time::timeout(timeout, collect(body, limit, budget)).await.map_err(|_| Error::RequestTimeout)?
}

async fn collect(mut body: Body, limit: u64, budget: &BodyBudget) -> Result<Received, Error> {
    let mut bytes = BytesMut::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::InvalidBody(Fault::whole("the body ends before its end")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = (bytes.len() + data.len()) as u64;
        if length > limit {
            return Err(Error::BodyTooLarge { limit });
        }
        let held = share.as_ref().map_or(0, |share| share.num_permits() as u64 * STEP);
        if length > held {
            let more = budget.share(length - held)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes: bytes.freeze(), _share: share })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let budget = BodyBudget::new(1 << 20);
        let read = |size: usize, limit| {
            let budget = budget.clone();
            async move { read(Body::from(vec![7; size]), limit, LONG, &budget).await.map(|body| body.bytes.len()) }
        };
        assert_eq!(read(10, 10).await, Ok(10));
        assert_eq!(read(11, 10).await, Err(Error::BodyTooLarge { limit: 10 }));
        assert_eq!(read(0, 10).await, Ok(0));
    }

    #[tokio::test]
    async fn the_budget_is_given_back_when_the_request_is_done() {
        let budget = BodyBudget::new(2 * STEP);
        let body = || Body::from(vec![7; 5000]);
        let first = read(body(), 10_000, LONG, &budget).await.unwrap();
        assert_eq!(read(body(), 10_000, LONG, &budget).await.unwrap_err(), Error::Overloaded);
        drop(first);
        assert!(read(body(), 10_000, LONG, &budget).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let result = read(stalled, 10, Duration::from_millis(5), &BodyBudget::new(1 << 20)).await;
        assert_eq!(result.unwrap_err(), Error::RequestTimeout);
    }
}
