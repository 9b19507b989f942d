//! What a pool signs of a block: what the block pays, what it was divided over, and what each account gets. Whoever holds a
//! signed part can show anybody that the pool said so.

use dovetail_commitment::{HeaderHash, is_signed, tagged_hash};
use dovetail_units::Msat;

use crate::account::{ACCOUNT_BYTES_MAX, AccountId};
use crate::chain::SliceRoot;
use crate::division::{Credit, Division};
use crate::encoding::{DecodeError, Reader};
use crate::part::{BlockTerms, WindowTerms};
use crate::sums::{Levels, Node, ProofError, check_way, decode_way, encode_way};
use crate::weight::Weight;

/// The version of both encodings.
const VERSION: u8 = 1;
/// The longest way up: the height of a tree of 2^32 leaves.
const PART_STEPS_MAX: usize = 32;

/// By which rule a block is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DivisionRule {
    /// Its finder has it.
    Solo,
    /// Over the newest work; a block without a window is its finder's all the same.
    Pplns,
}

/// The parts of a block, as they are signed: the top of a Merkle-sum tree over accounts and amounts. They add up to the
/// reward less the fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartsRoot {
    /// How many accounts have a part.
    pub accounts: u32,
    /// The hash of the node at the top; zeros if nobody has a part.
    pub top: [u8; 32],
}

/// What is signed of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStatement {
    /// The hash of its header.
    pub block: HeaderHash,
    /// Its height.
    pub height: u32,
    /// By which rule it was divided.
    pub rule: DivisionRule,
    /// What it pays.
    pub terms: BlockTerms,
    /// What it was divided over, and the root of the newest slice of that; `None` if its finder has it.
    pub window: Option<(WindowTerms, SliceRoot)>,
    /// What each account gets.
    pub parts: PartsRoot,
}

impl BlockStatement {
    /// The bytes of the encoding.
    pub const ENCODED_LEN: usize = 1 + 32 + 4 + 1 + 8 + 8 + 4 + 2 + 8 + 8 + 32 + 4 + 32;

    /// Version, then the fields in their order, integers little-endian. Without a window its length, its slices and its root
    /// are zero, which no window's length is.
    pub fn encode(&self) -> Vec<u8> {
        let rule = match self.rule {
            DivisionRule::Solo => 0,
            DivisionRule::Pplns => 1,
        };
        let (length, first, last, newest) = match &self.window {
            Some((window, newest)) => {
                let length = window.length.get();
                (length, window.first, window.last, *newest.as_bytes())
            }
            None => (0, 0, 0, [0; 32]),
        };
        let mut bytes = Vec::with_capacity(Self::ENCODED_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.block.as_bytes());
        bytes.extend_from_slice(&self.height.to_le_bytes());
        bytes.push(rule);
        bytes.extend_from_slice(&self.terms.reward.get().to_le_bytes());
        bytes.extend_from_slice(&self.terms.fee.get().to_le_bytes());
        bytes.extend_from_slice(&self.terms.fee_part.millionths().to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&last.to_le_bytes());
        bytes.extend_from_slice(&newest);
        bytes.extend_from_slice(&self.parts.accounts.to_le_bytes());
        bytes.extend_from_slice(&self.parts.top);
        bytes
    }

    /// Its hash: the 32-byte message that the pool signs, with the key that it signs slices with.
    pub fn hash(&self) -> [u8; 32] {
        tagged_hash("dovetail/reward-block", &[&self.encode()])
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, signer: &[u8; 32], signature: &[u8; 64]) -> bool {
        is_signed(signer, &self.hash(), signature)
    }

    /// Checks that this is one of the parts. Whether the statement is signed is for the caller to ask.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn check_part(&self, part: &StatedPart) -> Result<(), ProofError> {
        let rest = self.terms.reward.get().checked_sub(self.terms.fee.get());
        let rest = rest.and_then(sum).ok_or(ProofError::Sum)?;
        let top = Node {
            hash: self.parts.top,
            sum: rest,
        };
        let leaf = leaf(&part.account, part.amount).ok_or(ProofError::Empty)?;
        check_way(leaf, part.index, self.parts.accounts, &part.siblings, &top)?;
        Ok(())
    }
}

/// An amount as a sum of a tree; `None` if it is negative.
fn sum(msat: i64) -> Option<Weight> {
    let amount = u128::try_from(msat).ok()?;
    Some(Weight::new(amount).expect("63 bits"))
}

fn leaf(account: &AccountId, amount: Msat) -> Option<Node> {
    let parts: [&[u8]; 3] = [
        &[account.length()],
        account.as_bytes(),
        &amount.get().to_le_bytes(),
    ];
    Some(Node {
        hash: tagged_hash("dovetail/reward-part", &parts),
        sum: sum(amount.get())?,
    })
}

/// The tree over the parts of a block, with all its nodes: to sign its top, and to answer for each account.
#[derive(Debug, Clone)]
pub struct PartsTree {
    /// In the order of their accounts' bytes.
    credits: Vec<Credit>,
    levels: Levels,
}

