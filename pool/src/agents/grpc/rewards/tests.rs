use std::collections::BTreeSet;

use super::*;
use crate::test_support::Database;
use dovetail_api::codes::code_of;
use dovetail_ledger::{Committer, CommitterConfig, RewardsConfig, Scheme, Share};
use dovetail_rewards::{
    LeafProof, PoolFee, Slice, SliceHeader, StatedPart, Weight, WindowLength, check_chain,
};
use dovetail_units::{ShareCredit, Work};
use tokio_util::sync::CancellationToken;

const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];
const SLICES: u64 = 20;
const HEIGHT: u32 = 100;

struct Fixture {
    database: Database,
    _folder: tempfile::TempDir,
    service: RewardsService,
}

/// A share of half a slice.
fn share(n: u64) -> Share {
    let mut hash = [0xee; 32];
    hash[..8].copy_from_slice(&n.to_le_bytes());
    let is_block = n % 10 == 9;
    Share {
        header_hash: HeaderHash::from_bytes(hash),
        height: HEIGHT + u32::try_from(n).unwrap(),
        account: ACCOUNTS[usize::try_from(n).unwrap() % 3].to_owned(),
        work: Work::new(1 << 40),
        is_block,
        credit: ShareCredit::default(),
        weight: Weight::new(Slice::SIZE.get() / 2).unwrap(),
        reward_sat: if is_block { 1_000 } else { 0 },
        is_coinbase_only: false,
        batch: None,
        proof: None,
    }
}

/// A pool after `shares`, two a slice; each tenth is a block.
async fn fixture(shares: u64) -> Fixture {
    let (database, folder) = (Database::create().await, tempfile::tempdir().unwrap());
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let config = CommitterConfig {
        write_interval: Duration::ZERO,
        rewards: Some(RewardsConfig {
            scheme: Scheme::Pplns(WindowLength::default()),
            fee: PoolFee::from_millionths(20_000).unwrap(),
            first_block: HeaderHash::from_bytes([2; 32]),
            signer: [1; 32],
            sign: Arc::new(|hash| [hash[0]; 64]),
            keep_slices: Duration::from_secs(3_600),
            keep_shares: Some(Duration::from_secs(3_600)),
        }),
        ..CommitterConfig::new(folder.path().to_owned(), 1 << 20)
    };
    let stop = CancellationToken::new();
    let committer = Committer::start(ledger.clone(), config, stop.clone());
    let committer = committer.await.unwrap();
    for n in 0..shares {
        committer.commit(share(n)).await.unwrap();
    }
    committer.written().await;
    stop.cancel();
    committer.stopped().await;
    Fixture {
        service: RewardsService::new(ledger, TaskTracker::new()),
        database,
        _folder: folder,
    }
}

impl Fixture {
    async fn blocks(
        &self,
        limit: u32,
        height_max: u32,
        hash: &[u8],
    ) -> Result<Vec<v1::Block>, Status> {
        let request = v1::ListBlocksRequest {
            limit,
            height_max,
            block_hash: hash.to_vec(),
        };
        let answer = self.service.list_blocks(Request::new(request)).await?;
        Ok(answer.into_inner().blocks)
    }

    async fn slices(&self, from: u64, limit: u32) -> Result<Vec<v1::Slice>, Status> {
        let request = v1::ListSlicesRequest { from, limit };
        let answer = self.service.list_slices(Request::new(request)).await?;
        Ok(answer.into_inner().slices)
    }

    async fn leaves(
        &self,
        account: &str,
        from: u64,
        limit: u32,
    ) -> Result<v1::ListLeavesResponse, Status> {
        let account = account.to_owned();
        let request = v1::ListLeavesRequest {
            account,
            from,
            limit,
        };
        let answer = self.service.list_leaves(Request::new(request)).await?;
        Ok(answer.into_inner())
    }

    async fn part(&self, block: &[u8], account: &str) -> Result<Vec<u8>, Status> {
        let request = v1::GetPartRequest {
            block_hash: block.to_vec(),
            account: account.to_owned(),
        };
        let answer = self.service.get_part(Request::new(request)).await?;
        Ok(answer.into_inner().part)
    }

    /// All leaves, as a client collects them, and the number of calls.
    async fn all_leaves(&self, account: &str, limit: u32) -> (Vec<v1::Leaf>, usize) {
        let (mut leaves, mut from, mut calls) = (Vec::new(), 0, 0);
        while from < SLICES {
            let answer = self.leaves(account, from, limit).await.unwrap();
            assert!(answer.next > from);
            assert!(
                answer
                    .leaves
                    .iter()
                    .all(|leaf| (from..answer.next).contains(&leaf.slice))
            );
            leaves.extend(answer.leaves);
            from = answer.next;
            calls += 1;
        }
        (leaves, calls)
    }
}

fn word<T>(refused: Result<T, Status>) -> String {
    code_of(&refused.err().unwrap()).unwrap().to_owned()
}

