//! What an account has stated of where and when it is paid, for `dovetail-pool account`.

use dovetail_ledger::{DestinationRecord, Destinations};
use dovetail_units::time::unix_now;
use serde::Serialize;

/// What holds, and what will.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stated {
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<Terms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Terms>,
}

#[derive(Debug, Serialize)]
struct Terms {
    kind: &'static str,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold_msat: Option<i64>,
    schedule: String,
    made_unix: u64,
    active_from_unix: u64,
}

impl Terms {
    fn new(record: &DestinationRecord) -> Self {
        Self {
            kind: record.pay_to.kind().name(),
            destination: record.pay_to.value().to_owned(),
            fallback: record.fallback.clone(),
            threshold_msat: record.threshold.map(|msat| msat.get()),
            schedule: record.schedule.to_string(),
            made_unix: record.made_unix,
            active_from_unix: record.active_from_unix,
        }
    }

    fn text(&self) -> String {
        let threshold = self
            .threshold_msat
            .map_or_else(String::new, |msat| format!(", from {msat} msat on"));
        let fallback = self
            .fallback
            .as_ref()
            .map_or_else(String::new, |address| format!(", else to {address}"));
        format!(
            "{} to {} ({}){threshold}{fallback}",
            self.schedule, self.destination, self.kind
        )
    }
}

impl Stated {
    pub(crate) fn new(stated: &Destinations) -> Self {
        Self {
            active: stated.active.as_ref().map(Terms::new),
            pending: stated.pending.as_ref().map(Terms::new),
        }
    }

    /// A line for each.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(active) = &self.active {
            text += &format!("  stated: paid {}\n", active.text());
        }
        if let Some(pending) = &self.pending {
            let wait = pending.active_from_unix.saturating_sub(unix_now());
            text += &format!("  stated: in {wait} s paid {}\n", pending.text());
        }
        text
    }
}
