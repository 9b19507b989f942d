//! `dovetail-worker model`: making and looking at model files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use dovetail_engine::{Model, TokenizerKind, tiny};

use crate::fetch_cmd::{self, FetchArguments};

/// Make, fetch and inspect model files.
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
        /// Where to write it.
        #[arg(long)]
        out: PathBuf,
    },
    Fetch(FetchArguments),
    /// Say what a model file holds.
    Inspect {
        /// The file.
        file: PathBuf,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: ModelArguments) -> anyhow::Result<()> {
    match arguments.command {
        ModelCommand::MakeTiny { seed, out } => {
            write_whole(&out, &tiny::generate(seed))?;
            inspect(&out)
        }
        ModelCommand::Fetch(arguments) => {
            let (file, model) = fetch_cmd::fetch(arguments).await?;
            println!("file        {}", file.display());
            show(&model);
            Ok(())
        }
        ModelCommand::Inspect { file } => inspect(&file),
    }
}

fn inspect(file: &Path) -> anyhow::Result<()> {
    let model = Model::load(file).with_context(|| format!("cannot load {}", file.display()))?;
    show(&model);
    Ok(())
}

fn show(model: &Model) {
    let arch = &model.manifest().architecture;
    println!("id          {}", model.id());
    println!("name        {}", model.name());
    println!("parameters  {}", arch.parameters());
    println!(
        "shape       {} layers, width {}, feed-forward {}, {} heads ({} for keys and values)",
        arch.layers, arch.dim, arch.hidden_dim, arch.heads, arch.kv_heads
    );
    println!(
        "vocabulary  {} ({})",
        arch.vocabulary,
        match model.manifest().tokenizer {
            TokenizerKind::Bytes => "bytes",
            TokenizerKind::HuggingFace => "tokenizer.json",
        }
    );
    let head = if arch.tied_head { "tied" } else { "own" };
    println!("head        {head}");
    println!("context     {} tokens", arch.context_tokens);
    println!("engine      version {}", model.manifest().engine_version);
}

/// Writes the file under its name only once it is whole.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_made_model_can_be_inspected_and_leaves_nothing_else_behind() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny.safetensors");
        for seed in [1, 2] {
            let command = ModelCommand::MakeTiny {
                seed,
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
        let command = ModelCommand::Inspect { file };
        let error = run(ModelArguments { command }).await.unwrap_err();
        assert!(format!("{error:#}").contains("junk: not a Dovetail model"));
    }
}
