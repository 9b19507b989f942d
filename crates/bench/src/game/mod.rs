//! The audit as a game: what cheating at each rate brings and costs, expected and played with the real
//! sampling. `docs/audit.md` explains the numbers. Amounts are in batches' pay: an honest batch earns 1
//! and costs the worker `cost`.

mod expectation;
mod play;
mod table;

use dovetail_audit::sample_size;
use serde::Serialize;

pub(crate) use expectation::survives;
pub(crate) use play::Strategy;

/// More transcripts than any worker needs to be trusted as far as it can be.
const TRUSTED: u64 = 1 << 32;

/// The rules of the pool, and what computing costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rules {
    /// Transcripts in a batch.
    pub(crate) leaves: usize,
    /// What computing a batch costs, in its pay.
    pub(crate) cost: f64,
    /// How many batches' pay is held back, and lost by who is caught.
    pub(crate) collateral_batches: usize,
    /// How many shares a cheat can find for a batch before it expires.
    pub(crate) shares: u32,
    /// Batches of one worker's life.
    pub(crate) batches: u32,
    /// Workers that play each strategy.
    pub(crate) workers: u32,
    /// Of the headers and the values of the beacon.
    pub(crate) seed: u64,
}

impl Rules {
    /// How many leaves of a worker's batch are replayed, as trusted as it can be.
    fn replayed_at_the_floor(&self) -> usize {
        sample_size(TRUSTED, self.leaves)
    }

    /// How many honest batches it takes to be replayed at the floor.
    pub(crate) fn batches_to_trust(&self) -> u32 {
        let leaves = self.leaves as u64;
        let floor = self.replayed_at_the_floor();
        (0..)
            .find(|batches| sample_size(u64::from(*batches) * leaves, self.leaves) == floor)
            .unwrap_or(u32::MAX)
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rules: Rules,
    replayed_at_the_floor: usize,
    batches_to_trust: u32,
    detection: Vec<Detection>,
    grinding: Vec<Grinding>,
    strategies: Vec<Outcome>,
}

/// How soon a trusted worker is caught that lies in some leaves of every batch.
#[derive(Debug, Serialize)]
struct Detection {
    bad_leaves: usize,
    /// Of its batches, how many are caught.
    per_batch: f64,
    within_10_batches: f64,
    within_100_batches: f64,
    /// Batches until it is caught, on average.
    batches_until: f64,
    /// The cost of a batch, in its pay, from which on lying pays, without collateral and with it.
    pays_from_cost_without_collateral: f64,
    pays_from_cost: f64,
}

/// What choosing among shares would bring if the sample were known before a share is sent.
#[derive(Debug, Serialize)]
struct Grinding {
    bad_leaves: usize,
    /// Shares until one has a sample without a lie, on average.
    shares_until_one_suits: Option<f64>,
    /// How often a batch passes if the cheat knows the sample and may choose among the shares.
    passes_if_known: f64,
    /// The same against the beacon: as without any choice.
    passes_with_beacon: f64,
}

/// A strategy over a worker's life.
#[derive(Debug, Serialize)]
struct Outcome {
    strategy: &'static str,
    bad_leaves: usize,
    /// Profit per batch, as computed.
    expected: f64,
    /// Profit per batch, as played.
    played: f64,
    /// Of what was played.
    standard_error: f64,
    /// How much more an honest worker has.
    loss_to_honest: f64,
    caught_per_1000_batches: f64,
}

/// Computes and plays everything.
pub(crate) fn report(rules: Rules) -> Report {
    let replayed = rules.replayed_at_the_floor();
    let rates = rates(rules.leaves);
    Report {
        rules,
        replayed_at_the_floor: replayed,
        batches_to_trust: rules.batches_to_trust(),
        detection: rates
            .iter()
            .map(|bad| detection(&rules, replayed, *bad))
            .collect(),
        grinding: rates
            .iter()
            .map(|bad| grinding(&rules, replayed, *bad))
            .collect(),
        strategies: strategies(&rules, &rates),
    }
}

/// One leaf, then a tenth, a quarter, a half and all of them.
fn rates(leaves: usize) -> Vec<usize> {
    let parts = [leaves.div_ceil(10), leaves.div_ceil(4), leaves.div_ceil(2)];
    let mut rates: Vec<usize> = [1].into_iter().chain(parts).chain([leaves]).collect();
    rates.dedup();
    rates
}

fn detection(rules: &Rules, replayed: usize, bad_leaves: usize) -> Detection {
    let passes = survives(rules.leaves, bad_leaves, replayed);
    let caught = 1.0 - passes;
    let rate = bad_leaves as f64 / rules.leaves as f64;
    Detection {
        bad_leaves,
        per_batch: caught,
        within_10_batches: 1.0 - passes.powi(10),
        within_100_batches: 1.0 - passes.powi(100),
        batches_until: 1.0 / caught,
        pays_from_cost_without_collateral: caught / rate,
        pays_from_cost: (1.0 + rules.collateral_batches as f64) * caught / rate,
    }
}

fn grinding(rules: &Rules, replayed: usize, bad_leaves: usize) -> Grinding {
    let suits = survives(rules.leaves, bad_leaves, replayed);
    Grinding {
        bad_leaves,
        shares_until_one_suits: (suits > 0.0).then(|| 1.0 / suits),
        passes_if_known: 1.0 - (1.0 - suits).powf(f64::from(rules.shares)),
        passes_with_beacon: suits,
    }
}

fn strategies(rules: &Rules, rates: &[usize]) -> Vec<Outcome> {
    let honest = 1.0 - rules.cost;
    let outcome = |strategy: Strategy, bad_leaves: usize| {
        let played = play::play(rules, strategy, bad_leaves);
        Outcome {
            strategy: strategy.name(),
            bad_leaves,
            expected: expectation::profit(rules, strategy, bad_leaves),
            played: played.profit,
            standard_error: played.standard_error,
            loss_to_honest: honest - played.profit,
            caught_per_1000_batches: played.caught_per_batch * 1_000.0,
        }
    };
    let lies = Strategy::LIES
        .into_iter()
        .flat_map(|strategy| rates.iter().map(move |bad| (strategy, *bad)));
    std::iter::once((Strategy::Honest, 0))
        .chain(lies)
        .map(|(strategy, bad)| outcome(strategy, bad))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            leaves: 64,
            cost: 0.8,
            collateral_batches: 16,
            shares: 64,
            batches: 400,
            workers: 60,
            seed: 1,
        }
    }

    #[test]
    fn what_is_played_is_what_was_expected() {
        for outcome in report(rules()).strategies {
            let off = (outcome.played - outcome.expected).abs();
            // What happens once in a billion batches is expected and not played.
            assert!(
                off <= 5.0 * outcome.standard_error + 1e-6,
                "{outcome:?}: {off} off"
            );
        }
    }

    #[test]
    fn no_lie_pays_against_the_beacon_and_small_ones_do_where_the_sample_is_known() {
        let is_known = |outcome: &Outcome| outcome.strategy == Strategy::SampleKnown.name();
        for outcome in report(rules()).strategies {
            // With more bad leaves it takes about as many shares as there are, or more.
            if is_known(&outcome) && outcome.bad_leaves <= 16 {
                assert!(outcome.loss_to_honest < 0.0, "{outcome:?}");
            }
            if !is_known(&outcome) {
                assert!(outcome.loss_to_honest > -1e-9, "{outcome:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_plays_the_same_game() {
        let played = || serde_json::to_string(&report(rules())).ok();
        assert_eq!(played(), played());
    }
}
