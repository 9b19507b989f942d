//! What a simulated wallet does otherwise than it should, for tests: each was seen on real ones. A fault is used up by the
//! next new attempt of its wallet.

use dovetail_units::SplitMix64;

use super::SimulatedWallet;
use crate::protocol::{FailureClass, PaymentStatus};

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is proven failed.
    Fail(FailureClass),
    /// The payee holds the money: pending, until [`SimulatedWallet::release`].
    Hold,
    /// It is called failed, and what left may yet arrive: [`SimulatedWallet::release`].
    FailFirst,
    /// The money moves, and the answer is an error.
    PayAndRefuse,
    /// The wallet refuses before it has noted anything.
    RefuseUnheard,
    /// The wallet cannot tell what became of it.
    Review,
    /// The route costs this much.
    Fee(u64),
}

impl Fault {
    /// One by chance; a quarter of them are none.
    pub fn draw(random: &mut SplitMix64) -> Self {
        match random.below(12) {
            0 => Self::Fail(FailureClass::NoRoute),
            1 => Self::Fail(FailureClass::Invalid),
            2 | 3 => Self::Hold,
            4 | 5 => Self::FailFirst,
            6 => Self::PayAndRefuse,
            7 => Self::RefuseUnheard,
            8 => Self::Review,
            9 => Self::Fee(random.below(3_000)),
            _ => Self::Fee(0),
        }
    }

    /// Whether what it leaves behind may still arrive, or come back.
    pub(super) fn leaves_on_the_way(self) -> bool {
        matches!(self, Self::Hold | Self::FailFirst | Self::Review)
    }
}

impl SimulatedWallet {
    /// The next new attempts of this wallet come to this, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut network = self.network();
        network.faults.entry(self.index).or_default().extend(faults);
    }

    /// What is held, or was called failed and is still on its way, arrives. The attempt of this payment hash that is under
    /// way has succeeded then, or else the newest one. Returns which; `None` if the money cannot move.
    pub fn release(&self, payment_hash: [u8; 32]) -> Option<[u8; 32]> {
        let mut network = self.network();
        let attempt = network.current(self.index, payment_hash)?;
        let status = network.settle(self.index, payment_hash, 0);
        if !matches!(status, PaymentStatus::Succeeded { .. }) {
            return None;
        }
        network.note(self.index, attempt, payment_hash, status);
        Some(attempt)
    }

    /// What is held goes back. What has arrived stays with its payee, and is not called failed. Returns which attempt has
    /// failed then.
    pub fn give_back(&self, payment_hash: [u8; 32], reason: FailureClass) -> Option<[u8; 32]> {
        let mut network = self.network();
        if network.is_paid(payment_hash) {
            return None;
        }
        let attempt = network.current(self.index, payment_hash)?;
        let failed = PaymentStatus::failed(reason);
        network.note(self.index, attempt, payment_hash, failed);
        Some(attempt)
    }

    /// Some time passes: of what faults have left on its way, some arrives and some comes back.
    pub fn stir(&self, random: &mut SplitMix64) {
        let hashes = self.network().take_on_the_way(self.index);
        for hash in hashes {
            match random.below(4) {
                0 | 1 => drop(self.release(hash)),
                2 => drop(self.give_back(hash, FailureClass::RefusedByPayee)),
                _ => self.network().put_on_the_way(self.index, hash),
            }
        }
    }

    /// No more of what was scripted comes.
    pub fn end_script(&self) {
        self.network().faults.remove(&self.index);
    }

    /// The proof that an invoice of this wallet was paid: what a payee can show.
    pub fn preimage(&self, payment_hash: [u8; 32]) -> Option<[u8; 32]> {
        self.network().preimage(self.index, payment_hash)
    }

    /// The payment hash of an attempt; an offer's is known to its payer's wallet only.
    pub fn payment_hash(&self, attempt: [u8; 32]) -> Option<[u8; 32]> {
        self.network().hash_of(self.index, attempt)
    }

    /// The wallet loses its note of the attempt, until the network says something of it.
    pub fn forget(&self, attempt: [u8; 32]) {
        self.network().forget(self.index, attempt);
    }

    /// What the wallet has from now on.
    pub fn set_balance(&self, balance_msat: u64) {
        self.network().set_balance(self.index, balance_msat);
    }
}
