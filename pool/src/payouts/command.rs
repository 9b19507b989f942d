//! `dovetail-pool payouts`: what is known of payouts, and an operator's word about those that nobody else can decide. Also
//! how a payee stands, for `dovetail-pool account`.

use anyhow::{Context, bail, ensure};
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use dovetail_ledger::{AttemptRecord, PayeeStanding, PayoutRecord, Rail, Success};
use dovetail_units::time::unix_now;
use serde::Serialize;

use super::destination::{Pays, destination_class};
use crate::config::Config;
use crate::records;

/// How a payee stands: why it has not been paid, and when it is tried next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    /// What is on its way to it.
    under_way_msat: Option<i64>,
    /// How often in a row it could not be paid.
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_unix: Option<u64>,
}

impl Waiting {
    pub(crate) fn new(
        payee: &str,
        standing: &PayeeStanding,
        open: Option<PayoutRecord>,
        pays: Pays,
    ) -> Self {
        let no_destination = match standing.has_stated {
            true => None,
            false => destination_class(payee, pays).map(str::to_owned),
        };
        let has_failed = standing.tries > 0 && no_destination.is_none();
        Self {
            under_way_msat: open.map(|open| open.amount.get()),
            tries: standing.tries,
            next_try_unix: has_failed.then_some(standing.next_try_unix),
            failure_class: no_destination.or_else(|| standing.failure_class.clone()),
        }
    }

    pub(crate) fn text(&self) -> String {
        let class = self.failure_class.as_deref().unwrap_or("none");
        match (self.under_way_msat, self.next_try_unix) {
            (None, None) if self.failure_class.is_some() => {
                format!("payouts: none is possible ({class})")
            }
            (under_way, Some(next)) => {
                let under_way = match under_way {
                    Some(msat) => format!("{msat} msat are being paid, "),
                    None => String::new(),
                };
                let wait = next.saturating_sub(unix_now());
                let tries = self.tries;
                format!(
                    "payouts: {under_way}{tries} tries failed ({class}), the next is in {wait} s"
                )
            }
            // The payee's money is set aside, and something keeps the pool from sending it.
            (Some(msat), None) if self.failure_class.is_some() => {
                format!("payouts: {msat} msat wait to be paid ({class})")
            }
            (Some(msat), None) => format!("payouts: {msat} msat are being paid"),
            (None, None) => "payouts: nothing has failed".to_owned(),
        }
    }
}

/// A payout for people and programs. Neither its invoice nor its proof is shown.
#[derive(Debug, Serialize)]
struct Payout {
    payout: String,
    account: String,
    amount_msat: i64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_class: Option<String>,
    began_unix: u64,
    payee: Waiting,
    attempts: Vec<Attempt>,
}

#[derive(Debug, Serialize)]
struct Attempt {
    attempt: String,
    rail: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_hash: Option<String>,
    /// The transaction on the chain, as explorers print it.
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_class: Option<String>,
    fee_max_msat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_msat: Option<i64>,
    prepared_unix: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_unix: Option<u64>,
    invoice_ends_unix: u64,
}

impl Payout {
    fn new(record: PayoutRecord, pays: Pays) -> Self {
        Self {
            payout: hex::encode(record.id),
            amount_msat: record.amount.get(),
            state: record.state.name(),
            failure_class: record.failure_class.clone(),
            began_unix: record.unix,
            payee: Waiting::new(&record.payee, &record.standing, None, pays),
            attempts: record.attempts.iter().map(Attempt::new).collect(),
            account: record.payee,
        }
    }

    fn text(&self) -> String {
        let ago = |unix: u64| unix_now().saturating_sub(unix);
        let class = |class: &Option<String>| {
            class
                .as_ref()
                .map_or_else(String::new, |class| format!(" ({class})"))
        };
        let mut text = format!(
            "{}: {} msat to {}, {}{}, began {} s ago; {}\n",
            self.payout,
            self.amount_msat,
            self.account,
            self.state,
            class(&self.failure_class),
            ago(self.began_unix),
            self.payee.text(),
        );
        for attempt in &self.attempts {
            text += &format!(
                "  attempt {}: {}{} by {}, prepared {} s ago, fee {} of at most {} msat, {}\n",
                attempt.attempt,
                attempt.state,
                class(&attempt.failure_class),
                attempt.rail,
                ago(attempt.prepared_unix),
                attempt
                    .fee_msat
                    .map_or("unknown".to_owned(), |fee| fee.to_string()),
                attempt.fee_max_msat,
                attempt.proves(),
            );
        }
        text
    }
}

