use bitcoin::block::Version;
use bitcoin::{Transaction, Witness};
use proptest::prelude::*;

use super::*;
use crate::snapshot::WorkSnapshot;
use crate::test_work::{EASY_BITS, block, coinbase, mined, search};

const NOW: u32 = 1_800_000_000;

fn chain() -> RegtestChain {
    RegtestChain::new(Network::Regtest, EASY_BITS).unwrap()
}

fn work(chain: &RegtestChain) -> WorkSnapshot {
    let (template, tip) = chain.template(1, NOW);
    WorkSnapshot::new(template, tip, 1).unwrap()
}

/// What the chain says to its own template after `change`, mined again; it must not move.
fn refusal(chain: &mut RegtestChain, change: impl FnOnce(&mut Block)) -> BlockRejection {
    let mut block = block(&work(chain), coinbase(&work(chain)));
    change(&mut block);
    search(&mut block, true);
    let before = (chain.tip(), chain.height());
    let rejection = chain.submit(&block, NOW).unwrap_err();
    assert_eq!((chain.tip(), chain.height()), before);
    rejection
}

/// As [`refusal`], for a change of the coinbase.
fn coinbase_refusal(change: impl FnOnce(&mut Transaction)) -> BlockRejection {
    refusal(&mut chain(), |block| {
        change(&mut block.txdata[0]);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
    })
}

fn grow(chain: &mut RegtestChain, blocks: u32) {
    for _ in 0..blocks {
        let block = mined(&work(chain));
        chain.submit(&block, NOW).unwrap();
    }
}

#[test]
fn a_mined_template_extends_the_chain() {
    let mut chain = chain();
    grow(&mut chain, 20);
    assert_eq!(chain.height(), 20);
    assert_eq!(work(&chain).height(), 21);
}

#[test]
fn the_subsidy_halves_every_150_blocks() {
    let mut chain = chain();
    grow(&mut chain, 149);
    assert_eq!(work(&chain).coinbase_value_remaining_sat(), 2_500_000_000);
    assert_eq!(subsidy(149), Amount::from_int_btc(50));
    assert_eq!(subsidy(150), Amount::from_int_btc(25));
    assert_eq!(subsidy(150 * 33), Amount::ZERO);
    assert_eq!(subsidy(u32::MAX), Amount::ZERO);
    grow(&mut chain, 1);
}

#[test]
fn any_network_but_regtest_is_refused() {
    for network in [Network::Bitcoin, Network::Testnet, Network::Signet] {
        let refused = RegtestChain::new(network, EASY_BITS).unwrap_err();
        assert_eq!(refused, ChainError::Network(network));
    }
}

#[test]
fn bits_that_regtest_does_not_allow_are_refused() {
    // Easier than regtest's limit, zero, negative, spelled unusually, overflowing.
    for bits in [0x2100_ffff, 0, 0x1e83_ffff, 0x1f00_03ff, 0xff12_3456] {
        let refused = RegtestChain::new(Network::Regtest, bits).unwrap_err();
        assert_eq!(refused, ChainError::Bits(bits), "{bits:#x}");
    }
    for bits in [DEFAULT_BITS, EASY_BITS, 0x1d00_ffff] {
        assert!(
            RegtestChain::new(Network::Regtest, bits).is_ok(),
            "{bits:#x}"
        );
    }
}

#[test]
fn a_block_of_default_difficulty_takes_about_four_million_hashes() {
    let target = Target::from_compact(CompactTarget::from_consensus(DEFAULT_BITS));
    let hashes = target.to_work().to_string().parse::<u64>().unwrap();
    assert!((4_000_000..=4_300_000).contains(&hashes), "{hashes}");
}

#[test]
fn a_hash_above_the_target_is_refused() {
    let mut chain = chain();
    let mut bad = mined(&work(&chain));
    search(&mut bad, false);
    assert_eq!(chain.submit(&bad, NOW), Err(BlockRejection::HighHash));
}

