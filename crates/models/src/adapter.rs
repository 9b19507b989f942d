//! A LoRA adapter in PEFT's layout, `adapter_config.json` and `adapter_model.safetensors`. What it adds to a matrix is
//! (alpha / r) B A, or (alpha / sqrt r) B A for rsLoRA. Any setting beyond that, which would change the result, is refused by its key.
//!
//! Rules: PEFT's `LoraConfig`, and `get_delta_weight` of its linear layers.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::ImportError;
use crate::folder::Folder;
use crate::import::ImportOptions;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// It names the modules, one by one where somebody wanted that.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Adapters in use have 4 to 256. Bounds what is held beside a matrix.
const RANK_MAX: usize = 1024;
/// PEFT puts it before each name.
const PREFIX: &str = "base_model.model.";
/// Files of the tokenizer that people save beside an adapter.
const TEXT_FILES: [&str; 2] = ["tokenizer.json", "chat_template.jinja"];
/// Settings that say where the adapter came from, how it was trained, or which matrices have tensors in the file.
const HARMLESS: [&str; 15] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    // A size without effect unless `use_qalora` is set.
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "eva_config",
];
/// Beginnings of a training that leave the checkpoint as it is. Others, such as `pissa`, train beside a changed one.
const INIT: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What was merged into a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// The inner width of the adapter's matrices.
    pub rank: usize,
    /// What their product is multiplied by.
    pub scale: f64,
    /// How many matrices of the checkpoint were changed.
    pub matrices: usize,
}

/// The tensors of a matrix.
#[derive(Debug, Default)]
struct Pair {
    /// `[rank, columns]`.
    a: Option<String>,
    /// `[rows, rank]`.
    b: Option<String>,
}

/// An adapter whose files were checked; its matrices are read as they are needed.
#[derive(Debug)]
pub(crate) struct Adapter {
    file: Checkpoint,
    rank: usize,
    scale: f64,
    /// By the name of the checkpoint's matrix.
    pairs: BTreeMap<String, Pair>,
    /// What the model's owner should know.
    notes: Vec<String>,
}

/// Merges the adapter in a folder into a checkpoint. A model that is another one needs another name.
pub(crate) fn merge_into(
    checkpoint: &mut Checkpoint,
    dir: &Path,
    options: &ImportOptions,
    notes: &mut Vec<String>,
) -> Result<AdapterReport, ImportError> {
    if options.name.is_none() {
        return Err(refused(
            "makes another model of the checkpoint; give it a name with --name",
        ));
    }
    let mut adapter = Adapter::open(dir)?;
    let report = adapter.report();
    notes.append(&mut adapter.notes);
    checkpoint.adapt(adapter)?;
    Ok(report)
}

impl Adapter {
    pub(crate) fn open(dir: &Path) -> Result<Self, ImportError> {
        let folder = Folder::new(dir)?;
        if folder.gguf().is_some() {
            return Err(refused("is a file; PEFT's layout is a folder"));
        }
        let config: Value = serde_json::from_slice(&folder.read(CONFIG, CONFIG_BYTES_MAX)?)
            .map_err(|error| ImportError::corrupt(CONFIG, error))?;
        let Value::Object(config) = config else {
            return Err(ImportError::corrupt(CONFIG, "it is no object"));
        };
        let (rank, scale) = settings(&config)?;
        if !folder.has(WEIGHTS) && folder.has("adapter_model.bin") {
            return Err(ImportError::OtherForm {
                found: "adapter_model.bin",
                wanted: WEIGHTS,
                remedy: "load it once with PEFT and save it with save_pretrained",
            });
        }
        let file = Checkpoint::single(&folder, WEIGHTS)?;
        let pairs = pairs(&file)?;
        let beside = TEXT_FILES.iter().filter(|file| folder.has(file));
        let notes = beside.map(|file| {
            format!("{file} lies beside the adapter and was not used; the checkpoint's own was")
        });
        let notes = notes.collect();
        Ok(Self {
            file,
            rank,
            scale,
            pairs,
            notes,
        })
    }

    pub(crate) fn report(&self) -> AdapterReport {
        AdapterReport {
            rank: self.rank,
            scale: self.scale,
            matrices: self.pairs.len(),
        }
    }

