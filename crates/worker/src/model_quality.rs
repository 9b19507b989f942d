//! `dovetail-worker model quality`: a model file beside the checkpoint that it was imported from.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use dovetail_engine::{Model, Runtime};
use dovetail_models::{Quality, quality};

/// More would take hours on the reference, and gains nothing.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// What to measure, and on what.
#[derive(Debug, Args)]
pub(crate) struct QualityArguments {
    /// The checkpoint's folder.
    dir: PathBuf,
    /// The model file that was imported from it.
    file: PathBuf,
    /// A text that the model was not trained on.
    #[arg(long)]
    text: PathBuf,
    /// Cut the text at these characters into documents, each of which is taken from its beginning. Where not
    /// given, the text is one document.
    #[arg(long)]
    separator: Option<String>,
    /// Documents longer than this many tokens are cut.
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
    let separator = arguments.separator.as_deref().filter(|s| !s.is_empty());
    let documents: Vec<&str> = match separator {
        Some(separator) => text.split(separator).collect(),
        None => vec![&text],
    };
    let mut sequences = Vec::new();
    for document in documents.into_iter().filter(|d| !d.trim().is_empty()) {
        let tokens = model.encode(document.as_bytes())?;
        sequences.extend(tokens.chunks(window).map(<[u32]>::to_vec));
    }
    let runtime = Runtime::new(arguments.threads)?;
    let measured = quality(&arguments.dir, &runtime, &model, &sequences)?;
    if arguments.json {
        let mut json = serde_json::to_value(measured)?;
        json["perplexity_ratio"] = measured.perplexity_ratio().into();
        json["model"] = model.id().to_string().into();
        println!("{json}");
    } else {
        print(&measured);
    }
    Ok(())
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

fn print(quality: &Quality) {
    println!("positions          {}", quality.positions);
    println!("top-1 agreement    {:.2} %", 100.0 * quality.top1_agreement);
    println!("correlation        {:.6}", quality.correlation);
    println!("divergence         {:.6} nats", quality.divergence_nats);
    let perplexity = quality.perplexity_reference;
    println!("perplexity         {perplexity:.4} (reference)");
    let perplexity = quality.perplexity_engine;
    println!("                   {perplexity:.4} (engine)");
    println!("perplexity ratio   {:.5}", quality.perplexity_ratio());
}
