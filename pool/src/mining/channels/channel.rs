//! One mining channel, standard or extended: what is common to both, over `channels_sv2`.
//!
//! `channels_sv2` validates shares but tells neither the target a share was judged by nor the
//! header it hashed; crediting needs the first, receipts the second, so both are kept here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Target};
use dovetail_sv2::vardiff::stated_rate;
use dovetail_sv2::{Identity, Vardiff, share_code};
use dovetail_templates::block_publisher::SolvedBlock;
use dovetail_units::Work;
use dovetail_units::header::JobHeader;
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::channels_sv2::server::{
    error::{ExtendedChannelError, StandardChannelError},
    extended::ExtendedChannel,
    jobs::extended::ExtendedJob,
    share_accounting::{ShareValidationError, ShareValidationResult},
    standard::StandardChannel,
};
use stratum_core::mining_sv2::{
    ERROR_CODE_SUBMIT_SHARES_INVALID_JOB_ID, ERROR_CODE_SUBMIT_SHARES_INVALID_SHARE,
    ERROR_CODE_SUBMIT_SHARES_STALE_SHARE,
    ERROR_CODE_UPDATE_CHANNEL_INVALID_NOMINAL_HASHRATE as BAD_RATE,
    ERROR_CODE_UPDATE_CHANNEL_MAX_TARGET_OUT_OF_RANGE as BAD_TARGET, SetCustomMiningJobOwned,
};
use stratum_core::template_distribution_sv2::SetNewPrevHashOwned as TemplatePrevHash;

use super::given_jobs::GivenJobs;
use super::job_targets::JobTargets;
use crate::blocks::{AssemblyError, HeaderFields, assemble, merkle_path};
use crate::mining::fields::StandardCode;
use crate::mining::shares::acks::Acks;
use crate::mining::shares::refusal::ShareRefusal;
use crate::mining::shares::share::{ShareMessage, SubmittedShare};

/// A share that passed the header check.
#[derive(Debug)]
pub(crate) struct ValidShare {
    /// Its block hash, in the order of the header.
    pub(crate) header_hash: [u8; 32],
    /// Its expected hashes: 2^256 / (target + 1) of the target it was judged by.
    pub(crate) work: Work,
    /// The target it was judged by.
    pub(crate) target: Target,
    /// Hashes that a block with its header takes.
    pub(crate) block_work: Work,
    /// Set if it solves a block: the block, or why it cannot be put together.
    pub(crate) block: Option<Result<SolvedBlock, AssemblyError>>,
}

/// What was hashed for a share, as a receipt shows it.
#[derive(Debug)]
pub(crate) struct Hashed {
    pub(crate) header: [u8; 80],
    /// The coinbase without its witness.
    pub(crate) coinbase: Vec<u8>,
    pub(crate) merkle_path: Vec<[u8; 32]>,
}

/// The two kinds of mining channel (Sv2 specification, section 5.2).
/// How often a channel's difficulty is looked at, however many shares come.
const STEER_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug)]
enum Kind {
    Standard(Box<StandardChannel>),
    Extended(Box<ExtendedChannel>),
}

/// A channel, the account it earns for, and how its difficulty is steered.
#[derive(Debug)]
pub(crate) struct Channel {
    kind: Kind,
    account: String,
    /// Which of the account's devices it is, where its identity says so.
    device: Option<String>,
    job_targets: JobTargets,
    /// Of a standard channel, the jobs whose headers it may still solve: the coinbases that its own jobs'
    /// merkle roots were made of. An extended channel has them itself.
    hashed_jobs: HashMap<u32, Arc<ExtendedJob>>,
    vardiff: Vardiff,
    /// When `vardiff` was last told of the time.
    looked_at: Instant,
    given: GivenJobs,
    /// What its miner is told of good shares.
    pub(crate) acks: Acks,
}

impl Channel {
    pub(crate) fn standard(channel: StandardChannel, whose: Identity, vardiff: Vardiff) -> Self {
        Self::new(Kind::Standard(Box::new(channel)), whose, vardiff)
    }

    pub(crate) fn extended(channel: ExtendedChannel, whose: Identity, vardiff: Vardiff) -> Self {
        Self::new(Kind::Extended(Box::new(channel)), whose, vardiff)
    }

    fn new(kind: Kind, whose: Identity, vardiff: Vardiff) -> Self {
        Self {
            kind,
            account: whose.account().to_owned(),
            device: whose.device,
            job_targets: JobTargets::default(),
            hashed_jobs: HashMap::new(),
            vardiff,
            looked_at: Instant::now(),
            given: GivenJobs::default(),
            acks: Acks::default(),
        }
    }

