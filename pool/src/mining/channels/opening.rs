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

/// How many shares `channels_sv2` counts before it would acknowledge; we acknowledge what the
/// ledger has made durable instead, so this only has to be positive.
const SHARE_BATCH_SIZE: usize = 1;
/// Jobs of one tip that still take shares on an extended channel. A declared job is hashed while the
/// pool's own templates come and go, every few seconds on a busy chain; it has to outlive minutes of them.
const PAST_JOBS_MAX: usize = 64;

impl Connection {
    pub(in crate::mining) fn on_open_standard(
        &mut self,
        message: OpenStandardMiningChannelOwned,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        if self.flags.requires_work_selection {
            return self.refuse_open(
                request_id,
                mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_STANDARD_CHANNELS_NOT_SUPPORTED_FOR_CUSTOM_WORK,
            );
        }
        let request = match self.admit(
            &text(message.user_identity.as_bytes()),
            message.nominal_hash_rate,
            message.max_target.clone().into_array(),
        ) {
            Ok(request) => request,
            Err(code) => return self.refuse_open(request_id, code),
        };
        let Ok(prefix) = self.extranonces().allocate_standard() else {
            return self.refuse_open(
                request_id,
                mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED,
            );
        };
        let channel_id = self.take_channel_id();
        let opened = StandardChannel::new_for_pool(
            channel_id,
            request.account.clone(),
            prefix,
            request.max_target,
            request.vardiff.rate() as f32,
            SHARE_BATCH_SIZE,
            self.shared.config.mining.shares_per_minute,
            self.shared.config.mining.tag.clone(),
            None,
        );
        let channel = match opened {
            Ok(channel) => Channel::standard(channel, request.account, request.vardiff),
            Err(error) => return self.refuse_open(request_id, standard_code(&error)),
        };
        self.send(&OpenStandardMiningChannelSuccessOwned {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_prefix: owned(channel.extranonce_prefix())?,
            group_channel_id: self.group_of(&channel),
        })?;
        self.begin(channel_id, channel, request.device.as_deref())
    }

    pub(in crate::mining) fn on_open_extended(
        &mut self,
        message: OpenExtendedMiningChannelOwned,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        if self.flags.requires_standard_jobs {
            return self.refuse_open(
                request_id,
                mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_EXTENDED_CHANNELS_NOT_SUPPORTED_FOR_STANDARD_JOBS,
            );
        }
        let request = match self.admit(
            &text(message.user_identity.as_bytes()),
            message.nominal_hash_rate,
            message.max_target.clone().into_array(),
        ) {
            Ok(request) => request,
            Err(code) => return self.refuse_open(request_id, code),
        };
        let allocated = {
            let mut extranonces = self.extranonces();
            extranonces
                .allocate_extended(usize::from(message.min_extranonce_size))
                .map(|prefix| (prefix, extranonces.rollable_extranonce_size()))
        };
        let Ok((prefix, rollable)) = allocated else {
            return self.refuse_open(
                request_id,
                mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_MIN_EXTRANONCE_SIZE_TOO_LARGE,
            );
        };
        let channel_id = self.take_channel_id();
        let opened = ExtendedChannel::new_for_pool(
            channel_id,
            request.account.clone(),
            prefix,
            request.max_target,
            request.vardiff.rate() as f32,
            true,
            u16::from(rollable),
            SHARE_BATCH_SIZE,
            self.shared.config.mining.shares_per_minute,
            self.shared.config.mining.tag.clone(),
            Some(PAST_JOBS_MAX),
        );
        let channel = match opened {
            Ok(channel) => Channel::extended(channel, request.account, request.vardiff),
            Err(error) => return self.refuse_open(request_id, extended_code(&error)),
        };
        self.send(&OpenExtendedMiningChannelSuccessOwned {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_size: u16::from(rollable),
            extranonce_prefix: owned(channel.extranonce_prefix())?,
            group_channel_id: self.group_of(&channel),
        })?;
        self.begin(channel_id, channel, request.device.as_deref())
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
    fn admit(
        &mut self,
        identity: &str,
        nominal_hash_rate: f32,
        max_target: [u8; 32],
    ) -> Result<Admitted, StandardCode> {
        if self.channels.len() >= self.channels_max() {
            return Err(mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED);
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
        Ok(Admitted {
            account: identity.account().to_owned(),
            device: identity.device,
            max_target: Target::from_le_bytes(max_target),
            vardiff,
        })
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
        let parsed = Identity::parse(text).and_then(|identity| {
            identity.payee.fits(self.shared.config.mining.network)?;
            Ok(identity)
        });
        parsed.map_err(|refusal| {
            tracing::warn!(id = self.id, identity = text, %refusal, "a miner's identity was refused");
            mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_INVALID_USER_IDENTITY
        })
    }

    /// Clients of standard jobs are in no group: they could not use a group's extended jobs.
    fn group_of(&self, _channel: &Channel) -> u32 {
        self.group_id
    }

    /// Gives the new channel its first job, as a future job, and the tip (5.3.15).
    fn begin(
        &mut self,
        channel_id: u32,
        channel: Channel,
        device: Option<&str>,
    ) -> Result<(), EndReason> {
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

struct Admitted {
    account: String,
    /// Which of the account's devices it is.
    device: Option<String>,
    max_target: Target,
    vardiff: Vardiff,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn standard_code(error: &StandardChannelError) -> StandardCode {
    match error {
        StandardChannelError::OpenChannelInvalidNominalHashrate(code)
        | StandardChannelError::OpenChannelInvalidMaxTarget(code) => code,
        _ => mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED,
    }
}

fn extended_code(error: &ExtendedChannelError) -> StandardCode {
    match error {
        ExtendedChannelError::OpenChannelInvalidNominalHashrate(code)
        | ExtendedChannelError::OpenChannelInvalidMaxTarget(code)
        | ExtendedChannelError::RequestedMinExtranonceSizeTooLarge(code) => code,
        _ => mining_sv2::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED,
    }
}
