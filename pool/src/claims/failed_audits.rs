//! `dovetail-pool audits`: the failed audits, for an operator whom a worker asks about one.

use anyhow::Context;
use dovetail_commitment::WorkerKey;
use dovetail_ledger::FailedAuditRecord;

use crate::config::Config;
use crate::records;

/// Prints the failed audits of one worker or of all, the newest first, at most `limit`; as one JSON object
/// per line, or for people. Only reads the ledger, so it may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_audits(
    config: &Config,
    worker: Option<WorkerKey>,
    json: bool,
    limit: u32,
) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let records = ledger
        .failed_audits(worker, limit)
        .await
        .context("cannot read the failed audits: has this pool's database been migrated?")?;
    records::print(&records, json, text, "no audit has failed")
}

fn text(record: &FailedAuditRecord) -> String {
    let none = "-".to_owned();
    let place = record
        .position
        .map_or_else(String::new, |position| format!(" at token {position}"));
    let or_none = |digest: &Option<String>| digest.as_ref().unwrap_or(&none).clone();
    format!(
        "{time} (Unix): {mismatch}{place}\n  \
           worker       {worker}\n  \
           batch        {root}, leaf {leaf}\n  \
           share        {header}\n  \
           sample by    {sample_header}\n               \
                        proof {proof}\n               \
                        at stake {stake} msat\n  \
           task         {task}\n  \
           transcript   {transcript}\n  \
           model        {model}, engine version {version}\n  \
           output       claimed {claimed} ({claimed_tokens} tokens)\n               \
                        replayed {output} ({tokens} tokens)\n  \
           trace root   claimed {claimed_trace}\n               \
                        replayed {trace}\n  \
           replayed by  {validators}\n  \
           forfeited    {msat} msat of {credits} batches\n",
        time = record.created_at_unix,
        mismatch = record.mismatch,
        worker = record.worker,
        root = record.root,
        leaf = record.leaf_index,
        header = record.header_hash,
        sample_header = or_none(&record.sample_header),
        proof = or_none(&record.vrf_proof),
        stake = record
            .stake_msat
            .map_or_else(|| none.clone(), |msat| msat.to_string()),
        task = record.task_id,
        transcript = record.transcript_hash,
        model = record.model_id,
        version = record.engine_version,
        claimed = record.claimed_output_digest,
        claimed_tokens = record.claimed_tokens,
        output = or_none(&record.replayed_output_digest),
        tokens = record
            .replayed_tokens
            .map_or_else(|| none.clone(), |tokens| tokens.to_string()),
        claimed_trace = record.claimed_trace_root,
        trace = or_none(&record.replayed_trace_root),
        validators = record.validators.join(", "),
        msat = record.forfeited_msat,
        credits = record.forfeited_credits,
    )
}