    /// Holds the adapter against the checkpoint's matrices. `shape` says what one has, if it is there.
    pub(crate) fn check<'a>(
        &self,
        shape: impl Fn(&str) -> Option<&'a [usize]>,
    ) -> Result<(), ImportError> {
        for (name, pair) in &self.pairs {
            let Some([rows, columns]) =
                shape(name).and_then(|shape| <[usize; 2]>::try_from(shape).ok())
            else {
                return Err(refused(format!(
                    "changes {name}, which is no matrix of the checkpoint"
                )));
            };
            let (a, b) = pair.names(name)?;
            let expected = [(a, [self.rank, columns]), (b, [rows, self.rank])];
            let expected = expected.map(|(name, shape)| (name.to_owned(), shape.to_vec()));
            self.file.check(&BTreeMap::from(expected), |_| true)?;
        }
        Ok(())
    }

    /// Adds what the adapter adds to rows of a matrix, from the row `first` on. The product is summed in 64 bits
    /// and in one order, and rounded once: the same on every machine.
    pub(crate) fn add(
        &self,
        name: &str,
        first: usize,
        columns: usize,
        values: &mut [f32],
    ) -> Result<(), ImportError> {
        let Some(pair) = self.pairs.get(name) else {
            return Ok(());
        };
        let (a, b) = pair.names(name)?;
        let a = self.file.tensor(a)?;
        let b = self.file.rows(b, first, values.len() / columns.max(1))?;
        values
            .par_chunks_mut(columns)
            .zip(b.par_chunks(self.rank))
            .for_each(|(row, b)| merge(row, &a, b, self.scale));
        Ok(())
    }
}

impl Pair {
    fn names(&self, matrix: &str) -> Result<(&str, &str), ImportError> {
        match (&self.a, &self.b) {
            (Some(a), Some(b)) => Ok((a, b)),
            _ => Err(refused(format!(
                "has only one of the two tensors for {matrix}"
            ))),
        }
    }
}

/// Adds `scale * b A` to one row: `a` is `[rank, columns]`, `b` a row of B.
fn merge(row: &mut [f32], a: &[f32], b: &[f32], scale: f64) {
    let mut sums = vec![0_f64; row.len()];
    for (b, a) in b.iter().zip(a.chunks_exact(row.len())) {
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum += f64::from(*b) * f64::from(*a);
        }
    }
    for (weight, sum) in row.iter_mut().zip(sums) {
        *weight = (f64::from(*weight) + scale * sum) as f32;
    }
}

fn refused(reason: impl Into<String>) -> ImportError {
    ImportError::Adapter(reason.into())
}

/// Rank and scale; everything else says nothing, or is refused.
fn settings(config: &Map<String, Value>) -> Result<(usize, f64), ImportError> {
    for (key, value) in config {
        let told = || {
            refused(format!(
                "has {key} = {value} in {CONFIG}, which is not supported"
            ))
        };
        let fine = match key.as_str() {
            "r" | "lora_alpha" | "use_rslora" => true,
            "peft_type" => value == "LORA",
            "bias" => value == "none" || value.is_null(),
            "init_lora_weights" => {
                let name = value.as_str();
                name.map_or(value.is_boolean() || value.is_null(), |name| {
                    INIT.contains(&name)
                })
            }
            key => HARMLESS.contains(&key) || says_nothing(value),
        };
        if !fine {
            return Err(told());
        }
    }
    if config.get("peft_type").is_none() {
        return Err(refused(format!("names no peft_type in {CONFIG}")));
    }
    let rank = config.get("r").and_then(Value::as_u64);
    let rank = rank.and_then(|rank| usize::try_from(rank).ok());
    let rank = rank.filter(|rank| (1..=RANK_MAX).contains(rank));
    let rank = rank.ok_or_else(|| refused(format!("has no r from 1 to {RANK_MAX} in {CONFIG}")))?;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64);
    let alpha = alpha.filter(|alpha| alpha.is_finite());
    let alpha = alpha.ok_or_else(|| refused(format!("has no lora_alpha in {CONFIG}")))?;
    let root = match config.get("use_rslora") {
        Some(Value::Bool(true)) => true,
        None | Some(Value::Bool(false) | Value::Null) => false,
        Some(other) => return Err(refused(format!("has use_rslora = {other} in {CONFIG}"))),
    };
    let width = rank as f64;
    Ok((rank, alpha / if root { width.sqrt() } else { width }))
}

