//! What a channel is told of its good shares (Sv2 specification, section 5.3.13): in the order in which
//! they came, each once. A share is credited as soon as it is decided; the word of it waits for the
//! shares before it, so that `last_sequence_number` never passes one that may yet be refused.
//!
//! Refusals wait for nothing (5.3.14).

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Target;

/// Bits behind the point of a [`Difficulty`].
const FRACTION_BITS: u32 = 32;
/// 2^32.
const UNITS_PER_WHOLE: f64 = 4_294_967_296.0;

/// A share's difficulty in units of 2^-32. Whole numbers would lose most of an easy share, and over a
/// channel's life a part of every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Difficulty(u128);

impl Difficulty {
    /// The difficulty of a target, relative to that of difficulty 1.
    pub(crate) fn of(target: Target) -> Self {
        let units = target.difficulty_float() * UNITS_PER_WHOLE;
        // A float-to-integer cast saturates, which is what an absurd difficulty deserves.
        let units = units as u128;
        Self(units)
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    fn whole(self) -> u64 {
        u64::try_from(self.0 >> FRACTION_BITS).unwrap_or(u64::MAX)
    }
}

/// A share's place among those of its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// The fields of one `SubmitShares.Success`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The number of the last share in it.
    pub(crate) last_sequence_number: u32,
    /// How many shares it is for.
    pub(crate) accepted: u32,
    /// Their difficulty, whole; what is left of it goes into the next one.
    pub(crate) difficulty: u64,
}

/// Good shares that follow each other and have not been told of.
#[derive(Debug, Clone, Copy)]
struct Group {
    last: u32,
    count: u32,
    difficulty: Difficulty,
}

impl Group {
    fn followed_by(self, later: Self) -> Self {
        Self {
            last: later.last,
            count: self.count.saturating_add(later.count),
            difficulty: self.difficulty.plus(later.difficulty),
        }
    }
}

/// The later of two neighbouring groups behind the earlier one, where there are two.
fn joined(earlier: Option<Group>, later: Option<Group>) -> Option<Group> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => Some(earlier.followed_by(later)),
        (one, other) => one.or(other),
    }
}

/// One channel's acknowledgements. Its memory is bounded by the shares that are undecided, however many
/// good ones wait behind them.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    next: u64,
    undecided: BTreeSet<Place>,
    /// The good shares behind each undecided one, up to the next.
    held: BTreeMap<Place, Group>,
    /// Good shares that wait for nothing but [`Acks::take`].
    ready: Option<Group>,
    /// The difficulty of all shares that were told of ..
    total: Difficulty,
    /// .. and what they were told to come to.
    told: u64,
}

