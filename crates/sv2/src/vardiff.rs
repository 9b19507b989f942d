//! How hard a channel's shares should be: a belief of its hash rate, from the work that its shares prove.
//!
//! Pure arithmetic without a clock: whoever owns the channel says how much time has passed. What counts is work, each
//! share by the target that it was found at, so shares of older jobs are no surprise after a change of target.
//!
//! The belief is a distribution over rates half an octave apart. Time and shares sharpen it by Bayes' rule (shares of
//! a steady hash rate are a Poisson process); between them it widens, since devices join, leave and stop. The rate
//! changes only where the present one has become unlikely. What this achieves is stated and tested below.

use std::time::Duration;

use dovetail_units::header::is_hash_rate;

/// Steps of the belief within a doubling of the rate, and how many there are: 64 doublings.
const STEPS_PER_OCTAVE: f64 = 2.0;
const STEPS: usize = 128;
/// How far a rate may be from what a client says, or from what it was before a change: the mean of an exponential
/// distribution in octaves, to either side.
const SPREAD_OCTAVES: f64 = 2.0;
/// How often the rate changes out of the blue, per share that is expected at the wanted rate of shares.
const CHANGES_PER_SHARE: f64 = 0.02;
/// The rate stays where it lies within the middle of the belief.
const MIDDLE: [f64; 2] = [0.3, 0.7];
/// The belief is reconsidered after this time ..
const INTERVAL_S: f64 = 15.0;
/// .. or after this many shares' worth of work, so that a flood raises the target at once.
const SHARES_AT_ONCE: f64 = 8.0;
/// How much higher than the present rate one reconsideration may find the work to be. A burst out of a network's queue
/// looks like a rate without limit.
const RISE_MAX: f64 = 64.0;
/// A client is believed that it has become slower once in this time. Otherwise it could undo what its shares prove, and
/// stay at easy shares.
const SLOWER_INTERVAL_S: f64 = 120.0;

/// The hash rate that a client states (Sv2 specification, sections 5.3.2 and 5.3.7), if it is one: finite and not
/// negative. 0 is legal, and says nothing.
pub fn stated_rate(nominal: f32) -> Option<f64> {
    is_hash_rate(nominal).then(|| f64::from(nominal))
}

/// One channel's hash rate as far as it is known, for its target.
#[derive(Debug, Clone)]
pub struct Vardiff {
    seconds_per_share: f64,
    rate_min: f64,
    rate: f64,
    /// How likely each rate is; the sum is 1.
    belief: Box<[f64; STEPS]>,
    /// Time and work since the belief was reconsidered.
    elapsed_s: f64,
    found: f64,
    /// Time since the client was believed that it is slower.
    since_slower_s: f64,
}

impl Vardiff {
    /// Of a channel whose client states a rate in h/s; 0 says nothing. Shares are wanted at `shares_per_minute`, and less
    /// than `rate_min`, which is positive, is never assumed.
    pub fn new(shares_per_minute: f64, rate_min: f64, stated: f64) -> Self {
        let mut vardiff = Self {
            seconds_per_share: 60.0 / shares_per_minute,
            rate_min,
            rate: rate_min,
            belief: Box::new([0.0; STEPS]),
            elapsed_s: 0.0,
            found: 0.0,
            since_slower_s: SLOWER_INTERVAL_S,
        };
        vardiff.begin(stated);
        vardiff
    }

    /// The rate that the channel's target should be for, in h/s.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The client states a rate. More than is known is taken at once: it asks for harder shares. Less is taken now and
    /// then only, and for as long as no shares prove more. Whether it was taken.
    pub fn state(&mut self, stated: f64) -> bool {
        let stated = stated.max(self.rate_min);
        if stated < self.rate {
            if self.since_slower_s < SLOWER_INTERVAL_S {
                return false;
            }
            self.since_slower_s = 0.0;
        }
        self.begin(stated);
        true
    }

    /// A share came in, of this many expected hashes: those of the target that it was found at.
    pub fn found(&mut self, work: f64) {
        self.found += work;
    }

