//! Checking a receipt offline: every check in a fixed order, up to the first thing that does not hold.
//!
//! The receipt's own chain (signature, leaf, batch, coinbase, merkle root, proof of work) is checked by
//! `dovetail_commitment::receipt`; here the agent's own copy is held against the transcript that the chain leads to.
//! With the model at hand, the answer is computed again. What this cannot show: that the block header was ever known to the
//! network (most shares are not blocks).

use dovetail_audit::Evidence;
use dovetail_commitment::{
    StopSequences, Transcript,
    receipt::{self, Receipt, ReceiptError, VerifiedReceipt},
};
use dovetail_engine::{EngineError, Vocabulary};
use dovetail_units::{Msat, TokenPrices};
use serde::Serialize;

use crate::receipt_file::{Kept, KeptConstraint, ReceiptFile};
use crate::replay::{Replay, ReplayOutcome, Replayer};

/// One thing that a receipt must satisfy. The order is the order of checking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Every field has its form and length.
    Format,
    /// The signature is by the key that the receipt names, over all of its fields.
    Signature,
    /// That key is the pool's.
    PoolKey,
    /// A batch's root is in the coinbase, once.
    BatchInCoinbase,
    /// The transcript is a leaf of that batch.
    LeafInBatch,
    /// The coinbase is under the header's merkle root.
    CoinbaseInHeader,
    /// The header's hash meets the share's target.
    ProofOfWork,
    /// The price is what the tokens of input and output come to.
    Price,
    /// The transcript is of the agent's task.
    Task,
    /// The transcript is of the model that was asked for.
    Model,
    /// The transcript has the sampling and the seed that were asked for.
    Sampling,
    /// The transcript commits to the agent's prompt, and to the tokens that the pool said it made of it.
    Prompt,
    /// As many tokens of input were paid for as the prompt has.
    InputTokens,
    /// These tokens are those that the model's tokenizer makes of the prompt.
    Encoding,
    /// The transcript commits to the tokens that the agent saw.
    Output,
    /// The model gives these tokens, and this trace, when they are computed again.
    Replay,
}

impl Check {
    /// All of them, in the order of checking.
    pub const ALL: [Self; 16] = [
        Self::Format,
        Self::Signature,
        Self::PoolKey,
        Self::BatchInCoinbase,
        Self::LeafInBatch,
        Self::CoinbaseInHeader,
        Self::ProofOfWork,
        Self::Price,
        Self::Task,
        Self::Model,
        Self::Sampling,
        Self::Prompt,
        Self::InputTokens,
        Self::Encoding,
        Self::Output,
        Self::Replay,
    ];

    /// What it says when it holds.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Format => "every field has its form",
            Self::Signature => "the signature covers every field",
            Self::PoolKey => "it is signed by the pool's key",
            Self::BatchInCoinbase => "the coinbase commits to a batch",
            Self::LeafInBatch => "the transcript is a leaf of that batch",
            Self::CoinbaseInHeader => "the header commits to the coinbase",
            Self::ProofOfWork => "the header's hash meets the share's target",
            Self::Price => "the price is what the tokens of input and output come to",
            Self::Task => "it is about this task",
            Self::Model => "it is about the model that was asked",
            Self::Sampling => "it has the sampling and seed that were asked",
            Self::Prompt => "it commits to this prompt and its tokens",
            Self::InputTokens => "as many tokens of input are paid for as the prompt has",
            Self::Encoding => "the model's tokenizer makes these tokens of the prompt",
            Self::Output => "it commits to these output tokens",
            Self::Replay => "the model gives exactly these tokens when they are computed again",
        }
    }
}

/// How one check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", content = "why", rename_all = "kebab-case")]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not, and this is why.
    Fails(String),
    /// It was not looked at, and this is why.
    NotChecked(&'static str),
}

/// One line of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The check.
    pub check: Check,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// No check failed. Look at `lines` for what was not checked.
    pub verified: bool,
    /// The first thing that does not hold.
    pub first_failure: Option<Check>,
    /// Every check, in order.
    pub lines: Vec<Line>,
    /// The key that signed, if the receipt's own chain holds.
    pub pool_key: Option<String>,
    /// The header's hash as explorers write it, if the receipt's own chain holds.
    pub header_hash: Option<String>,
    /// What the task has cost, if the receipt's own chain holds.
    pub cost: Option<Cost>,
    /// What came of computing the answer again, if that was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Report {
    /// Whether the answer was computed again, and came out the same.
    pub fn is_replayed(&self) -> bool {
        let replay = self.replay.as_ref();
        replay.is_some_and(|replay| replay.outcome == ReplayOutcome::Same)
    }
}

