//! Handing a solved block to the template source, and finding out what came of it.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_jd::block_bytes;
use dovetail_templates::{TemplateError, TemplateHandle};

use super::solved_block::SolvedBlock;

/// How soon a source whose protocol has no answer to a solution shows the block as its tip.
const TIP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a block that nobody has judged may still become the tip: sources reconnect, and a miner that
/// publishes its block itself takes its time.
const UNJUDGED_TIME_MAX: Duration = Duration::from_secs(60);

/// How a block is handed over.
pub(crate) enum Submission {
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
pub(super) enum Verdict {
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
    pub(super) fn text(&self) -> String {
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
    pub(super) async fn submit(self, templates: &TemplateHandle, hash: BlockHash) -> Verdict {
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
