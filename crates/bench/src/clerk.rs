//! How often the small model `clerk` is right: greedy answers of the exact engine to documents that it
//! was not trained on, marked field by field.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use dovetail_clerk::outside::{Paper, Tally, papers};
use dovetail_clerk::{Document, Kind, World, documents, fields, marks, wide_documents};
use dovetail_commitment::{SamplingParams, StopSequences};
use dovetail_engine::{Generation, Model, Request, Runtime, step};
use serde::Serialize;

/// Documents that are read side by side: enough to fill the kernels.
const TOGETHER_MAX: usize = 32;
/// Longer than any right answer to the shipped model's documents.
const ANSWER_TOKENS_MAX: u32 = 320;
/// Longer than any right answer to a paper of many rows.
const WIDE_ANSWER_TOKENS_MAX: u32 = 900;

/// What is asked of the model.
#[derive(Debug, Args)]
pub(crate) struct Work {
    /// Documents to answer.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// The documents' seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Documents of the wide generator.
    #[arg(long)]
    wide: bool,
    /// A folder with papers of other people (`NAME.txt` and their truth in `NAME.json`) instead of documents.
    #[arg(long, conflicts_with = "wide")]
    outside: Option<PathBuf>,
}

/// Has the model answer, and gives the report as JSON.
///
/// # Errors
/// If the model cannot take the documents in, there is none, or papers cannot be read.
pub(crate) fn measure(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<String> {
    Ok(match &work.outside {
        Some(folder) => {
            serde_json::to_string(&evaluate_outside(model, threads, &papers(folder)?)?)?
        }
        None => serde_json::to_string(&evaluate(model, threads, work)?)?,
    })
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    model_id: String,
    seed: u64,
    documents: usize,
    /// Those that the model's context has no room for; none of their fields is right.
    too_long: usize,
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

/// Has the model answer documents of a generator.
fn evaluate(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<Report> {
    let Work {
        count, seed, wide, ..
    } = *work;
    ensure!(count > 0, "at least one document has to be answered");
    let runtime = Runtime::new(threads)?;
    let documents: Vec<Document> = if wide {
        wide_documents(seed, World::Unseen, count).collect()
    } else {
        documents(seed, World::Unseen, count).collect()
    };
    let tokens_max = if wide {
        WIDE_ANSWER_TOKENS_MAX
    } else {
        ANSWER_TOKENS_MAX
    };
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
    let (mut whole_right, mut tokens_generated, mut too_long) = (0, 0, 0);
    let begun = Instant::now();
    answer_all(
        &runtime,
        model,
        &documents,
        tokens_max,
        |document, tokens| {
            too_long += usize::from(tokens.is_none());
            let tokens = tokens.unwrap_or_default();
            let answer = model.decode(tokens);
            whole_right += usize::from(answer == document.answer.as_bytes());
            tokens_generated += tokens.len();
            count_marks(&mut tallies, document, &String::from_utf8_lossy(&answer));
        },
    )?;
    let seen = tallies.iter().filter(|tally| tally.of > 0);
    let lowest_percent = seen.map(|tally| tally.percent).fold(100.0, f64::min);
    Ok(Report {
        model: model.name().to_owned(),
        model_id: model.id().to_string(),
        seed,
        documents: documents.len(),
        too_long,
        whole_right,
        fields: tallies,
        lowest_percent,
        tokens_generated,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// What came out on papers that other people wrote.
#[derive(Debug, Serialize)]
struct OutsideReport {
    model: String,
    model_id: String,
    /// Papers that the model's context has no room for.
    too_long: usize,
    #[serde(flatten)]
    tally: Tally,
}

/// Has the model answer papers of other people, and looks which wrong fields the check marks.
fn evaluate_outside(
    model: &Arc<Model>,
    threads: usize,
    papers: &[Paper],
) -> anyhow::Result<OutsideReport> {
    let runtime = Runtime::new(threads)?;
    let documents: Vec<Document> = papers
        .iter()
        .map(|paper| Document {
            kind: Kind::Invoice,
            prompt: paper.text.clone(),
            // Which paper an answer is to; the truth has another form.
            answer: paper.name.clone(),
        })
        .collect();
    let (mut tally, mut too_long) = (Tally::default(), 0);
    let tokens_max = WIDE_ANSWER_TOKENS_MAX;
    answer_all(
        &runtime,
        model,
        &documents,
        tokens_max,
        |document, tokens| {
            too_long += usize::from(tokens.is_none());
            let answer = tokens.map(|tokens| model.decode(tokens));
            let answer = answer.as_deref().map(String::from_utf8_lossy);
            let asked = papers.iter().filter(|paper| paper.name == document.answer);
            for paper in asked {
                tally.count(paper, answer.as_deref());
            }
        },
    )?;
    Ok(OutsideReport {
        model: model.name().to_owned(),
        model_id: model.id().to_string(),
        too_long,
        tally,
    })
}

/// Answers all documents, several at a time, and gives each answer's tokens to `take`; none for a document that
/// leaves no room for an answer in the model's context.
fn answer_all(
    runtime: &Runtime,
    model: &Arc<Model>,
    documents: &[Document],
    tokens_max: u32,
    mut take: impl FnMut(&Document, Option<&[u32]>),
) -> anyhow::Result<()> {
    let mut waiting = documents.iter();
    let mut open: Vec<Answering<'_>> = Vec::new();
    loop {
        while open.len() < TOGETHER_MAX
            && let Some(document) = waiting.next()
        {
            match begin(model, document, tokens_max)? {
                Some(answering) => open.push(answering),
                None => take(document, None),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let mut generations: Vec<&mut Generation> =
            open.iter_mut().map(|one| &mut one.generation).collect();
        step(runtime, &mut generations);
        for over in open.extract_if(.., |one| one.generation.is_finished()) {
            take(over.document, Some(&over.generation.finish().tokens));
        }
    }
}

fn begin<'a>(
    model: &Arc<Model>,
    document: &'a Document,
    tokens_max: u32,
) -> anyhow::Result<Option<Answering<'a>>> {
    let prompt_tokens = model.encode(document.prompt.as_bytes())?;
    let context = model.context_tokens();
    if prompt_tokens.len() >= context {
        return Ok(None);
    }
    let request = Request {
        prompt_tokens,
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: tokens_max,
        },
        seed: [0; 32],
        stop: StopSequences::default(),
        constraint: None,
    };
    Ok(Some(Answering {
        document,
        generation: Generation::new(model, request)?,
    }))
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
        answer_all(&runtime, &model, &documents, 320, |document, _| {
            answered.push(document.prompt.clone());
        })
        .unwrap();
        answered.sort();
        let mut asked: Vec<String> = documents.into_iter().map(|d| d.prompt).collect();
        asked.sort();
        assert_eq!(answered, asked);
        let nothing = Work {
            count: 0,
            seed: 5,
            wide: false,
            outside: None,
        };
        assert!(evaluate(&model, 1, &nothing).is_err());
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