#[tokio::test]
async fn blocks_are_found_by_height_and_hash_with_what_they_were_divided_over() {
    let fixture = fixture(2 * SLICES).await;
    let all = fixture.blocks(128, 0, &[]).await.unwrap();
    let heights: Vec<_> = all.iter().map(|block| block.height).collect();
    // A share builds on the block below the one that it solves.
    assert_eq!(heights, [140, 130, 120, 110]);
    assert_eq!(fixture.blocks(2, 0, &[]).await.unwrap(), all[..2]);
    assert_eq!(fixture.blocks(128, 130, &[]).await.unwrap(), all[1..]);
    let hash = share(29).header_hash.to_bytes();
    assert_eq!(fixture.blocks(1, 0, &hash).await.unwrap(), all[1..2]);
    assert_eq!(fixture.blocks(1, 129, &hash).await.unwrap(), []);
    assert_eq!(fixture.blocks(1, 0, &[7; 32]).await.unwrap(), []);
    let amounts = (all[1].reward_msat, all[1].fee_msat, all[1].fee_millionths);
    assert_eq!(amounts, (1_000_000, 20_000, 20_000));
    assert_eq!(all[1].state(), v1::BlockState::Submitted);
    let window = all[1].window.unwrap();
    // Its own share is the last of slice 14.
    assert_eq!(
        (
            window.first_slice,
            window.last_slice,
            window.length_difficulties
        ),
        (0, 13, 8)
    );
    let signed = all[1].statement.as_ref().unwrap();
    assert_eq!(signed.rule(), v1::DivisionRule::Pplns);
    assert_eq!((signed.accounts, &*signed.signer), (3, &[1; 32][..]));
    let mut sum = all[1].fee_msat;
    for account in ACCOUNTS {
        let part = fixture.part(&hash, account).await.unwrap();
        let part = StatedPart::decode(&part).unwrap();
        assert_eq!(part.account.to_string(), account);
        sum += part.amount.get();
    }
    assert_eq!(sum, all[1].reward_msat);
    assert!(fixture.part(&hash, "nobody").await.unwrap().is_empty());
    assert!(fixture.part(&[7; 32], "alice").await.unwrap().is_empty());
    fixture.database.drop().await;
}

#[tokio::test]
async fn slices_come_without_a_gap_and_an_account_s_leaves_page_by_page() {
    let mut fixture = fixture(2 * SLICES).await;
    let slices = fixture.slices(0, 1_024).await.unwrap();
    let headers: Vec<_> = slices
        .iter()
        .map(|slice| SliceHeader::decode(&slice.header).unwrap())
        .collect();
    assert_eq!(headers.len() as u64, SLICES);
    check_chain(&headers).unwrap();
    for (slice, header) in slices.iter().zip(&headers) {
        assert_eq!(
            (&*slice.signer, &*slice.signature),
            (&[1; 32][..], &[header.root().as_bytes()[0]; 64][..])
        );
    }
    assert_eq!(fixture.slices(5, 3).await.unwrap(), slices[5..8]);
    assert_eq!(fixture.slices(SLICES, 3).await.unwrap(), []);
    assert_eq!(fixture.slices(u64::MAX, 3).await.unwrap(), []);
    let mut weight = 0;
    for account in ACCOUNTS {
        let (leaves, calls) = fixture.all_leaves(account, 5).await;
        for leaf in &leaves {
            let header = &headers[usize::try_from(leaf.slice).unwrap()];
            let proof = LeafProof::decode(&leaf.proof).unwrap();
            assert_eq!(proof.account.to_string(), account);
            proof.verify(header).unwrap();
            weight += proof.tally.weight.get();
        }
        let in_slices: BTreeSet<_> = leaves.iter().map(|leaf| leaf.slice).collect();
        assert!(in_slices.len() == leaves.len() && calls > 2, "{calls}");
        // However little time there is, an answer goes on by one leaf.
        fixture.service.leaves_time_max = Duration::ZERO;
        let (slowly, calls) = fixture.all_leaves(account, 32).await;
        assert!(slowly == leaves && calls >= leaves.len());
        fixture.service.leaves_time_max = LEAVES_TIME_MAX;
    }
    assert_eq!(
        weight,
        headers
            .iter()
            .map(|header| header.total.get())
            .sum::<u128>()
    );
    let nobody = fixture.leaves("nobody", 0, 32).await.unwrap();
    assert_eq!((nobody.leaves.len(), nobody.next), (0, SLICES));
    fixture.database.drop().await;
}

