//! Synthetic invoices and stock sheets with their truth: what the small model `clerk` is trained on
//! and measured with, and how an answer is marked. Everything follows from a seed. The crate knows no
//! engine, no Bitcoin and no sockets; `dovetail-bench clerk` runs the model over its documents.

mod date;
mod invoice;
mod layout;
mod marks;
mod money;
mod rng;
mod stock;
mod words;

use serde::{Deserialize, Serialize};

pub use invoice::{Invoice, Item};
pub use marks::{Mark, fields, marks};
pub use stock::{LEVEL_MAX, NextOrder};

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

/// Stock sheets in a hundred documents; the others are invoices.
const STOCK_PERCENT: u32 = 25;

/// The document of that seed.
#[must_use]
pub fn sample(seed: u64, world: World) -> Document {
    let mut rng = Rng::new(seed);
    if rng.chance(STOCK_PERCENT) {
        stock_document(&mut rng, world)
    } else {
        invoice_document(&mut rng, world)
    }
}

/// An invoice that the model has not been trained on, as the demonstration sends it.
#[must_use]
pub fn sample_invoice(seed: u64) -> Document {
    invoice_document(&mut Rng::new(seed), World::Unseen)
}

/// A stock sheet that the model has not been trained on.
#[must_use]
pub fn sample_stock(seed: u64) -> Document {
    stock_document(&mut Rng::new(seed), World::Unseen)
}

/// The short lessons of a run of training, as [`documents`].
pub fn fragments(seed: u64, count: usize) -> impl Iterator<Item = Document> {
    let mut seeds = Rng::new(seed);
    (0..count).map(move |_| {
        let (prompt, answer) = invoice::draw_fragment(&mut Rng::new(seeds.bits()));
        Document {
            kind: Kind::Fragment,
            prompt,
            answer,
        }
    })
}

/// The documents of a run: `count` seeds that follow from `seed`, one each.
pub fn documents(seed: u64, world: World, count: usize) -> impl Iterator<Item = Document> {
    let mut seeds = Rng::new(seed);
    (0..count).map(move |_| sample(seeds.bits(), world))
}

fn invoice_document(rng: &mut Rng, world: World) -> Document {
    let (invoice, prompt) = invoice::draw(rng, world);
    Document {
        kind: Kind::Invoice,
        prompt,
        answer: json(&invoice),
    }
}

fn stock_document(rng: &mut Rng, world: World) -> Document {
    let (order, prompt) = stock::draw(rng, world);
    Document {
        kind: Kind::Stock,
        prompt,
        answer: json(&order),
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always have a JSON form")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    /// An amount in cents, from an answer's point and two decimals.
    fn cents(amount: &serde_json::Value) -> u64 {
        let text = amount.as_str().unwrap();
        let (whole, rest) = text.split_once('.').unwrap();
        assert_eq!(rest.len(), 2, "{text}");
        whole.parse::<u64>().unwrap() * 100 + rest.parse::<u64>().unwrap()
    }

    /// A text without the marks that amounts are grouped and cut with.
    fn digits_joined(text: &str) -> String {
        text.replace([' ', '.', ',', '\''], "")
    }

    fn both_worlds() -> impl Strategy<Value = World> {
        prop_oneof![Just(World::Training), Just(World::Unseen)]
    }

    proptest! {
        #[test]
        fn an_invoice_says_what_its_answer_says(seed: u64, world in both_worlds()) {
            let document = invoice_document(&mut Rng::new(seed), world);
            let answer: serde_json::Value = serde_json::from_str(&document.answer).unwrap();
            for printed in ["vendor", "number"] {
                prop_assert!(document.prompt.contains(answer[printed].as_str().unwrap()));
            }
            let items = answer["items"].as_array().unwrap();
            let mut sum = 0;
            for item in items {
                prop_assert!(document.prompt.contains(item["text"].as_str().unwrap()));
                sum += item["qty"].as_u64().unwrap() * cents(&item["price"]);
            }
            prop_assert_eq!(sum, cents(&answer["total"]));
            let total = answer["total"].as_str().unwrap();
            prop_assert!(digits_joined(&document.prompt).contains(&digits_joined(total)));
        }

        #[test]
        fn an_order_fills_what_is_missing_to_the_target(seed: u64, world in both_worlds()) {
            let document = stock_document(&mut Rng::new(seed), world);
            let answer: serde_json::Value = serde_json::from_str(&document.answer).unwrap();
            let number = |key: &str| answer[key].as_u64().unwrap();
            prop_assert_eq!(number("order"), number("target").saturating_sub(number("on_hand")));
            prop_assert!(number("target") <= u64::from(LEVEL_MAX));
            prop_assert!(number("on_hand") <= u64::from(LEVEL_MAX));
            for key in ["on_hand", "target"] {
                prop_assert!(document.prompt.contains(&number(key).to_string()));
            }
        }

        #[test]
        fn a_seed_means_one_document(seed: u64, world in both_worlds()) {
            prop_assert_eq!(sample(seed, world), sample(seed, world));
        }
    }

    #[test]
    fn no_vendor_and_no_good_is_in_both_worlds() {
        let names = |world| -> HashSet<String> {
            let mut rng = Rng::new(11);
            (0..20_000)
                .flat_map(|_| {
                    [
                        words::vendor(&mut rng, world),
                        words::goods(&mut rng, world),
                    ]
                })
                .map(|name| name.to_uppercase())
                .collect()
        };
        let (training, unseen) = (names(World::Training), names(World::Unseen));
        let both: Vec<_> = training.intersection(&unseen).collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn documents_are_short() {
        for world in [World::Training, World::Unseen] {
            for document in documents(3, world, 5_000) {
                assert!(document.prompt.len() < 900, "{}", document.prompt);
                assert!(document.answer.len() < 500, "{}", document.answer);
            }
        }
    }
}
