//! A network of two nodes: balances, invoices with real preimages, and each node's own list of what it paid. A node takes no
//! second payment of a hash that is on its way or has arrived, as both kinds of real nodes do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use dovetail_lightning::{Hash32, Preimage};
use dovetail_units::time::unix_now;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::Notify;

/// What each node begins with.
pub(crate) const BALANCE_MSAT: u64 = 1_000_000_000;
/// What a route costs.
pub(crate) const FEE_MSAT: u64 = 7;

/// What goes wrong with the next command that pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before the node has read anything.
    NotHeard,
    /// The node does nothing and says nothing.
    Silent,
    /// It pays and says nothing.
    PaidAndSilent,
    /// It pays, and the answer breaks off.
    PaidAndCut,
    /// It does nothing and answers with junk.
    Junk,
    /// It pays after this time, whoever still listens.
    PaidLater(Duration),
    /// It answers that it is paid, with another preimage.
    WrongProof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Pending,
    Complete(Preimage),
    Failed,
}

/// Why a node does not pay, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoInvoice,
    Expired,
    InFlight,
    AlreadyPaid,
    FeeTooLow,
}

#[derive(Debug, Clone)]
struct Issued {
    payee: usize,
    amount_msat: u64,
    preimage: [u8; 32],
    expires_unix: u64,
    is_paid: bool,
}

#[derive(Default)]
struct State {
    balances: [u64; 2],
    issued: HashMap<Hash32, Issued>,
    /// Invoices of both kinds, by their text.
    texts: HashMap<String, Hash32>,
    offers: HashMap<String, usize>,
    lists: [HashMap<Hash32, Standing>; 2],
    is_held: bool,
    fault: Option<Fault>,
    /// How often each hash was paid.
    moved: HashMap<Hash32, u32>,
    /// The list answers with this in place of the truth.
    lie: Option<&'static str>,
}

/// Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Network {
    pub(crate) fn new() -> Self {
        let state = State {
            balances: [BALANCE_MSAT; 2],
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn balance(&self, node: usize) -> u64 {
        self.state().balances[node]
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub(crate) fn take_fault(&self) -> Option<Fault> {
        self.state().fault.take()
    }

    pub(crate) fn set_lie(&self, lie: Option<&'static str>) {
        self.state().lie = lie;
    }

    pub(crate) fn lie(&self) -> Option<&'static str> {
        self.state().lie
    }

    pub(crate) fn times_moved(&self, hash: Hash32) -> u32 {
        self.state().moved.get(&hash).copied().unwrap_or(0)
    }

    pub(crate) fn invoice(
        &self,
        payee: usize,
        amount_msat: u64,
        expiry_s: u64,
    ) -> (String, Hash32) {
        let hash = self.issue(payee, amount_msat, expiry_s);
        let key = SecretKey::from_slice(&[payee as u8 + 1; 32]).unwrap();
        let text = InvoiceBuilder::new(Currency::Regtest)
            .description("payout".to_owned())
            .payment_hash(sha256::Hash::from_byte_array(hash.0))
            .payment_secret(PaymentSecret(rand::random()))
            .current_timestamp()
            .expiry_time(Duration::from_secs(expiry_s))
            .min_final_cltv_expiry_delta(18)
            .amount_milli_satoshis(amount_msat)
            .build_signed(|message| SECP256K1.sign_ecdsa_recoverable(message, &key))
            .unwrap()
            .to_string();
        self.state().texts.insert(text.clone(), hash);
        (text, hash)
    }

    fn issue(&self, payee: usize, amount_msat: u64, expiry_s: u64) -> Hash32 {
        let preimage: [u8; 32] = rand::random();
        let hash = Hash32(sha256::Hash::hash(&preimage).to_byte_array());
        let issued = Issued {
            payee,
            amount_msat,
            preimage,
            expires_unix: unix_now() + expiry_s,
            is_paid: false,
        };
        self.state().issued.insert(hash, issued);
        hash
    }

    pub(crate) fn offer(&self, payee: usize) -> String {
        let offer = format!("lno1{}", hex::encode(rand::random::<[u8; 20]>()));
        self.state().offers.insert(offer.clone(), payee);
        offer
    }

    /// The answer to an offer.
    pub(crate) fn bolt12(&self, offer: &str, amount_msat: u64) -> Option<String> {
        let payee = *self.state().offers.get(offer)?;
        let hash = self.issue(payee, amount_msat, 7_200);
        let text = format!("lni1{}", hex::encode(hash.0));
        self.state().texts.insert(text.clone(), hash);
        Some(text)
    }

    pub(crate) fn decode(&self, text: &str) -> Option<(Hash32, u64)> {
        let state = self.state();
        let hash = state.texts.get(text)?;
        Some((*hash, state.issued[hash].amount_msat))
    }

    pub(crate) fn amount(&self, hash: Hash32) -> u64 {
        self.state().issued[&hash].amount_msat
    }

    pub(crate) fn is_paid(&self, hash: Hash32) -> bool {
        let state = self.state();
        state.issued.get(&hash).is_some_and(|issued| issued.is_paid)
    }

    pub(crate) fn standing(&self, payer: usize, hash: Hash32) -> Option<Standing> {
        self.state().lists[payer].get(&hash).copied()
    }

    /// Begins to pay; if nothing is held, it has arrived.
    pub(crate) fn pay(
        &self,
        payer: usize,
        text: &str,
        max_fee_msat: u64,
    ) -> Result<Hash32, Refusal> {
        let mut state = self.state();
        let hash = *state.texts.get(text).ok_or(Refusal::NoInvoice)?;
        match state.lists[payer].get(&hash) {
            Some(Standing::Pending) => return Err(Refusal::InFlight),
            Some(Standing::Complete(_)) => return Err(Refusal::AlreadyPaid),
            Some(Standing::Failed) | None => {}
        }
        if state.issued[&hash].expires_unix <= unix_now() {
            return Err(Refusal::Expired);
        }
        if max_fee_msat < FEE_MSAT {
            state.lists[payer].insert(hash, Standing::Failed);
            return Err(Refusal::FeeTooLow);
        }
        state.lists[payer].insert(hash, Standing::Pending);
        if !state.is_held {
            arrive(&mut state, payer, hash);
        }
        Ok(hash)
    }

    /// Waits for the end of a payment.
    pub(crate) async fn end(&self, payer: usize, hash: Hash32) -> Standing {
        loop {
            let changed = self.changed.notified();
            match self.standing(payer, hash) {
                Some(Standing::Pending) | None => changed.await,
                Some(standing) => return standing,
            }
        }
    }

    /// From now on payments stay on their way.
    pub(crate) fn hold(&self) {
        self.state().is_held = true;
    }

    /// What is on its way arrives.
    pub(crate) fn release(&self) {
        let mut state = self.state();
        state.is_held = false;
        for payer in 0..2 {
            let pending = state.lists[payer].iter();
            let pending = pending.filter(|(_, standing)| **standing == Standing::Pending);
            let pending: Vec<Hash32> = pending.map(|(hash, _)| *hash).collect();
            for hash in pending {
                arrive(&mut state, payer, hash);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// What is on its way from this node comes back; or, as networks have done it, arrives after all what came back.
    pub(crate) fn turn(&self, payer: usize, hash: Hash32, to: Standing) {
        let mut state = self.state();
        match to {
            Standing::Complete(_) => arrive(&mut state, payer, hash),
            other => {
                state.lists[payer].insert(hash, other);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

fn arrive(state: &mut State, payer: usize, hash: Hash32) {
    let issued = state.issued.get_mut(&hash).unwrap();
    issued.is_paid = true;
    let issued = issued.clone();
    state.balances[payer] -= issued.amount_msat + FEE_MSAT;
    state.balances[issued.payee] += issued.amount_msat;
    *state.moved.entry(hash).or_default() += 1;
    let complete = Standing::Complete(Preimage(issued.preimage));
    state.lists[payer].insert(hash, complete);
}
