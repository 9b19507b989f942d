//! Opening, updating and closing firmware channels (Sv2 specification, sections 5.2, 5.3.2 to
//! 5.3.9). All work behind this port is the miner's, so a user identity only tells devices apart in the log.

use std::time::Instant;

use dovetail_sv2::Identity;
use dovetail_sv2::messages::{
    CloseChannel, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    OpenMiningChannelError, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, U256Owned,
    UpdateChannel, UpdateChannelError,
};
use dovetail_sv2::server::EndReason;
use stratum_core::channels_sv2::extranonce_manager::AllocatedExtranoncePrefix;
use stratum_core::mining_sv2 as codes;

use super::channel::{Channel, Kind, Steering};
use super::connection::{Connection, GROUP_ID, prefix, text};
use crate::current_job::NoRoom;
use crate::stats;

impl Connection {
    pub(super) fn on_open_standard(
        &mut self,
        message: &OpenStandardMiningChannel,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        let allocated = self.current_job.standard_prefix();
        let full = codes::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED;
        let opened = self.open(
            Kind::Standard,
            allocated.map_err(|NoRoom| full),
            message.nominal_hash_rate,
            &message.max_target,
        );
        let (channel_id, channel) = match opened {
            Ok(opened) => opened,
            Err(code) => return self.refuse_open(request_id, code),
        };
        self.send(&OpenStandardMiningChannelSuccess {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_prefix: prefix(channel.extranonce_prefix())?,
            group_channel_id: GROUP_ID,
        })?;
        self.begin(channel_id, channel, &message.user_identity.as_utf8_or_hex())
    }

    pub(super) fn on_open_extended(
        &mut self,
        message: &OpenExtendedMiningChannel,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        if self.standard_only {
            return self.refuse_open(
                request_id,
                codes::ERROR_CODE_OPEN_MINING_CHANNEL_EXTENDED_CHANNELS_NOT_SUPPORTED_FOR_STANDARD_JOBS,
            );
        }
        let rolled = self.current_job.rolled_bytes();
        let wanted = usize::from(message.min_extranonce_size);
        let full = match wanted > rolled {
            true => codes::ERROR_CODE_OPEN_MINING_CHANNEL_MIN_EXTRANONCE_SIZE_TOO_LARGE,
            false => codes::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED,
        };
        let allocated = self.current_job.extended_prefix(wanted);
        let opened = self.open(
            Kind::Extended,
            allocated.map_err(|NoRoom| full),
            message.nominal_hash_rate,
            &message.max_target,
        );
        let (channel_id, channel) = match opened {
            Ok(opened) => opened,
            Err(code) => return self.refuse_open(request_id, code),
        };
        self.send(&OpenExtendedMiningChannelSuccess {
            request_id,
            channel_id,
            target: channel.target().to_le_bytes().into(),
            extranonce_size: u16::try_from(rolled).unwrap_or(0),
            extranonce_prefix: prefix(channel.extranonce_prefix())?,
            group_channel_id: GROUP_ID,
        })?;
        self.begin(channel_id, channel, &message.user_identity.as_utf8_or_hex())
    }

    /// The checks that both kinds of channel share.
    fn open(
        &mut self,
        kind: Kind,
        allocated: Result<AllocatedExtranoncePrefix, &'static str>,
        hash_rate: f32,
        target_max: &U256Owned,
    ) -> Result<(u32, Channel), &'static str> {
        if self.channels.len() >= self.options.channels_per_connection_max {
            return Err(codes::ERROR_CODE_OPEN_MINING_CHANNEL_CHANNEL_CAPACITY_EXHAUSTED);
        }
        let steering = Steering {
            shares_per_minute: self.options.shares_per_minute,
            hash_rate_min: self.options.min_hash_rate,
        };
        let channel = Channel::new(kind, allocated?, steering, hash_rate, target_max.to_array())?;
        Ok((self.take_channel_id(), channel))
    }

    fn begin(
        &mut self,
        channel_id: u32,
        channel: Channel,
        user_identity: &str,
    ) -> Result<(), EndReason> {
        stats::count(&self.current_job.stats().channels);
        let device = device_of(user_identity);
        tracing::info!(channel_id, kind = ?channel.kind(), device, "firmware opened a channel");
        self.channels.insert(channel_id, channel);
        self.first_job(channel_id)
    }

    fn refuse_open(&self, request_id: u32, code: &str) -> Result<(), EndReason> {
        tracing::debug!(code, "a firmware channel was refused");
        self.send(&OpenMiningChannelError {
            request_id,
            error_code: text(code)?,
        })
    }

    pub(super) fn on_update_channel(&mut self, message: &UpdateChannel) -> Result<(), EndReason> {
        let channel_id = message.channel_id;
        let updated = match self.channels.get_mut(&channel_id) {
            Some(channel) => channel.update(
                message.nominal_hash_rate,
                message.maximum_target.to_array(),
                Instant::now(),
            ),
            None => Err(codes::ERROR_CODE_UPDATE_CHANNEL_INVALID_CHANNEL_ID),
        };
        match updated {
            Ok(true) => self.change_target(channel_id),
            Ok(false) => Ok(()),
            Err(code) => self.send(&UpdateChannelError {
                channel_id,
                error_code: text(code)?,
            }),
        }
    }

    /// Closing the group closes its members (5.3.9).
    pub(super) fn on_close_channel(&mut self, message: &CloseChannel) {
        if message.channel_id == GROUP_ID {
            self.close_all();
        } else if self.channels.remove(&message.channel_id).is_some() {
            stats::uncount(&self.current_job.stats().channels);
        }
    }
}

/// What the log calls the device: what it calls itself, or else the miner that it names. Nobody is refused for a name
/// here.
fn device_of(user_identity: &str) -> String {
    match Identity::parse(user_identity) {
        Ok(Identity { payee, device }) => device.unwrap_or_else(|| payee.to_string()),
        Err(_) => user_identity.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::device_of;

    #[test]
    fn a_device_is_called_as_it_calls_itself() {
        for (identity, device) in [
            ("you@wallet.com/kitchen", "kitchen"),
            ("alice.rig1", "rig1"),
            ("bitaxe", "bitaxe"),
            ("a\nb", "a\\nb"),
            ("", ""),
        ] {
            assert_eq!(device_of(identity), device, "{identity:?}");
        }
    }
}
