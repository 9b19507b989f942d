//! When what is due: an open loop's plan, which no answer changes, and the thread that keeps it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// The most that one run plans: a bound on its memory.
const PLANNED_MAX: f64 = 50e6;
/// The pacer sleeps at least this long: at high rates it wakes for several at once rather than for each.
const NAP: Duration = Duration::from_micros(100);

/// Evenly spaced moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    begin: Instant,
    rate: f64,
    count: u64,
}

impl Schedule {
    /// `rate` a second for `time`.
    ///
    /// # Errors
    /// A rate that is none, or more moments than a run may have.
    pub(crate) fn new(begin: Instant, rate: f64, time: Duration) -> anyhow::Result<Self> {
        ensure!(
            rate.is_finite() && rate > 0.0,
            "a rate is a positive number, not {rate}"
        );
        let count = (rate * time.as_secs_f64()).ceil();
        ensure!(
            count <= PLANNED_MAX,
            "{count} are more than a run may plan ({PLANNED_MAX})"
        );
        Ok(Self {
            begin,
            rate,
            count: count as u64,
        })
    }

    /// When the one of this number is due.
    fn due(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many are due before a moment.
    pub(crate) fn before(&self, moment: Instant) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.due(middle) < moment {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Calls `due` with each number and its moment, at that moment or as soon after it as the system lets us, on a
    /// thread of its own: the runtime's timer knows whole milliseconds only. Ends early when `due` says that nobody listens.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn keep(
        self,
        mut due: impl FnMut(u64, Instant) -> bool + Send + 'static,
    ) -> anyhow::Result<thread::JoinHandle<()>> {
        let pace = move || {
            for number in 0..self.count {
                let planned = self.due(number);
                let wait = planned.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    thread::sleep(wait.max(NAP));
                }
                if !due(number, planned) {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(pace)
            .context("cannot start the pacer's thread")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn moments_are_evenly_spaced_and_do_not_drift() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, 3.0, Duration::from_secs(10)).unwrap();
        assert_eq!(schedule.count, 30);
        assert_eq!(schedule.due(0), begin);
        assert_eq!(schedule.due(3), begin + Duration::from_secs(1));
        assert_eq!(schedule.due(30_000), begin + Duration::from_secs(10_000));
        let before = |seconds| schedule.before(begin + Duration::from_secs(seconds));
        assert_eq!(
            [before(0), before(1), before(2), before(100)],
            [0, 3, 6, 30]
        );
    }

    #[test]
    fn a_rate_is_positive_and_a_plan_is_bounded() {
        let begin = Instant::now();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Schedule::new(begin, rate, Duration::from_secs(1)).is_err());
        }
    }

    #[test]
    fn what_is_due_is_told_by_its_planned_moment_although_it_is_told_late() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, 1_000.0, Duration::from_millis(5)).unwrap();
        let (sender, told) = mpsc::channel();
        let slow = move |number, planned| {
            thread::sleep(Duration::from_millis(2));
            sender.send((number, planned)).is_ok()
        };
        schedule.keep(slow).unwrap().join().unwrap();
        let told: Vec<_> = told.iter().collect();
        let planned: Vec<_> = (0..5)
            .map(|number| (number, begin + Duration::from_millis(number)))
            .collect();
        assert_eq!(told, planned);
    }

    #[test]
    fn the_pacer_ends_when_nobody_listens() {
        let schedule = Schedule::new(Instant::now(), 1.0, Duration::from_secs(1_000)).unwrap();
        schedule.keep(|_, _| false).unwrap().join().unwrap();
    }
}
