//! What moves in a simulated network, and what each wallet has noted of its attempts.

use std::collections::{HashMap, VecDeque};

use bitcoin::hashes::{Hash, sha256};

use super::faults::Fault;
use crate::invoice::parse_invoice;
use crate::protocol::{
    ATTEMPT_REUSED, FailureClass, HASH_IN_FLIGHT, Hash32, InvoicePayment, OfferPayment,
    PaymentStatus, Preimage, Refusal,
};

/// Invoices and offers that one network keeps; the demonstration makes a handful.
const INVOICES_MAX: usize = 100_000;
/// For how many blocks a payee may hold what it is paid: the least that the specification allows.
pub(super) const FINAL_CLTV: u16 = 18;

/// An invoice of one of the wallets.
pub(super) struct Invoice {
    wallet: usize,
    amount_msat: u64,
    preimage: [u8; 32],
    is_paid: bool,
}

impl Invoice {
    pub(super) fn new(wallet: usize, amount_msat: u64, preimage: [u8; 32]) -> Self {
        Self {
            wallet,
            amount_msat,
            preimage,
            is_paid: false,
        }
    }
}

/// What a wallet has noted of an attempt.
struct Note {
    /// What it was asked to pay: an invoice's hash, or the hash of an offer's text and the amount.
    purpose: [u8; 32],
    payment_hash: [u8; 32],
    status: PaymentStatus,
}

type AttemptKey = (usize, [u8; 32]);

/// All of it.
pub(super) struct Network {
    balances: Vec<u64>,
    invoices: HashMap<[u8; 32], Invoice>,
    offers: HashMap<String, usize>,
    /// By paying wallet and attempt.
    notes: HashMap<AttemptKey, Note>,
    /// The attempts of each payment hash, oldest first, by paying wallet.
    attempts: HashMap<(usize, [u8; 32]), Vec<[u8; 32]>>,
    pub(super) faults: HashMap<usize, VecDeque<Fault>>,
    /// The payment hashes of which a fault left something on its way, by paying wallet.
    on_the_way: HashMap<usize, Vec<[u8; 32]>>,
}

impl Network {
    pub(super) fn new(count: usize, balance_msat: u64) -> Self {
        Self {
            balances: vec![balance_msat; count],
            invoices: HashMap::new(),
            offers: HashMap::new(),
            notes: HashMap::new(),
            attempts: HashMap::new(),
            faults: HashMap::new(),
            on_the_way: HashMap::new(),
        }
    }

    pub(super) fn balance(&self, wallet: usize) -> u64 {
        self.balances[wallet]
    }

    pub(super) fn set_balance(&mut self, wallet: usize, balance_msat: u64) {
        self.balances[wallet] = balance_msat;
    }

    pub(super) fn add_invoice(&mut self, hash: [u8; 32], invoice: Invoice) -> Result<(), Refusal> {
        room(self.invoices.len())?;
        self.invoices.insert(hash, invoice);
        Ok(())
    }

    pub(super) fn add_offer(&mut self, offer: String, wallet: usize) -> Result<(), Refusal> {
        room(self.offers.len())?;
        self.offers.insert(offer, wallet);
        Ok(())
    }

    pub(super) fn is_paid(&self, hash: [u8; 32]) -> bool {
        self.invoices
            .get(&hash)
            .is_some_and(|invoice| invoice.is_paid)
    }

    pub(super) fn is_paid_to(&self, wallet: usize, hash: [u8; 32]) -> bool {
        let invoice = self.invoices.get(&hash);
        invoice.is_some_and(|invoice| invoice.is_paid && invoice.wallet == wallet)
    }

    pub(super) fn preimage(&self, wallet: usize, hash: [u8; 32]) -> Option<[u8; 32]> {
        let invoice = self.invoices.get(&hash)?;
        (invoice.is_paid && invoice.wallet == wallet).then_some(invoice.preimage)
    }

    pub(super) fn status(&self, payer: usize, attempt: [u8; 32]) -> PaymentStatus {
        let note = self.notes.get(&(payer, attempt));
        note.map_or(PaymentStatus::Unknown, |note| note.status)
    }

    /// How the attempt stands, if the wallet has heard of it.
    fn noted(
        &self,
        payer: usize,
        attempt: [u8; 32],
        purpose: [u8; 32],
    ) -> Result<Option<PaymentStatus>, Refusal> {
        match self.notes.get(&(payer, attempt)) {
            None => Ok(None),
            Some(note) if note.purpose == purpose => Ok(Some(note.status)),
            Some(_) => Err(Refusal::new(
                ATTEMPT_REUSED,
                "the attempt was made for another payment",
            )),
        }
    }

