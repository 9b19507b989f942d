//! The payouts that pools announced: one invoice for each, in bounds, and what the wallet says of it. A pool's word that
//! it paid is a reason to look, and no more.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use dovetail_lightning::Client;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    Bytes, INVOICE_BYTES_MAX, InvoiceError, PayoutResult, RequestInvoice,
};
use tokio::task::JoinSet;

use super::{INVOICE_EXPIRY_S, PayoutInvoice, make_invoice};

/// Invoices that are made for a pool in a minute. The wallet keeps each for ever.
const INVOICES_PER_MINUTE_MAX: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);
/// Payouts of a pool that are under way. It has one at a time, and another when that has failed.
const UNDER_WAY_MAX: usize = 16;
/// How often the wallet is asked for an invoice that nobody says is paid.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a payout that the pool calls failed may still arrive.
const FAILED_TIME: Duration = Duration::from_secs(600);
/// What a pool may say of one payout: that it failed, and that it arrived after all. Each word is a question to the
/// wallet.
const WORDS_MAX: u32 = 4;
/// How long a payout is remembered: its invoice can be paid until it expires, and a payment takes its time.
const KNOWN_TIME: Duration = Duration::from_secs(INVOICE_EXPIRY_S as u64 + 300);

/// A pool's place in the list, and its id of the payout.
type Key = (usize, [u8; 32]);

/// Payouts of all pools.
#[derive(Debug)]
pub struct Payouts {
    wallet: Option<Client>,
    /// The amounts that an invoice is made for.
    amounts_msat: RangeInclusive<u64>,
    /// Bounded by the invoices of a minute and the time that each is known.
    known: BTreeMap<Key, Payout>,
    /// When invoices were asked of the wallet, within the last minute, and for which pool.
    asked: VecDeque<(usize, Instant)>,
    answers: JoinSet<(Key, WalletAnswer)>,
}

#[derive(Debug)]
struct Payout {
    amount_msat: u64,
    /// `None` while it is being made.
    invoice: Option<PayoutInvoice>,
    is_paid: bool,
    /// Whether the wallet is being asked whether it was paid, and when it is asked next.
    is_checked: bool,
    check_at: Instant,
    /// Whether the pool said last that it paid, and how often it has said something.
    is_called_paid: bool,
    words: u32,
    forget_at: Instant,
}

#[derive(Debug)]
enum WalletAnswer {
    Made(Result<PayoutInvoice, String>),
    Paid(bool),
}

/// What comes of a payout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayoutEvent {
    /// The invoice for a pool, by its place in the list.
    Invoice(usize, MadeInvoice),
    /// There is none.
    Refused(usize, InvoiceError),
    /// The wallet has this amount, in millisatoshi.
    Paid(u64),
}

/// An invoice that the wallet made for a payout, for the worker to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeInvoice {
    /// The payout.
    pub payout_id: [u8; 32],
    /// The BOLT11 string.
    pub bolt11: Bytes<INVOICE_BYTES_MAX>,
    /// What it is for.
    pub payment_hash: [u8; 32],
}

impl Payouts {
    /// None known yet. Without a wallet there are no invoices.
    pub fn new(wallet: Option<Client>, amounts_msat: RangeInclusive<u64>) -> Self {
        Self {
            wallet,
            amounts_msat,
            known: BTreeMap::new(),
            asked: VecDeque::new(),
            answers: JoinSet::new(),
        }
    }

