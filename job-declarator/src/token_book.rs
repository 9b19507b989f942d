//! Who may ask for how many tokens: a book per connection, and one rate for all of them together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many unused tokens one connection may hold; the oldest goes first.
const UNUSED_MAX: usize = 32;
const MINUTE: Duration = Duration::from_secs(60);

/// At most so many in any minute.
#[derive(Debug)]
struct Rate {
    per_minute: u32,
    granted: VecDeque<Instant>,
}

impl Rate {
    fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            granted: VecDeque::new(),
        }
    }

    /// Takes one, or says how long to wait for it.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self
            .granted
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE)
        {
            self.granted.pop_front();
        }
        if self.granted.len() < self.per_minute as usize {
            self.granted.push_back(now);
            return Ok(());
        }
        let free = self.granted.front().map_or(now, |at| *at + MINUTE);
        Err(free.saturating_duration_since(now))
    }
}

/// The rate of all connections together.
#[derive(Debug)]
pub(crate) struct TotalRate(Mutex<Rate>);

impl TotalRate {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self(Mutex::new(Rate::new(per_minute)))
    }

    /// Takes one, or says how long to wait for it.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut rate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(now)
    }
}

/// The tokens of one connection: random, bound to the account that asked, single use, expiring,
/// and limited in rate and number. The connection's end voids them all.
#[derive(Debug)]
pub(crate) struct TokenBook {
    lifetime: Duration,
    rate: Rate,
    unused: HashMap<[u8; 32], (String, Instant)>,
    order: VecDeque<[u8; 32]>,
}

/// The connection asks too often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl TokenBook {
    pub(crate) fn new(lifetime: Duration, per_minute: u32) -> Self {
        Self {
            lifetime,
            rate: Rate::new(per_minute),
            unused: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Counts one token against the connection's rate.
    pub(crate) fn count(&mut self, now: Instant) -> Result<(), TooMany> {
        self.rate.take(now).map_err(|_| TooMany)
    }

    /// A new token for `account`, to declare one job with.
    pub(crate) fn grant(&mut self, account: String, now: Instant) -> [u8; 32] {
        if self.order.len() >= UNUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.unused.remove(&oldest);
        }
        let token: [u8; 32] = rand::random();
        self.unused.insert(token, (account, now));
        self.order.push_back(token);
        token
    }

    /// Uses the token up; returns the account it was granted to, unless it is unknown or void.
    pub(crate) fn spend(&mut self, token: &[u8], now: Instant) -> Option<String> {
        let token: [u8; 32] = token.try_into().ok()?;
        let (account, granted) = self.unused.remove(&token)?;
        self.order.retain(|other| *other != token);
        (now.duration_since(granted) < self.lifetime).then_some(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_its_time() {
        let now = Instant::now();
        let mut book = TokenBook::new(Duration::from_secs(10), 100);
        let token = book.grant("alice".into(), now);
        assert_eq!(book.spend(&token, now).as_deref(), Some("alice"));
        assert_eq!(book.spend(&token, now), None);
        let late = book.grant("alice".into(), now);
        assert_eq!(book.spend(&late, now + Duration::from_secs(10)), None);
        assert_eq!(book.spend(&[0; 32], now), None);
        assert_eq!(book.spend(&[], now), None);
    }

    #[test]
    fn tokens_are_limited_in_rate_and_number() {
        let now = Instant::now();
        let mut book = TokenBook::new(Duration::from_secs(10), 3);
        for _ in 0..3 {
            book.count(now).unwrap();
        }
        assert_eq!(book.count(now), Err(TooMany));
        assert!(book.count(now + MINUTE).is_ok());

        let first = book.grant("a".into(), now);
        for _ in 0..UNUSED_MAX {
            book.grant("a".into(), now);
        }
        assert_eq!(book.spend(&first, now), None);
        assert_eq!(book.unused.len(), UNUSED_MAX);
    }

    #[test]
    fn the_total_says_how_long_to_wait() {
        let now = Instant::now();
        let total = TotalRate::new(2);
        assert_eq!(total.take(now), Ok(()));
        let later = now + Duration::from_secs(20);
        assert_eq!(total.take(later), Ok(()));
        assert_eq!(total.take(later), Err(Duration::from_secs(40)));
        assert_eq!(total.take(now + MINUTE), Ok(()));
    }
}
