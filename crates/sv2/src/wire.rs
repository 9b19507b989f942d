//! Reading and writing the fields of our own messages, in the Sv2 data types (specification 3.1):
//! little-endian integers, length-prefixed bytes and sequences.

use dovetail_commitment::PROMPT_BYTES_MAX;

use crate::frame::{DecodeError, EncodeError};

/// Takes fields from the front of a payload; never past its end.
pub(crate) struct Fields<'a> {
    message_type: u8,
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message_type: u8, bytes: &'a [u8]) -> Self {
        Self {
            message_type,
            bytes,
            taken: 0,
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    pub(crate) fn refuse(&self, reason: &str) -> DecodeError {
        DecodeError::Malformed {
            message_type: self.message_type,
            reason: reason.to_owned(),
        }
    }

    fn array<const N: usize>(&mut self, name: &str) -> Result<[u8; N], DecodeError> {
        let bytes = self.slice(name, N)?;
        Ok(bytes.try_into().expect("a slice of N bytes was taken"))
    }

    fn slice(&mut self, name: &str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.bytes.split_at_checked(len) else {
            return Err(self.refuse(&format!("{name} is cut off")));
        };
        self.bytes = rest;
        self.taken += len;
        Ok(head)
    }
}

/// A value that stands in a message as one field. `name` is what an error may say.
pub(crate) trait Field: Sized {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError>;
    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String>;
}

macro_rules! integer_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
                Ok(<$type>::from_le_bytes(fields.array(name)?))
            }

            fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
                out.extend_from_slice(&self.to_le_bytes());
                Ok(())
            }
        }
    )*};
}
integer_field!(u8, u16, u32, u64);

impl Field for bool {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        // Only the lowest bit counts (3.1).
        Ok(fields.array::<1>(name)?[0] & 1 == 1)
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.push(u8::from(*self));
        Ok(())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        fields.array(name)
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend_from_slice(self);
        Ok(())
    }
}

/// A newtype of the commitment crate stands on the wire as its 32 bytes.
macro_rules! newtype_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
                Ok(<$type>::from_bytes(fields.array(name)?))
            }

            fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
                out.extend_from_slice(&self.to_bytes());
                Ok(())
            }
        }
    )*};
}
newtype_field!(
    dovetail_commitment::TaskId,
    dovetail_commitment::WorkerKey,
    dovetail_commitment::ModelId,
    dovetail_commitment::BatchRoot,
    dovetail_commitment::HeaderHash,
    dovetail_commitment::TextDigest
);

impl Field for dovetail_units::KeptCredit {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let msat = u64::from_le_bytes(fields.array(name)?);
        Self::new(msat).map_err(|error| fields.refuse(&format!("{name}: {error}")))
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend_from_slice(&self.get().to_le_bytes());
        Ok(())
    }
}

impl Field for dovetail_vrf::VrfPublicKey {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let bytes = fields.array(name)?;
        Self::from_bytes(bytes).map_err(|_| fields.refuse(&format!("{name} is no public key")))
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend_from_slice(&self.to_bytes());
        Ok(())
    }
}

impl Field for dovetail_vrf::VrfProof {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(fields.array(name)?))
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend_from_slice(&self.to_bytes());
        Ok(())
    }
}

/// `B0_64K` with a limit of the message: at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> std::fmt::Debug for Bytes<MAX> {
    // Transcripts and invoices travel in these: the content stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> Field for Bytes<MAX> {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let len = usize::from(u16::take(fields, name)?);
        if len > MAX {
            return Err(fields.refuse(&format!("{name} is longer than {MAX} bytes")));
        }
        Ok(Self(fields.slice(name, len)?.to_vec()))
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String> {
        const { assert!(MAX <= u16::MAX as usize) };
        if self.0.len() > MAX {
            return Err(format!("{name} is longer than {MAX} bytes"));
        }
        let len = u16::try_from(self.0.len()).map_err(|_| format!("{name} is too long"))?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.0);
        Ok(())
    }
}

/// `STR0_255`: UTF-8 of at most 255 bytes.
impl Field for String {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let len = usize::from(u8::take(fields, name)?);
        let bytes = fields.slice(name, len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(fields.refuse(&format!("{name} is not UTF-8"))),
        }
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String> {
        let len = u8::try_from(self.len()).map_err(|_| format!("{name} is too long"))?;
        out.push(len);
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }
}

