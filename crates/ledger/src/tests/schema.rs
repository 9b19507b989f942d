//! Migrations, and what the database itself refuses.

use super::*;
use crate::TaskState;

async fn refusal(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query(sql)
        .execute(connection)
        .await
        .expect_err(sql)
        .as_database_error()
        .unwrap()
        .message()
        .to_owned()
}

#[test]
fn migrating_twice_or_from_two_processes_at_once_is_harmless() {
    run(|db, ledger| async move {
        let other = db.ledger().await;
        let (first, second) = tokio::join!(ledger.migrate(), other.migrate());
        first.unwrap();
        second.unwrap();
        assert_eq!(ledger.stats().await.unwrap(), crate::Stats::default());
    });
}

#[test]
fn facts_cannot_be_changed_or_deleted_even_by_hand() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(hash_share(1, "alice", 5))
            .await
            .unwrap();
        let mut by_hand = db.connection().await;
        for sql in [
            "UPDATE transfers SET amount = 1000000",
            "DELETE FROM transfers",
            "TRUNCATE transfers CASCADE",
            "UPDATE shares SET work = 1000000",
            "DELETE FROM shares",
            "TRUNCATE shares CASCADE",
            "TRUNCATE shares_0",
            "TRUNCATE hash_credits",
        ] {
            let message = refusal(&mut by_hand, sql).await;
            assert!(message.contains("are facts"), "{sql}: {message}");
        }
        for sql in [
            "UPDATE accounts SET credits_posted = credits_posted + 1",
            "UPDATE accounts SET never_negative = false",
            "DELETE FROM accounts",
            "INSERT INTO accounts (name, never_negative, credits_posted) VALUES ('worker:x', true, 9)",
        ] {
            let message = refusal(&mut by_hand, sql).await;
            assert!(message.contains("account"), "{sql}: {message}");
        }
        for sql in [
            "DELETE FROM hash_credits",
            "UPDATE hash_credits SET shares = 0",
            "UPDATE hash_credits SET unsettled = unsettled - 1",
        ] {
            assert!(
                sqlx::query(sql).execute(&mut by_hand).await.is_err(),
                "{sql}"
            );
        }
        assert_eq!(available(&ledger, "alice").await, 5);
    });
}

#[test]
fn errors_show_neither_rows_nor_the_password() {
    run(|_db, ledger| async move {
        // The detail of this violation quotes the row, prompt and all.
        let error = sqlx::query(
            "INSERT INTO tasks (id, state, model_id, prompt, request_hash, salt, sampling, seed,
                                price_msat, created_at, expires_at)
             VALUES (decode(repeat('01', 32), 'hex'), 'settled', decode(repeat('01', 32), 'hex'),
                     'confidential', decode(repeat('01', 32), 'hex'), decode(repeat('01', 32), 'hex'),
                     decode(repeat('01', 16), 'hex'), decode(repeat('01', 32), 'hex'), 0, 0, 0)",
        )
        .execute(&ledger.pool)
        .await
        .map_err(crate::LedgerError::from)
        .unwrap_err();
        let hex = hex::encode("confidential");
        for shown in [format!("{error}"), format!("{error:?}")] {
            assert!(
                !shown.contains(&hex) && !shown.contains("confidential"),
                "{shown}"
            );
        }
        let error = Ledger::connect("mysql://root:hunter2@nowhere", 1)
            .await
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    });
}

