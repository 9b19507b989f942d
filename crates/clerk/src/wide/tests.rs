//! What holds for every paper, whatever the seed.

use std::collections::HashSet;

use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::Value;

use super::bill::Bill;
use super::*;
use crate::check::{Doubt, Json, check};
use crate::schema;

fn both_worlds() -> impl Strategy<Value = World> {
    prop_oneof![Just(World::Training), Just(World::Unseen)]
}

/// An amount of an answer in ten-thousandths.
fn e4(amount: &Value) -> i128 {
    let text = amount.as_str().unwrap();
    let (whole, rest) = text.split_once('.').unwrap();
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let whole: i128 = whole.trim_start_matches('-').parse().unwrap();
    sign * (whole * 10_000 + format!("{rest:0<4}").parse::<i128>().unwrap())
}

proptest! {
    #[test]
    fn every_answer_meets_the_schema(seed: u64, world in both_worlds()) {
        let document = draw(&mut Rng::new(seed), world);
        let answer = Json::parse(&document.answer).unwrap();
        prop_assert_eq!(schema::problem(&answer), None, "{}", document.answer);
    }

    #[test]
    fn a_truth_stands_in_its_paper_and_its_sums_agree(seed: u64, world in both_worlds()) {
        for document in [invoice(&mut Rng::new(seed), world), sheet(&mut Rng::new(seed), world)] {
            let report = check(&document.prompt, &document.answer);
            prop_assert!(report.valid);
            // What a paper does not say is answered with nothing, which the check names too.
            let doubted: Vec<_> = report
                .fields
                .iter()
                .filter(|field| field.is_doubtful() && field.doubts != [Doubt::NotFound])
                .collect();
            prop_assert!(doubted.is_empty(), "{doubted:?}\n{}\n{}", document.prompt, document.answer);
        }
    }

    #[test]
    fn items_discount_carriage_and_tax_make_the_total(seed: u64, world in both_worlds()) {
        let bill = Bill::draw(&mut Rng::new(seed), world, bill::ROWS_MAX);
        let added = if bill.tax == bill::Tax::Added { bill.tax_cents() } else { 0 };
        let off = bill.discount.map_or(0, |(off, _)| off);
        prop_assert_eq!(bill.sum - off + bill.shipping.unwrap_or(0) + added, bill.total);
        prop_assert!(bill.total.abs() < 100_000_000_000);
        let answer: Value = serde_json::from_str(&crate::json(&bill.answer(true))).unwrap();
        let mut sum = 0;
        for item in answer["items"].as_array().unwrap() {
            let milli = (item["qty"].as_f64().unwrap() * 1e3).round() as i64;
            sum += bill::amount(milli, i64::try_from(e4(&item["price"])).unwrap());
        }
        prop_assert_eq!(sum, bill.sum);
        let bases: i64 = bill.shares.iter().map(|share| share.base).sum();
        prop_assert!(bill.shares.is_empty() || bases == bill.net);
    }

    #[test]
    fn a_seed_means_one_paper_and_it_fits_the_context(seed: u64, world in both_worlds()) {
        let document = draw(&mut Rng::new(seed), world);
        prop_assert_eq!(&document, &draw(&mut Rng::new(seed), world));
        let tokens = tokens_at_most(&document.prompt) + tokens_at_most(&document.answer);
        prop_assert!(tokens <= TOKENS_MAX, "{tokens}");
    }

    #[test]
    fn a_letter_has_nothing_to_find(seed: u64, world in both_worlds()) {
        let document = letter(&mut Rng::new(seed), world);
        let nothing = r#"{"vendor":null,"number":null,"date":null,"currency":null,"total":null,"items":[]}"#;
        prop_assert_eq!(document.answer, nothing);
        prop_assert!(!document.prompt.is_empty());
    }
}

#[test]
fn no_vendor_and_no_good_is_in_both_worlds() {
    let names = |world| -> HashSet<String> {
        let mut rng = Rng::new(11);
        (0..8_000)
            .flat_map(|_| {
                let bill = Bill::draw(&mut rng, world, 4);
                let texts: Vec<String> = bill.rows.into_iter().map(|row| row.text).collect();
                [texts, vec![bill.vendor]].concat()
            })
            .map(|name| name.to_uppercase())
            .collect()
    };
    let (training, unseen) = (names(World::Training), names(World::Unseen));
    let both: Vec<_> = training.intersection(&unseen).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn papers_are_as_wide_as_the_world() {
    let documents: Vec<Document> = (0..3_000)
        .map(|seed| invoice(&mut Rng::new(seed), World::Training))
        .collect();
    let says = |what: &str| {
        documents
            .iter()
            .filter(|document| document.prompt.contains(what))
            .count()
    };
    for what in [
        "Rechnungsnr.",
        "Facture",
        "Factuur",
        "Factura",
        "Fattura",
        "IBAN",
        "€",
        "£",
        "AUD",
        "DKK",
        "kr",
        "zł",
        "¥",
        "O'",
        " & ",
        "\"",
        "MwSt",
        "TVA",
        "BTW",
        "+--",
        "----",
        "Stk.",
        "kg",
    ] {
        assert!(says(what) >= 5, "{what} in {}", says(what));
    }
    let one_digit_days = documents.iter().filter(|document| {
        let answer: Value = serde_json::from_str(&document.answer).unwrap();
        let day = answer["date"].as_str().unwrap_or("-");
        let (year, rest) = day.split_once('-').unwrap();
        let plain = rest.trim_start_matches('0').replace("-0", ".");
        let (month, day) = plain.split_once('.').unwrap_or(("", ""));
        !day.is_empty() && document.prompt.contains(&format!("{day}.{month}.{year}"))
    });
    assert!(one_digit_days.count() >= 5);
    let without = documents
        .iter()
        .filter(|document| document.answer.contains(r#""number":null"#));
    assert!(without.count() > 20);
    let credits = documents
        .iter()
        .filter(|document| document.answer.contains(r#""credit":true"#));
    assert!(credits.count() > 60);
    let long = documents
        .iter()
        .filter(|document| document.answer.matches(r#"{"text""#).count() > 14);
    assert!(long.count() > 15);
}
