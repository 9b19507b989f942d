//! Times, and what they come to.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Times in microseconds; a share's wait is bounded by the run, far below the 71 minutes that 32 bits hold.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0
            .push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The middle one in milliseconds; nothing was measured: null.
    pub(crate) fn median_ms(mut self) -> Value {
        self.0.sort_unstable();
        json!(percentile(&self.0, 500).map(milliseconds))
    }

    /// Adds `<name>_p50_ms` and its like to a report; nothing was measured: null.
    pub(crate) fn report(mut self, name: &str, into: &mut Map<String, Value>) {
        self.0.sort_unstable();
        for (label, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999), ("max", 1000)] {
            let value = percentile(&self.0, per_mille).map(milliseconds);
            into.insert(format!("{name}_{label}_ms"), json!(value));
        }
    }
}

fn milliseconds(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1e3
}

/// The least of these sorted values that so many in a thousand do not exceed.
fn percentile(sorted: &[u32], per_mille: usize) -> Option<u32> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_value_that_so_many_do_not_exceed() {
        let sorted: Vec<u32> = (1..=1000).collect();
        assert_eq!(percentile(&sorted, 500), Some(500));
        assert_eq!(percentile(&sorted, 999), Some(999));
        assert_eq!(percentile(&sorted, 1000), Some(1000));
        assert_eq!(percentile(&[7], 1), Some(7));
        assert_eq!(percentile(&[1, 2, 3], 500), Some(2));
        assert_eq!(percentile(&[], 500), None);
    }

    #[test]
    fn times_are_reported_in_milliseconds() {
        let mut times = Times::default();
        times.push(Duration::from_micros(1_500));
        times.push(Duration::from_micros(500));
        let mut report = Map::new();
        times.report("ack", &mut report);
        assert_eq!(report["ack_p50_ms"], json!(0.5));
        assert_eq!(report["ack_max_ms"], json!(1.5));
        Times::default().report("none", &mut report);
        assert!(report["none_p50_ms"].is_null());
    }
}
