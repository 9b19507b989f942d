//! What the blocks of a pool pay: one script, or one for each height. A block of height `h` pays the script with the number
//! `h - first_height` of a descriptor with a range. That needs no state: the pool, its declarators and a restarted pool agree
//! without talking, and the owner's wallet knows the scripts by the range. Beside it a block may pay accounts of the pool's
//! itself, as a payout list says.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::{Amount, Network, Script, ScriptBuf, Transaction, TxOut};

use super::descriptor::{RangedDescriptor, Scripts};
use super::payout_lists::{PayoutList, PayoutLists, sum_of};
use super::{check_spendable, payout_script, scripts_of, tell_payout};

/// A miner may build on a script that it was given for an earlier block: a token's outputs are as old as the token, which
/// may be good for an hour. All of them are the pool's.
const EARLIER_HEIGHTS: u32 = 12;
/// How many derived scripts are kept: those of the blocks that are mined or looked at now.
const KEPT_MAX: usize = 64;

/// The keys of a section that say what blocks pay.
#[derive(Debug, Clone, Copy)]
pub struct PayoutKeys<'a> {
    /// The section's name.
    pub section: &'a str,
    /// Whose addresses hold.
    pub network: Network,
    /// An address or a descriptor.
    pub address: Option<&'a str>,
    /// In its place, a script in hex.
    pub script: Option<&'a str>,
    /// The height whose block pays the script with the number 0; `None` if it was left out.
    pub first_height: Option<u32>,
}

/// What blocks pay. Clones share their payout lists.
#[derive(Clone)]
pub struct Payout {
    kind: Kind,
    lists: PayoutLists,
}

#[derive(Clone)]
enum Kind {
    One(ScriptBuf),
    Ranged(Arc<Ranged>),
}

struct Ranged {
    descriptor: RangedDescriptor,
    first_height: u32,
    /// By their numbers; the newest last.
    kept: Mutex<Vec<(u32, ScriptBuf)>>,
}

impl Ranged {
    fn script(&self, height: u32) -> ScriptBuf {
        let number = height.saturating_sub(self.first_height);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, script)) = kept.iter().find(|(of, _)| *of == number) {
            return script.clone();
        }
        let script = self.descriptor.script(number);
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push((number, script.clone()));
        script
    }
}

