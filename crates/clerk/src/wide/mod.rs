//! Invoices and stock sheets as the world writes them, each with its truth, and texts that are neither: what
//! the next `clerk` is trained on. The truth is drawn first and is consistent; then it is written out in a
//! country's language, dates and figures, in columns as `pdftotext -layout` leaves them.
//!
//! It is written from knowledge of how such papers look. No outside document may be read for it: those
//! measure the model.

mod bill;
mod columns;
mod cost;
mod country;
mod day;
mod figures;
mod goods;
mod labels;
mod letters;
mod meta;
mod names;
mod noise;
mod paper;
mod parties;
mod pen;
mod plan;
mod sheet;
mod table;
mod totals;

pub use cost::tokens_at_most;

use crate::rng::Rng;
use crate::{Document, Kind, World};

/// Of a hundred documents, those that are stock sheets.
const SHEETS_PERCENT: u32 = 12;
/// Of a hundred documents, those in which there is nothing to find.
const LETTERS_PERCENT: u32 = 6;
/// What prompt and answer may cost in tokens, by the cautious count of [`tokens_at_most`]: the model's context
/// is 2,048, and the margin is for the tokens that every text begins and ends with.
pub(crate) const TOKENS_MAX: usize = 2_000;

/// The document that follows from the generator's state.
pub(crate) fn draw(rng: &mut Rng, world: World) -> Document {
    let dice = rng.below(100);
    if dice < SHEETS_PERCENT {
        sheet(rng, world)
    } else if dice < SHEETS_PERCENT + LETTERS_PERCENT {
        letter(rng, world)
    } else {
        invoice(rng, world)
    }
}

/// An invoice or a credit note. One that would not fit the model's context is drawn again, with fewer rows.
pub(crate) fn invoice(rng: &mut Rng, world: World) -> Document {
    let mut rows_max = bill::ROWS_MAX;
    loop {
        let (answer, prompt) = paper::draw(rng, world, rows_max);
        let document = Document {
            kind: Kind::Invoice,
            prompt,
            answer: crate::json(&answer),
        };
        if tokens_at_most(&document.prompt) + tokens_at_most(&document.answer) <= TOKENS_MAX
            || rows_max == 1
        {
            return document;
        }
        rows_max = (rows_max * 2 / 3).max(1);
    }
}

/// A stock sheet.
pub(crate) fn sheet(rng: &mut Rng, world: World) -> Document {
    let (answer, prompt) = sheet::draw(rng, world);
    Document {
        kind: Kind::Stock,
        prompt,
        answer: crate::json(&answer),
    }
}

/// A text that is no invoice. Its answer says that nothing was found.
pub(crate) fn letter(rng: &mut Rng, world: World) -> Document {
    Document {
        kind: Kind::Invoice,
        prompt: letters::draw(rng, world),
        answer: crate::json(&crate::answer::Invoice::default()),
    }
}

#[cfg(test)]
mod tests;
