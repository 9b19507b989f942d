//! How many requests one host may make. Hosts of this machine may make any number: they are the operator's, or a proxy's
//! that has many clients behind it and limits of its own.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use dovetail_sv2::places::host_of;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::error::{ApiError, Code};

/// So many hosts are remembered before those are forgotten that have made no request lately: some 100 bytes each.
const HOSTS_MAX: usize = 16_384;

/// The rates of all hosts; clones share them.
#[derive(Clone)]
pub(super) struct Rates {
    limiter: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
}

impl Rates {
    /// So many requests a minute, which may come at once.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            limiter: Arc::new(RateLimiter::hashmap(Quota::per_minute(per_minute))),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), ApiError> {
        let host = host_of(address.to_canonical());
        if host.is_loopback() {
            return Ok(());
        }
        if self.limiter.len() > HOSTS_MAX {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&host).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let message = "too many requests from your address";
            ApiError::new(Code::RateLimitExceeded, message).retry_after(wait.as_secs() + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_requests_and_is_told_when_it_may_ask_again() {
        let rates = Rates::new(NonZeroU32::new(3).unwrap());
        let [one, other] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        for _ in 0..3 {
            rates.check(one).unwrap();
        }
        let refused = rates.check(one).unwrap_err();
        assert_eq!(refused, {
            let message = "too many requests from your address";
            // One of three a minute comes back after 20 seconds.
            ApiError::new(Code::RateLimitExceeded, message).retry_after(20)
        });
        rates.check(other).unwrap();
        for _ in 0..10 {
            rates.check(IpAddr::from([127, 0, 0, 1])).unwrap();
        }
    }

    #[test]
    fn addresses_of_one_host_share_its_requests() {
        let rates = Rates::new(NonZeroU32::new(1).unwrap());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        rates.check(address("2001:db8::1")).unwrap();
        assert!(rates.check(address("2001:db8::2")).is_err());
        rates.check(address("198.51.100.7")).unwrap();
        assert!(rates.check(address("::ffff:198.51.100.7")).is_err());
    }
}