impl Payout {
    /// As a section of the configuration says it.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with its value.
    pub fn parse(keys: PayoutKeys<'_>) -> Result<Self, String> {
        let PayoutKeys {
            section, network, ..
        } = keys;
        let ranged = match (keys.address, keys.script) {
            (Some(address), None) => match scripts_of(address.trim(), network) {
                Ok(Scripts::Ranged(descriptor)) => Some(descriptor),
                // What is wrong with it is said below.
                Ok(Scripts::One(_)) | Err(_) => None,
            },
            _ => None,
        };
        let Some(descriptor) = ranged else {
            if keys.first_height.is_some() {
                return Err(format!(
                    "{section}.payout_first_height is for a descriptor with a range (*) as {section}.payout_address: leave it out"
                ));
            }
            return payout_script(section, network, keys.address, keys.script).map(Self::one);
        };
        check_spendable(&descriptor.script(0))
            .map_err(|reason| format!("{section}.payout_address {reason}"))?;
        Ok(Self::of(Kind::Ranged(Arc::new(Ranged {
            descriptor,
            first_height: keys.first_height.unwrap_or_default(),
            kept: Mutex::default(),
        }))))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            lists: PayoutLists::default(),
        }
    }

    /// All blocks pay this script.
    pub fn one(script: ScriptBuf) -> Self {
        Self::of(Kind::One(script))
    }

    /// What the block of this height pays. Heights below the first one pay the script with the number 0.
    pub fn at(&self, height: u32) -> ScriptBuf {
        match &self.kind {
            Kind::One(script) => script.clone(),
            Kind::Ranged(ranged) => ranged.script(height),
        }
    }

    /// Whether a block of this height that pays `script` pays the pool: it is that of the height or of one of the 12 heights
    /// before, which miners may have been given.
    pub fn is_pools(&self, script: &Script, height: u32) -> bool {
        match &self.kind {
            Kind::One(one) => one.as_script() == script,
            Kind::Ranged(ranged) => {
                let heights = height.saturating_sub(EARLIER_HEIGHTS)..=height;
                // Mostly it is the height's own.
                heights
                    .rev()
                    .any(|height| ranged.script(height).as_script() == script)
            }
        }
    }

    /// The payout lists that are known from now on, the newest last.
    pub fn set_lists(&self, lists: Vec<PayoutList>) {
        self.lists.set(lists);
    }

    /// What a new job of a block of this height pays beside the pool.
    pub fn listed(&self, height: u32) -> Vec<TxOut> {
        self.lists.offered(height)
    }

    /// The outputs of a new job of the pool's own: its script first, which has what is left of `value_sat`.
    pub fn outputs(&self, height: u32, value_sat: u64) -> Vec<TxOut> {
        let listed = self.listed(height);
        // A list leaves the pool a part of the subsidy, and a template that pays less than that is none of a node's.
        let left = sum_of(&listed)
            .and_then(|sum| value_sat.checked_sub(sum))
            .filter(|left| *left > 0);
        let (left, listed) = left.map_or_else(|| (value_sat, Vec::new()), |left| (left, listed));
        let pools = TxOut {
            value: Amount::from_sat(left),
            script_pubkey: self.at(height),
        };
        std::iter::once(pools).chain(listed).collect()
    }

    /// What a job of a miner's own pays for the pool, in satoshi: the pool itself, and whom a payout list names. `None` if it
    /// pays somebody else, or the pool nothing. Outputs of other scripts are welcome as long as they are worth nothing.
    pub fn taken(&self, outputs: &[TxOut], height: u32) -> Option<u64> {
        let (pools, others) = self.apart(outputs, height);
        let pools = sum_of(pools)?;
        let value = pools.checked_add(sum_of(others.iter().copied())?)?;
        (pools > 0 && self.lists.takes(&others, height, value)).then_some(value)
    }

    /// What the coinbase of a block of this height pays for the pool, in satoshi: the pool itself and, if all of the other
    /// outputs are of one payout list, whom it names.
    pub fn paid_by(&self, coinbase: &Transaction, height: u32) -> u64 {
        let (mut paid, others) = self.apart(&coinbase.output, height);
        if !paid.is_empty() && self.lists.knows(&others) {
            paid.extend(others);
        }
        // None whose outputs do not sum up is valid.
        paid.iter().fold(0, |sum: u64, output| {
            sum.saturating_add(output.value.to_sat())
        })
    }

    /// What the coinbase of a block of this height pays beside the pool.
    pub fn paid_beside(&self, coinbase: &Transaction, height: u32) -> Vec<TxOut> {
        let (_, others) = self.apart(&coinbase.output, height);
        others.into_iter().cloned().collect()
    }

    /// The outputs that are worth something: the pool's, and the others.
    fn apart<'a>(&self, outputs: &'a [TxOut], height: u32) -> (Vec<&'a TxOut>, Vec<&'a TxOut>) {
        let worth = outputs.iter().filter(|output| output.value > Amount::ZERO);
        worth.partition(|output| self.is_pools(&output.script_pubkey, height))
    }

    /// What tells this payout from others: a token of the declarator is for one only.
    pub fn identity(&self) -> Vec<u8> {
        match &self.kind {
            Kind::One(script) => script.to_bytes(),
            Kind::Ranged(ranged) => {
                format!("{} from {}", ranged.descriptor, ranged.first_height).into_bytes()
            }
        }
    }

    /// Shows the operator where rewards go: it is the last moment to notice a mistake.
    pub fn tell(&self, network: Network) {
        match &self.kind {
            Kind::One(script) => tell_payout(script, network),
            Kind::Ranged(ranged) => {
                let first_height = ranged.first_height;
                tracing::info!(
                    first_height,
                    "each block pays an address of its own, by its height; the first one follows"
                );
                tell_payout(&ranged.script(first_height), network);
            }
        }
    }
}

