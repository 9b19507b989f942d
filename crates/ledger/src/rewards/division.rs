//! The division of a block, written down with the share that solved it: from then on its parts are facts, whatever becomes
//! of the block.

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, BlockStatement, BlockTerms, Division, DivisionRule, PartsTree, SliceRoot, Weights,
    Window, WindowTerms, by_weight, to_finder,
};
use dovetail_units::Msat;
use sqlx::{PgConnection, Row};

use super::{RewardsConfig, Scheme, broken, slice_number, weight};
use crate::LedgerError;
use crate::share_record::LoggedShare;

/// A block that is to be divided.
pub(super) struct Solved<'a> {
    pub(super) block: HeaderHash,
    pub(super) height: u32,
    pub(super) reward_sat: u64,
    /// Who found it; `None` if nobody knows.
    pub(super) finder: Option<&'a str>,
}

/// The slices that have closed before a block.
pub(super) struct ClosedSlices<'a> {
    pub(super) window: &'a Window,
    /// The root of the newest one.
    pub(super) newest: SliceRoot,
}

impl<'a> Solved<'a> {
    /// By this share.
    pub(super) fn by(share: &'a LoggedShare) -> Self {
        Self {
            block: share.header_hash,
            // The share builds on the block below.
            height: share.height.saturating_add(1),
            reward_sat: share.reward_sat,
            finder: Some(&share.account),
        }
    }
}

/// Divides a block; `false` if it was divided before, or only its finder could have it, and nobody knows who that is.
pub(super) async fn divide(
    connection: &mut PgConnection,
    config: &RewardsConfig,
    solved: &Solved<'_>,
    closed: &ClosedSlices<'_>,
) -> Result<bool, LedgerError> {
    let window = closed.window;
    let reward = i64::try_from(solved.reward_sat).ok();
    let reward = reward.and_then(|sat| sat.checked_mul(1_000));
    let reward = Msat::new(reward.ok_or(LedgerError::Corrupt("reward"))?);
    let is_shared = matches!(config.scheme, Scheme::Pplns(_)) && window.slices().len() > 0;
    let division = match (is_shared, solved.finder) {
        (true, _) => by_weight(reward, config.fee, &weights(connection, window).await?),
        // Also the first blocks of a pool, before a slice has closed.
        (false, Some(finder)) => {
            let finder = AccountId::new(finder);
            let finder = finder.map_err(|_| LedgerError::Corrupt("account"))?;
            to_finder(reward, config.fee, &finder)
        }
        (false, None) => return Ok(false),
    };
    let division = division.map_err(|error| broken(&error.to_string()))?;
    let mut numbers = window.slices().map(|of| of.number);
    let first = numbers.next();
    let last = numbers.next_back().or(first);
    let slices = first.zip(last).filter(|_| is_shared);
    let statement = BlockStatement {
        block: solved.block,
        height: solved.height,
        rule: match config.scheme {
            Scheme::Pplns(_) => DivisionRule::Pplns,
            Scheme::Solo => DivisionRule::Solo,
        },
        terms: BlockTerms {
            reward,
            fee: division.fee,
            fee_part: config.fee,
        },
        window: slices.map(|(first, last)| {
            let length = config.scheme.length();
            let terms = WindowTerms {
                first,
                last,
                length,
            };
            (terms, closed.newest)
        }),
        parts: PartsTree::new(&division).root(),
    };
    write(connection, config, solved, &statement, &division).await
}

/// What each account weighs in the window.
async fn weights(connection: &mut PgConnection, window: &Window) -> Result<Weights, LedgerError> {
    let rows = sqlx::query(
        "SELECT substr(name, 8) AS name, weight::text AS weight
           FROM window_now JOIN accounts ON accounts.id = account",
    )
    .fetch_all(connection)
    .await?;
    let mut weights = Weights::default();
    for row in &rows {
        let account = AccountId::new(row.try_get::<String, _>("name")?);
        let account = account.map_err(|_| LedgerError::Corrupt("account"))?;
        let added = weights.add(&account, weight(row, "weight")?);
        added.map_err(|error| broken(&error.to_string()))?;
    }
    match weights.total() == window.total() {
        true => Ok(weights),
        false => Err(broken("the window's weights are not those of its slices")),
    }
}

async fn write(
    connection: &mut PgConnection,
    config: &RewardsConfig,
    solved: &Solved<'_>,
    statement: &BlockStatement,
    division: &Division,
) -> Result<bool, LedgerError> {
    let window = statement.window.map(|(window, _)| window);
    let number = |of: Option<u64>| of.map(slice_number).transpose();
    let block = statement.block.to_bytes().to_vec();
    let written = sqlx::query(
        "INSERT INTO block_rewards
                (header_hash, height, finder, scheme, reward_msat, fee_msat, first_slice, last_slice, fee_millionths, length,
                 parts, parts_top, signer, signature)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (header_hash) DO NOTHING",
    )
    .bind(&block)
    .bind(i32::try_from(statement.height).unwrap_or(i32::MAX))
    .bind(solved.finder)
    .bind(match statement.rule {
        DivisionRule::Pplns => "pplns",
        DivisionRule::Solo => "solo",
    })
    .bind(statement.terms.reward.get())
    .bind(statement.terms.fee.get())
    .bind(number(window.map(|window| window.first))?)
    .bind(number(window.map(|window| window.last))?)
    .bind(i32::try_from(statement.terms.fee_part.millionths()).unwrap_or(i32::MAX))
    .bind(window.map(|window| i32::from(window.length.get())))
    .bind(i64::from(statement.parts.accounts))
    .bind(statement.parts.top.to_vec())
    .bind(config.signer.to_vec())
    .bind((config.sign)(&statement.hash()).to_vec())
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(false);
    }
    let name = |account: &AccountId| String::from_utf8_lossy(account.as_bytes()).into_owned();
    let credits = &division.credits;
    let written = sqlx::query(
        "INSERT INTO block_credits (block, account, amount_msat)
         SELECT $1, accounts.id::integer, amount
           FROM unnest($2::text[], $3::bigint[]) AS given (name, amount)
           JOIN accounts ON accounts.name = 'worker:' || given.name",
    )
    .bind(&block)
    .bind(
        credits
            .iter()
            .map(|of| name(&of.account))
            .collect::<Vec<_>>(),
    )
    .bind(credits.iter().map(|of| of.amount.get()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    match written.rows_affected() == credits.len() as u64 {
        true => Ok(true),
        false => Err(broken("an account of the window is not open")),
    }
}
