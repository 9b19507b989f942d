//! Opening, updating and closing channels (Sv2 specification, sections 5.2, 5.3.2 to 5.3.9).

use std::time::Instant;

use bitcoin::Target;
use dovetail_sv2::vardiff::stated_rate;
use dovetail_sv2::{EndReason, Identity, Vardiff};
use dovetail_telemetry::Event;
use stratum_core::channels_sv2::server::error::{ExtendedChannelError, StandardChannelError};
use stratum_core::channels_sv2::server::extended::ExtendedChannel;
use stratum_core::channels_sv2::server::standard::StandardChannel;
use stratum_core::mining_sv2::{
    self, CloseChannelOwned, OpenExtendedMiningChannelOwned, OpenExtendedMiningChannelSuccessOwned,
    OpenMiningChannelErrorOwned, OpenStandardMiningChannelOwned,
    OpenStandardMiningChannelSuccessOwned, UpdateChannelErrorOwned, UpdateChannelOwned,
};

use super::channel::Channel;
use crate::mining::connection::Connection;
use crate::mining::fields::{SOURCE_AWAY, StandardCode, code_text, owned};

/// There is no room for another channel.
const FULL: StandardCode = mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED;
/// How many shares `channels_sv2` counts before it would acknowledge; we acknowledge what the
/// ledger has made durable instead, so this only has to be positive.
const SHARE_BATCH_SIZE: usize = 1;
/// Jobs of one tip that still take shares on an extended channel. A declared job is hashed while the
/// pool's own templates come and go, every few seconds on a busy chain; it has to outlive minutes of them.
const PAST_JOBS_MAX: usize = 64;

impl Connection {
    pub(in crate::mining) fn on_open_standard(
        &mut self,
        message: &OpenStandardMiningChannelOwned,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        let (channel_id, channel) = match self.standard_channel(message) {
            Ok(opened) => opened,
            Err(code) => return self.refuse_open(request_id, code),
        };
        self.send(&OpenStandardMiningChannelSuccessOwned {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_prefix: owned(channel.extranonce_prefix())?,
            group_channel_id: self.group_id,
        })?;
        self.begin(channel_id, channel)
    }

    fn standard_channel(
        &mut self,
        message: &OpenStandardMiningChannelOwned,
    ) -> Result<(u32, Channel), StandardCode> {
        if self.flags.requires_work_selection {
            return Err(mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_STANDARD_CHANNELS_NOT_SUPPORTED_FOR_CUSTOM_WORK);
        }
        let request = self.admit(
            &text(message.user_identity.as_bytes()),
            message.nominal_hash_rate,
        )?;
        let prefix = self.extranonces().allocate_standard();
        let channel_id = self.take_channel_id();
        let mining = &self.shared.config.mining;
        let channel = StandardChannel::new_for_pool(
            channel_id,
            request.identity.account().to_owned(),
            prefix.map_err(|_| FULL)?,
            Target::from_le_bytes(*message.max_target.as_array()),
            request.vardiff.rate() as f32,
            SHARE_BATCH_SIZE,
            mining.shares_per_minute,
            mining.tag.clone(),
            None,
        )
        .map_err(|error| standard_code(&error))?;
        let channel = Channel::standard(channel, request.identity, request.vardiff);
        Ok((channel_id, channel))
    }

    pub(in crate::mining) fn on_open_extended(
        &mut self,
        message: &OpenExtendedMiningChannelOwned,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        let (channel_id, channel) = match self.extended_channel(message) {
            Ok(opened) => opened,
            Err(code) => return self.refuse_open(request_id, code),
        };
        let extended = channel.as_extended();
        let extranonce_size = extended.map_or(0, ExtendedChannel::get_rollable_extranonce_size);
        self.send(&OpenExtendedMiningChannelSuccessOwned {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_size,
            extranonce_prefix: owned(channel.extranonce_prefix())?,
            group_channel_id: self.group_id,
        })?;
        self.begin(channel_id, channel)
    }

    fn extended_channel(
        &mut self,
        message: &OpenExtendedMiningChannelOwned,
    ) -> Result<(u32, Channel), StandardCode> {
        if self.flags.requires_standard_jobs {
            return Err(mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_EXTENDED_CHANNELS_NOT_SUPPORTED_FOR_STANDARD_JOBS);
        }
        let request = self.admit(
            &text(message.user_identity.as_bytes()),
            message.nominal_hash_rate,
        )?;
        let (prefix, rollable) = {
            let mut extranonces = self.extranonces();
            let prefix = extranonces.allocate_extended(usize::from(message.min_extranonce_size));
            (prefix, u16::from(extranonces.rollable_extranonce_size()))
        };
        let channel_id = self.take_channel_id();
        let mining = &self.shared.config.mining;
        let channel = ExtendedChannel::new_for_pool(
            channel_id,
            request.identity.account().to_owned(),
            prefix.map_err(|_| {
                mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_MIN_EXTRANONCE_SIZE_TOO_LARGE
            })?,
            Target::from_le_bytes(*message.max_target.as_array()),
            request.vardiff.rate() as f32,
            true,
            rollable,
            SHARE_BATCH_SIZE,
            mining.shares_per_minute,
            mining.tag.clone(),
            Some(PAST_JOBS_MAX),
        )
        .map_err(|error| extended_code(&error))?;
        let channel = Channel::extended(channel, request.identity, request.vardiff);
        Ok((channel_id, channel))
    }