impl Attempt {
    /// What a proof of it is about.
    fn proves(&self) -> String {
        match (&self.txid, &self.payment_hash) {
            (Some(txid), _) => format!("transaction {txid}"),
            (None, _) if self.rail == Rail::Onchain.name() => "no transaction yet".to_owned(),
            (None, Some(hash)) => format!("payment hash {hash}"),
            (None, None) => "payment hash unknown".to_owned(),
        }
    }

    fn new(record: &AttemptRecord) -> Self {
        Self {
            attempt: hex::encode(record.id),
            rail: record.rail.name(),
            payment_hash: record.payment_hash.map(hex::encode),
            txid: record
                .txid
                .map(|txid| Txid::from_byte_array(txid).to_string()),
            state: record.state.name(),
            failure_class: record.failure_class.clone(),
            fee_max_msat: record.fee_max.get(),
            fee_msat: record.fee.map(|fee| fee.get()),
            prepared_unix: record.unix,
            ended_unix: record.ended_unix,
            invoice_ends_unix: record.expires_unix,
        }
    }
}

/// Prints payouts, newest first: those under way or in review, or all of them; as one JSON object per line, or for people.
/// Only reads the ledger, so it may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_payouts(
    config: &Config,
    account: Option<String>,
    all: bool,
    json: bool,
    limit: u32,
) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let found = ledger
        .payout_records(account.as_deref(), !all, limit)
        .await
        .context("cannot read the payouts: has this pool's database been migrated?")?;
    let pays = Pays::of(config);
    let found = found.into_iter().map(|record| Payout::new(record, pays));
    let found: Vec<Payout> = found.collect();
    records::print(&found, json, Payout::text, "no payout is under way")
}

/// Books what an operator has found about a payout in review: paid, with this preimage, or not paid. The pool may run
/// beside.
///
/// # Errors
/// If the payout is not in review, or the preimage is not that of its payment hash.
pub async fn resolve_payout(
    config: &Config,
    payout: &str,
    preimage: Option<String>,
) -> anyhow::Result<()> {
    let id = parse_32(payout).context("the payout is named by 64 hexadecimal digits")?;
    let ledger = records::connect(config).await?;
    let Some(preimage) = preimage else {
        ledger.decide_failed(id).await?;
        println!("booked as failed: the pool tries it again, or gives the money back");
        return Ok(());
    };
    let preimage = parse_32(&preimage).context("a preimage has 64 hexadecimal digits")?;
    let hash_is_known = ledger.knows_hash_in_review(id).await?;
    match ledger.decide_paid(id, preimage).await? {
        Success::Paid => println!("booked as paid"),
        Success::Late { from_balance, loss } => {
            println!(
                "booked as paid late: {from_balance} from the payee's balance, {loss} as a loss"
            );
        }
        Success::Known => {
            bail!("another attempt of this payout had paid already: nothing is booked")
        }
    }
    if !hash_is_known {
        println!(
            "the payment hash of an offer was not known: the preimage could be held against nothing"
        );
    }
    Ok(())
}

fn parse_32(hex_digits: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = hex::decode(hex_digits)?;
    ensure!(bytes.len() == 32, "it has {} bytes", bytes.len());
    let mut array = [0; 32];
    array.copy_from_slice(&bytes);
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payee_sees_why_it_is_not_paid_and_when_it_is_tried_next() {
        let failed = PayeeStanding {
            tries: 3,
            failure_class: Some("no_route".to_owned()),
            next_try_unix: unix_now() + 80,
            has_stated: false,
        };
        let pays = Pays {
            lightning_addresses: true,
            onchain: false,
        };
        let key = "ab".repeat(32);
        let text = Waiting::new(&key, &failed, None, pays).text();
        assert!(
            text.contains("3 tries failed (no_route), the next is in "),
            "{text}"
        );
        let plain = Waiting::new("some-miner", &PayeeStanding::default(), None, pays);
        assert_eq!(plain.failure_class.as_deref(), Some("no_destination"));
        assert_eq!(plain.next_try_unix, None);
        let stated = PayeeStanding {
            has_stated: true,
            ..PayeeStanding::default()
        };
        let stated = Waiting::new("some-miner", &stated, None, pays);
        assert_eq!(stated.failure_class, None);
        let paid = Waiting::new(&key, &PayeeStanding::default(), None, pays);
        assert_eq!(paid.text(), "payouts: nothing has failed");
        let address = "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw";
        let class = |onchain| {
            let standing = PayeeStanding::default();
            Waiting::new(address, &standing, None, Pays { onchain, ..pays }).failure_class
        };
        assert_eq!(class(true), None);
        assert_eq!(class(false).as_deref(), Some("no_destination"));
    }
}
