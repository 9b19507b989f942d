//! The error codes of the extension: one reason for one refusal, as short strings that a client
//! may match on. `docs/extension-0x4149.md` says when each is sent and what to do about it.

/// The audit's replay of a sampled transcript gave something else.
pub const INFERENCE_MISMATCH: &str = "inference-mismatch";
/// The audit could not be done in time: the claim earns nothing and costs nothing, and the batch may be
/// claimed again.
pub const AUDIT_UNAVAILABLE: &str = "audit-unavailable";
/// No such batch was registered.
pub const BATCH_UNKNOWN: &str = "batch-unknown";
/// The batch was settled by an earlier share.
pub const BATCH_SPENT: &str = "batch-spent";
/// The batch belongs to another worker.
pub const BATCH_NOT_YOURS: &str = "batch-not-yours";
/// The batch's tasks have expired.
pub const BATCH_EXPIRED: &str = "batch-expired";
/// The batch does not have 1 to 64 distinct tasks.
pub const BATCH_MALFORMED: &str = "batch-malformed";
/// The root is not that of the named transcripts.
pub const BATCH_ROOT_MISMATCH: &str = "batch-root-mismatch";
/// The share claims a batch, but its job's coinbase commits to none.
pub const CLAIM_WITHOUT_COMMITMENT: &str = "claim-without-commitment";
/// The share claims another batch than its job's coinbase commits to.
pub const CLAIM_MISMATCH: &str = "claim-mismatch";
/// The claim is not a 32-byte batch root.
pub const CLAIM_MALFORMED: &str = "claim-malformed";
/// The connection has no extended channel with this id.
pub const CHANNEL_UNKNOWN: &str = "channel-unknown";
/// The worker asks for jobs faster than the pool builds them.
pub const TOO_MANY_JOBS: &str = "too-many-jobs";
/// No such task.
pub const TASK_UNKNOWN: &str = "task-unknown";
/// The task is another worker's.
pub const TASK_NOT_YOURS: &str = "task-not-yours";
/// The task has no transcript yet.
pub const TASK_UNFINISHED: &str = "task-unfinished";
/// The transcript does not decode.
pub const TRANSCRIPT_MALFORMED: &str = "transcript-malformed";
/// The transcript is not of the task as it was assigned.
pub const TRANSCRIPT_NOT_MATCHING_TASK: &str = "transcript-not-matching-task";
/// The worker does not serve the model, or the pool does not know it.
pub const MODEL_UNKNOWN: &str = "model-unknown";
/// The signature does not prove the worker key.
pub const BAD_PROOF: &str = "bad-proof";
/// The message needs a registration first.
pub const NOT_REGISTERED: &str = "not-registered";
/// The worker runs as many tasks as it said it can.
pub const TOO_MANY_TASKS: &str = "too-many-tasks";
/// The prompt does not fit the model's context.
pub const PROMPT_TOO_LONG: &str = "prompt-too-long";
/// The prompt is empty, or no text that the model's tokenizer takes.
pub const PROMPT_INVALID: &str = "prompt-invalid";
/// A sampling parameter is out of its bounds.
pub const SAMPLING_INVALID: &str = "sampling-invalid";
/// The invoice is not one for the payout that was asked for.
pub const INVALID_INVOICE: &str = "invalid-invoice";
/// The other side failed; the same request may succeed later.
pub const INTERNAL: &str = "internal";

/// Whether the code says that a batch can never be claimed, or never again.
pub fn is_final_for_batch(code: &str) -> bool {
    [
        INFERENCE_MISMATCH,
        BATCH_UNKNOWN,
        BATCH_MALFORMED,
        BATCH_ROOT_MISMATCH,
        BATCH_SPENT,
        BATCH_NOT_YOURS,
        BATCH_EXPIRED,
    ]
    .contains(&code)
}
