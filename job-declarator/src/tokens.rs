//! Tokens: random, bound to the connection and the identity that asked, single use, expiring, and
//! limited in rate and number.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How many unused tokens one connection may hold; the oldest goes first.
const UNUSED_MAX: usize = 32;

/// The tokens of one connection.
#[derive(Debug)]
pub(crate) struct TokenBook {
    lifetime: Duration,
    per_minute: u32,
    granted: VecDeque<Instant>,
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
            per_minute,
            granted: VecDeque::new(),
            unused: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A new token for `identity`.
    pub(crate) fn grant(&mut self, identity: String, now: Instant) -> Result<[u8; 32], TooMany> {
        while self
            .granted
            .front()
            .is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(60))
        {
            self.granted.pop_front();
        }
        if self.granted.len() >= self.per_minute as usize {
            return Err(TooMany);
        }
        self.granted.push_back(now);
        if self.order.len() >= UNUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.unused.remove(&oldest);
        }
        let token: [u8; 32] = rand::random();
        self.unused.insert(token, (identity, now));
        self.order.push_back(token);
        Ok(token)
    }

    /// Uses the token up; returns the identity it was granted to, unless it is unknown or void.
    pub(crate) fn spend(&mut self, token: &[u8], now: Instant) -> Option<String> {
        let token: [u8; 32] = token.try_into().ok()?;
        let (identity, granted) = self.unused.remove(&token)?;
        self.order.retain(|other| *other != token);
        (now.duration_since(granted) < self.lifetime).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_its_time() {
        let now = Instant::now();
        let mut book = TokenBook::new(Duration::from_secs(10), 100);
        let token = book.grant("alice".into(), now).unwrap();
        assert_eq!(book.spend(&token, now).as_deref(), Some("alice"));
        assert_eq!(book.spend(&token, now), None);
        let late = book.grant("alice".into(), now).unwrap();
        assert_eq!(book.spend(&late, now + Duration::from_secs(10)), None);
        assert_eq!(book.spend(&[0; 32], now), None);
        assert_eq!(book.spend(&[], now), None);
    }

    #[test]
    fn tokens_are_limited_in_rate_and_number() {
        let now = Instant::now();
        let mut book = TokenBook::new(Duration::from_secs(10), 3);
        for _ in 0..3 {
            book.grant("a".into(), now).unwrap();
        }
        assert_eq!(book.grant("a".into(), now), Err(TooMany));
        let later = now + Duration::from_secs(60);
        assert!(book.grant("a".into(), later).is_ok());

        let mut book = TokenBook::new(Duration::from_secs(10), 1_000);
        let first = book.grant("a".into(), now).unwrap();
        for _ in 0..UNUSED_MAX {
            book.grant("a".into(), now).unwrap();
        }
        assert_eq!(book.spend(&first, now), None);
        assert_eq!(book.unused.len(), UNUSED_MAX);
    }
}