/// Whether a setting that is not known is not set.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The tensors by the matrices that they change.
fn pairs(file: &Checkpoint) -> Result<BTreeMap<String, Pair>, ImportError> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for name in file.names() {
        let inner = name.strip_prefix(PREFIX).unwrap_or_default();
        let (module, is_a) = match (
            inner.strip_suffix(".lora_A.weight"),
            inner.strip_suffix(".lora_B.weight"),
        ) {
            (Some(module), _) => (module, true),
            (None, Some(module)) => (module, false),
            // Embeddings, magnitudes of DoRA, biases, whole modules.
            (None, None) => {
                return Err(refused(format!(
                    "has the tensor {name}, which is neither lora_A nor lora_B of a matrix"
                )));
            }
        };
        let pair = pairs.entry(format!("{module}.weight")).or_default();
        let place = if is_a { &mut pair.a } else { &mut pair.b };
        *place = Some(name.to_owned());
    }
    if pairs.is_empty() {
        return Err(refused("has no tensors"));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// What `tests/golden/adapter.py` printed.
    #[derive(Deserialize)]
    struct Golden {
        rank: usize,
        columns: usize,
        scale: f64,
        base: String,
        a: String,
        b: String,
        /// In 64 bits, rounded once.
        merged: String,
        /// As PEFT computes it, in 32 bits throughout.
        peft: String,
    }

    /// The shapes are those of SmolLM2-135M-Instruct, whose weights are not here.
    #[test]
    fn the_adapter_that_comes_with_dovetail_fits_its_base_and_is_small() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clerk/model/clerk-135m");
        let adapter = Adapter::open(&dir).unwrap();
        let report = adapter.report();
        assert_eq!((report.rank, report.matrices), (8, 7 * 30));
        let shape = |name: &str| {
            let shape: &[usize] = match name.rsplit('.').nth(1)? {
                "q_proj" | "o_proj" => &[576, 576],
                "k_proj" | "v_proj" => &[192, 576],
                "gate_proj" | "up_proj" => &[1_536, 576],
                "down_proj" => &[576, 1_536],
                _ => return None,
            };
            Some(shape)
        };
        adapter.check(shape).unwrap();
        let bytes = std::fs::metadata(dir.join(WEIGHTS)).unwrap().len();
        assert!(bytes <= 5_000_000, "{bytes}");
    }

    fn floats(hex: &str) -> Vec<f32> {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let word = |at: usize| [digits(at), digits(at + 2), digits(at + 4), digits(at + 6)];
        (0..hex.len())
            .step_by(8)
            .map(|at| f32::from_le_bytes(word(at)))
            .collect()
    }

    #[test]
    fn merged_rows_are_those_of_numpy() {
        let golden: Vec<Golden> =
            serde_json::from_str(include_str!("../tests/golden/adapter.json")).unwrap();
        assert_eq!(golden.len(), 3);
        for golden in golden {
            let (a, b) = (floats(&golden.a), floats(&golden.b));
            let mut ours = floats(&golden.base);
            for (row, b) in ours
                .chunks_exact_mut(golden.columns)
                .zip(b.chunks_exact(golden.rank))
            {
                merge(row, &a, b, golden.scale);
            }
            assert_eq!(ours, floats(&golden.merged));
            let largest = ours.iter().fold(0_f32, |most, value| most.max(value.abs()));
            let pairs = ours.iter().zip(floats(&golden.peft));
            let apart = pairs.fold(0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart <= 2e-7 * largest, "{apart} of {largest}");
        }
    }

    fn config(changes: &Value) -> Map<String, Value> {
        let mut config = json!({
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_dora": false,
            "target_modules": ["q_proj"], "rank_pattern": {}, "modules_to_save": null,
            "init_lora_weights": true, "lora_dropout": 0.05, "base_model_name_or_path": "a/b",
            "megatron_core": "megatron.core", "qalora_group_size": 16,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        match config {
            Value::Object(config) => config,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_scale_is_alpha_over_the_rank_or_its_root() {
        assert_eq!(settings(&config(&json!({}))).unwrap(), (8, 2.0));
        let rs = json!({ "use_rslora": true, "r": 16, "lora_alpha": 32.0 });
        assert_eq!(settings(&config(&rs)).unwrap(), (16, 8.0));
        let gaussian = json!({ "init_lora_weights": "gaussian", "something_new": null });
        assert!(settings(&config(&gaussian)).is_ok());
    }

    #[test]
    fn what_would_change_the_result_is_refused_by_its_key() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("bias", json!("lora_only")),
            ("lora_bias", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({ "q_proj": 4 })),
            ("alpha_pattern", json!({ "q_proj": 4 })),
            ("fan_in_fan_out", json!(true)),
            ("init_lora_weights", json!("pissa")),
            ("loftq_config", json!({ "loftq_bits": 4 })),
            ("layer_replication", json!([[0, 2]])),
            ("trainable_token_indices", json!([1])),
            ("target_parameters", json!(["mlp.experts"])),
            ("use_rslora", json!("yes")),
            ("r", json!(0)),
            ("r", json!(1_000_000)),
            ("lora_alpha", json!("16")),
            ("something_new", json!(3)),
        ] {
            let error = settings(&config(&json!({ (key): value }))).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }
}
