//! The library's parser of one output, with what it has cost. After an error it stays in error.

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::SimpleVob;
use std::panic::AssertUnwindSafe;

/// Reads an output token by token.
pub(crate) struct Follower {
    /// None after an error: what a parser is in then, the library does not say.
    parser: Option<Box<TokenParser>>,
    /// As of the last call that went well.
    steps: u64,
}

impl Follower {
    /// Begins with a parser that has read its grammar.
    pub(crate) fn new(mut parser: TokenParser) -> Self {
        parser.start_without_prompt();
        Self {
            steps: steps_of(&parser),
            parser: Some(Box::new(parser)),
        }
    }

    /// The tokens that go on, and whether the output may end here.
    pub(crate) fn mask(&mut self) -> Option<(SimpleVob, bool)> {
        self.with_parser(|parser| {
            let allowed = parser.compute_mask().ok()?;
            Some((allowed, parser.is_accepting()))
        })
    }

    /// Takes a token in; returns whether nothing but an end could follow.
    pub(crate) fn take(&mut self, token: u32) -> Option<bool> {
        self.with_parser(|parser| {
            let taken_back = parser.consume_token(token).ok()?;
            if taken_back > 0 {
                return None;
            }
            parser.check_stop().ok()?;
            Some(parser.stop_reason() == StopReason::NoExtension)
        })
    }

    /// What reading the grammar and all calls so far have cost.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    fn with_parser<T>(&mut self, work: impl FnOnce(&mut TokenParser) -> Option<T>) -> Option<T> {
        let mut parser = self.parser.take()?;
        // The library promises no freedom from panics, and one here may not end a worker.
        let done = catch_unwind(AssertUnwindSafe(|| Ok(work(&mut parser))));
        let done = done.ok().flatten()?;
        self.steps = steps_of(&parser);
        self.parser = Some(parser);
        Some(done)
    }
}

/// Items of the parser, and the work on regular expressions: either takes some tens of nanoseconds. The library counts both
/// since the parser began, whatever limit each single mask has.
fn steps_of(parser: &TokenParser) -> u64 {
    let stats = parser.parser_stats();
    let items = u64::try_from(stats.all_items).unwrap_or(u64::MAX);
    items.saturating_add(stats.lexer_cost)
}
