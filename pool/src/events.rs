//! What the pool tells a supervisor: one line of JSON per event on standard output, after the
//! ready line. For people there is the log; for money there is the ledger.

use std::io::Write;

use serde::Serialize;

/// Something that happened. Identities and hashes are lower-case hex; amounts are millisatoshi.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// A worker proved its key and named its models.
    WorkerRegistered {
        /// The worker's x-only key.
        worker: &'a str,
        /// How many models of the pool it serves.
        models: usize,
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
    /// A share is durable; its miner hears of it in the order of the channel's shares.
    ShareAccepted {
        /// `hash` or `inference`.
        kind: &'a str,
        /// Whom it is credited to.
        worker: &'a str,
        /// Its expected hashes.
        work: u64,
        /// What was credited for the hashes.
        credit_msat: i64,
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
        credit_msat: i64,
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
        forfeited_msat: i64,
    },
    /// Held credit for inference can be paid out from now on.
    CreditMatured {
        /// Whose it is.
        worker: &'a str,
        /// Of how many batches.
        credits: u64,
        /// What it comes to.
        amount_msat: i64,
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
    /// A payout reached its worker.
    PayoutPaid {
        /// Who was paid.
        worker: &'a str,
        /// What the worker got.
        amount_msat: i64,
        /// What the route cost.
        fee_msat: i64,
        /// `ldk` or `simulated`.
        rail: &'a str,
    },
}

impl Event<'_> {
    /// Prints the event. A closed standard output is no reason to stop mining.
    pub(crate) fn emit(&self) {
        // The tests of a part have no supervisor.
        if cfg!(test) {
            return;
        }
        if let Ok(line) = serde_json::to_string(self) {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}");
            let _ = out.flush();
        }
    }
}
