//! From a checkpoint to the parts of a model file: norm gains folded into the weights behind them,
//! outliers spread, rows quantised. docs/models.md says why each step is exact but the rounding.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use dovetail_engine::{Parts, Range, Turn};

use crate::adapter::{AdapterReport, merge_into};
use crate::affine::{Affine, bias_q16, gains_q16, scale_all, scale_columns, two_to_minus};
use crate::balance;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ImportError;
use crate::folder::Folder;
use crate::quantise::{self, Rows};
use crate::rotation::{Rotation, no_turn, turn_columns, turn_of_power, turn_rows};
use crate::shift::{
    GATE_SHIFT_MAX, RESIDUAL_SHIFT_MAX, coarse_embedding, saturation_notes, settle,
};
use crate::text::Text;

/// Embedding and head are taken this many weights at a time.
const CHUNK_WEIGHTS: usize = 4 << 20;
/// What the engine rotates the input of the down projection by.
const MIX_BLOCK: usize = 64;
/// Stands in the manifest. A change of the importer that changes models is a new version.
pub const IMPORT_VERSION: NonZeroU16 = NonZeroU16::MIN.saturating_add(1);

/// How to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// A name for people, 1 to 64 bytes. Where there is none, what `config.json` calls the model.
    pub name: Option<String>,
    /// A LoRA adapter in PEFT's layout that is merged into the weights. The model needs a name then.
    pub adapter: Option<PathBuf>,
    /// Positions; where not given, what the model was made for, but at most 8192.
    pub context_tokens: Option<usize>,
    /// The residual stream is divided by two to this, at most 3: it saturates at 8192, and some models have
    /// larger values. Chosen by what the model does where not given.
    pub residual_shift: Option<u32>,
    /// The same for the products of the feed-forward layers, at most 6: they saturate at 1024.
    pub gate_shift: Option<u32>,
    /// Whether outliers are spread. Off only to measure what that brings.
    pub spread_outliers: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            name: None,
            adapter: None,
            context_tokens: None,
            residual_shift: None,
            gate_shift: None,
            spread_outliers: true,
        }
    }
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The matrix that is done.
    pub tensor: &'a str,
    /// How many are done.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

/// A model ready to be written, and what quantising it cost.
#[derive(Debug)]
pub struct Imported {
    /// The model file's parts.
    pub parts: Parts,
    /// What was lost.
    pub report: ImportReport,
}

/// What quantising cost.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// Weights in matrices.
    pub parameters: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Each matrix, in the order of the file.
    pub matrices: Vec<MatrixError>,
    /// By how many bits the residual stream is lowered.
    pub residual_shift: u32,
    /// By how many bits the products of each feed-forward layer are lowered.
    pub gate_shifts: Vec<u32>,
    /// The adapter that was merged.
    pub adapter: Option<AdapterReport>,
    /// What the model stored while it read the importer's texts.
    pub ranges: [Range; 9],
    /// What the model's owner should know: nothing that was refused, and nothing to be left unsaid.
    pub notes: Vec<String>,
}

/// What quantising a matrix cost.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixError {
    /// Its layer; `None` for the embedding and the head.
    pub layer: Option<usize>,
    /// What it is called within the layer, such as `q_proj`.
    pub matrix: &'static str,
    /// The norm of the difference over the norm of the matrix.
    pub error: f64,
}

