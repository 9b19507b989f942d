//! What holds for every document, whatever the seed.

use std::collections::HashSet;

use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::{documents, sample};

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
        let document = invoice(&mut Rng::new(seed), world);
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
        let document = stock(&mut Rng::new(seed), world);
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
