//! How fast one client address may ask, whoever it says it is.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Version;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::app::AppState;
use crate::error::Error;
use crate::server::{ClientAddress, OverLimit};

/// After so many requests, addresses whose budget is full again are forgotten.
const SWEEP_EVERY: u32 = 4096;
/// The limit's name in answers and figures.
const NAME: &str = "address_rps";

/// The budgets of all addresses.
#[derive(Debug)]
pub struct AddressLimits {
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
    until_sweep: AtomicU32,
}

impl AddressLimits {
    /// `rps` requests per second for each address, with a second's worth at once; no limit without it.
    #[must_use]
    pub fn new(rps: Option<u32>) -> Self {
        let rps = rps.and_then(NonZeroU32::new);
        Self {
            limiter: rps.map(|rps| RateLimiter::keyed(Quota::per_second(rps))),
            clock: DefaultClock::default(),
            until_sweep: AtomicU32::new(SWEEP_EVERY),
        }
    }

    /// Charges one request, or says how long until one is possible.
    fn charge(&self, address: IpAddr) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if self.until_sweep.fetch_sub(1, Ordering::Relaxed) == 1 {
            limiter.retain_recent();
            self.until_sweep.store(SWEEP_EVERY, Ordering::Relaxed);
        }
        let checked = limiter.check_key(&network(address));
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// An IPv6 client has a whole /64 to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// The layer: probes and the metrics page always pass, so that an overload can be seen.
pub async fn limit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/v1/health") || path == "/metrics" {
        return next.run(request).await;
    }
    if request.extensions().get::<OverLimit>().is_some() {
        state.metrics.limit_hit("max_connections");
        let mut response = Error::Overloaded.into_response();
        // Perhaps the next connection finds a slot.
        if request.version() <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let address = request.extensions().get::<ClientAddress>().copied();
    match address.map_or(Ok(()), |ClientAddress(address)| state.addresses.charge(address)) {
        Ok(()) => next.run(request).await,
        Err(retry_after) => {
            state.metrics.limit_hit(NAME);
            Error::RateLimited { limit: NAME, retry_after }.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_budget() {
        let limits = AddressLimits::new(Some(1));
        assert_eq!(limits.charge(address("10.0.0.1")), Ok(()));
        let wait = limits.charge(address("10.0.0.1")).unwrap_err();
        assert!(wait <= Duration::from_secs(1));
        assert_eq!(limits.charge(address("10.0.0.2")), Ok(()));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::ffff:2")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn addresses_are_forgotten_once_their_budget_is_full() {
        let limits = AddressLimits::new(Some(1_000_000));
        for bits in 0..SWEEP_EVERY * 3 {
            limits.charge(IpAddr::V4(bits.into())).unwrap();
        }
        assert!(limits.limiter.as_ref().unwrap().len() < (SWEEP_EVERY * 2) as usize);
    }

    #[test]
    fn without_a_limit_everybody_passes() {
        let limits = AddressLimits::new(None);
        assert!((0..10).all(|_| limits.charge(address("::1")).is_ok()));
    }
}
