//! The events. Their JSON is an interface: supervisors and tests match on it.

use dovetail_units::Msat;
use serde::Serialize;

/// Something that happened. Identities and hashes are lower-case hex.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A worker proved its key and named its models.
    WorkerRegistered {
        /// The worker's x-only key.
        worker: &'a str,
        /// How many models of the pool it serves.
        models: usize,
    },
    /// A miner opened a channel.
    ChannelOpened {
        /// Whom its shares are credited to.
        worker: &'a str,
        /// Which of the miner's devices it is, if the miner says so.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<&'a str>,
        /// The pool's number for the connection.
        connection: u64,
        /// The channel on it.
        channel: u32,
    },
    /// A task went to a worker.
    TaskAssigned {
        /// The task.
        task: &'a str,
        /// The worker that runs it.
        worker: &'a str,
    },
    /// A worker delivered a transcript.
    TaskFinished {
        /// The task.
        task: &'a str,
        /// How many tokens it has.
        output_tokens: u32,
    },
    /// Shares are durable: one that settled a batch, or those of one account that claimed nothing, once a second.
    ShareAccepted {
        /// `hash` or `inference`.
        kind: &'a str,
        /// Whom it is credited to.
        worker: &'a str,
        /// How many.
        shares: u64,
        /// Their expected hashes.
        work: u64,
        /// What their hashes earn, rounded down. The ledger rounds nothing but sums.
        credit_msat: Msat,
        /// Whether that is held until the account's next block: their jobs were some in coinbase-only mode.
        #[serde(skip_serializing_if = "is_false")]
        held: bool,
    },
    /// A share was refused.
    ShareRejected {
        /// Whose it was.
        worker: &'a str,
        /// Why, as sent to the miner.
        code: &'a str,
    },
    /// A batch passed its audit and was credited.
    BatchSettled {
        /// The batch's root.
        root: &'a str,
        /// How many transcripts it has.
        transcripts: usize,
        /// How many of them were replayed.
        replayed: usize,
        /// What was credited for its tokens, to be held until it has matured.
        credit_msat: Msat,
    },
    /// An audit found a mismatch, twice.
    AuditFailed {
        /// The batch's root.
        root: &'a str,
        /// Whose batch it was.
        worker: &'a str,
        /// What did not hold.
        mismatch: &'a str,
        /// The held credit that the worker has lost.
        forfeited_msat: Msat,
    },
    /// Held credit for inference can be paid out from now on.
    CreditMatured {
        /// Whose it is.
        worker: &'a str,
        /// Of how many batches.
        credits: u64,
        /// What it comes to.
        amount_msat: Msat,
    },
    /// How the operator's account for agents' tasks stands. Emitted when it has changed, some seconds later at the most:
    /// the last one is what a gauge shows.
    Subsidy {
        /// What the budget gives on a day.
        msat_per_day: Msat,
        /// What it gives in all.
        msat_in_all: Msat,
        /// What it has given so far.
        granted_msat: Msat,
        /// What tasks have cost on this day (UTC).
        spent_today_msat: Msat,
        /// What tasks have cost in all.
        spent_msat: Msat,
        /// What is set aside for tasks that have not ended.
        reserved_msat: Msat,
        /// What new tasks may cost now.
        available_msat: Msat,
    },
    /// What the pool holds beside what it owes, every minute. An alarm if it is short.
    Solvency {
        /// Each place where the pool has money.
        holdings: &'a [Holding],
        /// What was seen there, in all.
        holds_msat: Msat,
        /// What miners and workers can be paid, what is held for them, and their parts of blocks that have not matured.
        owes_msat: Msat,
        /// The difference: what a gauge shows.
        surplus_msat: Msat,
        /// Whether each place could be looked at. If not, the pool may hold more.
        complete: bool,
        /// Whether it is certain that the pool holds less than it owes.
        short: bool,
    },
    /// A share solved a block.
    BlockFound {
        /// The block's hash, as explorers print it.
        hash: &'a str,
        /// Whose share it was.
        worker: &'a str,
        /// Whether the job was declared by the miner.
        declared: bool,
    },
    /// A block that is divided over miners goes on.
    BlockReward {
        /// The block's hash, as explorers print it.
        hash: &'a str,
        /// `active`: the chain has it; `orphaned`: not any more; `refused`: it never had; `matured`: its parts are credited.
        state: &'a str,
        /// What it pays the pool.
        reward_msat: Msat,
    },
    /// It is decided whether the chain has a block of a job in coinbase-only mode. What was held for its account up to
    /// the block is posted, void, or held for the next one.
    CoinbaseOnlyBlock {
        /// The block's hash, as explorers print it.
        hash: &'a str,
        /// Whose share it was.
        worker: &'a str,
        /// `seen`, `not seen`, or `unknown`.
        result: &'a str,
        /// What was held.
        credit_msat: Msat,
    },
    /// A payout reached its worker.
    PayoutPaid {
        /// Who was paid.
        worker: &'a str,
        /// What the worker got.
        amount_msat: Msat,
        /// What the route cost.
        fee_msat: Msat,
        /// `ldk`, `simulated` or `onchain`.
        rail: &'a str,
    },
    /// A payment that the wallet had called failed has arrived after all, or a payout was paid twice. An alarm.
    PayoutLate {
        /// The payout.
        payout: &'a str,
        /// Who was paid.
        worker: &'a str,
        /// What the worker got.
        amount_msat: Msat,
        /// What of it its balance still had.
        from_balance_msat: Msat,
        /// What the pool has lost.
        loss_msat: Msat,
    },
    /// Nobody can tell what became of a payment: the operator has to decide (`dovetail-pool payouts`). An alarm.
    PayoutReview {
        /// The payout.
        payout: &'a str,
        /// Who was to be paid.
        worker: &'a str,
        /// What.
        amount_msat: Msat,
        /// `forgotten`, `wallet` or `bad_proof`.
        reason: &'a str,
    },
    /// A transaction that pays miners has got on: it is with the node, or confirmed, or none of its batch can confirm.
    OnchainBatch {
        /// The batch.
        batch: i64,
        /// `broadcast`, `confirmed`, `reorganised` or `failed`; the last two are alarms.
        state: &'a str,
        /// The transaction, as explorers print it.
        txid: &'a str,
        /// How many payees it pays.
        payees: usize,
        /// What it costs.
        fee_sat: i64,
    },
    /// The pool's wallet on the chain has not enough for the payouts that wait. An alarm.
    OnchainShort {
        /// How many payouts wait for money.
        payouts: usize,
        /// What the wallet could spend.
        has_sat: u64,
    },
}

