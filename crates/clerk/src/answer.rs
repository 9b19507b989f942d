//! What an answer looks like: one shape for every model that reads invoices and stock sheets here, written down
//! in `schema.json` too. Keys have a fixed order. What every invoice has is always there, `null` if the text
//! does not say it; what few have is there only if the text says it. A text that is no invoice is
//! answered with [`Invoice::default`]: nothing was found.

use serde::Serialize;

/// The JSON schema of every answer, as `dovetail ask --schema` takes it.
pub const SCHEMA: &str = include_str!("../schema.json");

/// What an invoice or a credit note says. Amounts are texts with a point and two decimals, signed as they
/// are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// Who sends it, as it is printed.
    pub vendor: Option<String>,
    /// The invoice's number, as it is printed.
    pub number: Option<String>,
    /// The day of issue, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// What is to be paid, taxes included.
    pub total: Option<String>,
    /// All taxes together, if they are printed as an amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax: Option<String>,
    /// What is taken off the rows' sum, without a sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount: Option<String>,
    /// What is put upon the rows' sum for carriage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipping: Option<String>,
    /// `true` in a credit note; an invoice has no such key.
    #[serde(skip_serializing_if = "is_false")]
    pub credit: bool,
    /// The rows, in order.
    pub items: Vec<Item>,
}

/// A row of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is, as it is printed in the row's first line.
    pub text: String,
    /// How many, up to three decimals; 1 if no number is printed.
    pub qty: serde_json::Number,
    /// The price of one, with a point and two to four decimals.
    pub price: String,
}

/// What a stock sheet asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextOrder {
    /// What is in stock, as it is printed.
    pub item: String,
    /// What the history's last row leaves.
    pub on_hand: u32,
    /// The level to return to.
    pub target: u32,
    /// What is missing to the target; 0 at or above it.
    pub order: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}
