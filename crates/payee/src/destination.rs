//! What can be paid, as text that has the right form. Whether anybody is there is another question.

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, XOnlyPublicKey};

use crate::offer::{OfferError, check_offer};

/// The longest Bitcoin address: bech32 has 90 characters at most (BIP 173).
pub const ADDRESS_BYTES_MAX: usize = 90;
/// The longest Lightning address: a device's name carries no longer one.
const LIGHTNING_ADDRESS_BYTES_MAX: usize = 255;
/// The longest name of a host, and of one label of it (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// How a payee is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayToKind {
    /// By an invoice that a worker is asked for while it is connected.
    Worker,
    /// By a BOLT12 offer.
    Bolt12,
    /// By an invoice that the host of a Lightning address is asked for (LUD-16).
    LightningAddress,
    /// To a Bitcoin address.
    Onchain,
}

impl PayToKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Worker,
        Self::Bolt12,
        Self::LightningAddress,
        Self::Onchain,
    ];

    /// As statements, the database and people know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Bolt12 => "bolt12",
            Self::LightningAddress => "lightning_address",
            Self::Onchain => "onchain",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where the money goes. Equal destinations have equal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PayTo {
    kind: PayToKind,
    value: String,
}

/// Why a text is no destination, in words for the payee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Not a key.
    #[error("it is no worker's key: 64 hexadecimal digits of an x-only public key")]
    Worker,
    /// Not an offer that this pool could pay.
    #[error("it is no offer that can be paid: {0}")]
    Offer(#[from] OfferError),
    /// Not `name@host`.
    #[error("it is no Lightning address: name@host.tld")]
    LightningAddress,
    /// Not an address.
    #[error("it is no Bitcoin address, or is mistyped")]
    Address,
    /// For another network.
    #[error("it is a Bitcoin address of another network than this pool's")]
    OtherNetwork,
}

impl PayTo {
    /// The destination of this kind that `text` names, for a pool on `network`.
    ///
    /// # Errors
    /// [`DestinationError`].
    pub fn parse(kind: PayToKind, text: &str, network: Network) -> Result<Self, DestinationError> {
        let value = match kind {
            PayToKind::Worker => worker_key(text).ok_or(DestinationError::Worker)?,
            PayToKind::Bolt12 => {
                let lower = one_case(text).ok_or(OfferError::Digits)?;
                check_offer(&lower, network)?;
                lower
            }
            PayToKind::LightningAddress => LightningAddress::parse(text)
                .ok_or(DestinationError::LightningAddress)?
                .to_string(),
            PayToKind::Onchain => {
                let (address, value) = bitcoin_address(text).ok_or(DestinationError::Address)?;
                if !address.is_valid_for_network(network) {
                    return Err(DestinationError::OtherNetwork);
                }
                value
            }
        };
        Ok(Self { kind, value })
    }

    /// One that was parsed before, as it was kept.
    pub fn kept(kind: PayToKind, value: String) -> Self {
        Self { kind, value }
    }

    /// How it is paid.
    pub fn kind(&self) -> PayToKind {
        self.kind
    }

    /// The key, the offer or the address; text without a space or a semicolon.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Enough of it for its owner to recognise it by, and not enough for others to pay or to name it.
    pub fn masked(&self) -> String {
        match self.value.split_once('@') {
            Some((name, host)) => {
                let first: String = name.chars().take(1).collect();
                format!("{first}...@{host}")
            }
            None => masked(&self.value),
        }
    }
}

fn masked(value: &str) -> String {
    const SHOWN: usize = 8;
    match (value.get(..SHOWN), value.len().checked_sub(SHOWN)) {
        (Some(first), Some(last)) if last > 2 * SHOWN => {
            format!("{first}...{}", value.get(last..).unwrap_or(""))
        }
        _ => "...".to_owned(),
    }
}

/// A text in lower case, if it has one case only, as bech32 wants.
fn one_case(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    (text == lower || text == text.to_ascii_uppercase()).then_some(lower)
}

fn worker_key(text: &str) -> Option<String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    XOnlyPublicKey::from_slice(&bytes).ok()?;
    Some(text.to_ascii_lowercase())
}

