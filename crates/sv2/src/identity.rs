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
/// How long what is all hexadecimal and not a worker's key was hardly meant as anything else.
const KEY_DIGITS: usize = 64;
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
    /// SRI's words for solo mining and donations, which this pool does not do.
    #[error("it asks for solo mining or a donation (sri/..), which this pool does not offer")]
    Solo,
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
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;
    use proptest::prelude::*;

    const BECH32: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const BASE58: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
    const OFFER: &str = "lno1pgqppmsrse80qf0aara4slvcjxrvu6j2rp5ftmjy4yntlsmsutpkvkt6878s";

    fn parsed(text: &str) -> (String, Option<String>) {
        let identity = Identity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (identity.account().to_owned(), identity.device)
    }

    #[test]
    fn each_shape_is_told_from_its_device() {
        let key = "ab".repeat(32);
        for (text, account, device) in [
            ("alice", "alice", None),
            ("alice.rig1", "alice", Some("rig1")),
            ("alice/rig1", "alice", Some("rig1")),
            ("alice.rig.1", "alice", Some("rig.1")),
            ("alice.", "alice", None),
            ("alice.h\u{e4}userl", "alice", Some("h\u{e4}userl")),
            ("pool:hash", "pool:hash", None),
            ("bob@walletofsatoshi.com", "bob@walletofsatoshi.com", None),
            ("Bob@WalletOfSatoshi.com", "bob@walletofsatoshi.com", None),
            ("lnwalker@getalby.example", "lnwalker@getalby.example", None),
            ("you@blink.sv/rig", "you@blink.sv", Some("rig")),
            ("you@blink.sv/rig.2/x", "you@blink.sv", Some("rig.2/x")),
            ("you@blink.sv.rig1", "you@blink.sv", Some("rig1")),
            ("you@blink.sv.1.x", "you@blink.sv", Some("1.x")),
            (
                "bob@walletofsatoshi.com.garage",
                "bob@walletofsatoshi.com",
                Some("garage"),
            ),
            (
                "bob@walletofsatoshi.com.garage.left",
                "bob@walletofsatoshi.com",
                Some("garage.left"),
            ),
            ("BOB@Coinos.IO.Rig", "bob@coinos.io", Some("Rig")),
            ("bob@wallet.com.au", "bob@wallet.com.au", None),
            ("bob@wallet.com.au.rig1", "bob@wallet.com.au", Some("rig1")),
            ("bob@com.example.org", "bob@com.example.org", None),
            ("bob@wallet.com.", "bob@wallet.com", None),
            ("bob@wallet.com..rig", "bob@wallet.com", Some(".rig")),
            (
                "first.last+tag@pay.example.com",
                "first.last+tag@pay.example.com",
                None,
            ),
            (
                "First.Last+Tag@Example.com/Rig",
                "first.last+tag@example.com",
                Some("Rig"),
            ),
            ("alice/rig@home", "alice", Some("rig@home")),
            ("alice..rig", "alice", Some(".rig")),
            ("miner.example.com", "miner", Some("example.com")),
            ("you@blink.sv.my_rig", "you@blink.sv", Some("my_rig")),
            ("you@pay.blink.sv", "you@pay.blink.sv", None),
            ("a.b@mail.example.com", "a.b@mail.example.com", None),
            ("you@host.xn--p1ai.7", "you@host.xn--p1ai", Some("7")),
            (BECH32, BECH32, None),
            (&format!("{BECH32}.s9"), BECH32, Some("s9")),
            (&format!("{BECH32}/s9"), BECH32, Some("s9")),
            (&BECH32.to_uppercase(), BECH32, None),
            (&format!("{BASE58}.s9"), BASE58, Some("s9")),
            (&format!("{OFFER}.s9"), OFFER, Some("s9")),
            (&OFFER.to_uppercase(), OFFER, None),
            (&format!("{key}.s9"), &key, Some("s9")),
            (&key.to_uppercase(), &key, None),
        ] {
            let expected = (account.to_owned(), device.map(str::to_owned));
            assert_eq!(parsed(text), expected, "{text}");
        }
        // As long as the message carries.
        for digits in [46, 128, 199, 249] {
            let offer = format!("lno1{}", "q".repeat(digits));
            assert_eq!(parsed(&offer), (offer.clone(), None));
            for written in [format!("{offer}.r"), format!("{offer}/r")] {
                assert_eq!(parsed(&written), (offer.clone(), Some("r".into())));
            }
            let upper = format!("{}.Rig", offer.to_uppercase());
            assert_eq!(parsed(&upper), (offer.clone(), Some("Rig".into())));
        }
        let longest = format!("lno1{}", "q".repeat(251));
        assert_eq!(parsed(&longest), (longest.clone(), None));
        // Taproot, of a test network, in capitals.
        let taproot = "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c";
        let written = format!("{}.S9", taproot.to_uppercase());
        assert_eq!(parsed(&written), (taproot.into(), Some("S9".into())));
    }

    #[test]
    fn what_nobody_could_be_paid_by_is_refused_with_its_reason() {
        use IdentityRefusal as Refused;
        for (text, refusal) in [
            ("", Refused::Empty),
            (".rig", Refused::Empty),
            ("/rig", Refused::Empty),
            ("a b", Refused::Characters),
            ("\u{7f}", Refused::Characters),
            ("\u{e9}", Refused::Characters),
            (&"a".repeat(129), Refused::Long),
            (&BECH32.replace("w5", "w6"), Refused::MistypedAddress),
            (&BASE58.replace("zP", "zQ"), Refused::MistypedAddress),
            (
                &BECH32.to_uppercase().replace("W5", "W6"),
                Refused::MistypedAddress,
            ),
            // A test network's.
            (
                "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfm",
                Refused::MistypedAddress,
            ),
            (&"ab".repeat(32)[1..], Refused::WorkerKey),
            (&format!("02{}", "AB".repeat(32)), Refused::WorkerKey),
            // Bech32 is of one case.
            (&OFFER.replace("lno1pg", "lno1PG"), Refused::Offer),
            (&format!("lno1{}b", "q".repeat(60)), Refused::Offer),
            ("alice.rig@home", Refused::LightningAddress),
            ("\u{20bf}bob@wallet.com", Refused::LightningAddress),
            ("bob@-wallet.com", Refused::LightningAddress),
            ("bob@wallet..com", Refused::LightningAddress),
            ("+@", Refused::LightningAddress),
            ("bob@wallet", Refused::LightningAddress),
            ("bob@wallet.1", Refused::LightningAddress),
            ("@wallet.com", Refused::LightningAddress),
            ("bob@", Refused::LightningAddress),
            ("bob@a@b.com", Refused::LightningAddress),
            ("bob@wallet.com.1/2", Refused::LightningAddress),
            ("b ob@wallet.com", Refused::LightningAddress),
            ("lno1", Refused::Offer),
            ("lno1pgqp.rig", Refused::Offer),
            ("sri/solo/bc1q/rig", Refused::Solo),
        ] {
            assert_eq!(Identity::parse(text), Err(refusal), "{text}");
        }
    }

    #[test]
    fn an_address_of_another_network_cannot_be_paid() {
        let payee = |text: &str| Identity::parse(text).unwrap().payee;
        let fits = payee(BECH32).fits(Network::Bitcoin);
        assert_eq!(fits, Ok(()));
        for network in [Network::Signet, Network::Regtest] {
            let refused = payee(BECH32).fits(network);
            assert_eq!(refused, Err(IdentityRefusal::OtherNetwork));
            assert_eq!(payee("alice").fits(network), Ok(()));
        }
    }

    fn host() -> impl Strategy<Value = String> {
        let host = "([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\\.){1,3}[a-z]{2,8}";
        host.prop_filter("a host goes on behind a generic domain", |host| {
            !host.split('.').any(is_generic)
        })
    }

    fn payee() -> impl Strategy<Value = String> {
        let key = any::<[u8; 32]>().prop_map(hex::encode);
        let script = any::<[u8; 20]>().prop_map(|hash| {
            let program = bitcoin::WPubkeyHash::from_byte_array(hash);
            let script = bitcoin::ScriptBuf::new_p2wpkh(&program);
            Address::from_script(&script, Network::Signet).unwrap()
        });
        let lightning = ("[a-z0-9_+-][a-z0-9._+-]{0,20}", host())
            .prop_map(|(name, host)| format!("{name}@{host}"));
        let offer = "lno1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{46,120}";
        let name = "[A-Za-z][A-Za-z0-9_:+-]{0,11}";
        prop_oneof![
            key,
            script.prop_map(|address| address.to_string()),
            lightning,
            offer.prop_map(|text| text),
            name.prop_map(|text| text),
        ]
    }

    proptest! {
        #[test]
        fn a_payee_comes_back_whole_with_and_without_a_device(payee in payee(), device in "[a-z0-9]{1,16}") {
            let alone = Identity::parse(&payee).unwrap();
            prop_assert_eq!(alone.account(), &payee);
            prop_assert_eq!(&alone.device, &None);
            let with = Identity::parse(&format!("{payee}/{device}")).unwrap();
            prop_assert_eq!(&with.payee, &alone.payee);
            prop_assert_eq!(with.device.as_deref(), Some(device.as_str()));
            let dotted = Identity::parse(&format!("{payee}.{device}1")).unwrap();
            prop_assert_eq!(&dotted.payee, &alone.payee);
        }

        #[test]
        fn an_account_is_the_account_of_its_own_name(text in "\\PC{0,80}") {
            if let Ok(identity) = Identity::parse(&text) {
                let account = identity.account();
                prop_assert!(!account.is_empty() && account.len() <= OFFER_BYTES_MAX);
                prop_assert!(account.bytes().all(|byte| byte.is_ascii_graphic()));
                let again = Identity::parse(account).unwrap();
                prop_assert_eq!(again, Identity { payee: identity.payee, device: None });
            }
        }

        #[test]
        fn names_of_the_form_account_dot_rig_keep_their_account(account in "[A-Za-z][A-Za-z0-9_-]{0,11}", rig in "[!-~]{0,20}") {
            let identity = Identity::parse(&format!("{account}.{rig}"));
            // A rig with an @ makes a Lightning address of it.
            if !rig.contains('@') {
                let identity = identity.unwrap();
                prop_assert_eq!(identity.account(), account);
            }
        }
    }
}
