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
const CHANGES_PER_SHARE: f64 = 0.005;
/// The rate stays where it lies within the middle half of the belief.
const QUARTILES: [f64; 2] = [0.25, 0.75];
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
        let [low, high] = QUARTILES.map(|part| self.quantile(part));
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
mod tests {
    use super::*;
    use dovetail_units::SplitMix64;

    /// Devices take a job this long after it is sent.
    const JOB_DELAY_S: f64 = 0.3;
    /// No line carries shares closer together.
    const SHARE_GAP_S: f64 = 0.000_5;
    const TICK_S: f64 = 20.0;
    /// After a change there are two minutes to follow it.
    const SETTLED_S: f64 = 120.0;
    const END_S: f64 = 1_800.0;

    /// A device, and what happens to it.
    struct Story {
        name: &'static str,
        /// What it says of itself when it opens its channel, by what it does.
        stated: f64,
        /// What it does from these seconds on, by its usual rate.
        rates: &'static [(f64, f64)],
        /// Whether it takes a new job only every so often, as a client does that makes its own.
        job_interval_s: f64,
    }

    const fn story(name: &'static str, stated: f64, rates: &'static [(f64, f64)]) -> Story {
        Story {
            name,
            stated,
            rates,
            job_interval_s: 0.0,
        }
    }

    const STORIES: [Story; 13] = [
        story("steady", 1.0, &[(0.0, 1.0)]),
        story("says 0", 0.0, &[(0.0, 1.0)]),
        story("says 16 times as much", 16.0, &[(0.0, 1.0)]),
        story("says 1000 times as much", 1_000.0, &[(0.0, 1.0)]),
        story("rises by 2.5", 1.0, &[(0.0, 1.0), (600.0, 2.5)]),
        story("rises by 4", 1.0, &[(0.0, 1.0), (600.0, 4.0)]),
        story("rises by 1000", 1.0, &[(0.0, 1.0), (600.0, 1_000.0)]),
        story("drops by 2.5", 1.0, &[(0.0, 1.0), (600.0, 0.4)]),
        story("drops by 4", 1.0, &[(0.0, 1.0), (600.0, 0.25)]),
        story("drops by 30", 1.0, &[(0.0, 1.0), (600.0, 0.033)]),
        story("drops by 1000", 1.0, &[(0.0, 1.0), (600.0, 0.001)]),
        story(
            "is silent for a while",
            1.0,
            &[(0.0, 1.0), (600.0, 0.0), (1_200.0, 1.0)],
        ),
        Story {
            name: "takes a job every 30 seconds",
            stated: 4.0,
            rates: &[(0.0, 1.0), (600.0, 2.0), (1_200.0, 0.5)],
            job_interval_s: 30.0,
        },
    ];

    /// The parts of the time, from two minutes after each change on, in which shares were wanted more than 2 and more
    /// than 4 times as often or as seldom as the setting says.
    #[derive(Debug, Default, Clone, Copy)]
    struct Off {
        by_2: f64,
        by_4: f64,
    }