    pub(super) fn pay(
        &mut self,
        payer: usize,
        payment: &InvoicePayment,
    ) -> Result<PaymentStatus, Refusal> {
        let (attempt, hash) = (payment.attempt.0, payment.payment_hash.0);
        if let Some(status) = self.noted(payer, attempt, hash)? {
            return Ok(status);
        }
        let fault = self.next_fault(payer);
        if fault == Some(Fault::RefuseUnheard) {
            return Err(Refusal::new("storage", "the disk is full"));
        }
        let earlier = self.attempts.get(&(payer, hash)).into_iter().flatten();
        let in_flight = |attempt: &[u8; 32]| {
            !matches!(
                self.status(payer, *attempt),
                PaymentStatus::Failed { .. } | PaymentStatus::Unknown
            )
        };
        if earlier.copied().any(|attempt| in_flight(&attempt)) {
            return Err(Refusal::new(
                HASH_IN_FLIGHT,
                "an earlier attempt of this payment hash has no proven failure",
            ));
        }
        let refused = self.refusal(payer, payment, fault);
        self.dispatch(payer, attempt, (hash, hash), refused, fault)
    }

    pub(super) fn pay_offer(
        &mut self,
        payer: usize,
        payment: &OfferPayment,
    ) -> Result<PaymentStatus, Refusal> {
        let attempt = payment.attempt.0;
        let asked = format!("{} {}", payment.offer, payment.amount_msat);
        let purpose = sha256::Hash::hash(asked.as_bytes()).to_byte_array();
        if let Some(status) = self.noted(payer, attempt, purpose)? {
            return Ok(status);
        }
        let fault = self.next_fault(payer);
        if fault == Some(Fault::RefuseUnheard) {
            return Err(Refusal::new("storage", "the disk is full"));
        }
        // Each payment of an offer has an invoice of its own.
        let preimage: [u8; 32] = rand::random();
        let hash = sha256::Hash::hash(&preimage).to_byte_array();
        let refused = match self.offers.get(&payment.offer) {
            None => Some(FailureClass::Invalid),
            Some(payee) if *payee == payer => Some(FailureClass::Invalid),
            Some(payee) => {
                let invoice = Invoice::new(*payee, payment.amount_msat, preimage);
                self.add_invoice(hash, invoice)?;
                self.limits(payer, payment.amount_msat, payment.max_fee_msat, fault)
            }
        };
        self.dispatch(payer, attempt, (purpose, hash), refused, fault)
    }

    /// Why the invoice cannot be paid, if it cannot.
    fn refusal(
        &self,
        payer: usize,
        payment: &InvoicePayment,
        fault: Option<Fault>,
    ) -> Option<FailureClass> {
        let hash = payment.payment_hash.0;
        let Some(invoice) = self.invoices.get(&hash) else {
            return Some(FailureClass::NoRoute);
        };
        let amount = invoice.amount_msat;
        match parse_invoice(&payment.bolt11, bitcoin::Network::Regtest, amount) {
            Ok(parsed) if parsed.payment_hash == hash => {}
            Err(crate::InvoiceError::Expired) => return Some(FailureClass::Expired),
            _ => return Some(FailureClass::Invalid),
        }
        if invoice.wallet == payer {
            return Some(FailureClass::Invalid);
        }
        if invoice.is_paid {
            return Some(FailureClass::RefusedByPayee);
        }
        if payment.cltv_max < FINAL_CLTV {
            return Some(FailureClass::NoRoute);
        }
        self.limits(payer, amount, payment.max_fee_msat, fault)
    }

    fn limits(
        &self,
        payer: usize,
        amount_msat: u64,
        max_fee_msat: u64,
        fault: Option<Fault>,
    ) -> Option<FailureClass> {
        let fee_msat = fee_of(fault);
        match fault {
            Some(Fault::Fail(class)) => Some(class),
            _ if fee_msat > max_fee_msat => Some(FailureClass::FeeOverLimit),
            _ if self.balances[payer] < amount_msat.saturating_add(fee_msat) => {
                Some(FailureClass::NoLiquidity)
            }
            _ => None,
        }
    }

