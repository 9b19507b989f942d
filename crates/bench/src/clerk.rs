//! How often the small model `clerk` is right: greedy answers of the exact engine to documents that it
//! was not trained on, marked field by field.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use dovetail_clerk::{Document, Kind, World, documents, fields, marks};
use dovetail_commitment::{SamplingParams, StopSequences};
use dovetail_engine::{Generation, Model, Request, Runtime, step};
use serde::Serialize;

/// Documents that are read side by side: enough to fill the kernels.
const TOGETHER_MAX: usize = 32;
/// Longer than any right answer.
const ANSWER_TOKENS_MAX: u32 = 320;

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: String,
    model_id: String,
    seed: u64,
    documents: usize,
    /// Answers that are the expected one byte for byte.
    whole_right: usize,
    /// Invoices' fields first, then the stock sheets'.
    fields: Vec<FieldReport>,
    /// The share of the field that is right least often, in percent.
    lowest_percent: f64,
    tokens_generated: usize,
    seconds: f64,
}

/// A field over all documents that have it.
#[derive(Debug, Serialize)]
struct FieldReport {
    kind: Kind,
    field: &'static str,
    right: usize,
    of: usize,
    percent: f64,
}

/// A document being answered.
struct Answering<'a> {
    document: &'a Document,
    generation: Generation,
}

/// Has the model answer `count` documents of that seed.
///
/// # Errors
/// If the model cannot take a document in, or there is none.
pub(crate) fn evaluate(
    model: &Arc<Model>,
    threads: usize,
    seed: u64,
    count: usize,
) -> anyhow::Result<Report> {
    ensure!(count > 0, "at least one document has to be answered");
    let runtime = Runtime::new(threads)?;
    let documents: Vec<Document> = documents(seed, World::Unseen, count).collect();
    let mut tallies: Vec<FieldReport> = [Kind::Invoice, Kind::Stock]
        .into_iter()
        .flat_map(|kind| fields(kind).iter().map(move |field| (kind, field)))
        .map(|(kind, field)| FieldReport {
            kind,
            field,
            right: 0,
            of: 0,
            percent: 100.0,
        })
        .collect();
    let (mut whole_right, mut tokens_generated) = (0, 0);
    let begun = Instant::now();
    answer_all(&runtime, model, &documents, |document, tokens| {
        let answer = model.decode(tokens);
        whole_right += usize::from(answer == document.answer.as_bytes());
        tokens_generated += tokens.len();
        count_marks(&mut tallies, document, &String::from_utf8_lossy(&answer));
    })?;
    let seen = tallies.iter().filter(|tally| tally.of > 0);
    let lowest_percent = seen.map(|tally| tally.percent).fold(100.0, f64::min);
    Ok(Report {
        model: model.name().to_owned(),
        model_id: model.id().to_string(),
        seed,
        documents: documents.len(),
        whole_right,
        fields: tallies,
        lowest_percent,
        tokens_generated,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Answers all documents, several at a time, and gives each answer's tokens to `take`.
fn answer_all(
    runtime: &Runtime,
    model: &Arc<Model>,
    documents: &[Document],
    mut take: impl FnMut(&Document, &[u32]),
) -> anyhow::Result<()> {
    let mut waiting = documents.iter();
    let mut open: Vec<Answering<'_>> = Vec::new();
    loop {
        while open.len() < TOGETHER_MAX
            && let Some(document) = waiting.next()
        {
            open.push(begin(model, document)?);
        }
        if open.is_empty() {
            return Ok(());
        }
        let mut generations: Vec<&mut Generation> =
            open.iter_mut().map(|one| &mut one.generation).collect();
        step(runtime, &mut generations);
        for over in open.extract_if(.., |one| one.generation.is_finished()) {
            take(over.document, &over.generation.finish().tokens);
        }
    }
}

fn begin<'a>(model: &Arc<Model>, document: &'a Document) -> anyhow::Result<Answering<'a>> {
    let request = Request {
        prompt_tokens: model.encode(document.prompt.as_bytes())?,
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: ANSWER_TOKENS_MAX,
        },
        seed: [0; 32],
        stop: StopSequences::default(),
        constraint: None,
    };
    Ok(Answering {
        document,
        generation: Generation::new(model, request)?,
    })
}

fn count_marks(tallies: &mut [FieldReport], document: &Document, answer: &str) {
    let marks = marks(document, answer);
    let counted = tallies.iter_mut().filter(|t| t.kind == document.kind);
    for (tally, mark) in counted.zip(marks) {
        tally.of += 1;
        tally.right += usize::from(mark.right);
        let percent = 100.0 * tally.right as f64 / tally.of as f64;
        tally.percent = percent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::tiny;

    #[test]
    fn every_document_is_answered_and_marked_once_also_by_a_model_that_knows_nothing() {
        let model = Arc::new(Model::from_bytes(&tiny::generate(1)).unwrap());
        let documents: Vec<Document> = documents(5, World::Unseen, 4).collect();
        let runtime = Runtime::new(1).unwrap();
        let mut answered = Vec::new();
        answer_all(&runtime, &model, &documents, |document, _| {
            answered.push(document.prompt.clone());
        })
        .unwrap();
        answered.sort();
        let mut asked: Vec<String> = documents.into_iter().map(|d| d.prompt).collect();
        asked.sort();
        assert_eq!(answered, asked);
        assert!(evaluate(&model, 1, 5, 0).is_err());
    }

    #[test]
    fn fields_are_counted_by_kind() {
        let mut tallies = vec![FieldReport {
            kind: Kind::Stock,
            field: "item",
            right: 0,
            of: 0,
            percent: 100.0,
        }];
        let stock = dovetail_clerk::sample_stock(1);
        count_marks(&mut tallies, &stock, &stock.answer);
        count_marks(&mut tallies, &stock, "{}");
        let invoice = dovetail_clerk::sample_invoice(1);
        count_marks(&mut tallies, &invoice, &invoice.answer);
        assert_eq!((tallies[0].right, tallies[0].of), (1, 2));
        assert!((tallies[0].percent - 50.0).abs() < 1e-9);
    }
}