    /// A pool wants to pay. The answer, unless an invoice has to be made first.
    pub fn requested(
        &mut self,
        pool: usize,
        request: &RequestInvoice,
        now: Instant,
    ) -> Option<PayoutEvent> {
        let key = (pool, request.payout_id);
        let refused = |reason| {
            tracing::warn!(payout = %hex::encode(request.payout_id), msat = request.amount_msat, reason, "no invoice for the pool's payout");
            Some(refusal(key))
        };
        if let Some(known) = self.known.get(&key) {
            return match &known.invoice {
                _ if known.amount_msat != request.amount_msat => refused("it had another amount"),
                _ if known.is_paid => refused("it is paid"),
                Some(invoice) => Some(offer(key, invoice)),
                None => None,
            };
        }
        let Some(wallet) = self.wallet.clone() else {
            return refused("no wallet is configured");
        };
        if !self.amounts_msat.contains(&request.amount_msat) {
            return refused("the amount is out of the configured range");
        }
        self.asked
            .retain(|(_, at)| now.saturating_duration_since(*at) < MINUTE);
        let recent = self.asked.iter().filter(|(by, _)| *by == pool).count();
        if recent >= INVOICES_PER_MINUTE_MAX {
            return refused("the pool asks too often");
        }
        let of_pool = self.known.range((pool, [0; 32])..=(pool, [0xff; 32]));
        if of_pool.filter(|(_, payout)| !payout.is_paid).count() >= UNDER_WAY_MAX {
            return refused("too many payouts are under way");
        }
        self.asked.push_back((pool, now));
        let payout = Payout {
            amount_msat: request.amount_msat,
            invoice: None,
            is_paid: false,
            is_checked: false,
            check_at: now + CHECK_INTERVAL,
            is_called_paid: false,
            words: 0,
            forget_at: now + KNOWN_TIME,
        };
        self.known.insert(key, payout);
        let amount_msat = request.amount_msat;
        let made = async move { WalletAnswer::Made(make_invoice(wallet, amount_msat).await) };
        self.answers.spawn(async move { (key, made.await) });
        None
    }

    /// A pool says how a payout ended. Whether there is such a payout, and this may be news of it.
    pub fn ended(&mut self, pool: usize, result: &PayoutResult, now: Instant) -> bool {
        let payout = self.known.get_mut(&(pool, result.payout_id));
        let Some(payout) = payout.filter(|payout| !payout.is_paid && payout.invoice.is_some())
        else {
            return false;
        };
        if payout.words >= WORDS_MAX {
            return false;
        }
        payout.words += 1;
        payout.is_called_paid = result.paid;
        if !result.paid {
            payout.forget_at = payout.forget_at.min(now + FAILED_TIME);
        }
        payout.check_at = now;
        self.look(now);
        true
    }

    /// Asks the wallet for those whose time has come, and forgets those that cannot be paid any more.
    pub fn look(&mut self, now: Instant) {
        self.known.retain(|_, payout| now < payout.forget_at);
        let Some(wallet) = &self.wallet else {
            return;
        };
        for (key, payout) in &mut self.known {
            let Some(invoice) = &payout.invoice else {
                continue;
            };
            if payout.is_paid || payout.is_checked || now < payout.check_at {
                continue;
            }
            payout.is_checked = true;
            payout.check_at = now + CHECK_INTERVAL;
            let (key, wallet, hash) = (*key, wallet.clone(), invoice.payment_hash);
            self.answers.spawn(async move {
                let paid = wallet.invoice_paid(hash).await;
                let paid = paid.inspect_err(|error| {
                    tracing::warn!(payout = %hex::encode(key.1), %error, "the wallet does not say whether a payout came in");
                });
                (key, WalletAnswer::Paid(paid.unwrap_or(false)))
            });
        }
    }

    /// What comes next of the wallet's answers; it may be nothing that concerns anybody. Cancellation-safe.
    pub async fn next(&mut self) -> Option<PayoutEvent> {
        let Some(answered) = self.answers.join_next().await else {
            return std::future::pending().await;
        };
        // A task that panicked leaves its payout without an answer, and its time runs out.
        let (key, answer) = answered.ok()?;
        match answer {
            WalletAnswer::Made(made) => self.made(key, made, Instant::now()),
            WalletAnswer::Paid(is_paid) => self.checked(key, is_paid),
        }
    }

    fn made(
        &mut self,
        key: Key,
        made: Result<PayoutInvoice, String>,
        now: Instant,
    ) -> Option<PayoutEvent> {
        match made {
            Ok(invoice) => {
                let payout = self.known.get_mut(&key)?;
                let answer = offer(key, &invoice);
                payout.invoice = Some(invoice);
                payout.check_at = now + CHECK_INTERVAL;
                Some(answer)
            }
            Err(reason) => {
                tracing::warn!(payout = %hex::encode(key.1), reason, "no invoice for the pool's payout");
                self.known.remove(&key);
                Some(refusal(key))
            }
        }
    }

