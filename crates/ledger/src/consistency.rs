//! Whether the ledger is what its facts say: all sums are reckoned again from transfers, slices and blocks, in one snapshot.
//! Triggers and constraints keep them so; this finds what came in past them: a restored table, a superuser, a fault of ours.

use dovetail_units::Msat;
use sqlx::Row;

use crate::payouts::onchain;
use crate::{Ledger, LedgerError, agent_keys, rewards};

/// A rule, and a query for the rows that break it: a name and what is wrong with it.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) broken: &'static str,
}

static RULES: [Rule; 15] = [
    Rule {
        name: "an account's totals are the sums of its transfers",
        broken: "
            WITH ended AS (SELECT ends, kind FROM transfers WHERE ends IS NOT NULL),
            moves AS (
                SELECT t.debit, t.credit, t.amount,
                       (t.kind = 'posted' OR ended.kind = 'post') AS is_posted,
                       (t.kind = 'pending' AND ended.kind IS NULL) AS is_pending
                  FROM transfers t LEFT JOIN ended ON ended.ends = t.id WHERE t.ends IS NULL),
            sums AS (
                SELECT account, sum(dp) AS dp, sum(dr) AS dr, sum(cp) AS cp, sum(cr) AS cr FROM (
                    SELECT debit AS account, CASE WHEN is_posted THEN amount ELSE 0 END AS dp,
                           CASE WHEN is_pending THEN amount ELSE 0 END AS dr, 0 AS cp, 0 AS cr FROM moves
                    UNION ALL
                    SELECT credit, 0, 0, CASE WHEN is_posted THEN amount ELSE 0 END,
                           CASE WHEN is_pending THEN amount ELSE 0 END FROM moves) sides
                 GROUP BY account)
            SELECT name, format('has %s, its transfers come to %s',
                                credits_posted - debits_posted, COALESCE(cp - dp, 0)) AS what
              FROM accounts LEFT JOIN sums ON account = id
             WHERE (debits_posted, debits_pending, credits_posted, credits_pending)
                   IS DISTINCT FROM (COALESCE(dp, 0), COALESCE(dr, 0), COALESCE(cp, 0), COALESCE(cr, 0))",
    },
    Rule {
        name: "all accounts together have nothing",
        broken: "
            SELECT 'all accounts' AS name, format('come to %s', sum(credits_posted - debits_posted)) AS what
              FROM accounts HAVING sum(credits_posted - debits_posted) <> 0
                                OR sum(credits_pending - debits_pending) <> 0",
    },
    Rule {
        name: "no account that must not owe anything does",
        broken: "
            SELECT name, format('is at %s', credits_posted - debits_posted - debits_pending) AS what FROM accounts
             WHERE never_negative AND credits_posted < debits_posted + debits_pending",
    },
    Rule {
        name: "the parts of a block and the fee are its reward",
        broken: "
            SELECT encode(header_hash, 'hex') AS name, format('pays %s, its parts come to %s', reward_msat,
                   fee_msat + COALESCE(sum(amount_msat), 0)) AS what
              FROM block_rewards LEFT JOIN block_credits ON block = header_hash
             GROUP BY header_hash HAVING reward_msat <> fee_msat + COALESCE(sum(amount_msat), 0)",
    },
    Rule {
        name: "matured blocks, and no others, are credited, each account with its parts",
        broken: "
            WITH parts AS (SELECT account::bigint, sum(amount_msat) AS msat FROM block_credits
                             JOIN block_rewards ON header_hash = block WHERE state = 'matured' GROUP BY account),
            credited AS (SELECT credit AS account, sum(amount) AS msat FROM transfers WHERE reason = 'reward' GROUP BY credit)
            SELECT COALESCE(accounts.name, account::text) AS name,
                   format('has parts of %s, was credited %s', COALESCE(parts.msat, 0), COALESCE(credited.msat, 0)) AS what
              FROM parts FULL JOIN credited USING (account) LEFT JOIN accounts ON accounts.id = account
             WHERE parts.msat IS DISTINCT FROM credited.msat",
    },
    Rule {
        name: "the pool's fees are those of matured blocks",
        broken: "
            SELECT 'pool:fees' AS name, format('of blocks %s, credited %s', blocks, credited) AS what FROM (
                SELECT (SELECT COALESCE(sum(fee_msat), 0) FROM block_rewards WHERE state = 'matured') AS blocks,
                       (SELECT COALESCE(sum(amount), 0) FROM transfers WHERE reason = 'reward fee') AS credited) both_sums
             WHERE blocks <> credited",
    },
    Rule {
        name: "slices follow on each other, without a gap",
        broken: "
            SELECT 'slice ' || number AS name, 'does not follow on the one before' AS what FROM (
                SELECT number, previous, lag(number) OVER following AS before, lag(root) OVER following AS root_before
                  FROM reward_slices WINDOW following AS (ORDER BY number)) chained
             WHERE before IS NOT NULL AND (before <> number - 1 OR root_before <> previous)",
    },
    Rule {
        name: "a slice is its accounts' work",
        broken: "
            SELECT 'slice ' || number AS name, format('holds %s, its accounts %s', total, COALESCE(summed, 0)) AS what
              FROM reward_slices LEFT JOIN (
                   SELECT slice, sum(weight) AS summed, count(*) AS counted FROM slice_work GROUP BY slice) work ON slice = number
             WHERE number >= (SELECT work_from FROM reward_chain) AND (total, accounts) IS DISTINCT FROM (summed, counted)",
    },
    Rule {
        name: "no slice was dropped that a block may still need",
        broken: "
            SELECT 'slice ' || first_needed_slice() AS name, format('slices are kept from %s on', work_from) AS what
              FROM reward_chain WHERE work_from > first_needed_slice()",
    },
    Rule {
        name: "no share of a slice can be shown that was not counted",
        broken: "
            SELECT 'slice ' || s.slice AS name, format('%s shares are kept, %s were counted', kept, COALESCE(counted, 0)) AS what
              FROM (SELECT slice, sum(shares) AS kept FROM slice_shares GROUP BY slice) s
              LEFT JOIN (SELECT slice, sum(shares) AS counted FROM (
                             SELECT slice, shares FROM slice_work UNION ALL SELECT slice, shares FROM open_slice_work) work
                          GROUP BY slice) w USING (slice)
             WHERE s.slice >= (SELECT work_from FROM reward_chain) AND kept > COALESCE(counted, 0)",
    },
    Rule {
        name: "the window is what its slices say",
        broken: "
            SELECT COALESCE(accounts.name, account::text) AS name,
                   format('weighs %s, its slices %s', COALESCE(w.weight, 0), COALESCE(s.weight, 0)) AS what
              FROM window_now w FULL JOIN (
                   SELECT account, sum(slice_work.weight) AS weight FROM slice_work, reward_chain
                    WHERE slice >= first_slice GROUP BY account) s USING (account)
              LEFT JOIN accounts ON accounts.id = account
             WHERE w.weight IS DISTINCT FROM s.weight",
    },
    Rule {
        name: "what is set aside on miners' accounts is for payouts under way",
        broken: "
            SELECT COALESCE(name, 'worker:' || worker) AS name,
                   format('%s set aside, payouts of %s under way', COALESCE(debits_pending, 0), COALESCE(msat, 0)) AS what
              FROM (SELECT name, debits_pending FROM accounts WHERE starts_with(name, 'worker:') AND debits_pending > 0) a
              FULL JOIN (SELECT worker, sum(amount_msat + CASE fees_borne_by WHEN 'payee' THEN fee_max_msat ELSE 0 END) AS msat
                            FROM payouts WHERE state = 'reserved' GROUP BY worker) p
                ON name = 'worker:' || worker
             WHERE debits_pending IS DISTINCT FROM msat",
    },
    Rule {
        name: "a payout is paid if, and since migration 21 only if, the wallet has proven an attempt",
        broken: "
            SELECT encode(p.id, 'hex') AS name, format('is %s, %s of its attempts have a proof', p.state, count(a.id)) AS what
              FROM payouts p LEFT JOIN attempts a ON a.payout = p.id AND a.state = 'succeeded'
                   AND (a.rail = 'onchain' OR sha256(a.preimage) = a.payment_hash)
             GROUP BY p.id HAVING count(a.id) > 0 AND p.state <> 'paid'
                OR count(a.id) = 0 AND p.state = 'paid' AND p.bolt11 IS NULL",
    },
    Rule {
        name: "a payee is paid as its newest statement says, and each statement is newer than what it replaces",
        broken: "
            SELECT COALESCE(e.payee, d.payee) AS name,
                   format('follows statement %s, the newest is %s', e.destination, d.newest) AS what
              FROM (SELECT payee, destination FROM payees WHERE destination IS NOT NULL) e
              FULL JOIN (SELECT payee, max(id) AS newest FROM destinations GROUP BY payee) d USING (payee)
             WHERE e.destination IS DISTINCT FROM d.newest
            UNION ALL
            SELECT d.payee, format('statement %s replaces %s', d.id, d.replaces)
              FROM destinations d JOIN destinations r ON r.id = d.replaces
             WHERE d.payee <> r.payee OR d.made_at <= r.made_at OR d.created_at < r.active_from",
    },
    Rule {
        name: "held credit is held for a batch that has not ended otherwise",
        broken: "
            SELECT encode(t.id, 'hex') AS name, format('%s msat are held since %s', t.amount, t.created_at) AS what
              FROM transfers t JOIN accounts ON accounts.id = t.credit
             WHERE t.kind = 'pending' AND starts_with(accounts.name, 'worker:')
               AND NOT EXISTS (SELECT FROM transfers e WHERE e.ends = t.id)
               AND NOT EXISTS (SELECT FROM held_credits h WHERE h.transfer = t.id)
               AND NOT EXISTS (SELECT FROM coinbase_only_credits c WHERE c.transfer = t.id)",
    },
];

