//! The wallet's keys: an output descriptor (BIP 380 and those that build on it) with its private keys. Its scripts are all
//! that the wallet is: what pays one of them is the pool's.

use std::collections::HashMap;
use std::fmt;

use bitcoin::secp256k1::SECP256K1;
use bitcoin::{
    Address, Amount, Network, NetworkKind, OutPoint, Psbt, Script, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Weight, absolute, transaction,
};
use miniscript::descriptor::{DescriptorSecretKey, KeyMap};
use miniscript::psbt::PsbtExt;
use miniscript::{DefiniteDescriptorKey, Descriptor, DescriptorPublicKey, ForEachKey};

/// The most scripts that are looked for: a node takes seconds for as many.
const RANGE_MAX: u32 = 100_000;

/// The keys of the pool's money on the chain. Its `Debug` shows none.
#[derive(Clone)]
pub struct WalletKeys {
    /// The descriptor without its private keys. A parsed one is for one thread only.
    public: String,
    secrets: KeyMap,
    network: Network,
    /// By their numbers; never none.
    scripts: Vec<ScriptBuf>,
    numbers: HashMap<ScriptBuf, u32>,
    input_weight: Weight,
}

impl fmt::Debug for WalletKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WalletKeys(..)")
    }
}

/// Why a descriptor cannot be the wallet's. No words repeat it: it holds private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It does not parse.
    #[error(
        "it is not an output descriptor with its checksum right, such as wpkh(tprv.../0/*) (tprv.. from your own seed)"
    )]
    Malformed,
    /// A range is needed so that change does not go back to where it came from.
    #[error("it stands for several branches (<0;1>): write one, such as /0/*")]
    Multipath,
    /// Its extended keys are of other networks.
    #[error("its keys are of another network than {0}")]
    OtherNetwork(Network),
    /// A txid that others can change is no name of a payment.
    #[error(
        "it is not of SegWit (wpkh, sh(wpkh), wsh or tr): others could change the txids of what it pays"
    )]
    NotSegwit,
    /// Public keys, or not all that it takes.
    #[error(
        "it cannot sign: it needs its private keys (xprv.. or tprv..; no hardened * at the end)"
    )]
    CannotSign,
    /// The number of scripts is out of range.
    #[error("range must be 1 to {RANGE_MAX}")]
    Range,
}

/// An input that it did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotSigned;

impl WalletKeys {
    /// The keys of `descriptor`; its scripts are those of the numbers 0 to `range` - 1, or one if it has no `*`.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn parse(descriptor: &str, network: Network, range: u32) -> Result<Self, KeysError> {
        let (descriptor, secrets) = Descriptor::parse_descriptor(SECP256K1, descriptor)
            .map_err(|_| KeysError::Malformed)?;
        if descriptor.is_multipath() {
            return Err(KeysError::Multipath);
        }
        if is_elsewhere(&descriptor, &secrets, network) {
            return Err(KeysError::OtherNetwork(network));
        }
        if descriptor.desc_type().segwit_version().is_none() {
            return Err(KeysError::NotSegwit);
        }
        descriptor
            .sanity_check()
            .map_err(|_| KeysError::Malformed)?;
        if !(1..=RANGE_MAX).contains(&range) {
            return Err(KeysError::Range);
        }
        let range = match descriptor.has_wildcard() {
            true => range,
            false => 1,
        };
        let scripts: Vec<ScriptBuf> = (0..range)
            .map(|number| Ok(definite(&descriptor, number)?.script_pubkey()))
            .collect::<Result<_, KeysError>>()?;
        let satisfaction = definite(&descriptor, 0)?.max_weight_to_satisfy();
        let satisfaction = satisfaction.map_err(|_| KeysError::CannotSign)?;
        let keys = Self {
            public: descriptor.to_string(),
            secrets,
            network,
            numbers: scripts.iter().cloned().zip(0..).collect(),
            scripts,
            input_weight: TxIn::default().segwit_weight() + satisfaction,
        };
        keys.try_to_sign()?;
        Ok(keys)
    }

    /// Signs a transaction that goes nowhere: whether it can shows before money depends on it.
    fn try_to_sign(&self) -> Result<(), KeysError> {
        let coin = TxOut {
            value: Amount::ONE_BTC,
            script_pubkey: self.change_script(0),
        };
        let nowhere = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            }],
            output: vec![coin.clone()],
        };
        self.sign(nowhere, &[coin])
            .map_err(|NotSigned| KeysError::CannotSign)?;
        Ok(())
    }

    /// The descriptor without its private keys, with a checksum, as a node takes it.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// How many scripts it has.
    pub fn range(&self) -> u32 {
        u32::try_from(self.scripts.len()).unwrap_or(RANGE_MAX)
    }

    /// Where the operator puts money.
    ///
    /// # Panics
    /// Never: a SegWit script has an address.
    pub fn address(&self) -> Address {
        Address::from_script(&self.scripts[0], self.network).expect("SegWit scripts have addresses")
    }

    /// Where the change of a batch goes that is made at this height: another script for each, until the range begins again.
    pub fn change_script(&self, height: u64) -> ScriptBuf {
        // The first is for the operator's deposits, where there are others.
        let (_, others) = self.scripts.split_at(usize::from(self.scripts.len() > 1));
        let count = u64::try_from(others.len()).unwrap_or(1).max(1);
        let place = usize::try_from(height % count).unwrap_or_default();
        others.get(place).unwrap_or(&self.scripts[0]).clone()
    }

    /// Whether what pays this script is the wallet's.
    pub fn owns(&self, script: &Script) -> bool {
        self.numbers.contains_key(script)
    }

    /// What an input weighs at most.
    pub(crate) fn input_weight(&self) -> Weight {
        self.input_weight
    }

    /// Signs all inputs; `coins` is what they spend, in their order.
    pub(crate) fn sign(
        &self,
        unsigned: Transaction,
        coins: &[TxOut],
    ) -> Result<Transaction, NotSigned> {
        let descriptor: Descriptor<DescriptorPublicKey> =
            self.public.parse().map_err(|_| NotSigned)?;
        let mut psbt = Psbt::from_unsigned_tx(unsigned).map_err(|_| NotSigned)?;
        for (place, coin) in coins.iter().enumerate() {
            let number = self.numbers.get(&coin.script_pubkey).ok_or(NotSigned)?;
            let descriptor = definite(&descriptor, *number).map_err(|_| NotSigned)?;
            let input = psbt.inputs.get_mut(place).ok_or(NotSigned)?;
            input.witness_utxo = Some(coin.clone());
            psbt.update_input_with_descriptor(place, &descriptor)
                .map_err(|_| NotSigned)?;
        }
        psbt.sign(&self.secrets, SECP256K1).map_err(|_| NotSigned)?;
        psbt.finalize_mut(SECP256K1).map_err(|_| NotSigned)?;
        psbt.extract(SECP256K1).map_err(|_| NotSigned)
    }
}