    /// Time has passed, in which shares of `share_work` expected hashes were looked for. To be called after every share
    /// and now and then. Whether the rate changed.
    pub fn passed(&mut self, elapsed: Duration, share_work: f64) -> bool {
        let elapsed_s = elapsed.as_secs_f64();
        self.elapsed_s += elapsed_s;
        self.since_slower_s += elapsed_s;
        let share_work = share_work.max(1.0);
        if self.elapsed_s < INTERVAL_S && self.found < SHARES_AT_ONCE * share_work {
            return false;
        }
        let elapsed_min_s = SHARES_AT_ONCE * self.seconds_per_share / RISE_MAX;
        let elapsed_s = self.elapsed_s.max(elapsed_min_s);
        self.widen(elapsed_s / self.seconds_per_share);
        self.sharpen(elapsed_s / share_work, self.found / share_work);
        self.elapsed_s = 0.0;
        self.found = 0.0;
        let [low, high] = MIDDLE.map(|part| self.quantile(part));
        if (low..=high).contains(&self.rate) {
            return false;
        }
        let before = self.rate;
        self.rate = self.quantile(0.5).max(self.rate_min);
        self.rate != before
    }

    /// Begins anew from what is stated.
    fn begin(&mut self, stated: f64) {
        self.rate = stated.max(self.rate_min);
        self.elapsed_s = 0.0;
        self.found = 0.0;
        let centre = (self.rate / self.rate_min).log2() * STEPS_PER_OCTAVE;
        let decay = decay();
        for (step, likely) in self.belief.iter_mut().enumerate() {
            *likely = decay.powf((step as f64 - centre).abs());
        }
        self.normalise();
    }

    /// The rate may have changed in a time in which so many shares were expected.
    fn widen(&mut self, shares_expected: f64) {
        let changed = -(-shares_expected * CHANGES_PER_SHARE).exp_m1();
        let decay = decay();
        let all = (1.0 + decay) / (1.0 - decay);
        let mut spread = [0.0; STEPS];
        let mut reached = 0.0;
        for (likely, spread) in self.belief.iter().zip(&mut spread) {
            reached = reached * decay + likely;
            *spread = reached;
        }
        reached = 0.0;
        for (likely, spread) in self.belief.iter_mut().zip(&mut spread).rev() {
            *spread += reached * decay;
            reached = reached * decay + *likely;
            *likely = (1.0 - changed) * *likely + changed * *spread / all;
        }
        self.normalise();
    }

    /// Bayes' rule for `shares` that came in `time` (seconds for each hash that a share takes).
    fn sharpen(&mut self, time: f64, shares: f64) {
        let logs: [f64; STEPS] = std::array::from_fn(|step| {
            let expected = self.rate_at(step as f64) * time;
            shares * expected.ln() - expected
        });
        let most = logs.iter().copied().fold(f64::MIN, f64::max);
        for (likely, log) in self.belief.iter_mut().zip(logs) {
            *likely *= (log - most).exp();
        }
        self.normalise();
    }

    /// The rate below which it lies with this probability.
    fn quantile(&self, part: f64) -> f64 {
        let mut sum = 0.0;
        for (step, likely) in self.belief.iter().enumerate() {
            if sum + likely >= part {
                return self.rate_at(step as f64 - 0.5 + (part - sum) / likely);
            }
            sum += likely;
        }
        self.rate_at(STEPS as f64)
    }

    fn rate_at(&self, step: f64) -> f64 {
        self.rate_min * (step / STEPS_PER_OCTAVE).exp2()
    }

    /// Makes the sum 1. No rate is ever ruled out, or no evidence could bring it back.
    fn normalise(&mut self) {
        let sum: f64 = self.belief.iter().sum();
        for likely in self.belief.iter_mut() {
            *likely = (*likely / sum).max(f64::MIN_POSITIVE);
        }
    }
}

/// How much less likely a rate is one step further away.
fn decay() -> f64 {
    (-1.0 / (SPREAD_OCTAVES * STEPS_PER_OCTAVE)).exp()
}

#[cfg(test)]
mod tests;