    /// The account that its shares are credited to.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// Which of the account's devices it is, where its identity says so.
    pub(crate) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The target of the jobs that come from now on.
    pub(crate) fn target(&self) -> Target {
        match &self.kind {
            Kind::Standard(channel) => *channel.get_target(),
            Kind::Extended(channel) => *channel.get_target(),
        }
    }

    /// The bytes before the miner's own extranonce.
    pub(crate) fn extranonce_prefix(&self) -> &[u8] {
        match &self.kind {
            Kind::Standard(channel) => channel.get_extranonce_prefix(),
            Kind::Extended(channel) => channel.get_extranonce_prefix(),
        }
    }

    /// The extended channel, where it is one.
    pub(crate) fn as_extended(&self) -> Option<&ExtendedChannel> {
        match &self.kind {
            Kind::Extended(channel) => Some(channel),
            Kind::Standard(_) => None,
        }
    }

    /// Takes a template's job: kept for the next [`Channel::activate`] if it is a future job,
    /// else the active one at once.
    pub(crate) fn install(&mut self, job: &Arc<ExtendedJob>, now: Instant) -> Result<(), String> {
        let (future, job_id) = (job.is_future(), job.get_job_id());
        self.given.template.insert(job_id);
        if !future {
            self.job_targets.insert(job_id, self.target(), now);
        }
        match &mut self.kind {
            Kind::Standard(channel) => {
                channel
                    .on_group_channel_job(job.as_ref().clone())
                    .map_err(|error: StandardChannelError| format!("{error:?}"))?;
                let targets = &self.job_targets;
                self.hashed_jobs.retain(|id, _| targets.contains(*id));
                self.hashed_jobs.insert(job_id, Arc::clone(job));
            }
            Kind::Extended(channel) => channel
                .on_group_channel_job(job.as_ref().clone())
                .map_err(|error: ExtendedChannelError| format!("{error:?}"))?,
        }
        Ok(())
    }

    /// Moves to a new tip: the future job of the tip's template becomes the active job and all
    /// earlier jobs go stale.
    pub(crate) fn activate(&mut self, tip: &TemplatePrevHash, now: Instant) -> Result<(), String> {
        let job_id = match &mut self.kind {
            Kind::Standard(channel) => {
                channel
                    .on_set_new_prev_hash(tip.clone())
                    .map_err(|error| format!("{error:?}"))?;
                channel.get_active_job().map(|job| job.get_job_id())
            }
            Kind::Extended(channel) => {
                channel
                    .on_set_new_prev_hash(tip.clone())
                    .map_err(|error| format!("{error:?}"))?;
                channel.get_active_job().map(ExtendedJob::get_job_id)
            }
        };
        self.job_targets.clear();
        self.hashed_jobs.retain(|id, _| Some(*id) == job_id);
        if let Some(job_id) = job_id {
            self.job_targets.insert(job_id, self.target(), now);
        }
        Ok(())
    }

    /// The standard-job message of the job just installed: `(job id, merkle root)`.
    pub(crate) fn standard_job(&self, job_id: u32) -> Option<[u8; 32]> {
        let Kind::Standard(channel) = &self.kind else {
            return None;
        };
        channel
            .get_active_job()
            .filter(|job| job.get_job_id() == job_id)
            .or_else(|| channel.get_future_job(job_id))
            .map(|job| job.get_merkle_root().clone().into_array())
    }

    /// Makes a declared job the active one, with a target of its own. All its fields must have been checked before.
    /// `job_id` is the miner's number for it; the channel's own, which is returned, is another one.
    pub(crate) fn install_custom(
        &mut self,
        job_id: u32,
        message: SetCustomMiningJobOwned,
        target: Target,
        now: Instant,
    ) -> Result<u32, String> {
        let Kind::Extended(channel) = &mut self.kind else {
            return Err("custom jobs need an extended channel".into());
        };
        // The library gives a job the channel's target.
        let channels = *channel.get_target();
        let fault = |error: ExtendedChannelError| format!("{error:?}");
        channel.set_target(target).map_err(fault)?;
        let installed = channel.on_set_custom_mining_job(message);
        channel.set_target(channels).map_err(fault)?;
        let channels_job_id = installed.map_err(fault)?;
        self.job_targets.insert(channels_job_id, target, now);
        self.given.custom.insert(job_id);
        Ok(channels_job_id)
    }

    /// A job that still takes shares, by the channel's number.
    pub(crate) fn live_job(&self, job_id: u32) -> Option<&ExtendedJob> {
        let Kind::Extended(channel) = &self.kind else {
            return None;
        };
        channel
            .get_active_job()
            .filter(|job| job.get_job_id() == job_id)
            .or_else(|| channel.get_past_job(job_id))
    }

