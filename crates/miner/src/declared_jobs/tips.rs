//! Whose tip is newer, the pool's or the miner's node's? Neither says, so the node's tips are remembered: a pool on one
//! of them is behind the node, a pool on any other is ahead of it.

use std::collections::VecDeque;

use crate::search::Hash256;

/// Tips of our node that are remembered. A pool that is further behind is not worth waiting for.
const TIPS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Tips {
    ours: VecDeque<Hash256>,
    pools: Option<Hash256>,
    /// What the pool announced last.
    announced: Option<Hash256>,
}

impl Tips {
    /// Our node builds on this tip. Whether that is new.
    pub(super) fn ours(&mut self, tip: Hash256) -> bool {
        if self.ours.back() == Some(&tip) {
            return false;
        }
        if self.ours.len() == TIPS_MAX {
            self.ours.pop_front();
        }
        self.ours.push_back(tip);
        true
    }

    /// The pool builds on this tip.
    pub(super) fn pools(&mut self, tip: Hash256) {
        self.pools = Some(tip);
    }

    /// The pool announces this tip. Whether it does so again: then with another target or time, and its channels have
    /// forgotten the jobs of before.
    pub(super) fn announced(&mut self, tip: Hash256) -> bool {
        self.pools(tip);
        self.announced.replace(tip) == Some(tip)
    }

    /// Whether a job on our tip is worth nothing to the pool now, as far as is known: the pool is on a tip
    /// that our node has not had, or has left ours (`accepted` says that it took a job on it).
    pub(super) fn pool_is_elsewhere(&self, accepted: bool) -> bool {
        let (Some(pools), Some(ours)) = (&self.pools, self.ours.back()) else {
            return false;
        };
        pools != ours && (accepted || !self.ours.contains(pools))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_that_we_never_had_is_ahead_and_one_that_we_had_is_behind() {
        let mut tips = Tips::default();
        assert!(!tips.pool_is_elsewhere(false));
        assert!(tips.ours([1; 32]));
        assert!(!tips.ours([1; 32]));
        tips.pools([1; 32]);
        assert!(!tips.pool_is_elsewhere(true));
        // Our node hears of a block first: the pool will follow.
        assert!(tips.ours([2; 32]));
        assert!(!tips.pool_is_elsewhere(false));
        tips.pools([2; 32]);
        // Then the pool does.
        tips.pools([3; 32]);
        assert!(tips.pool_is_elsewhere(false));
        assert!(tips.ours([3; 32]));
        assert!(!tips.pool_is_elsewhere(true));
        assert!(!tips.announced([3; 32]));
        assert!(tips.announced([3; 32]));
        // It took a job on our tip and goes back to the tip before.
        tips.pools([2; 32]);
        assert!(tips.pool_is_elsewhere(true));
    }
}
