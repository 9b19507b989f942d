//! The audit as a game: what lies bring and cost, as expected and as played with the audit's own sampling.
//! `docs/audit.md` explains the numbers.

mod pool;
mod strategy;
mod table;

use dovetail_units::SplitMix64;
use serde::Serialize;

use self::strategy::{GAMES, Life, live};

/// How the game is played.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rules {
    /// What computing costs, as a part of what it pays.
    pub(crate) cost: f64,
    /// Claims of a worker's life.
    pub(crate) claims: u32,
    /// Workers that play each strategy.
    pub(crate) workers: u32,
    /// Of all that is drawn.
    pub(crate) seed: u64,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rules: Rules,
    strategies: Vec<Outcome>,
}

/// What came of a strategy. Worths are for each msat that was lied about; `None` if nothing was.
#[derive(Debug, Serialize)]
struct Outcome {
    strategy: &'static str,
    caught_per_1000_claims: f64,
    lied_msat: i64,
    /// What was expected, claim by claim, as things stood.
    expected: Option<f64>,
    /// The worker's credit in the end beyond the worth of what it computed.
    played: Option<f64>,
    /// Of what was played, about what was expected.
    standard_error: Option<f64>,
    /// How much better off the worker is than if it had computed what it lied about.
    gain_over_computing: Option<f64>,
}

/// Plays everything.
pub(crate) fn report(rules: Rules) -> Report {
    let outcome = |(strategy, audit, name)| {
        let mut random = SplitMix64::new(rules.seed);
        let lives: Vec<Life> = (0..rules.workers)
            .map(|_| live(strategy, audit, rules.claims, &mut random))
            .collect();
        Outcome::of(name, &lives, rules.cost)
    };
    Report {
        rules,
        strategies: GAMES.into_iter().map(outcome).collect(),
    }
}

impl Outcome {
    fn of(strategy: &'static str, lives: &[Life], cost: f64) -> Self {
        let sum = |of: fn(&Life) -> f64| lives.iter().map(of).sum::<f64>();
        let lied_msat: i64 = lives.iter().map(|life| life.lied_msat).sum();
        let lied = lied_msat as f64;
        // What is played wanders about what is expected as a sum of fair bets.
        let squares = sum(|life| (life.worth_msat as f64 - life.expected_msat).powi(2));
        let of_lied = |msat: f64| (lied_msat > 0).then(|| msat / lied);
        let played = of_lied(sum(|life| life.worth_msat as f64));
        Self {
            strategy,
            caught_per_1000_claims: 1_000.0 * sum(|life| f64::from(life.caught))
                / sum(|life| f64::from(life.claims)),
            lied_msat,
            expected: of_lied(sum(|life| life.expected_msat)),
            played,
            standard_error: of_lied(squares.sqrt()),
            gain_over_computing: played.map(|played| played - (1.0 - cost)),
        }
    }

    /// Whether its rules are those that fell.
    #[cfg(test)]
    fn has_other_rules(&self) -> bool {
        self.strategy.starts_with("version 1") || self.strategy.starts_with("if ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            cost: 0.8,
            claims: 400,
            workers: 40,
            seed: 1,
        }
    }

    #[test]
    fn what_is_played_is_what_was_expected() {
        for outcome in report(rules()).strategies {
            let Some(expected) = outcome.expected else {
                continue;
            };
            let off = (outcome.played.unwrap() - expected).abs();
            let error = outcome.standard_error.unwrap();
            assert!(off <= 5.0 * error + 1e-9, "{outcome:?}: {off} off");
        }
    }

    #[test]
    fn no_lie_is_expected_to_bring_anything_and_none_is_better_than_computing() {
        for outcome in report(rules()).strategies {
            if outcome.has_other_rules() {
                continue;
            }
            assert!(outcome.expected.unwrap_or(0.0) <= 0.0, "{outcome:?}");
            assert!(
                outcome.gain_over_computing.unwrap_or(-1.0) < 0.0,
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn an_honest_worker_is_never_caught_and_has_what_it_computed() {
        let report = report(rules());
        let honest = &report.strategies[0];
        assert_eq!((honest.lied_msat, honest.played), (0, None));
        assert!(honest.caught_per_1000_claims == 0.0, "{honest:?}");
    }

    /// The game can be lost: it finds the holes of the rules that it is meant to find.
    #[test]
    fn lies_pay_under_the_rules_that_fell() {
        for broken in [
            "version 1: a long lie",
            "if samples were told",
            "if credit matured",
        ] {
            let report = report(rules());
            let mut rows = report.strategies.iter();
            let row = rows.find(|row| row.strategy.starts_with(broken)).unwrap();
            assert!(row.expected.unwrap() > 0.0, "{row:?}");
        }
    }

    #[test]
    fn the_same_seed_plays_the_same_game() {
        let played = || serde_json::to_string(&report(rules())).unwrap();
        assert_eq!(played(), played());
    }
}
