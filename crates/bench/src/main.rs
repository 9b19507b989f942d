//! `dovetail-bench`: measurements, each printed as one JSON object. `cargo xtask bench` puts them
//! beside a peer's and shows them as a table.

mod agent;
mod audit;
mod clerk;
mod delayed;
mod divisions;
mod engine;
mod game;
mod gguf;
mod ledger;
mod pages;
mod peer_model;
mod percentile;
mod quality;
mod shape;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use dovetail_engine::{Model, speed, tiny};
use dovetail_models::{ImportOptions, import};

use crate::shape::Shape;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a model of random weights, and one of the same sizes for llama.cpp.
    Make {
        /// The sizes.
        #[arg(long)]
        shape: Shape,
        /// Where to.
        #[arg(long)]
        out: PathBuf,
        /// Where to write llama.cpp's, in Q8_0.
        #[arg(long)]
        peer: Option<PathBuf>,
    },
    /// Import a GGUF file, and write it in Q8_0 for llama.cpp.
    Import {
        /// The GGUF file.
        #[arg(long)]
        checkpoint: PathBuf,
        /// The model's name.
        #[arg(long)]
        name: String,
        /// Where to.
        #[arg(long)]
        out: PathBuf,
        /// Where to write llama.cpp's, in Q8_0.
        #[arg(long)]
        peer: PathBuf,
    },
    /// Compare an imported model with its checkpoint in floating point.
    Quality {
        /// The checkpoint's folder, or the GGUF file.
        #[arg(long)]
        checkpoint: PathBuf,
        /// The model file that was imported from it.
        #[arg(long)]
        model: PathBuf,
        /// A text; may be given several times.
        #[arg(long = "text")]
        texts: Vec<PathBuf>,
        /// Tokens of each text.
        #[arg(long, default_value_t = 2048)]
        tokens: usize,
    },
    /// Generate with a model, replay that, and say how fast. A process of its own, so that its peak of
    /// memory is the engine's.
    Engine {
        /// The model file.
        #[arg(long)]
        model: PathBuf,
        /// Threads; 0: one per core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        #[command(flatten)]
        work: engine::Work,
    },
    /// Generate a worker's batch and replay it as an audit does, whole and at the floor.
    Audit {
        /// The model file.
        #[arg(long)]
        model: PathBuf,
        /// Threads; 0: one per core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        #[command(flatten)]
        work: audit::Work,
    },
    /// Have a model answer invoices and stock sheets that clerk was not trained on, and count what is
    /// right, field by field.
    Clerk {
        /// The model file.
        #[arg(long)]
        model: PathBuf,
        /// Threads; 0: one per core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// What is asked of it.
        #[command(flatten)]
        work: clerk::Work,
    },
    /// Ask a pool, and have the engine alone give the same answers: how long an agent waits for tokens.
    Agent {
        /// The pool's model file.
        #[arg(long)]
        model: PathBuf,
        /// Threads of the engine alone, as many as the worker's; 0: one per core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// What is asked.
        #[command(flatten)]
        work: agent::Work,
    },
    /// Have many answers wait at a pool: what memory each stream takes.
    IdleStreams {
        /// The pool's model file.
        #[arg(long)]
        model: PathBuf,
        /// How many, and where.
        #[command(flatten)]
        streams: agent::idle::Streams,
    },
    /// Commit shares of many connections, and COPY the same rows.
    Ledger(ledger::Load),
    /// What questions take at a full ledger. Writes a line of JSON.
    Pages(pages::Pages),
    /// Divide a block over many accounts. Writes a line of JSON.
    Divisions(divisions::Divisions),
    /// What lies bring and cost, as expected and as played.
    AuditGame(AuditGame),
}

/// How the game is played.
#[derive(Debug, Args)]
struct AuditGame {
    /// What computing costs, as a part of what it pays.
    #[arg(long, default_value_t = 0.8)]
    cost: f64,
    /// Claims of a worker's life.
    #[arg(long, default_value_t = 1_000)]
    claims: u32,
    /// Workers per strategy.
    #[arg(long, default_value_t = 200)]
    workers: u32,
    /// Of the game.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

impl AuditGame {
    fn rules(&self) -> game::Rules {
        game::Rules {
            cost: self.cost,
            claims: self.claims,
            workers: self.workers,
            seed: self.seed,
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Make { shape, out, peer } => {
            let parts = tiny::parts(shape.architecture(), shape.name(), 1)?;
            parts.write(&out)?;
            if let Some(peer) = peer {
                peer_model::random(&shape.architecture(), &peer)?;
            }
        }
        Command::Import {
            checkpoint,
            name,
            out,
            peer,
        } => import_for_both(&checkpoint, name, &out, &peer)?,
        Command::Quality {
            checkpoint,
            model,
            texts,
            tokens,
        } => {
            let measured = quality::measure(&checkpoint, &load(&model)?, &texts, tokens)?;
            print(&measured)?;
        }
        Command::Engine {
            model,
            threads,
            work,
        } => {
            let model = speed::endless(load(&model)?);
            let measured = engine::measure(&model, threads, &work)?;
            print(&measured)?;
        }
        Command::Audit {
            model,
            threads,
            work,
        } => {
            let measured = audit::measure(&Arc::new(load(&model)?), threads, &work)?;
            print(&measured)?;
        }
        Command::Clerk {
            model,
            threads,
            work,
        } => println!(
            "{}",
            clerk::measure(&Arc::new(load(&model)?), threads, &work)?
        ),
        Command::Agent {
            model,
            threads,
            work,
        } => {
            print(&agent::measure(&Arc::new(load(&model)?), threads, &work)?)?;
        }
        Command::IdleStreams { model, streams } => {
            print(&agent::idle::measure(&load(&model)?, &streams)?)?;
        }
        Command::Ledger(load) => print_measured(ledger::measure(&load))?,
        Command::Pages(pages) => print_measured(pages::measure(&pages))?,
        Command::Divisions(divisions) => print_measured(divisions::measure(&divisions))?,
        Command::AuditGame(game) => {
            let report = game::report(game.rules());
            match game.json {
                true => println!("{}", serde_json::to_string(&report)?),
                false => print!("{report}"),
            }
        }
    }
    Ok(())
}

fn print_measured<T: serde::Serialize>(
    measuring: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<()> {
    print(&tokio::runtime::Runtime::new()?.block_on(measuring)?)
}

/// The checkpoint as a file of the engine's, and as one of its peer's.
fn import_for_both(checkpoint: &Path, name: String, out: &Path, peer: &Path) -> anyhow::Result<()> {
    let options = ImportOptions {
        name: Some(name),
        ..ImportOptions::default()
    };
    let imported = import(checkpoint, &options, &mut |_| ())?;
    imported.parts.write(out)?;
    peer_model::requantised(checkpoint, peer)
}

fn load(path: &Path) -> anyhow::Result<Model> {
    Model::load(path).with_context(|| format!("cannot load {}", path.display()))
}

/// Writes a line of JSON.
fn print(measured: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}
