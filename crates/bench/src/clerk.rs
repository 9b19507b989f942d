//! How often the small model `clerk` is right: greedy answers of the exact engine to documents that it
//! was not trained on, marked field by field.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use dovetail_chat::{Chat, Message, render};
use dovetail_clerk::answer::SCHEMA;
use dovetail_clerk::outside::{Paper, Tally, papers};
use dovetail_clerk::{Document, Kind, World, documents, fields, marks, wide_documents};
use dovetail_commitment::{Constraint, Form, SamplingParams, StopSequences};
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
    /// Bind the answers to clerk's schema, as `dovetail ask --schema` does.
    #[arg(long)]
    schema: bool,
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
            let asking = Asking::new(model, WIDE_ANSWER_TOKENS_MAX, work.schema)?;
            serde_json::to_string(&evaluate_outside(&asking, threads, &papers(folder)?)?)?
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

/// How documents are put to a model.
struct Asking<'a> {
    model: &'a Arc<Model>,
    tokens_max: u32,
    constraint: Option<Constraint>,
}

impl<'a> Asking<'a> {
    fn new(model: &'a Arc<Model>, tokens_max: u32, schema: bool) -> anyhow::Result<Self> {
        let schema = schema.then(|| Constraint::new(Form::JsonSchema(SCHEMA.to_owned())));
        Ok(Self {
            model,
            tokens_max,
            constraint: schema.transpose()?,
        })
    }

    /// The document as the model takes it in: as a user's message, if it is a chat model.
    fn prompt_tokens(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let template = &self.model.manifest().chat_template;
        if template.is_empty() {
            return Ok(self.model.encode(text.as_bytes())?);
        }
        let message = Message::new("user", text);
        let chat = Chat {
            messages: &[message],
            add_generation_prompt: true,
            ..Chat::default()
        };
        let rendered = render(template, &chat)?;
        Ok(self.model.encode_rendered(rendered.as_bytes())?)
    }

    /// An answer that begins; none if the context has no room for one.
    fn begin<'d>(&self, document: &'d Document) -> anyhow::Result<Option<Answering<'d>>> {
        let prompt_tokens = self.prompt_tokens(&document.prompt)?;
        if prompt_tokens.len() >= self.model.context_tokens() {
            return Ok(None);
        }
        let request = Request {
            prompt_tokens,
            sampling: SamplingParams {
                temperature_milli: 0,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: self.tokens_max,
            },
            seed: [0; 32],
            stop: StopSequences::default(),
            constraint: self.constraint.clone(),
        };
        Ok(Some(Answering {
            document,
            generation: Generation::new(self.model, request)?,
        }))
    }
}

/// A document being answered.
struct Answering<'a> {
    document: &'a Document,
    generation: Generation,
}

/// Has the model answer documents of a generator.
fn evaluate(model: &Arc<Model>, threads: usize, work: &Work) -> anyhow::Result<Report> {
    let Work {
        count,
        seed,
        wide,
        schema,
        ..
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
    let asking = Asking::new(model, tokens_max, schema)?;
    answer_all(&runtime, &asking, &documents, |document, tokens| {
        too_long += usize::from(tokens.is_none());
        let tokens = tokens.unwrap_or_default();
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
    asking: &Asking<'_>,
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
    let model = asking.model;
    answer_all(&runtime, asking, &documents, |document, tokens| {
        too_long += usize::from(tokens.is_none());
        let answer = tokens.map(|tokens| model.decode(tokens));
        let answer = answer.as_deref().map(String::from_utf8_lossy);
        let asked = papers.iter().filter(|paper| paper.name == document.answer);
        for paper in asked {
            tally.count(paper, answer.as_deref());
        }
    })?;
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
    asking: &Asking<'_>,
    documents: &[Document],
    mut take: impl FnMut(&Document, Option<&[u32]>),
) -> anyhow::Result<()> {
    let mut waiting = documents.iter();
    let mut open: Vec<Answering<'_>> = Vec::new();
    loop {
        while open.len() < TOGETHER_MAX
            && let Some(document) = waiting.next()
        {
            match asking.begin(document)? {
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
        let asking = Asking::new(&model, 320, false).unwrap();
        answer_all(&runtime, &asking, &documents, |document, _| {
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
            schema: false,
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