impl PartsTree {
    /// Of this division. O(accounts).
    pub fn new(division: &Division) -> Self {
        Self::over(division.credits.clone())
    }

    /// The same of the parts as they were kept, in any order. Parts that come to nothing, of which a division has none, are
    /// no leaves. O(accounts).
    ///
    /// # Panics
    /// If the parts come to more than 2^120, which no amounts of money do.
    pub fn over(mut credits: Vec<Credit>) -> Self {
        credits.retain(|credit| credit.amount > Msat::ZERO);
        credits.sort_unstable_by(|a, b| a.account.cmp(&b.account));
        let leaves = credits
            .iter()
            .filter_map(|credit| leaf(&credit.account, credit.amount));
        let levels = Levels::over(leaves.collect());
        Self { credits, levels }
    }

    /// What is signed.
    pub fn root(&self) -> PartsRoot {
        PartsRoot {
            accounts: u32::try_from(self.credits.len()).expect("fewer accounts than 2^32"),
            top: self.levels.top().map_or([0; 32], |top| top.hash),
        }
    }

    /// An account's part, with its way to the root; `None` if it has none.
    pub fn part(&self, account: &AccountId) -> Option<StatedPart> {
        let found = self
            .credits
            .binary_search_by(|credit| credit.account.cmp(account));
        let index = found.ok()?;
        let credit = &self.credits[index];
        Some(StatedPart {
            account: credit.account.clone(),
            amount: credit.amount,
            index: u32::try_from(index).ok()?,
            siblings: self.levels.siblings(index),
        })
    }
}

/// What the pool says that an account gets of a block, and the way to what it has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedPart {
    /// Whose part it is.
    pub account: AccountId,
    /// How much.
    pub amount: Msat,
    /// Its place among the accounts, from 0.
    pub index: u32,
    /// The siblings from the leaf upwards; levels where the node moves up alone have none.
    pub siblings: Vec<Node>,
}

impl StatedPart {
    /// The bytes of the longest encoding.
    pub const ENCODED_LEN_MAX: usize = 1 + 1 + ACCOUNT_BYTES_MAX + 8 + 4 + 1 + PART_STEPS_MAX * 48;