/// Money of the pool's in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// `lightning`: in its wallet's channels; `lightning_onchain`: that wallet's on the chain; `under_way`: in payments that
    /// have not arrived; `immature_rewards`: of blocks that have not matured; `matured_rewards`: of those that have.
    pub place: &'static str,
    /// How much; `null` if it could not be looked at.
    pub msat: Option<Msat>,
}

impl Event<'_> {
    /// The event as one JSON object, without a line break. Its name is the field `event`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has only strings and numbers")
    }
}

fn is_false(held: &bool) -> bool {
    !held
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each event with its JSON, to the byte.
    fn events() -> Vec<(Event<'static>, &'static str)> {
        [
            events_of_work(),
            events_of_money(),
            events_of_solvency(),
            events_of_payouts(),
            events_of_blocks(),
        ]
        .concat()
    }

    fn events_of_work() -> Vec<(Event<'static>, &'static str)> {
        let (worker, task) = ("0a0b", "0c0d");
        vec![
            (
                Event::WorkerRegistered { worker, models: 2 },
                r#"{"event":"worker_registered","worker":"0a0b","models":2}"#,
            ),
            (
                Event::ChannelOpened {
                    worker,
                    device: Some("rig1"),
                    connection: 3,
                    channel: 2,
                },
                r#"{"event":"channel_opened","worker":"0a0b","device":"rig1","connection":3,"channel":2}"#,
            ),
            (
                Event::TaskAssigned { task, worker },
                r#"{"event":"task_assigned","task":"0c0d","worker":"0a0b"}"#,
            ),
            (
                Event::TaskFinished {
                    task,
                    output_tokens: 7,
                },
                r#"{"event":"task_finished","task":"0c0d","output_tokens":7}"#,
            ),
            (
                Event::ShareAccepted {
                    kind: "hash",
                    worker,
                    shares: 3,
                    work: u64::MAX,
                    credit_msat: Msat::new(12),
                    held: false,
                },
                r#"{"event":"share_accepted","kind":"hash","worker":"0a0b","shares":3,"work":18446744073709551615,"credit_msat":12}"#,
            ),
            (
                Event::ShareAccepted {
                    kind: "hash",
                    worker,
                    shares: 1,
                    work: 5,
                    credit_msat: Msat::new(12),
                    held: true,
                },
                r#"{"event":"share_accepted","kind":"hash","worker":"0a0b","shares":1,"work":5,"credit_msat":12,"held":true}"#,
            ),
            (
                Event::ShareRejected {
                    worker,
                    code: "stale-share",
                },
                r#"{"event":"share_rejected","worker":"0a0b","code":"stale-share"}"#,
            ),
        ]
    }

    fn events_of_money() -> Vec<(Event<'static>, &'static str)> {
        let (worker, root) = ("0a0b", "0e0f");
        vec![
            (
                Event::BatchSettled {
                    root,
                    transcripts: 3,
                    replayed: 1,
                    credit_msat: Msat::new(900),
                },
                r#"{"event":"batch_settled","root":"0e0f","transcripts":3,"replayed":1,"credit_msat":900}"#,
            ),
            (
                Event::AuditFailed {
                    root,
                    worker,
                    mismatch: "tokens",
                    forfeited_msat: Msat::new(50),
                },
                r#"{"event":"audit_failed","root":"0e0f","worker":"0a0b","mismatch":"tokens","forfeited_msat":50}"#,
            ),
            (
                Event::CreditMatured {
                    worker,
                    credits: 4,
                    amount_msat: Msat::new(3_600),
                },
                r#"{"event":"credit_matured","worker":"0a0b","credits":4,"amount_msat":3600}"#,
            ),
            (
                Event::Subsidy {
                    msat_per_day: Msat::new(100),
                    msat_in_all: Msat::new(900),
                    granted_msat: Msat::new(250),
                    spent_today_msat: Msat::new(40),
                    spent_msat: Msat::new(190),
                    reserved_msat: Msat::new(20),
                    available_msat: Msat::new(40),
                },
                r#"{"event":"subsidy","msat_per_day":100,"msat_in_all":900,"granted_msat":250,"spent_today_msat":40,"spent_msat":190,"reserved_msat":20,"available_msat":40}"#,
            ),
        ]
    }

    fn events_of_solvency() -> Vec<(Event<'static>, &'static str)> {
        const HOLDINGS: [Holding; 2] = [
            Holding {
                place: "lightning",
                msat: Some(Msat::new(70)),
            },
            Holding {
                place: "matured_rewards",
                msat: None,
            },
        ];
        vec![(
            Event::Solvency {
                holdings: &HOLDINGS,
                holds_msat: Msat::new(70),
                owes_msat: Msat::new(90),
                surplus_msat: Msat::new(-20),
                complete: false,
                short: false,
            },
            r#"{"event":"solvency","holdings":[{"place":"lightning","msat":70},{"place":"matured_rewards","msat":null}],"holds_msat":70,"owes_msat":90,"surplus_msat":-20,"complete":false,"short":false}"#,
        )]
    }

    fn events_of_blocks() -> Vec<(Event<'static>, &'static str)> {
        let worker = "0a0b";
        vec![
            (
                Event::BlockFound {
                    hash: "00ff",
                    worker,
                    declared: true,
                },
                r#"{"event":"block_found","hash":"00ff","worker":"0a0b","declared":true}"#,
            ),
            (
                Event::BlockReward {
                    hash: "00ff",
                    state: "matured",
                    reward_msat: Msat::new(5_000),
                },
                r#"{"event":"block_reward","hash":"00ff","state":"matured","reward_msat":5000}"#,
            ),
            (
                Event::CoinbaseOnlyBlock {
                    hash: "00ff",
                    worker,
                    result: "not seen",
                    credit_msat: Msat::new(70),
                },
                r#"{"event":"coinbase_only_block","hash":"00ff","worker":"0a0b","result":"not seen","credit_msat":70}"#,
            ),
        ]
    }

    fn events_of_payouts() -> Vec<(Event<'static>, &'static str)> {
        let worker = "0a0b";
        vec![
            (
                Event::PayoutPaid {
                    worker,
                    amount_msat: Msat::new(1_000),
                    fee_msat: Msat::new(2),
                    rail: "ldk",
                },
                r#"{"event":"payout_paid","worker":"0a0b","amount_msat":1000,"fee_msat":2,"rail":"ldk"}"#,
            ),
            (
                Event::PayoutLate {
                    payout: "0506",
                    worker,
                    amount_msat: Msat::new(1_000),
                    from_balance_msat: Msat::new(400),
                    loss_msat: Msat::new(600),
                },
                r#"{"event":"payout_late","payout":"0506","worker":"0a0b","amount_msat":1000,"from_balance_msat":400,"loss_msat":600}"#,
            ),
            (
                Event::PayoutReview {
                    payout: "0506",
                    worker,
                    amount_msat: Msat::new(1_000),
                    reason: "forgotten",
                },
                r#"{"event":"payout_review","payout":"0506","worker":"0a0b","amount_msat":1000,"reason":"forgotten"}"#,
            ),
            (
                Event::OnchainBatch {
                    batch: 3,
                    state: "confirmed",
                    txid: "00ff",
                    payees: 2,
                    fee_sat: 283,
                },
                r#"{"event":"onchain_batch","batch":3,"state":"confirmed","txid":"00ff","payees":2,"fee_sat":283}"#,
            ),
            (
                Event::OnchainShort {
                    payouts: 2,
                    has_sat: 5,
                },
                r#"{"event":"onchain_short","payouts":2,"has_sat":5}"#,
            ),
        ]
    }

    #[test]
    fn each_event_is_written_as_supervisors_know_it() {
        for (event, json) in events() {
            assert_eq!(event.to_json(), json);
        }
    }
}
