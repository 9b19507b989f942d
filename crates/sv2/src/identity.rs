//! Whose work it is: a `user_identity` of Sv2 (5.3.2, and 6.4.2 for job declaration) taken apart into who is paid and
//! which of their devices it is. The parts are told by known shapes, never by the first dot alone: a Lightning address
//! has dots of its own.
//!
//! `docs/connect.md` is the page for miners. Who may be paid at all is the pool's affair.

use std::fmt;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network};

/// The longest payee: what `STR0_255` carries. Only a BOLT12 offer needs that many.
const OFFER_BYTES_MAX: usize = 255;
/// The longest plain name.
const NAME_BYTES_MAX: usize = 128;
/// The longest name of a device that is kept, in characters.
const DEVICE_CHARS_MAX: usize = 64;
/// The longest name of a host (RFC 1035), and of one label of it.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// The shortest offer that names a node: some bytes of structure and a public key of 33.
const OFFER_BYTES_MIN: usize = 50;
/// What bech32 is written with (BIP 173). BOLT12 uses it without a checksum.
const BECH32_DIGITS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// The hexadecimal digits of a worker's key.
const KEY_DIGITS: usize = 64;
/// What is all hexadecimal and about as long was hardly meant as anything else.
const NEARLY_KEY_DIGITS: std::ops::RangeInclusive<usize> = 60..=68;
/// Top-level domains behind which only a country's can follow, as in `com.au`: whatever else comes is a device.
const GENERIC_TOP_LEVELS: [&str; 8] = ["app", "cash", "com", "io", "me", "net", "org", "xyz"];
/// Beginnings that only a bech32 address has, with the least length of one.
const BECH32_ADDRESSES: [&str; 3] = ["bc1", "tb1", "bcrt1"];
const BECH32_ADDRESS_BYTES_MIN: usize = 14;

/// A `user_identity`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who is paid.
    pub payee: Payee,
    /// Which device it is, as its miner calls it. It has no control characters, and 64 characters at most.
    pub device: Option<String>,
}

/// Who is paid. The text inside is the account's name: equal payees have equal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payee {
    /// A Bitcoin address; bech32 in lower case.
    Address(String),
    /// A Lightning address (LUD-16, BIP 353) in lower case.
    LightningAddress(String),
    /// A BOLT12 offer in lower case.
    Offer(String),
    /// A worker's x-only key: 64 hex digits in lower case.
    WorkerKey(String),
    /// Any other name.
    Name(String),
}

/// Why an identity was refused, in words for the miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRefusal {
    /// Nothing stands before the device.
    #[error("it names nobody: it is empty, or begins with a dot or a slash")]
    Empty,
    /// A payee has letters, digits and punctuation of ASCII.
    #[error("its payee has a space, or a character that is not printable ASCII")]
    Characters,
    /// A plain name has a bound.
    #[error("its payee is longer than {NAME_BYTES_MAX} characters")]
    Long,
    /// Whoever means an address has to spell it right: nobody could be paid.
    #[error("it looks like a Bitcoin address, and its checksum does not fit: it is mistyped")]
    MistypedAddress,
    /// The address is of another network, on which this pool cannot pay.
    #[error("it is a Bitcoin address of another network than this pool's")]
    OtherNetwork,
    /// An `@` stands in Lightning addresses only.
    #[error("it has an @ and is no Lightning address (name@host.tld, and /device behind it)")]
    LightningAddress,
    /// Whoever means a key has to give all of it.
    #[error("it looks like a worker's key, and does not have {KEY_DIGITS} hexadecimal digits")]
    WorkerKey,
    /// It begins like an offer.
    #[error("it begins like a BOLT12 offer and is none")]
    Offer,
    /// Nothing says where to pay a plain name.
    #[error(
        "it is a plain name, which nobody can be paid by: give a Bitcoin address, a Lightning address, a BOLT12 offer or a \
         worker's key"
    )]
    PlainName,
    /// SRI's words for solo mining and donations, which this pool does not do.
    #[error("it asks for solo mining or a donation (sri/..), which this pool does not offer")]
    Solo,
}