fn rules() -> impl Iterator<Item = &'static Rule> {
    let onchain = &onchain::rules::RULES;
    let advances = &rewards::advances::RULES;
    RULES
        .iter()
        .chain(onchain)
        .chain(advances)
        .chain(&agent_keys::RULES)
}
/// The rule that no query can look at.
const SIGNED: &str = "what the pool has signed of a block is what the ledger says of it";

/// How many rows that break a rule are shown.
const EXAMPLES_MAX: u8 = 20;

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The rule.
    pub rule: &'static str,
    /// What breaks it: a name, and how. The first ones of many.
    pub examples: Vec<(String, String)>,
}

/// What the ledger owes, and what came in and went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Obligations {
    /// What miners and workers can be paid, or are being paid.
    pub owed: Msat,
    /// What is held for inference and for blocks, and may come to be owed.
    pub held: Msat,
    /// The parts of blocks that have not matured and that the chain has, or has not shown yet; less what their coinbases have
    /// paid accounts themselves.
    pub immature: Msat,
    /// What those blocks pay the pool itself, its fee among it.
    pub immature_rewards: Msat,
    /// What the wallet says is on its way to payees: owed until it has arrived, and not in the wallet any more.
    pub under_way: Msat,
    /// What matured blocks have paid the pool itself.
    pub rewards: Msat,
    /// What the pool kept of them.
    pub fees: Msat,
    /// What was paid out, with its fees.
    pub paid: Msat,
}

