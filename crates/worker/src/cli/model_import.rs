//! `dovetail-worker model import`: a checkpoint or a GGUF file becomes a model file, with what that cost.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use dovetail_console::{print_line, print_note, print_text};
use dovetail_models::{AdapterReport, ImportOptions, ImportReport, MatrixError, Progress, import};

use super::model_quality::range_line;
use super::whole_file::{sha256, write_whole};

/// What to import, and where to.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The folder with `config.json`, the safetensors and `tokenizer.json`; or a GGUF file.
    #[arg(value_name = "DIR|FILE.gguf")]
    pub(crate) source: PathBuf,
    /// The file to write. In a folder that is there, a file with the model's id as its name.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// A name for people, 1 to 64 bytes. Where not given, the last part of `_name_or_path` in `config.json`, or
    /// `general.name` of a GGUF file.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Positions that the model can take in. Where not given, what it was made for, but at most 8192.
    #[arg(long)]
    pub(crate) context: Option<usize>,
    /// A LoRA adapter in PEFT's layout, merged into the weights. The model needs a name then.
    #[arg(long, value_name = "DIR", requires = "name")]
    pub(crate) adapter: Option<PathBuf>,
}

/// Imports, writes the file, prints the report. Returns the file's path.
pub(crate) fn run(arguments: &ImportArguments) -> anyhow::Result<PathBuf> {
    let options = ImportOptions {
        name: arguments.name.clone(),
        context_tokens: arguments.context,
        adapter: arguments.adapter.clone(),
        ..ImportOptions::default()
    };
    let imported = import(&arguments.source, &options, &mut Meter::new().callback())
        .with_context(|| format!("cannot import {}", arguments.source.display()))?;
    let mut file = arguments.out.clone();
    if file.is_dir() {
        file.push(format!("{}.safetensors", imported.parts.id()?));
    }
    write_whole(&file, |path| Ok(imported.parts.write(path)?))?;
    print_text(table(&imported.report).trim_end())?;
    if let Some(dir) = &arguments.adapter {
        let weights = dir.join("adapter_model.safetensors");
        print_line(format_args!(
            "adapter's weights: SHA-256 {}",
            sha256(&weights)?
        ))?;
    }
    Ok(file)
}

/// Shows how far the import is: on a terminal in one line, elsewhere in ten.
struct Meter {
    terminal: bool,
    tenths: usize,
}

impl Meter {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            tenths: 0,
        }
    }

    fn callback(mut self) -> impl FnMut(Progress<'_>) {
        move |progress| {
            let tenths = 10 * progress.done / progress.total.max(1);
            let (done, total) = (progress.done, progress.total);
            if self.terminal {
                let end = if done == total { "\n" } else { "" };
                let mut stderr = std::io::stderr().lock();
                // A meter that cannot be shown stops nothing.
                let _ = write!(stderr, "\r{done} of {total}  {:<60}{end}", progress.tensor);
                let _ = stderr.flush();
            } else if tenths > self.tenths {
                self.tenths = tenths;
                print_note(format_args!("{done} of {total} matrices"));
            }
        }
    }
}

/// The quantisation errors: a line per layer, a column per matrix.
fn table(report: &ImportReport) -> String {
    let mut text = format!(
        "{} weights in {} bytes; lost by quantising, in % of each matrix's norm:\n",
        report.parameters, report.bytes
    );
    let outside = report.matrices.iter().filter(|m| m.layer.is_none());
    for MatrixError { matrix, error, .. } in outside {
        text += &format!("{matrix:<13}{:.2}\n", 100.0 * error);
    }
    let layers: Vec<&[MatrixError]> = report
        .matrices
        .chunk_by(|a, b| a.layer == b.layer)
        .filter(|layer| layer[0].layer.is_some())
        .collect();
    if let Some(first) = layers.first() {
        text += "layer";
        for matrix in *first {
            text += &format!("{:>10}", matrix.matrix.trim_end_matches("_proj"));
        }
        text += "\n";
    }
    for layer in layers {
        text += &format!("{:>5}", layer[0].layer.unwrap_or(0));
        for matrix in layer {
            text += &format!("{:>10.2}", 100.0 * matrix.error);
        }
        text += "\n";
    }
    text += &format!("residual stream / 2^{}", report.residual_shift);
    text += &match (
        report.gate_shifts.iter().min(),
        report.gate_shifts.iter().max(),
    ) {
        (Some(least), Some(most)) if least == most => format!(", gate products / 2^{least}\n"),
        (Some(least), Some(most)) => format!(", gate products / 2^{least} to 2^{most}\n"),
        _ => "\n".to_owned(),
    };
    if let Some(AdapterReport {
        rank,
        scale,
        matrices,
    }) = &report.adapter
    {
        text += &format!("adapter of rank {rank} merged into {matrices} matrices, times {scale}\n");
    }
    for range in &report.ranges {
        text += &range_line(range);
        text += "\n";
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::{Range, Stored};

    #[test]
    fn the_report_has_a_line_per_layer() {
        let matrix = |layer, matrix, error| MatrixError {
            layer,
            matrix,
            error,
        };
        let report = ImportReport {
            parameters: 10,
            bytes: 12,
            matrices: vec![
                matrix(None, "embed_tokens", 0.01),
                matrix(Some(0), "q_proj", 0.02),
                matrix(Some(0), "k_proj", 0.0301),
                matrix(Some(1), "q_proj", 0.0),
                matrix(Some(1), "k_proj", 0.5),
                matrix(None, "lm_head", 0.004),
            ],
            residual_shift: 4,
            gate_shifts: vec![0, 2],
            adapter: Some(AdapterReport {
                rank: 8,
                scale: 2.0,
                matrices: 14,
            }),
            ranges: Stored::ALL.map(|stored| Range {
                stored,
                peak_q16: 3 << 15,
                saturated: 0,
                values: 9,
            }),
            notes: vec!["the head is used".to_owned()],
        };
        let text = table(&report);
        let is_range = |line: &&str| line.starts_with("peak of the ");
        assert_eq!(text.lines().filter(is_range).count(), 9);
        let lines: Vec<&str> = text
            .lines()
            .skip(1)
            .filter(|line| !is_range(line))
            .collect();
        assert_eq!(
            lines,
            [
                "embed_tokens 1.00",
                "lm_head      0.40",
                "layer         q         k",
                "    0      2.00      3.01",
                "    1      0.00     50.00",
                "residual stream / 2^4, gate products / 2^0 to 2^2",
                "adapter of rank 8 merged into 14 matrices, times 2",
                "note: the head is used",
            ]
        );
    }
}