/// What a task has cost, and how that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // The names are those of a receipt and its transcript.
pub struct Cost {
    pub price_msat: Msat,
    pub input_tokens: u32,
    pub output_tokens: u32,
    pub prices: TokenPrices,
}

impl Cost {
    fn of(verified: &VerifiedReceipt) -> Self {
        Self {
            price_msat: verified.price,
            input_tokens: verified.input_tokens,
            output_tokens: verified.transcript.output_tokens,
            prices: verified.prices,
        }
    }
}

const EARLIER_FAILED: &str = "an earlier check failed";
const NO_KEY: &str = "no pool key was given to compare with";
const NO_COPY: &str = "the file has no agent's copy";
const NO_MODEL_FILE: &str = "no model file was given to encode the prompt with";
const NO_REPLAY: &str = "it was not asked to be computed again";

/// What a verification has at hand, besides what is verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The x-only key that must have signed.
    pub pool_key: Option<[u8; 32]>,
    /// The vocabulary of the model that was asked, to encode the prompt again. Not needed beside a replayer.
    pub vocabulary: Option<&'a Vocabulary>,
    /// The model that was asked, to compute the answer again. That takes a fraction of the time that generating took.
    pub replayer: Option<&'a Replayer>,
}

impl Known<'_> {
    /// The tokens of a prompt, where a tokenizer is known.
    fn encode(&self, prompt: &[u8]) -> Option<Result<Vec<u32>, EngineError>> {
        match (self.replayer, self.vocabulary) {
            (Some(replayer), _) => Some(replayer.encode(prompt)),
            (None, Some(vocabulary)) => Some(vocabulary.encode(prompt)),
            (None, None) => None,
        }
    }
}

/// Verifies what an agent kept. `pool_key` is the x-only key that must have signed.
pub fn verify(kept: &Kept, pool_key: Option<[u8; 32]>) -> Report {
    let known = Known {
        pool_key,
        ..Known::default()
    };
    verify_with(kept, &known)
}

/// Verifies what an agent kept with all that is known.
pub fn verify_with(kept: &Kept, known: &Known<'_>) -> Report {
    match kept {
        Kept::ReceiptOnly(receipt) => check(receipt, known, None),
        Kept::File(file) => match &file.receipt {
            Some(receipt) => check(receipt, known, Some(file)),
            None => Report {
                verified: false,
                first_failure: Some(Check::Format),
                lines: lines(
                    Some((Check::Format, "the file holds no receipt yet".into())),
                    known,
                    false,
                    None,
                ),
                pool_key: None,
                header_hash: None,
                cost: None,
                replay: None,
            },
        },
    }
}

fn check(receipt: &Receipt, known: &Known<'_>, copy: Option<&ReceiptFile>) -> Report {
    let chain = receipt.verify(known.pool_key);
    let evidence = match (&chain, copy) {
        (Err(error), _) => Err(explain(*error)),
        (Ok(verified), Some(copy)) => check_copy(verified, copy, known).map(Some),
        (Ok(_), None) => Ok(None),
    };
    let (replay, failure) = match (evidence, known.replayer) {
        (Err(failure), _) => (None, Some(failure)),
        (Ok(Some(evidence)), Some(replayer)) => {
            let (replay, difference) = replayer.replay(&evidence);
            (Some(replay), difference.map(|why| (Check::Replay, why)))
        }
        (Ok(_), _) => (None, None),
    };
    Report {
        verified: failure.is_none(),
        first_failure: failure.as_ref().map(|(check, _)| *check),
        lines: lines(failure, known, copy.is_some(), replay.as_ref()),
        pool_key: chain
            .as_ref()
            .ok()
            .map(|verified| hex::encode(verified.pool_key)),
        header_hash: chain.as_ref().ok().map(hash_for_people),
        cost: chain.as_ref().ok().map(Cost::of),
        replay,
    }
}

fn lines(
    failure: Option<(Check, String)>,
    known: &Known<'_>,
    has_copy: bool,
    replay: Option<&Replay>,
) -> Vec<Line> {
    let no_tokenizer = known.vocabulary.is_none() && known.replayer.is_none();
    let outcome = |check: Check| match &failure {
        Some((failed, why)) if *failed == check => Outcome::Fails(why.clone()),
        Some((failed, _)) if *failed < check => Outcome::NotChecked(EARLIER_FAILED),
        _ if check == Check::PoolKey && known.pool_key.is_none() => Outcome::NotChecked(NO_KEY),
        _ if check >= Check::Task && !has_copy => Outcome::NotChecked(NO_COPY),
        _ if check == Check::Encoding && no_tokenizer => Outcome::NotChecked(NO_MODEL_FILE),
        _ if check == Check::Replay => match replay.map(|replay| replay.outcome) {
            None => Outcome::NotChecked(NO_REPLAY),
            Some(ReplayOutcome::NotDone { why }) => Outcome::NotChecked(why),
            Some(_) => Outcome::Holds,
        },
        _ => Outcome::Holds,
    };
    Check::ALL
        .into_iter()
        .map(|check| Line {
            check,
            outcome: outcome(check),
        })
        .collect()
}