impl Acks {
    /// The place of a share that has just come and is not decided yet.
    pub(crate) fn enter(&mut self) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.undecided.insert(place);
        place
    }

    /// The share at this place is durable.
    pub(crate) fn accept(&mut self, place: Place, sequence_number: u32, difficulty: Difficulty) {
        let share = Group {
            last: sequence_number,
            count: 1,
            difficulty,
        };
        self.decide(place, Some(share));
    }

    /// The share at this place was refused, and its miner told so.
    pub(crate) fn refuse(&mut self, place: Place) {
        self.decide(place, None);
    }

    fn decide(&mut self, place: Place, share: Option<Group>) {
        // A place is decided once; that of another channel was never given here.
        if !self.undecided.remove(&place) {
            return;
        }
        let Some(group) = joined(share, self.held.remove(&place)) else {
            return;
        };
        let before = self.undecided.range(..place).next_back();
        match before {
            Some(blocking) => {
                let earlier = self.held.get(blocking).copied();
                let group = earlier.map_or(group, |earlier| earlier.followed_by(group));
                self.held.insert(*blocking, group);
            }
            None => self.ready = joined(self.ready, Some(group)),
        }
    }

    /// What the miner may be told now, once.
    pub(crate) fn take(&mut self) -> Option<Ack> {
        let group = self.ready.take()?;
        self.total = self.total.plus(group.difficulty);
        let whole = self.total.whole();
        let difficulty = whole.saturating_sub(self.told);
        self.told = whole;
        Some(Ack {
            last_sequence_number: group.last,
            accepted: group.count,
            difficulty,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Half a difficulty.
    const HALF: Difficulty = Difficulty(1 << 31);

    fn told(acks: &mut Acks) -> Option<(u32, u32, u64)> {
        let ack = acks.take()?;
        Some((ack.last_sequence_number, ack.accepted, ack.difficulty))
    }

    #[test]
    fn shares_behind_an_undecided_one_wait_and_are_told_of_together() {
        let mut acks = Acks::default();
        let places: Vec<Place> = (0..5).map(|_| acks.enter()).collect();
        acks.accept(places[0], 10, HALF);
        assert_eq!(told(&mut acks), Some((10, 1, 0)));
        // The claim, 11, is under audit.
        acks.accept(places[3], 13, HALF);
        acks.accept(places[2], 12, HALF);
        assert_eq!(told(&mut acks), None);
        acks.accept(places[1], 11, HALF);
        assert_eq!(told(&mut acks), Some((13, 3, 2)));
        acks.accept(places[4], 14, HALF);
        assert_eq!(told(&mut acks), Some((14, 1, 0)));
        assert_eq!(told(&mut acks), None);
    }

    #[test]
    fn a_refused_share_is_passed_over_and_holds_nothing_up_any_more() {
        let mut acks = Acks::default();
        let places: Vec<Place> = (0..3).map(|_| acks.enter()).collect();
        acks.accept(places[1], 2, HALF);
        acks.refuse(places[0]);
        assert_eq!(told(&mut acks), Some((2, 1, 0)));
        acks.refuse(places[2]);
        assert_eq!(told(&mut acks), None);
        // Decided once.
        acks.accept(places[1], 2, HALF);
        acks.accept(places[2], 3, HALF);
        assert_eq!(told(&mut acks), None);
    }

    #[test]
    fn a_difficulty_is_kept_to_its_fraction() {
        assert_eq!(Difficulty::of(Target::MAX).whole(), 1);
        let easy = Target::from_le_bytes([0xff; 32]);
        assert_eq!(Difficulty::of(easy).0, 0);
        assert!(Difficulty::of(Target::from_le_bytes([0; 32])).whole() > 0);
    }

    proptest! {
        /// Shares come, are decided in any order, refused or not, and told of whenever: each good one is
        /// counted once, with its difficulty, and no number passes a share that is undecided.
        #[test]
        fn it_adds_up_over_a_channels_life(
            steps in proptest::collection::vec((0..4_u8, any::<u16>(), 0..1_u64 << 34), 1..400)
        ) {
            let mut acks = Acks::default();
            let mut open: Vec<(Place, u32)> = Vec::new();
            let (mut number, mut good, mut sum) = (0_u32, 0_u32, 0_u128);
            let (mut counted, mut summed, mut last) = (0_u32, 0_u64, 0_u32);
            let mut check = |acks: &mut Acks, open: &[(Place, u32)]| {
                if let Some((to, count, difficulty)) = told(acks) {
                    counted += count;
                    summed += difficulty;
                    assert!(to > last && count > 0);
                    assert!(open.iter().all(|(_, number)| *number > to));
                    last = to;
                }
                (counted, summed)
            };
            for (what, which, units) in steps {
                let at = usize::from(which) % open.len().max(1);
                match what {
                    _ if open.is_empty() || what == 0 => {
                        number += 1;
                        open.push((acks.enter(), number));
                    }
                    1 => acks.refuse(open.remove(at).0),
                    2 => {
                        let (place, number) = open.remove(at);
                        acks.accept(place, number, Difficulty(u128::from(units)));
                        good += 1;
                        sum += u128::from(units);
                    }
                    _ => {
                        check(&mut acks, &open);
                    }
                }
                prop_assert!(acks.held.len() <= acks.undecided.len());
            }
            for (place, _) in std::mem::take(&mut open) {
                acks.refuse(place);
            }
            let whole = u64::try_from(sum >> FRACTION_BITS).unwrap();
            prop_assert_eq!(check(&mut acks, &open), (good, whole));
        }
    }
}
