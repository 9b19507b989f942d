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
        /// The connection has no extended channel with this id.
        ChannelUnknown = "channel-unknown",
        /// The worker asks for jobs faster than the pool builds them.
        TooManyJobs = "too-many-jobs",
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
        /// The prompt is empty, or no text that the model's tokenizer takes.
        PromptInvalid = "prompt-invalid",
        /// A sampling parameter is out of its bounds.
        SamplingInvalid = "sampling-invalid",
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
                | Self::BatchUnknown
                | Self::BatchMalformed
                | Self::BatchRootMismatch
                | Self::BatchSpent
                | Self::BatchNotYours
                | Self::BatchExpired
        )
    }
}

/// [`Code::InferenceMismatch`].
pub const INFERENCE_MISMATCH: &str = Code::InferenceMismatch.as_str();
/// [`Code::AuditUnavailable`].
pub const AUDIT_UNAVAILABLE: &str = Code::AuditUnavailable.as_str();
/// [`Code::BatchUnknown`].
pub const BATCH_UNKNOWN: &str = Code::BatchUnknown.as_str();
/// [`Code::BatchSpent`].
pub const BATCH_SPENT: &str = Code::BatchSpent.as_str();
/// [`Code::BatchNotYours`].
pub const BATCH_NOT_YOURS: &str = Code::BatchNotYours.as_str();
/// [`Code::BatchExpired`].
pub const BATCH_EXPIRED: &str = Code::BatchExpired.as_str();
/// [`Code::BatchMalformed`].
pub const BATCH_MALFORMED: &str = Code::BatchMalformed.as_str();
/// [`Code::BatchRootMismatch`].
pub const BATCH_ROOT_MISMATCH: &str = Code::BatchRootMismatch.as_str();
/// [`Code::ClaimWithoutCommitment`].
pub const CLAIM_WITHOUT_COMMITMENT: &str = Code::ClaimWithoutCommitment.as_str();
/// [`Code::ClaimMismatch`].
pub const CLAIM_MISMATCH: &str = Code::ClaimMismatch.as_str();
/// [`Code::ClaimMalformed`].
pub const CLAIM_MALFORMED: &str = Code::ClaimMalformed.as_str();
/// [`Code::ChannelUnknown`].
pub const CHANNEL_UNKNOWN: &str = Code::ChannelUnknown.as_str();
/// [`Code::TooManyJobs`].
pub const TOO_MANY_JOBS: &str = Code::TooManyJobs.as_str();
/// [`Code::TaskUnknown`].
pub const TASK_UNKNOWN: &str = Code::TaskUnknown.as_str();
/// [`Code::TaskNotYours`].
pub const TASK_NOT_YOURS: &str = Code::TaskNotYours.as_str();
/// [`Code::TaskUnfinished`].
pub const TASK_UNFINISHED: &str = Code::TaskUnfinished.as_str();
/// [`Code::TranscriptMalformed`].
pub const TRANSCRIPT_MALFORMED: &str = Code::TranscriptMalformed.as_str();
/// [`Code::TranscriptNotMatchingTask`].
pub const TRANSCRIPT_NOT_MATCHING_TASK: &str = Code::TranscriptNotMatchingTask.as_str();
/// [`Code::ModelUnknown`].
pub const MODEL_UNKNOWN: &str = Code::ModelUnknown.as_str();
/// [`Code::BadProof`].
pub const BAD_PROOF: &str = Code::BadProof.as_str();
/// [`Code::NotRegistered`].
pub const NOT_REGISTERED: &str = Code::NotRegistered.as_str();
/// [`Code::TooManyTasks`].
pub const TOO_MANY_TASKS: &str = Code::TooManyTasks.as_str();
/// [`Code::PromptTooLong`].
pub const PROMPT_TOO_LONG: &str = Code::PromptTooLong.as_str();
/// [`Code::PromptInvalid`].
pub const PROMPT_INVALID: &str = Code::PromptInvalid.as_str();
/// [`Code::SamplingInvalid`].
pub const SAMPLING_INVALID: &str = Code::SamplingInvalid.as_str();
/// [`Code::InvalidInvoice`].
pub const INVALID_INVOICE: &str = Code::InvalidInvoice.as_str();
/// [`Code::Internal`].
pub const INTERNAL: &str = Code::Internal.as_str();

/// Whether the code says that a batch can never be claimed, or never again.
pub fn is_final_for_batch(code: &str) -> bool {
    Code::parse(code).is_some_and(Code::is_final_for_batch)
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