fn definite(
    descriptor: &Descriptor<DescriptorPublicKey>,
    number: u32,
) -> Result<Descriptor<DefiniteDescriptorKey>, KeysError> {
    descriptor
        .at_derivation_index(number)
        .map_err(|_| KeysError::CannotSign)
}

/// Whether a key is of another kind of network.
fn is_elsewhere(
    descriptor: &Descriptor<DescriptorPublicKey>,
    secrets: &KeyMap,
    network: Network,
) -> bool {
    let kind = NetworkKind::from(network);
    let is_public_elsewhere = descriptor.for_any_key(|key| match key {
        DescriptorPublicKey::Single(_) => false,
        DescriptorPublicKey::XPub(extended) => extended.xkey.network != kind,
        DescriptorPublicKey::MultiXPub(extended) => extended.xkey.network != kind,
    });
    is_public_elsewhere
        || secrets.clone().into_iter().any(|(_, secret)| match secret {
            DescriptorSecretKey::Single(single) => single.key.network != kind,
            DescriptorSecretKey::XPrv(extended) => extended.xkey.network != kind,
            DescriptorSecretKey::MultiXPrv(extended) => extended.xkey.network != kind,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP 32's first test vector, as test networks write it.
    const TPRV: &str = "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m";
    const XPRV: &str = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";

    fn parse(descriptor: &str) -> Result<WalletKeys, KeysError> {
        WalletKeys::parse(descriptor, Network::Regtest, 20)
    }

    #[test]
    fn descriptors_of_segwit_with_their_keys_are_taken() {
        for text in [
            format!("wpkh({TPRV}/0/*)"),
            format!("tr({TPRV}/86h/1h/0h/0/*)"),
            format!("sh(wpkh({TPRV}/*))"),
            format!("wsh(pk({TPRV}/*))"),
        ] {
            let keys = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(keys.range(), 20);
            assert!(keys.owns(&keys.address().script_pubkey()));
            // Change goes elsewhere, each time, until the range begins again.
            assert_ne!(keys.change_script(0), keys.address().script_pubkey());
            assert_ne!(keys.change_script(1), keys.change_script(2));
            assert_eq!(keys.change_script(1), keys.change_script(20));
            assert!(keys.owns(&keys.change_script(u64::MAX)));
            assert!(!keys.public().contains("tprv"), "{}", keys.public());
            assert!(!format!("{keys:?}").contains("tprv"));
        }
        let single = parse("wpkh(cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA)").unwrap();
        assert_eq!(
            (single.range(), single.change_script(7)),
            (1, single.address().script_pubkey())
        );
    }

    #[test]
    fn what_cannot_be_the_wallets_is_told_why_and_never_repeated() {
        let tpub = "tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp";
        for (text, why) in [
            (format!("wpkh({TPRV}/<0;1>/*)"), KeysError::Multipath),
            (
                format!("wpkh({XPRV}/0/*)"),
                KeysError::OtherNetwork(Network::Regtest),
            ),
            (
                "wpkh(L1uyy5qTuGrVXrmrsvHWHgVzW9kKdrp27wBC7Vs6nZDTF2BRUVwy)".to_owned(),
                KeysError::OtherNetwork(Network::Regtest),
            ),
            (format!("pkh({TPRV}/0/*)"), KeysError::NotSegwit),
            (format!("wpkh({tpub}/0/*)"), KeysError::CannotSign),
            (format!("wpkh({TPRV}/0/*h)"), KeysError::CannotSign),
            (
                format!("wsh(multi(2,{TPRV}/0/*,{tpub}/1/*))"),
                KeysError::CannotSign,
            ),
            (format!("wpkh({TPRV}/0/*)#aaaaaaaa"), KeysError::Malformed),
            (TPRV.to_owned(), KeysError::Malformed),
            (String::new(), KeysError::Malformed),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error, why, "{text}");
            assert!(!error.to_string().contains(TPRV));
        }
        let range = WalletKeys::parse(&format!("wpkh({TPRV}/*)"), Network::Regtest, 0);
        assert_eq!(range.unwrap_err(), KeysError::Range);
    }
}
