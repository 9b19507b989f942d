//! Output descriptors (BIP 380 and those that build on it) of one script, or of one for each height. `miniscript` knows all of them but `addr`.

use std::fmt;

use bitcoin::secp256k1::SECP256K1;
use bitcoin::{Network, NetworkKind, PrivateKey, ScriptBuf};
use miniscript::descriptor::checksum::verify_checksum;
use miniscript::{Descriptor, DescriptorPublicKey, ForEachKey};

const PRIVATE: &str = "it holds a PRIVATE KEY, which has no business in a configuration: whoever has read the file can \
     take the rewards. Make a new key, and write its address or its public descriptor here";

/// The characters of base58, in which private keys are written.
const BASE58: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// The length of a private key in wallet import format, with one typing mistake more or less.
const WIF_BYTES: std::ops::RangeInclusive<usize> = 50..=53;

/// Refuses what holds a private key, or what was hardly meant as anything else; the words do not repeat it.
pub(super) fn holds_private_key(text: &str) -> Option<&'static str> {
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .any(is_private_key)
        .then_some(PRIVATE)
}

fn is_private_key(word: &str) -> bool {
    // xprv, tprv, and those of SLIP 132 (yprv, zprv and others).
    let is_extended = word.get(1..4) == Some("prv") && word.len() > 20;
    let is_plain = WIF_BYTES.contains(&word.len())
        && word.starts_with(['5', 'K', 'L', '9', 'c'])
        && word.chars().all(|character| BASE58.contains(character));
    is_extended || is_plain || word.parse::<PrivateKey>().is_ok()
}

/// What a descriptor stands for.
pub(super) enum Scripts {
    /// One script.
    One(ScriptBuf),
    /// One for each number.
    Ranged(RangedDescriptor),
}

/// A descriptor with a `*` in it, which is never hardened. It is kept as text with its checksum: `miniscript`'s own is of one
/// thread.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RangedDescriptor(String);

impl RangedDescriptor {
    /// The largest number: those above are hardened ones.
    const NUMBER_MAX: u32 = (1 << 31) - 1;

    /// The script of this number; of the largest, if it is larger. Some tenths of a millisecond.
    pub(super) fn script(&self, number: u32) -> ScriptBuf {
        let number = number.min(Self::NUMBER_MAX);
        let descriptor: Descriptor<DescriptorPublicKey> =
            self.0.parse().expect("it was written from one");
        let derived = descriptor.derived_descriptor(SECP256K1, number);
        let derived = derived.expect("it was derived when it was read, and no number is hardened");
        derived.script_pubkey()
    }
}

impl fmt::Display for RangedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The script or the scripts of a descriptor.
///
/// # Errors
/// What is wrong with it; the words follow its key's name.
pub(super) fn scripts_of(text: &str, network: Network) -> Result<Scripts, String> {
    let text =
        verify_checksum(text).map_err(|error| format!("the descriptor is mistyped: {error}"))?;
    if let Some(rest) = text.strip_prefix("addr(") {
        let address = rest.strip_suffix(')').ok_or("addr( is not closed")?;
        return super::address_script(address, network).map(Scripts::One);
    }
    if text.starts_with("raw(") {
        return Err("a raw script belongs into payout_script".to_owned());
    }
    if text.starts_with("combo(") {
        return Err(
            "combo() stands for several scripts, and blocks pay one: take one of them".into(),
        );
    }
    let descriptor: Descriptor<DescriptorPublicKey> = text
        .parse()
        .map_err(|error| format!("it is not an output descriptor: {error}"))?;
    if descriptor.for_any_key(DescriptorPublicKey::is_multipath) {
        return Err(
            "the descriptor stands for several (<0;1>), and blocks pay one: write the number of one".to_owned(),
        );
    }
    if descriptor.for_any_key(|key| is_elsewhere(key, network)) {
        return Err(format!(
            "the descriptor has an extended key of another network than {network}"
        ));
    }
    descriptor
        .sanity_check()
        .map_err(|error| format!("nobody could spend it safely: {error}"))?;
    let derived = descriptor
        .derived_descriptor(SECP256K1, 0)
        .map_err(|error| format!("the descriptor's key cannot be derived: {error}"))?;
    Ok(
        match descriptor.for_any_key(DescriptorPublicKey::has_wildcard) {
            true => Scripts::Ranged(RangedDescriptor(descriptor.to_string())),
            false => Scripts::One(derived.script_pubkey()),
        },
    )
}

