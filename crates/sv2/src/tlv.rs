//! The optional fields that extensions append to a message (Sv2 specification 3.4.3): type (the
//! extension's number and a field number), length, value. Integers are little-endian.
//!
//! Parsing is strict. Whatever stands behind a message must be whole TLVs to the last byte: a
//! truncated field is an error here, not an absent one.

/// Bytes before the value: extension type (2), field type (1), length (2).
const HEADER_BYTES: usize = 5;
/// More fields than any known set of extensions appends; a bound on the work per message.
const FIELDS_MAX: usize = 16;

/// One optional field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// The extension that defines the field.
    pub extension_type: u16,
    /// The field within that extension.
    pub field_type: u8,
    /// The value, at most 65,535 bytes.
    pub value: Vec<u8>,
}

/// Why the bytes behind a message are not TLVs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// A field ends after the message does.
    #[error("a field is cut off")]
    Truncated,
    /// More than the bound on fields.
    #[error("more than {FIELDS_MAX} fields")]
    TooMany,
    /// The same field appears twice.
    #[error("field {field_type:#04x} of extension {extension_type:#06x} appears twice")]
    Repeated {
        /// The extension that defines the field.
        extension_type: u16,
        /// The field within that extension.
        field_type: u8,
    },
    /// A value longer than its length field can say.
    #[error("a value is longer than 65,535 bytes")]
    TooLong,
}

/// Splits the bytes behind a message into fields, in their order. No bytes are no fields.
///
/// # Errors
/// Anything but whole, distinct fields up to the last byte.
pub fn parse_tlvs(mut bytes: &[u8]) -> Result<Vec<Tlv>, TlvError> {
    let mut fields: Vec<Tlv> = Vec::new();
    while !bytes.is_empty() {
        if fields.len() == FIELDS_MAX {
            return Err(TlvError::TooMany);
        }
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(TlvError::Truncated)?;
        let extension_type = u16::from_le_bytes([header[0], header[1]]);
        let field_type = header[2];
        let length = usize::from(u16::from_le_bytes([header[3], header[4]]));
        let (value, rest) = rest.split_at_checked(length).ok_or(TlvError::Truncated)?;
        if fields
            .iter()
            .any(|f| f.extension_type == extension_type && f.field_type == field_type)
        {
            return Err(TlvError::Repeated {
                extension_type,
                field_type,
            });
        }
        fields.push(Tlv {
            extension_type,
            field_type,
            value: value.to_vec(),
        });
        bytes = rest;
    }
    Ok(fields)
}

/// Appends a field to an encoded message.
///
/// # Errors
/// [`TlvError::TooLong`] for a value of more than 65,535 bytes.
pub fn append_tlv(payload: &mut Vec<u8>, field: &Tlv) -> Result<(), TlvError> {
    let length = u16::try_from(field.value.len()).map_err(|_| TlvError::TooLong)?;
    payload.extend_from_slice(&field.extension_type.to_le_bytes());
    payload.push(field.field_type);
    payload.extend_from_slice(&length.to_le_bytes());
    payload.extend_from_slice(&field.value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(extension_type: u16, field_type: u8, value: &[u8]) -> Tlv {
        Tlv {
            extension_type,
            field_type,
            value: value.to_vec(),
        }
    }

    #[test]
    fn fields_come_back_in_their_order_in_little_endian() {
        let mut bytes = Vec::new();
        append_tlv(&mut bytes, &field(0x4149, 1, &[7, 8])).unwrap();
        append_tlv(&mut bytes, &field(2, 1, b"")).unwrap();
        assert_eq!(hex::encode(&bytes), "494101020007080200010000");
        assert_eq!(
            parse_tlvs(&bytes),
            Ok(vec![field(0x4149, 1, &[7, 8]), field(2, 1, b"")])
        );
    }

    #[test]
    fn every_truncation_of_a_field_is_an_error() {
        let mut bytes = Vec::new();
        append_tlv(&mut bytes, &field(0x4149, 1, &[1; 32])).unwrap();
        for cut in 1..bytes.len() {
            assert_eq!(parse_tlvs(&bytes[..cut]), Err(TlvError::Truncated));
        }
        assert_eq!(parse_tlvs(&[]), Ok(vec![]));
    }

    #[test]
    fn a_repeated_field_is_refused() {
        let mut bytes = Vec::new();
        append_tlv(&mut bytes, &field(0x4149, 1, &[1])).unwrap();
        append_tlv(&mut bytes, &field(0x4149, 1, &[2])).unwrap();
        assert!(matches!(parse_tlvs(&bytes), Err(TlvError::Repeated { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_what_parses_prints_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(fields) = parse_tlvs(&bytes) {
                let mut again = Vec::new();
                for f in &fields {
                    append_tlv(&mut again, f).unwrap();
                }
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
