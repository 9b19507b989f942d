//! What can be doubted about a model's answer without knowing the truth: whether it is of the form, whether what
//! it says stands in the text that was asked about, whether days are days, and whether the sums agree. An answer
//! that passes may still be wrong (a label taken for a name stands in the text too); one that does not
//! pass should not be used unseen.

mod days;
mod facts;
mod figures;
mod json;
mod sums;

use std::fmt;

use serde::Serialize;

pub use json::Json;
pub use sums::Sum;

use crate::schema::{self, Problem};
use facts::Facts;

/// A reason not to believe a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It is not written as the schema asks for.
    Form,
    /// The model found nothing.
    NotFound,
    /// It does not stand in the text, in any form that people write it in.
    NotInTheText,
    /// It is no day of the calendar.
    NotADay,
    /// The items with discount, carriage and tax do not make the total.
    SumDiffers,
    /// The text has a larger amount that is this one with a tax.
    MaybeWithoutTax,
    /// It is not what the other numbers of a stock sheet give.
    Arithmetic,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "not written as it has to be",
            Self::NotFound => "not found",
            Self::NotInTheText => "does not stand in the text",
            Self::NotADay => "is no day",
            Self::SumDiffers => "the sums do not agree",
            Self::MaybeWithoutTax => "the text has this amount with a tax",
            Self::Arithmetic => "is not what the other numbers give",
        })
    }
}

/// A field of an answer, with what is to be doubted about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// `vendor`, or `items[0].price`.
    pub name: String,
    /// As the answer has it.
    pub value: serde_json::Value,
    /// Nothing for a field that passes.
    pub doubts: Vec<Doubt>,
}

impl Field {
    /// Whether it should not be used unseen.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        !self.doubts.is_empty()
    }
}

/// What is to be said about an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether it is JSON of the schema.
    pub valid: bool,
    /// Where it is not, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its fields, in order; none if it is no JSON.
    pub fields: Vec<Field>,
    /// How its amounts go together.
    pub sum: Sum,
}

impl Report {
    /// Whether nothing of it should be used unseen.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        !self.valid || self.fields.iter().any(Field::is_doubtful)
    }

    /// Whether that field should not be used unseen; so is one that the answer lacks. `items` is all of its rows,
    /// and `items.price` that column.
    #[must_use]
    pub fn doubts(&self, name: &str) -> bool {
        let mut of_name = self
            .fields
            .iter()
            .filter(|field| is_of(&field.name, name))
            .peekable();
        of_name.peek().is_none() || of_name.any(Field::is_doubtful)
    }
}

/// Whether `items[3].price` is of `items`, `items.price` and itself.
fn is_of(field: &str, name: &str) -> bool {
    let column = match (field.split_once('['), field.split_once(']')) {
        (Some((list, _)), Some((_, key))) => format!("{list}{key}"),
        _ => field.to_owned(),
    };
    field == name || column == name || column.split('.').next() == Some(name)
}

/// Looks at an answer to a text.
#[must_use]
pub fn check(text: &str, answer: &str) -> Report {
    let answer = match Json::parse(answer.trim()) {
        Ok(answer @ Json::Object(_)) => answer,
        Ok(_) => return no_object("it is JSON, but no object"),
        // Its message may quote the answer; where it stopped is enough.
        Err(error) => {
            return no_object(&format!(
                "it is no JSON from line {}, column {} on",
                error.line(),
                error.column()
            ));
        }
    };
    let problems = schema::problems(&answer);
    let facts = Facts::of(text);
    let mut fields = Vec::new();
    if let Json::Object(pairs) = &answer {
        for (name, value) in pairs {
            look(&facts, name, value, &mut fields);
        }
    }
    for field in &mut fields {
        if problems.iter().any(|problem| problem.path == field.name) {
            field.doubts.insert(0, Doubt::Form);
        }
    }
    let sum = sums::judge(&facts, &answer, &mut fields);
    Report {
        valid: problems.is_empty(),
        problem: problems.first().map(said),
        fields,
        sum,
    }
}

fn no_object(problem: &str) -> Report {
    Report {
        valid: false,
        problem: Some(problem.to_owned()),
        fields: Vec::new(),
        sum: Sum::Unknown,
    }
}

fn said(problem: &Problem) -> String {
    let place = if problem.path.is_empty() {
        "the answer"
    } else {
        &problem.path
    };
    format!("{place} {}", problem.what)
}

/// Adds the field, or the fields of its rows.
fn look(facts: &Facts, name: &str, value: &Json, fields: &mut Vec<Field>) {
    if let Json::List(rows) = value {
        for (index, row) in rows.iter().enumerate() {
            if let Json::Object(pairs) = row {
                for (key, value) in pairs {
                    look(facts, &format!("{name}[{index}].{key}"), value, fields);
                }
            }
        }
        return;
    }
    let key = name.rsplit('.').next().unwrap_or(name);
    fields.push(Field {
        name: name.to_owned(),
        value: plain_value(value),
        doubts: facts.doubt(key, value).into_iter().collect(),
    });
}

fn plain_value(value: &Json) -> serde_json::Value {
    match value {
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => number.clone().into(),
        Json::Text(text) => text.as_str().into(),
        // A field is one value; what is none is shown as nothing, and doubted.
        Json::Null | Json::List(_) | Json::Object(_) => serde_json::Value::Null,
    }
}

impl fmt::Display for Report {
    /// A table for people; one field in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            writeln!(f, "Not of the schema: {problem}.")?;
        }
        let values: Vec<String> = self
            .fields
            .iter()
            .map(|field| field.value.to_string())
            .collect();
        let names = self
            .fields
            .iter()
            .map(|field| field.name.chars().count())
            .max()
            .unwrap_or(0);
        let wide = values
            .iter()
            .map(|value| value.chars().count())
            .max()
            .unwrap_or(0)
            .min(40);
        for (field, value) in self.fields.iter().zip(&values) {
            let doubts: Vec<String> = field.doubts.iter().map(Doubt::to_string).collect();
            let mark = if doubts.is_empty() {
                "ok".to_owned()
            } else {
                format!("DOUBTFUL: {}", doubts.join(", "))
            };
            writeln!(f, "{:<names$}  {value:<wide$}  {mark}", field.name)?;
        }
        write!(f, "{}", self.sum)
    }
}

#[cfg(test)]
mod tests;
