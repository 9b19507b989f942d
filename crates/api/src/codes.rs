//! The stable words that say why a call was refused or a task ended, and how they travel.
//!
//! A refusal is a [`tonic::Status`] whose trailer `dovetail-code` holds one of these words. Agents match on the
//! word; the message beside it is for people and may change.

use tonic::{Status, metadata::MetadataValue};

/// The trailer that holds the word.
pub const METADATA_KEY: &str = "dovetail-code";

dovetail_units::codes! {
    /// Why a call was refused, or why a task ended.
    pub enum Code {
        /// No model with this id (or, in the agent, of this name) is known here.
        ModelUnknown = "model-unknown",
        /// The prompt is longer than the model or the pool takes.
        PromptTooLong = "prompt-too-long",
        /// A sampling parameter is out of its bounds.
        SamplingInvalid = "sampling-invalid",
        /// The form that is asked for is too long, or none that the pool's guide follows.
        ConstraintInvalid = "constraint-invalid",
        /// The pool's validators could not replay such a task in time; the message says how many tokens they can.
        TaskTooLarge = "task-too-large",
        /// A field has the wrong length, or is missing.
        ArgumentInvalid = "argument-invalid",
        /// This pool does not work for free, and the task is not paid for.
        PaymentRequired = "payment-required",
        /// The key is unknown, or was revoked.
        KeyInvalid = "key-invalid",
        /// The balance would do, but tasks that have not ended hold it; try again later.
        BalanceReserved = "balance-reserved",
        /// The key's money is gone.
        InsufficientBalance = "insufficient-balance",
        /// What may be spent on a day is spent; the limit resets at 00:00 UTC.
        DailyLimit = "daily-limit",
        /// The task may cost more than its payer has at once, however much is left; ask for fewer tokens.
        TaskTooDear = "task-too-dear",
        /// No such quote was given, or it was for something else.
        QuoteUnknown = "quote-unknown",
        /// The quote no longer holds.
        QuoteExpired = "quote-expired",
        /// No connected worker serves this model.
        NoWorker = "no-worker",
        /// Too many tasks wait already; try again later.
        QueueFull = "queue-full",
        /// The task id was used for a different task.
        TaskIdTaken = "task-id-taken",
        /// No task has this id.
        TaskUnknown = "task-unknown",
        /// The task is not settled yet; try again later.
        ReceiptPending = "receipt-pending",
        /// The task ended in a way that leaves nothing to receipt.
        ReceiptNever = "receipt-never",
        /// Too many model files are being fetched; try again later.
        DownloadsFull = "downloads-full",
        /// Too many are asking about rewards; try again later.
        RewardsFull = "rewards-full",
        /// Too many are asking about payouts; try again later.
        PayoutsFull = "payouts-full",
        /// The account's name can prove nothing, so nobody can change where it is paid.
        DestinationFixed = "destination-fixed",
        /// The pool cannot pay to this destination, or not from this threshold on or at these times.
        DestinationInvalid = "destination-invalid",
        /// The statement is not signed by the account, or is for another pool, network or time.
        StatementInvalid = "statement-invalid",
        /// A statement of the account that is newer, or as old, was taken before.
        StatementStale = "statement-stale",
        /// The account has stated too often within a day.
        StatementsFull = "statements-full",
        /// Nobody has earned anything under this name.
        AccountUnknown = "account-unknown",
        /// What was asked for of old slices is not kept any more.
        SlicesDropped = "slices-dropped",
        /// The pool is shutting down or its database is away; try again later.
        Unavailable = "unavailable",
        /// Something unexpected inside the pool; its log says more.
        Internal = "internal",
        /// Task error: the worker went away and no other could take over.
        WorkerLost = "worker-lost",
        /// Task error: the worker refused the task or could not complete it.
        WorkerFailed = "worker-failed",
        /// Task error: the worker gave no token for too long, and no other could take over.
        WorkerStalled = "worker-stalled",
        /// Task error: every connected worker that serves the model has as many tasks as it can take; try again
        /// later.
        WorkersFull = "workers-full",
        /// Task error: the replay of the worker's claim did not give the worker's output.
        InferenceMismatch = "inference-mismatch",
        /// Task error: time ran out.
        TaskExpired = "task-expired",
        /// Task error: the pool was restarted while the task waited or ran.
        PoolRestarted = "pool-restarted",
    }
}

