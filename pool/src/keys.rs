//! The pool's secret keys.

use anyhow::{Context, anyhow};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_commitment::tagged_hash;
use dovetail_daemon::ConfigError;
use dovetail_jd::token::TokenKey;
use dovetail_onchain::WalletKeys;
use dovetail_sv2::AuthorityKeys;
use dovetail_vrf::VrfSecret;

use crate::config::Config;

/// The keys, read.
pub(crate) struct Keys {
    /// What miners recognise the pool by.
    pub(crate) authority: AuthorityKeys,
    /// What signs receipts.
    pub(crate) receipt: Keypair,
    /// What authenticates the tokens of declared jobs.
    pub(crate) token: TokenKey,
    /// What draws the samples of audits.
    pub(crate) vrf: VrfSecret,
    /// What pays miners on the chain, if anything does.
    pub(crate) onchain: Option<WalletKeys>,
}

impl Keys {
    /// Reads them; a token key or VRF key that is not there is made.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            authority: authority(config)?,
            receipt: receipt_key(config)?,
            token: dovetail_jd::config::token_key(&config.job_declarator.token_key)
                .context("job_declarator.token_key")?,
            vrf: vrf_secret(config.inference.vrf_key.read_or_make_key())?,
            onchain: onchain(config)?,
        })
    }

    /// Reads those that are there.
    pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
        authority(config)?;
        receipt_key(config)?;
        onchain(config)?;
        let token_key = config.job_declarator.token_key.look_at_key();
        token_key.map(drop).context("job_declarator.token_key")?;
        match config.inference.vrf_key.look_at_key().transpose() {
            Some(key) => vrf_secret(key).map(drop),
            None => Ok(()),
        }
    }
}

/// What keeps the ids of tasks from being guessed that clients name by keys of their own. It outlives a restart.
pub(crate) fn idempotency_secret(receipt: &Keypair) -> [u8; 32] {
    tagged_hash("dovetail/idempotency-secret", &[&receipt.secret_bytes()])
}

/// What pays miners on the chain, if anything does.
pub(crate) fn onchain(config: &Config) -> anyhow::Result<Option<WalletKeys>> {
    let onchain = config.onchain.as_ref();
    let keys = onchain.map(|onchain| onchain.keys(config.mining.network));
    keys.transpose().map_err(|reason| anyhow!(reason))
}

fn vrf_secret(key: Result<[u8; 32], ConfigError>) -> anyhow::Result<VrfSecret> {
    let key = key.context("inference.vrf_key")?;
    VrfSecret::from_bytes(key).context("inference.vrf_key")
}

fn authority(config: &Config) -> anyhow::Result<AuthorityKeys> {
    let secret = config.mining.authority_secret_key.read();
    let secret = secret.context("mining.authority_secret_key")?;
    AuthorityKeys::parse(&config.mining.authority_public_key, &secret)
        .context("mining: the authority keys")
}

fn receipt_key(config: &Config) -> anyhow::Result<Keypair> {
    let text = config.inference.receipt_key.read();
    let text = text.context("inference.receipt_key")?;
    let bytes: [u8; 32] = hex::decode(text.trim())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .context("inference.receipt_key must be 64 hex digits")?;
    let secret = SecretKey::from_slice(&bytes)
        .context("inference.receipt_key is not a secret key of secp256k1")?;
    Ok(Keypair::from_secret_key(SECP256K1, &secret))
}
