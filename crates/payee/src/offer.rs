//! Whether a text has the form of a BOLT12 offer that this pool could pay: bech32 without a checksum, over a stream of
//! records of type, length and value. The wallet is the last judge: it alone knows what the records say.

use bitcoin::Network;
use bitcoin::constants::ChainHash;

/// The longest offer that is taken. Blinded paths make them long: each hop takes some 60 characters.
pub const OFFER_BYTES_MAX: usize = 4_096;
const PREFIX: &str = "lno1";
/// What bech32 is written with (BIP 173).
const DIGITS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Records of an offer (BOLT 12).
const CHAINS: u64 = 2;
const CURRENCY: u64 = 6;
const AMOUNT: u64 = 8;
const PATHS: u64 = 16;
const QUANTITY_MAX: u64 = 20;
const ISSUER_ID: u64 = 22;

/// Why a text is no offer that can be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Empty, or beyond the bound.
    #[error("it must begin with lno1 and have {OFFER_BYTES_MAX} characters at most")]
    Length,
    /// Mixed case, or a character that bech32 has not.
    #[error("it has a character that no offer has, or mixes upper and lower case")]
    Digits,
    /// The records do not fit.
    #[error("it is cut off or mistyped")]
    Records,
    /// Neither a path nor an issuer.
    #[error("it says nobody who could be paid")]
    Nobody,
    /// For another chain.
    #[error("it is for another network than this pool's")]
    OtherNetwork,
    /// It asks for something of its own.
    #[error(
        "it asks for an amount, a currency or a number of pieces of its own: make one for any amount"
    )]
    OwnAmount,
}

/// Looks at an offer in lower case.
///
/// # Errors
/// [`OfferError`].
pub fn check_offer(offer: &str, network: Network) -> Result<(), OfferError> {
    let digits = offer.strip_prefix(PREFIX).ok_or(OfferError::Length)?;
    if digits.is_empty() || offer.len() > OFFER_BYTES_MAX {
        return Err(OfferError::Length);
    }
    let bytes = decode(digits)?;
    let mut rest = &bytes[..];
    let (mut last, mut names_somebody, mut chains) = (None, false, None);
    while !rest.is_empty() {
        let kind = big_size(&mut rest).ok_or(OfferError::Records)?;
        let length = big_size(&mut rest).ok_or(OfferError::Records)?;
        let length = usize::try_from(length).map_err(|_| OfferError::Records)?;
        let (value, behind) = rest.split_at_checked(length).ok_or(OfferError::Records)?;
        rest = behind;
        // In ascending order, and each once.
        if last.is_some_and(|last| last >= kind) {
            return Err(OfferError::Records);
        }
        last = Some(kind);
        match kind {
            CHAINS => chains = Some(value),
            CURRENCY | AMOUNT | QUANTITY_MAX => return Err(OfferError::OwnAmount),
            PATHS if !value.is_empty() => names_somebody = true,
            ISSUER_ID if value.len() == 33 => names_somebody = true,
            PATHS | ISSUER_ID => return Err(OfferError::Records),
            _ => {}
        }
    }
    if !names_somebody {
        return Err(OfferError::Nobody);
    }
    // Without one it is for Bitcoin's own chain.
    let is_ours = match chains {
        None => network == Network::Bitcoin,
        Some(hashes) => {
            let ours = ChainHash::using_genesis_block(network);
            hashes.len() % 32 == 0 && hashes.chunks(32).any(|hash| hash == ours.as_bytes())
        }
    };
    match is_ours {
        true => Ok(()),
        false => Err(OfferError::OtherNetwork),
    }
}

/// Five bits a digit. What is left over has fewer bits than a digit, all of them zero.
fn decode(digits: &str) -> Result<Vec<u8>, OfferError> {
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for digit in digits.chars() {
        let value = DIGITS.find(digit).ok_or(OfferError::Digits)?;
        bits = bits << 5 | u32::try_from(value).map_err(|_| OfferError::Digits)?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
            bits &= (1 << count) - 1;
        }
    }
    match count < 5 && bits == 0 {
        true => Ok(bytes),
        false => Err(OfferError::Records),
    }
}