    /// Version, account behind its length, amount, place, number of siblings, then each sibling's hash and sum. Integers are
    /// little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.account.length()];
        bytes.extend_from_slice(self.account.as_bytes());
        bytes.extend_from_slice(&self.amount.get().to_le_bytes());
        encode_way(&mut bytes, self.index, &self.siblings);
        bytes
    }

    /// Reads what [`StatedPart::encode`] wrote, and nothing else. Whether it was signed, [`BlockStatement`] says.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(VERSION)?;
        let account = reader.account()?;
        let amount = Msat::new(i64::from_le_bytes(reader.take()?));
        let (index, siblings) = decode_way(&mut reader, PART_STEPS_MAX)?;
        reader.end()?;
        Ok(Self {
            account,
            amount,
            index,
            siblings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::division::{PoolFee, by_weight, to_finder};
    use crate::weights::Weights;
    use crate::window::WindowLength;
    use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn account(n: usize) -> AccountId {
        AccountId::new(format!("account-{n}")).unwrap()
    }

    /// A block of so many accounts of different weights, and its tree.
    fn divided(accounts: usize, reward: i64) -> (BlockStatement, PartsTree) {
        let mut weights = Weights::default();
        for n in 0..accounts {
            let weight = Weight::new(1 + u128::try_from(n * n).unwrap()).unwrap();
            weights.add(&account(n), weight).unwrap();
        }
        let fee_part = PoolFee::from_millionths(15_000).unwrap();
        let division = by_weight(Msat::new(reward), fee_part, &weights).unwrap();
        let tree = PartsTree::new(&division);
        let window = WindowTerms {
            first: 3,
            last: 9,
            length: WindowLength::default(),
        };
        let statement = BlockStatement {
            block: HeaderHash::from_bytes([7; 32]),
            height: 900_000,
            rule: DivisionRule::Pplns,
            terms: BlockTerms {
                reward: Msat::new(reward),
                fee: division.fee,
                fee_part,
            },
            window: Some((window, SliceRoot::from_bytes([8; 32]))),
            parts: tree.root(),
        };
        (statement, tree)
    }

    #[test]
    fn each_part_is_shown_and_no_other_amount_account_or_place_is() {
        for accounts in [1, 2, 3, 7, 64, 65] {
            let (statement, tree) = divided(accounts, 1_000_003);
            let mut sum = statement.terms.fee;
            for n in 0..accounts {
                let part = tree.part(&account(n)).unwrap();
                assert_eq!(statement.check_part(&part), Ok(()));
                sum = Msat::new(sum.get() + part.amount.get());
                let other = |change: &dyn Fn(&mut StatedPart)| {
                    let mut other = part.clone();
                    change(&mut other);
                    statement.check_part(&other).unwrap_err()
                };
                other(&|it| it.amount = Msat::new(it.amount.get() + 1));
                other(&|it| it.amount = Msat::ZERO);
                other(&|it| it.amount = Msat::new(-1));
                other(&|it| it.account = account(accounts));
                other(&|it| it.index += 1);
                other(&|it| {
                    it.siblings
                        .push(it.siblings.first().copied().unwrap_or(Node {
                            hash: [1; 32],
                            sum: Weight::PER_DIFFICULTY,
                        }))
                });
            }
            assert_eq!(sum, statement.terms.reward);
            assert_eq!(tree.part(&account(accounts)), None);
        }
    }

    /// The statement with another value in each of its fields.
    fn changes(statement: BlockStatement) -> Vec<BlockStatement> {
        let window = |change: &dyn Fn(&mut WindowTerms, &mut SliceRoot)| {
            let mut changed = statement;
            let (window, root) = changed.window.as_mut().unwrap();
            change(window, root);
            changed
        };
        vec![
            BlockStatement {
                block: HeaderHash::from_bytes([6; 32]),
                ..statement
            },
            BlockStatement {
                height: 1,
                ..statement
            },
            BlockStatement {
                rule: DivisionRule::Solo,
                ..statement
            },
            BlockStatement {
                terms: BlockTerms {
                    reward: Msat::new(1),
                    ..statement.terms
                },
                ..statement
            },
            BlockStatement {
                terms: BlockTerms {
                    fee: Msat::new(1),
                    ..statement.terms
                },
                ..statement
            },
            BlockStatement {
                terms: BlockTerms {
                    fee_part: PoolFee::NONE,
                    ..statement.terms
                },
                ..statement
            },
            BlockStatement {
                window: None,
                ..statement
            },
            window(&|window, _| window.first = 4),
            window(&|window, _| window.last = 10),
            window(&|window, _| window.length = WindowLength::new(9).unwrap()),
            window(&|_, root| *root = SliceRoot::from_bytes([9; 32])),
            BlockStatement {
                parts: PartsRoot {
                    accounts: 4,
                    ..statement.parts
                },
                ..statement
            },
            BlockStatement {
                parts: PartsRoot {
                    top: [0; 32],
                    ..statement.parts
                },
                ..statement
            },
        ]
    }

    #[test]
    fn a_signature_covers_every_field() {
        let (statement, _) = divided(3, 1_000_003);
        let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[9; 32]).unwrap());
        let signer = key.x_only_public_key().0.serialize();
        let message = Message::from_digest(statement.hash());
        let signature = *SECP256K1.sign_schnorr_no_aux_rand(&message, &key).as_ref();
        assert!(statement.is_signed_by(&signer, &signature));
        assert!(!statement.is_signed_by(&[1; 32], &signature));
        assert_eq!(statement.encode().len(), BlockStatement::ENCODED_LEN);
        for changed in changes(statement) {
            assert!(!changed.is_signed_by(&signer, &signature), "{changed:?}");
        }
    }

    #[test]
    fn a_finder_has_the_one_part_and_a_pool_that_keeps_all_states_none() {
        let finder = account(1);
        let whole = PoolFee::from_millionths(1_000_000).unwrap();
        for (fee_part, accounts) in [(PoolFee::NONE, 1), (whole, 0)] {
            let division = to_finder(Msat::new(5), fee_part, &finder).unwrap();
            let tree = PartsTree::new(&division);
            assert_eq!(tree.root().accounts, accounts);
            let part = tree.part(&finder);
            assert_eq!(part.is_some(), accounts == 1);
            let statement = BlockStatement {
                window: None,
                terms: BlockTerms {
                    reward: Msat::new(5),
                    fee: division.fee,
                    fee_part,
                },
                parts: tree.root(),
                ..divided(1, 9).0
            };
            if let Some(part) = part {
                assert_eq!(
                    (statement.check_part(&part), part.amount),
                    (Ok(()), Msat::new(5))
                );
            }
        }
        assert_eq!(PartsTree::over(Vec::new()).root().top, [0; 32]);
    }

    #[test]
    fn kept_parts_make_the_same_tree_in_any_order() {
        let (statement, tree) = divided(20, 1_000_003);
        let mut credits = tree.credits;
        credits.reverse();
        assert_eq!(PartsTree::over(credits).root(), statement.parts);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_part_or_refused_and_read_one_way_only(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(part) = StatedPart::decode(&bytes) {
                prop_assert_eq!(part.encode(), bytes);
            }
        }

        #[test]
        fn a_part_survives_its_encoding(accounts in 1_usize..40, of in 0_usize..40, cut in 1_usize..24) {
            let (statement, tree) = divided(accounts, 5_000_000_001);
            let part = tree.part(&account(of % accounts)).unwrap();
            let bytes = part.encode();
            prop_assert!(bytes.len() <= StatedPart::ENCODED_LEN_MAX);
            let read = StatedPart::decode(&bytes).unwrap();
            prop_assert_eq!(statement.check_part(&read), Ok(()));
            prop_assert_eq!(read, part);
            prop_assert!(StatedPart::decode(&bytes[..bytes.len() - cut]).is_err());
        }
    }
}
