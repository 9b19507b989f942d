//! Databases as earlier releases left them, restored from what `pg_dump` wrote of them, become one of this release: with the
//! same schema as a new one, and with all that they had.
//!
//! `dumps/N.sql` is a database of schema N with rows in every table, written by
//! `pg_dump --inserts --no-owner --no-privileges`, less its comments and what only psql reads. A release that changes the schema
//! adds the dump of the one before. A dump that is here is not changed.

use super::*;

struct Dump {
    schema: i64,
    sql: &'static str,
    /// What it owes, holds for workers, and has paid out.
    owed: i64,
    held: i64,
    paid: i64,
}

const DUMPS: [Dump; 2] = [
    Dump {
        schema: 18,
        sql: include_str!("dumps/18.sql"),
        owed: 76_300,
        held: 2_800,
        paid: 10_020,
    },
    Dump {
        schema: 22,
        sql: include_str!("dumps/22.sql"),
        owed: 1_093_030,
        held: 2_000,
        paid: 20_025,
    },
];

/// Facts are there to stay: how many there are of each kind. Migration 29 ends tasks, and gives back what was set aside for them.
const FACTS: &str = "SELECT format('%s transfers, %s payouts, %s blocks, %s audits, %s receipts, %s batches, %s held credits',
    (SELECT count(*) FROM transfers WHERE reason <> 'task released'), (SELECT count(*) FROM payouts), (SELECT count(*) FROM blocks), (SELECT count(*) FROM audits),
    (SELECT count(*) FROM receipts), (SELECT count(*) FROM batches), (SELECT count(*) FROM held_credits))";

/// All of a schema that Postgres can tell, but the partitions of shares, which are made as they are needed.
const SCHEMA: &str = "
    SELECT what FROM (
        SELECT c.oid, format('%s %s %s', c.relkind, c.relname, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
               || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || a.attidentity::text
               || COALESCE(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) AS what
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relkind IN ('r', 'p', 'v') AND c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT conrelid, format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid, true))
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT indrelid, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
         WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT tgrelid, pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT oid, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
        UNION ALL SELECT 0, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) everything WHERE oid NOT IN (SELECT inhrelid FROM pg_inherits) ORDER BY what";

async fn schema(db: &Database) -> Vec<String> {
    let mut connection = db.connection().await;
    let all = sqlx::query_scalar(SCHEMA).fetch_all(&mut connection);
    all.await.unwrap()
}

/// Tables without a row.
async fn empty_tables(connection: &mut PgConnection) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND NOT relispartition",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let mut empty = Vec::new();
    for table in tables {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let rows: i64 = sqlx::query_scalar(count)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if rows == 0 {
            empty.push(table);
        }
    }
    empty
}

#[test]
fn the_databases_of_earlier_releases_become_one_of_this_with_all_that_they_had() {
    for dump in DUMPS {
        let of_new = std::sync::Mutex::new(Vec::new());
        let made = &of_new;
        run(|db, _ledger| async move {
            let found = schema(&db).await;
            *made.lock().unwrap() = found;
        });
        run_empty(|db, ledger| async move {
            let version = dump.schema;
            // Of its own: a dump changes what a connection looks through.
            let mut restoring = db.connection().await;
            sqlx::raw_sql(dump.sql)
                .execute(&mut restoring)
                .await
                .unwrap();
            restoring.close().await.unwrap();
            let mut connection = db.connection().await;
            let newest: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(newest, version);
            assert_eq!(empty_tables(&mut connection).await, [] as [&str; 0]);
            let facts: String = sqlx::query_scalar(FACTS)
                .fetch_one(&mut connection)
                .await
                .unwrap();

            ledger.migrate().await.unwrap();
            let kept: String = sqlx::query_scalar(FACTS)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(kept, facts, "schema {version}");
            let (migrated, new) = (schema(&db).await, of_new.into_inner().unwrap());
            for (migrated, new) in migrated.iter().zip(&new) {
                assert_eq!(migrated, new, "schema {version}");
            }
            assert_eq!(migrated.len(), new.len(), "schema {version}");
            let found = ledger.check_consistency().await.unwrap();
            assert_eq!(found.differences, [], "schema {version}");
            let sums = found.obligations;
            let sums = [sums.owed, sums.held, sums.paid].map(Msat::get);
            assert_eq!(sums, [dump.owed, dump.held, dump.paid], "schema {version}");
        });
    }
}
