//! What has to hold of batches, for `Ledger::check_consistency`.

use crate::consistency::Rule;

pub(crate) static RULES: [Rule; 5] = [
    Rule {
        name: "a payout on the chain is paid if, and only if, a transaction of its batch has confirmed",
        broken: "
            SELECT encode(a.id, 'hex') AS name, format('is %s, its batch is %s', a.state, COALESCE(b.state, 'not there')) AS what
              FROM attempts a LEFT JOIN onchain_outputs o ON o.attempt = a.id
              LEFT JOIN onchain_batches b ON b.number = o.batch
              LEFT JOIN onchain_transactions t ON t.batch = o.batch AND t.state = 'confirmed'
             WHERE a.rail = 'onchain'
               AND ((a.state = 'succeeded') <> (t.txid IS NOT NULL) OR a.txid IS DISTINCT FROM t.txid
                    OR (a.state = 'succeeded') <> (COALESCE(b.state, 'open') IN ('paid', 'buried')))",
    },
    Rule {
        name: "an output pays what its payout says",
        broken: "
            SELECT encode(o.attempt, 'hex') AS name, format('pays %s sat for %s msat', o.amount_sat, p.amount_msat) AS what
              FROM onchain_outputs o JOIN attempts a ON a.id = o.attempt JOIN payouts p ON p.id = a.payout
             WHERE o.amount_sat * 1000 <> p.amount_msat",
    },
    Rule {
        name: "the parts of a transaction's fee are its fee",
        broken: "
            SELECT 'batch ' || t.batch AS name, format('cost %s sat, its payees %s msat', t.fee_sat, sum(a.fee_msat)) AS what
              FROM onchain_transactions t JOIN onchain_outputs o ON o.batch = t.batch JOIN attempts a ON a.id = o.attempt
             WHERE t.state = 'confirmed' GROUP BY t.txid HAVING sum(a.fee_msat) IS DISTINCT FROM t.fee_sat * 1000",
    },
    Rule {
        name: "each transaction of a batch spends all that the earlier ones do",
        broken: "
            SELECT 'batch ' || later.batch AS name, format('transaction %s does not replace %s', later.n, earlier.n) AS what
              FROM onchain_transactions later JOIN onchain_transactions earlier
                ON earlier.batch = later.batch AND earlier.n < later.n
             WHERE NOT later.inputs @> earlier.inputs",
    },
    Rule {
        name: "what has left on the chain is what confirmed transactions have paid and cost",
        broken: "
            SELECT 'pool:onchain' AS name, format('has %s, the chain %s', account, chain) AS what FROM (
                SELECT (SELECT COALESCE(sum(credits_posted - debits_posted), 0) FROM accounts WHERE name = 'pool:onchain') AS account,
                       (SELECT COALESCE(sum(1000 * (t.fee_sat + (SELECT sum(o.amount_sat) FROM onchain_outputs o WHERE o.batch = t.batch))), 0)
                          FROM onchain_transactions t WHERE t.state = 'confirmed') AS chain) both_sums
             WHERE account <> chain",
    },
];
