//! Extension 0x0002, worker-specific hashrate tracking: a proxy that brings the shares of many devices on one extended
//! channel says with each share which device found it. Its one field is all of it.

use stratum_core::extensions_sv2;

use crate::tlv::Tlv;

/// The extension's number; negotiated by extension 0x0001.
pub const EXTENSION_TYPE: u16 = extensions_sv2::EXTENSION_TYPE_WORKER_HASHRATE_TRACKING;
/// The field that names the device, appended to `SubmitSharesExtended`.
pub const USER_IDENTITY_FIELD_TYPE: u8 = extensions_sv2::TLV_FIELD_TYPE_USER_IDENTITY;
/// The longest name of a device.
pub const USER_IDENTITY_BYTES_MAX: usize = extensions_sv2::MAX_USER_IDENTITY_LENGTH;

/// A name that is longer than the extension allows. A message with such a field is to be refused (3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device's name is longer than {USER_IDENTITY_BYTES_MAX} bytes")]
pub struct TooLong;

/// The field that says that `device` found a share.
///
/// # Errors
/// [`TooLong`].
pub fn user_identity_tlv(device: &str) -> Result<Tlv, TooLong> {
    match device.len() <= USER_IDENTITY_BYTES_MAX {
        true => Ok(Tlv {
            extension_type: EXTENSION_TYPE,
            field_type: USER_IDENTITY_FIELD_TYPE,
            value: device.as_bytes().to_vec(),
        }),
        false => Err(TooLong),
    }
}

/// The device that the fields of a share name, if any. A name is only shown, so bytes that are no UTF-8 cost nobody a
/// share. Fields of other extensions, and ones of this extension that are not known, are passed over.
///
/// # Errors
/// [`TooLong`].
pub fn find_user_identity(fields: &[Tlv]) -> Result<Option<String>, TooLong> {
    let named = |field: &&Tlv| {
        (field.extension_type, field.field_type) == (EXTENSION_TYPE, USER_IDENTITY_FIELD_TYPE)
    };
    match fields.iter().find(named) {
        None => Ok(None),
        Some(field) if field.value.len() > USER_IDENTITY_BYTES_MAX => Err(TooLong),
        Some(field) => Ok(Some(String::from_utf8_lossy(&field.value).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlv::{append_tlv, parse_tlvs};

    #[test]
    fn a_device_is_found_among_the_fields_of_other_extensions() {
        let mut bytes = Vec::new();
        let other = Tlv {
            extension_type: 0x4149,
            field_type: USER_IDENTITY_FIELD_TYPE,
            value: vec![7; 40],
        };
        append_tlv(&mut bytes, &user_identity_tlv("Worker_001").unwrap()).unwrap();
        append_tlv(&mut bytes, &other).unwrap();
        // Little-endian like every integer of the protocol (3.1), and as other implementations write it.
        assert_eq!(hex::encode(&bytes[..15]), "0200010a00576f726b65725f303031");
        let fields = parse_tlvs(&bytes).unwrap();
        let found = find_user_identity(&fields).unwrap();
        assert_eq!(found.as_deref(), Some("Worker_001"));
        assert_eq!(find_user_identity(&[other]), Ok(None));
    }

    #[test]
    fn a_name_may_be_32_bytes_long_and_no_longer() {
        let mut field = user_identity_tlv(&"x".repeat(32)).unwrap();
        let found = find_user_identity(std::slice::from_ref(&field));
        assert_eq!(found, Ok(Some("x".repeat(32))));
        assert_eq!(user_identity_tlv(&"x".repeat(33)), Err(TooLong));
        field.value.push(b'x');
        assert_eq!(find_user_identity(&[field.clone()]), Err(TooLong));
        field.value = vec![0xff; 2];
        assert!(find_user_identity(&[field]).unwrap().is_some());
    }
}