/// All that needs no computing. What a replay needs, if it holds.
fn check_copy(
    verified: &VerifiedReceipt,
    copy: &ReceiptFile,
    known: &Known<'_>,
) -> Result<Evidence, (Check, String)> {
    check_request(&verified.transcript, copy)?;
    let evidence = evidence(verified, copy).map_err(|why| (Check::Prompt, why))?;
    let content = receipt::verify_content(
        &evidence.transcript,
        &evidence.salt,
        &evidence.stop,
        evidence.constraint.as_ref(),
        &evidence.prompt,
        &evidence.output_tokens,
    );
    match content {
        // Both are checked before the output.
        Ok(()) | Err(ReceiptError::Output) => {
            let counted = verified.verify_input_tokens(&evidence.prompt);
            counted.map_err(explain)?;
            check_encoding(copy, known)?;
        }
        Err(_) => {}
    }
    content.map_err(explain)?;
    Ok(evidence)
}

/// What the agent's copy holds, within the bounds of its kind, with the transcript that it is held against.
fn evidence(verified: &VerifiedReceipt, copy: &ReceiptFile) -> Result<Evidence, String> {
    let stop = copy.stop.iter().map(|stop| stop.as_bytes().to_vec());
    let stop = StopSequences::new(stop.collect()).map_err(|error| error.to_string())?;
    let constraint = copy.constraint.as_ref().map(KeptConstraint::constraint);
    let constraint = constraint.transpose().map_err(|error| error.to_string())?;
    let prompt = copy.encoded_prompt().map_err(|error| error.to_string())?;
    Ok(Evidence {
        transcript: verified.transcript.clone(),
        salt: copy.salt,
        prompt,
        stop,
        constraint,
        output_tokens: copy.output_tokens.clone(),
    })
}

/// Whether the transcript is of what was asked for.
fn check_request(transcript: &Transcript, copy: &ReceiptFile) -> Result<(), (Check, String)> {
    let differs = |check, what: &str| Err((check, format!("the transcript has another {what}")));
    if transcript.task_id != copy.task_id {
        return differs(Check::Task, "task id");
    }
    if transcript.model_id != copy.model_id {
        return differs(Check::Model, "model id");
    }
    if transcript.sampling != copy.sampling.into() {
        return differs(Check::Sampling, "sampling");
    }
    if transcript.seed != copy.seed {
        return differs(Check::Sampling, "seed");
    }
    Ok(())
}

fn check_encoding(copy: &ReceiptFile, known: &Known<'_>) -> Result<(), (Check, String)> {
    let Some(tokens) = known.encode(copy.prompt.as_bytes()) else {
        return Ok(());
    };
    let tokens = tokens.map_err(|error| (Check::Encoding, error.to_string()))?;
    if tokens != copy.prompt_tokens {
        let why = "the pool made other tokens of the prompt than this release does";
        return Err((Check::Encoding, why.to_owned()));
    }
    Ok(())
}

/// The check that an error belongs to, and its words without the name in front.
fn explain(error: ReceiptError) -> (Check, String) {
    let check = match error {
        ReceiptError::Format(_) => Check::Format,
        ReceiptError::Signature => Check::Signature,
        ReceiptError::PoolKey => Check::PoolKey,
        ReceiptError::Commitment => Check::BatchInCoinbase,
        ReceiptError::Leaf => Check::LeafInBatch,
        ReceiptError::MerklePath => Check::CoinbaseInHeader,
        ReceiptError::Target => Check::ProofOfWork,
        ReceiptError::Price => Check::Price,
        ReceiptError::Prompt => Check::Prompt,
        ReceiptError::InputTokens => Check::InputTokens,
        ReceiptError::Output => Check::Output,
    };
    let words = error.to_string();
    let why = words
        .split_once(": ")
        .map_or(words.as_str(), |(_, why)| why);
    (check, why.to_owned())
}

fn hash_for_people(verified: &VerifiedReceipt) -> String {
    let mut bytes = verified.header_hash.to_bytes();
    bytes.reverse();
    hex::encode(bytes)
}
