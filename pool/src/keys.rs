//! The pool's secret keys.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_commitment::tagged_hash;
use dovetail_daemon::{ConfigError, Secret};
use dovetail_jd::token::TokenKey;
use dovetail_onchain::WalletKeys;
use dovetail_sv2::AuthorityKeys;
use dovetail_vrf::VrfSecret;

use crate::config::Config;
use crate::grpc_listener::Renewal;

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
    /// What encrypts prompts and outputs in the database.
    pub(crate) content: [u8; 32],
    /// What pays miners on the chain, if anything does.
    pub(crate) onchain: Option<WalletKeys>,
    /// What the agents' port is believed by, if it speaks TLS.
    pub(crate) tls: Option<Renewal>,
}

impl Keys {
    /// Reads them; a token key, VRF key or content key that is not there is made.
    pub(crate) fn read(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            authority: authority(config)?,
            receipt: receipt_key(config)?,
            token: dovetail_jd::config::token_key(&config.job_declarator.token_key)
                .context("job_declarator.token_key")?,
            vrf: vrf_secret(config.inference.vrf_key.read_or_make_key())?,
            content: content_key(config)?,
            onchain: onchain(config)?,
            tls: tls(config)?,
        })
    }

    /// Reads those that are there.
    pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
        authority(config)?;
        receipt_key(config)?;
        onchain(config)?;
        tls(config)?;
        let content_key = content_secret(config).look_at_key();
        content_key.map(drop).context("inference.content_key")?;
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

/// The certificate of the agents' port and its key.
fn tls(config: &Config) -> anyhow::Result<Option<Renewal>> {
    config.api.warn_of_plain_text();
    let tls = config.api.tls().map(Renewal::new);
    tls.transpose().map_err(|reason| anyhow!(reason))
}

/// Where the content key is.
fn content_secret(config: &Config) -> Secret {
    let named = config.inference.content_key.clone();
    named.unwrap_or_else(|| Secret::File {
        file: config.ledger.dir.join("content.key"),
    })
}

fn content_key(config: &Config) -> anyhow::Result<[u8; 32]> {
    let secret = content_secret(config);
    let dir = &config.ledger.dir;
    if config.inference.content_key.is_none() {
        make_folder(dir).context("ledger.dir")?;
    }
    let key = secret.read_or_make_key();
    let key = key.context("inference.content_key")?;
    if config.inference.content_key.is_none() {
        // Before anything is encrypted with it.
        sync(dir).context("ledger.dir")?;
    }
    Ok(key)
}

/// The pool's own folder, for the case that its log has not made it yet. A crash must not take it, and with it what is durable
/// inside.
fn make_folder(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), sync)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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
