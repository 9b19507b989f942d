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
/// How often the target is looked at, to compare runs.
const SAMPLE_S: f64 = 30.0;

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

/// One run of a story.
struct Run {
    off: Off,
    /// By how many octaves the device was faster than its target was for, every so often from two minutes after each
    /// change on.
    samples: Vec<f64>,
}

fn play(story: &Story, shares_per_minute: f64, device: f64, seed: u64) -> Run {
    let mut random = SplitMix64::new(seed);
    let seconds_per_share = 60.0 / shares_per_minute;
    let mut vardiff = Vardiff::new(shares_per_minute, device / 1e6, story.stated * device);
    let mut job = vardiff.rate() * seconds_per_share;
    // The newest job that is under way to the device.
    let mut sent: Option<(f64, f64)> = None;
    let (mut now, mut looked, mut tick, mut settled, mut off) =
        (0.0, 0.0, TICK_S, 0.0, Off::default());
    let (mut sample, mut samples) = (0.0, Vec::new());
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
        while sample < then {
            if sample >= since + SETTLED_S && rate > 0.0 {
                samples.push((rate / vardiff.rate()).log2());
            }
            sample += SAMPLE_S;
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
    Run {
        off: Off {
            by_2: off.by_2 / settled,
            by_4: off.by_4 / settled,
        },
        samples,
    }
}

/// How long after the last change each sample of a story is taken.
fn moments(story: &Story) -> Vec<f64> {
    let times = (0..).map(|number| f64::from(number) * SAMPLE_S);
    let mut since = Vec::new();
    for time in times.take_while(|time| *time < END_S) {
        let (change, part) = *story.rates.iter().rfind(|(from, _)| *from <= time).unwrap();
        if time >= change + SETTLED_S && part > 0.0 {
            since.push(time - change);
        }
    }
    since
}

fn runs(story: &Story, shares_per_minute: f64, device: f64, count: u64) -> Vec<Run> {
    let seeds = 0..count;
    seeds
        .map(|seed| play(story, shares_per_minute, device, seed))
        .collect()
}

fn mean(runs: &[Run]) -> Off {
    let count = runs.len() as f64;
    Off {
        by_2: runs.iter().map(|run| run.off.by_2).sum::<f64>() / count,
        by_4: runs.iter().map(|run| run.off.by_4).sum::<f64>() / count,
    }
}

/// Of all runs at each moment the lowest, the median and the highest, without the outermost 5 % at either end.
fn spread(runs: &[Run]) -> Vec<[f64; 3]> {
    let moments = runs[0].samples.len();
    let at = |moment: usize| {
        let mut sorted: Vec<f64> = runs.iter().map(|run| run.samples[moment]).collect();
        sorted.sort_by(f64::total_cmp);
        let outer = runs.len() / 20;
        [outer, runs.len() / 2, runs.len() - 1 - outer].map(|rank| sorted[rank])
    };
    (0..moments).map(at).collect()
}

/// With six shares a minute two minutes hold twelve, and a third more or less is chance. So nothing can hold for every
/// device at every moment, and the bounds are those of chance, from two minutes after whatever happens on:
/// - of all runs at a moment, the median is within a factor of 2; a minute later, nine tenths are within 4;
/// - of a device's time, the target is within a factor of 2 for 94 %, and within 4 for 99 % (98 % and 99.7 % over all
///   stories). With 30 shares a minute it is 99 % and 99.8 %.
///
/// docs/pool.md says so to operators.
#[test]
fn shares_come_as_often_as_they_should_two_minutes_after_whatever_a_device_does() {
    let devices = [1e6, 1e9, 1e12, 1e15];
    let (mut all, mut count) = (Off::default(), 0.0);
    for story in &STORIES {
        for device in devices {
            let played = runs(story, 6.0, device, 40);
            for ([low, median, high], since) in spread(&played).into_iter().zip(moments(story)) {
                let tails = since < SETTLED_S + 60.0 || (low > -2.0 && high < 2.0);
                assert!(
                    median.abs() < 1.0 && tails,
                    "{} {device:e}, {since} s after a change: {low} {median} {high}",
                    story.name
                );
            }
            let off = mean(&played);
            assert!(
                off.by_2 < 0.06 && off.by_4 < 0.01,
                "{} {device:e}: {off:?}",
                story.name
            );
            (all.by_2, all.by_4, count) = (all.by_2 + off.by_2, all.by_4 + off.by_4, count + 1.0);
            if story.job_interval_s == 0.0 {
                let off = mean(&runs(story, 30.0, device, 10));
                assert!(
                    off.by_2 < 0.01 && off.by_4 < 0.002,
                    "{} {device:e}: {off:?}",
                    story.name
                );
            }
        }
    }
    assert!(
        all.by_2 / count < 0.02 && all.by_4 / count < 0.003,
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

/// The queue to the ledger has room for 64 shares of a connection: the target has risen before it is full.
#[test]
fn a_flood_raises_the_target_within_some_dozens_of_shares() {
    for factor in [10.0, 1e3, 1e6, 1e9] {
        let mut vardiff = Vardiff::new(6.0, 1e3, 0.0);
        let device = 1e3 * factor;
        let mut shares = 0;
        while vardiff.rate() < device / 4.0 {
            let work = vardiff.rate() * 10.0;
            vardiff.found(work);
            vardiff.passed(Duration::from_secs_f64(work / device), work);
            shares += 1;
            assert!(shares < 64, "{factor:e}: {shares}, {:e}", vardiff.rate());
        }
        assert!(vardiff.rate() < 4.0 * device);
    }
}
