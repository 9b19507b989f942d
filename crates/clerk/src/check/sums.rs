//! Whether the numbers of an answer go together.

use std::fmt;

use serde::Serialize;

use super::facts::{Facts, thousandths};
use super::figures::{ONE, plain};
use super::{Doubt, Field, Json};

/// Ten-thousandths in a cent.
const CENT: i128 = ONE as i128 / 100;
/// A tax is less than this part of what it is taken of.
const TAX_PERCENT_MAX: i64 = 30;

/// How the amounts of an invoice go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sum {
    /// The items with discount, carriage and tax make the total, within what rounding each row may cost.
    Agrees,
    /// They do not.
    Differs,
    /// There is no total, or no items with their prices.
    Unknown,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agrees => "The sums agree.",
            Self::Differs => "The items with discount, carriage and tax do not make the total.",
            Self::Unknown => "There are no sums to compare.",
        })
    }
}

/// Judges the numbers, and adds what is to be doubted to their fields.
pub(super) fn judge(facts: &Facts, answer: &Json, fields: &mut [Field]) -> Sum {
    judge_order(answer, fields);
    let sum = compare(answer);
    if sum == Sum::Differs {
        doubt(fields, Doubt::SumDiffers, |key| {
            matches!(
                key,
                "total" | "tax" | "discount" | "shipping" | "qty" | "price"
            )
        });
    }
    if maybe_without_tax(facts, answer) {
        doubt(fields, Doubt::MaybeWithoutTax, |key| key == "total");
    }
    sum
}

fn doubt(fields: &mut [Field], doubt: Doubt, concerns: impl Fn(&str) -> bool) {
    for field in fields {
        if concerns(field.name.rsplit('.').next().unwrap_or("")) && !field.doubts.contains(&doubt) {
            field.doubts.push(doubt);
        }
    }
}

/// A stock sheet's order fills what is missing to the target.
fn judge_order(answer: &Json, fields: &mut [Field]) {
    let number = |key: &str| match answer.get(key) {
        Some(Json::Number(number)) => number.as_i64(),
        _ => None,
    };
    if let (Some(on_hand), Some(target), Some(order)) =
        (number("on_hand"), number("target"), number("order"))
        && target
            .checked_sub(on_hand)
            .is_none_or(|missing| missing.max(0) != order)
    {
        doubt(fields, Doubt::Arithmetic, |key| {
            matches!(key, "on_hand" | "target" | "order")
        });
    }
}

fn amount(answer: &Json, key: &str) -> Option<i64> {
    plain(answer.get(key)?.text()?)
}

fn compare(answer: &Json) -> Sum {
    let (Some(total), Some(Json::List(items))) = (amount(answer, "total"), answer.get("items"))
    else {
        return Sum::Unknown;
    };
    if items.is_empty() {
        return Sum::Unknown;
    }
    let Some(sum) = items_sum(items) else {
        return Sum::Unknown;
    };
    let part = |key| i128::from(amount(answer, key).unwrap_or(0).abs());
    let total = i128::from(total).abs();
    let sum = sum.abs() - part("discount") + part("shipping");
    // Each row is rounded to a cent, the tax and the discount too.
    let rounding = CENT * (i128::try_from(items.len()).unwrap_or(0) + 1);
    // Prices hold the tax, or it comes upon them.
    let agrees = [sum, sum + part("tax")]
        .iter()
        .any(|sum| (sum - total).abs() <= rounding);
    if agrees { Sum::Agrees } else { Sum::Differs }
}

/// What the items cost in ten-thousandths.
fn items_sum(items: &[Json]) -> Option<i128> {
    items.iter().try_fold(0_i128, |sum, item| {
        let Some(Json::Number(qty)) = item.get("qty") else {
            return None;
        };
        let price = i128::from(amount(item, "price")?);
        let product = i128::from(thousandths(qty)?).checked_mul(price)?;
        sum.checked_add(product / 1_000)
    })
}

/// Whether the text has a larger amount that is the total and another amount, as a total with its tax is. A tax
/// that the answer names has been seen, and so has a discount.
fn maybe_without_tax(facts: &Facts, answer: &Json) -> bool {
    let Some(total) = amount(answer, "total").map(i64::abs) else {
        return false;
    };
    if total == 0 || answer.get("tax").is_some() {
        return false;
    }
    let is_price = |amount_e4: i64| match answer.get("items") {
        Some(Json::List(items)) => items
            .iter()
            .any(|item| amount(item, "price") == Some(amount_e4)),
        _ => false,
    };
    let is_named = |amount_e4: i64| {
        ["discount", "shipping"]
            .iter()
            .any(|key| amount(answer, key) == Some(amount_e4))
    };
    let amounts = &facts.figures.amounts;
    amounts.iter().any(|&tax| {
        let small = tax > 0 && tax <= total / 100 * TAX_PERCENT_MAX;
        let larger = total.saturating_add(tax);
        small && !is_named(tax) && !is_price(larger) && amounts.contains(&larger)
    })
}
