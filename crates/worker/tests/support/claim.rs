//! A claim as a played pool and declarator take it: the declared job, the share, and how it is answered.

use bitcoin::Amount;
use dovetail_commitment::block::merkle_root;
use dovetail_commitment::coinbase::{find_commitment, parse_coinbase};
use dovetail_commitment::{BatchRoot, HeaderHash};
use dovetail_miner::search::{header_bytes, header_hash, meets};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{BatchOutcome, find_claim, sample_input};
use dovetail_sv2::messages::{
    DeclareMiningJob, SetCustomMiningJob, SetCustomMiningJobSuccess, Str0255Owned,
    SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_vrf::VrfProof;
use stratum_core::channels_sv2::server::jobs::factory::JobFactory;

use super::declarator::{accept_declaration, declaration, payout_script};
use super::pool::{CHANNEL, EXTRANONCE_PREFIX, EXTRANONCE_SIZE, vrf_secret};
use super::{Fixture, Played, Setup, easy_target};

const FULL_EXTRANONCE_SIZE: usize = EXTRANONCE_PREFIX.len() + EXTRANONCE_SIZE as usize;

/// A share with a claim, and the hash of its header.
pub(crate) struct Claim {
    pub(crate) root: BatchRoot,
    pub(crate) share: SubmitSharesExtended,
    pub(crate) header_hash: HeaderHash,
}

impl Claim {
    /// The claim of a batch that is registered, by way of a declared job.
    pub(crate) async fn take(pool: &mut Played, declarator: &mut Played, root: BatchRoot) -> Self {
        let declared = take_declaration(declarator, root).await;
        take_share(pool, &declared, root).await
    }

    /// The pool accepts the share, and says no more.
    pub(crate) async fn accept(&self, pool: &mut Played) {
        pool.send(&SubmitSharesSuccess {
            channel_id: CHANNEL,
            last_sequence_number: self.share.sequence_number,
            new_submits_accepted_count: 1,
            new_shares_sum: 1,
        })
        .await;
    }

    /// The pool refuses the share.
    pub(crate) async fn refuse(&self, pool: &mut Played, code: &str) {
        pool.send(&SubmitSharesError {
            channel_id: CHANNEL,
            sequence_number: self.share.sequence_number,
            error_code: Str0255Owned::try_from(code).unwrap(),
        })
        .await;
    }

    /// The outcome of an audit that passed, whose sample this share draws.
    pub(crate) fn passed(&self) -> BatchOutcome {
        passed(self.root, self.header_hash)
    }

    /// The outcome of an audit that could not be done: nothing is told of the sample.
    pub(crate) fn undone(&self) -> BatchOutcome {
        BatchOutcome {
            code: Code::AuditUnavailable.to_string(),
            sample_header: HeaderHash::from_bytes([0; 32]),
            proof: VrfProof::NONE,
            stake_msat: 0,
            ..self.failed()
        }
    }

    /// The outcome of an audit that found something else.
    pub(crate) fn failed(&self) -> BatchOutcome {
        BatchOutcome {
            accepted: false,
            code: "tokens".to_owned(),
            credit_msat: 0,
            held_msat: 0,
            ..self.passed()
        }
    }
}

/// A worker that claims the batch of its first task: with the pool and the declarator that took the claim.
pub(crate) async fn claimed(setup: Setup) -> (Fixture, Played, Played, Claim) {
    let fixture = Fixture::start(setup).await;
    let mut pool = fixture.session().await;
    let root = fixture.batch(&mut pool).await;
    let mut declarator = fixture.declarator().await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    (fixture, pool, declarator, claim)
}

/// The outcome of an audit that passed, claimed with a share with this header, which draws the sample.
pub(crate) fn passed(root: BatchRoot, header_hash: HeaderHash) -> BatchOutcome {
    BatchOutcome {
        root,
        header_hash,
        accepted: true,
        sample_header: header_hash,
        proof: vrf_secret().prove(&sample_input(&header_hash, &root)),
        stake_msat: 12_000,
        code: String::new(),
        credit_msat: 24_000,
        held_msat: 24_000,
    }
}

/// Gives a token, takes the declaration and checks that it pays the pool and commits to the root.
pub(crate) async fn take_declaration(declarator: &mut Played, root: BatchRoot) -> DeclareMiningJob {
    let declared = declaration(declarator).await;
    assert_eq!(declared.mining_job_token.as_bytes(), [1, 2]);
    let coinbase = parse_coinbase(
        declared.coinbase_tx_prefix.as_bytes(),
        &[0; FULL_EXTRANONCE_SIZE],
        declared.coinbase_tx_suffix.as_bytes(),
    )
    .unwrap();
    assert_eq!(find_commitment(&coinbase.output).unwrap(), Some(root));
    assert_eq!(coinbase.output[0].script_pubkey, payout_script());
    assert!(coinbase.output[0].value > Amount::ZERO);
    accept_declaration(declarator, &declared).await;
    declared
}

/// Takes the custom job and a share on it, and checks the share against both as a pool does.
pub(crate) async fn take_share(
    pool: &mut Played,
    declared: &DeclareMiningJob,
    root: BatchRoot,
) -> Claim {
    let custom: SetCustomMiningJob = pool.expect().await;
    assert_eq!(custom.token.as_bytes(), [3, 4]);
    let job = JobFactory::new(true, None, None)
        .new_extended_job_from_custom_job(
            custom.clone(),
            EXTRANONCE_PREFIX.to_vec(),
            FULL_EXTRANONCE_SIZE,
        )
        .unwrap();
    assert_eq!(
        job.get_coinbase_tx_prefix_with_bip141(),
        declared.coinbase_tx_prefix.as_bytes()
    );
    pool.send(&SetCustomMiningJobSuccess {
        channel_id: CHANNEL,
        request_id: custom.request_id,
        job_id: 77,
    })
    .await;
    let frame = pool.reader.read().await.unwrap();
    let (share, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!(share.job_id, 77);
    assert_eq!(find_claim(&fields), Ok(Some(root)));
    let extranonce = [&EXTRANONCE_PREFIX[..], share.extranonce.as_bytes()].concat();
    let coinbase = parse_coinbase(
        &job.get_coinbase_tx_prefix_without_bip141(),
        &extranonce,
        &job.get_coinbase_tx_suffix_without_bip141(),
    )
    .unwrap();
    let path: Vec<[u8; 32]> = custom.merkle_path.iter().map(U256Owned::to_array).collect();
    let txid = bitcoin::hashes::Hash::to_byte_array(coinbase.compute_txid());
    let header = header_bytes(
        share.version,
        custom.prev_hash.as_array(),
        &merkle_root(txid, &path),
        share.ntime,
        custom.nbits,
        share.nonce,
    );
    let hash = header_hash(&header);
    assert!(meets(&hash, &easy_target()));
    assert!(share.ntime >= custom.min_ntime);
    Claim {
        root,
        share,
        header_hash: HeaderHash::from_bytes(hash),
    }
}

/// The batch that a declaration commits to.
pub(crate) fn committed(declared: &DeclareMiningJob) -> Option<BatchRoot> {
    let (prefix, suffix) = (&declared.coinbase_tx_prefix, &declared.coinbase_tx_suffix);
    let extranonce = [0; FULL_EXTRANONCE_SIZE];
    let coinbase = parse_coinbase(prefix.as_bytes(), &extranonce, suffix.as_bytes()).unwrap();
    find_commitment(&coinbase.output).unwrap()
}
