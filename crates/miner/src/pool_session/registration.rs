//! How a session is opened: connection, negotiation, registration, channel.

use std::time::Duration;

use dovetail_sv2::connection::{FrameReader, FrameWriter};
use dovetail_sv2::extension::{
    self, Binding, RegisterWorker, RegisterWorkerChallenge, RegisterWorkerError,
    RegisterWorkerSuccess, sign_registration,
};
use dovetail_sv2::messages::{
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, OpenMiningChannelError,
    Str0255Owned, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_sv2::{EXTRANONCE_BYTES_MAX, Frame, Outbox, OutboxError, connect, negotiation, setup};
use dovetail_vrf::VrfPublicKey;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Channel, PoolOptions, PoolSession, SessionError, target};
use crate::job::EXTRANONCE_BYTES;
use crate::keys::WorkerKeys;

/// Time for each answer while a session is opened.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Frames waiting to be sent: a burst of token chunks of all running tasks and some more.
const OUTBOX_FRAMES: usize = 1024;
/// The mining messages of one connection use one request id each.
const OPEN_REQUEST_ID: u32 = 1;

impl PoolSession {
    /// Connects, negotiates the extension, registers and opens the channel.
    ///
    /// # Errors
    /// Whatever was refused first.
    pub async fn open(options: &PoolOptions, keys: &WorkerKeys) -> Result<Self, SessionError> {
        let (mut reader, writer) = negotiated(options).await?;
        let connection = CancellationToken::new();
        // The writer task ends with the connection's token, which this session owns.
        let (outbox, _writer) = Outbox::spawn(writer, OUTBOX_FRAMES, connection.clone());
        let guard = connection.clone().drop_guard();
        let vrf_key = register(&mut reader, &outbox, options, keys).await?;
        let channel = open_channel(&mut reader, &outbox, options, keys).await?;
        guard.disarm();
        Ok(Self {
            reader,
            outbox,
            connection,
            channel,
            vrf_key,
            models: options.models.clone(),
        })
    }
}

/// Whether the pool is there and speaks the extension; registers nothing.
///
/// # Errors
/// Whatever was refused first.
pub async fn probe(options: &PoolOptions) -> Result<(), SessionError> {
    negotiated(options).await.map(drop)
}

/// A connection that is set up and speaks the extension.
async fn negotiated(options: &PoolOptions) -> Result<(FrameReader, FrameWriter), SessionError> {
    let (mut reader, mut writer) = connect(&options.address, Some(options.authority)).await?;
    let flags = match options.declares_jobs {
        true => mining_flags::REQUIRES_WORK_SELECTION,
        false => 0,
    };
    let request = setup::request(
        SetupProtocol::MiningProtocol,
        flags,
        &options.address,
        env!("CARGO_PKG_VERSION"),
    )
    .map_err(OutboxError::Encode)?;
    setup::open(&mut reader, &mut writer, &request).await?;
    let granted =
        negotiation::request(&mut reader, &mut writer, &[extension::EXTENSION_TYPE]).await?;
    if granted.is_empty() {
        return Err(SessionError::NoExtension);
    }
    // A task with a long prompt is longer than any message of the mining protocol.
    reader.set_payload_bytes_max(extension::WORKER_PAYLOAD_BYTES_MAX);
    Ok((reader, writer))
}

/// The next frame that is one of the awaited ones. Others that a server may send at any time (jobs,
/// targets) are passed over; a bound on their number is the time for an answer.
async fn answer(
    reader: &mut FrameReader,
    awaited: impl Fn(&Frame) -> bool,
) -> Result<Frame, SessionError> {
    let search = async {
        loop {
            let frame = reader.read().await?;
            if awaited(&frame) {
                return Ok(frame);
            }
        }
    };
    timeout(ANSWER_TIME_MAX, search)
        .await
        .map_err(|_| SessionError::TimeOut)?
}

async fn register(
    reader: &mut FrameReader,
    outbox: &Outbox,
    options: &PoolOptions,
    keys: &WorkerKeys,
) -> Result<VrfPublicKey, SessionError> {
    outbox.send(&RegisterWorker {
        worker_key: keys.name,
        models: options.models.clone(),
        max_tasks: options.max_tasks,
        keep_msat: options.keep,
    })?;
    let refused = |frame: &Frame| -> Result<SessionError, SessionError> {
        let (error, _) = frame.decode::<RegisterWorkerError>()?;
        Ok(SessionError::NotRegistered(error.code))
    };
    let frame = answer(reader, |f| {
        f.is::<RegisterWorkerChallenge>() || f.is::<RegisterWorkerError>()
    })
    .await?;
    if frame.is::<RegisterWorkerError>() {
        return Err(refused(&frame)?);
    }
    let (challenge, _) = frame.decode::<RegisterWorkerChallenge>()?;
    let binding = Binding {
        authority: options.authority,
        handshake: reader.handshake(),
    };
    outbox.send(&sign_registration(&keys.pair, &challenge.nonce, &binding))?;
    let frame = answer(reader, |f| {
        f.is::<RegisterWorkerSuccess>() || f.is::<RegisterWorkerError>()
    })
    .await?;
    if frame.is::<RegisterWorkerError>() {
        return Err(refused(&frame)?);
    }
    Ok(frame.decode::<RegisterWorkerSuccess>()?.0.vrf_key)
}

async fn open_channel(
    reader: &mut FrameReader,
    outbox: &Outbox,
    options: &PoolOptions,
    keys: &WorkerKeys,
) -> Result<Channel, SessionError> {
    outbox.send(&OpenExtendedMiningChannel {
        request_id: OPEN_REQUEST_ID,
        user_identity: Str0255Owned::try_from(keys.name.to_string().as_str())
            .expect("a key in hex has 64 characters"),
        nominal_hash_rate: options.nominal_hash_rate,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: EXTRANONCE_BYTES as u16,
    })?;
    let frame = answer(reader, |f| {
        f.is::<OpenExtendedMiningChannelSuccess>() || f.is::<OpenMiningChannelError>()
    })
    .await?;
    if frame.is::<OpenMiningChannelError>() {
        let (error, _) = frame.decode::<OpenMiningChannelError>()?;
        return Err(SessionError::NoChannel(error.error_code.as_utf8_or_hex()));
    }
    let (success, _) = frame.decode::<OpenExtendedMiningChannelSuccess>()?;
    let extranonce_size = usize::from(success.extranonce_size);
    if !(EXTRANONCE_BYTES..=EXTRANONCE_BYTES_MAX).contains(&extranonce_size) {
        return Err(SessionError::Extranonce(extranonce_size));
    }
    Ok(Channel {
        id: success.channel_id,
        target: target(&success.target)?,
        extranonce_prefix: success.extranonce_prefix.to_owned_bytes(),
        extranonce_size,
        group_id: success.group_channel_id,
    })
}
