//! A frame (Sv2 specification 3.2) and the messages it carries. Frames know bytes; the
//! [`Message`] types know meaning.

use crate::tlv::{Tlv, TlvError, append_tlv, parse_tlvs};

/// The bit of `extension_type` that marks a message as belonging to a channel.
pub(crate) const CHANNEL_BIT: u16 = 0x8000;
/// The largest payload that the 24-bit length of a frame header can name.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;

/// One frame as it was received or will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The extension that defines the message, without the channel bit; 0 for the core protocols.
    pub extension_type: u16,
    /// Whether the payload starts with the channel id that the message is for.
    pub channel_msg: bool,
    /// The message within its extension.
    pub message_type: u8,
    /// The encoded message, and whatever fields extensions appended to it.
    pub payload: Vec<u8>,
}

/// A message that a frame can carry: its numbers and its encoding.
pub trait Message: Sized {
    /// The extension that defines it; 0 for the core protocols.
    const EXTENSION_TYPE: u16;
    /// Its number within that extension.
    const MESSAGE_TYPE: u8;
    /// Whether it belongs to a channel.
    const CHANNEL_MSG: bool;

    /// Reads one value from the front of `payload` and returns it with the bytes it took. The
    /// buffer is scratch space of the caller and its content is unspecified afterwards.
    ///
    /// # Errors
    /// Anything that is not a value of this type within its limits.
    fn read(payload: &mut [u8]) -> Result<(Self, usize), DecodeError>;

    /// The encoded value.
    ///
    /// # Errors
    /// A value that breaks the limits of the message.
    fn write(&self) -> Result<Vec<u8>, EncodeError>;
}

/// Why a frame is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header names another message.
    #[error(
        "message {message_type:#04x} of extension {extension_type:#06x} where another was expected"
    )]
    OtherMessage {
        /// The extension in the header.
        extension_type: u16,
        /// The message in the header.
        message_type: u8,
    },
    /// The payload is not a value of the message. The reason names a field, never its content.
    #[error("message {message_type:#04x} is malformed: {reason}")]
    Malformed {
        /// The message in the header.
        message_type: u8,
        /// What does not hold.
        reason: String,
    },
    /// What stands behind the message is not a sequence of TLVs.
    #[error("the fields behind message {message_type:#04x} are malformed: {source}")]
    Fields {
        /// The message in the header.
        message_type: u8,
        /// What does not hold.
        source: TlvError,
    },
}

/// Why a message cannot be put into a frame: one of its limits is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {message_type:#04x} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// The message.
    pub message_type: u8,
    /// The limit it breaks.
    pub reason: String,
}

impl AsRef<Self> for Frame {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Frame {
    /// A frame around a message.
    ///
    /// # Errors
    /// A message that breaks its own limits, or is longer than a frame can be.
    pub fn new<M: Message>(message: &M) -> Result<Self, EncodeError> {
        let frame = Self {
            extension_type: M::EXTENSION_TYPE,
            channel_msg: M::CHANNEL_MSG,
            message_type: M::MESSAGE_TYPE,
            payload: message.write()?,
        };
        check_length(M::MESSAGE_TYPE, frame.payload.len())?;
        Ok(frame)
    }

    /// A frame around a message with a field appended to it.
    ///
    /// # Errors
    /// A message that breaks its own limits, or a value longer than a field can be.
    pub fn with_tlv<M: Message>(message: &M, field: &Tlv) -> Result<Self, EncodeError> {
        let mut frame = Self::new(message)?;
        append_tlv(&mut frame.payload, field).map_err(|error| EncodeError {
            message_type: M::MESSAGE_TYPE,
            reason: error.to_string(),
        })?;
        check_length(M::MESSAGE_TYPE, frame.payload.len())?;
        Ok(frame)
    }

    /// Whether the header names this message. The channel bit is not looked at: receivers ignore it
    /// when they look a message up.
    pub fn is<M: Message>(&self) -> bool {
        self.extension_type == M::EXTENSION_TYPE && self.message_type == M::MESSAGE_TYPE
    }

    /// The message, and the bytes behind it, which are empty unless extensions appended fields.
    ///
    /// # Errors
    /// A header that names another message, or a malformed payload.
    pub fn decode<M: Message>(&self) -> Result<(M, &[u8]), DecodeError> {
        if !self.is::<M>() {
            return Err(DecodeError::OtherMessage {
                extension_type: self.extension_type,
                message_type: self.message_type,
            });
        }
        let mut scratch = self.payload.clone();
        let (message, taken) = M::read(&mut scratch)?;
        let tail = self.payload.get(taken..).ok_or(DecodeError::Malformed {
            message_type: self.message_type,
            reason: "it says it is longer than its frame".to_owned(),
        })?;
        Ok((message, tail))
    }

    /// The message, with nothing behind it but whole fields of extensions, which are passed over.
    ///
    /// # Errors
    /// As [`decode_with_tlvs`](Self::decode_with_tlvs).
    pub fn message<M: Message>(&self) -> Result<M, DecodeError> {
        Ok(self.decode_with_tlvs()?.0)
    }

    /// The message and the fields behind it; strict about both.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and anything behind the message that is not whole fields.
    pub fn decode_with_tlvs<M: Message>(&self) -> Result<(M, Vec<Tlv>), DecodeError> {
        let (message, tail) = self.decode()?;
        let fields = parse_tlvs(tail).map_err(|source| DecodeError::Fields {
            message_type: self.message_type,
            source,
        })?;
        Ok((message, fields))
    }
}

/// No frame is built that its own header could not describe.
pub(crate) fn check_length(message_type: u8, payload_bytes: usize) -> Result<(), EncodeError> {
    match payload_bytes > PAYLOAD_BYTES_MAX {
        true => Err(EncodeError {
            message_type,
            reason: format!("{payload_bytes} bytes, a frame carries {PAYLOAD_BYTES_MAX}"),
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{B016MOwned, ProvideMissingTransactionsSuccess, Seq064KOwned};

    #[test]
    fn a_message_that_no_frame_can_carry_is_refused_before_it_is_sent() {
        let message = |transactions| ProvideMissingTransactionsSuccess {
            request_id: 1,
            transaction_list: Seq064KOwned::new(transactions).unwrap(),
        };
        let transaction = |bytes: usize| B016MOwned::new(vec![0; bytes]).unwrap();
        // The request's number and the list's length, and the length of each transaction.
        let around = 4 + 2 + 2 * 3;
        let fits = PAYLOAD_BYTES_MAX - around;
        let frame = Frame::new(&message(vec![transaction(fits), transaction(0)])).unwrap();
        assert_eq!(frame.payload.len(), PAYLOAD_BYTES_MAX);
        let refused = Frame::new(&message(vec![transaction(fits), transaction(1)]));
        assert!(refused.unwrap_err().reason.contains("16777216 bytes"));
    }
}