#[test]
fn tasks_of_a_release_whose_prompts_were_texts_end_and_nobody_answers_for_them() {
    run(|db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        for n in [2, 3] {
            ledger.create_task(&new_task(n)).await.unwrap();
        }
        let id = |n: u8| TaskId::from_bytes([n; 32]);
        ledger.cancel_task(id(3)).await.unwrap();
        let mut by_hand = db.connection().await;
        sqlx::raw_sql(
            "ALTER TABLE tasks DROP CONSTRAINT prompt_is_sealed;
             UPDATE tasks SET prompt = 'What is owed?' WHERE prompt IS NOT NULL;
             DELETE FROM _sqlx_migrations WHERE version = 15;",
        )
        .execute(&mut by_hand)
        .await
        .unwrap();
        assert!(matches!(ledger.task(id(1)).await, Err(LedgerError::Sealed)));
        ledger.migrate().await.unwrap();
        for n in [1, 2] {
            let task = ledger.task(id(n)).await.unwrap().unwrap();
            assert_eq!((task.state, task.prompt), (TaskState::Failed, None));
            assert_eq!(task.error_code.as_deref(), Some("pool-restarted"));
        }
        let cancelled = ledger.task(id(3)).await.unwrap().unwrap();
        assert_eq!(cancelled.state, TaskState::Cancelled);
        // Its batch can be claimed no more; nothing else became of it.
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert!(
            batch
                .tasks
                .iter()
                .all(|task| task.state == TaskState::Failed)
        );
        assert_eq!(ledger.audit_record(&WORKER).await.unwrap().mismatches, 0);
    });
}

/// A role that owns nothing does all that daemons do, and cannot make a fact go away.
#[test]
fn the_role_of_daemons_works_and_neither_changes_tables_nor_deletes_facts() {
    run(|db, owner| async move {
        let role = format!("daemons_{}", db.name);
        db.admin(&format!("CREATE ROLE {role} LOGIN")).await;
        owner.grant_to_daemons(&role).await.unwrap();
        owner.grant_to_daemons(&role).await.unwrap();
        let options = db.options().username(&role);
        let ledger = Ledger::open(options.clone(), 4).await.unwrap();
        let ledger = ledger.with_content_key(&CONTENT_KEY);
        // What is up to date needs no right to change it.
        ledger.migrate().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        rewards::a_matured_block(&ledger, dir.path()).await;
        agent_keys::a_key_that_has_paid(&ledger, dir.path()).await;
        assert!(ledger.revoke_key("paid").await.unwrap());
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        let mut connection = options.connect().await.unwrap();
        for sql in [
            "DELETE FROM transfers",
            "UPDATE transfers SET amount = amount + 1",
            "TRUNCATE shares",
            "DELETE FROM payouts",
            "DELETE FROM block_rewards",
            "DROP TABLE shares",
            "ALTER TABLE transfers DISABLE TRIGGER ALL",
            "SET session_replication_role = replica",
            "CREATE TABLE mine (n integer)",
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "UPDATE _sqlx_migrations SET success = false",
            "UPDATE reward_chain SET work_from = 9",
            "UPDATE agent_keys SET budget_msat = budget_msat + 1",
            "UPDATE agent_keys SET revoked_at = NULL",
            "DELETE FROM agent_keys",
            "UPDATE agent_key_days SET given_msat = given_msat + 1",
            "DELETE FROM agent_key_days",
            "INSERT INTO agent_key_days (key, day, given_msat) SELECT number, 9, budget_msat FROM agent_keys",
            "UPDATE slice_shares SET shares = 9",
            "DROP TABLE slice_work_0",
        ] {
            let done = sqlx::raw_sql(sql).execute(&mut connection).await;
            assert!(done.is_err(), "{sql}");
        }
        // Shares of the newest day stay, whatever is asked for.
        let dropped: i32 = sqlx::query_scalar("SELECT drop_share_partitions(2147483647)")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(dropped, 0);
        // So do slices that a block or the window needs.
        for table in ["slice_work", "slice_shares"] {
            let dropped: i32 = sqlx::query_scalar("SELECT drop_slice_partitions($1, 'infinity')")
                .bind(table)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(dropped, 0);
        }
        drop(ledger);
        connection.close().await.unwrap();
        let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        sqlx::raw_sql(AssertSqlSafe(gone))
            .execute(&mut db.connection().await)
            .await
            .unwrap();
    });
}
