//! Who may hold how many places of a port, and for how long. A place costs memory and a number that others need, so a
//! stranger gets a few, and whoever proves work gets more: a farm has a thousand devices behind one address, an attacker
//! has idle connections. What proves work is the server's affair; nothing is known of it here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Where only reserved places are left, a stranger has this long to show that it is known.
const PROBATION: Duration = Duration::from_secs(15);
/// What an address has proven counts for this long after it is gone: a farm whose line fails comes back whole.
const MEMORY: Duration = Duration::from_secs(3_600);
/// Addresses and networks that are remembered, at some hundred bytes each. Beyond it those that hold no place are forgotten.
const REMEMBERED_MAX: usize = 1 << 16;
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
    /// And one that has proven nothing for this long since the last time.
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
    addresses: HashMap<IpAddr, Tally>,
    networks: HashMap<IpAddr, Tally>,
    /// Connections that have proven nothing.
    unproven: usize,
    /// Refusals that the log has not heard of.
    refused: u64,
    last_word: Option<Instant>,
}

/// The connections of an address or a network.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    unproven: usize,
    proven: usize,
    /// How many had proven work when one of them was last seen off, and until when that counts.
    remembered: Option<(usize, Instant)>,
}

impl Tally {
    fn proven_lately(&self, now: Instant) -> usize {
        let remembered = self.remembered.filter(|(_, until)| *until > now);
        remembered.map_or(0, |(count, _)| count).max(self.proven)
    }

    fn has_room(&self, most: usize, now: Instant) -> bool {
        self.unproven < most.saturating_add(self.proven_lately(now))
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.unproven > 0 || self.proven_lately(now) > 0
    }

    fn leave(&mut self, is_proven: bool, now: Instant) {
        if is_proven {
            self.remembered = Some((self.proven_lately(now), now + MEMORY));
            self.proven -= 1;
        } else {
            self.unproven -= 1;
        }
    }
}

impl Book {
    fn tallies(&mut self, address: IpAddr) -> [&mut Tally; 2] {
        [
            self.addresses.entry(host_of(address)).or_default(),
            self.networks.entry(network_of(address)).or_default(),
        ]
    }

    fn forget(&mut self, now: Instant) {
        for tallies in [&mut self.addresses, &mut self.networks] {
            if tallies.len() > REMEMBERED_MAX {
                tallies.retain(|_, tally| tally.is_of_use(now));
            }
            if tallies.len() > REMEMBERED_MAX {
                tallies.retain(|_, tally| tally.unproven + tally.proven > 0);
            }
        }
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
        book.forget(now);
        let [host, network] = book.tallies(address);
        let is_known = host.proven_lately(now) > 0;
        let refusal = if !host.has_room(limits.per_address_max, now) {
            Some(PlaceRefusal::Address)
        } else if !network.has_room(limits.per_network_max, now) {
            Some(PlaceRefusal::Network)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            book.refused += 1;
            tell_refusals(&mut book, address, refusal, now);
            return Err(refusal);
        }
        host.unproven += 1;
        network.unproven += 1;
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
                is_registered: false,
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
    is_registered: bool,
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
            for tally in book.tallies(self.address) {
                tally.unproven -= 1;
                tally.proven += 1;
            }
            book.unproven -= 1;
        }
    }

    /// The connection is of somebody who has proven work before: it may keep a reserved place. It has to prove work
    /// again like any other.
    pub fn vouch(&self) {
        self.standing().is_on_probation = false;
    }

    /// The connection is of a registered worker, who earns by other things than shares: it has no deadlines.
    pub fn register(&self) {
        let mut standing = self.standing();
        (standing.is_on_probation, standing.is_registered) = (false, true);
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
        match (standing.is_registered, standing.last_proof) {
            (true, _) => None,
            (false, Some(last)) => limits.silence.map(|silence| last + silence),
            (false, None) if standing.is_on_probation => Some(self.opened + PROBATION),
            (false, None) => limits.first_proof.map(|first| self.opened + first),
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
        for tally in book.tallies(self.address) {
            tally.leave(is_proven, now);
        }
        if !is_proven {
            book.unproven -= 1;
        }
        let (host, network) = (host_of(self.address), network_of(self.address));
        if book
            .addresses
            .get(&host)
            .is_some_and(|tally| !tally.is_of_use(now))
        {
            book.addresses.remove(&host);
        }
        if book
            .networks
            .get(&network)
            .is_some_and(|tally| !tally.is_of_use(now))
        {
            book.networks.remove(&network);
        }
    }
}

/// What counts as one host: an address of IPv4, a /64 of IPv6.
fn host_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => prefix(address, 64),
    }
}

