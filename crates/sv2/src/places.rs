//! Who may hold how many places of a port, and for how long. A place costs memory and a number that others need, so a
//! stranger gets a few, and whoever proves work gets more: a farm has a thousand devices behind one address, an attacker
//! has idle connections. What proves work is the server's affair; nothing is known of it here.

mod tallies;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use tallies::Tallies;

/// Where only reserved places are left, a stranger has this long to show that it is known.
const PROBATION: Duration = Duration::from_secs(15);
/// Refusals are summed up in the log this often.
const WORD_INTERVAL: Duration = Duration::from_secs(60);
/// How often a connection without a deadline is looked at.
const RECHECK: Duration = Duration::from_secs(60);

/// The limits of a port.
#[derive(Debug, Clone, Copy)]
pub struct PlaceLimits {
    /// Connections at a time; further ones wait in the system's queue.
    pub connections_max: usize,
    /// Connections from one address that have proven nothing yet. Each one that has lets another one in.
    pub per_address_max: usize,
    /// The same for one network: a /24 of IPv4, a /48 of IPv6.
    pub per_network_max: usize,
    /// Of all places, those that only connections from known addresses, of known accounts or of registered workers
    /// may keep.
    pub reserved: usize,
    /// A connection that has proven nothing this long after its beginning is closed.
    pub first_proof: Option<Duration>,
    /// And one that has proven nothing for this long since the last time. One that has been at work for less time than
    /// that may be silent for that time only, but for `first_proof` in any case: a single lucky proof earns little.
    pub silence: Option<Duration>,
}

impl PlaceLimits {
    /// So many places, for whoever comes: for ports that no strangers reach.
    pub fn total(connections_max: usize) -> Self {
        Self {
            connections_max,
            per_address_max: usize::MAX,
            per_network_max: usize::MAX,
            reserved: 0,
            first_proof: None,
            silence: None,
        }
    }
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceRefusal {
    /// Its address has as many as it may.
    #[error("its address holds as many connections without proven work as it may")]
    Address,
    /// Its network has as many as it may.
    #[error("its network holds as many connections without proven work as it may")]
    Network,
}

/// The places of a port. Clones share them.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: PlaceLimits,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    addresses: Tallies,
    networks: Tallies,
    /// Connections that have proven nothing.
    unproven: usize,
    /// Refusals that the log has not heard of.
    refused: u64,
    last_word: Option<Instant>,
}

impl Book {
    /// The tallies that an address counts in, and what it is called there.
    fn tallies(&mut self, address: IpAddr) -> [(&mut Tallies, IpAddr); 2] {
        [
            (&mut self.addresses, host_of(address)),
            (&mut self.networks, network_of(address)),
        ]
    }
}

impl Places {
    /// All of them free.
    pub fn new(limits: PlaceLimits) -> Self {
        Self(Arc::new(Inner {
            limits,
            book: Mutex::default(),
        }))
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// [`PlaceRefusal`]; the log is told of refusals once a minute.
    pub fn take(&self, address: IpAddr) -> Result<Place, PlaceRefusal> {
        self.take_at(address, Instant::now())
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> Result<Place, PlaceRefusal> {
        let limits = &self.0.limits;
        let address = address.to_canonical();
        let mut book = self.0.book();
        let (host, network) = (host_of(address), network_of(address));
        let refusal = if !book.addresses.has_room(host, limits.per_address_max, now) {
            Some(PlaceRefusal::Address)
        } else if !book.networks.has_room(network, limits.per_network_max, now) {
            Some(PlaceRefusal::Network)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            book.refused += 1;
            tell_refusals(&mut book, address, refusal, now);
            return Err(refusal);
        }
        let is_known = book.addresses.proven_lately(host, now) > 0;
        for (tallies, key) in book.tallies(address) {
            tallies.join(key);
        }
        let open = limits.connections_max.saturating_sub(limits.reserved);
        let is_on_probation = !is_known && limits.reserved > 0 && book.unproven >= open;
        book.unproven += 1;
        Ok(Place {
            inner: Arc::clone(&self.0),
            address,
            opened: now,
            standing: Mutex::new(Standing {
                last_proof: None,
                is_on_probation,
                worker: None,
            }),
            _permit: None,
        })
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_refusals(book: &mut Book, address: IpAddr, refusal: PlaceRefusal, now: Instant) {
    if book
        .last_word
        .is_some_and(|said| said + WORD_INTERVAL > now)
    {
        return;
    }
    tracing::warn!(
        refused = book.refused,
        %address,
        reason = %refusal,
        "connections were refused in the last minute; the last of them is shown"
    );
    (book.refused, book.last_word) = (0, Some(now));
}

/// A connection's place. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    address: IpAddr,
    opened: Instant,
    standing: Mutex<Standing>,
    /// What it takes of the port's total. It is only kept.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Standing {
    last_proof: Option<Instant>,
    is_on_probation: bool,
    /// Of a registered worker, whether it has earned before.
    worker: Option<bool>,
}

impl Place {
    /// Keeps the permit for as long as the place.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self._permit = Some(permit);
    }

    /// The connection has proven work. Cheap after the first time.
    pub fn prove(&self) {
        self.prove_at(Instant::now());
    }

    fn prove_at(&self, now: Instant) {
        let is_first = self.standing().last_proof.replace(now).is_none();
        if is_first {
            let mut book = self.inner.book();
            for (tallies, key) in book.tallies(self.address) {
                tallies.prove(key);
            }
            book.unproven -= 1;
        }
    }

    /// Whether the connection has proven work.
    pub fn has_proven(&self) -> bool {
        self.standing().last_proof.is_some()
    }

    /// The connection is of somebody who has proven work before: it may keep a reserved place. It has to prove work
    /// again like any other.
    pub fn vouch(&self) {
        self.standing().is_on_probation = false;
    }

    /// The connection is of a registered worker, who earns by other things than shares. One that has earned before, which
    /// its key proves, may keep a reserved place and has no deadlines. Keys cost nothing: another one has as long for its
    /// first proof as it might be silent after it.
    pub fn register(&self, has_earned: bool) {
        let mut standing = self.standing();
        standing.worker = Some(has_earned);
        standing.is_on_probation &= !has_earned;
    }

    /// Returns once the connection has proven nothing for too long. Cancellation-safe.
    pub async fn expired(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            tokio::time::sleep_until(deadline.unwrap_or(now + RECHECK)).await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let limits = &self.inner.limits;
        let standing = self.standing();
        match (standing.worker, standing.last_proof) {
            (Some(true), _) => None,
            (_, Some(last)) => {
                let at_work = last.duration_since(self.opened);
                let least = limits.first_proof.unwrap_or(Duration::MAX).max(at_work);
                limits.silence.map(|silence| last + silence.min(least))
            }
            (_, None) if standing.is_on_probation => Some(self.opened + PROBATION),
            (Some(false), None) => limits.silence.map(|silence| self.opened + silence),
            (None, None) => limits.first_proof.map(|first| self.opened + first),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_proven = self.standing().last_proof.is_some();
        let now = Instant::now();
        let mut book = self.inner.book();
        for (tallies, key) in book.tallies(self.address) {
            tallies.leave(key, is_proven, now);
        }
        if !is_proven {
            book.unproven -= 1;
        }
    }
}

/// What counts as one host: an address of IPv4, a /64 of IPv6.
pub fn host_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => prefix(address, 64),
    }
}

/// What counts as one network: a /24 of IPv4, a /48 of IPv6.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => prefix(address, 48),
    }
}

fn prefix(address: Ipv6Addr, bits: u32) -> IpAddr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits))).into()
}

#[cfg(test)]
mod tests;
