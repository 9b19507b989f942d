//! The other side of the worker's connections, played by a test.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use dovetail_sv2::extension;
use dovetail_sv2::messages::RequestExtensions;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol};
use dovetail_sv2::{
    AuthorityKeys, Frame, FrameReader, FrameWriter, Message, accept, negotiate, setup,
};
use tokio::net::TcpListener;

/// A server that answers what the test tells it to.
pub(crate) struct Played {
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
            success_flags: 0,
        };
        setup::serve(&mut reader, &mut writer, &policy)
            .await
            .unwrap();
        Self { reader, writer }
    }

    /// The next message, which must be of this type.
    pub(crate) async fn expect<M: Message>(&mut self) -> M {
        self.reader.read().await.unwrap().decode::<M>().unwrap().0
    }

    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        let frame = Frame::new(message).unwrap();
        self.writer.write(&frame).await.unwrap();
    }

    pub(crate) async fn grant_extension(&mut self) {
        let request: RequestExtensions = self.expect().await;
        let answer = negotiate::answer(&request, &[extension::EXTENSION_TYPE], &[]).unwrap();
        self.send(&answer).await;
    }
}

/// A free port and a key for a server.
pub(crate) async fn listen() -> (TcpListener, String, AuthorityKeys) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address, AuthorityKeys::generate())
}
