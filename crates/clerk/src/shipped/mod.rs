//! The documents that the shipped model `clerk` was trained on and is measured with: English, up to three
//! rows, a few dozen layouts. The demonstration draws from them, since that model reads nothing else.

mod date;
mod invoice;
mod layout;
mod money;
mod stock;
mod words;

pub use stock::LEVEL_MAX;
pub(crate) use words::{code, letter, name};

use crate::rng::Rng;
use crate::{Document, Kind, World, json};

/// Stock sheets in a hundred documents; the others are invoices.
const STOCK_PERCENT: u32 = 25;

/// An invoice or a stock sheet.
pub(crate) fn draw(rng: &mut Rng, world: World) -> Document {
    if rng.chance(STOCK_PERCENT) {
        stock(rng, world)
    } else {
        invoice(rng, world)
    }
}

/// An invoice.
pub(crate) fn invoice(rng: &mut Rng, world: World) -> Document {
    let (invoice, prompt) = invoice::draw(rng, world);
    Document {
        kind: Kind::Invoice,
        prompt,
        answer: json(&invoice),
    }
}

/// A stock sheet.
pub(crate) fn stock(rng: &mut Rng, world: World) -> Document {
    let (order, prompt) = stock::draw(rng, world);
    Document {
        kind: Kind::Stock,
        prompt,
        answer: json(&order),
    }
}

/// A block of an invoice, and the piece of the answer that follows from it.
pub(crate) fn fragment(rng: &mut Rng) -> Document {
    let (prompt, answer) = invoice::draw_fragment(rng);
    Document {
        kind: Kind::Fragment,
        prompt,
        answer,
    }
}

#[cfg(test)]
mod tests;
