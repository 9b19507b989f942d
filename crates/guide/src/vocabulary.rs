//! A model's tokens as the library wants them, made once for each model.

use std::sync::Arc;

use dovetail_commitment::{Constraint, GUIDE};
use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use crate::follower::Follower;
use crate::grammar;
use crate::stack::{NoResult, on_a_stack};
use crate::{ANSWER_STEPS_MAX, Guide, GuideError, Unmet};

/// Texts that begin with this byte stand for special tokens in the library. No UTF-8 has it.
const SPECIAL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
/// The library's own bound on tokens' numbers.
const VOCABULARY_MAX: usize = 1 << 23;

/// What a grammar may cost. All are counts, never times: what is refused here is refused everywhere. They are a part of
/// what [`GUIDE`] names.
const LIMITS: ParserLimits = ParserLimits {
    // How ambiguous a grammar may be at one byte.
    max_items_in_row: 1_000,
    // Work on regular expressions when a grammar is read: some 5 ms.
    initial_lexer_fuel: 250_000,
    // The same for one mask: some 15 ms.
    step_lexer_fuel: 200_000,
    // Parser items for one mask: some 3 ms.
    step_max_items: 50_000,
    // 1 to 2 kB of memory each.
    max_lexer_states: 10_000,
    // Symbols of a grammar. 16 KiB of schema make a few thousand.
    max_grammar_size: 50_000,
    // Saves time later where it is spent first: not for answers of a few hundred tokens.
    precompute_large_lexemes: false,
    // They would quote the grammar and the output.
    verbose_errors: false,
};

/// What constraints on a model's outputs are followed with. Its memory is some tens of bytes for each token.
pub struct Vocabulary {
    factory: ParserFactory,
    tokens: usize,
    end_tokens: Box<[u32]>,
}

impl Vocabulary {
    /// From the bytes of each token, in the order of their numbers; tokens without text have none and never come up.
    /// Takes a fraction of a second for 50,000 tokens.
    ///
    /// # Errors
    /// [`GuideError::Vocabulary`], or [`GuideError::Unavailable`], which may pass.
    pub fn new<'a>(
        tokens: impl Iterator<Item = &'a [u8]>,
        end_tokens: &[u32],
    ) -> Result<Self, GuideError> {
        let mut words: Vec<Vec<u8>> = tokens
            .map(|bytes| match bytes.first() {
                Some(&SPECIAL) => Vec::new(),
                _ => bytes.to_vec(),
            })
            .collect();
        let end_tokens: Box<[u32]> = end_tokens.into();
        for token in &end_tokens {
            // An end token ends the output, whatever text it may have.
            let word = words.get_mut(*token as usize);
            word.ok_or(GuideError::Vocabulary)?.clear();
        }
        if words.is_empty() || words.len() > VOCABULARY_MAX {
            return Err(GuideError::Vocabulary);
        }
        let factory = match on_a_stack(|| factory(&words, &end_tokens)) {
            Ok(factory) => factory.ok_or(GuideError::Vocabulary)?,
            Err(NoResult::Panicked) => return Err(GuideError::Vocabulary),
            Err(NoResult::NoThread) => return Err(GuideError::Unavailable),
        };
        Ok(Self {
            factory,
            tokens: words.len(),
            end_tokens,
        })
    }

    /// Whether a constraint is one that can be begun.
    ///
    /// # Errors
    /// As [`Vocabulary::start`], and [`GuideError::Refused`] if no token may be the first.
    pub fn check(&self, constraint: &Constraint) -> Result<(), GuideError> {
        let mut guide = self.start(constraint)?;
        let first = guide.mask();
        first.map(drop).map_err(|Unmet| {
            grammar::refused("no token of the model begins it, or it is too costly to follow")
        })
    }

    /// Begins to follow a constraint. The grammar is read anew each time: what a mask costs depends on the masks before
    /// it, so two guides of one constraint share nothing.
    ///
    /// # Errors
    /// [`GuideError::OtherGuide`], [`GuideError::Refused`] with words for whoever wrote it, or
    /// [`GuideError::Unavailable`], which says nothing about the constraint.
    pub fn start(&self, constraint: &Constraint) -> Result<Guide, GuideError> {
        if constraint.guide() != GUIDE {
            return Err(GuideError::OtherGuide);
        }
        let read = on_a_stack(|| {
            let grammar = grammar::of(constraint.form())?;
            let parser = self.factory.create_parser(grammar);
            let parser = parser.map_err(|error| grammar::refused(&error.to_string()))?;
            if parser.inference_caps.backtrack {
                return Err(grammar::refused("it would take tokens back"));
            }
            Ok(Follower::new(parser))
        });
        let follower = match read {
            Ok(read) => read?,
            Err(NoResult::Panicked) => return Err(grammar::refused("it breaks the guide")),
            Err(NoResult::NoThread) => return Err(GuideError::Unavailable),
        };
        if follower.steps() >= ANSWER_STEPS_MAX {
            return Err(grammar::refused("it is too costly to read"));
        }
        Ok(Guide {
            follower,
            steps_max: ANSWER_STEPS_MAX,
            vocabulary: self.tokens,
            end_tokens: self.end_tokens.clone(),
        })
    }
}

fn factory(words: &[Vec<u8>], end_tokens: &[u32]) -> Option<ParserFactory> {
    let count = u32::try_from(words.len()).ok()?;
    let end = end_tokens.first().copied().unwrap_or(INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(count, end), words);
    if !end_tokens.is_empty() {
        trie = trie.with_eos_tokens(end_tokens);
    }
    // Not canonical: a text may be cut into tokens in any way, so masks do not depend on how a tokenizer would cut it.
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).ok()?;
    factory.quiet();
    *factory.limits_mut() = LIMITS;
    Some(factory)
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vocabulary({} tokens)", self.tokens)
    }
}
