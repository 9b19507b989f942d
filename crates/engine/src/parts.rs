//! Making a model file: safetensors, so that common tools open it. The manifest stands in its metadata. All integers are
//! little-endian.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::path::Path;

use dovetail_commitment::{ModelId, tagged_hash};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::head::{MANIFEST_BYTES_MAX, MANIFEST_KEY, model_id};
use crate::layout::{Spec, TOKENIZER, specs, tensor_digest};
use crate::manifest::{Architecture, Manifest, TokenizerKind};
use crate::{ENGINE_VERSION, EngineError};

/// What a model file is made of, before it is hashed and named.
#[derive(Debug, Clone)]
pub struct Parts {
    /// A name for people.
    pub name: String,
    /// The sizes.
    pub architecture: Architecture,
    /// A `tokenizer.json`; `None` for the byte tokenizer.
    pub tokenizer: Option<Vec<u8>>,
    /// Tokens that end an output.
    pub end_tokens: Vec<u32>,
    /// The chat template; empty where there is none.
    pub chat_template: String,
    /// See [`Manifest::import`].
    pub import: Option<NonZeroU16>,
    /// The bytes of each tensor of [`tensor_names`](crate::tensor_names).
    pub tensors: BTreeMap<String, Vec<u8>>,
}

impl Parts {
    /// The model's manifest, checked.
    ///
    /// # Errors
    /// [`EngineError`] where a tensor is missing, too many or not as long as it must be, or the sizes
    /// are none that the engine runs.
    pub fn manifest(&self) -> Result<Manifest, EngineError> {
        self.architecture.check()?;
        let specs = specs(&self.architecture);
        if specs.len() != self.tensors.len() {
            return Err(EngineError::Format("there are tensors too many"));
        }
        let mut digests = Vec::new();
        for spec in &specs {
            let bytes = self.tensors.get(&spec.name);
            let Some(bytes) = bytes.filter(|bytes| bytes.len() == spec.bytes()) else {
                return Err(EngineError::Format(
                    "a tensor is missing or has another size",
                ));
            };
            digests.extend(tensor_digest(&spec.name, bytes));
        }
        if let Some(json) = &self.tokenizer {
            digests.extend(tensor_digest(TOKENIZER, json));
        }
        let manifest = Manifest {
            name: self.name.clone(),
            architecture: self.architecture,
            tensors_digest: tagged_hash("dovetail/tensors", &[&digests]),
            tokenizer: match self.tokenizer {
                None => TokenizerKind::Bytes,
                Some(_) => TokenizerKind::HuggingFace,
            },
            end_tokens: self.end_tokens.clone(),
            chat_template: self.chat_template.clone(),
            engine_version: ENGINE_VERSION,
            import: self.import,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The id that the model will have. Hashes all tensors.
    ///
    /// # Errors
    /// As [`Parts::manifest`].
    pub fn id(&self) -> Result<ModelId, EngineError> {
        Self::id_of(&self.manifest()?)
    }

    /// The id of the model of a manifest that was made here.
    pub(crate) fn id_of(manifest: &Manifest) -> Result<ModelId, EngineError> {
        Ok(model_id(&text_of(manifest)?))
    }

    /// The bytes of the model file.
    ///
    /// # Errors
    /// As [`Parts::manifest`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EngineError> {
        let (metadata, views) = self.safetensors()?;
        safetensors::serialize(views, Some(metadata))
            .map_err(|_| EngineError::Format("the tensors do not make a safetensors file"))
    }

    /// Writes the model file without holding it in memory twice.
    ///
    /// # Errors
    /// As [`Parts::manifest`]; [`EngineError::Read`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EngineError> {
        let (metadata, views) = self.safetensors()?;
        safetensors::serialize_to_file(views, Some(metadata), path)
            .map_err(|error| EngineError::Read(std::io::Error::other(error.to_string())))
    }

    #[allow(clippy::type_complexity)]
    fn safetensors(
        &self,
    ) -> Result<(HashMap<String, String>, Vec<(String, TensorView<'_>)>), EngineError> {
        let manifest = text_of(&self.manifest()?)?;
        let mut specs = specs(&self.architecture);
        specs.extend(self.tokenizer.iter().map(|json| Spec {
            name: TOKENIZER.to_owned(),
            dtype: Dtype::U8,
            shape: vec![json.len()],
        }));
        let view = |spec: Spec| {
            let bytes = self.tensors.get(&spec.name).or(self.tokenizer.as_ref());
            let bytes = bytes.map_or(&[][..], Vec::as_slice);
            TensorView::new(spec.dtype, spec.shape, bytes)
                .map(|view| (spec.name, view))
                .map_err(|_| EngineError::Format("a tensor has another size"))
        };
        let views = specs.into_iter().map(view).collect::<Result<_, _>>()?;
        Ok((HashMap::from([(MANIFEST_KEY.to_owned(), manifest)]), views))
    }
}

fn text_of(manifest: &Manifest) -> Result<String, EngineError> {
    let text = serde_json::to_string(manifest)
        .map_err(|_| EngineError::Format("the manifest does not serialise"))?;
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(EngineError::Format("the manifest is too long"));
    }
    Ok(text)
}
