//! What the ledger is told of how blocks are divided, and who signs the slices that they are divided over, and the division.

use std::sync::Arc;

use anyhow::anyhow;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1};
use dovetail_commitment::HeaderHash;
use dovetail_ledger::{RewardsConfig, Scheme};

use crate::config::{Config, RewardScheme};

/// How this pool divides blocks; `None` if hashes earn a rate. Slices and blocks are signed with the key that receipts are signed with.
///
/// # Errors
/// A sentence that names the key of the configuration.
pub(crate) fn config(config: &Config, key: Keypair) -> anyhow::Result<Option<RewardsConfig>> {
    let rewards = &config.rewards;
    let refused = |reason: String| anyhow!(reason);
    let scheme = match rewards.scheme {
        RewardScheme::Rate => return Ok(None),
        RewardScheme::Pplns => Scheme::Pplns(rewards.length().map_err(refused)?),
        RewardScheme::Solo => Scheme::Solo,
    };
    let secp = Secp256k1::new();
    let sign = move |hash: &[u8; 32]| {
        let message = Message::from_digest(*hash);
        *secp.sign_schnorr_no_aux_rand(&message, &key).as_ref()
    };
    let genesis = genesis_block(config.mining.network).block_hash();
    Ok(Some(RewardsConfig {
        scheme,
        fee: rewards.fee().map_err(refused)?,
        first_block: HeaderHash::from_bytes(genesis.to_byte_array()),
        signer: key.x_only_public_key().0.serialize(),
        sign: Arc::new(sign),
        keep_slices: rewards.keep_slices(),
        keep_shares: rewards.keep_shares(),
    }))
}
