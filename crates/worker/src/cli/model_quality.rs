//! `dovetail-worker model quality`: a model file beside the checkpoint that it was imported from.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use dovetail_console::{OutputError, print_line, print_note};
use dovetail_engine::{Model, Range, Runtime};
use dovetail_models::reference::Reference;
use dovetail_models::{Quality, Sequence, quality_of, saturation_notes};
use serde::Deserialize;

/// More would take hours on the reference, and gains nothing.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// What to measure, and on what.
#[derive(Debug, Args)]
pub(crate) struct QualityArguments {
    /// The checkpoint's folder, or the GGUF file.
    dir: PathBuf,
    /// The model file that was imported from it.
    file: PathBuf,
    /// The LoRA adapter that was merged into it.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// A text that the model was not trained on; or, where its name ends in `.jsonl`, a line of JSON per
    /// conversation with `prompt` and `answer`, of which the answer's tokens and the one that ends it count.
    #[arg(long)]
    text: PathBuf,
    /// A text is cut into pieces of this many tokens, each taken from its beginning; a conversation is cut off.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Threads of the engine; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &QualityArguments) -> anyhow::Result<()> {
    let file = &arguments.file;
    let model = Model::load(file).with_context(|| format!("cannot load {}", file.display()))?;
    let window = arguments.window.min(model.context_tokens());
    if window < 2 {
        bail!("a window has at least 2 tokens");
    }
    let text = read_text(arguments)?;
    let jsonl = arguments.text.extension().is_some_and(|e| e == "jsonl");
    let mut sequences = if jsonl {
        conversations(&model, &text)?
    } else {
        pieces(&model.encode(text.as_bytes())?, window)
    };
    for sequence in &mut sequences {
        sequence.tokens.truncate(window);
    }
    let runtime = Runtime::new(arguments.threads)?;
    let reference = Reference::adapted(&arguments.dir, arguments.adapter.as_deref())?;
    let mut tenths = 0;
    let measured = quality_of(
        &reference,
        &runtime,
        &model,
        &sequences,
        &mut |done, total| {
            if 10 * done / total > tenths {
                tenths = 10 * done / total;
                print_note(format_args!("{done} of {total} steps"));
            }
        },
    )?;
    show(&measured, &model, arguments.json)
}

/// Prints what was measured.
pub(crate) fn show(measured: &Quality, model: &Model, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let mut json = serde_json::to_value(measured)?;
        json["perplexity_ratio"] = measured.perplexity_ratio().into();
        json["model"] = model.id().to_string().into();
        print_line(json)?;
    } else {
        print(measured)?;
    }
    // On standard error, so that it is seen beside JSON too.
    for note in saturation_notes(&measured.ranges) {
        print_note(note);
    }
    Ok(())
}

/// The largest of a kind of values, and how many were cut off.
pub(crate) fn range_line(range: &Range) -> String {
    format!(
        "peak of the {:<18}{:>9.2}  saturated {} of {}",
        range.stored.name(),
        f64::from(range.peak_q16) / 65_536.0,
        range.saturated,
        range.values
    )
}

/// A prompt and what the model should say.
#[derive(Deserialize)]
struct Conversation {
    prompt: String,
    answer: String,
}

fn conversations(model: &Model, text: &str) -> anyhow::Result<Vec<Sequence>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let read = |(index, line)| {
        let Conversation { prompt, answer } = serde_json::from_str(line)
            .with_context(|| format!("line {} is no conversation", index + 1))?;
        let mut tokens = model.encode(prompt.as_bytes())?;
        let counted_from = tokens.len();
        tokens.extend(model.encode_more(answer.as_bytes())?);
        tokens.extend(model.manifest().end_tokens.first());
        Ok(Sequence {
            tokens,
            counted_from,
        })
    };
    lines.enumerate().map(read).collect()
}

fn pieces(tokens: &[u32], window: usize) -> Vec<Sequence> {
    let piece = |tokens: &[u32]| Sequence {
        tokens: tokens.to_vec(),
        counted_from: 1,
    };
    tokens.chunks(window).map(piece).collect()
}

fn read_text(arguments: &QualityArguments) -> anyhow::Result<String> {
    let path = &arguments.text;
    let about = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(about)?.len();
    if bytes > TEXT_BYTES_MAX {
        bail!("{} has more than {TEXT_BYTES_MAX} bytes", path.display());
    }
    std::fs::read_to_string(path).with_context(about)
}

fn print(quality: &Quality) -> Result<(), OutputError> {
    let line = |name: &str, value: String| print_line(format_args!("{name:<19}{value}"));
    line("positions", quality.positions.to_string())?;
    let agreement = 100.0 * quality.top1_agreement;
    line("top-1 agreement", format!("{agreement:.2} %"))?;
    line("correlation", format!("{:.6}", quality.correlation))?;
    line("divergence", format!("{:.6} nats", quality.divergence_nats))?;
    let perplexity = quality.perplexity_reference;
    line("perplexity", format!("{perplexity:.4} (reference)"))?;
    let perplexity = quality.perplexity_engine;
    line("", format!("{perplexity:.4} (engine)"))?;
    line(
        "perplexity ratio",
        format!("{:.5}", quality.perplexity_ratio()),
    )?;
    for range in &quality.ranges {
        print_line(range_line(range))?;
    }
    Ok(())
}
