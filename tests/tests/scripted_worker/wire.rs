//! One Sv2 connection that the test reads and writes frame by frame.

use std::collections::VecDeque;
use std::time::Duration;

use dovetail_sv2::extension::Binding;
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_sv2::{
    AuthorityPublicKey, ConnectionError, Frame, FrameReader, FrameWriter, Message, connect,
    negotiation, setup,
};
use tokio::time::timeout;

use super::authority;

/// Longer than anything takes on a busy machine.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);

/// A connection past its set-up. Frames that nobody asked for yet are kept in their order.
pub(crate) struct Wire {
    authority: AuthorityPublicKey,
    reader: FrameReader,
    writer: FrameWriter,
    kept: VecDeque<Frame>,
}

impl Wire {
    /// Connects to a pool's mining port, with work selection and without any extension.
    pub(crate) async fn miner(address: &str) -> Self {
        Self::open(address, authority(), mining_flags::REQUIRES_WORK_SELECTION).await
    }

    /// Connects to a mining port with these flags.
    pub(crate) async fn open(address: &str, authority: AuthorityPublicKey, flags: u32) -> Self {
        let (mut reader, mut writer) = connect(address, Some(authority)).await.unwrap();
        let request = setup::request(SetupProtocol::MiningProtocol, flags, address, "t").unwrap();
        setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        Self {
            authority,
            reader,
            writer,
            kept: VecDeque::new(),
        }
    }

    /// What a registration on this connection is for.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            authority: self.authority,
            handshake: self.reader.handshake(),
        }
    }

    /// Negotiates an extension; whether the pool has it.
    pub(crate) async fn negotiate(&mut self, extension_type: u16) -> bool {
        let granted =
            negotiation::request(&mut self.reader, &mut self.writer, &[extension_type]).await;
        granted.unwrap().contains(&extension_type)
    }

    /// Sends a message.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        self.send_frame(&Frame::new(message).unwrap()).await;
    }

    /// Sends a frame as it is.
    pub(crate) async fn send_frame(&mut self, frame: &Frame) {
        self.try_send_frame(frame).await.unwrap();
    }

    /// The same where the other side may have hung up.
    pub(crate) async fn try_send_frame(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        self.writer.write(frame).await
    }

    /// The next frame that `pick` makes something of; the others are kept for later.
    pub(crate) async fn pick<T>(&mut self, mut pick: impl FnMut(&Frame) -> Option<T>) -> T {
        for at in 0..self.kept.len() {
            if let Some(picked) = pick(&self.kept[at]) {
                self.kept.remove(at);
                return picked;
            }
        }
        let search = async {
            loop {
                let frame = self.reader.read().await.unwrap();
                match pick(&frame) {
                    Some(picked) => return picked,
                    None => self.kept.push_back(frame),
                }
            }
        };
        timeout(TIME_MAX, search)
            .await
            .expect("the answer never came")
    }

    /// The next message of this kind.
    pub(crate) async fn receive<M: Message>(&mut self) -> M {
        self.pick(|frame| frame.is::<M>().then(|| decoded(frame)))
            .await
    }

    /// Everything of this kind that has arrived by now.
    pub(crate) fn arrived<M: Message>(&mut self) -> Vec<M> {
        let (wanted, kept) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(Frame::is::<M>);
        self.kept = kept;
        let wanted: VecDeque<Frame> = wanted;
        wanted.iter().map(decoded).collect()
    }

    /// Waits until the other side hangs up.
    pub(crate) async fn hung_up(&mut self) -> ConnectionError {
        let drain = async {
            loop {
                if let Err(error) = self.reader.read().await {
                    return error;
                }
            }
        };
        timeout(TIME_MAX, drain).await.expect("it never hung up")
    }
}

/// The message in a frame of its kind.
pub(crate) fn decoded<M: Message>(frame: &Frame) -> M {
    frame.decode::<M>().unwrap().0
}
