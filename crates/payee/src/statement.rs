//! The statement by which the owner of an account's name says where and when the account is paid, and its proof: a
//! worker's key signs by BIP 340, a Bitcoin address by BIP 322.

use bitcoin::consensus::Decodable;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1};
use bitcoin::{Address, Network, Witness, XOnlyPublicKey};
use dovetail_commitment::tagged_hash;

use crate::destination::{PayTo, PayToKind, bitcoin_address};
use crate::schedule::Schedule;

const TAG: &str = "dovetail/payout-statement";
/// The largest proof: BIP 322's witness of a public key's hash has 107 bytes.
pub const PROOF_BYTES_MAX: usize = 512;
/// The highest threshold: a bitcoin. A mistyped one should not keep all money for ever.
pub const THRESHOLD_MSAT_MAX: u64 = 100_000_000_000;
/// How old a statement may be when the pool hears of it, in seconds: an address may have to sign on another device.
pub const AGE_S_MAX: u64 = 86_400;
/// How far ahead of the pool's clock it may have been made.
pub const CLOCK_S_MAX: u64 = 300;

/// What an account's owner asks for. Its text names all of it, the pool and the network, so it holds for no other. It may
/// be shown to the pool again and again: a pool takes one only if it is at most [`AGE_S_MAX`] old and was made after the
/// last one that it took of this account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The x-only key of the pool's receipts.
    pub pool: [u8; 32],
    /// The pool's network.
    pub network: Network,
    /// The account.
    pub account: String,
    /// Where it is paid.
    pub pay_to: PayTo,
    /// The Bitcoin address for what cannot be paid over Lightning.
    pub fallback: Option<String>,
    /// What it is paid at least; `None`: what the pool pays at least.
    pub threshold_msat: Option<u64>,
    /// When it is paid.
    pub schedule: Schedule,
    /// When this was said, in seconds of Unix time.
    pub made_unix: u64,
}

/// Who can prove that an account is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Who has this worker's key.
    Worker(XOnlyPublicKey),
    /// Who can spend from this address.
    Address(Box<Address>),
}

/// Why a statement is not believed, in words for the payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// An offer signs nothing.
    #[error(
        "the account's name is an offer: it is paid where it leads, and nobody can prove to own it. \
         Mine under a worker's key or a Bitcoin address to change where you are paid"
    )]
    Offer,
    /// A Lightning address signs nothing.
    #[error(
        "the account's name is a Lightning address: it is paid there, and nobody can prove to own it. \
         Mine under a worker's key or a Bitcoin address to change where you are paid"
    )]
    LightningAddress,
    /// A plain name is anybody's.
    #[error(
        "the account's name proves nothing: only a worker's key or a Bitcoin address can say where it is paid"
    )]
    Name,
    /// The name is of another network.
    #[error("the account's name is a Bitcoin address of another network than this pool's")]
    OtherNetwork,
    /// An address that this pool verifies no signatures of.
    #[error(
        "this pool verifies signatures of addresses of one key only: P2WPKH (bc1q.., of 42 characters) and P2TR by its key (bc1p..)"
    )]
    AddressKind,
    /// A key signs 64 bytes.
    #[error("the proof has not the form of a signature of this account")]
    Form,
    /// Not signed by the owner, or not this.
    #[error(
        "the signature is not the account's over this statement, for this pool and this network"
    )]
    Signature,
}

impl Owner {
    /// Who owns the account.
    ///
    /// # Errors
    /// [`ProofError`] if nobody can prove it.
    pub fn of(account: &str, network: Network) -> Result<Self, ProofError> {
        if account.contains('@') {
            return Err(ProofError::LightningAddress);
        }
        if account.starts_with("lno1") {
            return Err(ProofError::Offer);
        }
        if let Some((address, _)) = bitcoin_address(account) {
            let address = address
                .require_network(network)
                .map_err(|_| ProofError::OtherNetwork)?;
            let script = address.script_pubkey();
            return match script.is_p2wpkh() || script.is_p2tr() {
                true => Ok(Self::Address(Box::new(address))),
                false => Err(ProofError::AddressKind),
            };
        }
        match PayTo::parse(PayToKind::Worker, account, network) {
            Ok(key) => {
                let key = key.value().parse().map_err(|_| ProofError::Name)?;
                Ok(Self::Worker(key))
            }
            Err(_) => Err(ProofError::Name),
        }
    }
}

impl Statement {
    /// What is signed: one line, so that no wallet can change its ends. No part of it can hold the separator.
    pub fn message(&self) -> String {
        let threshold = match self.threshold_msat {
            Some(msat) => format!("{msat} msat"),
            None => "the pool's".to_owned(),
        };
        format!(
            "Dovetail payouts; pool {}; network {}; account {}; pay {} {}; fallback {}; threshold {threshold}; schedule {}; time {}",
            hex::encode(self.pool),
            self.network,
            self.account,
            self.pay_to.kind().name(),
            self.pay_to.value(),
            self.fallback.as_deref().unwrap_or("none"),
            self.schedule,
            self.made_unix,
        )
    }

    fn digest(&self) -> Message {
        let digest = tagged_hash(TAG, &[self.message().as_bytes()]);
        Message::from_digest(digest)
    }

    /// A worker key's proof: BIP 340 over the tagged hash of the message, 64 bytes.
    pub fn sign(&self, keys: &Keypair) -> [u8; 64] {
        SECP256K1.sign_schnorr(&self.digest(), keys).serialize()
    }

    /// Whether `proof` is the owner's: 64 bytes of a worker's key, or BIP 322's simple signature, a witness, of an address.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, proof: &[u8]) -> Result<(), ProofError> {
        let owner = Owner::of(&self.account, self.network)?;
        if proof.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Form);
        }
        match owner {
            Owner::Worker(key) => {
                let signature = Signature::from_slice(proof).map_err(|_| ProofError::Form)?;
                SECP256K1
                    .verify_schnorr(&signature, &self.digest(), &key)
                    .map_err(|_| ProofError::Signature)
            }
            Owner::Address(address) => self.verify_address(&address, proof),
        }
    }

    fn verify_address(&self, address: &Address, proof: &[u8]) -> Result<(), ProofError> {
        let mut rest = proof;
        let witness = Witness::consensus_decode(&mut rest).map_err(|_| ProofError::Form)?;
        if !rest.is_empty() {
            return Err(ProofError::Form);
        }
        match bip322::verify_simple(address, self.message(), witness) {
            Ok(bip322::Verification::Valid { .. }) => Ok(()),
            Ok(bip322::Verification::Inconclusive) => Err(ProofError::AddressKind),
            Err(_) => Err(ProofError::Signature),
        }
    }
}

#[cfg(test)]
mod tests;
