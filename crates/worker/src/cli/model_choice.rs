//! `--model`: a model file by its path, or by id or name among those that a worker's configuration knows.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use dovetail_commitment::ModelId;
use dovetail_daemon::load;
use dovetail_engine::{Head, Model};
use dovetail_worker::config::Config;

/// What is run where nothing is said: the model that comes with the source that this program was built from.
const CLERK: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clerk/model/clerk.safetensors"
);

/// Which model a command runs.
#[derive(Debug, Args)]
pub(crate) struct ModelChoice {
    /// A model file, or the id or name of one that the configuration knows. Left out: the only one that it
    /// knows; without a configuration, clerk.
    #[arg(long, value_name = "FILE|ID|NAME")]
    model: Option<String>,
    /// The worker's configuration: the files that it names and those that it has fetched are looked through.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A model file of which only the head was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    id: ModelId,
    name: String,
    file: PathBuf,
}

impl ModelChoice {
    /// Loads the model, which checks every tensor.
    pub(crate) fn load(&self) -> anyhow::Result<Model> {
        let file = self.file()?;
        Model::load(&file).with_context(|| format!("cannot load {}", file.display()))
    }

    fn file(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = self.model.as_deref().map(Path::new)
            && path.is_file()
        {
            return Ok(path.to_owned());
        }
        let Some(config) = &self.config else {
            match &self.model {
                Some(model) => bail!(
                    "there is no file {model}; to name a model by its id or name, add --config with the \
                     worker's configuration"
                ),
                None if Path::new(CLERK).is_file() => return Ok(CLERK.into()),
                None => bail!("say which model: --model FILE, or --config FILE"),
            }
        };
        let config: Config = load(config, "DOVETAIL_WORKER")?;
        Ok(choose(known(&config), self.model.as_deref())?.file)
    }
}

/// All models of a configuration. Files that are no models of this engine are left out: what is wrong with
/// them comes up where one is named by its path.
fn known(config: &Config) -> Vec<Known> {
    let cached = config.fetch.iter().flat_map(|fetch| {
        let entries = std::fs::read_dir(&fetch.cache_dir).into_iter().flatten();
        let files = entries.flatten().map(|entry| entry.path());
        files.filter(|file| file.extension() == Some(OsStr::new("safetensors")))
    });
    let mut known: Vec<Known> = Vec::new();
    for file in config.worker.models.iter().cloned().chain(cached) {
        let head = std::fs::File::open(&file).map_err(Into::into);
        let head = head.and_then(|mut file| Head::read(&mut file));
        match head {
            Ok(head) if known.iter().all(|other| other.id != head.id()) => known.push(Known {
                id: head.id(),
                name: head.manifest().name.clone(),
                file,
            }),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "passing over a model file");
            }
        }
    }
    known
}

/// The one model that is meant.
fn choose(known: Vec<Known>, wanted: Option<&str>) -> anyhow::Result<Known> {
    let is_meant = |model: &Known| {
        wanted.is_none_or(|wanted| wanted == model.name || wanted == model.id.to_string())
    };
    let (mut meant, others): (Vec<Known>, Vec<Known>) = known.into_iter().partition(is_meant);
    match (meant.pop(), meant.as_slice(), wanted) {
        (Some(model), [], _) => Ok(model),
        (Some(model), rest, _) => bail!(
            "several models are meant; say which by its id:{}",
            list(rest.iter().chain([&model]))
        ),
        (None, _, Some(wanted)) if !others.is_empty() => bail!(
            "the configuration knows no model {wanted}, but these:{}",
            list(&others)
        ),
        (None, ..) => bail!(
            "the configuration knows no model whose file is here; `dovetail-worker model fetch` gets one"
        ),
    }
}

fn list<'a>(models: impl IntoIterator<Item = &'a Known>) -> String {
    let lines = models.into_iter();
    lines
        .map(|model| format!("\n  {} {}", model.id, model.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(number: u8, name: &str) -> Known {
        Known {
            id: ModelId::from_bytes([number; 32]),
            name: name.to_owned(),
            file: PathBuf::from(number.to_string()),
        }
    }

    #[test]
    fn a_model_is_meant_by_its_id_or_name_or_because_it_is_the_only_one() {
        let known = [model(1, "clerk"), model(2, "smol")];
        let chosen = |wanted| choose(known.to_vec(), wanted).unwrap().file;
        assert_eq!(chosen(Some("smol")), Path::new("2"));
        assert_eq!(chosen(Some(&"01".repeat(32))), Path::new("1"));
        assert_eq!(choose(vec![model(3, "x")], None).unwrap(), model(3, "x"));
    }

    #[test]
    fn what_is_not_clear_is_answered_with_what_there_is() {
        let known = vec![model(1, "clerk"), model(2, "clerk")];
        for (known, wanted, told) in [
            (known.clone(), Some("clerk"), "0202"),
            (known.clone(), None, "several"),
            (known, Some("smol"), "no model smol"),
            (vec![], Some("smol"), "model fetch"),
        ] {
            let error = choose(known, wanted).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
