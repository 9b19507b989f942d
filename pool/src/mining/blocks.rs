//! A share that solves a block: the block goes out before anything else is done with the share, and counts as
//! found once the template source knows it.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_commitment::HeaderHash;
use dovetail_jd::block_bytes;
use dovetail_templates::{TemplateError, TemplateHandle};
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path_;
use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::custom::{AcceptedJob, DeclaredBlock};
use super::solved::{AssemblyError, SolvedBlock};
use crate::events::Event;
use crate::settle::ProvenShare;
use crate::shared::Shared;

/// How long a found block is told to a ledger that is away.
const RECORD_TIME_MAX: Duration = Duration::from_secs(120);
/// How long between two tries.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// How soon a source whose protocol has no answer to a solution shows the block as its tip.
const TIP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a block that nobody has judged may still become the tip: sources reconnect, and a miner that
/// publishes its block itself takes its time.
const UNJUDGED_TIME_MAX: Duration = Duration::from_secs(60);

/// How a block is handed over.
enum Submission {
    /// As the solution of one of the source's templates.
    Solution {
        template_id: u64,
        block: SolvedBlock,
    },
    /// Whole and serialised.
    Block(Vec<u8>),
    /// Not at all: in coinbase-only mode only its miner has the transactions.
    Miners,
}

/// What came of a block.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The source has it.
    Accepted,
    /// The source says what is wrong with it.
    Refused(String),
    /// It was sent, and nobody said what came of it.
    Unknown,
    /// Its miner had it to publish, and the source has not seen it.
    LeftToMiner,
    /// Its parts do not hash to its header, so it was not sent.
    NotAssembled,
}

impl Verdict {
    /// What the ledger says of the block (`docs/ledger.md`).
    fn text(&self) -> String {
        match self {
            Self::Accepted => "accepted".to_owned(),
            Self::Refused(reason) => format!("refused: {reason}"),
            Self::Unknown => "unknown".to_owned(),
            Self::LeftToMiner => "left to its miner".to_owned(),
            Self::NotAssembled => "not assembled".to_owned(),
        }
    }
}

impl Submission {
    /// Hands the block over and finds out what came of it.
    async fn submit(self, templates: &TemplateHandle, hash: BlockHash) -> Verdict {
        let tip = hash.to_byte_array();
        let (sent, whole) = match self {
            Self::Solution { template_id, block } => {
                let Some(solution) = block.solution(template_id) else {
                    return Verdict::NotAssembled;
                };
                let sent = templates.submit_solution(solution).await;
                (sent, Some((template_id, block)))
            }
            Self::Block(bytes) => match templates.submit_block(bytes).await {
                Ok(()) if templates.judges_blocks() => return Verdict::Accepted,
                sent => (sent, None),
            },
            Self::Miners => {
                tracing::info!(%hash, "only its miner can publish this block");
                return match templates.has_tip(tip, UNJUDGED_TIME_MAX).await {
                    true => Verdict::Accepted,
                    false => Verdict::LeftToMiner,
                };
            }
        };
        if let Err(error) = &sent {
            tracing::warn!(%hash, %error, "the template source did not take the block");
            if is_judgement(error) {
                return Verdict::Refused(error.to_string());
            }
        }
        if templates.has_tip(tip, TIP_TIME_MAX).await {
            return Verdict::Accepted;
        }
        if let Some((template_id, block)) = whole {
            match submit_whole(templates, template_id, &block).await {
                Some(Ok(())) => return Verdict::Accepted,
                Some(Err(error)) if is_judgement(&error) => {
                    return Verdict::Refused(error.to_string());
                }
                Some(Err(_)) | None => {}
            }
        }
        match templates.has_tip(tip, UNJUDGED_TIME_MAX).await {
            true => Verdict::Accepted,
            false => Verdict::Unknown,
        }
    }
}

/// Whether the source looked at the block and found it wrong.
fn is_judgement(error: &TemplateError) -> bool {
    matches!(
        error,
        TemplateError::Refused { .. }
            | TemplateError::Rejected(_)
            | TemplateError::MalformedBlock(_)
            | TemplateError::StaleTemplate(_)
    )
}

/// Sends the solution of a template again as a whole block, where the source judges those: Bitcoin Core does
/// not answer a solution, and knows a block that it has.
async fn submit_whole(
    templates: &TemplateHandle,
    template_id: u64,
    block: &SolvedBlock,
) -> Option<Result<(), TemplateError>> {
    if !templates.judges_blocks() {
        return None;
    }
    let transactions = match templates.transaction_data(template_id).await {
        Ok(data) => data.transactions,
        Err(error) => return Some(Err(error)),
    };
    let raw = transactions.iter().map(Vec::as_slice);
    let bytes = block_bytes(&block.header, &block.coinbase, raw)?;
    Some(templates.submit_block(bytes).await)
}

