//! The document of test vectors.

mod messages;
mod receipts;

use std::fmt::Write;

use dovetail_sv2::{Frame, Message};

pub(crate) use messages::messages;
pub(crate) use receipts::receipts;

/// The document that is being written: `name = value` lines under headings.
#[derive(Default)]
pub(crate) struct Vectors(pub(crate) String);

impl Vectors {
    pub(crate) fn heading(&mut self, text: &str) {
        writeln!(self.0, "\n# {text}").unwrap();
    }

    pub(crate) fn hex(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.text(name, &hex::encode(bytes));
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name} = {value}").unwrap();
    }

    /// A whole frame before encryption: extension type with the channel bit, message type, length in
    /// three bytes, payload.
    pub(crate) fn frame(&mut self, name: &str, frame: &Frame) {
        let channel_bit = if frame.channel_msg { 0x8000 } else { 0 };
        let mut bytes = (frame.extension_type | channel_bit).to_le_bytes().to_vec();
        bytes.push(frame.message_type);
        let length = u32::try_from(frame.payload.len()).unwrap();
        bytes.extend_from_slice(&length.to_le_bytes()[..3]);
        bytes.extend_from_slice(&frame.payload);
        self.hex(name, bytes);
    }

    pub(crate) fn message<M: Message>(&mut self, name: &str, message: &M) {
        self.frame(name, &Frame::new(message).unwrap());
    }
}