impl Code {
    /// The gRPC status that a refusal with this code travels under; `None` for what only ends tasks.
    pub const fn grpc(self) -> Option<tonic::Code> {
        Some(match self {
            Self::ModelUnknown
            | Self::QuoteUnknown
            | Self::TaskUnknown
            | Self::ReceiptNever
            | Self::AccountUnknown
            | Self::SlicesDropped => tonic::Code::NotFound,
            Self::PromptTooLong
            | Self::SamplingInvalid
            | Self::ConstraintInvalid
            | Self::TaskTooLarge
            | Self::TaskTooDear
            | Self::ArgumentInvalid
            | Self::DestinationInvalid
            | Self::StatementInvalid => tonic::Code::InvalidArgument,
            Self::PaymentRequired
            | Self::InsufficientBalance
            | Self::QuoteExpired
            | Self::ReceiptPending
            | Self::DestinationFixed
            | Self::StatementStale => tonic::Code::FailedPrecondition,
            Self::NoWorker | Self::Unavailable => tonic::Code::Unavailable,
            Self::KeyInvalid => tonic::Code::Unauthenticated,
            Self::QueueFull
            | Self::BalanceReserved
            | Self::DailyLimit
            | Self::DownloadsFull
            | Self::RewardsFull
            | Self::PayoutsFull
            | Self::StatementsFull => tonic::Code::ResourceExhausted,
            Self::TaskIdTaken => tonic::Code::AlreadyExists,
            Self::Internal => tonic::Code::Internal,
            Self::WorkerLost
            | Self::WorkerFailed
            | Self::WorkerStalled
            | Self::WorkersFull
            | Self::InferenceMismatch
            | Self::TaskExpired
            | Self::PoolRestarted => return None,
        })
    }

    /// A refusal that carries this code. `message` must hold nothing secret and nothing of a prompt.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut status = Status::new(self.grpc().unwrap_or(tonic::Code::Unknown), message);
        status
            .metadata_mut()
            .insert(METADATA_KEY, MetadataValue::from_static(self.as_str()));
        status
    }
}

/// The word that a refusal carries, if it came from a Dovetail pool.
pub fn code_of(status: &Status) -> Option<&str> {
    status.metadata().get(METADATA_KEY)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/api.md");

    #[test]
    fn a_refusal_carries_its_word_and_its_status() {
        let refusal = Code::QueueFull.status("64 tasks wait already");
        assert_eq!(code_of(&refusal), Some("queue-full"));
        assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn a_foreign_refusal_has_no_word() {
        assert_eq!(code_of(&Status::not_found("elsewhere")), None);
    }

    /// `ResourceExhausted` as the page writes it: `RESOURCE_EXHAUSTED`.
    fn as_written(status: tonic::Code) -> String {
        let mut written = String::new();
        for (at, letter) in format!("{status:?}").char_indices() {
            if at > 0 && letter.is_uppercase() {
                written.push('_');
            }
            written.push(letter.to_ascii_uppercase());
        }
        written
    }

    /// The cells of the table on the page with this first line, without their back ticks.
    fn rows_of_the_page(head: &str) -> Vec<Vec<&'static str>> {
        let (_, table) = PAGE.split_once(head).unwrap();
        let rows = table
            .lines()
            .skip(2)
            .map_while(|row| row.strip_prefix("| "));
        rows.map(|row| {
            row.split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect()
        })
        .collect()
    }

    #[test]
    fn the_page_lists_each_refusal_once_with_its_status_and_no_other() {
        let rows = rows_of_the_page("| word | gRPC status |");
        let listed: BTreeSet<_> = rows.iter().map(|row| (row[0], row[1].to_owned())).collect();
        assert_eq!(listed.len(), rows.len(), "a word is listed twice");
        let status = |code: &Code| Some((code.as_str(), as_written(code.grpc()?)));
        assert_eq!(listed, Code::ALL.iter().filter_map(status).collect());
    }

    #[test]
    fn the_page_lists_each_word_that_ends_a_task_once_and_no_other() {
        let rows = rows_of_the_page("\n| word | meaning |");
        let listed: BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(listed.len(), rows.len(), "a word is listed twice");
        // These two are said of calls as well.
        let ends = |code: &&Code| {
            code.grpc().is_none() || [Code::QueueFull, Code::Internal].contains(code)
        };
        let ending = Code::ALL.iter().filter(ends).map(|code| code.as_str());
        assert_eq!(listed, ending.collect());
    }
}
