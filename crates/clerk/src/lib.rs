//! Synthetic invoices, stock sheets and letters with their truth: what the small model `clerk` is trained on and
//! measured with; how an answer is marked against a truth; and what can be doubted about an answer without
//! one. Everything drawn follows from a seed. The crate knows no engine, no Bitcoin and no sockets;
//! `dovetail-bench clerk` runs the model over its documents.
//!
//! There are two generators. [`shipped`](documents) is what the model in `model/` has learned; [`wide`](wide_documents) is
//! what the next one learns.

pub mod answer;
pub mod check;
mod marks;
pub mod outside;
mod rng;
pub mod schema;
mod shipped;
mod wide;

use serde::{Deserialize, Serialize};

pub use marks::{Mark, fields, marks};
pub use shipped::LEVEL_MAX;
pub use wide::tokens_at_most;

use rng::Rng;

/// Two disjoint sources of vendors, goods and layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// What the model learns from.
    Training,
    /// What it is measured with: no vendor, no good and no layout of it is in [`World::Training`].
    Unseen,
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its answer is an [`Invoice`].
    Invoice,
    /// Its answer is a [`NextOrder`].
    Stock,
    /// A block of an invoice; its answer is a piece of an [`Invoice`]. Only for training.
    Fragment,
}

/// A text for the model and what the model should answer, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What it is.
    pub kind: Kind,
    /// The text, without a question: what to answer follows from the text's kind.
    pub prompt: String,
    /// Compact JSON with a fixed order of keys.
    pub answer: String,
}

/// The document of that seed, of the shipped model's generator.
#[must_use]
pub fn sample(seed: u64, world: World) -> Document {
    shipped::draw(&mut Rng::new(seed), world)
}

/// An invoice that the shipped model can read and has not been trained on, as the demonstration sends it.
#[must_use]
pub fn sample_invoice(seed: u64) -> Document {
    shipped::invoice(&mut Rng::new(seed), World::Unseen)
}

/// A stock sheet that the shipped model can read and has not been trained on.
#[must_use]
pub fn sample_stock(seed: u64) -> Document {
    shipped::stock(&mut Rng::new(seed), World::Unseen)
}

/// The documents of a run of the shipped model's generator: `count` seeds that follow from `seed`, one each.
pub fn documents(seed: u64, world: World, count: usize) -> impl Iterator<Item = Document> {
    drawn(seed, count, move |rng| shipped::draw(rng, world))
}

/// The short lessons of a run of training, as [`documents`].
pub fn fragments(seed: u64, count: usize) -> impl Iterator<Item = Document> {
    drawn(seed, count, shipped::fragment)
}

/// The documents of a run of the wide generator, as [`documents`].
pub fn wide_documents(seed: u64, world: World, count: usize) -> impl Iterator<Item = Document> {
    drawn(seed, count, move |rng| wide::draw(rng, world))
}

fn drawn(
    seed: u64,
    count: usize,
    draw: impl Fn(&mut Rng) -> Document,
) -> impl Iterator<Item = Document> {
    let mut seeds = Rng::new(seed);
    (0..count).map(move |_| draw(&mut Rng::new(seeds.bits())))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always have a JSON form")
}
