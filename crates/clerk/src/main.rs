//! `dovetail-clerk`: documents for the small model, and what can be doubted about an answer.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use dovetail_clerk::answer::SCHEMA;
use dovetail_clerk::check::check;
use dovetail_clerk::{Document, World, documents, fragments, wide_documents};
use dovetail_console::{print_line, print_text};

/// The longest text and answer that are looked at: far more than any model reads.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// The exit code where something is doubtful; what goes wrong ends with 1.
const DOUBTFUL: u8 = 3;

/// Documents for the small model clerk, and a look at its answers.
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
        /// Papers of many countries and texts that are no invoice, for the next model, instead of what the shipped one reads.
        #[arg(long)]
        wide: bool,
        /// Blocks of the shipped model's training invoices instead, with the pieces of answers that follow from them.
        #[arg(long, conflicts_with = "wide")]
        fragments: bool,
    },
    /// Say what is doubtful about a model's answer to a text. Ends with code 3 if anything is.
    Check {
        /// The text that was asked about.
        #[arg(long)]
        text: PathBuf,
        /// The answer; `-` reads standard input.
        #[arg(long, default_value = "-")]
        answer: PathBuf,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of the answers.
    Schema,
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

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Generate {
            count,
            seed,
            world,
            out,
            wide,
            fragments: in_blocks,
        } => {
            ensure!(
                !in_blocks || matches!(world, WorldName::Training),
                "fragments are for training only"
            );
            if wide {
                write_lines(&out, wide_documents(seed, world.into(), count))?;
            } else if in_blocks {
                write_lines(&out, fragments(seed, count))?;
            } else {
                write_lines(&out, documents(seed, world.into(), count))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { text, answer, json } => look(&text, &answer, json),
        Command::Schema => {
            print!("{SCHEMA}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn look(text: &Path, answer: &Path, json: bool) -> anyhow::Result<ExitCode> {
    ensure!(
        text != Path::new("-") || answer != Path::new("-"),
        "text and answer cannot both come from standard input: name a file with --text"
    );
    let report = check(&read(text)?, &read(answer)?);
    if json {
        let mut object = serde_json::to_value(&report)?;
        object["doubtful"] = report.is_doubtful().into();
        print_line(object)?;
    } else {
        print_text(&report)?;
    }
    Ok(if report.is_doubtful() {
        ExitCode::from(DOUBTFUL)
    } else {
        ExitCode::SUCCESS
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?)
    };
    let mut text = Vec::new();
    from.take(TEXT_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    ensure!(
        text.len() as u64 <= TEXT_BYTES_MAX,
        "{} has more than {TEXT_BYTES_MAX} bytes, more than any model here reads",
        path.display()
    );
    Ok(String::from_utf8_lossy(&text).into_owned())
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
