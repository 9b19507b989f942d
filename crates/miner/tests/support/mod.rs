//! The other side of the worker's connections, played by a test.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub(crate) mod declarator;

use std::time::Duration;

use dovetail_sv2::extension::{
    self, Binding, RegisterWorker, RegisterWorkerChallenge, RegisterWorkerProof,
    RegisterWorkerSuccess, verify_registration,
};
use dovetail_sv2::messages::{
    B032Owned, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, RequestExtensions,
    U256Owned,
};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol};
use dovetail_sv2::{
    AuthorityKeys, AuthorityPublicKey, Frame, FrameReader, FrameWriter, Message, accept,
    negotiation, setup,
};
use dovetail_vrf::{VrfPublicKey, VrfSecret};
use tokio::net::TcpListener;

/// A server that answers what the test tells it to.
pub(crate) struct Played {
    pub(crate) authority: AuthorityPublicKey,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

impl Played {
    pub(crate) async fn accept(
        listener: &TcpListener,
        keys: &AuthorityKeys,
        protocol: SetupProtocol,
    ) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = accept(stream, keys, Duration::from_secs(3600))
            .await
            .unwrap();
        let policy = ServerPolicy {
            protocol,
            supported_flags: 0b111,
            required_flags: 0,
            success_flags: |_| 0,
        };
        setup::serve(&mut reader, &mut writer, &policy)
            .await
            .unwrap();
        let authority = keys.public();
        Self {
            authority,
            reader,
            writer,
        }
    }

    /// The next message, which must be of this type.
    pub(crate) async fn expect<M: Message>(&mut self) -> M {
        self.reader.read().await.unwrap().decode::<M>().unwrap().0
    }

    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        let frame = Frame::new(message).unwrap();
        self.writer.write(&frame).await.unwrap();
    }

    /// Grants the extension and registers the worker; its registration, and the channel that it wants.
    pub(crate) async fn register(
        &mut self,
        vrf_key: VrfPublicKey,
    ) -> (RegisterWorker, OpenExtendedMiningChannel) {
        self.grant_extension().await;
        let register: RegisterWorker = self.expect().await;
        let nonce = [8; 32];
        self.send(&RegisterWorkerChallenge { nonce }).await;
        let proof: RegisterWorkerProof = self.expect().await;
        let binding = Binding {
            authority: self.authority,
            handshake: self.reader.handshake(),
        };
        let key = &register.worker_key;
        assert!(verify_registration(key, &nonce, &binding, &proof));
        self.send(&RegisterWorkerSuccess { vrf_key }).await;
        (register, self.expect().await)
    }

    /// Opens the channel that was asked for. The pool's part of its extranonce is `[1, 2, 3]`.
    pub(crate) async fn open_channel(
        &mut self,
        open: &OpenExtendedMiningChannel,
        channel_id: u32,
        target: [u8; 32],
        extranonce_size: u16,
    ) {
        self.send(&OpenExtendedMiningChannelSuccess {
            request_id: open.request_id,
            channel_id,
            target: U256Owned::from(target),
            extranonce_size,
            extranonce_prefix: B032Owned::new(vec![1, 2, 3]).unwrap(),
            group_channel_id: 0,
        })
        .await;
    }

    pub(crate) async fn grant_extension(&mut self) {
        let request: RequestExtensions = self.expect().await;
        let answer = negotiation::answer(&request, &[extension::EXTENSION_TYPE], &[]).unwrap();
        self.send(&answer).await;
    }
}

/// The VRF key of a played pool.
pub(crate) fn vrf_key() -> VrfPublicKey {
    VrfSecret::from_bytes([7; 32]).unwrap().public_key()
}

/// A free port and a key for a server.
pub(crate) async fn listen() -> (TcpListener, String, AuthorityKeys) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address, AuthorityKeys::generate())
}

/// A coinbase that pays anybody, with this script and room for `extranonce_bytes` behind it: before and after the
/// extranonce. Its lock time, at the very end, is `[0xaa; 4]`.
pub(crate) fn coinbase(script: &[u8], extranonce_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let script_bytes = u8::try_from(script.len() + extranonce_bytes).unwrap();
    let version = [2, 0, 0, 0];
    let outpoint = [&[0; 32][..], &[0xff; 4]].concat();
    let prefix = [&version[..], &[1], &outpoint, &[script_bytes], script].concat();
    let value = 5_000_000_000_u64.to_le_bytes();
    let suffix = [&[0xff; 4][..], &[1], &value, &[1, 0x51], &[0xaa; 4]].concat();
    (prefix, suffix)
}

/// A target that one header in 2^12 meets.
pub(crate) fn easy_target() -> [u8; 32] {
    let mut target = [0xff; 32];
    target[31] = 0;
    target[30] = 0x0f;
    target
}
