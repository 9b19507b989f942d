//! Marking an answer against the truth, field by field.

use serde_json::Value;

use crate::{Document, Kind};

/// The fields of an invoice's answer. Those of the items are the whole column, so that a missing, doubled
/// or misplaced row makes each of them wrong.
const INVOICE: &[&str] = &[
    "vendor",
    "number",
    "date",
    "currency",
    "total",
    "items.text",
    "items.qty",
    "items.price",
];
/// The fields of a stock sheet's answer.
const STOCK: &[&str] = &["item", "on_hand", "target", "order"];

/// Whether a field of an answer is exactly what the document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The field's name in the answer; `items.` and a key for a column of the rows.
    pub field: &'static str,
    /// Whether it is exact.
    pub right: bool,
}

/// The names of the fields that an answer of this kind is marked in.
#[must_use]
pub fn fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Invoice => INVOICE,
        Kind::Stock => STOCK,
        Kind::Fragment => &[],
    }
}

/// Marks each field of a model's answer to the document. Of a text that is no JSON none is right.
#[must_use]
pub fn marks(document: &Document, answer: &str) -> Vec<Mark> {
    let truth = parse(&document.answer);
    let given = parse(answer);
    fields(document.kind)
        .iter()
        .map(|&field| {
            let expected = column(&truth, field);
            Mark {
                field,
                right: expected.is_some() && expected == column(&given, field),
            }
        })
        .collect()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// The values of a field: one, or one for each row.
fn column<'a>(answer: &'a Value, field: &str) -> Option<Vec<&'a Value>> {
    match field.strip_prefix("items.") {
        None => Some(vec![answer.get(field)?]),
        Some(key) => {
            let rows = answer.get("items")?.as_array()?;
            rows.iter().map(|row| row.get(key)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sample_invoice, sample_stock};

    fn wrong(document: &Document, answer: &str) -> Vec<&'static str> {
        marks(document, answer)
            .into_iter()
            .filter(|mark| !mark.right)
            .map(|mark| mark.field)
            .collect()
    }

    fn invoice() -> Document {
        let answer = r#"{"vendor":"A","number":"1","date":"2025-01-02","currency":"EUR","total":"7.00","items":[{"text":"nut","qty":2,"price":"1.00"},{"text":"saw","qty":1,"price":"5.00"}]}"#;
        Document {
            kind: Kind::Invoice,
            prompt: String::new(),
            answer: answer.to_owned(),
        }
    }

    #[test]
    fn the_truth_is_right_in_every_field() {
        for seed in 0..50 {
            for document in [sample_invoice(seed), sample_stock(seed)] {
                let fields = fields(document.kind);
                assert_eq!(marks(&document, &document.answer).len(), fields.len());
                assert_eq!(wrong(&document, &document.answer), [""; 0]);
            }
        }
    }

    #[test]
    fn only_what_differs_is_wrong() {
        let document = invoice();
        let answer = document.answer.replace(r#""A""#, r#""B""#);
        assert_eq!(wrong(&document, &answer), ["vendor"]);
        let answer = document.answer.replace("saw", "hammer");
        assert_eq!(wrong(&document, &answer), ["items.text"]);
        let answer = document.answer.replace(r#""qty":1"#, r#""qty":"1""#);
        assert_eq!(wrong(&document, &answer), ["items.qty"]);
    }

    #[test]
    fn a_missing_row_makes_every_column_wrong() {
        let document = invoice();
        let (first, _) = document.answer.split_once(r#",{"text":"saw""#).unwrap();
        let answer = format!("{first}]}}");
        assert_eq!(
            wrong(&document, &answer),
            ["items.text", "items.qty", "items.price"]
        );
    }

    #[test]
    fn of_half_an_answer_nothing_is_right() {
        let document = invoice();
        let half = &document.answer[..document.answer.len() - 1];
        assert_eq!(wrong(&document, half), INVOICE);
        assert_eq!(wrong(&document, "null"), INVOICE);
        assert_eq!(wrong(&document, r#"{"items":7}"#), INVOICE);
    }
}