#[test]
fn a_block_is_checked_before_it_is_hashed_by_every_other_rule() {
    let mut chain = chain();
    let mut unsolved = mined(&work(&chain));
    search(&mut unsolved, false);
    assert_eq!(chain.check_bytes(&serialize(&unsolved), NOW), Ok(()));
    assert_eq!(chain.height(), 0);
    assert_eq!(chain.submit(&unsolved, NOW), Err(BlockRejection::HighHash));
    unsolved.txdata[0].output[0].value += Amount::from_sat(1);
    unsolved.header.merkle_root = unsolved.compute_merkle_root().unwrap();
    assert_eq!(
        chain.check_bytes(&serialize(&unsolved), NOW),
        Err(BlockRejection::CoinbaseValue)
    );
}

#[test]
fn another_target_is_refused() {
    let rejection = refusal(&mut chain(), |block| {
        block.header.bits = CompactTarget::from_consensus(0x207f_fffe);
    });
    assert_eq!(rejection, BlockRejection::WrongBits);
}

#[test]
fn a_block_counts_once() {
    let mut chain = chain();
    let block = mined(&work(&chain));
    chain.submit(&block, NOW).unwrap();
    assert_eq!(chain.submit(&block, NOW), Err(BlockRejection::Duplicate));
}

#[test]
fn a_block_that_does_not_extend_the_tip_is_refused() {
    let mut chain = chain();
    let old = work(&chain);
    grow(&mut chain, 1);
    let mut coinbase = coinbase(&old);
    coinbase.output[0].script_pubkey = vec![0x52].into();
    let mut fork = block(&old, coinbase);
    search(&mut fork, true);
    assert_eq!(chain.submit(&fork, NOW), Err(BlockRejection::StaleParent));
    let rejection = refusal(&mut chain, |block| {
        block.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
    });
    assert_eq!(rejection, BlockRejection::UnknownParent);
}

#[test]
fn an_undone_block_is_gone_for_good() {
    let mut chain = chain();
    assert_eq!(chain.undo(), None);
    grow(&mut chain, 20);
    let (tip, median) = (chain.tip(), chain.median_time_past());
    let block = mined(&work(&chain));
    let hash = chain.submit(&block, NOW).unwrap();
    assert!(chain.contains(hash) && chain.contains(tip));
    assert_eq!(chain.undo(), Some(hash));
    assert!(!chain.contains(hash) && chain.contains(tip));
    assert_eq!((chain.tip(), chain.height()), (tip, 20));
    assert_eq!(chain.median_time_past(), median);
    assert_eq!(chain.submit(&block, NOW), Err(BlockRejection::Duplicate));
}

#[test]
fn the_time_must_exceed_the_median_of_the_last_eleven() {
    let mut chain = chain();
    for offset in 0..15 {
        let mut block = block(&work(&chain), coinbase(&work(&chain)));
        block.header.time = NOW + offset;
        search(&mut block, true);
        chain.submit(&block, NOW).unwrap();
    }
    // The last eleven are NOW + 4 ..= NOW + 14.
    assert_eq!(chain.median_time_past(), NOW + 9);
    assert_eq!(work(&chain).min_ntime(), NOW + 10);
    let rejection = refusal(&mut chain, |block| block.header.time = NOW + 9);
    assert_eq!(rejection, BlockRejection::TimeTooOld);
}

#[test]
fn the_time_may_not_run_two_hours_ahead() {
    let mut chain = chain();
    let rejection = refusal(&mut chain, |block| block.header.time = NOW + 7_201);
    assert_eq!(rejection, BlockRejection::TimeTooNew);
    let mut latest = block(&work(&chain), coinbase(&work(&chain)));
    latest.header.time = NOW + 7_200;
    search(&mut latest, true);
    assert!(chain.submit(&latest, NOW).is_ok());
}

#[test]
fn retired_versions_are_refused() {
    let rejection = refusal(&mut chain(), |block| {
        block.header.version = Version::from_consensus(3);
    });
    assert_eq!(rejection, BlockRejection::OldVersion);
}

#[test]
fn a_block_needs_a_coinbase() {
    let none = refusal(&mut chain(), |block| block.txdata.clear());
    assert_eq!(none, BlockRejection::NoCoinbase);
    let spends = coinbase_refusal(|coinbase| coinbase.input[0].previous_output.vout = 0);
    assert_eq!(spends, BlockRejection::NoCoinbase);
}

#[test]
fn a_root_of_other_transactions_is_refused() {
    let rejection = refusal(&mut chain(), |block| {
        block.txdata[0].output[0].script_pubkey = vec![0x52].into();
    });
    assert_eq!(rejection, BlockRejection::MerkleRoot);
}

