use super::*;
use crate::test_support::Database;
use dovetail_api::codes::code_of;
use dovetail_commitment::tagged_hash;
use dovetail_ledger::{Committer, CommitterConfig, RewardsConfig, Scheme, Share, ShareJob};
use dovetail_rewards::{LeafProof, PoolFee, SliceHeader, Weight, WindowLength, check_chain};
use tokio_util::sync::CancellationToken;

const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];