    /// The time from a seeded draw to the next event of this rate.
    fn wait(random: &mut SplitMix64, per_second: f64) -> f64 {
        let uniform = ((random.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / per_second
    }

    fn play(story: &Story, shares_per_minute: f64, device: f64, seed: u64) -> Off {
        let mut random = SplitMix64::new(seed);
        let seconds_per_share = 60.0 / shares_per_minute;
        let mut vardiff = Vardiff::new(shares_per_minute, device / 1e6, story.stated * device);
        let mut job = vardiff.rate() * seconds_per_share;
        // The newest job that is under way to the device.
        let mut sent: Option<(f64, f64)> = None;
        let (mut now, mut looked, mut tick, mut settled, mut off) =
            (0.0, 0.0, TICK_S, 0.0, Off::default());
        while now < END_S {
            let (since, part) = *story.rates.iter().rfind(|(from, _)| *from <= now).unwrap();
            let rate = part * device;
            let changes = story.rates.iter().map(|(from, _)| *from);
            let events = changes
                .chain([since + SETTLED_S, tick, END_S])
                .chain(sent.map(|(at, _)| at));
            let next = events.filter(|at| *at > now).fold(f64::MAX, f64::min);
            let share = now + wait(&mut random, rate / job).max(SHARE_GAP_S);
            let then = share.min(next);
            if now >= since + SETTLED_S && rate > 0.0 {
                let ratio = (rate / vardiff.rate()).max(vardiff.rate() / rate);
                settled += then - now;
                off.by_2 += if ratio > 2.0 { then - now } else { 0.0 };
                off.by_4 += if ratio > 4.0 { then - now } else { 0.0 };
            }
            now = then;
            if share <= next {
                vardiff.found(job);
            }
            if let Some((_, work)) = sent.take_if(|(at, _)| *at <= now) {
                job = work;
            }
            if share <= next || now >= tick {
                let elapsed = Duration::from_secs_f64(now - looked);
                looked = now;
                let work = vardiff.rate() * seconds_per_share;
                if vardiff.passed(elapsed, work) {
                    let at = match story.job_interval_s {
                        0.0 => now + JOB_DELAY_S,
                        every => ((now / every).floor() + 1.0) * every,
                    };
                    sent = Some((at, vardiff.rate() * seconds_per_share));
                }
            }
            if now >= tick {
                tick += TICK_S;
            }
        }
        Off {
            by_2: off.by_2 / settled,
            by_4: off.by_4 / settled,
        }
    }

    fn mean(story: &Story, shares_per_minute: f64, device: f64, runs: u64) -> Off {
        let sum = (0..runs).fold(Off::default(), |sum, seed| {
            let off = play(story, shares_per_minute, device, seed);
            Off {
                by_2: sum.by_2 + off.by_2,
                by_4: sum.by_4 + off.by_4,
            }
        });
        Off {
            by_2: sum.by_2 / runs as f64,
            by_4: sum.by_4 / runs as f64,
        }
    }

    /// With six shares a minute two minutes hold twelve, and a quarter more or less is chance. So the bound is one of
    /// time: from two minutes after whatever happens on, the target is within a factor of 2 for 94 % of it and within 4
    /// for 99 % (98 % and 99.8 % over all stories). With 30 a minute it is 99.5 % and 99.9 %.
    #[test]
    fn shares_come_as_often_as_they_should_two_minutes_after_whatever_a_device_does() {
        let devices = [1e6, 1e9, 1e12, 1e15];
        let (mut all, mut count) = (Off::default(), 0.0);
        for story in &STORIES {
            for device in devices {
                let off = mean(story, 6.0, device, 40);
                assert!(
                    off.by_2 < 0.06 && off.by_4 < 0.01,
                    "{} {device:e}: {off:?}",
                    story.name
                );
                (all.by_2, all.by_4, count) =
                    (all.by_2 + off.by_2, all.by_4 + off.by_4, count + 1.0);
                if story.job_interval_s == 0.0 {
                    let off = mean(story, 30.0, device, 10);
                    assert!(
                        off.by_2 < 0.005 && off.by_4 < 0.001,
                        "{} {device:e}: {off:?}",
                        story.name
                    );
                }
            }
        }
        assert!(
            all.by_2 / count < 0.02 && all.by_4 / count < 0.002,
            "{all:?} / {count}"
        );
    }

    /// One second of a device at this rate.
    fn second(vardiff: &mut Vardiff, rate: f64) -> bool {
        let work = vardiff.rate() * 10.0;
        vardiff.found(rate);
        vardiff.passed(Duration::from_secs(1), work)
    }

    #[test]
    fn a_client_makes_its_shares_harder_at_once_and_easier_only_as_far_as_it_proves_no_more() {
        let mut vardiff = Vardiff::new(6.0, 1e3, 1e6);
        assert!(vardiff.state(1e9));
        assert_eq!(vardiff.rate(), 1e9);
        assert!(vardiff.state(1e6));
        assert_eq!(vardiff.rate(), 1e6);
        // It does 1e9: the flood ends within seconds, whatever it says meanwhile.
        let seconds = (0..60).find(|_| {
            second(&mut vardiff, 1e9);
            vardiff.state(1e6);
            (5e8..2e9).contains(&vardiff.rate())
        });
        assert!(seconds.is_some_and(|seconds| seconds < 15), "{seconds:?}");
        let easy = (0..600).filter(|_| {
            second(&mut vardiff, 1e9);
            vardiff.state(1e6);
            vardiff.rate() < 3e8
        });
        // It is believed once in two minutes, for some seconds each.
        assert!((1..60).contains(&easy.count()));
    }

    #[test]
    fn shares_of_jobs_with_an_older_target_count_by_their_work() {
        let mut vardiff = Vardiff::new(6.0, 1e3, 1e6);
        // The client was told to make shares a hundred times as hard, and still hashes its old job at 1e6.
        for _ in 0..120 {
            vardiff.found(1e6);
            vardiff.passed(Duration::from_secs(1), 1e9);
        }
        assert!((5e5..2e6).contains(&vardiff.rate()), "{}", vardiff.rate());
    }

    #[test]
    fn it_never_assumes_less_than_the_floor_and_takes_no_number_that_is_no_rate() {
        let mut vardiff = Vardiff::new(6.0, 1e3, 0.0);
        for _ in 0..1_000 {
            vardiff.passed(Duration::from_secs(20), vardiff.rate() * 10.0);
        }
        assert_eq!(vardiff.rate(), 1e3);
        for nominal in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            assert_eq!(stated_rate(nominal), None);
        }
        assert_eq!(stated_rate(0.0), Some(0.0));
        // More than any device does.
        let mut vardiff = Vardiff::new(6.0, 1e-3, f64::from(f32::MAX));
        assert!(vardiff.rate().is_finite());
        vardiff.passed(Duration::from_secs(3_600), 1.0);
        assert!(vardiff.rate().is_finite());
    }
}
