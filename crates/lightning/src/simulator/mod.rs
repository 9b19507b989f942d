//! A simulated Lightning network: several wallets in one process that pay each other. Invoices are
//! real and signed, preimages are real, balances move; routes, channels and the chain are not
//! there. For first runs and tests.

mod faults;
mod network;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use lightning_invoice::{
    Bolt11InvoiceDescription, Currency, Description, InvoiceBuilder, PaymentSecret, Sha256,
};

use crate::protocol::{
    CreatedInvoice, CreatedOffer, Hash32, Info, InvoicePayment, OfferPayment, PaymentStatus,
    Refusal,
};
use crate::server::Wallet;
use network::{Invoice, Network};

pub use faults::Fault;

/// What an offer's text has behind `lno1`: as long as one that names a node.
const OFFER_DIGITS: usize = 90;
/// What bech32 is written with.
const BECH32_DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// One wallet of a simulated network.
#[derive(Clone)]
pub struct SimulatedWallet {
    index: usize,
    key: Keypair,
    network: Arc<Mutex<Network>>,
}

/// A network of `count` wallets, each with `balance_msat`.
pub fn wallets(count: usize, balance_msat: u64) -> Vec<SimulatedWallet> {
    let network = Arc::new(Mutex::new(Network::new(count, balance_msat)));
    (0..count)
        .map(|index| SimulatedWallet {
            index,
            key: Keypair::from_secret_key(SECP256K1, &random_key()),
            network: Arc::clone(&network),
        })
        .collect()
}

fn random_key() -> SecretKey {
    loop {
        // Almost every 32 bytes are a key.
        if let Ok(key) = SecretKey::from_slice(&rand::random::<[u8; 32]>()) {
            return key;
        }
    }
}

impl SimulatedWallet {
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(
        &self,
        amount_msat: u64,
        description: Bolt11InvoiceDescription,
        expiry_s: u32,
        hash: sha256::Hash,
    ) -> Result<String, Refusal> {
        let refused = |_| Refusal::new("invalid", "no invoice can be made of this");
        InvoiceBuilder::new(Currency::Regtest)
            .invoice_description(description)
            .payment_hash(hash)
            .payment_secret(PaymentSecret(rand::random()))
            .current_timestamp()
            .expiry_time(Duration::from_secs(u64::from(expiry_s)))
            .min_final_cltv_expiry_delta(u64::from(network::FINAL_CLTV))
            .amount_milli_satoshis(amount_msat)
            .build_signed(|message| {
                SECP256K1.sign_ecdsa_recoverable(message, &self.key.secret_key())
            })
            .map(|invoice| invoice.to_string())
            .map_err(refused)
    }

    fn invoice(
        &self,
        amount_msat: u64,
        description: Bolt11InvoiceDescription,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, Refusal> {
        let preimage: [u8; 32] = rand::random();
        let hash = sha256::Hash::hash(&preimage);
        let bolt11 = self.sign(amount_msat, description, expiry_s, hash)?;
        let invoice = Invoice::new(self.index, amount_msat, preimage);
        self.network().add_invoice(hash.to_byte_array(), invoice)?;
        Ok(CreatedInvoice {
            bolt11,
            payment_hash: Hash32(hash.to_byte_array()),
        })
    }

    /// An invoice that carries the hash of what it is for, as the host of a Lightning address gives (LUD-06).
    ///
    /// # Errors
    /// As [`Wallet::create_invoice`].
    pub fn create_invoice_for_hash(
        &self,
        amount_msat: u64,
        description_hash: [u8; 32],
        expiry_s: u32,
    ) -> Result<CreatedInvoice, Refusal> {
        let hash = sha256::Hash::from_byte_array(description_hash);
        let description = Bolt11InvoiceDescription::Hash(Sha256(hash));
        self.invoice(amount_msat, description, expiry_s)
    }
}

impl Wallet for SimulatedWallet {
    async fn info(&self) -> Result<Info, Refusal> {
        Ok(Info {
            rail: "simulated".to_owned(),
            node_id: self.key.public_key().to_string(),
        })
    }

    async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, Refusal> {
        let description = Description::new(description.to_owned())
            .map_err(|_| Refusal::new("invalid", "the description is too long"))?;
        let description = Bolt11InvoiceDescription::Direct(description);
        self.invoice(amount_msat, description, expiry_s)
    }

    async fn create_offer(&self, _description: &str) -> Result<CreatedOffer, Refusal> {
        let digits = (0..OFFER_DIGITS)
            .map(|_| char::from(BECH32_DIGITS[usize::from(rand::random::<u8>() % 32)]));
        let offer: String = "lno1".chars().chain(digits).collect();
        self.network().add_offer(offer.clone(), self.index)?;
        Ok(CreatedOffer { offer })
    }

    async fn pay(&self, payment: InvoicePayment) -> Result<PaymentStatus, Refusal> {
        self.network().pay(self.index, &payment)
    }

    async fn pay_offer(&self, payment: OfferPayment) -> Result<PaymentStatus, Refusal> {
        self.network().pay_offer(self.index, &payment)
    }

    async fn payment(&self, attempt: [u8; 32]) -> Result<PaymentStatus, Refusal> {
        Ok(self.network().status(self.index, attempt))
    }

    async fn invoice_paid(&self, payment_hash: [u8; 32]) -> Result<bool, Refusal> {
        Ok(self.network().is_paid_to(self.index, payment_hash))
    }

    async fn balance(&self) -> Result<u64, Refusal> {
        Ok(self.network().balance(self.index))
    }
}