/// Which identities a pool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRules {
    /// The network on which the pool can pay.
    pub network: Network,
    /// Whether plain names are taken too: what they earn waits, for nothing says where to pay it.
    pub plain_names: bool,
}

impl IdentityRules {
    /// Takes `user_identity` apart, as [`Identity::parse`] does.
    ///
    /// # Errors
    /// [`IdentityRefusal`], also if it is of another network, or a plain name where none is taken.
    pub fn admit(&self, user_identity: &str) -> Result<Identity, IdentityRefusal> {
        let identity = Identity::parse(user_identity)?;
        match &identity.payee {
            Payee::Name(_) if !self.plain_names => Err(IdentityRefusal::PlainName),
            payee => payee.fits(self.network).map(|()| identity),
        }
    }
}

impl Identity {
    /// Takes `user_identity` apart: `payee`, `payee.device` or `payee/device`. Behind a Lightning address the dot
    /// begins a device only where no host is likely to go on: `you@wallet.com.rig`, but `you@wallet.sv/rig`.
    ///
    /// # Errors
    /// [`IdentityRefusal`], but not for the payee's network: see [`Payee::fits`].
    pub fn parse(user_identity: &str) -> Result<Self, IdentityRefusal> {
        if user_identity.starts_with("sri/") {
            return Err(IdentityRefusal::Solo);
        }
        let at = user_identity.find('@');
        let (payee, device) = match at {
            Some(at) if !user_identity[..at].contains('/') => lightning_address(user_identity, at)?,
            _ => {
                let (head, device) = split(user_identity, &['.', '/']);
                (payee_of(head)?, device)
            }
        };
        Ok(Self {
            payee,
            device: Self::device_name(device),
        })
    }

    /// What of a device's name is kept, if anything. It is only shown: what cannot be shown is left out.
    pub fn device_name(text: &str) -> Option<String> {
        let shown = text
            .chars()
            .filter(|character| !character.is_control())
            .take(DEVICE_CHARS_MAX)
            .collect::<String>();
        let shown = shown.trim();
        (!shown.is_empty()).then(|| shown.to_owned())
    }

    /// The account that is credited.
    pub fn account(&self) -> &str {
        self.payee.as_str()
    }
}

impl Payee {
    /// The account's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Address(text)
            | Self::LightningAddress(text)
            | Self::Offer(text)
            | Self::WorkerKey(text)
            | Self::Name(text) => text,
        }
    }

    /// Whether a pool on `network` could pay it. Only addresses belong to a network.
    ///
    /// # Errors
    /// [`IdentityRefusal::OtherNetwork`].
    pub fn fits(&self, network: Network) -> Result<(), IdentityRefusal> {
        let Self::Address(text) = self else {
            return Ok(());
        };
        match address(text).is_some_and(|address| address.is_valid_for_network(network)) {
            true => Ok(()),
            false => Err(IdentityRefusal::OtherNetwork),
        }
    }
}

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands before the first of these characters, and what behind it.
fn split<'a>(text: &'a str, separators: &[char]) -> (&'a str, &'a str) {
    text.split_once(separators).unwrap_or((text, ""))
}

/// A payee without an `@`.
fn payee_of(text: &str) -> Result<Payee, IdentityRefusal> {
    if text.is_empty() {
        return Err(IdentityRefusal::Empty);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(IdentityRefusal::Characters);
    }
    if text.contains('@') {
        return Err(IdentityRefusal::LightningAddress);
    }
    if let Some(address) = address(text) {
        return Ok(Payee::Address(canonical_address(text, &address)));
    }
    let lower = text.to_ascii_lowercase();
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        if text.len() == KEY_DIGITS {
            return Ok(Payee::WorkerKey(lower));
        }
        if NEARLY_KEY_DIGITS.contains(&text.len()) {
            return Err(IdentityRefusal::WorkerKey);
        }
    }
    if lower.starts_with("lno1") {
        return match is_offer(text, &lower) {
            true => Ok(Payee::Offer(lower)),
            false => Err(IdentityRefusal::Offer),
        };
    }
    if is_meant_as_address(text, &lower) {
        return Err(IdentityRefusal::MistypedAddress);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(IdentityRefusal::Long);
    }
    Ok(Payee::Name(text.to_owned()))
}