    fn checked(&mut self, key: Key, is_paid: bool) -> Option<PayoutEvent> {
        let payout = self.known.get_mut(&key)?;
        payout.is_checked = false;
        let name = hex::encode(key.1);
        if !is_paid {
            if payout.is_called_paid {
                tracing::warn!(payout = %name, msat = payout.amount_msat, "the pool says that it paid, and the wallet has nothing");
            }
            return None;
        }
        payout.is_paid = true;
        tracing::info!(payout = %name, msat = payout.amount_msat, "a payout came in");
        Some(PayoutEvent::Paid(payout.amount_msat))
    }
}

fn offer((pool, payout_id): Key, invoice: &PayoutInvoice) -> PayoutEvent {
    let bolt11 = Bytes(invoice.bolt11.clone().into_bytes());
    let made = MadeInvoice {
        payout_id,
        bolt11,
        payment_hash: invoice.payment_hash,
    };
    PayoutEvent::Invoice(pool, made)
}

fn refusal((pool, payout_id): Key) -> PayoutEvent {
    let code = Code::Internal.to_string();
    PayoutEvent::Refused(pool, InvoiceError { payout_id, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u8, amount_msat: u64) -> RequestInvoice {
        RequestInvoice {
            payout_id: [number; 32],
            amount_msat,
        }
    }

    fn away() -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("wallet.sock"));
        (folder, client)
    }

    fn invoice(number: u8) -> PayoutInvoice {
        PayoutInvoice {
            bolt11: format!("lnbcrt{number}"),
            payment_hash: [number; 32],
        }
    }

    #[tokio::test]
    async fn without_a_wallet_that_answers_the_payout_gets_a_refusal_and_no_silence() {
        let now = Instant::now();
        let refused = |event| matches!(event, Some(PayoutEvent::Refused(2, error)) if error.payout_id == [1; 32]);
        let mut payouts = Payouts::new(None, 1..=9_000);
        assert!(refused(payouts.requested(2, &request(1, 5_000), now)));
        let (_folder, gone) = away();
        let mut payouts = Payouts::new(Some(gone), 1..=9_000);
        assert_eq!(payouts.requested(2, &request(1, 5_000), now), None);
        assert!(refused(payouts.next().await));
    }

    #[tokio::test]
    async fn pools_do_not_share_their_payouts_nor_their_bounds() {
        let (_folder, wallet) = away();
        let mut payouts = Payouts::new(Some(wallet), 1..=9_000);
        let now = Instant::now();
        let is_made = |event: Option<PayoutEvent>| event.is_none();
        for number in 0..12 {
            assert!(is_made(payouts.requested(0, &request(number, 5_000), now)));
        }
        assert!(!is_made(payouts.requested(0, &request(12, 5_000), now)));
        assert!(is_made(payouts.requested(1, &request(3, 6_000), now)));
        assert!(is_made(payouts.requested(
            0,
            &request(12, 5_000),
            now + MINUTE
        )));
    }

    #[tokio::test]
    async fn payouts_that_never_come_in_are_few_and_forgotten_in_the_end() {
        let (_folder, wallet) = away();
        let mut payouts = Payouts::new(Some(wallet), 1..=9_000);
        let mut now = Instant::now();
        for number in 0..16 {
            now += MINUTE;
            assert_eq!(payouts.requested(0, &request(number, 5_000), now), None);
            payouts.made((0, [number; 32]), Ok(invoice(number)), now);
        }
        now += MINUTE;
        assert!(payouts.requested(0, &request(16, 5_000), now).is_some());
        // One that came in makes room.
        let paid = payouts.checked((0, [3; 32]), true);
        assert_eq!(paid, Some(PayoutEvent::Paid(5_000)));
        assert_eq!(payouts.requested(0, &request(16, 5_000), now), None);
        payouts.look(now + KNOWN_TIME);
        assert!(payouts.known.is_empty());
    }
}
