//! The one judge of shares: what a share proves, what it is worth, and which batch it claims.

use std::borrow::Cow;
use std::time::Instant;

use bitcoin::Target;
use dovetail_commitment::HeaderHash;
use dovetail_rewards::{SHOWN_COINBASE_BYTES_MAX, ShareProof, ShareTerms, Weight};
use dovetail_sv2::tlv::Tlv;
use dovetail_templates::block_publisher::{Keeping, SolvedBlock};
use stratum_core::mining_sv2::{
    ERROR_CODE_SUBMIT_SHARES_INVALID_CHANNEL_ID as BAD_CHANNEL,
    ERROR_CODE_SUBMIT_SHARES_STALE_SHARE as STALE,
};

use super::refusal::ShareRefusal;
use super::share::SubmittedShare;
use crate::claims::claim::Claim;
use crate::claims::settle::ProvenShare;
use crate::config::RewardScheme;
use crate::credit;
use crate::mining::channels::{Hashed, ValidShare};
use crate::mining::connection::Connection;
use crate::mining::custom_jobs::accepted_jobs::AcceptedJob;
use crate::mining::template_jobs::job_maker::is_declared;

/// A share that counts.
pub(super) struct Judged {
    pub(super) proven: ProvenShare,
    /// The target that it was judged by.
    pub(super) target: Target,
    /// The device that found it, if it has a name.
    pub(super) device: Option<String>,
    /// What it claims beside its hash.
    pub(super) claim: Option<Claim>,
    /// Until then its block is not safe, and it is not acknowledged.
    pub(super) keeping: Option<Keeping>,
}

impl Connection {
    /// Judges a share. A block that it solves is published as soon as its header is known to be good: before
    /// its fields are looked at, which may be refused.
    pub(super) fn judge(
        &mut self,
        share: &SubmittedShare,
        fields: &[Tlv],
    ) -> Result<Judged, ShareRefusal> {
        let (channel_id, job_id) = (share.channel_id, share.job_id);
        let channel = self.channels.get_mut(&channel_id);
        let channel = channel.ok_or(ShareRefusal::Standard(BAD_CHANNEL))?;
        let account = channel.account().to_owned();
        let accepted = self.accepted.get(channel_id, job_id);
        let (custom, share) = match (accepted, is_declared(job_id)) {
            (Some((channels_job_id, job)), _) => (
                Some(job.clone()),
                Cow::Owned(share.with_channels_job_id(channels_job_id)),
            ),
            // What its coinbase pays is not known any more, so neither is what the share is worth.
            (None, true) => return Err(channel.no_job(job_id)),
            (None, false) => (None, Cow::Borrowed(share)),
        };
        let mut valid = channel.validate(&share, Instant::now())?;
        let proven = self.prove(&share, account, &valid, custom.as_ref());
        let block = valid.block.take();
        let is_block = block.is_some();
        let keeping = block.and_then(|block| self.publish(&proven, block, custom.as_ref()));
        if !is_block && self.shared.templates.is_stale() {
            // Nobody knows whether a block on this work could be one.
            return Err(ShareRefusal::Standard(STALE));
        }
        let committed = match &custom {
            Some(job) => job.batch_root,
            None => self.batch_jobs.root_of(channel_id, job_id),
        };
        let device = self.device(channel_id, fields)?;
        let claim = self
            .claim(&share, fields, &proven.account, committed, &valid)
            .map_err(ShareRefusal::Extension)?;
        Ok(Judged {
            proven,
            target: valid.target,
            device,
            claim,
            keeping,
        })
    }

