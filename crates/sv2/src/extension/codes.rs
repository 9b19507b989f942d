//! The error codes of the extension: one reason for one refusal, as short strings that a client
//! may match on. `docs/extension-0x4149.md` says when each is sent and what to do about it.

dovetail_units::codes! {
    /// An error code of the extension.
    pub enum Code {
        /// The audit's replay of a sampled transcript gave something else.
        InferenceMismatch = "inference-mismatch",
        /// The audit could not be done in time: the claim earns nothing and costs nothing, and the batch may be
        /// claimed again.
        AuditUnavailable = "audit-unavailable",
        /// The audit of the batch could not be done too often: it earns nothing and costs nothing, and cannot be claimed
        /// again. Its tasks may go into other batches.
        BatchDead = "batch-dead",
        /// No such batch was registered.
        BatchUnknown = "batch-unknown",
        /// The batch was settled by an earlier share.
        BatchSpent = "batch-spent",
        /// The batch belongs to another worker.
        BatchNotYours = "batch-not-yours",
        /// The batch's tasks have expired.
        BatchExpired = "batch-expired",
        /// The batch does not have 1 to 64 distinct tasks.
        BatchMalformed = "batch-malformed",
        /// The root is not that of the named transcripts.
        BatchRootMismatch = "batch-root-mismatch",
        /// The share claims a batch, but its job's coinbase commits to none.
        ClaimWithoutCommitment = "claim-without-commitment",
        /// The share claims another batch than its job's coinbase commits to.
        ClaimMismatch = "claim-mismatch",
        /// The claim is not a 32-byte batch root.
        ClaimMalformed = "claim-malformed",
        /// The pool has no room to note the share durably: its ledger has been away for long. Worth a retry later.
        LogFull = "log-full",
        /// The connection has no extended channel with this id.
        ChannelUnknown = "channel-unknown",
        /// One of the batch's tasks is in too many open batches, or the worker has too many.
        TooManyBatches = "too-many-batches",
        /// The worker asks for jobs faster than the pool builds them.
        TooManyJobs = "too-many-jobs",
        /// A replay of the whole batch would take longer than an audit may: its tasks may go into smaller batches.
        BatchTooCostly = "batch-too-costly",
        /// No such task.
        TaskUnknown = "task-unknown",
        /// The task is another worker's.
        TaskNotYours = "task-not-yours",
        /// The task has no transcript yet.
        TaskUnfinished = "task-unfinished",
        /// The transcript does not decode.
        TranscriptMalformed = "transcript-malformed",
        /// The transcript is not of the task as it was assigned.
        TranscriptNotMatchingTask = "transcript-not-matching-task",
        /// The worker does not serve the model, or the pool does not know it.
        ModelUnknown = "model-unknown",
        /// The signature does not prove the worker key.
        BadProof = "bad-proof",
        /// The message needs a registration first.
        NotRegistered = "not-registered",
        /// The worker runs as many tasks as it said it can.
        TooManyTasks = "too-many-tasks",
        /// The prompt does not fit the model's context.
        PromptTooLong = "prompt-too-long",
        /// A token of the prompt is none of the model's.
        PromptInvalid = "prompt-invalid",
        /// A sampling parameter is out of its bounds.
        SamplingInvalid = "sampling-invalid",
        /// The constraint is none that the worker follows.
        ConstraintInvalid = "constraint-invalid",
        /// The constraint is for a guide that the worker does not have.
        GuideUnknown = "guide-unknown",
        /// The invoice is not one for the payout that was asked for.
        InvalidInvoice = "invalid-invoice",
        /// The other side failed; the same request may succeed later.
        Internal = "internal",
    }
}

impl Code {
    /// Whether the code says that a batch can never be claimed, or never again.
    pub const fn is_final_for_batch(self) -> bool {
        matches!(
            self,
            Self::InferenceMismatch
                | Self::BatchDead
                | Self::BatchUnknown
                | Self::BatchMalformed
                | Self::BatchRootMismatch
                | Self::BatchSpent
                | Self::BatchNotYours
                | Self::BatchExpired
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Code;

    const PAGE: &str = include_str!("../../../../docs/extension-0x4149.md");

    /// The first cells of the table of codes. A cell with several words lists what an audit may find, which are no
    /// error codes.
    fn words_of_the_page() -> Vec<&'static str> {
        let (_, table) = PAGE.split_once("\n| code | sent in |").unwrap();
        let rows = table.lines().skip(2);
        let cells = rows.map_while(|row| row.strip_prefix("| `")?.split_once(" |"));
        let words = cells.filter_map(|(cell, _)| cell.strip_suffix('`'));
        words.filter(|word| !word.contains('`')).collect()
    }

    #[test]
    fn the_page_lists_each_code_once_and_no_other() {
        let listed = words_of_the_page();
        let words: BTreeSet<_> = listed.iter().copied().collect();
        assert_eq!(words.len(), listed.len(), "a code is listed twice");
        assert_eq!(words, Code::ALL.iter().map(|code| code.as_str()).collect());
    }
}
