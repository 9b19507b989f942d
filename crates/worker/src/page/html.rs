//! The page as HTML. It reloads itself; there is no script.

use std::fmt::Write;

use dovetail_miner::stats::{Templates, Upstream};

use super::Status;
use crate::stats::PoolStats;

/// The style sheet.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}
.key{font:12px ui-monospace,monospace;overflow-wrap:anywhere;opacity:.7}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem;margin-top:1.5rem}
section{border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:.5rem;padding:.75rem 1rem}
h2{font-size:.85rem;margin:0 0 .5rem;text-transform:uppercase;letter-spacing:.05em;opacity:.7}
table{width:100%;border-collapse:collapse}
th{text-align:left;font-weight:normal;overflow-wrap:anywhere}
td{text-align:right;font-variant-numeric:tabular-nums}
";

/// The whole page.
pub(super) fn page(status: &Status) -> String {
    let mut sections = String::new();
    section(&mut sections, "Now", &now(status));
    section(&mut sections, "Models", &models(status));
    section(&mut sections, "Tasks", &tasks(status));
    section(&mut sections, "Shares", &shares(status));
    section(&mut sections, "Earned", &earned(status));
    for pool in &status.pools {
        let title = format!("Work for {}", pool.address);
        section(&mut sections, &title, &work(&pool.stats));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>dovetail-worker</title>\
         <link rel=\"stylesheet\" href=\"/page.css\"></head><body>\
         <h1>dovetail-worker {version}</h1><div class=\"key\">{worker}</div>\
         <div class=\"grid\">{sections}</div></body></html>\n",
        version = escaped(status.version),
        worker = escaped(&status.worker),
    )
}

type Rows = Vec<(String, String)>;

fn row(label: &str, value: impl ToString) -> (String, String) {
    (label.to_owned(), value.to_string())
}

fn now(status: &Status) -> Rows {
    let upstream = match &status.upstream {
        Upstream::None => "nobody: no pool can be reached".to_owned(),
        Upstream::Solo => "nobody else (solo): no pool can be reached".to_owned(),
        Upstream::Pool { address } => format!("the pool {address}"),
    };
    let templates = match &status.templates {
        None => "none".to_owned(),
        Some(Templates::Pool) => "the pool".to_owned(),
        Some(Templates::Own) => "this worker's own node".to_owned(),
        Some(Templates::FallenBack { reason }) => format!("the pool, for now: {reason}"),
    };
    vec![
        row("working for", upstream),
        row("templates from", templates),
        row("hash rate of devices", hash_rate(status.hash_rate)),
        row("tokens a second", format!("{:.1}", status.token_rate)),
        row("devices", status.devices.connections),
        row("channels", status.devices.channels),
        row("running for", duration(status.uptime_s)),
    ]
}

fn models(status: &Status) -> Rows {
    let models = status.models.iter();
    models.map(|model| row(&model.name, &model.state)).collect()
}

fn tasks(status: &Status) -> Rows {
    vec![
        row("open", status.tasks.open),
        row("finished", status.tasks.finished),
        row("failed or cancelled", status.tasks.failed),
        row("tokens", status.tasks.tokens),
    ]
}

fn shares(status: &Status) -> Rows {
    let mut rows = vec![
        row("credited", status.shares.accepted),
        row("unanswered", status.shares.unanswered),
        row("lost with a connection", status.shares.lost),
    ];
    let refused = status.shares.refused.iter();
    rows.extend(refused.map(|(code, count)| row(&format!("refused: {code}"), count)));
    rows
}

fn earned(status: &Status) -> Rows {
    let earned = &status.earned;
    vec![
        row("hashing: difficulty credited", earned.hash_difficulty),
        row("inference: batches credited", earned.inference_batches),
        row("inference: tokens credited", earned.inference_tokens),
        row("inference: credited, in sat", sat(earned.inference_msat)),
        row(
            "inference: not matured yet, in sat",
            sat(earned.inference_held_msat),
        ),
        row(
            "inference: batches refused",
            earned.inference_batches_refused,
        ),
        row(
            "inference: batches accepted without a word on their audit",
            earned.inference_batches_unexplained,
        ),
        row("solo: blocks", earned.solo_blocks),
        row("paid out, in sat", sat(earned.paid_msat)),
    ]
}

fn work(pool: &PoolStats) -> Rows {
    let taken = match pool.gets_work {
        true => "yes",
        false => "no: it owes credit for too many tokens",
    };
    vec![
        row("tokens generated", pool.tokens_generated),
        row("tokens credited", pool.tokens_credited),
        row("tokens overdue", pool.tokens_overdue),
        row("tasks are taken", taken),
        row("outcomes of claims that nobody made", pool.outcomes_ignored),
    ]
}

/// Millisatoshi as satoshi.
fn sat(msat: u64) -> String {
    format!("{}.{:03}", msat / 1_000, msat % 1_000)
}

fn section(out: &mut String, title: &str, rows: &Rows) {
    let _ = write!(out, "<section><h2>{}</h2><table>", escaped(title));
    for (label, value) in rows {
        let (label, value) = (escaped(label), escaped(value));
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{label}</th><td>{value}</td></tr>"
        );
    }
    out.push_str("</table></section>");
}

/// Text as it stands in HTML: pools choose some of it.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

/// A hash rate with a unit that keeps it short.
fn hash_rate(rate: f64) -> String {
    let mut rate = rate;
    for unit in ["h/s", "kh/s", "Mh/s", "Gh/s", "Th/s"] {
        if rate < 1000.0 {
            return format!("{rate:.1} {unit}");
        }
        rate /= 1000.0;
    }
    format!("{rate:.1} Ph/s")
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, hours) => format!("{hours} h {minutes} min"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        assert_eq!(hash_rate(0.0), "0.0 h/s");
        assert_eq!(hash_rate(12_345_678.0), "12.3 Mh/s");
        assert_eq!(hash_rate(2.5e18), "2500.0 Ph/s");
        assert_eq!(sat(1_002_003), "1002.003");
        assert_eq!(sat(u64::MAX), "18446744073709551.615");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(90_000), "1 d 1 h");
    }

    #[test]
    fn what_pools_say_is_text_and_no_markup() {
        assert_eq!(escaped("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
    }
}
