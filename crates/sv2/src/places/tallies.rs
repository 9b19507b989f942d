//! The connections of each address, or of each network; and for a while, what those have proven that are gone. Its memory
//! is bounded whoever comes, and so is its work: each call does as much as was done before, on average.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// What was proven counts for this long after it is gone: a farm whose line fails comes back whole.
pub(super) const MEMORY: Duration = Duration::from_secs(3_600);
/// How many are remembered, at some hundred bytes each. Beyond it those are forgotten that have been gone for longest.
const REMEMBERED_MAX: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Tallies {
    /// Those with a connection or a past.
    by_key: HashMap<IpAddr, Tally>,
    /// Those with a past, each once, with the end that it had when it was written down here; the earliest first.
    past: VecDeque<(IpAddr, Instant)>,
    past_max: usize,
}

#[derive(Debug, Default)]
struct Tally {
    unproven: usize,
    proven: usize,
    past: Option<Past>,
}

/// How many had proven work when one of them was last seen off, and until when that counts.
#[derive(Debug, Clone, Copy)]
struct Past {
    proven: usize,
    until: Instant,
}

impl Tally {
    fn proven_lately(&self, now: Instant) -> usize {
        let past = self.past.filter(|past| past.until > now);
        past.map_or(0, |past| past.proven).max(self.proven)
    }

    fn is_empty(&self) -> bool {
        self.unproven == 0 && self.proven == 0 && self.past.is_none()
    }
}

impl Default for Tallies {
    fn default() -> Self {
        Self::remembering(REMEMBERED_MAX)
    }
}

impl Tallies {
    fn remembering(past_max: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            past: VecDeque::new(),
            past_max,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.past.is_empty()
    }

    /// Whether it may have another connection that has proven nothing, where a stranger may have so many.
    pub(super) fn has_room(&self, key: IpAddr, most: usize, now: Instant) -> bool {
        let unproven = self.by_key.get(&key).map_or(0, |tally| tally.unproven);
        unproven < most.saturating_add(self.proven_lately(key, now))
    }

    /// How many connections with proven work it has, or had when one of them was last seen off.
    pub(super) fn proven_lately(&self, key: IpAddr, now: Instant) -> usize {
        let tally = self.by_key.get(&key);
        tally.map_or(0, |tally| tally.proven_lately(now))
    }

    /// It has another connection.
    pub(super) fn join(&mut self, key: IpAddr) {
        self.by_key.entry(key).or_default().unproven += 1;
    }

    /// One of its connections has proven work, for the first time.
    pub(super) fn prove(&mut self, key: IpAddr) {
        if let Some(tally) = self.by_key.get_mut(&key) {
            tally.unproven -= 1;
            tally.proven += 1;
        }
    }

    /// One of its connections is gone.
    pub(super) fn leave(&mut self, key: IpAddr, has_proven: bool, now: Instant) {
        self.see_off(key, has_proven, now);
        self.forget(now);
    }

    fn see_off(&mut self, key: IpAddr, has_proven: bool, now: Instant) {
        let Some(tally) = self.by_key.get_mut(&key) else {
            return;
        };
        if has_proven {
            let until = now + MEMORY;
            let proven = tally.proven_lately(now);
            if tally.past.replace(Past { proven, until }).is_none() {
                self.past.push_back((key, until));
            }
            tally.proven -= 1;
        } else {
            tally.unproven -= 1;
        }
        if tally.is_empty() {
            self.by_key.remove(&key);
        }
    }