    /// Notes the attempt, and then does what it says or what the fault says.
    fn dispatch(
        &mut self,
        payer: usize,
        attempt: [u8; 32],
        (purpose, payment_hash): ([u8; 32], [u8; 32]),
        refused: Option<FailureClass>,
        fault: Option<Fault>,
    ) -> Result<PaymentStatus, Refusal> {
        let status = match (refused, fault) {
            (Some(class), _) => PaymentStatus::failed(class),
            (None, Some(Fault::Hold)) => PaymentStatus::Pending,
            (None, Some(Fault::FailFirst)) => PaymentStatus::failed(FailureClass::Other),
            (None, Some(Fault::Review)) => PaymentStatus::Review,
            (None, _) => self.settle(payer, payment_hash, fee_of(fault)),
        };
        let note = Note {
            purpose,
            payment_hash,
            status,
        };
        self.notes.insert((payer, attempt), note);
        let attempts = self.attempts.entry((payer, payment_hash)).or_default();
        attempts.push(attempt);
        if refused.is_none() && fault.is_some_and(Fault::leaves_on_the_way) {
            self.put_on_the_way(payer, payment_hash);
        }
        match fault {
            Some(Fault::PayAndRefuse) => {
                Err(Refusal::new("node", "an error while storing the payment"))
            }
            _ => Ok(status),
        }
    }

    /// Moves the money of an invoice, once.
    pub(super) fn settle(&mut self, payer: usize, hash: [u8; 32], fee_msat: u64) -> PaymentStatus {
        let Some(invoice) = self.invoices.get_mut(&hash) else {
            return PaymentStatus::failed(FailureClass::NoRoute);
        };
        if invoice.is_paid {
            return PaymentStatus::failed(FailureClass::RefusedByPayee);
        }
        let amount = invoice.amount_msat;
        let left = self.balances[payer].checked_sub(amount.saturating_add(fee_msat));
        let (Some(left), Some(sum)) = (left, self.balances[invoice.wallet].checked_add(amount))
        else {
            return PaymentStatus::failed(FailureClass::NoLiquidity);
        };
        invoice.is_paid = true;
        self.balances[payer] = left;
        self.balances[invoice.wallet] = sum;
        PaymentStatus::Succeeded {
            fee_msat,
            preimage: Preimage(invoice.preimage),
            payment_hash: Hash32(hash),
        }
    }

    /// The attempt of this hash that is under way, or else the newest: what the network says about the hash is about it.
    pub(super) fn current(&self, payer: usize, hash: [u8; 32]) -> Option<[u8; 32]> {
        let attempts = self.attempts.get(&(payer, hash))?;
        let is_pending =
            |attempt: &&[u8; 32]| self.status(payer, **attempt) == PaymentStatus::Pending;
        let pending = attempts.iter().find(is_pending);
        pending.or(attempts.last()).copied()
    }

    pub(super) fn hash_of(&self, payer: usize, attempt: [u8; 32]) -> Option<[u8; 32]> {
        let note = self.notes.get(&(payer, attempt))?;
        Some(note.payment_hash)
    }

    /// The network says how the attempt of this hash stands, also to a wallet that has forgotten it.
    pub(super) fn note(
        &mut self,
        payer: usize,
        attempt: [u8; 32],
        payment_hash: [u8; 32],
        status: PaymentStatus,
    ) {
        let forgotten = Note {
            purpose: payment_hash,
            payment_hash,
            status,
        };
        let note = self.notes.entry((payer, attempt)).or_insert(forgotten);
        note.status = status;
    }

    pub(super) fn forget(&mut self, payer: usize, attempt: [u8; 32]) {
        self.notes.remove(&(payer, attempt));
    }

    pub(super) fn put_on_the_way(&mut self, payer: usize, payment_hash: [u8; 32]) {
        let hashes = self.on_the_way.entry(payer).or_default();
        hashes.push(payment_hash);
    }

    pub(super) fn take_on_the_way(&mut self, payer: usize) -> Vec<[u8; 32]> {
        self.on_the_way.remove(&payer).unwrap_or_default()
    }

    fn next_fault(&mut self, payer: usize) -> Option<Fault> {
        self.faults.get_mut(&payer)?.pop_front()
    }
}

fn fee_of(fault: Option<Fault>) -> u64 {
    match fault {
        Some(Fault::Fee(fee_msat)) => fee_msat,
        _ => 0,
    }
}

fn room(kept: usize) -> Result<(), Refusal> {
    if kept < INVOICES_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        "full",
        "the simulated network keeps no more: start it anew",
    ))
}