/// The number of Lightning's `BigSize`, in its shortest form only.
fn big_size(rest: &mut &[u8]) -> Option<u64> {
    let (&first, behind) = rest.split_first()?;
    let (bytes, least) = match first {
        0xfd => (2, 0xfd),
        0xfe => (4, 0x1_0000),
        0xff => (8, 0x1_0000_0000),
        _ => {
            *rest = behind;
            return Some(first.into());
        }
    };
    let (value, behind) = behind.split_at_checked(bytes)?;
    *rest = behind;
    let value = value
        .iter()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    (value >= least).then_some(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The offer with these records.
    pub(crate) fn encode(records: &[(u8, &[u8])]) -> String {
        let mut bytes = Vec::new();
        for (kind, value) in records {
            bytes.push(*kind);
            match u8::try_from(value.len()) {
                Ok(length) if length < 0xfd => bytes.push(length),
                _ => {
                    bytes.push(0xfd);
                    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                }
            }
            bytes.extend(*value);
        }
        let mut offer = PREFIX.to_owned();
        let (mut bits, mut count) = (0_u32, 0);
        let digits = DIGITS.as_bytes();
        for byte in bytes {
            bits = bits << 8 | u32::from(byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                offer.push(char::from(digits[(bits >> count & 31) as usize]));
            }
        }
        if count > 0 {
            offer.push(char::from(digits[(bits << (5 - count) & 31) as usize]));
        }
        offer
    }

    fn regtest() -> Vec<u8> {
        ChainHash::using_genesis_block(Network::Regtest)
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn an_offer_of_the_specification_is_one() {
        // BOLT 12, `offers-test.json`: "Minimal bolt12 offer", and one with blinded paths.
        let minimal = "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese";
        assert_eq!(check_offer(minimal, Network::Bitcoin), Ok(()));
        assert_eq!(
            check_offer(minimal, Network::Regtest),
            Err(OfferError::OtherNetwork)
        );
    }

    #[test]
    fn what_could_not_be_paid_is_refused() {
        let (chain, node, path) = (regtest(), [2; 33], [1; 300]);
        let check = |records: &[(u8, &[u8])]| check_offer(&encode(records), Network::Regtest);
        assert_eq!(check(&[(2, &chain), (22, &node)]), Ok(()));
        assert_eq!(check(&[(2, &chain), (16, &path)]), Ok(()));
        assert_eq!(check(&[(2, &chain)]), Err(OfferError::Nobody));
        assert_eq!(check(&[(22, &node)]), Err(OfferError::OtherNetwork));
        let amount = [(2, &chain[..]), (8, &[1]), (22, &node)];
        assert_eq!(check(&amount), Err(OfferError::OwnAmount));
        let unordered = [(22, &node[..]), (2, &chain)];
        assert_eq!(check(&unordered), Err(OfferError::Records));
        let offer = encode(&[(2, &chain), (22, &node)]);
        for cut in 5..offer.len() {
            assert!(
                check_offer(&offer[..cut], Network::Regtest).is_err(),
                "{cut}"
            );
        }
        let long = format!("lno1{}", "q".repeat(OFFER_BYTES_MAX));
        assert_eq!(
            check_offer(&long, Network::Regtest),
            Err(OfferError::Length)
        );
    }

    proptest! {
        #[test]
        fn junk_is_looked_at_without_panic(text in "(lno1)?[qpzry9x8gf2tvdw0s3jn54khce6mua7lb]{0,300}") {
            let _ = check_offer(&text, Network::Regtest);
        }

        #[test]
        fn records_come_back_as_they_were(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            let chain = regtest();
            let offer = encode(&[(2, &chain), (10, &value), (22, &[3; 33])]);
            prop_assert_eq!(check_offer(&offer, Network::Regtest), Ok(()));
        }
    }
}
