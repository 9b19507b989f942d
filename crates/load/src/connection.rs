//! A real connection: TCP, Noise, `SetupConnection`, one channel and its first job; and further channels on it.

use std::time::Instant;

use anyhow::{Context, bail};
use dovetail_sv2::messages::{
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, OpenMiningChannelError,
    OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, Str0255Owned, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_sv2::{AuthorityPublicKey, Frame, FrameReader, FrameWriter, connect, setup};

use crate::channel::{Channel, Granted, Kind};

/// Far too little for any pool's vardiff to ask for hard shares.
const HASH_RATE: f32 = 0.001;
/// What an extended channel asks for.
const EXTRANONCE_BYTES: u16 = 8;

/// Which pool, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) address: String,
    pub(crate) authority: AuthorityPublicKey,
    pub(crate) user: String,
    pub(crate) accounts: u64,
    pub(crate) kind: Kind,
}

/// A connection with one channel that has work.
pub(crate) struct Miner {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    pub(crate) channel: Channel,
    /// When the handshake was done, and when the channel was open.
    pub(crate) handshaken: Instant,
    pub(crate) opened: Instant,
}

impl Pool {
    /// Connects and opens a channel, and waits for its first job. `number` tells the connections of this process apart.
    ///
    /// # Errors
    /// What the pool did not do. Time is the caller's affair.
    pub(crate) async fn open(&self, number: u64) -> anyhow::Result<Miner> {
        let (mut reader, mut writer) = connect(&self.address, Some(self.authority))
            .await
            .context("handshake")?;
        let handshaken = Instant::now();
        let flags = match self.kind {
            Kind::Extended => 0,
            Kind::Standard => mining_flags::REQUIRES_STANDARD_JOBS,
        };
        let protocol = SetupProtocol::MiningProtocol;
        let request = setup::request(protocol, flags, &self.address, "load")?;
        setup::open(&mut reader, &mut writer, &request)
            .await
            .context("setup")?;
        writer.write(&self.request(number, 1)?).await?;
        // Nothing of a channel comes before the answer that opens it.
        let granted = loop {
            if let Some(granted) = granted(&reader.read().await?)? {
                break granted;
            }
        };
        let opened = Instant::now();
        let mut channel = Channel::new(granted, number)?;
        while !channel.has_work() {
            channel.take(&reader.read().await?)?;
        }
        Ok(Miner {
            reader,
            writer,
            channel,
            handshaken,
            opened,
        })
    }

    /// The frame by which connection `number` asks for a channel.
    pub(crate) fn request(&self, number: u64, request_id: u32) -> anyhow::Result<Frame> {
        let user = format!("{}{}.{number}", self.user, number % self.accounts.max(1));
        let user_identity = Str0255Owned::try_from(user.as_str())
            .map_err(|error| anyhow::anyhow!("the user's name: {error}"))?;
        let max_target = U256Owned::from([0xff; 32]);
        let frame = match self.kind {
            Kind::Extended => Frame::new(&OpenExtendedMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate: HASH_RATE,
                max_target,
                min_extranonce_size: EXTRANONCE_BYTES,
            }),
            Kind::Standard => Frame::new(&OpenStandardMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate: HASH_RATE,
                max_target,
            }),
        };
        Ok(frame?)
    }
}

/// What the pool grants with this frame, if it answers a request for a channel.
///
/// # Errors
/// A refusal.
pub(crate) fn granted(frame: &Frame) -> anyhow::Result<Option<Granted>> {
    if frame.is::<OpenMiningChannelError>() {
        let error: OpenMiningChannelError = frame.message()?;
        bail!("no channel: {}", error.error_code.as_utf8_or_hex());
    }
    if frame.is::<OpenExtendedMiningChannelSuccess>() {
        let success: OpenExtendedMiningChannelSuccess = frame.message()?;
        return Ok(Some(Granted {
            kind: Kind::Extended,
            channel_id: success.channel_id,
            group_channel_id: success.group_channel_id,
            target: success.target.to_array(),
            extranonce_prefix: success.extranonce_prefix.to_owned_bytes(),
            extranonce_size: usize::from(success.extranonce_size),
        }));
    }
    if frame.is::<OpenStandardMiningChannelSuccess>() {
        let success: OpenStandardMiningChannelSuccess = frame.message()?;
        return Ok(Some(Granted {
            kind: Kind::Standard,
            channel_id: success.channel_id,
            group_channel_id: success.group_channel_id,
            target: success.target.to_array(),
            extranonce_prefix: success.extranonce_prefix.to_owned_bytes(),
            extranonce_size: 0,
        }));
    }
    Ok(None)
}
