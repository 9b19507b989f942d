//! The file that an agent keeps: what it asked, the tokens it saw, and the pool's receipt once there is one.
//!
//! Everything in the file takes part in verification; there is no field that could say something unchecked. The
//! prompt and its salt are in it, so it is as private as the prompt. To show a receipt without the prompt, hand on
//! the `receipt` field alone.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use dovetail_commitment::{
    Constraint, ConstraintError, EncodedPrompt, Form, ModelId, PromptError, SamplingParams, TaskId,
    receipt::Receipt,
};
use serde::{Deserialize, Serialize};

use crate::{AgentError, Question};

/// A longest prompt in hex (512 KiB), its tokens a line each (1 MiB), 4096 tokens of output and a receipt with a coinbase
/// of 100 kB stay well below.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

const VERSION: u8 = 2;

/// An agent's own copy of a task with the pool's receipt for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    /// Of this format: 2.
    pub version: u8,
    /// The task.
    pub task_id: TaskId,
    /// The model that was asked for.
    pub model_id: ModelId,
    /// The sampling that was asked for.
    pub sampling: Sampling,
    /// The seed that was asked for.
    #[serde(with = "hex")]
    pub seed: [u8; 32],
    /// What the prompt was hidden with.
    #[serde(with = "hex")]
    pub salt: [u8; 32],
    /// The prompt.
    pub prompt: Prompt,
    /// The tokens that the pool made of it and gave to the worker.
    pub prompt_tokens: Vec<u32>,
    /// Its stop sequences.
    pub stop: Vec<Prompt>,
    /// Its constraint; left out where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<KeptConstraint>,
    /// The output as the agent saw it.
    pub output_tokens: Vec<u32>,
    /// What the pool signed; none until the task is settled.
    pub receipt: Option<Receipt>,
}

/// [`SamplingParams`] as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The names are those of `SamplingParams`.
pub struct Sampling {
    pub temperature_milli: u32,
    pub top_k: u32,
    pub top_p_milli: u32,
    pub max_tokens: u32,
}

impl From<SamplingParams> for Sampling {
    fn from(params: SamplingParams) -> Self {
        let SamplingParams {
            temperature_milli,
            top_k,
            top_p_milli,
            max_tokens,
        } = params;
        Self {
            temperature_milli,
            top_k,
            top_p_milli,
            max_tokens,
        }
    }
}

impl From<Sampling> for SamplingParams {
    fn from(sampling: Sampling) -> Self {
        let Sampling {
            temperature_milli,
            top_k,
            top_p_milli,
            max_tokens,
        } = sampling;
        Self {
            temperature_milli,
            top_k,
            top_p_milli,
            max_tokens,
        }
    }
}

/// A [`Constraint`] as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptConstraint {
    /// The name of the pool's guide.
    pub guide: String,
    /// The form that was asked for.
    pub form: KeptForm,
}

/// A [`Form`] as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The names are those of `Form`.
pub enum KeptForm {
    JsonSchema(String),
    Regex(String),
    Choice(Vec<String>),
}

impl KeptConstraint {
    /// What the transcript commits to.
    ///
    /// # Errors
    /// A form or a name out of its bounds.
    pub fn constraint(&self) -> Result<Constraint, ConstraintError> {
        let form = match &self.form {
            KeptForm::JsonSchema(text) => Form::JsonSchema(text.clone()),
            KeptForm::Regex(text) => Form::Regex(text.clone()),
            KeptForm::Choice(texts) => Form::Choice(texts.clone()),
        };
        Constraint::for_guide(&self.guide, form)
    }
}

impl From<&Constraint> for KeptConstraint {
    fn from(constraint: &Constraint) -> Self {
        let form = match constraint.form() {
            Form::JsonSchema(text) => KeptForm::JsonSchema(text.clone()),
            Form::Regex(text) => KeptForm::Regex(text.clone()),
            Form::Choice(texts) => KeptForm::Choice(texts.clone()),
        };
        Self {
            guide: constraint.guide().to_owned(),
            form,
        }
    }
}

impl std::fmt::Debug for KeptConstraint {
    // As private as the prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptConstraint(for {})", self.guide)
    }
}