    /// What the share is worth.
    fn prove(
        &self,
        share: &SubmittedShare,
        account: String,
        valid: &ValidShare,
        custom: Option<&AcceptedJob>,
    ) -> ProvenShare {
        let mut credit = credit::for_hashes(&self.shared.config.credit, valid.work);
        if let Some(job) = custom {
            // What the pool's own template pays now: fees come and go while a job is hashed.
            let work = self.work.as_ref();
            let reference_sat = work.map_or(0, |work| work.coinbase_value_remaining_sat());
            credit = credit::for_declared(credit, job.pool_value_sat, reference_sat);
        }
        let (weight, proof) = self.weighed(share, valid, custom);
        // The template's height is that of the block which it is for.
        let solved = valid.block.as_ref().and_then(|block| block.as_ref().ok());
        let height = solved.and_then(SolvedBlock::height);
        let height = height.or_else(|| self.work.as_ref().map(|work| work.height()));
        let height = height.unwrap_or_default().saturating_sub(1);
        ProvenShare {
            account,
            height,
            header_hash: HeaderHash::from_bytes(valid.header_hash),
            work: valid.work,
            credit,
            weight,
            reward_sat: self.reward_sat(valid),
            is_block: valid.block.is_some(),
            is_coinbase_only: custom.is_some_and(AcceptedJob::is_coinbase_only),
            proof,
        }
    }

    /// What the share weighs where blocks are divided, and what shows that to auditors, if it is kept.
    fn weighed(
        &self,
        share: &SubmittedShare,
        valid: &ValidShare,
        custom: Option<&AcceptedJob>,
    ) -> (Weight, Option<Box<ShareProof>>) {
        let terms = self.terms(valid, custom);
        let hashed = self.hashed_to_keep(share, valid);
        let is_too_long = hashed
            .as_ref()
            .is_some_and(|hashed| hashed.coinbase.len() > SHOWN_COINBASE_BYTES_MAX);
        let weight = match is_too_long {
            // Nobody could be shown such a share.
            true => Weight::ZERO,
            false => self.weight(&terms, custom),
        };
        let proof = hashed.filter(|_| weight > Weight::ZERO).map(|hashed| {
            Box::new(ShareProof {
                work: terms.work,
                value_sat: terms.value_sat,
                reference_sat: terms.reference_sat,
                header: hashed.header,
                merkle_path: hashed.merkle_path,
                coinbase: hashed.coinbase,
            })
        });
        (weight, proof)
    }

    /// What was hashed for the share, if auditors are to be shown it.
    fn hashed_to_keep(&self, share: &SubmittedShare, valid: &ValidShare) -> Option<Hashed> {
        self.shared.config.rewards.keep_shares()?;
        let hashed = self
            .channels
            .get(&share.channel_id)
            .and_then(|channel| channel.hashed(share, &valid.header_hash));
        if hashed.is_none() {
            tracing::error!(
                "what was hashed for a share is not known: it counts, and nobody can be shown it"
            );
        }
        hashed
    }

    /// What the share's weight is reckoned from.
    fn terms(&self, valid: &ValidShare, custom: Option<&AcceptedJob>) -> ShareTerms {
        // A job of the pool's own is worth what its template is.
        let work = custom.zip(self.work.as_ref());
        let (value_sat, reference_sat) = work.map_or((0, 0), |(job, work)| {
            (job.pool_value_sat, work.coinbase_value_remaining_sat())
        });
        ShareTerms {
            work: valid.work,
            block_work: valid.block_work,
            value_sat,
            reference_sat,
        }
    }

    /// What the share weighs where blocks are divided over the newest work.
    fn weight(&self, terms: &ShareTerms, custom: Option<&AcceptedJob>) -> Weight {
        let is_shared = self.shared.config.rewards.scheme == RewardScheme::Pplns;
        // Nobody has seen the transactions of such a job.
        let is_unseen = custom.is_some_and(AcceptedJob::is_coinbase_only);
        if !is_shared || is_unseen {
            return Weight::ZERO;
        }
        terms.weight().unwrap_or_else(|error| {
            tracing::error!(%error, "a share cannot be weighed");
            Weight::ZERO
        })
    }

    /// What the block that a share solves pays the pool, where blocks are divided.
    fn reward_sat(&self, valid: &ValidShare) -> u64 {
        if self.shared.config.rewards.scheme == RewardScheme::Rate {
            return 0;
        }
        match &valid.block {
            Some(Ok(block)) => block.pays(&self.shared.payout),
            // What cannot be put together pays nobody.
            Some(Err(_)) | None => 0,
        }
    }
}