/// What counts as one network.
fn network_of(address: IpAddr) -> IpAddr {
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
mod tests {
    use super::*;

    const LIMITS: PlaceLimits = PlaceLimits {
        connections_max: 40,
        per_address_max: 4,
        per_network_max: 8,
        reserved: 10,
        first_proof: Some(Duration::from_secs(600)),
        silence: Some(Duration::from_secs(3_600)),
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fill(places: &Places, from: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(address(from)).ok()).collect()
    }

    #[test]
    fn one_host_and_one_network_hold_a_few_idle_places_only() {
        let places = Places::new(LIMITS);
        let host = fill(&places, "192.0.2.1");
        assert_eq!(host.len(), 4);
        assert_eq!(fill(&places, "::ffff:192.0.2.1").len(), 0);
        let neighbour = fill(&places, "192.0.2.2");
        assert_eq!(neighbour.len(), 4);
        let refused = places.take(address("192.0.2.3")).unwrap_err();
        assert_eq!(refused, PlaceRefusal::Network);
        assert_eq!(fill(&places, "198.51.100.1").len(), 4);
        drop(host);
        assert_eq!(fill(&places, "192.0.2.3").len(), 4);
        // A host of IPv6 has more addresses than anybody can count.
        let _six = fill(&places, "2001:db8:0:1::1");
        assert_eq!(fill(&places, "2001:db8:0:1:ffff::9").len(), 0);
        assert_eq!(fill(&places, "2001:db8:0:2::1").len(), 4);
        assert_eq!(fill(&places, "2001:db8:1:2::1").len(), 4);
    }

    #[test]
    fn a_farm_behind_one_address_that_proves_work_gets_in_whole_and_comes_back_whole() {
        let farm = address("192.0.2.1");
        let places = Places::new(PlaceLimits {
            connections_max: 2_000,
            ..LIMITS
        });
        let (mut inside, mut rounds) = (Vec::new(), 0);
        while inside.len() < 1_000 {
            inside.extend(fill(&places, "192.0.2.1"));
            inside.iter().for_each(Place::prove);
            rounds += 1;
        }
        assert!(rounds <= 10, "{rounds}");
        inside.truncate(1_000);
        // Its line fails for a moment.
        drop(inside);
        let back: Vec<_> = (0..1_000).map(|_| places.take(farm).unwrap()).collect();
        assert_eq!(back.len(), 1_000);
        // What it has proven is no good to anybody else, and not for ever.
        assert_eq!(fill(&places, "203.0.113.1").len(), 4);
        drop(back);
        let later = Instant::now() + MEMORY + Duration::from_secs(1);
        let held: Vec<_> = (0..5).map(|_| places.take_at(farm, later)).collect();
        assert_eq!(held.iter().filter(|place| place.is_ok()).count(), 4);
    }

    #[test]
    fn the_reserved_places_are_for_those_who_are_known() {
        let places = Places::new(LIMITS);
        let mut crowd = Vec::new();
        for network in 0..10 {
            crowd.extend(fill(&places, &format!("10.{network}.0.1")));
        }
        assert_eq!(crowd.len(), 40);
        let soon = |place: &Place| place.deadline().unwrap() == place.opened + PROBATION;
        assert_eq!(crowd.iter().filter(|place| !soon(place)).count(), 30);
        let stranger = &crowd[39];
        assert!(soon(stranger));
        stranger.vouch();
        assert_eq!(
            stranger.deadline().unwrap(),
            stranger.opened + LIMITS.first_proof.unwrap()
        );
        let worker = &crowd[38];
        worker.register();
        assert_eq!(worker.deadline(), None);
        // An address that has proven work is known.
        crowd[0].prove();
        crowd[1].prove();
        let place = places.take(address("10.0.0.1")).unwrap();
        assert!(!soon(&place));
    }

    #[test]
    fn deadlines_begin_anew_with_each_proof() {
        let places = Places::new(LIMITS);
        let place = places.take(address("192.0.2.1")).unwrap();
        let at = |seconds| place.opened + Duration::from_secs(seconds);
        assert_eq!(place.deadline(), Some(at(600)));
        place.prove_at(at(500));
        assert_eq!(place.deadline(), Some(at(4_100)));
        place.prove_at(at(3_000));
        assert_eq!(place.deadline(), Some(at(6_600)));
        let places = Places::new(PlaceLimits::total(1));
        assert_eq!(places.take(address("::1")).unwrap().deadline(), None);
    }

    #[test]
    fn nothing_is_kept_of_who_has_proven_nothing() {
        let places = Places::new(LIMITS);
        for host in 0..100 {
            drop(fill(&places, &format!("192.0.2.{host}")));
        }
        let book = places.0.book();
        assert!(book.addresses.is_empty() && book.networks.is_empty());
        assert_eq!(book.unproven, 0);
    }
}