fn address(text: &str) -> Option<Address<NetworkUnchecked>> {
    text.parse().ok()
}

/// Bech32 may be written in upper case, and it is the same address. Base58 tells the cases apart.
fn canonical_address(text: &str, address: &Address<NetworkUnchecked>) -> String {
    let lower = text.to_ascii_lowercase();
    match lower.parse::<Address<NetworkUnchecked>>() {
        Ok(same) if same == *address => lower,
        _ => text.to_owned(),
    }
}

fn is_offer(text: &str, lower: &str) -> bool {
    let one_case = text == lower || text == text.to_ascii_uppercase();
    let is_digit = |byte: u8| BECH32_DIGITS.as_bytes().contains(&byte);
    one_case
        && (OFFER_BYTES_MIN..=OFFER_BYTES_MAX).contains(&text.len())
        && lower.bytes().skip("lno1".len()).all(is_digit)
}

/// Whether a text that is no address was hardly meant as anything else.
fn is_meant_as_address(text: &str, lower: &str) -> bool {
    let bech32 = BECH32_ADDRESSES
        .iter()
        .filter_map(|begin| lower.strip_prefix(begin))
        .any(|rest| {
            lower.len() >= BECH32_ADDRESS_BYTES_MIN
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    // Names of this length in digits and mixed case that begin so are not met otherwise.
    let base58 = (33..=35).contains(&text.len())
        && text.starts_with(['1', '3', 'm', 'n', '2'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase());
    bech32 || base58
}

/// `name@host` and the device behind it.
fn lightning_address(text: &str, at: usize) -> Result<(Payee, &str), IdentityRefusal> {
    const REFUSED: IdentityRefusal = IdentityRefusal::LightningAddress;
    let (name, rest) = (&text[..at], &text[at + 1..]);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(REFUSED);
    }
    let (hosts, slashed) = split(rest, &['/']);
    let (host, dotted) = host_of(hosts).ok_or(REFUSED)?;
    // Both cannot be: what stands before the slash has to be a host to its end.
    let device = match (dotted.is_empty(), slashed.is_empty()) {
        (_, true) => dotted,
        (true, false) => slashed,
        (false, false) => return Err(REFUSED),
    };
    let address = format!("{name}@{host}").to_ascii_lowercase();
    Ok((Payee::LightningAddress(address), device))
}

/// The longest beginning of `text` that can be the name of a host, and what stands behind its dot. A host has two
/// labels at least, and no top-level domain has a digit or a single letter.
fn host_of(text: &str) -> Option<(&str, &str)> {
    let labels: Vec<&str> = text.split('.').collect();
    let fits = labels
        .iter()
        .take_while(|label| is_host_label(label))
        .count();
    let ends = |at: &usize| {
        let next = labels.get(at + 1);
        is_generic(labels[*at]) && next.is_some_and(|next| !is_countrys(next))
    };
    let fits = (1..fits).find(ends).map_or(fits, |at| at + 1);
    let taken = (2..=fits)
        .rev()
        .find(|taken| is_top_level(labels[taken - 1]))?;
    let bytes = labels[..taken]
        .iter()
        .map(|label| label.len() + 1)
        .sum::<usize>()
        - 1;
    if bytes > HOST_BYTES_MAX {
        return None;
    }
    Some((&text[..bytes], text.get(bytes + 1..).unwrap_or("")))
}

fn is_host_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_top_level(label: &str) -> bool {
    let letters = label.len() >= 2 && label.bytes().all(|byte| byte.is_ascii_alphabetic());
    letters || is_punycode(label)
}

fn is_punycode(label: &str) -> bool {
    label.len() > 4 && label[..4].eq_ignore_ascii_case("xn--")
}

fn is_generic(label: &str) -> bool {
    GENERIC_TOP_LEVELS
        .iter()
        .any(|generic| label.eq_ignore_ascii_case(generic))
}

/// Whether it may be the top-level domain of a country.
fn is_countrys(label: &str) -> bool {
    is_top_level(label) && (label.len() == 2 || is_punycode(label))
}

#[cfg(test)]
mod tests;
