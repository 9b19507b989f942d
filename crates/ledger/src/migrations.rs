//! The schema's migrations, compiled into the program: the files of the `migrations` folder, in the order of their
//! numbers.
//!
//! The list is written out: `sqlx::migrate!` would find the files by itself, but brings a second build of the Postgres
//! client for its procedural macros.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgConnection, Row, SqlStr};

/// A migration's file name and text.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../migrations/", $name)))
    };
}

const FILES: [(&str, &str); 30] = [
    file!("0001_ledger.sql"),
    file!("0002_work.sql"),
    file!("0003_payouts.sql"),
    file!("0004_audit.sql"),
    file!("0005_declared.sql"),
    file!("0006_maturity.sql"),
    file!("0007_bounds.sql"),
    file!("0008_coinbase_only.sql"),
    file!("0009_devices.sql"),
    file!("0010_open_batches.sql"),
    file!("0011_answer_forms.sql"),
    file!("0012_coinbase_only_accounts.sql"),
    file!("0013_samples.sql"),
    file!("0014_value.sql"),
    file!("0015_encoded_prompts.sql"),
    file!("0016_stakes.sql"),
    file!("0017_kept_credit.sql"),
    file!("0018_transfers_in_sets.sql"),
    file!("0019_share_log.sql"),
    file!("0020_rewards.sql"),
    file!("0021_attempts.sql"),
    file!("0022_daemons_role.sql"),
    file!("0023_onchain.sql"),
    file!("0024_destinations.sql"),
    file!("0025_signed_blocks.sql"),
    file!("0026_slice_partitions.sql"),
    file!("0027_coinbase_payouts.sql"),
    file!("0028_agent_keys.sql"),
    file!("0029_sealed_contents.sql"),
    file!("0030_request_under_lock.sql"),
];

/// What brings a database's schema up to date. Numbers, descriptions and checksums are those that `sqlx`'s own tools
/// derive from the files, so that a database remembers which migrations it has.
pub(crate) fn migrator() -> Migrator {
    Migrator::with_migrations(
        FILES
            .iter()
            .map(|&(name, sql)| migration(name, sql))
            .collect(),
    )
}

/// Whether a database has all migrations, as they are here. One that is newer, or was changed, is not: the migrator says so.
pub(crate) async fn are_all_there(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let has_table = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    if !sqlx::query_scalar(has_table)
        .fetch_one(&mut *connection)
        .await?
    {
        return Ok(false);
    }
    let rows =
        sqlx::query("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await?;
    let there: Result<Vec<(i64, Vec<u8>, bool)>, sqlx::Error> = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect();
    let wanted = migrator();
    let wanted = wanted
        .iter()
        .map(|m| (m.version, m.checksum.to_vec(), true));
    Ok(wanted.eq(there?))
}

/// The schema as an earlier release left it: with the migrations up to this number.
#[cfg(test)]
pub(crate) fn migrator_up_to(version: i64) -> Migrator {
    let files = FILES.iter().map(|&(name, sql)| migration(name, sql));
    Migrator::with_migrations(files.filter(|file| file.version <= version).collect())
}

fn migration(name: &'static str, sql: &'static str) -> Migration {
    let (version, rest) = name
        .split_once('_')
        .expect("a file's name has a number and a description");
    Migration::new(
        version
            .parse()
            .expect("a file's name starts with its number"),
        Cow::Owned(rest.trim_end_matches(".sql").replace('_', " ")),
        MigrationType::Simple,
        SqlStr::from_static(sql),
        false,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn the_list_is_what_sqlx_finds_in_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let facts = |migrator: Migrator| -> Vec<_> {
            migrator
                .iter()
                .map(|m| {
                    (
                        m.version,
                        m.description.to_string(),
                        format!("{:?}", m.migration_type),
                        m.sql.as_str().to_owned(),
                        m.checksum.to_vec(),
                        m.no_tx,
                    )
                })
                .collect()
        };
        assert_eq!(
            facts(migrator()),
            facts(Migrator::new(folder).await.unwrap())
        );
    }
}