/// A Bitcoin address of any network, and its text: bech32 in lower case.
pub fn bitcoin_address(text: &str) -> Option<(Address<NetworkUnchecked>, String)> {
    if text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let address: Address<NetworkUnchecked> = text.parse().ok()?;
    let lower = text.to_ascii_lowercase();
    let value = match lower.parse::<Address<NetworkUnchecked>>() {
        Ok(same) if same == address => lower,
        // Base58 tells the cases apart.
        _ => text.to_owned(),
    };
    Some((address, value))
}

/// `name@host`, in lower case (LUD-16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LightningAddress {
    /// Who it is there.
    pub name: String,
    /// Whom to ask: at least two labels, the last of them no number.
    pub host: String,
}

impl LightningAddress {
    /// The address that the whole of `text` is.
    pub fn parse(text: &str) -> Option<Self> {
        let is_short = text.len() <= LIGHTNING_ADDRESS_BYTES_MAX;
        let (name, host) = text.split_once('@').filter(|_| is_short)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) || !is_host(host) {
            return None;
        }
        // A path of `.` or `..` means another place.
        if name.bytes().all(|byte| byte == b'.') {
            return None;
        }
        Some(Self {
            name: name.to_ascii_lowercase(),
            host: host.to_ascii_lowercase(),
        })
    }
}

impl std::fmt::Display for LightningAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.host)
    }
}

fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_top_level = |label: &str| label.bytes().any(|byte| byte.is_ascii_alphabetic());
    host.len() <= HOST_BYTES_MAX
        && host.contains('.')
        && host.split('.').all(is_label)
        // Or it would be an address of IPv4.
        && host.rsplit('.').next().is_some_and(is_top_level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";

    fn parse(kind: PayToKind, text: &str) -> Result<String, DestinationError> {
        PayTo::parse(kind, text, Network::Regtest).map(|pay_to| pay_to.value)
    }

    #[test]
    fn what_has_the_form_of_a_destination_is_one_in_its_own_spelling() {
        let key = "4F355BDCB7CC0AF728EF3CCEB9615D90684BB5B2CA5F859AB0F0B704075871AA";
        assert_eq!(parse(PayToKind::Worker, key), Ok(key.to_lowercase()));
        assert_eq!(
            parse(PayToKind::Onchain, &ADDRESS.to_uppercase()),
            Ok(ADDRESS.to_owned())
        );
        assert_eq!(
            parse(PayToKind::LightningAddress, "You+rig@Wallet.com"),
            Ok("you+rig@wallet.com".to_owned())
        );
    }

    #[test]
    fn what_has_not_is_refused_in_words() {
        let other = PayTo::parse(PayToKind::Onchain, ADDRESS, Network::Bitcoin);
        assert_eq!(other, Err(DestinationError::OtherNetwork));
        for (kind, text) in [
            (PayToKind::Worker, "4f35"),
            // No point of the curve has this x.
            (
                PayToKind::Worker,
                "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            ),
            (
                PayToKind::Onchain,
                "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6y",
            ),
            (PayToKind::LightningAddress, "you"),
            (PayToKind::LightningAddress, "@wallet.com"),
            (PayToKind::LightningAddress, "..@wallet.com"),
            (PayToKind::LightningAddress, "you@localhost"),
            (PayToKind::LightningAddress, "you@127.0.0.1"),
            (PayToKind::LightningAddress, "you@wallet.com/rig"),
            (PayToKind::LightningAddress, "you@wallet.com:80"),
            (PayToKind::LightningAddress, "you/x@wallet.com"),
            (PayToKind::LightningAddress, "you@a@wallet.com"),
            (PayToKind::LightningAddress, "you@-a.com"),
            (PayToKind::Bolt12, "lno1"),
        ] {
            assert!(parse(kind, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_masked_destination_cannot_be_paid() {
        let masked = |kind, text| PayTo::parse(kind, text, Network::Regtest).unwrap().masked();
        assert_eq!(
            masked(PayToKind::Onchain, ADDRESS),
            "bcrt1q6r...5srld6x"[..8].to_owned() + "...k5srld6x"
        );
        assert_eq!(
            masked(PayToKind::LightningAddress, "alice@wallet.com"),
            "a...@wallet.com"
        );
    }

    proptest! {
        #[test]
        fn junk_is_refused_without_panic_and_nothing_that_passes_could_end_a_statement(
            text in "\\PC{0,120}", kind in 0_usize..4,
        ) {
            if let Ok(value) = parse(PayToKind::ALL[kind], &text) {
                prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';'));
            }
        }
    }
}