    pub(in crate::mining) fn on_update_channel(
        &mut self,
        message: &UpdateChannelOwned,
    ) -> Result<(), EndReason> {
        let max_target = Target::from_le_bytes(message.maximum_target.clone().into_array());
        let updated = match self.channels.get_mut(&message.channel_id) {
            Some(channel) => {
                channel.state_rate(message.nominal_hash_rate, max_target, Instant::now())
            }
            None => Err(mining_sv2::ERROR_CODE_UPDATE_CHANNEL_INVALID_CHANNEL_ID),
        };
        match updated {
            Ok(true) => self.change_target(message.channel_id),
            Ok(false) => Ok(()),
            Err(code) => self.send(&UpdateChannelErrorOwned {
                channel_id: message.channel_id,
                error_code: code_text(code)?,
            }),
        }
    }

    /// Closing the group closes its members (5.3.9).
    pub(in crate::mining) fn on_close_channel(&mut self, message: &CloseChannelOwned) {
        if message.channel_id == self.group_id {
            self.channels.clear();
        } else {
            self.channels.remove(&message.channel_id);
        }
    }

    fn refuse_open(&mut self, request_id: u32, code: &str) -> Result<(), EndReason> {
        tracing::debug!(code, "a channel was refused");
        self.send(&OpenMiningChannelErrorOwned {
            request_id,
            error_code: code_text(code)?,
        })
    }

    /// The checks that both kinds of channel share.
    fn admit(&mut self, identity: &str, nominal_hash_rate: f32) -> Result<Admitted, StandardCode> {
        if self.channels.len() >= self.channels_max() {
            return Err(FULL);
        }
        if self.shared.templates.is_stale() {
            return Err(SOURCE_AWAY);
        }
        let identity = self.identity(identity)?;
        self.vouch(identity.account());
        let stated = stated_rate(nominal_hash_rate)
            .ok_or(mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_INVALID_NOMINAL_HASHRATE)?;
        let mining = &self.shared.config.mining;
        let vardiff = Vardiff::new(
            f64::from(mining.shares_per_minute),
            f64::from(mining.min_hashrate),
            stated,
        );
        Ok(Admitted { identity, vardiff })
    }

    /// Whoever has earned before may keep a reserved place for a while.
    fn vouch(&mut self, account: &str) {
        if self.voucher.is_none() && !self.place.has_proven() {
            self.voucher = self.shared.known_accounts.vouch(account);
            if self.voucher.is_some() {
                self.place.vouch();
            }
        }
    }

    /// How many channels the connection may have open now: a few, and more as they prove work.
    fn channels_max(&mut self) -> usize {
        let channels = &self.channels;
        self.proven_channels.retain(|id| channels.contains_key(id));
        let config = &self.shared.config.mining;
        let earned = config.channels_unproven_max + 3 * self.proven_channels.len();
        earned.min(config.channels_per_connection_max)
    }

    /// Whose the channel's work is to be. The code that the miner is sent does not say what is wrong, so the log does.
    fn identity(&self, text: &str) -> Result<Identity, StandardCode> {
        let rules = self.shared.config.mining.identity_rules();
        rules.admit(text).map_err(|refusal| {
            tracing::warn!(id = self.id, identity = text, %refusal, "a miner's identity was refused");
            mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_INVALID_USER_IDENTITY
        })
    }

    /// Gives the new channel its first job, as a future job, and the tip (5.3.15), unless its client takes none of the pool's jobs.
    fn begin(&mut self, channel_id: u32, channel: Channel) -> Result<(), EndReason> {
        let device = channel.device();
        self.shared.telemetry.emit(&Event::ChannelOpened {
            worker: channel.account(),
            device,
            connection: self.id,
            channel: channel_id,
        });
        tracing::info!(
            id = self.id,
            channel_id,
            account = channel.account(),
            device,
            "a channel was opened"
        );
        self.channels.insert(channel_id, channel);
        self.first_job(channel_id)
    }
}

/// What a channel is opened with.
struct Admitted {
    identity: Identity,
    vardiff: Vardiff,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn standard_code(error: &StandardChannelError) -> StandardCode {
    match error {
        StandardChannelError::OpenChannelInvalidNominalHashrate(code)
        | StandardChannelError::OpenChannelInvalidMaxTarget(code) => code,
        _ => FULL,
    }
}

fn extended_code(error: &ExtendedChannelError) -> StandardCode {
    match error {
        ExtendedChannelError::OpenChannelInvalidNominalHashrate(code)
        | ExtendedChannelError::OpenChannelInvalidMaxTarget(code)
        | ExtendedChannelError::RequestedMinExtranonceSizeTooLarge(code) => code,
        _ => FULL,
    }
}
