//! Prompts and outputs at rest: nobody who has the database, its files or the log of shares reads them, and they go in time.

use std::collections::BTreeSet;
use std::path::Path;

use memchr::memmem;

use super::payers::settle;
use super::*;
use crate::TaskState;

/// Tokens that nobody else writes; as they would lie somewhere.
fn canary(n: u8) -> (Vec<u32>, Vec<u8>) {
    let mut random = dovetail_units::SplitMix64::new(super::random() ^ u64::from(n));
    let tokens: Vec<u32> = (0..6)
        .map(|_| u32::try_from(random.below(1 << 31)).unwrap())
        .collect();
    let bytes = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    (tokens, bytes)
}

/// Which of these lie in files of this folder, however deep; what `passes_over` names is not looked into.
fn found_in<'a>(
    folder: &Path,
    wanted: &[(&'a str, &[u8])],
    passes_over: &dyn Fn(&Path) -> bool,
) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if passes_over(&path) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(found_in(&path, wanted, passes_over));
            continue;
        }
        // Others use the server: a file may be gone by now.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let is_there = |(_, wanted): &&(&str, &[u8])| memmem::find(&bytes, wanted).is_some();
        found.extend(wanted.iter().filter(is_there).map(|(name, _)| *name));
    }
    found
}

/// All rows of all tables as text, as a dump has them.
async fn dump(connection: &mut PgConnection) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let mut all = String::new();
    for table in tables {
        let rows = format!("SELECT COALESCE(string_agg(r::text, ' '), '') FROM {table} r");
        let rows: String = sqlx::query_scalar(AssertSqlSafe(rows))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        all += &rows;
    }
    all
}

