//! Rounds of the engine and of its peer in turn, and what they come to. What else a machine does hits both, so ratios
//! are of neighbours; the spread of the ratios is the noise.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::peer::{Lengths, Peer};
use super::report::report;

/// A model for both.
pub(super) struct Subject<'a> {
    pub(super) bench: &'a Path,
    pub(super) model: PathBuf,
    pub(super) peer: Option<(&'a Peer, PathBuf)>,
    pub(super) lengths: Lengths,
    pub(super) repeat: u32,
}

/// With one number of threads.
struct Rounds {
    threads: usize,
    ours: Vec<Value>,
    theirs: Vec<Value>,
}

impl Subject<'_> {
    /// Measures with one thread and with all. The figures are those of the number of threads with which each
    /// decodes fastest; `by_threads` has all of them.
    pub(super) fn measure(&self) -> anyhow::Result<Value> {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut counts = vec![1, all];
        counts.dedup();
        let rounds = |threads| Rounds {
            threads,
            ours: Vec::new(),
            theirs: Vec::new(),
        };
        let mut by_threads: Vec<Rounds> = counts.into_iter().map(rounds).collect();
        for _ in 0..self.repeat.max(1) {
            for rounds in &mut by_threads {
                rounds.ours.push(self.ours(rounds.threads)?);
                if let Some((peer, model)) = &self.peer {
                    let theirs = peer.measure(model, rounds.threads, self.lengths)?;
                    rounds.theirs.push(theirs);
                }
            }
        }
        Ok(summary(&by_threads))
    }

    fn ours(&self, threads: usize) -> anyhow::Result<Value> {
        let lengths = self.lengths;
        report(
            Command::new(self.bench)
                .args(["engine", "--repeat", "1", "--model"])
                .arg(&self.model)
                .args(["--threads", &threads.to_string()])
                .args(["--prefill", &lengths.prefill.to_string()])
                .args(["--prompt", &lengths.prompt.to_string()])
                .args(["--generate", &lengths.generate.to_string()]),
        )
    }
}

const DECODE: &str = "decode_tokens_per_s";
const PREFILL: &str = "prefill_tokens_per_s";

fn summary(by_threads: &[Rounds]) -> Value {
    let rows: Vec<Value> = by_threads.iter().map(row).collect();
    let best = |key: &str| {
        let known = rows.iter().filter(|row| row[key].is_f64());
        known.max_by(|a, b| figure(a, key).total_cmp(&figure(b, key)))
    };
    let Some(ours) = best(DECODE) else {
        return json!({ "by_threads": rows });
    };
    let mut report = ours.clone();
    report["prefill_tokens_per_s"] = best(PREFILL).map_or(Value::Null, |row| row[PREFILL].clone());
    for key in ["decode_ratio", "prefill_ratio"] {
        report.as_object_mut().map(|report| report.remove(key));
    }
    if let (Some(decode), Some(prefill)) = (best(&peers(DECODE)), best(&peers(PREFILL))) {
        let ratio = |key: &str, theirs: &Value| figure(&report, key) / figure(theirs, &peers(key));
        let (decode_ratio, prefill_ratio) = (ratio(DECODE, decode), ratio(PREFILL, prefill));
        report["peer_threads"] = decode["threads"].clone();
        report[peers(DECODE)] = decode[peers(DECODE)].clone();
        report[peers(PREFILL)] = prefill[peers(PREFILL)].clone();
        report["decode_ratio_vs_peer"] = json!(decode_ratio);
        report["prefill_ratio_vs_peer"] = json!(prefill_ratio);
    }
    report["by_threads"] = json!(rows);
    report
}

/// One number of threads: the best figures, and the ratios round by round.
fn row(rounds: &Rounds) -> Value {
    let mut row = rounds.ours.last().cloned().unwrap_or_default();
    row["threads"] = json!(rounds.threads);
    for key in [DECODE, PREFILL] {
        row[key] = json!(most(&rounds.ours, key));
    }
    row["replay_cost_ratio"] = json!(least(&rounds.ours, "replay_cost_ratio"));
    if let Some(theirs) = rounds.theirs.last() {
        row["peer"] = theirs["peer"].clone();
        row["peer_memory_bytes"] = theirs["memory_bytes"].clone();
        for key in [DECODE, PREFILL] {
            row[peers(key)] = json!(most(&rounds.theirs, key));
        }
        row["decode_ratio"] = ratios(rounds, DECODE);
        row["prefill_ratio"] = ratios(rounds, PREFILL);
    }
    row
}

/// The ratios of each round of ours to the peer's round after it.
fn ratios(rounds: &Rounds, key: &str) -> Value {
    let pairs = rounds.ours.iter().zip(&rounds.theirs);
    let mut ratios: Vec<f64> = pairs
        .map(|(ours, theirs)| figure(ours, key) / figure(theirs, key))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2);
    json!({ "median": median, "least": ratios.first(), "most": ratios.last() })
}

fn peers(key: &str) -> String {
    format!("peer_{key}")
}

fn figure(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

fn most(rows: &[Value], key: &str) -> f64 {
    let figures = rows.iter().map(|row| figure(row, key));
    figures.fold(f64::NAN, f64::max)
}

fn least(rows: &[Value], key: &str) -> f64 {
    let figures = rows.iter().map(|row| figure(row, key));
    figures.fold(f64::NAN, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(decode: f64, prefill: f64) -> Value {
        json!({ DECODE: decode, PREFILL: prefill, "replay_cost_ratio": 1.0 / decode, "peer": "p", "memory_bytes": 7 })
    }

    #[test]
    fn ratios_are_of_neighbours_and_the_summary_of_the_best() {
        let rounds = |threads, speed: f64| Rounds {
            threads,
            ours: vec![
                round(speed, 90.0),
                round(2.0 * speed, 80.0),
                round(speed, 70.0),
            ],
            theirs: vec![round(5.0, 100.0), round(20.0, 40.0), round(5.0, 70.0)],
        };
        let report = summary(&[rounds(1, 10.0), rounds(2, 15.0)]);
        assert_eq!(
            (&report["threads"], &report[DECODE]),
            (&json!(2), &json!(30.0))
        );
        assert_eq!(report["peer_decode_tokens_per_s"], json!(20.0));
        assert_eq!(report["decode_ratio_vs_peer"], json!(1.5));
        assert_eq!(report["prefill_ratio_vs_peer"], json!(0.9));
        let first = &report["by_threads"][0];
        assert_eq!(first["threads"], json!(1));
        assert_eq!(
            first["decode_ratio"],
            json!({ "median": 2.0, "least": 1.0, "most": 2.0 })
        );
        assert_eq!(first["prefill_ratio"]["least"], json!(0.9));
        assert_eq!(first["replay_cost_ratio"], json!(1.0 / 20.0));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let rounds = Rounds {
            threads: 1,
            ours: vec![round(10.0, 90.0)],
            theirs: Vec::new(),
        };
        let report = summary(&[rounds]);
        assert_eq!(report[DECODE], json!(10.0));
        assert!(report["decode_ratio_vs_peer"].is_null());
    }
}
