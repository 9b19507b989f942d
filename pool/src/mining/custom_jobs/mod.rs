//! `SetCustomMiningJob` (Sv2 specification, section 5.3.18): from a token to a job on the channel. A declared
//! job comes from the ledger, and counts because its token has the declarator's MAC over it; a job in
//! coinbase-only mode comes with its message, and is checked here.

pub(super) mod accepted_jobs;
mod checks;
mod codes;
mod coinbase_only_jobs;
mod declared_jobs;
mod token;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitcoin::Transaction;
use dovetail_jd::token::{JobToken, TokenKind};
use dovetail_ledger::LedgerError;
use dovetail_sv2::EndReason;
use dovetail_templates::height_of;
use dovetail_units::header::TIME_AHEAD_MAX_S;
use dovetail_units::time::header_time_now;
use stratum_core::channels_sv2::server::extended::ExtendedChannel;
use stratum_core::mining_sv2::{
    SetCustomMiningJobErrorOwned, SetCustomMiningJobOwned, SetCustomMiningJobSuccess,
};

use super::connection::Connection;
use super::fields::{StandardCode, code_text};
use crate::header_spaces::HeaderSpace;
use accepted_jobs::{AcceptedJob, ChannelJob};
use codes::{BAD_CHANNEL, BAD_COINBASE, BAD_PREFIX, BAD_TOKEN, NOT_SUPPORTED, NOT_YET, STALE};

/// The declarator's node may hear of a block before the pool's: how long a job one block ahead waits for the
/// pool's node to follow. It delays only its own connection.
const TIP_WAIT_MAX: Duration = Duration::from_secs(1);

impl Connection {
    pub(in crate::mining) async fn on_set_custom_job(
        &mut self,
        message: SetCustomMiningJobOwned,
    ) -> Result<(), EndReason> {
        let (channel_id, request_id) = (message.channel_id, message.request_id);
        self.catch_up(&message).await?;
        match self.accept_custom_job(message).await {
            Ok(job_id) => {
                tracing::info!(id = self.id, channel_id, job_id, "declared job accepted");
                self.send(&SetCustomMiningJobSuccess {
                    channel_id,
                    request_id,
                    job_id,
                })
            }
            Err(code) => {
                tracing::info!(id = self.id, channel_id, code, "declared job refused");
                self.send(&SetCustomMiningJobErrorOwned {
                    channel_id,
                    request_id,
                    error_code: code_text(code)?,
                })
            }
        }
    }

    /// Takes new work that has come or is about to, if the job is for the block after the pool's, or the
    /// connection has only just started and has no work yet.
    async fn catch_up(&mut self, message: &SetCustomMiningJobOwned) -> Result<(), EndReason> {
        let height = height_of(message.coinbase_prefix.as_bytes());
        let ours = self.work.as_ref().map(|work| work.height());
        let is_next = ours.is_none_or(|ours| height == ours.checked_add(1));
        if height.is_none() || !is_next {
            return Ok(());
        }
        let mut newest = self.shared.templates.subscribe();
        let followed = newest.wait_for(|work| {
            work.as_ref()
                .is_some_and(|work| Some(work.height()) == height)
        });
        let work = match tokio::time::timeout(TIP_WAIT_MAX, followed).await {
            Ok(Ok(work)) => work.clone(),
            _ => None,
        };
        work.map_or(Ok(()), |work| self.on_work(work))
    }

    async fn accept_custom_job(
        &mut self,
        message: SetCustomMiningJobOwned,
    ) -> Result<u32, StandardCode> {
        if !self.flags.requires_work_selection {
            return Err(NOT_SUPPORTED);
        }
        if self.shared.templates.is_stale() {
            return Err(STALE);
        }
        let channels = self.channels_for(message.channel_id)?;
        let (account, extranonce_size) = self.account_of(&channels)?;
        let work = self.work.clone().ok_or(STALE)?;
        let token = JobToken::parse(message.token.as_bytes())
            .map_err(|error| token::bad_token(&account, error))?;
        checks::check_header(&message, &work, header_time_now())?;
        let coinbase = checks::coinbase_of(&message, extranonce_size)?;
        if self.jobs.is_own_form(message.coinbase_prefix.as_bytes()) {
            return Err(BAD_PREFIX);
        }
        let job = match token.kind {
            TokenKind::Declared => {
                let declared = self.declared(&token, &account).await?;
                checks::check_declared(&message, &coinbase, &declared, extranonce_size)?;
                self.declared_job(declared).await?
            }
            TokenKind::CoinbaseOnly => {
                self.check_coinbase_only_token(&token, &account)?;
                self.coinbase_only_job(&message, &coinbase, &account, &work)
                    .await?
            }
        };
        self.spend_token(&token).await?;
        self.install_custom(&channels, &message, &coinbase, job)
    }