    /// Checks a share's header hash, and what its miner may have done to the job.
    pub(crate) fn validate(
        &mut self,
        share: &SubmittedShare,
        now: Instant,
    ) -> Result<ValidShare, ShareRefusal> {
        if let Some(rules) = self.rules(share) {
            let HeaderFields { version, ntime, .. } = share.header;
            rules
                .check(share.extranonce.len(), ntime, version)
                .map_err(|bad| ShareRefusal::Standard(share_code(bad)))?;
        }
        let result = match (&mut self.kind, &share.message) {
            (Kind::Standard(channel), ShareMessage::Standard(message)) => {
                channel.validate_share(message.clone())
            }
            (Kind::Extended(channel), ShareMessage::Extended(message)) => {
                channel.validate_share(message.clone())
            }
            _ => {
                return Err(ShareRefusal::Standard(
                    ERROR_CODE_SUBMIT_SHARES_INVALID_SHARE,
                ));
            }
        };
        let (hash, block) = match result {
            Ok(ShareValidationResult::Valid(hash)) => (hash, None),
            // Not the library's coinbase: see `blocks/assembly.rs`.
            Ok(ShareValidationResult::BlockFound(hash, template_id, _)) => {
                let proven = BlockHash::from_byte_array(hash.to_byte_array());
                let block = self.solved(share, template_id, proven);
                (hash, Some(block))
            }
            Err(ShareValidationError::InvalidJobId(_)) => return Err(self.no_job(share.job_id)),
            Err(error) => return Err(refusal(&error)),
        };
        let header_hash = hash.to_byte_array();
        let Some(job_target) = self.job_targets.get(share.channels_job_id) else {
            return Err(self.no_job(share.job_id));
        };
        // On an easy chain a block can miss the share target; it is then worth a block's work,
        // not a share's.
        let met = Target::from_le_bytes(header_hash) <= job_target;
        let network = self.chain_tip().map_or(job_target, |tip| {
            Target::from_compact(bitcoin::CompactTarget::from_consensus(tip.nbits()))
        });
        let target = if met { job_target } else { network };
        let work = work_of(target);
        // It shows what the miner hashes, whether it counts or not.
        self.vardiff.found(work.get() as f64);
        if block.is_none() && self.job_targets.has_ended(share.channels_job_id, now) {
            return Err(ShareRefusal::Standard(ERROR_CODE_SUBMIT_SHARES_STALE_SHARE));
        }
        Ok(ValidShare {
            header_hash,
            work,
            target,
            block_work: work_of(network),
            block,
        })
    }

    /// What a live job says of its headers.
    fn rules(&self, share: &SubmittedShare) -> Option<JobHeader> {
        let job_id = share.channels_job_id;
        let (job, extranonce_size) = match (&self.kind, &share.message) {
            (Kind::Standard(_), ShareMessage::Standard(_)) => {
                (self.hashed_jobs.get(&job_id)?.as_ref(), 0)
            }
            (Kind::Extended(channel), ShareMessage::Extended(_)) => (
                self.live_job(job_id)?,
                usize::from(channel.get_rollable_extranonce_size()),
            ),
            _ => return None,
        };
        Some(JobHeader {
            version: job.get_version(),
            version_rolling: job.version_rolling_allowed(),
            // The copy of a standard channel's first job was made before its tip named it.
            min_ntime: job
                .get_min_ntime()
                .or_else(|| Some(self.chain_tip()?.min_ntime()))?,
            extranonce_size,
        })
    }

    /// Why a share's job is none that takes shares.
    pub(crate) fn no_job(&self, job_id: u32) -> ShareRefusal {
        ShareRefusal::Standard(match self.given.contains(job_id) {
            true => ERROR_CODE_SUBMIT_SHARES_STALE_SHARE,
            false => ERROR_CODE_SUBMIT_SHARES_INVALID_JOB_ID,
        })
    }

    /// The block of a share that solves one.
    fn solved(
        &self,
        share: &SubmittedShare,
        template_id: Option<u64>,
        proven: BlockHash,
    ) -> Result<SolvedBlock, AssemblyError> {
        let job_id = share.channels_job_id;
        let (job, prefix) = self
            .hashed_job(job_id)
            .ok_or(AssemblyError::NoJob(job_id))?;
        let tip = self.chain_tip().ok_or(AssemblyError::NoTip)?;
        let extranonce = [prefix, &share.extranonce].concat();
        let fields = &share.header;
        let account = &self.account;
        assemble(job, &extranonce, fields, tip, template_id, account, proven)
    }