#[tokio::test]
async fn the_points_of_a_block_come_in_their_order_and_not_without_their_shares() {
    let mut fixture = fixture(2 * SLICES).await;
    let block = share(29).header_hash.to_bytes();
    let show = async |fixture: &Fixture, block: &[u8], from, limit| {
        let request = v1::ShowPointsRequest {
            block_hash: block.to_vec(),
            from,
            limit,
        };
        let answer = fixture.service.show_points(Request::new(request)).await;
        answer.map(Response::into_inner)
    };
    let all = show(&fixture, &block, 5, 16).await.unwrap();
    let numbers: Vec<_> = all.points.iter().map(|point| point.number).collect();
    assert_eq!(numbers, (5..21).collect::<Vec<_>>());
    assert_eq!(all.next, 21);
    for point in &all.points {
        assert!(point.slice <= 13 && !point.leaf.is_empty());
        // Of each share there is its list, and of these no header.
        assert!(matches!(point.shares.len(), 32 | 64) && point.share_proof.is_empty());
    }
    fixture.service.leaves_time_max = Duration::ZERO;
    let slowly = show(&fixture, &block, 5, 16).await.unwrap();
    assert_eq!((&slowly.points[..], slowly.next), (&all.points[..1], 6));
    let last = show(&fixture, &block, SAMPLE_POINTS_MAX - 1, 16)
        .await
        .unwrap();
    assert_eq!((last.points.len(), last.next), (1, SAMPLE_POINTS_MAX));
    for (block, from, limit) in [
        (&block[..], 0, 0),
        (&block[..], 0, 17),
        (&block[..], SAMPLE_POINTS_MAX, 1),
        (&block[..31], 0, 1),
        (&[7; 32][..], 0, 1),
    ] {
        let refused = word(show(&fixture, block, from, limit).await);
        assert_eq!(refused, Code::ArgumentInvalid);
    }
    fixture
        .database
        .run("SET session_replication_role = replica; DELETE FROM slice_shares; UPDATE reward_chain SET work_from = 5")
        .await;
    assert_eq!(
        word(show(&fixture, &block, 0, 1).await),
        Code::SlicesDropped
    );
    assert_eq!(
        word(fixture.leaves("alice", 4, 1).await),
        Code::SlicesDropped
    );
    assert!(fixture.leaves("alice", 5, 1).await.is_ok());
    fixture.database.drop().await;
}

#[tokio::test]
async fn a_pool_without_slices_answers_with_nothing() {
    let fixture = fixture(0).await;
    assert_eq!(fixture.blocks(1, 0, &[]).await.unwrap(), []);
    assert_eq!(fixture.slices(0, 1).await.unwrap(), []);
    let leaves = fixture.leaves("alice", 0, 1).await.unwrap();
    assert_eq!((leaves.leaves.len(), leaves.next), (0, 0));
    fixture.database.drop().await;
}

#[tokio::test]
async fn what_is_asked_for_out_of_bounds_is_refused_with_its_word() {
    let fixture = fixture(0).await;
    for limit in [0, 129] {
        assert_eq!(
            word(fixture.blocks(limit, 0, &[]).await),
            Code::ArgumentInvalid
        );
    }
    assert_eq!(
        word(fixture.blocks(1, 0, &[7; 31]).await),
        Code::ArgumentInvalid
    );
    assert_eq!(
        word(fixture.part(&[], "alice").await),
        Code::ArgumentInvalid
    );
    for limit in [0, 1_025] {
        assert_eq!(word(fixture.slices(0, limit).await), Code::ArgumentInvalid);
    }
    for limit in [0, 33] {
        assert_eq!(
            word(fixture.leaves("alice", 0, limit).await),
            Code::ArgumentInvalid
        );
    }
    for account in ["", "a\0b", &"a".repeat(256)] {
        assert_eq!(
            word(fixture.leaves(account, 0, 1).await),
            Code::ArgumentInvalid
        );
        assert_eq!(
            word(fixture.part(&[7; 32], account).await),
            Code::ArgumentInvalid
        );
    }
    fixture.database.drop().await;
}

#[tokio::test]
async fn few_are_answered_at_a_time_and_whoever_hangs_up_makes_room() {
    let mut fixture = fixture(2 * SLICES).await;
    fixture.service.turn_time_max = Duration::from_millis(20);
    let service = fixture.service.clone();
    let lists = service
        .lists
        .acquire_many(u32::try_from(LISTS_MAX).unwrap())
        .await
        .unwrap();
    assert_eq!(word(fixture.slices(0, 1).await), Code::RewardsFull);
    assert_eq!(word(fixture.blocks(1, 0, &[]).await), Code::RewardsFull);
    assert!(fixture.leaves("alice", 0, 1).await.is_ok());
    drop(lists);
    let leaves = service
        .leaves
        .acquire_many(u32::try_from(LEAVES_MAX).unwrap())
        .await
        .unwrap();
    assert_eq!(word(fixture.leaves("alice", 0, 1).await), Code::RewardsFull);
    assert_eq!(
        word(fixture.part(&[7; 32], "alice").await),
        Code::RewardsFull
    );
    assert!(fixture.slices(0, 1).await.is_ok());
    drop(leaves);
    for _ in 0..10 {
        let hung_up = timeout(Duration::from_millis(1), fixture.leaves("alice", 0, 32)).await;
        drop(hung_up);
    }
    // What they had begun has ended, and nothing is left of it.
    service.tracker.close();
    service.tracker.wait().await;
    assert_eq!(service.leaves.available_permits(), LEAVES_MAX);
    fixture.database.drop().await;
}
