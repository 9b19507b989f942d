//! `dovetail-worker model try-shape`: what an import costs on random weights of a real model's shape. The
//! checkpoint is made, imported, measured and thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dovetail_commitment::{SamplingParams, StopSequences};
use dovetail_console::print_note;
use dovetail_engine::speed::endless;
use dovetail_engine::{Model, Request, Runtime, run as generate};
use dovetail_models::random::{self, Sizes};
use dovetail_models::{ImportOptions, Sequence, import, quality};

use super::model_quality;

/// Shapes of models that people run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// 135 million weights, head tied to the embedding.
    #[value(name = "smollm-135m")]
    SmolLm,
    /// 1.1 billion weights.
    #[value(name = "tinyllama-1.1b")]
    TinyLlama,
}

impl Shape {
    fn sizes(self) -> Sizes {
        match self {
            Self::SmolLm => Sizes::SMOLLM_135M,
            Self::TinyLlama => Sizes::TINYLLAMA_1B,
        }
    }
}

/// What to make and how to measure it. Needs room on the disk for three bytes per weight.
#[derive(Debug, Args)]
pub(crate) struct ShapeArguments {
    /// The shape.
    shape: Shape,
    /// The weights' seed; the same seed makes the same checkpoint on every machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tokens to measure on: the model's own, drawn from its distribution.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..2048))]
    tokens: u32,
    /// Do not spread outliers: shows what that brings.
    #[arg(long)]
    plain: bool,
    /// Threads of the engine; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Leave checkpoint and model in this folder, which is made.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Makes, imports, measures, prints.
pub(crate) fn run(arguments: &ShapeArguments) -> anyhow::Result<()> {
    match &arguments.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            measure(arguments, folder)
        }
        None => measure(arguments, tempfile::tempdir()?.path()),
    }
}

fn measure(arguments: &ShapeArguments, folder: &Path) -> anyhow::Result<()> {
    let sizes = arguments.shape.sizes();
    print_note("making the checkpoint");
    random::write(folder, &sizes, arguments.seed)
        .with_context(|| format!("cannot write the checkpoint into {}", folder.display()))?;
    print_note("importing it");
    let options = ImportOptions {
        name: Some("random".to_owned()),
        spread_outliers: !arguments.plain,
        ..ImportOptions::default()
    };
    let file = folder.join("dovetail.safetensors");
    // What was imported is as large as the model: it goes before that is loaded.
    import(folder, &options, &mut |_| {})?.parts.write(&file)?;
    let model = endless(Model::load(&file)?);
    let runtime = Runtime::new(arguments.threads)?;
    print_note(format_args!("running both on {} tokens", arguments.tokens));
    let text = Sequence {
        tokens: own_words(&runtime, &model, arguments)?,
        counted_from: 1,
    };
    let measured = quality(folder, &runtime, &model, &[text])?;
    model_quality::show(&measured, &model, arguments.json)
}

/// What the model itself says, drawn from its own distribution: a text on which its perplexity means something.
fn own_words(
    runtime: &Runtime,
    model: &Arc<Model>,
    arguments: &ShapeArguments,
) -> anyhow::Result<Vec<u32>> {
    const BEGIN: u32 = 1;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&arguments.seed.to_le_bytes());
    let request = Request {
        prompt_tokens: vec![BEGIN],
        sampling: SamplingParams {
            temperature_milli: 1000,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: arguments.tokens,
        },
        seed,
        stop: StopSequences::default(),
        constraint: None,
    };
    let said = generate(runtime, model, request)?.tokens;
    Ok([vec![BEGIN], said].concat())
}
