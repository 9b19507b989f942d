//! Payout lists: outputs that coinbases may have beside the pool's own, to accounts that are paid in the coinbase itself. The
//! pool makes a list now and then, and the pool, its declarators and other pools on the ledger know it a moment later.
//!
//! A list is *offered* to new jobs once everybody has had the time to learn of it, and *taken* in jobs that miners bring for
//! some time longer. It is *known* for days: what a block pays has to be recognised whenever it comes.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bitcoin::{Network, TxOut};

use crate::subsidy::HalvingInterval;

/// How long after it was made a list is offered: programs ask the ledger for new ones every few seconds.
const OFFERED_AFTER: Duration = Duration::from_secs(10);
/// How long it is offered and taken. Nobody makes new ones any more if it is that old; and a miner who still builds on it
/// could be paid for work that has left the window.
const TAKEN_FOR: Duration = Duration::from_secs(1_800);

/// Outputs that a coinbase may have beside the pool's.
#[derive(Debug, Clone)]
pub struct PayoutList {
    /// How old it was when it was read ..
    age: Duration,
    /// .. and when that was.
    read: Instant,
    subsidy_sat: u64,
    heights: Range<u32>,
    outputs: Vec<TxOut>,
}

impl PayoutList {
    /// A list that is so old now. A block that pays it has to pay `subsidy_sat` at least, together with the pool's output, as
    /// blocks of these heights do. Each output is to another script, and none to the pool's.
    pub fn new(age: Duration, subsidy_sat: u64, heights: Range<u32>, outputs: Vec<TxOut>) -> Self {
        Self {
            age,
            read: Instant::now(),
            subsidy_sat,
            heights,
            outputs,
        }
    }

    fn age(&self) -> Duration {
        self.age.saturating_add(self.read.elapsed())
    }

    fn is_for(&self, height: u32) -> bool {
        self.heights.contains(&height)
    }

    /// Whether all of these are outputs of this list, each once.
    fn has_all(&self, outputs: &[&TxOut]) -> bool {
        let is_once =
            |output: &&TxOut| outputs.iter().filter(|other| *other == output).count() == 1;
        outputs
            .iter()
            .all(|output| self.outputs.contains(output) && is_once(output))
    }

    /// Whether it leaves the pool a part of the subsidy.
    fn is_covered(&self) -> bool {
        sum_of(&self.outputs).is_some_and(|sum| sum < self.subsidy_sat)
    }
}

/// What outputs are worth together, in satoshi; `None` if no block can pay so much.
pub(super) fn sum_of<'a>(outputs: impl IntoIterator<Item = &'a TxOut>) -> Option<u64> {
    let mut values = outputs.into_iter().map(|output| output.value.to_sat());
    values.try_fold(0, u64::checked_add)
}

/// The subsidy of a block of this height, in satoshi, and the heights that have it.
pub fn subsidy_at(network: Network, height: u32) -> (u64, Range<u32>) {
    let interval = HalvingInterval::of_network(network);
    (interval.subsidy(height).to_sat(), interval.around(height))
}

/// The lists that are known; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct PayoutLists(Arc<RwLock<Vec<PayoutList>>>);

impl PayoutLists {
    /// The newest last.
    fn all(&self) -> RwLockReadGuard<'_, Vec<PayoutList>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, lists: Vec<PayoutList>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = lists;
    }

    /// What a new job of this height pays beside the pool.
    pub(super) fn offered(&self, height: u32) -> Vec<TxOut> {
        let lists = self.all();
        let newest = lists.iter().rev().find(|list| list.age() >= OFFERED_AFTER);
        let outputs = newest
            .filter(|list| list.age() < TAKEN_FOR && list.is_for(height) && list.is_covered());
        outputs.map_or_else(Vec::new, |list| list.outputs.clone())
    }

    /// Whether a job that a miner brings may pay these beside the pool, and as much as `value_sat` in all.
    pub(super) fn takes(&self, outputs: &[&TxOut], height: u32, value_sat: u64) -> bool {
        let takes = |list: &PayoutList| {
            list.age() < TAKEN_FOR
                && list.is_for(height)
                && value_sat >= list.subsidy_sat
                && list.has_all(outputs)
        };
        outputs.is_empty() || self.all().iter().any(takes)
    }

    /// Whether these are outputs of a list, however old.
    pub(super) fn knows(&self, outputs: &[&TxOut]) -> bool {
        outputs.is_empty() || self.all().iter().rev().any(|list| list.has_all(outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf};

    fn output(script: u8, sat: u64) -> TxOut {
        TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: ScriptBuf::from(vec![script]),
        }
    }

    fn list(age_s: u64, outputs: Vec<TxOut>) -> PayoutList {
        PayoutList::new(Duration::from_secs(age_s), 100, 150..300, outputs)
    }

    fn lists(all: Vec<PayoutList>) -> PayoutLists {
        let lists = PayoutLists::default();
        lists.set(all);
        lists
    }

    #[test]
    fn the_newest_list_that_everybody_knows_is_offered_to_blocks_of_its_subsidy() {
        let (a, b, c) = (output(1, 50), output(2, 49), output(3, 99));
        let of = |ages: [u64; 3]| {
            lists(vec![
                list(ages[0], vec![a.clone()]),
                list(ages[1], vec![a.clone(), b.clone()]),
                list(ages[2], vec![c.clone()]),
            ])
        };
        assert_eq!(of([900, 600, 9]).offered(150), [a.clone(), b.clone()]);
        assert_eq!(of([900, 600, 10]).offered(299), std::slice::from_ref(&c));
        assert_eq!(of([900, 600, 300]).offered(300), []);
        assert_eq!(of([900, 600, 300]).offered(149), []);
        // Nobody makes lists any more.
        assert_eq!(of([1_900, 1_850, 1_800]).offered(150), []);
        assert_eq!(lists(Vec::new()).offered(150), []);
        // It would leave the pool nothing.
        assert_eq!(lists(vec![list(20, vec![output(1, 100)])]).offered(150), []);
    }

    #[test]
    fn a_job_may_pay_outputs_of_one_list_each_once_if_it_pays_the_subsidy() {
        let (a, b, other) = (output(1, 50), output(2, 49), output(1, 51));
        let lists = lists(vec![
            list(1_800, vec![output(9, 1)]),
            list(600, vec![a.clone(), b.clone()]),
            list(5, vec![other.clone()]),
        ]);
        let takes = |outputs: &[&TxOut]| lists.takes(outputs, 150, 100);
        assert!(takes(&[]) && takes(&[&a]) && takes(&[&b, &a]) && takes(&[&other]));
        assert!(!takes(&[&a, &a]) && !takes(&[&a, &other]) && !takes(&[&output(2, 50)]));
        assert!(!takes(&[&output(9, 1)]), "it is too old");
        assert!(!lists.takes(&[&a], 300, 100) && !lists.takes(&[&a], 150, 99));
        // What a block has paid is known for longer.
        assert!(lists.knows(&[&output(9, 1)]) && lists.knows(&[&b]) && !lists.knows(&[&a, &other]));
    }

    #[test]
    fn a_subsidy_is_that_of_all_heights_up_to_the_next_halving() {
        assert_eq!(subsidy_at(Network::Regtest, 149), (5_000_000_000, 0..150));
        assert_eq!(subsidy_at(Network::Regtest, 150), (2_500_000_000, 150..300));
        assert_eq!(
            subsidy_at(Network::Bitcoin, 840_000),
            (312_500_000, 840_000..1_050_000)
        );
        assert_eq!(subsidy_at(Network::Bitcoin, u32::MAX).0, 0);
    }
}
