//! Who gets what of a block, and how anybody can check it: pure functions. `docs/rewards.md` has the rules, the proofs
//! and an example.
//!
//! A share has a [`Weight`] ([`ShareTerms`]). Shares fill slices ([`OpenSlice`], [`Slice`]) whose newest are the
//! [`Window`]. A block's reward is divided over the window's [`Weights`] ([`by_weight`]), or is its finder's
//! ([`to_finder`]). Each slice is published as a [`SliceHeader`] over its [`SumTree`] before the block is found. With a
//! [`LeafProof`] an account checks its part; [`points`] says which shares anybody may ask to see, and an [`Answer`] shows one.
//!
//! Exact integers; no I/O, no clock, no randomness, no SQL, no Sv2. What a signature is, is for the caller to know, too:
//! [`SliceRoot::as_bytes`] is what it is over.

mod account;
mod answer;
mod chain;
mod division;
mod encoding;
mod evidence;
mod proportion;
mod sample;
mod slice;
mod tree;
mod weight;
mod weights;
mod window;

pub use account::{ACCOUNT_BYTES_MAX, AccountId, AccountLength};
pub use answer::{Answer, AnswerError};
pub use chain::{ChainBroken, SliceHeader, SliceRoot, check_chain};
pub use division::{Credit, Division, DivisionError, FeeTooHigh, PoolFee, by_weight, to_finder};
pub use encoding::DecodeError;
pub use evidence::{CountedShare, Evidence, EvidenceError, ShareId, Tally, decode_shares};
pub use sample::{Place, locate, points};
pub use slice::{OpenSlice, SLICE_ACCOUNTS_MAX, Slice, SliceError};
pub use tree::{LeafProof, Node, PROOF_STEPS_MAX, ProofError, SumTree};
pub use weight::{BlockWorkOutOfRange, ShareTerms, Weight, WeightTooLarge};
pub use weights::{WeightMissing, Weights};
pub use window::{Window, WindowError, WindowLength, WindowLengthOutOfRange, WindowSlice};
