//! Who gets what of a block, and how anybody can check it: pure functions. `docs/rewards.md` has the rules, the proofs
//! and an example.
//!
//! A share has a [`Weight`] ([`ShareTerms`]). Shares fill slices ([`OpenSlice`], [`Slice`]) whose newest are the
//! [`Window`]. A block's reward is divided over the window's [`Weights`] ([`by_weight`]), or is its finder's
//! ([`to_finder`]). Each slice is published as a [`SliceHeader`] over its [`SumTree`] before the block is found. With a
//! [`LeafProof`] an account checks its part; [`points`] says which shares anybody may ask to see, an [`Answer`] finds one, and a [`ShareProof`] shows it.
//!
//! A [`PartProof`] puts what was published together: it shows what an account got of a block. A [`BlockStatement`] is what
//! the pool says of the block, over a [`PartsTree`]; a [`StatedPart`] is what it says of one account.
//!
//! Exact integers; no I/O, no clock, no randomness, no SQL, no Sv2, no secret keys. What is signed is
//! [`SliceRoot::as_bytes`] and [`BlockStatement::hash`]; who the pool is, is for the caller to know.
//!
//! ```
//! use dovetail_rewards::*;
//! use dovetail_units::{Msat, Work};
//!
//! let alice = AccountId::new("alice")?;
//! let mut open = OpenSlice::new(0, Slice::SIZE)?;
//! let mut window = Window::new(WindowLength::default());
//! let mut weights = Weights::default();
//!
//! // A share of 2^70 hashes where a block takes 2^79, on a job that is worth as much as the pool's.
//! let terms = ShareTerms {
//!     work: Work::new(1 << 70),
//!     block_work: Work::new(1 << 79),
//!     value_sat: 320_000_000,
//!     reference_sat: 320_000_000,
//! };
//! let share = CountedShare { id: ShareId([1; 16]), weight: terms.weight()? };
//! if let Some(closed) = open.add(&alice, &share)? {
//!     for (account, tally) in closed.accounts() {
//!         weights.add(account, tally.weight)?;
//!     }
//!     // None leaves yet. The weights of those that do are subtracted.
//!     let gone = window.push(WindowSlice { number: closed.number(), total: closed.total() })?;
//!     assert!(gone.is_empty());
//!     let genesis = SliceRoot::genesis(&[1; 32], &dovetail_commitment::HeaderHash::from_bytes([2; 32]), &[3; 32]);
//!     let header = SumTree::new(closed).header(genesis);
//!     assert_eq!(header.accounts, 1);
//! }
//! let fee = PoolFee::from_millionths(10_000)?;
//! let division = by_weight(Msat::new(320_000_000_000), fee, &weights)?;
//! assert_eq!(division.credits[0].amount, Msat::new(316_800_000_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
mod advance;
mod answer;
mod chain;
mod division;
mod encoding;
mod evidence;
mod part;
mod proportion;
mod sample;
mod shown;
mod slice;
mod statement;
mod sums;
mod tree;
mod weight;
mod weights;
mod window;

pub use account::{ACCOUNT_BYTES_MAX, AccountId, AccountLength};
pub use advance::AdvanceTerms;
pub use answer::{Answer, AnswerError};
pub use chain::{ChainBroken, SliceHeader, SliceRoot, check_chain};
pub use division::{Credit, Division, DivisionError, FeeTooHigh, PoolFee, by_weight, to_finder};
pub use encoding::DecodeError;
pub use evidence::{CountedShare, Evidence, EvidenceError, ShareId, Tally, decode_shares};
pub use part::{BlockTerms, Part, PartError, PartProof, SliceLeaf, WindowTerms};
pub use sample::{Place, locate, points};
pub use shown::{
    HEADER_BYTES, MERKLE_PATH_MAX, SHOWN_COINBASE_BYTES_MAX, ShareProof, ShownError, ShownShare,
};
pub use slice::{OpenSlice, SLICE_ACCOUNTS_MAX, Slice, SliceError};
pub use statement::{BlockStatement, DivisionRule, PartsRoot, PartsTree, StatedPart};
pub use sums::{Node, ProofError};
pub use tree::{LeafProof, PROOF_STEPS_MAX, SumTree};
pub use weight::{BlockWorkOutOfRange, ShareTerms, Weight, WeightTooLarge};
pub use weights::{WeightMissing, Weights};
pub use window::{Window, WindowError, WindowLength, WindowLengthOutOfRange, WindowSlice};