/// Imports a folder of Hugging Face's layout (`config.json`, `model.safetensors` or its shards,
/// `tokenizer.json` and what goes with it) or a GGUF file. Takes the memory of the finished model twice, and of one matrix in
/// 32 bits. The same files and options give the same bytes on every machine.
///
/// # Errors
/// [`ImportError`]; nothing that would change the model's output is left out silently.
pub fn import(
    dir: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Imported, ImportError> {
    let folder = Folder::new(dir)?;
    let mut config = Config::read(&folder)?;
    let context = config.context(options.context_tokens)?;
    let name = config.name(options.name.as_deref())?;
    if options.residual_shift.unwrap_or(0) > RESIDUAL_SHIFT_MAX
        || options.gate_shift.unwrap_or(0) > GATE_SHIFT_MAX
    {
        return Err(ImportError::Config("a shift is too large".into()));
    }
    let mut checkpoint = Checkpoint::open(&folder)?;
    check_tensors(&checkpoint, &config)?;
    let mut text = Text::read(&folder, &config)?;
    let mut notes = std::mem::take(&mut text.notes);
    let adapter = match &options.adapter {
        Some(dir) => Some(merge_into(&mut checkpoint, dir, options, &mut notes)?),
        None => None,
    };
    if config.tied_head && has_own_head(&checkpoint, &config)? {
        config.tied_head = false;
        notes.push(OWN_HEAD.to_owned());
    }
    let mut importer = Importer::new(&checkpoint, &config, options, progress)?;
    importer.notes = notes;
    importer.embedding()?;
    for layer in 0..config.layers {
        importer.attention(layer)?;
        importer.feed_forward(layer)?;
    }
    importer.head()?;
    let mut imported = importer.finished(name, context, text, options)?;
    imported.report.adapter = adapter;
    Ok(imported)
}

const OWN_HEAD: &str = "config.json ties the head to the embedding, but the checkpoint has another head; \
    the head is used, as by transformers";

/// Whether a head lies beside the embedding that is to serve as one, and differs from it.
pub(crate) fn has_own_head(checkpoint: &Checkpoint, config: &Config) -> Result<bool, ImportError> {
    if !checkpoint.has(HEAD) {
        return Ok(false);
    }
    let rows_max = (CHUNK_WEIGHTS / config.dim).max(1);
    for first in (0..config.vocabulary).step_by(rows_max) {
        let count = rows_max.min(config.vocabulary - first);
        let rows = |name| checkpoint.rows(name, first, count);
        if rows(HEAD)? != rows(EMBEDDING)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Holds a checkpoint's tensors against its configuration.
pub(crate) fn check_tensors(checkpoint: &Checkpoint, config: &Config) -> Result<(), ImportError> {
    let (dim, hidden) = (config.dim, config.hidden_dim);
    let (query, kv) = (config.query_dim(), config.kv_dim());
    let mut expected = BTreeMap::from([
        (EMBEDDING.to_owned(), vec![config.vocabulary, dim]),
        (FINAL_NORM.to_owned(), vec![dim]),
    ]);
    if !config.tied_head {
        expected.insert(HEAD.to_owned(), vec![config.vocabulary, dim]);
    }
    for layer in 0..config.layers {
        let mut add = |part: &str, shape: &[usize]| {
            expected.insert(tensor_name(layer, part), shape.to_vec());
        };
        add("input_layernorm.weight", &[dim]);
        add("post_attention_layernorm.weight", &[dim]);
        for (part, rows) in [("q", query), ("k", kv), ("v", kv)] {
            add(&format!("self_attn.{part}_proj.weight"), &[rows, dim]);
            if config.attention_bias {
                add(&format!("self_attn.{part}_proj.bias"), &[rows]);
            }
        }
        add("self_attn.o_proj.weight", &[dim, query]);
        add("mlp.gate_proj.weight", &[hidden, dim]);
        add("mlp.up_proj.weight", &[hidden, dim]);
        add("mlp.down_proj.weight", &[dim, hidden]);
    }
    checkpoint.check(&expected, |name| {
        // Tables that older checkpoints carry along, and the embedding a second time.
        name.ends_with(".rotary_emb.inv_freq") || (config.tied_head && name == HEAD)
    })
}

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const FINAL_NORM: &str = "model.norm.weight";
pub(crate) const HEAD: &str = "lm_head.weight";
/// The final norm's gains in a model file, where the head is tied.
const GAINS: &str = "model.norm.gain";

/// The name of a part of a layer.
pub(crate) fn tensor_name(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// An import under way.
struct Importer<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    spread: bool,
    rotation: Rotation,
    /// What a head's values are turned by.
    head_turn: Turn,
    final_gain: Vec<f32>,
    /// Of the embedding's weights at the largest shift.
    embedding_rms: f64,
    tensors: BTreeMap<String, Vec<u8>>,
    matrices: Vec<MatrixError>,
    notes: Vec<String>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl<'a> Importer<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        config: &'a Config,
        options: &ImportOptions,
        progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, ImportError> {
        let final_gain = checkpoint.tensor(FINAL_NORM)?;
        let spread = options.spread_outliers;
        Ok(Self {
            checkpoint,
            config,
            spread,
            rotation: if spread {
                Rotation::new(config.dim)
            } else {
                Rotation::none(config.dim)
            },
            head_turn: if spread {
                Turn::largest(config.head_dim)
            } else {
                no_turn()
            },
            embedding_rms: 0.0,
            final_gain,
            tensors: BTreeMap::new(),
            matrices: Vec::new(),
            notes: Vec::new(),
            progress,
        })
    }

    fn embedding(&mut self) -> Result<(), ImportError> {
        let scale = two_to_minus(RESIDUAL_SHIFT_MAX);
        let rows = self.table(EMBEDDING, |rotation, rows| {
            scale_all(rows, scale);
            rotation.rows(rows);
        })?;
        self.embedding_rms = (rows.total / rows.weights.len().max(1) as f64).sqrt();
        self.put(None, "embed_tokens", EMBEDDING, rows);
        Ok(())
    }

    fn head(&mut self) -> Result<(), ImportError> {
        // The embedding's matrix serves, and the gains stand apart.
        if self.config.tied_head {
            return Ok(());
        }
        let gain = self.final_gain.clone();
        let rows = self.table(HEAD, |rotation, rows| {
            scale_columns(rows, &gain);
            rotation.rows(rows);
        })?;
        self.put(None, "lm_head", HEAD, rows);
        Ok(())
    }

    fn attention(&mut self, layer: usize) -> Result<(), ImportError> {
        let config = self.config;
        let gain = self
            .checkpoint
            .tensor(&tensor_name(layer, "input_layernorm.weight"))?;
        let mut query = self.reader(layer, "self_attn.q_proj", &gain)?;
        let mut key = self.reader(layer, "self_attn.k_proj", &gain)?;
        let mut value = self.reader(layer, "self_attn.v_proj", &gain)?;
        if self.spread {
            balance::pairs(config, &mut query, &mut key);
        }
        turn_columns(&mut value.weights, config.dim, self.head_turn);
        turn_rows(&mut value.bias, self.head_turn);
        for (name, matrix) in [("q_proj", query), ("k_proj", key), ("v_proj", value)] {
            self.finish(layer, "self_attn", name, matrix)?;
        }
        let mut output = self
            .checkpoint
            .tensor(&tensor_name(layer, "self_attn.o_proj.weight"))?;
        turn_rows(&mut output, self.head_turn);
        scale_all(&mut output, two_to_minus(RESIDUAL_SHIFT_MAX));
        self.writer(layer, "self_attn", "o_proj", output, config.query_dim())
    }

    fn feed_forward(&mut self, layer: usize) -> Result<(), ImportError> {
        let config = self.config;
        let gain = tensor_name(layer, "post_attention_layernorm.weight");
        let gain = self.checkpoint.tensor(&gain)?;
        for name in ["gate_proj", "up_proj"] {
            let mut matrix = self.reader(layer, &format!("mlp.{name}"), &gain)?;
            if name == "up_proj" {
                scale_all(&mut matrix.weights, two_to_minus(GATE_SHIFT_MAX));
            }
            self.finish(layer, "mlp", name, matrix)?;
        }
        let mut down = self
            .checkpoint
            .tensor(&tensor_name(layer, "mlp.down_proj.weight"))?;
        if self.spread && config.hidden_dim.is_multiple_of(MIX_BLOCK) {
            turn_rows(&mut down, turn_of_power(MIX_BLOCK));
        }
        // What the up projection is lowered by, raises this one.
        let raised = two_to_minus(RESIDUAL_SHIFT_MAX) / two_to_minus(GATE_SHIFT_MAX);
        scale_all(&mut down, raised);
        self.writer(layer, "mlp", "down_proj", down, config.hidden_dim)
    }

    /// A matrix that reads the normed stream, with its bias where it has one.
    fn reader(&self, layer: usize, part: &str, gain: &[f32]) -> Result<Affine, ImportError> {
        let mut weights = self
            .checkpoint
            .tensor(&tensor_name(layer, &format!("{part}.weight")))?;
        scale_columns(&mut weights, gain);
        self.rotation.rows(&mut weights);
        let bias = if self.config.attention_bias && part.starts_with("self_attn") {
            self.checkpoint
                .tensor(&tensor_name(layer, &format!("{part}.bias")))?
        } else {
            Vec::new()
        };
        Ok(Affine { weights, bias })
    }

    /// Finishes a matrix that reads the stream.
    fn finish(
        &mut self,
        layer: usize,
        group: &str,
        matrix: &'static str,
        affine: Affine,
    ) -> Result<(), ImportError> {
        let name = tensor_name(layer, &format!("{group}.{matrix}.weight"));
        let rows = quantised(&name, &affine.weights, self.config.dim)?;
        if !affine.bias.is_empty() {
            let bias_name = name.replace(".weight", ".bias");
            let bias = bias_q16(&affine.bias);
            let bias = bias.ok_or_else(|| ImportError::TooLarge(bias_name.clone()))?;
            self.tensors.insert(bias_name, bias);
        }
        self.put(Some(layer), matrix, &name, rows);
        Ok(())
    }

    /// Finishes a matrix that writes to the stream.
    fn writer(
        &mut self,
        layer: usize,
        group: &str,
        matrix: &'static str,
        mut weights: Vec<f32>,
        columns: usize,
    ) -> Result<(), ImportError> {
        let name = tensor_name(layer, &format!("{group}.{matrix}.weight"));
        self.rotation.columns(&mut weights);
        let rows = quantised(&name, &weights, columns)?;
        self.put(Some(layer), matrix, &name, rows);
        Ok(())
    }

    /// A table of the vocabulary, some rows at a time.
    fn table(
        &self,
        name: &str,
        prepare: impl Fn(&Rotation, &mut [f32]),
    ) -> Result<Rows, ImportError> {
        let rows_max = (CHUNK_WEIGHTS / self.config.dim).max(1);
        let mut all = Rows::default();
        for first in (0..self.config.vocabulary).step_by(rows_max) {
            let count = rows_max.min(self.config.vocabulary - first);
            let mut rows = self.checkpoint.rows(name, first, count)?;
            prepare(&self.rotation, &mut rows);
            all.append(quantised(name, &rows, self.config.dim)?);
        }
        Ok(all)
    }

    fn put(&mut self, layer: Option<usize>, matrix: &'static str, name: &str, rows: Rows) {
        let error = rows.error();
        if rows.vanished > 0 {
            let vanished = rows.vanished;
            self.notes.push(format!(
                "{name}: the weights of {vanished} rows are too small and became zero"
            ));
        }
        self.tensors
            .insert(name.replace(".weight", ".scale"), rows.scales);
        self.tensors.insert(name.to_owned(), rows.weights);
        self.matrices.push(MatrixError {
            layer,
            matrix,
            error,
        });
        (self.progress)(Progress {
            tensor: name,
            done: self.matrices.len(),
            total: 7 * self.config.layers + if self.config.tied_head { 1 } else { 2 },
        });
    }

    /// Puts the model together, at the shifts that its values ask for.
    fn finished(
        mut self,
        name: String,
        context: usize,
        text: Text,
        options: &ImportOptions,
    ) -> Result<Imported, ImportError> {
        let (cosines, sines) = self.config.rope.tables(context, self.config.head_dim);
        self.tensors.insert("rotary.cos".to_owned(), cosines);
        self.tensors.insert("rotary.sin".to_owned(), sines);
        let (config, spread) = (self.config, self.spread);
        let architecture = |shift: u32| {
            let scale = f64::from(two_to_minus(shift));
            let mut architecture = config.architecture(context, scale, spread);
            architecture.turn = self.rotation.order();
            architecture
        };
        let mut parts = Parts {
            name,
            architecture: architecture(RESIDUAL_SHIFT_MAX),
            tokenizer: text.tokenizer,
            end_tokens: text.end_tokens,
            chat_template: text.chat_template,
            import: Some(IMPORT_VERSION),
            tensors: std::mem::take(&mut self.tensors),
        };
        let final_gain = &self.final_gain;
        // The engine has the last word about sizes and names.
        let (shifts, ranges) = settle(&mut parts, options, |parts, shift| {
            parts.architecture = architecture(shift);
            if config.tied_head {
                // The embedding was divided, and the logits are not to be.
                let gains = gains_q16(final_gain, shift);
                let gains = gains.ok_or_else(|| ImportError::TooLarge(FINAL_NORM.to_owned()))?;
                parts.tensors.insert(GAINS.to_owned(), gains);
            }
            Ok(())
        })?;
        let mut notes = self.notes;
        notes.extend(coarse_embedding(self.embedding_rms, shifts.residual));
        notes.extend(saturation_notes(&ranges));
        let report = ImportReport {
            parameters: parts.architecture.parameters(),
            bytes: parts.tensors.values().map(|t| t.len() as u64).sum(),
            matrices: self.matrices,
            residual_shift: shifts.residual,
            gate_shifts: shifts.gate,
            adapter: None,
            ranges,
            notes,
        };
        Ok(Imported { parts, report })
    }
}

fn quantised(name: &str, weights: &[f32], columns: usize) -> Result<Rows, ImportError> {
    quantise::quantise(weights, columns).map_err(|_| ImportError::TooLarge(name.to_owned()))
}
