//! The body of a request: read whole, within its limit, its time and a budget that all requests share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use bytes::BytesMut;
use http_body_util::BodyExt;
use luminate_storage::model::Tenant;
use parking_lot::Mutex;

use crate::app::AppState;
use crate::error::{Error, Fault};
use crate::patience::patiently;

/// Requests hold their share of the budget in steps of this many bytes.
const STEP: u64 = 4096;
/// Bodies larger than this are read while less of the budget is held than [`PART_OF_LARGE`], so that what is made of them
/// finds room in the rest.
const LARGE: u64 = 1 << 20;
/// A part: two of the largest bodies fit in at least.
const PART_OF_LARGE: f64 = 0.5;
/// The limit's name in figures.
const NAME: &str = "body_memory";

/// Bytes that requests hold together: bodies while they are received and handled, what is made of them, and answers
/// until they are sent.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Held>);

#[derive(Debug)]
struct Held {
    most: u64,
    /// Of one tenant, where tenants are told apart.
    most_of_tenant: u64,
    all: AtomicU64,
    tenants: Mutex<HashMap<Tenant, u64>>,
}

impl BodyBudget {
    /// A budget of `bytes`, of which one tenant may hold `of_tenant`, so that slow bodies of its clients stop nobody
    /// else's.
    #[must_use]
    pub fn new(bytes: u64, of_tenant: u64) -> Self {
        Self(Arc::new(Held {
            most: bytes,
            most_of_tenant: of_tenant,
            all: AtomicU64::new(0),
            tenants: Mutex::default(),
        }))
    }

    /// A share of nothing yet, for a request of `tenant`, or of nobody in particular.
    #[must_use]
    pub fn share(&self, tenant: Option<&Tenant>) -> Share {
        Share { budget: self.clone(), tenant: tenant.cloned(), bytes: 0 }
    }

    /// What part of it others hold than who holds `own` bytes, from 0 to 1.
    #[must_use]
    pub fn fullness_beside(&self, own: u64) -> f64 {
        self.0.all.load(Ordering::Acquire).saturating_sub(own) as f64 / self.0.most.max(1) as f64
    }

    /// Takes `bytes` of the first `part` of the budget, or nothing.
    fn take(&self, tenant: Option<&Tenant>, bytes: u64, part: f64) -> Result<(), Error> {
        let part = |most: u64| (most as f64 * part) as u64;
        let within = |held: u64, most: u64| held.checked_add(bytes).filter(|held| *held <= most);
        let (all, most) = (&self.0.all, part(self.0.most));
        all.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| within(held, most))
            .map_err(|_| Error::Overloaded)?;
        let Some(tenant) = tenant else { return Ok(()) };
        let mut tenants = self.0.tenants.lock();
        let held = tenants.get(tenant).copied().unwrap_or(0);
        let Some(held) = within(held, part(self.0.most_of_tenant)) else {
            all.fetch_sub(bytes, Ordering::AcqRel);
            return Err(Error::Overloaded);
        };
        match tenants.get_mut(tenant) {
            Some(own) => *own = held,
            None => drop(tenants.insert(tenant.clone(), held)),
        }
        Ok(())
    }

    fn give_back(&self, tenant: Option<&Tenant>, bytes: u64) {
        self.0.all.fetch_sub(bytes, Ordering::AcqRel);
        let Some(tenant) = tenant else { return };
        let mut tenants = self.0.tenants.lock();
        let Some(held) = tenants.get_mut(tenant) else { return };
        *held = held.saturating_sub(bytes);
        if *held == 0 {
            tenants.remove(tenant);
        }
    }
}

/// A request's part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: BodyBudget,
    tenant: Option<Tenant>,
    bytes: u64,
}

impl Share {
    /// Holds `bytes` from now on, if it held fewer.
    ///
    /// # Errors
    /// `Overloaded`: the worker, or the tenant, holds too much already.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Error> {
        self.grow_within(bytes, 1.0)
    }

    /// The same out of the first `part` of the budget, so that the rest is left for others.
    ///
    /// # Errors
    /// As [`Share::grow_to`].
    pub fn grow_within(&mut self, bytes: u64, part: f64) -> Result<(), Error> {
        let bytes = bytes.next_multiple_of(STEP);
        if bytes > self.bytes {
            self.budget.take(self.tenant.as_ref(), bytes - self.bytes, part)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds room for a body of `bytes` from now on, once there is all of it: bodies that took theirs bit by bit would all
    /// stop half way.
    ///
    /// # Errors
    /// As [`Share::grow_to`], after a while.
    async fn wait_for(&mut self, bytes: u64) -> Result<(), Error> {
        let part = if bytes > LARGE { PART_OF_LARGE } else { 1.0 };
        patiently(|| self.grow_within(bytes, part)).await
    }

    /// Holds no more than `bytes` from now on.
    pub fn shrink_to(&mut self, bytes: u64) {
        let bytes = bytes.next_multiple_of(STEP);
        if bytes < self.bytes {
            self.budget.give_back(self.tenant.as_ref(), self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.tenant.as_ref(), self.bytes);
        }
    }
}

/// A request's whole body as it was sent: still encoded, at most `server.max_body_bytes`.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Bytes,
    /// Gives the bytes back to the budget when the request is done.
    _share: Share,
}

