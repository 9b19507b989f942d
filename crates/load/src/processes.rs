//! What the processes under load take, from /proc: processor time of a whole tree, and memory.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

/// Ticks of a second in /proc/*/stat: the kernel's interface fixes it (`USER_HZ`) on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process is quiet that takes at most this much processor time (two ticks) ..
const QUIET_CPU_S: f64 = 0.021;
/// .. in this time, so many times one after the other.
const QUIET_INTERVAL: Duration = Duration::from_millis(500);
const QUIET_TIMES: u32 = 2;

/// A process that is watched with all its children, and what it is called in the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').unwrap_or(("server", text));
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
        let pid = pid.parse().ok().filter(|pid| *pid > 0);
        match (named, pid) {
            (true, Some(pid)) => Ok(Self {
                name: name.to_owned(),
                pid,
            }),
            _ => Err("a process is PID or name=PID".to_owned()),
        }
    }
}

/// A process as `/proc/<pid>/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own ticks, and those of the children that have ended and that it has waited for.
    ticks: u64,
}

impl Stat {
    /// Of a line of /proc/*/stat. The name in parentheses may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The third field of the line is the first here: parent is the 4th, utime to cstime are 14th to 17th.
        let ticks = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>());
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: ticks.sum::<Result<u64, _>>().ok()?,
        })
    }
}

/// Seconds of processor time so far: of each watched process with its children, those that have ended among them, and ours.
#[derive(Debug, Clone)]
pub(crate) struct CpuTime {
    watched: Vec<(String, f64)>,
    own: f64,
}

impl CpuTime {
    /// Of all watched processes.
    fn all(&self) -> f64 {
        self.watched.iter().map(|(_, seconds)| seconds).sum()
    }

    /// # Errors
    /// A process that is not there.
    pub(crate) fn now(watched: &[Watched]) -> anyhow::Result<Self> {
        let stats = stats()?;
        let mut times = Vec::with_capacity(watched.len());
        for process in watched {
            ensure!(
                stats.contains_key(&process.pid),
                "there is no process {} ({})",
                process.pid,
                process.name
            );
            times.push((process.name.clone(), seconds(&stats, process.pid)));
        }
        let own = stats.get(&std::process::id());
        Ok(Self {
            watched: times,
            own: own.map_or(0.0, |own| own.ticks as f64 / TICKS_PER_SECOND),
        })
    }

    /// Adds what has passed since to a report: `cpu_s` by name, `cpu_us_per_<what>` by name and in all, `<what>s_per_core_s`,
    /// and the generator's own.
    ///
    /// # Errors
    /// A process that has ended.
    pub(crate) fn report(
        &self,
        watched: &[Watched],
        what: &str,
        count: u64,
        into: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let now = Self::now(watched)?;
        let each = |seconds: f64| (count > 0).then(|| seconds * 1e6 / count as f64);
        let (mut by_name, mut per_one) = (Map::new(), Map::new());
        let mut all = 0.0;
        for ((name, before), (_, after)) in self.watched.iter().zip(&now.watched) {
            let taken = after - before;
            all += taken;
            by_name.insert(name.clone(), json!(taken));
            per_one.insert(name.clone(), json!(each(taken)));
        }
        if !self.watched.is_empty() {
            per_one.insert("all".to_owned(), json!(each(all)));
            let per_core_s = (all > 0.0).then(|| count as f64 / all);
            into.insert(format!("{what}s_per_core_s"), json!(per_core_s));
        }
        into.insert("cpu_s".to_owned(), Value::Object(by_name));
        into.insert(format!("cpu_us_per_{what}"), Value::Object(per_one));
        let own = now.own - self.own;
        into.insert("generator_cpu_s".to_owned(), json!(own));
        into.insert(format!("generator_cpu_us_per_{what}"), json!(each(own)));
        Ok(())
    }
}