/// A prompt or a stop sequence: readable where it is UTF-8, `{"hex": "..."}` where it is not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// UTF-8.
    Text(String),
    /// Any other bytes.
    Bytes {
        /// The bytes.
        #[serde(with = "hex")]
        hex: Vec<u8>,
    },
}

impl Prompt {
    /// The bytes that were sent.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes { hex } => hex,
        }
    }
}

impl From<Vec<u8>> for Prompt {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(
            |e| Self::Bytes {
                hex: e.into_bytes(),
            },
            Self::Text,
        )
    }
}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prompt({} bytes)", self.as_bytes().len())
    }
}

/// What a file to verify may hold.
#[derive(Clone, Debug)]
pub enum Kept {
    /// The agent's copy, with or without a receipt.
    File(Box<ReceiptFile>),
    /// A pool's receipt alone, as somebody hands it on who keeps the prompt private.
    ReceiptOnly(Box<Receipt>),
}

impl ReceiptFile {
    /// The agent's copy before the pool gave a receipt.
    pub fn pending(question: &Question, prompt: &EncodedPrompt, output_tokens: Vec<u32>) -> Self {
        Self {
            version: VERSION,
            task_id: question.task_id,
            model_id: question.model_id,
            sampling: question.sampling.into(),
            seed: question.seed,
            salt: question.salt,
            prompt: question.prompt.clone().into(),
            prompt_tokens: prompt.tokens().to_vec(),
            stop: question
                .stop
                .iter()
                .map(|stop| stop.to_vec().into())
                .collect(),
            constraint: question.constraint.as_ref().map(KeptConstraint::from),
            output_tokens,
            receipt: None,
        }
    }

    /// The prompt as the transcript commits to it: its text and its tokens.
    ///
    /// # Errors
    /// A text or a number of tokens out of bounds.
    pub fn encoded_prompt(&self) -> Result<EncodedPrompt, PromptError> {
        EncodedPrompt::new(self.prompt.as_bytes(), self.prompt_tokens.clone())
    }

    /// Puts the pool's receipt (JSON text) in. It is parsed, not verified.
    pub fn set_receipt(&mut self, receipt_json: &str) -> Result<(), AgentError> {
        let receipt = serde_json::from_str(receipt_json)
            .map_err(|e| AgentError::Protocol(format!("the receipt does not parse: {e}")))?;
        self.receipt = Some(receipt);
        Ok(())
    }

    /// Writes the file whole or not at all, readable by its owner only: it holds the prompt.
    pub fn save(&self, path: &Path) -> Result<(), AgentError> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| file_error(path, e.into()))?;
        json.push(b'\n');
        write_whole(path, &json).map_err(|e| file_error(path, e))
    }

    /// Reads a file that [`ReceiptFile::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        match load(path)? {
            Kept::File(file) => Ok(*file),
            Kept::ReceiptOnly(_) => Err(AgentError::NotAReceipt {
                path: path.to_owned(),
                reason: "it is a receipt alone, without an agent's own copy".into(),
            }),
        }
    }
}

/// Reads either kind of file. Nothing is verified yet.
pub fn load(path: &Path) -> Result<Kept, AgentError> {
    let bytes = read_bounded(path, FILE_BYTES_MAX).map_err(|e| file_error(path, e))?;
    parse(&bytes).map_err(|reason| AgentError::NotAReceipt {
        path: path.to_owned(),
        reason,
    })
}

fn parse(bytes: &[u8]) -> Result<Kept, String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    // Only an agent's own copy knows the salt.
    if value.get("salt").is_none() {
        return serde_json::from_value(value)
            .map(Kept::ReceiptOnly)
            .map_err(|e| e.to_string());
    }
    // Before its fields, which other versions do not have.
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(VERSION) => {
            return Err(format!("version {version} of the format is not known here"));
        }
        _ => {}
    }
    let file: ReceiptFile = serde_json::from_value(value).map_err(|e| e.to_string())?;
    Ok(Kept::File(Box::new(file)))
}

/// Reads a file that has at most so many bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= bytes_max) {
        Ok(bytes)
    } else {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "too large for what it should be",
        ))
    }
}

