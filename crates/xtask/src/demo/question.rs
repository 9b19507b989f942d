//! The invoice that the demonstration sends, and what is to be said about its answer.

use dovetail_clerk::check::{Field, check};
use dovetail_clerk::{Document, marks, sample_invoice};
use dovetail_units::time::since_epoch;
use serde_json::{Value, json};

/// What the agent sends, and what the worker's model makes of it.
pub(super) struct Question {
    pub(super) seed: u64,
    /// The invoice and its truth.
    pub(super) document: Document,
    pub(super) answer: String,
}

impl Question {
    pub(super) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| {
            // A seed that people can type again.
            since_epoch().as_millis() as u64 % 1_000_000
        });
        Self {
            seed,
            document: sample_invoice(seed),
            answer: String::new(),
        }
    }

    /// How many of the answer's fields are right, of how many, and which are not.
    pub(super) fn marked(&self) -> (usize, usize, Vec<&'static str>) {
        let marks = marks(&self.document, &self.answer);
        let wrong: Vec<&str> = marks.iter().filter(|m| !m.right).map(|m| m.field).collect();
        (marks.len() - wrong.len(), marks.len(), wrong)
    }

    /// The answer's JSON, or its text where it is none.
    pub(super) fn answer(&self) -> Value {
        serde_json::from_str(&self.answer).unwrap_or_else(|_| json!(self.answer))
    }

    /// The fields that are doubtful without knowing the truth; nothing where the answer is no JSON.
    pub(super) fn doubtful(&self) -> Option<Vec<String>> {
        let report = check(&self.document.prompt, &self.answer);
        let doubtful = report.fields.into_iter().filter(Field::is_doubtful);
        report
            .valid
            .then(|| doubtful.map(|field| field.name).collect())
    }

    pub(super) fn told(&self) -> String {
        let doubts = match self.doubtful().as_deref() {
            None => "not of the schema, all of it is doubtful".to_owned(),
            Some([]) => "nothing in it is doubtful".to_owned(),
            Some(doubtful) => format!("doubtful are {}", doubtful.join(" and ")),
        };
        let (right, of, wrong) = self.marked();
        match &wrong[..] {
            [] => format!("compares it with the invoice: {doubts}; all {of} fields are right"),
            wrong => format!(
                "compares it with the invoice: {doubts}; {right} of {of} fields are right, not {}; it should be {}",
                wrong.join(" and "),
                self.document.answer
            ),
        }
    }
}