    /// The channels that a custom job is for: one extended channel, or those of the group. Its standard channels are
    /// passed over (5.3.18).
    fn channels_for(&self, channel_id: u32) -> Result<Vec<u32>, StandardCode> {
        let named = |id: &u32| channel_id == self.group_id || *id == channel_id;
        let channels = self.channels.iter();
        let channels: Vec<u32> = channels
            .filter(|(id, channel)| named(id) && channel.as_extended().is_some())
            .map(|(id, _)| *id)
            .collect();
        match channels.is_empty() {
            true => Err(BAD_CHANNEL),
            false => Ok(channels),
        }
    }

    /// The account that these channels earn for, which must be one, since a job's token is one account's; and the bytes
    /// of their whole extranonce, which are as many on all channels of a connection.
    fn account_of(&self, channels: &[u32]) -> Result<(String, usize), StandardCode> {
        let channels = channels.iter().filter_map(|id| self.channels.get(id));
        let mut whose =
            channels.filter_map(|channel| Some((channel.account(), channel.as_extended()?)));
        let (account, extended) = whose.next().ok_or(BAD_CHANNEL)?;
        match whose.all(|(other, _)| other == account) {
            true => Ok((account.to_owned(), extended.get_full_extranonce_size())),
            false => Err(BAD_TOKEN),
        }
    }

    /// Makes a checked job that of the channels. Header spaces are paid, not jobs: one that they have already is that
    /// job, and one that was hashed before keeps its target.
    fn install_custom(
        &mut self,
        channels: &[u32],
        message: &SetCustomMiningJobOwned,
        coinbase: &Transaction,
        job: AcceptedJob,
    ) -> Result<u32, StandardCode> {
        let space = |id: &u32| {
            let prefix = self.channels.get(id)?.extranonce_prefix();
            Some((*id, HeaderSpace::of(message, coinbase, prefix)))
        };
        let spaces: BTreeMap<u32, HeaderSpace> = channels.iter().filter_map(space).collect();
        let is_live = |id: u32, job_id: u32| {
            let channel = self.channels.get(&id);
            channel.is_some_and(|channel| channel.live_job(job_id).is_some())
        };
        if let Some(job_id) = self.accepted.same(&spaces, is_live) {
            return Ok(job_id);
        }
        let job_id = self.accepted.next_job_id();
        let mut installed = BTreeMap::new();
        for (channel_id, space) in spaces {
            let on_channel = self.install_custom_on(channel_id, job_id, space, message)?;
            installed.insert(channel_id, on_channel);
        }
        self.accepted.insert(job_id, job, installed);
        Ok(job_id)
    }

    fn install_custom_on(
        &mut self,
        channel_id: u32,
        job_id: u32,
        space: HeaderSpace,
        message: &SetCustomMiningJobOwned,
    ) -> Result<ChannelJob, StandardCode> {
        let mut message = message.clone();
        let channel = self.channels.get_mut(&channel_id).ok_or(BAD_CHANNEL)?;
        let tip = channel
            .as_extended()
            .and_then(ExtendedChannel::get_chain_tip);
        if let Some(tip) = tip.filter(|tip| tip.prev_hash() == message.prev_hash) {
            message.min_ntime =
                channel_ntime(tip.min_ntime(), message.min_ntime, header_time_now());
            self.min_ntime = self.min_ntime.max(message.min_ntime);
        }
        let tip = *message.prev_hash.as_array();
        let spaces = &self.shared.header_spaces;
        let target = spaces.target(tip, space, channel.target());
        let target = target.ok_or(NOT_YET)?;
        let installed = channel.install_custom(job_id, message, target, Instant::now());
        let job_id = installed.map_err(|error| {
            tracing::error!(error, "a checked job did not fit its channel");
            BAD_COINBASE
        })?;
        Ok(ChannelJob { job_id, space })
    }
}

/// The least time that a channel gives a job which starts at `wanted`. One that differs from the channel's ends its
/// other jobs, so the job needs no own where the channel takes earlier times already; unless the channel's lies so far
/// back that the time of day would soon be too far ahead of it.
fn channel_ntime(channels: u32, wanted: u32, now: u32) -> u32 {
    match wanted.checked_sub(channels) {
        Some(ahead) if ahead <= TIME_AHEAD_MAX_S / 2 => channels,
        // Not later than the pool's own next job may start.
        Some(_) => wanted.min(now).max(channels),
        None => wanted,
    }
}

/// The ledger is away: the miner may try the same job again.
fn not_yet(error: &LedgerError) -> StandardCode {
    tracing::error!(%error, "a declared job cannot be checked");
    NOT_YET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_job_keeps_its_channels_time_unless_that_is_an_hour_old() {
        let now = 100_000;
        assert_eq!(channel_ntime(99_000, 99_500, now), 99_000);
        assert_eq!(channel_ntime(99_500, 99_499, now), 99_499);
        assert_eq!(channel_ntime(90_000, 99_900, now), 99_900);
        assert_eq!(channel_ntime(90_000, 100_200, now), now);
        assert_eq!(channel_ntime(90_000, 90_000, now), 90_000);
    }
}
