//! What is to be expected, computed.

use super::Rules;
use super::play::Strategy;

/// The chance that a sample of `q` of `n` leaves misses all `bad` ones: C(n - bad, q) / C(n, q), the
/// hypergeometric distribution at 0 (Feller, An Introduction to Probability Theory and Its Applications,
/// vol. 1, II.6).
pub(crate) fn survives(n: usize, bad: usize, q: usize) -> f64 {
    (0..q)
        .map(|drawn| n.saturating_sub(bad + drawn) as f64 / (n - drawn) as f64)
        .product()
}

/// Profit per batch over a worker's life.
pub(crate) fn profit(rules: &Rules, strategy: Strategy, bad_leaves: usize) -> f64 {
    let honest = 1.0 - rules.cost;
    let rate = bad_leaves as f64 / rules.leaves as f64;
    let spent = (1.0 - rate) * rules.cost;
    match strategy {
        Strategy::Honest => honest,
        // A new worker is replayed whole: every such batch is caught, and nothing is held yet.
        Strategy::FromTheStart | Strategy::FreshKeys => -spent,
        Strategy::OnceTrusted | Strategy::SampleKnown | Strategy::Withheld => {
            let blind = survives(rules.leaves, bad_leaves, rules.replayed_at_the_floor());
            let passes = match strategy {
                Strategy::SampleKnown => 1.0 - (1.0 - blind).powf(f64::from(rules.shares)),
                _ => blind,
            };
            cycles(rules, passes, spent) / f64::from(rules.batches)
        }
    }
}

/// The profit of a life that is honest until trusted, then lies until caught, and begins again. Worked
/// out from the last batch backwards.
fn cycles(rules: &Rules, passes: f64, spent: f64) -> f64 {
    let honest_batches = rules.batches_to_trust() as usize;
    let honest = 1.0 - rules.cost;
    // Credit is held of the last batches, all of them honest or passed; the honest ones alone fill it.
    let held = rules.collateral_batches.min(honest_batches) as f64;
    let batches = rules.batches as usize;
    // By how many batches are left: of a worker that lies, and of one that has no trust.
    let (mut lying, mut starting) = (vec![0.0; batches + 1], vec![0.0; batches + 1]);
    for left in 1..=batches {
        let goes_on = 1.0 - spent + lying[left - 1];
        let is_caught = -spent - held + starting[left - 1];
        lying[left] = passes * goes_on + (1.0 - passes) * is_caught;
        let before = honest_batches.min(left);
        starting[left] = before as f64 * honest + lying[left - before];
    }
    starting[batches]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_to_be_missed_is_hypergeometric() {
        assert!((survives(64, 1, 4) - 60.0 / 64.0).abs() < 1e-12);
        assert!((survives(5, 2, 2) - 3.0 / 10.0).abs() < 1e-12);
        assert!(survives(64, 61, 4).abs() < 1e-12);
        assert!((survives(64, 0, 4) - 1.0).abs() < 1e-12);
        assert!(survives(1, 1, 1).abs() < 1e-12);
    }
}