impl FromRequest<AppState> for Received {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        let server = &state.config.server;
        let limit = server.max_body_bytes.bytes();
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0_u64);
        if announced > limit {
            return Err(Error::BodyTooLarge { limit });
        }
        // Whoever has been let in so far is known.
        let share = state.bodies.share(request.extensions().get());
        let body = Incoming { body: request.into_body(), announced, limit };
        let read = read(body, server.body_timeout.duration(), share).await;
        read.inspect_err(|error| {
            if *error == Error::Overloaded {
                state.metrics.limit_hit(NAME);
            }
        })
    }
}

/// A body on its way.
struct Incoming {
    body: Body,
    /// Its length, if its client says so; 0 otherwise.
    announced: u64,
    limit: u64,
}

/// Reads `body` to its end.
///
/// # Errors
/// `BodyTooLarge`, `RequestTimeout`, `Overloaded`, `InvalidBody` when the client stops in the middle.
async fn read(body: Incoming, timeout: Duration, share: Share) -> Result<Received, Error> {
    tokio::time::timeout(timeout, collect(body, share)).await.map_err(|_| Error::RequestTimeout)?
}

async fn collect(
    Incoming { mut body, announced, limit }: Incoming,
    mut share: Share,
) -> Result<Received, Error> {
    share.wait_for(announced).await?;
    // What is announced need not be copied to grow.
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced.min(limit)).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::InvalidBody(Fault::whole("the body ends before its end")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = (bytes.len() + data.len()) as u64;
        if length > limit {
            return Err(Error::BodyTooLarge { limit });
        }
        share.grow_to(length)?;
        if bytes.capacity() < bytes.len() + data.len() {
            // The old room, until all is copied into the new one of twice its size.
            share.grow_to(3 * length)?;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes: bytes.freeze(), _share: share })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let read = |size: usize, limit| {
            let share = budget.share(None);
            async move {
                let body = Incoming { body: Body::from(vec![7; size]), announced: 0, limit };
                read(body, LONG, share).await.map(|body| body.bytes.len())
            }
        };
        assert_eq!(read(10, 10).await, Ok(10));
        assert_eq!(read(11, 10).await, Err(Error::BodyTooLarge { limit: 10 }));
        assert_eq!(read(0, 10).await, Ok(0));
    }

    #[tokio::test]
    async fn the_budget_is_given_back_when_the_request_is_done() {
        let budget = BodyBudget::new(2 * STEP, 2 * STEP);
        let body = || Incoming { body: Body::from(vec![7; 5000]), announced: 5000, limit: 10_000 };
        let read = || read(body(), LONG, budget.share(None));
        let first = read().await.unwrap();
        assert_eq!(read().await.unwrap_err(), Error::Overloaded);
        drop(first);
        assert!(read().await.is_ok());
        assert_eq!(budget.fullness_beside(0), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_bodies_than_there_is_room_for_take_it_one_after_the_other() {
        let large = 2 * LARGE;
        let budget = BodyBudget::new(2 * large, 2 * large);
        let body = || {
            let half = || async {
                tokio::time::sleep(crate::patience::PATIENCE / 8).await;
                Ok::<_, std::io::Error>(Bytes::from(vec![7; LARGE as usize]))
            };
            let halves = futures_util::stream::iter([(), ()]).then(move |()| half());
            Incoming { body: Body::from_stream(halves), announced: large, limit: large }
        };
        let read = || async { read(body(), LONG, budget.share(None)).await.map(drop) };
        assert_eq!(futures_util::join!(read(), read(), read()), (Ok(()), Ok(()), Ok(())));
        let mut made_of_one = budget.share(None);
        made_of_one.grow_to(1).unwrap();
        assert_eq!(read().await, Err(Error::Overloaded), "half is for what is made of it");
    }

    #[test]
    fn one_tenant_holds_its_part_of_it_at_most() {
        let budget = BodyBudget::new(4 * STEP, 2 * STEP);
        let [one, two] = ["one", "two"].map(|name| Tenant::new(name).unwrap());
        let mut first = budget.share(Some(&one));
        first.grow_to(2 * STEP).unwrap();
        let mut more = budget.share(Some(&one));
        assert_eq!(more.grow_to(1), Err(Error::Overloaded));
        let mut other = budget.share(Some(&two));
        assert_eq!(other.grow_to(2 * STEP), Ok(()));
        assert_eq!(budget.fullness_beside(0), 1.0);
        drop((first, other));
        assert_eq!(more.grow_to(1), Ok(()));
        more.shrink_to(0);
        assert!(budget.0.tenants.lock().is_empty());
        assert_eq!(more.grow_within(3 * STEP, 0.5), Err(Error::Overloaded), "half is left for others");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let share = BodyBudget::new(1 << 20, 1 << 20).share(None);
        let stalled = Incoming { body: stalled, announced: 10, limit: 10 };
        let result = read(stalled, Duration::from_millis(5), share).await;
        assert_eq!(result.unwrap_err(), Error::RequestTimeout);
    }
}