    /// What was hashed for a share, if it is what this header's hash says.
    pub(crate) fn hashed(&self, share: &SubmittedShare, header_hash: &[u8; 32]) -> Option<Hashed> {
        let (job, prefix) = self.hashed_job(share.channels_job_id)?;
        let tip = self.chain_tip()?;
        let coinbase = coinbase_of(job, prefix, &share.extranonce);
        let merkle_root =
            merkle_root_from_path(&coinbase, &[], &[], job.get_merkle_path().as_slice())?;
        let prev_hash = tip.prev_hash().into_array();
        let header = share.header.header(prev_hash, tip.nbits(), merkle_root);
        if header.block_hash().to_byte_array() != *header_hash {
            return None;
        }
        Some(Hashed {
            header: serialize(&header).try_into().ok()?,
            coinbase,
            merkle_path: merkle_path(job),
        })
    }

    /// A job whose headers the channel solves, and what stands before the miner's own extranonce in its coinbase.
    fn hashed_job(&self, job_id: u32) -> Option<(&ExtendedJob, &[u8])> {
        Some(match &self.kind {
            Kind::Standard(channel) => {
                let job = self.hashed_jobs.get(&job_id)?;
                (job.as_ref(), channel.get_extranonce_prefix())
            }
            Kind::Extended(_) => {
                let job = self.live_job(job_id)?;
                (job, job.get_extranonce_prefix())
            }
        })
    }

    fn chain_tip(&self) -> Option<&ChainTip> {
        match &self.kind {
            Kind::Standard(channel) => channel.get_chain_tip(),
            Kind::Extended(channel) => channel.get_chain_tip(),
        }
    }

    /// Takes the client's own estimate (`UpdateChannel`). Whether the target changed.
    ///
    /// # Errors
    /// The code for `UpdateChannel.Error`.
    pub(crate) fn state_rate(
        &mut self,
        nominal: f32,
        max_target: Target,
        now: Instant,
    ) -> Result<bool, StandardCode> {
        let stated = stated_rate(nominal).ok_or(BAD_RATE)?;
        if max_target == Target::ZERO {
            return Err(BAD_TARGET);
        }
        self.time_passed(now);
        self.vardiff.state(stated);
        self.aim(Some(max_target))
    }

    /// Looks at the work that was proven up to now, unless it has just done so. Whether the target changed.
    pub(crate) fn steer(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked_at) < STEER_INTERVAL {
            return false;
        }
        // The library takes every rate that `Vardiff` has.
        self.time_passed(now) && self.aim(None).unwrap_or(false)
    }

    fn time_passed(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.looked_at);
        self.looked_at = now;
        let share_work = work_of(self.target()).get() as f64;
        self.vardiff.passed(elapsed, share_work)
    }

    /// Sets the target for the rate, as hard as the client wants it at least. Whether it changed.
    fn aim(&mut self, max_target: Option<Target>) -> Result<bool, StandardCode> {
        let before = self.target();
        let rate = self.vardiff.rate() as f32;
        match &mut self.kind {
            Kind::Standard(channel) => {
                channel
                    .update_channel(rate, max_target)
                    .map_err(|error| match error {
                        StandardChannelError::UpdateChannelInvalidMaxTarget(_) => BAD_TARGET,
                        _ => BAD_RATE,
                    })?;
            }
            Kind::Extended(channel) => {
                channel
                    .update_channel(rate, max_target)
                    .map_err(|error| match error {
                        ExtendedChannelError::UpdateChannelInvalidMaxTarget(_) => BAD_TARGET,
                        _ => BAD_RATE,
                    })?;
            }
        }
        Ok(self.target() != before)
    }
}

/// The work that `target` asks for.
fn work_of(target: Target) -> Work {
    Work::from_be_bytes(target.to_work().to_be_bytes())
}

/// The coinbase as it is hashed: without its witness.
fn coinbase_of(job: &ExtendedJob, prefix: &[u8], extranonce: &[u8]) -> Vec<u8> {
    let mut bytes = job.get_coinbase_tx_prefix_without_bip141();
    bytes.extend_from_slice(prefix);
    bytes.extend_from_slice(extranonce);
    bytes.extend_from_slice(&job.get_coinbase_tx_suffix_without_bip141());
    bytes
}

fn refusal(error: &ShareValidationError) -> ShareRefusal {
    match error {
        ShareValidationError::Invalid(code)
        | ShareValidationError::Stale(code)
        | ShareValidationError::InvalidJobId(code)
        | ShareValidationError::DoesNotMeetTarget(code)
        | ShareValidationError::VersionRollingNotAllowed(code)
        | ShareValidationError::DuplicateShare(code)
        | ShareValidationError::BadExtranonceSize(code) => ShareRefusal::Standard(code),
        ShareValidationError::InvalidCoinbase | ShareValidationError::NoChainTip => {
            ShareRefusal::Standard(ERROR_CODE_SUBMIT_SHARES_INVALID_SHARE)
        }
        ShareValidationError::SeenSharesBudgetExhausted => {
            ShareRefusal::CloseChannel("share-budget-exhausted")
        }
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