#[test]
fn a_block_over_the_weight_limit_is_refused() {
    let rejection = coinbase_refusal(|coinbase| {
        coinbase.output[0].script_pubkey = vec![0x51; 1_100_000].into();
    });
    assert_eq!(rejection, BlockRejection::TooLarge);
    let bytes = vec![0; BLOCK_BYTES_MAX + 1];
    assert_eq!(
        chain().submit_bytes(&bytes, NOW),
        Err(BlockRejection::TooLarge)
    );
}

#[test]
fn transactions_that_spend_unknown_outputs_are_refused() {
    let rejection = refusal(&mut chain(), |block| {
        let mut spend = block.txdata[0].clone();
        spend.input[0].previous_output.vout = 0;
        block.txdata.push(spend);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
    });
    assert_eq!(rejection, BlockRejection::UnknownInputs);
}

#[test]
fn a_coinbase_script_of_bad_length_is_refused() {
    let short = coinbase_refusal(|coinbase| {
        coinbase.input[0].script_sig = rules::height_push(1).into();
    });
    assert_eq!(short, BlockRejection::ScriptLength);
    let long = coinbase_refusal(|coinbase| {
        let mut script = rules::height_push(1);
        script.resize(101, 0);
        coinbase.input[0].script_sig = script.into();
    });
    assert_eq!(long, BlockRejection::ScriptLength);
}

#[test]
fn a_coinbase_of_another_height_is_refused() {
    // Height 1 must be spelled OP_1; a data push of the number is another script.
    for script in [rules::height_push(2), vec![1, 1]] {
        let rejection = coinbase_refusal(|coinbase| {
            let mut script = script;
            script.extend_from_slice(&[0, 0]);
            coinbase.input[0].script_sig = script.into();
        });
        assert_eq!(rejection, BlockRejection::Height);
    }
}

#[test]
fn a_locked_coinbase_is_refused() {
    let rejection = coinbase_refusal(|coinbase| {
        coinbase.lock_time = bitcoin::absolute::LockTime::from_consensus(1);
    });
    assert_eq!(rejection, BlockRejection::NotFinal);
}

#[test]
fn a_coinbase_without_outputs_is_refused() {
    let rejection = coinbase_refusal(|coinbase| coinbase.output.clear());
    assert_eq!(rejection, BlockRejection::NoOutputs);
}

#[test]
fn the_witness_must_be_what_is_committed_to() {
    let other_value = coinbase_refusal(|coinbase| {
        coinbase.input[0].witness = Witness::from_slice(&[[1_u8; 32]]);
    });
    assert_eq!(other_value, BlockRejection::WitnessCommitment);
    let no_value = coinbase_refusal(|coinbase| coinbase.input[0].witness.clear());
    assert_eq!(no_value, BlockRejection::WitnessCommitment);
    let uncommitted = coinbase_refusal(|coinbase| {
        coinbase.output.pop();
    });
    assert_eq!(uncommitted, BlockRejection::WitnessCommitment);
}

#[test]
fn a_block_without_witness_needs_no_commitment() {
    let mut chain = chain();
    let mut coinbase = coinbase(&work(&chain));
    coinbase.output.pop();
    coinbase.input[0].witness.clear();
    let mut block = block(&work(&chain), coinbase);
    search(&mut block, true);
    assert!(chain.submit(&block, NOW).is_ok());
}

#[test]
fn a_coinbase_may_not_pay_more_than_the_subsidy() {
    let more = coinbase_refusal(|coinbase| coinbase.output[0].value += Amount::from_sat(1));
    assert_eq!(more, BlockRejection::CoinbaseValue);
    let overflow = coinbase_refusal(|coinbase| {
        coinbase.output[0].value = Amount::from_sat(u64::MAX);
        coinbase.output[1].value = Amount::from_sat(2);
    });
    assert_eq!(overflow, BlockRejection::CoinbaseValue);
}

proptest! {
    #[test]
    fn junk_is_no_block(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(chain().submit_bytes(&bytes, NOW).is_err());
    }

    /// Junk that still looks like a block: a valid one with some bytes changed or cut.
    #[test]
    fn a_damaged_block_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut chain = chain();
        let mut bytes = serialize(&mined(&work(&chain)));
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let _ = chain.submit_bytes(&bytes, NOW);
    }
}