/// Waits until the watched processes have nothing more to do, or for `time_max`; how long that took.
///
/// # Errors
/// A process that has ended.
pub(crate) async fn settle(watched: &[Watched], time_max: Duration) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut before = CpuTime::now(watched)?;
    let mut quiet = 0;
    while !watched.is_empty() && quiet < QUIET_TIMES && begin.elapsed() < time_max {
        tokio::time::sleep(QUIET_INTERVAL).await;
        let now = CpuTime::now(watched)?;
        let is_quiet = now.all() - before.all() <= QUIET_CPU_S;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(begin.elapsed())
}

/// Every process of the machine.
fn stats() -> anyhow::Result<HashMap<u32, Stat>> {
    let entries = fs::read_dir("/proc").context("there is no /proc")?;
    let pids = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids
        .filter_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, Stat::parse(&line)?))
        })
        .collect())
}

/// Of a process and all below it. What a child took is in its parent's account once that has waited for it.
fn seconds(stats: &HashMap<u32, Stat>, root: u32) -> f64 {
    let mut tree = HashSet::from([root]);
    let mut below = vec![root];
    while let Some(parent) = below.pop() {
        let children = stats.iter().filter(|(_, stat)| stat.parent == parent);
        for (child, _) in children {
            if tree.insert(*child) {
                below.push(*child);
            }
        }
    }
    let ticks: u64 = tree
        .iter()
        .filter_map(|pid| stats.get(pid))
        .map(|stat| stat.ticks)
        .sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// The resident memory of the first watched process in bytes; `None` where none is watched.
///
/// # Errors
/// A process that has ended.
pub(crate) fn rss_bytes(watched: &[Watched]) -> anyhow::Result<Option<u64>> {
    let Some(process) = watched.first() else {
        return Ok(None);
    };
    let path = format!("/proc/{}/status", process.pid);
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    resident(&status)
        .with_context(|| format!("{path} names no VmRSS"))
        .map(Some)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A rate over a time; null where there was none.
pub(crate) fn per_second(count: u64, time: Duration) -> Value {
    let seconds = time.as_secs_f64();
    json!((seconds > 0.0).then(|| count as f64 / seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_number_with_or_without_a_name() {
        let watched = |name: &str, pid| {
            Ok(Watched {
                name: name.to_owned(),
                pid,
            })
        };
        assert_eq!("12".parse(), watched("server", 12));
        assert_eq!("postgres=3".parse(), watched("postgres", 3));
        for bad in ["", "0", "=3", "a=", "a=b", "A=3", "-1"] {
            assert!(bad.parse::<Watched>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stat_line_is_read_behind_a_name_that_holds_anything() {
        let line = "42 (a) b) (c) S 7 1 1 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 9 0 5 6 7";
        let expected = Stat {
            parent: 7,
            ticks: 127,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn a_trees_time_is_that_of_all_below_its_root() {
        let stat = |parent, ticks| Stat { parent, ticks };
        let stats = HashMap::from([
            (1, stat(0, 1_000)),
            (5, stat(1, 100)),
            (6, stat(5, 50)),
            (7, stat(6, 25)),
            (8, stat(1, 1_000)),
        ]);
        assert!((seconds(&stats, 5) - 1.75).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_taken_time_and_memory() {
        let us = [Watched {
            name: "server".to_owned(),
            pid: std::process::id(),
        }];
        assert!(rss_bytes(&us).unwrap().unwrap() > 100_000);
        assert_eq!(rss_bytes(&[]).unwrap(), None);
        let before = CpuTime::now(&us).unwrap();
        let mut report = Map::new();
        before.report(&us, "share", 4, &mut report).unwrap();
        assert!(report["cpu_s"]["server"].as_f64().unwrap() >= 0.0);
        assert!(report["cpu_us_per_share"]["all"].is_f64());
    }

    #[test]
    fn resident_memory_is_read_from_the_status_file() {
        assert_eq!(resident("Name: x\nVmRSS:\t  12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("Name: x\n"), None);
    }
}