/// Whether an extended key is of another kind of network. A plain key has none.
fn is_elsewhere(key: &DescriptorPublicKey, network: Network) -> bool {
    let of = match key {
        DescriptorPublicKey::Single(_) => return false,
        DescriptorPublicKey::XPub(extended) => extended.xkey.network,
        DescriptorPublicKey::MultiXPub(extended) => extended.xkey.network,
    };
    of != NetworkKind::from(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniscript::descriptor::checksum::Engine;

    // Of BIP 32, test vector 1 (chain m).
    const XPUB: &str = "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8";
    const XPRV: &str = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
    /// The generator of secp256k1.
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    /// Twice the generator.
    const OTHER: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    /// The private keys 1 of both kinds of networks.
    const WIF: &str = "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn";
    const WIF_TEST: &str = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA";

    fn parsed(text: &str, network: Network) -> Result<String, String> {
        let one = |scripts| match scripts {
            Scripts::One(script) => script.to_hex_string(),
            Scripts::Ranged(_) => "many".to_owned(),
        };
        super::super::scripts_of(text, network).map(one)
    }

    fn with_checksum(text: &str) -> String {
        let mut sum = Engine::new();
        sum.input(text).unwrap();
        format!("{text}#{}", sum.checksum())
    }

    #[test]
    fn a_descriptor_of_one_script_is_taken_with_and_without_its_checksum() {
        let x_only = &KEY[2..];
        for (descriptor, script) in [
            (
                format!("wpkh({KEY})"),
                "0014751e76e8199196d454941c45d1b3a323f1433bd6".to_owned(),
            ),
            (
                format!("pkh({KEY})"),
                "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac".to_owned(),
            ),
            (format!("pk({KEY})"), format!("21{KEY}ac")),
            (
                "addr(tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx)".to_owned(),
                "0014751e76e8199196d454941c45d1b3a323f1433bd6".to_owned(),
            ),
            (
                // BIP 341 has no vector of exactly this; the output key is that of Bitcoin Core's deriveaddresses.
                format!("tr({x_only})"),
                "5120da4710964f7852695de2da025290e24af6d8c281de5a0b902b7135fd9fd74d21".to_owned(),
            ),
        ] {
            for text in [with_checksum(&descriptor), descriptor] {
                assert_eq!(
                    parsed(&text, Network::Signet).as_ref(),
                    Ok(&script),
                    "{text}"
                );
            }
        }
        for (descriptor, begin) in [
            (format!("wsh(multi(2,{KEY},{OTHER}))"), "0020"),
            (format!("wsh(sortedmulti(1,{KEY},{OTHER}))"), "0020"),
            (format!("sh(wpkh({KEY}))"), "a914"),
            (format!("sh(wsh(multi(2,{KEY},{OTHER})))"), "a914"),
            (format!("sh(multi(2,{KEY},{OTHER}))"), "a914"),
            (format!("tr({x_only},pk({}))", &OTHER[2..]), "5120"),
            (format!("wpkh([d34db33f/84h/0h/0h]{XPUB}/0/7)"), "0014"),
        ] {
            let script = parsed(&descriptor, Network::Bitcoin).unwrap();
            assert!(script.starts_with(begin), "{descriptor}: {script}");
        }
    }

    #[test]
    fn what_is_not_one_script_of_the_network_is_refused_with_the_reason() {
        let mistyped = with_checksum(&format!("wpkh({KEY})")).replace("wpkh", "pkh");
        let address = "addr(tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx)";
        let right = with_checksum(address);
        let wrong = if right.ends_with('q') { "p" } else { "q" };
        for (text, words) in [
            (format!("wpkh({XPUB}/0/*)"), "another network than signet"),
            (format!("wpkh({XPUB}/<0;1>/3)"), "stands for several"),
            (format!("wpkh({XPUB}/<0;1>/*)"), "stands for several"),
            (format!("wpkh({XPUB}/0/7)"), "another network than signet"),
            (
                "addr(bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4)".into(),
                "not an address of the network",
            ),
            (format!("raw({KEY})"), "belongs into payout_script"),
            (format!("combo({KEY})"), "several scripts"),
            (mistyped, "checksum"),
            (format!("{}{wrong}", &right[..right.len() - 1]), "mistyped"),
            (format!("{address}x"), "is not closed"),
            (format!("{address}#"), "mistyped"),
            ("addr(tb1q".into(), "is not closed"),
            ("addr()".into(), "no address"),
            ("wpkh()".into(), "not an output descriptor"),
            ("wpkh(".into(), "not an output descriptor"),
            ("moon(1)".into(), "not an output descriptor"),
            // Anybody could spend it.
            ("wsh(1)".into(), ""),
            ("wsh(older(5))".into(), ""),
        ] {
            let refused = parsed(&text, Network::Signet).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
        for path in ["0h/7", "0/*h", "0h/*"] {
            let hardened = parsed(&format!("wpkh({XPUB}/{path})"), Network::Bitcoin).unwrap_err();
            assert!(hardened.contains("hardened"), "{path}: {hardened}");
        }
        // A script that nodes do not relay.
        let bare = super::super::payout_script(
            "mining",
            Network::Signet,
            Some(&format!("multi(1,{KEY},{OTHER})")),
            None,
        );
        assert!(bare.unwrap_err().contains("none of the standard scripts"));
    }

    #[test]
    fn a_private_key_is_refused_wherever_it_stands_and_is_not_repeated() {
        let uncompressed = "5HpHagT65TZzG1PH3CSu63k8DbpvD8s5ip4nEB3kEsreAnchuDf";
        let mut texts = Vec::new();
        for key in [XPRV, WIF, WIF_TEST, uncompressed] {
            texts.push(key.to_owned());
            texts.push(format!("wpkh({key})"));
            texts.push(format!("wpkh({key}/0/*)"));
            texts.push(format!("wsh(multi(2,{KEY},{key}))"));
            texts.push(format!("addr({key})"));
            // Mistyped it is a secret still.
            texts.push(format!("wpkh({}x)", &key[..key.len() - 1]));
            texts.push(format!("wpkh({key}x)"));
        }
        for text in texts {
            let refused = parsed(&text, Network::Bitcoin).unwrap_err();
            assert!(refused.contains("PRIVATE KEY"), "{text}: {refused}");
            for secret in [XPRV, WIF, WIF_TEST, uncompressed] {
                assert!(!refused.contains(&secret[..12]), "{refused}");
            }
        }
        assert_eq!(holds_private_key(&format!("wpkh({XPUB})")), None);
        assert_eq!(
            holds_private_key("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            None
        );
    }
}