/// Without the keys: whoever has them knows all blocks of the pool.
impl fmt::Debug for Payout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::One(_) => "Payout(one script)",
            Kind::Ranged(_) => "Payout(a script for each height)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // Of BIP 84: the account's key m/84'/0'/0', and its first two receive addresses.
    const ACCOUNT: &str = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
    const FIRST: &str = "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu";
    const SECOND: &str = "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g";

    fn keys(address: &str) -> PayoutKeys<'_> {
        PayoutKeys {
            section: "mining",
            network: Network::Bitcoin,
            address: Some(address),
            script: None,
            first_height: None,
        }
    }

    fn script(address: &str) -> ScriptBuf {
        Payout::parse(keys(address)).unwrap().at(7)
    }

    #[test]
    fn each_height_pays_the_script_of_its_number() {
        let descriptor = format!("wpkh({ACCOUNT}/0/*)");
        let payout = Payout::parse(PayoutKeys {
            first_height: Some(900_000),
            ..keys(&descriptor)
        })
        .unwrap();
        assert_eq!(payout.at(900_000), script(FIRST));
        assert_eq!(payout.at(900_001), script(SECOND));
        assert_eq!(payout.at(0), script(FIRST));
        // However many were derived between.
        for height in 900_000..900_200 {
            payout.at(height);
        }
        assert_eq!(payout.at(900_001), script(SECOND));
        assert_ne!(payout.at(u32::MAX), script(FIRST));
        let from_0 = Payout::parse(keys(&descriptor)).unwrap();
        assert_eq!(
            (from_0.at(0), from_0.at(1)),
            (script(FIRST), script(SECOND))
        );
        assert_ne!(from_0.identity(), payout.identity());
    }

    #[test]
    fn a_block_may_pay_the_script_of_a_few_heights_before_and_no_other() {
        let descriptor = format!("wpkh({ACCOUNT}/0/*)");
        let payout = Payout::parse(keys(&descriptor)).unwrap();
        for (height, is_pools) in [
            (100, true),
            (99, true),
            (88, true),
            (87, false),
            (101, false),
        ] {
            assert_eq!(
                payout.is_pools(&payout.at(height), 100),
                is_pools,
                "{height}"
            );
        }
        assert!(payout.is_pools(&payout.at(0), 3));
        let one = Payout::one(script(FIRST));
        assert!(one.is_pools(&script(FIRST), 5) && !one.is_pools(&script(SECOND), 5));
        assert_eq!(one.identity(), script(FIRST).to_bytes());
    }

    #[test]
    fn outputs_of_a_payout_list_are_the_pools_in_all_but_name() {
        let output = |address: &str, sat| TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: script(address),
        };
        let (pool, listed) = (FIRST, output(SECOND, 60));
        let payout = Payout::one(script(pool));
        assert_eq!(payout.outputs(7, 100), [output(pool, 100)]);
        let list = PayoutList::new(Duration::from_secs(60), 90, 0..150, vec![listed.clone()]);
        payout.set_lists(vec![list]);
        let job = payout.outputs(7, 100);
        assert_eq!(job, [output(pool, 40), listed.clone()]);
        assert_eq!(payout.taken(&job, 7), Some(100));
        let pools_alone = [output(pool, 100)];
        assert_eq!(payout.taken(&pools_alone, 7), Some(100));
        // Less than the subsidy, another amount, another height, nothing for the pool.
        assert_eq!(payout.taken(&[output(pool, 29), listed.clone()], 7), None);
        assert_eq!(
            payout.taken(&[output(pool, 40), output(SECOND, 61)], 7),
            None
        );
        assert_eq!(payout.taken(&job, 150), None);
        assert_eq!(payout.taken(std::slice::from_ref(&listed), 7), None);
        // A template that pays less than the list does pays the pool.
        assert_eq!(payout.outputs(7, 60), [output(pool, 60)]);
        let coinbase = |output: &[TxOut]| Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: output.to_vec(),
        };
        let of = |outputs: &[TxOut]| {
            let coinbase = coinbase(outputs);
            (
                payout.paid_by(&coinbase, 7),
                payout.paid_beside(&coinbase, 7),
            )
        };
        assert_eq!(of(&job), (100, vec![listed.clone()]));
        let another = output(SECOND, 61);
        assert_eq!(
            of(&[output(pool, 40), another.clone()]),
            (40, vec![another])
        );
        assert_eq!(
            of(std::slice::from_ref(&listed)),
            (0, vec![listed.clone()]),
            "somebody else's block"
        );
    }

    #[test]
    fn what_the_keys_say_is_refused_by_their_names() {
        let of_one = PayoutKeys {
            first_height: Some(1),
            ..keys(FIRST)
        };
        let refused = Payout::parse(of_one).unwrap_err();
        assert!(refused.contains("mining.payout_first_height"), "{refused}");
        let elsewhere = PayoutKeys {
            network: Network::Regtest,
            ..keys("unused")
        };
        let descriptor = format!("wpkh({ACCOUNT}/0/*)");
        let refused = Payout::parse(PayoutKeys {
            address: Some(&descriptor),
            ..elsewhere
        });
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("another network than regtest"),
            "{refused}"
        );
        for path in ["0/*h", "0h/*"] {
            let hardened = format!("wpkh({ACCOUNT}/{path})");
            let refused = Payout::parse(keys(&hardened)).unwrap_err();
            assert!(refused.contains("hardened"), "{path}: {refused}");
        }
        let bare = format!("multi(1,{ACCOUNT}/0/*,{ACCOUNT}/1/*)");
        let refused = Payout::parse(keys(&bare)).unwrap_err();
        assert!(
            refused.contains("none of the standard scripts"),
            "{refused}"
        );
        // Solo mining pays one script.
        let one = payout_script("solo", Network::Bitcoin, Some(&descriptor), None);
        assert!(one.unwrap_err().contains("has a range"));
    }
}