/// What looking through the whole ledger found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The rules that were looked at.
    pub rules: Vec<&'static str>,
    /// Those that do not hold.
    pub differences: Vec<Difference>,
    /// The sums.
    pub obligations: Obligations,
}

impl Ledger {
    /// Reckons everything again. Reads all transfers, so it takes as long as they are many; it changes nothing and holds
    /// nobody up.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn check_consistency(&self) -> Result<Consistency, LedgerError> {
        let mut snapshot = self.begin().await?;
        // One state of all tables, for as long as it takes.
        sqlx::raw_sql(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;",
        )
        .execute(&mut *snapshot)
        .await?;
        let differences = differences(&mut snapshot).await?;
        let obligations = obligations(&mut snapshot).await?;
        snapshot.rollback().await?;
        Ok(Consistency {
            rules: rules().map(|rule| rule.name).chain([SIGNED]).collect(),
            differences,
            obligations,
        })
    }

    /// What the ledger owes now.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn obligations(&self) -> Result<Obligations, LedgerError> {
        obligations(&mut *self.pool.acquire().await?).await
    }
}

/// The rules that do not hold.
pub(crate) async fn differences(
    connection: &mut sqlx::PgConnection,
) -> Result<Vec<Difference>, LedgerError> {
    let mut differences = Vec::new();
    for rule in rules() {
        let limited = format!("SELECT name, what FROM ({}) broken LIMIT $1", rule.broken);
        let rows = sqlx::query(sqlx::AssertSqlSafe(limited))
            .bind(i64::from(EXAMPLES_MAX))
            .fetch_all(&mut *connection)
            .await?;
        let examples: Result<Vec<(String, String)>, LedgerError> = rows
            .iter()
            .map(|row| Ok((row.try_get("name")?, row.try_get("what")?)))
            .collect();
        let examples = examples?;
        if !examples.is_empty() {
            differences.push(Difference {
                rule: rule.name,
                examples,
            });
        }
    }
    let wrong = rewards::wrong_signatures(connection, EXAMPLES_MAX.into()).await?;
    if !wrong.is_empty() {
        let named = wrong
            .into_iter()
            .map(|block| (block, "says something else".to_owned()));
        differences.push(Difference {
            rule: SIGNED,
            examples: named.collect(),
        });
    }
    Ok(differences)
}

