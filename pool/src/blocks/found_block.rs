//! A block that a share solves goes out before anything else is done with the share, and counts as found once
//! the template source knows it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_commitment::HeaderHash;
use dovetail_ledger::LedgerError;
use dovetail_telemetry::Event;
use dovetail_templates::block_publisher::{Keeping, Publication, SolvedBlock, Verdict};
use tokio::time::{Instant, sleep, timeout};

use super::assembly::AssemblyError;
use crate::shared::Shared;

/// How long the ledger is told of a found block while it is away.
const RECORD_TIME_MAX: Duration = Duration::from_secs(120);
/// How long between two tries.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// A block that nobody has judged after this time is noted as such, until somebody does.
const UNJUDGED_AFTER: Duration = Duration::from_secs(60);

/// What the ledger says of a block that nobody has judged yet.
const UNJUDGED: &str = "unknown";
/// What it says of one that its miner has to publish, and of one whose parts do not fit together.
const MINERS: &str = "left to its miner";
const NOT_ASSEMBLED: &str = "not assembled";

/// A block that a share solved, as the ledger has it.
struct FoundBlock {
    hash: BlockHash,
    height: u32,
    account: String,
    declared: bool,
    /// Whether only its miner can publish it.
    is_miners: bool,
}

impl FoundBlock {
    fn of(block: &SolvedBlock) -> Self {
        Self {
            hash: block.hash(),
            height: block.height().unwrap_or_default(),
            account: block.finder().account.clone(),
            declared: block.finder().declared,
            is_miners: block.is_miners(),
        }
    }

    fn header_hash(&self) -> HeaderHash {
        HeaderHash::from_bytes(self.hash.to_byte_array())
    }

    /// Records the block, once: a header may come again after a reorganisation or a restart. `false` if this
    /// is not the first time.
    async fn record(&self, shared: &Shared) -> bool {
        let (ledger, account) = (&shared.ledger, &self.account);
        let record = || ledger.record_block(self.header_hash(), self.height, account);
        // Better told of twice than never.
        self.told("recorded", record).await.unwrap_or(true)
    }

    /// Notes what is known of it now; `false` if the node's word stands there already.
    async fn note(&self, shared: &Shared, result: &str) -> bool {
        let ledger = &shared.ledger;
        let note = || ledger.note_submission(self.header_hash(), result);
        self.told("noted", note).await.unwrap_or(true)
    }

    /// Tells the ledger until it hears, for a while; `None` if it did not.
    async fn told<F>(&self, what: &str, tell: impl Fn() -> F) -> Option<bool>
    where
        F: Future<Output = Result<bool, LedgerError>>,
    {
        let deadline = Instant::now() + RECORD_TIME_MAX;
        loop {
            match tell().await {
                Ok(is_new) => return Some(is_new),
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(hash = %self.hash, %error, "a block cannot be {what} yet");
                    sleep(RECORD_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(hash = %self.hash, %error, "a block cannot be {what}");
                    return None;
                }
            }
        }
    }

    /// Waits for what comes of the block, and notes it.
    async fn follow(&self, shared: &Shared, mut publication: Publication) {
        let verdict = match timeout(UNJUDGED_AFTER, publication.verdict()).await {
            Ok(verdict) => verdict,
            Err(_) => {
                let result = if self.is_miners { MINERS } else { UNJUDGED };
                self.note(shared, result).await;
                publication.verdict().await
            }
        };
        // The pool stops; it goes on with the block at its next start.
        let Some(verdict) = verdict else { return };
        let is_new = self.note(shared, &self.result(&verdict)).await;
        if verdict == Verdict::Accepted && is_new {
            shared.telemetry.emit(&Event::BlockFound {
                hash: &self.hash.to_string(),
                worker: &self.account,
                declared: self.declared,
            });
            tracing::info!(hash = %self.hash, declared = self.declared, "block found");
        }
    }

    /// What the ledger says of the block (`docs/ledger.md`).
    fn result(&self, verdict: &Verdict) -> String {
        match (verdict, self.is_miners) {
            (Verdict::Accepted, false) => "accepted".to_owned(),
            (Verdict::Accepted, true) => "seen".to_owned(),
            (Verdict::Refused(reason), _) => format!("refused: {reason}"),
            (Verdict::Unknown, _) => UNJUDGED.to_owned(),
            // What the chain says of it is asked in `followed.rs`.
            (Verdict::LeftToMiner, _) => MINERS.to_owned(),
        }
    }
}

/// Hands the block over at once, and records it meanwhile. One that comes again is found once. What cannot be put
/// together is kept for a person. `height` and `account` are for one of which nothing else is known. What is returned waits
/// until the block survives a crash.
pub(crate) fn publish(
    shared: &Arc<Shared>,
    block: Result<SolvedBlock, AssemblyError>,
    proven: BlockHash,
    height: u32,
    account: &str,
) -> Option<Keeping> {
    match block {
        Ok(block) => {
            let found = FoundBlock::of(&block);
            let publication = shared.blocks.publish(block);
            let keeping = publication.keeping();
            spawn(shared, found, Some(publication), false);
            Some(keeping)
        }
        Err(error) => {
            let found = FoundBlock {
                hash: proven,
                height,
                account: account.to_owned(),
                declared: false,
                is_miners: false,
            };
            match error {
                AssemblyError::Broken(broken) => shared.blocks.keep(broken),
                error => {
                    tracing::error!(hash = %proven, %error, "a solved block cannot be put together and is not published");
                }
            }
            spawn(shared, found, None, false);
            None
        }
    }
}

/// Goes on with a block of an earlier run.
pub(crate) fn resume(shared: &Arc<Shared>, publication: Publication) {
    let found = FoundBlock::of(publication.block());
    spawn(shared, found, Some(publication), true);
}

fn spawn(
    shared: &Arc<Shared>,
    found: FoundBlock,
    publication: Option<Publication>,
    is_resumed: bool,
) {
    let tracker = shared.tracker.clone();
    let shared = Arc::clone(shared);
    tracker.spawn(async move {
        let is_new = found.record(&shared).await;
        if !is_new && !is_resumed {
            tracing::info!(hash = %found.hash, "a block that was found before came again");
            return;
        }
        match publication {
            Some(publication) => found.follow(&shared, publication).await,
            None => {
                found.note(&shared, NOT_ASSEMBLED).await;
            }
        }
    });
}
