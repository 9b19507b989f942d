//! The guide: which tokens may follow, so that an output has the form that its task asks for.
//!
//! The only crate that knows the library behind it. It says nothing of how a token is chosen, and reads no clock: what it
//! allows is a function of the constraint, the model's tokens and the tokens so far, for the same sequence of calls. So
//! whoever generates and whoever replays both begin with a fresh [`Guide`], and at each position ask for one mask and
//! then take one token.

mod follower;
mod grammar;
mod mask;
mod one_of;
mod schema;
mod stack;
mod vocabulary;

#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use follower::Follower;
pub use mask::Mask;
pub use vocabulary::Vocabulary;

/// Why a constraint is not taken.
#[derive(Debug, thiserror::Error)]
pub enum GuideError {
    /// It is for the guide of another release, which allows other tokens.
    #[error(
        "the constraint is for another guide; this one is {}",
        dovetail_commitment::GUIDE
    )]
    OtherGuide,
    /// It says nothing that the guide understands, or more than it follows. The words are for whoever wrote it: they
    /// may quote it, so they belong in no log.
    #[error("the constraint is not taken: {0}")]
    Refused(String),
    /// The model's tokens make no vocabulary that constraints could be followed with.
    #[error("constraints cannot be followed with this model's tokens")]
    Vocabulary,
    /// The system starts no thread now. This says nothing about the constraint: the same one may be taken later.
    #[error("this machine starts no thread for a constraint now; try again later")]
    Unavailable,
}

/// What following one answer's constraint may cost, over all of its positions: the library's own counts of its work, the
/// reading of the form included. About a second of one core at most; a whole answer of the longest kind, to a schema of
/// many fields, takes some per cent of it. A part of what the guide's name names.
pub const ANSWER_STEPS_MAX: u64 = 8_000_000;

/// No token may follow: the model has none that goes on with the form, or it became too costly to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no token may follow")]
pub struct Unmet;

/// A form under way: which tokens may follow those that were taken.
pub struct Guide {
    follower: Follower,
    steps_max: u64,
    vocabulary: usize,
    end_tokens: Box<[u32]>,
}

impl Guide {
    /// The tokens that may follow: those that go on with the form, and the end tokens exactly if it may end here. To be
    /// called once before each [`Guide::take`], since the calls before it are a part of what it costs.
    ///
    /// # Errors
    /// [`Unmet`], now and from now on; also when what was followed so far has cost [`ANSWER_STEPS_MAX`].
    pub fn mask(&mut self) -> Result<Mask, Unmet> {
        if self.steps() >= self.steps_max {
            return Err(Unmet);
        }
        let (mut allowed, may_end) = self.follower.mask().ok_or(Unmet)?;
        for token in &self.end_tokens {
            allowed.set(*token as usize, may_end);
        }
        let mask = Mask::new(&allowed, self.vocabulary);
        if mask.is_empty() {
            Err(Unmet)
        } else {
            Ok(mask)
        }
    }

    /// Goes on by a token that the last mask allows and that is no end token. Returns whether the form is complete, so
    /// that nothing but an end could follow.
    ///
    /// # Errors
    /// [`Unmet`], now and from now on.
    pub fn take(&mut self, token: u32) -> Result<bool, Unmet> {
        self.follower.take(token).ok_or(Unmet)
    }

    /// What it has cost to read the form and to follow it so far. A count of work and never a time: the same for the same
    /// calls, wherever they are made.
    pub fn steps(&self) -> u64 {
        self.follower.steps()
    }
}

impl std::fmt::Debug for Guide {
    // What it follows is as private as the prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guide({} tokens)", self.vocabulary)
    }
}
