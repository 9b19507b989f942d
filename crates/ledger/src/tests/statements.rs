//! What the pool signs of a block is what the ledger says of it, and each account is shown its part.

use dovetail_rewards::{BlockStatement, BlockTerms, DivisionRule, WindowTerms};

use super::rewards::{a_block, pplns, signer};
use super::*;
use crate::RewardState;

#[test]
fn a_block_is_signed_with_its_parts_and_each_account_is_shown_its_own() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let hash = a_block(&ledger, dir.path(), pplns(8)).await;
        let published = ledger.published_block(hash).await.unwrap().unwrap();
        let signed = published.signed.unwrap();
        assert_eq!((signed.signer, signed.parts.accounts), (signer(), 2));
        // As whoever has fetched it puts it together.
        let slices = ledger.published_slices(0, 10).await.unwrap();
        let window = published.window.unwrap();
        let newest = &slices[usize::try_from(window.last).unwrap()].header;
        let statement = BlockStatement {
            block: hash,
            height: published.height,
            rule: DivisionRule::Pplns,
            terms: BlockTerms {
                reward: published.reward,
                fee: published.fee,
                fee_part: published.fee_part,
            },
            window: Some((
                WindowTerms {
                    first: window.first,
                    last: window.last,
                    length: window.length,
                },
                newest.root(),
            )),
            parts: signed.parts,
        };
        assert!(statement.is_signed_by(&signer(), &signed.signature));
        for (account, amount) in [("alice", 742_500), ("bob", 247_500)] {
            let part = ledger.stated_part(hash, account).await.unwrap().unwrap();
            assert_eq!(part.amount.get(), amount);
            assert_eq!(statement.check_part(&part), Ok(()));
        }
        assert_eq!(ledger.stated_part(hash, "carol").await.unwrap(), None);
        assert_eq!(ledger.stated_part(hash, "").await.unwrap(), None);
        let other = HeaderHash::from_bytes([3; 32]);
        assert_eq!(ledger.stated_part(other, "alice").await.unwrap(), None);
        // A block that an earlier release divided stays as it was, and is said to be unsigned.
        sqlx::raw_sql(
            "SET session_replication_role = replica;
             UPDATE block_rewards SET parts = NULL, parts_top = NULL, signer = NULL, signature = NULL",
        )
        .execute(&mut db.connection().await)
        .await
        .unwrap();
        let published = ledger.published_block(hash).await.unwrap().unwrap();
        assert_eq!(published.signed, None);
        let noted = ledger.note_reward(hash, RewardState::Active);
        assert!(noted.await.unwrap());
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn what_a_block_pays_cannot_be_changed_deleted_or_divided_otherwise() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        a_block(&ledger, dir.path(), pplns(8)).await;
        let mut connection = db.connection().await;
        for sql in [
            "UPDATE block_rewards SET reward_msat = reward_msat + 1",
            "UPDATE block_rewards SET state = 'matured'",
            "UPDATE block_rewards SET finder = 'mallory'",
            "UPDATE block_rewards SET signature = sha512('x')",
            "UPDATE block_rewards SET parts = NULL, parts_top = NULL, signer = NULL, signature = NULL",
            "DELETE FROM block_rewards",
            "UPDATE block_credits SET amount_msat = amount_msat + 1",
            "DELETE FROM block_credits",
            "TRUNCATE block_credits",
            "INSERT INTO block_credits SELECT header_hash, 99, 1 FROM block_rewards",
            "INSERT INTO block_rewards (header_hash, height, finder, scheme, reward_msat, fee_msat, fee_millionths)
             VALUES (sha256('x'), 7, 'mallory', 'solo', 10, 9, 0)",
            "UPDATE slice_work SET weight = weight * 2",
            "DELETE FROM slice_work",
            "UPDATE reward_slices SET total = 1",
        ] {
            let done = sqlx::raw_sql(sql).execute(&mut connection).await;
            assert!(done.is_err(), "{sql}");
        }
    });
}