#[test]
fn neither_prompts_nor_outputs_lie_in_the_database_its_files_or_the_log() {
    run(|db, ledger| async move {
        let log = tempfile::tempdir().unwrap();
        let (prompt_tokens, of_prompt) = canary(1);
        let (output, of_output) = canary(2);
        let (_, stop) = canary(3);
        let (_, word) = canary(4);
        let (_, salt) = canary(5);
        let word = hex::encode(word);
        let task = |n: u8| NewTask {
            prompt: prompt(b"What is owed?", &prompt_tokens),
            stop: StopSequences::new(vec![stop.clone()]).unwrap(),
            constraint: Some(constraint(&format!("{{\"const\": \"{word}\"}}"))),
            salt: [&salt[..], &[n; 8]].concat().try_into().unwrap(),
            ..new_task(n)
        };
        // One that is over, one that waits for its share, and one that waits for a worker.
        for n in 1..=3 {
            assert!(ledger.create_task(&task(n)).await.unwrap());
        }
        for n in 1..=2 {
            let transcript = transcript(&task(n), &output);
            assert!(ledger.assign_task(task(n).id, WORKER).await.unwrap());
            ledger
                .finish_task(task(n).id, WORKER, &transcript, &output)
                .await
                .unwrap();
        }
        let running = Running::start(&ledger, log.path()).await;
        let first = [task(1).id];
        let root = root_of(&[transcript(&task(1), &output)]);
        ledger.register_batch(WORKER, root, &first).await.unwrap();
        let share = inference_share(1, root, &first);
        running.committer.commit(share).await.unwrap();
        running.stop().await;
        // The pool that has the key reads all of it.
        let record = ledger.task(task(2).id).await.unwrap().unwrap();
        assert_eq!(record.prompt.as_ref(), Some(&task(2).prompt));
        assert_eq!(record.stop.as_ref(), Some(&task(2).stop));
        assert_eq!(record.constraint, task(2).constraint);
        assert_eq!(record.salt, Some(task(2).salt));
        assert_eq!(record.output_tokens.as_ref(), Some(&output));

        let mut connection = db.connection().await;
        // What would be found, is found.
        let (_, seen) = canary(6);
        sqlx::query("CREATE TABLE seen AS SELECT $1::bytea AS bytes")
            .bind(&seen)
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::raw_sql("CHECKPOINT")
            .execute(&mut connection)
            .await
            .unwrap();
        let (folder, database): (String, String) = sqlx::query_as(
            "SELECT current_setting('data_directory'), oid::text FROM pg_database WHERE datname = current_database()",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        let folder = Path::new(&folder);
        // Databases of other tests.
        let is_of_others = |path: &Path| {
            path.parent() == Some(&folder.join("base"))
                && path.file_name() != Some(database.as_ref())
        };
        let wanted = [
            ("what would be found", &seen[..]),
            ("prompt", &of_prompt),
            ("output", &of_output),
            ("stop", &stop),
            ("constraint", word.as_bytes()),
            ("salt", &salt),
        ];
        let dump = dump(&mut connection).await;
        let in_tables = wanted
            .iter()
            .filter(|(_, bytes)| dump.contains(&hex::encode(bytes)));
        let in_tables: Vec<&str> = in_tables.map(|(name, _)| *name).collect();
        assert_eq!(in_tables, ["what would be found"]);
        let in_files = found_in(folder, &wanted, &is_of_others);
        assert_eq!(in_files, BTreeSet::from(["what would be found"]));
        let in_wal = found_in(&folder.join("pg_wal"), &wanted, &|_| false);
        assert_eq!(in_wal, BTreeSet::from(["what would be found"]));
        let in_log = found_in(log.path(), &wanted, &|_| false);
        assert_eq!(in_log, BTreeSet::new());
    });
}

#[test]
fn without_its_key_a_task_is_not_read_and_nothing_is_stored() {
    run(|db, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        let without = Ledger::open(db.options(), 2).await.unwrap();
        let other = without.clone().with_content_key(&[1; 32]);
        for ledger in [&without, &other] {
            let read = ledger.task(new_task(1).id).await.map(drop);
            assert!(matches!(read, Err(LedgerError::Sealed)), "{read:?}");
            let read = ledger.batch(root).await.map(drop);
            assert!(matches!(read, Err(LedgerError::Sealed)), "{read:?}");
            // A job declarator asks whether a batch may be claimed, which is not private.
            let batch = ledger.batch_without_contents(root).await.unwrap().unwrap();
            assert!(!batch.is_expired() && batch.tasks[0].transcript.is_some());
            assert!(batch.tasks[0].prompt.is_none() && batch.tasks[0].salt.is_none());
        }
        let stored = without.create_task(&new_task(2)).await;
        assert!(matches!(stored, Err(LedgerError::Sealed)), "{stored:?}");
        assert!(ledger.task(new_task(2).id).await.unwrap().is_none());
        // Nor is anything set aside for it.
        let subsidy = ledger.subsidy().await.unwrap();
        assert_eq!(subsidy.reserved, Msat::new(1_000));
    });
}

#[test]
fn outputs_and_salts_go_once_a_task_is_long_over_and_not_before() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        ledger.create_task(&new_task(1)).await.unwrap();
        settle(&ledger, dir.path(), &new_task(1)).await;
        let expires_at = ledger.task(new_task(1).id).await.unwrap().unwrap();
        let expires_at = expires_at.expires_at_unix;
        let later = NewTask {
            expires_at_unix: expires_at + 100,
            ..new_task(2)
        };
        finish(&ledger, &later).await;
        ledger.create_task(&new_task(3)).await.unwrap();
        ledger.cancel_task(new_task(3).id).await.unwrap();
        assert_eq!(ledger.wipe_contents(expires_at - 1).await.unwrap(), 0);
        let record = async |n: u8| ledger.task(TaskId::from_bytes([n; 32])).await.unwrap();
        assert!(record(1).await.unwrap().output_tokens.is_some());
        assert_eq!(ledger.wipe_contents(expires_at + 1_000).await.unwrap(), 2);
        let settled = record(1).await.unwrap();
        assert_eq!((settled.state, settled.salt), (TaskState::Settled, None));
        assert_eq!(settled.output_tokens, None);
        // What it has cost and what its transcript says stay.
        assert_eq!(settled.cost(), Msat::new(1_000));
        assert_eq!(settled.transcript.unwrap().output_tokens, 3);
        // The one that waits for its share is needed yet.
        let waits = record(2).await.unwrap();
        assert!(waits.salt.is_some() && waits.output_tokens.is_some());
        assert_eq!(ledger.wipe_contents(u64::MAX).await.unwrap(), 0);
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}