/// Writes beside the file and renames, so that a crash leaves the old file or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let written = create_private(Path::new(&beside)).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&beside, path));
    if renamed.is_err() {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&beside);
    }
    renamed
}

fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(crate) fn file_error(path: &Path, source: io::Error) -> AgentError {
    AgentError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_commitment::{
        CONSTRAINT_BYTES_MAX, OUTPUT_TOKENS_MAX, PROMPT_BYTES_MAX, PROMPT_TOKENS_MAX,
    };

    fn question(prompt: &[u8]) -> Question {
        let sampling = SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: 8,
        };
        Question::new(ModelId::from_bytes([7; 32]), prompt.to_vec(), sampling)
    }

    fn pending(question: &Question, output_tokens: Vec<u32>) -> ReceiptFile {
        let prompt = EncodedPrompt::new(&question.prompt, vec![256, 7]).unwrap();
        ReceiptFile::pending(question, &prompt, output_tokens)
    }

    #[test]
    fn a_pending_file_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        for prompt in [b"words".as_slice(), &[0xff, 0]] {
            let file = pending(&question(prompt), vec![1, 2]);
            file.save(&path).unwrap();
            let back = ReceiptFile::load(&path).unwrap();
            assert_eq!(back.prompt.as_bytes(), prompt);
            assert_eq!(back.salt, file.salt);
            assert_eq!(back.prompt_tokens, [256, 7]);
            assert_eq!(back.output_tokens, [1, 2]);
            assert!(back.receipt.is_none());
        }
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing left beside it"
        );
    }

    #[test]
    fn a_constraint_is_read_back_with_its_guide_and_its_absence_leaves_no_field() {
        let text = || "[a-z]+".to_owned();
        for form in [
            Form::JsonSchema("{}".to_owned()),
            Form::Regex(text()),
            Form::Choice(vec![text(), text()]),
        ] {
            let constraint = Constraint::for_guide("guide-1", form).unwrap();
            let mut question = question(b"x");
            question.constraint = Some(constraint.clone());
            let file = pending(&question, vec![]);
            assert!(!format!("{file:?}").contains("a-z"));
            let json = serde_json::to_string(&file).unwrap();
            let back: ReceiptFile = serde_json::from_str(&json).unwrap();
            assert_eq!(back.constraint.unwrap().constraint(), Ok(constraint));
        }
        let without = serde_json::to_string(&pending(&question(b"x"), vec![]));
        assert!(!without.unwrap().contains("constraint"));
    }

    #[test]
    fn the_longest_copy_of_a_task_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        let mut question = question(&[0xff; PROMPT_BYTES_MAX]);
        let prompt = EncodedPrompt::new(&question.prompt, vec![u32::MAX; PROMPT_TOKENS_MAX]);
        let schema = Form::JsonSchema("\u{1}".repeat(CONSTRAINT_BYTES_MAX));
        question.constraint = Some(Constraint::new(schema).unwrap());
        let output = vec![u32::MAX; OUTPUT_TOKENS_MAX as usize];
        let file = ReceiptFile::pending(&question, &prompt.unwrap(), output);
        file.save(&path).unwrap();
        let back = ReceiptFile::load(&path).unwrap();
        assert_eq!(back.encoded_prompt(), file.encoded_prompt());
        // And a receipt still fits.
        assert!(fs::metadata(&path).unwrap().len() + 1024 * 1024 < FILE_BYTES_MAX);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.json");
        pending(&question(b"x"), vec![]).save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn an_unknown_field_or_version_is_refused() {
        let file = pending(&question(b"x"), vec![]);
        let mut value = serde_json::to_value(&file).unwrap();
        for version in [1, 3] {
            value["version"] = version.into();
            let refused = parse(value.to_string().as_bytes()).unwrap_err();
            assert!(refused.contains(&format!("version {version}")), "{refused}");
        }
        value["version"] = VERSION.into();
        value["claimed"] = "anything".into();
        assert!(
            parse(value.to_string().as_bytes())
                .unwrap_err()
                .contains("claimed")
        );
    }

    #[test]
    fn what_is_no_receipt_is_refused_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "not json").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("notes.txt"), "{error}");
    }
}