/// A block that a share solved.
struct Found {
    header_hash: HeaderHash,
    hash: BlockHash,
    height: u32,
    account: String,
    declared: bool,
}

impl Found {
    /// Records the block, once: a header may come again after a reorganisation or a restart. `false` if this
    /// is not the first time.
    async fn record(&self, shared: &Shared) -> bool {
        let ledger = &shared.settler.ledger;
        let deadline = Instant::now() + RECORD_TIME_MAX;
        loop {
            let recorded = ledger.record_block(self.header_hash, self.height, &self.account);
            match recorded.await {
                Ok(true) => return true,
                Ok(false) => {
                    tracing::info!(hash = %self.hash, "a block that was found before came again");
                    return false;
                }
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(hash = %self.hash, %error, "cannot record a block yet");
                    sleep(RECORD_PAUSE).await;
                }
                // Better told of twice than never.
                Err(error) => {
                    tracing::error!(hash = %self.hash, %error, "cannot record a block");
                    return true;
                }
            }
        }
    }

    /// Notes what came of the block, and tells the supervisor and the operator.
    async fn conclude(&self, shared: &Shared, verdict: &Verdict) {
        let (ledger, result) = (&shared.settler.ledger, verdict.text());
        if let Err(error) = ledger.note_submission(self.header_hash, &result).await {
            tracing::error!(hash = %self.hash, result, %error, "cannot note what came of a block");
        }
        match verdict {
            Verdict::Accepted => {
                Event::BlockFound {
                    hash: &self.hash.to_string(),
                    worker: &self.account,
                    declared: self.declared,
                }
                .emit();
                tracing::info!(hash = %self.hash, declared = self.declared, "block found");
            }
            Verdict::LeftToMiner => {
                tracing::warn!(hash = %self.hash, "a block that its miner had to publish did not become the tip");
            }
            Verdict::Refused(_) | Verdict::Unknown | Verdict::NotAssembled => {
                tracing::error!(hash = %self.hash, result, "a block was solved and is not known to be in the chain");
            }
        }
    }
}

impl Connection {
    /// Publishes a solved block at once: nothing that follows may delay it. One that comes again is
    /// published again, which does no harm, and is found once.
    pub(super) fn publish(
        &self,
        proven: &ProvenShare,
        block: Option<Result<SolvedBlock, AssemblyError>>,
        accepted: Option<&AcceptedJob>,
    ) {
        let Some(block) = block else { return };
        let shared = self.shared.clone();
        let found = Found {
            header_hash: proven.header_hash,
            hash: BlockHash::from_byte_array(proven.header_hash.to_bytes()),
            height: self.work.as_ref().map_or(0, |work| work.height()),
            account: proven.account.clone(),
            declared: accepted.is_some(),
        };
        let submission = match block {
            Ok(block) => self.submission(block, accepted),
            Err(error) => {
                tracing::error!(hash = %found.hash, %error, "a solved block could not be put together");
                None
            }
        };
        self.shared.tracker.spawn(async move {
            let submitting = async {
                match submission {
                    Some(submission) => submission.submit(&shared.templates, found.hash).await,
                    None => Verdict::NotAssembled,
                }
            };
            let (verdict, is_new) = tokio::join!(submitting, found.record(&shared));
            if is_new {
                found.conclude(&shared, &verdict).await;
            }
        });
    }

    /// How the block is handed over: the pool's own as its template's solution, a declared one whole. In
    /// coinbase-only mode the transactions are the miner's secret, and the block is the miner's to publish,
    /// unless the pool's own template has the very same ones.
    fn submission(&self, block: SolvedBlock, accepted: Option<&AcceptedJob>) -> Option<Submission> {
        if let Some(template_id) = block.template_id {
            return Some(Submission::Solution { template_id, block });
        }
        if let Some(declared) = &accepted?.block {
            return declared_block(&block, declared).map(Submission::Block);
        }
        let work = self.work.as_ref()?;
        let same = work.prev_hash() == block.header.prev_blockhash.to_byte_array()
            && work.merkle_root(block.txid()) == block.header.merkle_root.to_byte_array();
        Some(match same {
            true => Submission::Solution {
                template_id: work.template_id(),
                block,
            },
            false => Submission::Miners,
        })
    }
}

/// The whole block of a declared job, if its transactions are those that were hashed.
fn declared_block(block: &SolvedBlock, declared: &DeclaredBlock) -> Option<Vec<u8>> {
    let root = merkle_root_from_path_(block.txid(), &declared.path);
    if root != block.header.merkle_root.to_byte_array() {
        tracing::error!(hash = %block.header.block_hash(), "the declared transactions are not those of the solved header");
        return None;
    }
    let transactions = declared.transactions.iter();
    let raw = transactions.map(|transaction| transaction.raw.as_slice());
    block_bytes(&block.header, &block.coinbase, raw)
}