async fn obligations(connection: &mut sqlx::PgConnection) -> Result<Obligations, LedgerError> {
    let row = sqlx::query(
        "SELECT (SELECT COALESCE(sum(credits_posted - debits_posted), 0)::bigint FROM accounts
                  WHERE starts_with(name, 'worker:')) AS owed,
                (SELECT COALESCE(sum(credits_pending), 0)::bigint FROM accounts WHERE starts_with(name, 'worker:'))
              + (SELECT COALESCE(sum(amount_msat), 0)::bigint FROM coinbase_only_credits WHERE state = 'open') AS held,
                (SELECT COALESCE(sum(GREATEST(amount_msat - 1000 * COALESCE(amount_sat, 0), 0)), 0)::bigint
                   FROM block_rewards JOIN block_credits c ON c.block = header_hash
                   LEFT JOIN block_advances a ON a.block = header_hash AND a.account = c.account
                  WHERE state IN ('submitted', 'active')) AS immature,
                (SELECT COALESCE(sum(reward_msat), 0)::bigint FROM block_rewards WHERE state IN ('submitted', 'active'))
              - (SELECT COALESCE(sum(1000 * amount_sat), 0)::bigint FROM block_advances JOIN block_rewards ON header_hash = block
                  WHERE state = 'active') AS immature_rewards,
                (SELECT COALESCE(sum(amount_msat), 0)::bigint FROM attempts JOIN payouts ON payouts.id = payout
                  WHERE attempts.state = 'dispatched') AS under_way,
                (SELECT COALESCE(sum(reward_msat), 0)::bigint FROM block_rewards WHERE state = 'matured')
              - (SELECT COALESCE(sum(credits_posted - debits_posted), 0)::bigint FROM accounts
                  WHERE name = 'pool:coinbase') AS rewards,
                (SELECT COALESCE(sum(fee_msat), 0)::bigint FROM block_rewards WHERE state = 'matured') AS fees,
                (SELECT COALESCE(sum(credits_posted - debits_posted), 0)::bigint FROM accounts
                  WHERE name IN ('pool:lightning', 'pool:onchain')) AS paid",
    )
    .fetch_one(connection)
    .await?;
    let msat = |column: &str| -> Result<Msat, LedgerError> { Ok(Msat::new(row.try_get(column)?)) };
    Ok(Obligations {
        owed: msat("owed")?,
        held: msat("held")?,
        immature: msat("immature")?,
        immature_rewards: msat("immature_rewards")?,
        under_way: msat("under_way")?,
        rewards: msat("rewards")?,
        fees: msat("fees")?,
        paid: msat("paid")?,
    })
}
