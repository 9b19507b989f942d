//! `dovetail-clerk generate` writes documents with their answers, one JSON object a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use dovetail_clerk::{Document, World, documents};

/// Documents for the small model clerk.
#[derive(Parser)]
#[command(name = "dovetail-clerk", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write documents and their answers, one JSON object a line.
    Generate {
        /// How many.
        #[arg(long)]
        count: usize,
        /// The same seed gives the same bytes.
        #[arg(long)]
        seed: u64,
        /// Where vendors, goods and layouts come from.
        #[arg(long, value_enum)]
        world: WorldName,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
        /// Blocks of training invoices instead, with the pieces of answers that follow from them.
        #[arg(long)]
        fragments: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum WorldName {
    Training,
    Unseen,
}

impl From<WorldName> for World {
    fn from(name: WorldName) -> Self {
        match name {
            WorldName::Training => Self::Training,
            WorldName::Unseen => Self::Unseen,
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Generate {
            count,
            seed,
            world,
            out,
            fragments,
        } => {
            if fragments {
                anyhow::ensure!(
                    matches!(world, WorldName::Training),
                    "fragments are for training only"
                );
                write_lines(&out, dovetail_clerk::fragments(seed, count))
            } else {
                write_lines(&out, documents(seed, world.into(), count))
            }
        }
    }
}

fn write_lines(out: &Path, documents: impl Iterator<Item = Document>) -> anyhow::Result<()> {
    let file = File::create(out).with_context(|| format!("create {}", out.display()))?;
    let mut file = BufWriter::new(file);
    for document in documents {
        serde_json::to_writer(&mut file, &document)?;
        file.write_all(b"\n")?;
    }
    file.flush()
        .with_context(|| format!("write {}", out.display()))
}