/// `SEQ0_255[T]` with the limit that every sequence of the extension has.
impl<T: Field> Field for Vec<T>
where
    T: SequenceItem,
{
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let len = usize::from(u8::take(fields, name)?);
        if len > crate::extension::SEQUENCE_ITEMS_MAX {
            return Err(fields.refuse(&format!("{name} has too many items")));
        }
        (0..len).map(|_| T::take(fields, name)).collect()
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String> {
        if self.len() > crate::extension::SEQUENCE_ITEMS_MAX {
            return Err(format!("{name} has too many items"));
        }
        out.push(u8::try_from(self.len()).map_err(|_| format!("{name} has too many items"))?);
        self.iter().try_for_each(|item| item.put(out, name))
    }
}

/// What may stand in a sequence; keeps `Vec<u8>` from being taken for bytes.
pub(crate) trait SequenceItem {}
impl SequenceItem for u32 {}
impl SequenceItem for dovetail_commitment::TaskId {}
impl SequenceItem for dovetail_commitment::ModelId {}

impl Field for dovetail_commitment::SamplingParams {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let params = Self {
            temperature_milli: u32::take(fields, name)?,
            top_k: u32::take(fields, name)?,
            top_p_milli: u32::take(fields, name)?,
            max_tokens: u32::take(fields, name)?,
        };
        match params.validate() {
            Ok(()) => Ok(params),
            Err(_) => Err(fields.refuse(&format!("{name} is out of bounds"))),
        }
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String> {
        for value in [
            self.temperature_milli,
            self.top_k,
            self.top_p_milli,
            self.max_tokens,
        ] {
            value.put(out, name)?;
        }
        Ok(())
    }
}

/// `U256`, the digest of the text; then `B0_16M`, the tokens, each a `U32`.
impl Field for dovetail_commitment::EncodedPrompt {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let text = dovetail_commitment::TextDigest::take(fields, name)?;
        let [l0, l1, l2] = fields.array(name)?;
        let len = u32::from_le_bytes([l0, l1, l2, 0]) as usize;
        // Before anything is read: the reason then names the limit, not the end of the frame.
        if len > PROMPT_BYTES_MAX {
            return Err(fields.refuse(&format!("{name} is longer than {PROMPT_BYTES_MAX} bytes")));
        }
        let tokens = fields.slice(name, len)?;
        Self::from_packed(text, tokens).map_err(|error| fields.refuse(&format!("{name}: {error}")))
    }

    fn put(&self, out: &mut Vec<u8>, name: &str) -> Result<(), String> {
        const { assert!(PROMPT_BYTES_MAX < 1 << 24) };
        self.text().put(out, name)?;
        let tokens = self.packed_tokens();
        let len = u32::try_from(tokens.len()).map_err(|_| format!("{name} is too long"))?;
        // The bounds of a prompt fit three bytes.
        out.extend_from_slice(&len.to_le_bytes()[..3]);
        out.extend_from_slice(&tokens);
        Ok(())
    }
}

/// `SEQ0_255[B0_255]`, which is also how the prompt's commitment takes it in.
impl Field for dovetail_commitment::StopSequences {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let (stop, rest) = Self::decode_from(fields.bytes)
            .map_err(|error| fields.refuse(&format!("{name}: {error}")))?;
        fields.slice(name, fields.bytes.len() - rest.len())?;
        Ok(stop)
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend_from_slice(&self.encode());
        Ok(())
    }
}

/// `U8`, 0 for none; then `STR0_255` and `B0_64K`, which is also how the prompt's commitment takes it in.
impl Field for Option<dovetail_commitment::Constraint> {
    fn take(fields: &mut Fields<'_>, name: &str) -> Result<Self, DecodeError> {
        let decoded = dovetail_commitment::Constraint::decode_optional_from(fields.bytes);
        let (constraint, rest) =
            decoded.map_err(|error| fields.refuse(&format!("{name}: {error}")))?;
        fields.slice(name, fields.bytes.len() - rest.len())?;
        Ok(constraint)
    }

    fn put(&self, out: &mut Vec<u8>, _name: &str) -> Result<(), String> {
        out.extend(dovetail_commitment::Constraint::encode_optional(
            self.as_ref(),
        ));
        Ok(())
    }
}

/// Writes one message's fields; used by the `messages!` macro of the extension.
pub(crate) fn encode_error(message_type: u8, reason: String) -> EncodeError {
    EncodeError {
        message_type,
        reason,
    }
}
