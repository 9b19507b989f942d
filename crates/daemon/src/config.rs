//! One TOML file per daemon, each key of which an environment variable can override:
//! `PREFIX__SECTION__KEY=value`. Unknown keys are refused by the caller's
//! `#[serde(deny_unknown_fields)]`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::secret::Secret;
use crate::secret_file::{Exposure, exposure};

/// Why a configuration was refused. Never carries the value of a key: it might be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key is unknown, missing or of the wrong type.
    #[error("the configuration {path} is not valid: {message}")]
    Invalid {
        /// The file that was read.
        path: PathBuf,
        /// What is wrong, naming the key.
        message: String,
    },
    /// An environment variable names no place in the configuration.
    #[error("the environment variable {name} names no key: expected {prefix}__SECTION__KEY")]
    Override {
        /// The variable's name.
        name: String,
        /// The daemon's prefix.
        prefix: String,
    },
    /// A secret could not be read.
    #[error("cannot read the secret in {path}: {source}")]
    Secret {
        /// The secret's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may use a secret's file.
    #[error("{0}")]
    Exposed(Exposure),
    /// A secret that must be a key is none.
    #[error("{place} holds no key of 64 hex digits")]
    NotAKey {
        /// The secret's file, or that it stands in the configuration itself.
        place: String,
    },
}

/// Reads `path`, lays the environment's `PREFIX__SECTION__KEY` values over it, and parses the
/// result as `T`.
///
/// # Errors
/// [`ConfigError`] where the file cannot be read or the result is not a valid `T`.
pub fn load<T: DeserializeOwned>(path: &Path, prefix: &str) -> Result<T, ConfigError> {
    load_with(path, prefix, std::env::vars())
}

fn load_with<T: DeserializeOwned>(
    path: &Path,
    prefix: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let invalid = |message: String| ConfigError::Invalid {
        path: path.to_owned(),
        message,
    };
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
    let marker = format!("{prefix}__");
    for (name, value) in environment {
        let Some(key_path) = name.strip_prefix(&marker) else {
            continue;
        };
        let keys: Vec<String> = key_path.split("__").map(str::to_lowercase).collect();
        if !set(&mut table, &keys, parse_value(&value)) {
            return Err(ConfigError::Override {
                name,
                prefix: prefix.to_owned(),
            });
        }
    }
    T::deserialize(Value::Table(table)).map_err(|error| invalid(error.message().to_owned()))
}

/// Says loudly that the configuration itself holds a secret and can be read by others; for each of these keys whose
/// secret stands in it, and not in the environment or in a file of its own. It is no error: the rest of a configuration
/// is for many to read, and a container may mount it so.
pub fn warn_of_secrets<'a>(
    path: &Path,
    prefix: &str,
    secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>,
) {
    if exposure(path).is_none() {
        return;
    }
    let in_environment = |name: &str| std::env::var_os(name).is_some();
    for key in secrets_in_place(prefix, secrets, in_environment) {
        let file = path.display();
        tracing::warn!(
            "THE SECRET {key} STANDS IN {file}, WHICH OTHERS MAY READ: chmod 600 {file}, or put it into a file of its \
             own: {key} = {{ file = \"..\" }}"
        );
    }
}

/// The keys whose secrets stand in the configuration's file.
fn secrets_in_place<'a>(
    prefix: &str,
    secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>,
    in_environment: impl Fn(&str) -> bool,
) -> Vec<&'a str> {
    let is_overridden = |key: &str| {
        // A whole section can be overridden too.
        let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
        ends.map(|end| key[..end].to_uppercase().replace('.', "__"))
            .any(|name| in_environment(&format!("{prefix}__{name}")))
    };
    secrets
        .into_iter()
        .filter(|(key, secret)| secret.is_worth_hiding() && !is_overridden(key))
        .map(|(key, _)| key)
        .collect()
}

/// A value as TOML would read it, or the text itself (so that paths and keys need no quotes).
fn parse_value(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, keys: &[String], value: Value) -> bool {
    match keys {
        [] => false,
        [key] if key.is_empty() => false,
        [key] => {
            table.insert(key.clone(), value);
            true
        }
        [section, rest @ ..] => match table
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()))
        {
            Value::Table(inner) => set(inner, rest, value),
            _ => false,
        },
    }
}

/// Whether the value of this key lies in its range, which is a rule that its type does not carry.
///
/// # Errors
/// A sentence that names the key and the range.
pub fn within<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(format!("{key} must be {least} to {most}, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        mining: Mining,
    }

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Mining {
        listen: String,
        rate: f64,
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Example, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_with(file.path(), "DOVETAIL_POOL", environment)
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = read(
            "[mining]\nlisten = \"a\"\nrate = 1.0\n",
            &[
                ("DOVETAIL_POOL__MINING__LISTEN", "127.0.0.1:1"),
                ("DOVETAIL_POOL__MINING__RATE", "2.5"),
                ("DOVETAIL_JD__MINING__RATE", "9.0"),
            ],
        )
        .unwrap();
        assert_eq!(config.mining.listen, "127.0.0.1:1");
        assert_eq!(config.mining.rate, 2.5);
    }

    #[test]
    fn a_secret_in_the_file_is_told_from_one_in_the_environment_or_in_a_file_of_its_own() {
        let value = |text: &str| Secret::Value(text.into());
        let file = Secret::File {
            file: "/secret".into(),
        };
        let (key, url) = (
            value("0101"),
            value("postgres://pool:hidden@localhost/pool"),
        );
        let peer = value("postgres://pool@localhost/pool");
        let secrets = [
            ("mining.secret_key", &key),
            ("mining.receipt_key", &file),
            ("ledger.url", &url),
            ("ledger.peer", &peer),
        ];
        let in_place = |environment: &[&str]| {
            let is_set = |name: &str| environment.contains(&name);
            secrets_in_place("DOVETAIL_POOL", secrets, is_set)
        };
        assert_eq!(in_place(&[]), ["mining.secret_key", "ledger.url"]);
        assert_eq!(
            in_place(&["DOVETAIL_POOL__LEDGER__URL"]),
            ["mining.secret_key"]
        );
        assert_eq!(in_place(&["DOVETAIL_POOL__MINING"]), ["ledger.url"]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = read("[mining]\nlisten = \"a\"\nrate = 1.0\nspeed = 2\n", &[]).unwrap_err();
        assert!(error.to_string().contains("speed"), "{error}");
    }
}