    /// Forgets pasts that are over, and some that are not where there are too many. Returns how many it has looked at:
    /// each was written down or prolonged by a call of its own before.
    fn forget(&mut self, now: Instant) -> usize {
        let mut looked_at = 0;
        while let Some(&(key, noted)) = self.past.front()
            && (noted <= now || self.past.len() > self.past_max)
        {
            looked_at += 1;
            self.past.pop_front();
            let Some(tally) = self.by_key.get_mut(&key) else {
                continue;
            };
            // It may have been prolonged since: then it has another turn.
            match tally.past {
                Some(past) if past.until > noted && past.until > now => {
                    self.past.push_back((key, past.until));
                }
                _ => {
                    tally.past = None;
                    if tally.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
        looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    const MOST: usize = 3;
    const PAST_MAX: usize = 8;

    fn key(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    /// A connection comes, proves work and goes.
    fn visit(tallies: &mut Tallies, number: u8, now: Instant) {
        tallies.join(key(number));
        tallies.prove(key(number));
        tallies.leave(key(number), true, now);
    }

    #[test]
    fn whoever_comes_again_and_again_drives_nobody_out() {
        let start = Instant::now();
        let mut tallies = Tallies::remembering(PAST_MAX);
        visit(&mut tallies, 0, start);
        for number in 1..8 {
            visit(&mut tallies, number, start);
        }
        for _ in 0..1_000 {
            visit(&mut tallies, 1, start);
        }
        assert_eq!(tallies.proven_lately(key(0), start), 1);
        assert_eq!(tallies.past.len(), PAST_MAX);
    }

    #[test]
    fn of_too_many_those_are_forgotten_that_have_been_gone_for_longest() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tallies = Tallies::remembering(PAST_MAX);
        for number in 0..8 {
            visit(&mut tallies, number, start);
        }
        // The first is there again.
        visit(&mut tallies, 0, at(1));
        for number in 8..14 {
            visit(&mut tallies, number, at(2));
        }
        let known = |number: &u8| tallies.proven_lately(key(*number), at(3)) > 0;
        let remembered: Vec<u8> = (0..14).filter(known).collect();
        assert_eq!(remembered, [0, 7, 8, 9, 10, 11, 12, 13][..]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Join(u8),
        Prove(usize),
        Leave(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_u8).prop_map(Step::Join),
            any::<usize>().prop_map(Step::Prove),
            any::<usize>().prop_map(Step::Leave),
            (0..1_200_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whoever comes and goes: there is an entry for those who are there and for a few others, no call does more than was
        /// done before, and the numbers of those who are there are right.
        #[test]
        fn memory_and_work_are_bounded(steps in proptest::collection::vec(step(), 1..400)) {
            let mut now = Instant::now();
            let mut tallies = Tallies::remembering(PAST_MAX);
            let mut there: Vec<(u8, bool)> = Vec::new();
            let (mut looked_at, mut left) = (0, 0);
            for step in steps {
                match step {
                    Step::Join(number) if tallies.has_room(key(number), MOST, now) => {
                        tallies.join(key(number));
                        there.push((number, false));
                    }
                    Step::Prove(which) if !there.is_empty() => {
                        let at = which % there.len();
                        let (number, has_proven) = &mut there[at];
                        if !std::mem::replace(has_proven, true) {
                            tallies.prove(key(*number));
                        }
                    }
                    Step::Leave(which) if !there.is_empty() => {
                        let (number, has_proven) = there.swap_remove(which % there.len());
                        tallies.see_off(key(number), has_proven, now);
                        looked_at += tallies.forget(now);
                        left += usize::from(has_proven);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    _ => {}
                }
                let mut keys: Vec<u8> = there.iter().map(|(number, _)| *number).collect();
                keys.sort_unstable();
                keys.dedup();
                prop_assert!(tallies.past.len() <= PAST_MAX);
                prop_assert!(tallies.by_key.len() <= keys.len() + PAST_MAX);
                prop_assert!(looked_at <= 2 * left);
                for number in keys {
                    let of = |proven| there.iter().filter(|one| **one == (number, proven)).count();
                    let tally = &tallies.by_key[&key(number)];
                    prop_assert_eq!((tally.unproven, tally.proven), (of(false), of(true)));
                    prop_assert!(tallies.proven_lately(key(number), now) >= of(true));
                }
            }
            // All of it is forgotten in the end.
            for (number, has_proven) in there {
                tallies.leave(key(number), has_proven, now);
            }
            tallies.forget(now + MEMORY);
            prop_assert!(tallies.by_key.is_empty() && tallies.past.is_empty());
        }
    }
}
