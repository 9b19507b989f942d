//! A simulated Lightning network: several wallets in one process that pay each other. Invoices are
//! real and signed, preimages are real, balances move; routes, channels and the chain are not
//! there. For first runs and tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};

use crate::invoice::parse_invoice;
use crate::protocol::{CreatedInvoice, Hash32, Info, PaymentStatus, Preimage, Refusal};
use crate::server::Wallet;

/// Invoices that one network keeps; the demonstration makes a handful.
const INVOICES_MAX: usize = 100_000;

struct Invoice {
    wallet: usize,
    amount_msat: u64,
    preimage: [u8; 32],
    paid: bool,
}

#[derive(Default)]
struct Network {
    balances: Vec<u64>,
    invoices: HashMap<[u8; 32], Invoice>,
    /// By paying wallet and hash.
    payments: HashMap<(usize, [u8; 32]), PaymentStatus>,
}

/// One wallet of a simulated network.
#[derive(Clone)]
pub struct SimulatedWallet {
    index: usize,
    key: Keypair,
    network: Arc<Mutex<Network>>,
}

/// A network of `count` wallets, each with `balance_msat`.
pub fn wallets(count: usize, balance_msat: u64) -> Vec<SimulatedWallet> {
    let network = Arc::new(Mutex::new(Network {
        balances: vec![balance_msat; count],
        ..Network::default()
    }));
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
        description: &str,
        expiry_s: u32,
        hash: sha256::Hash,
    ) -> Result<String, Refusal> {
        let refused = |_| Refusal::new("invalid", "no invoice can be made of this");
        InvoiceBuilder::new(Currency::Regtest)
            .description(description.to_owned())
            .payment_hash(hash)
            .payment_secret(PaymentSecret(rand::random()))
            .current_timestamp()
            .expiry_time(Duration::from_secs(u64::from(expiry_s)))
            .min_final_cltv_expiry_delta(18)
            .amount_milli_satoshis(amount_msat)
            .build_signed(|message| {
                SECP256K1.sign_ecdsa_recoverable(message, &self.key.secret_key())
            })
            .map(|invoice| invoice.to_string())
            .map_err(refused)
    }
}

impl Network {
    fn pay(&mut self, payer: usize, hash: [u8; 32], bolt11: &str) -> PaymentStatus {
        let Some(invoice) = self.invoices.get_mut(&hash) else {
            return PaymentStatus::Failed;
        };
        let amount = invoice.amount_msat;
        let good = parse_invoice(bolt11, bitcoin::Network::Regtest, amount)
            .is_ok_and(|parsed| parsed.payment_hash == hash);
        let left = self
            .balances
            .get(payer)
            .and_then(|has| has.checked_sub(amount));
        let (true, Some(left), false) = (good, left, invoice.paid || invoice.wallet == payer)
        else {
            return PaymentStatus::Failed;
        };
        let Some(sum) = self.balances[invoice.wallet].checked_add(amount) else {
            return PaymentStatus::Failed;
        };
        self.balances[payer] = left;
        self.balances[invoice.wallet] = sum;
        invoice.paid = true;
        PaymentStatus::Succeeded {
            fee_msat: 0,
            preimage: Preimage(invoice.preimage),
        }
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
        let preimage: [u8; 32] = rand::random();
        let hash = sha256::Hash::hash(&preimage);
        let bolt11 = self.sign(amount_msat, description, expiry_s, hash)?;
        let mut network = self.network();
        if network.invoices.len() >= INVOICES_MAX {
            return Err(Refusal::new(
                "full",
                "the simulated network has too many invoices",
            ));
        }
        network.invoices.insert(
            hash.to_byte_array(),
            Invoice {
                wallet: self.index,
                amount_msat,
                preimage,
                paid: false,
            },
        );
        Ok(CreatedInvoice {
            bolt11,
            payment_hash: Hash32(hash.to_byte_array()),
        })
    }

    async fn pay(
        &self,
        payment_hash: [u8; 32],
        bolt11: &str,
        _max_fee_msat: u64,
    ) -> Result<PaymentStatus, Refusal> {
        let mut network = self.network();
        let key = (self.index, payment_hash);
        if let Some(status) = network.payments.get(&key) {
            return Ok(*status);
        }
        let status = network.pay(self.index, payment_hash, bolt11);
        network.payments.insert(key, status);
        Ok(status)
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, Refusal> {
        let status = self
            .network()
            .payments
            .get(&(self.index, payment_hash))
            .copied();
        Ok(status.unwrap_or(PaymentStatus::Unknown))
    }

    async fn invoice_paid(&self, payment_hash: [u8; 32]) -> Result<bool, Refusal> {
        let network = self.network();
        Ok(network
            .invoices
            .get(&payment_hash)
            .is_some_and(|invoice| invoice.paid && invoice.wallet == self.index))
    }

    async fn balance(&self) -> Result<u64, Refusal> {
        Ok(self.network().balances[self.index])
    }
}
