//! The form that an answer must have, as options of a command.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use dovetail_commitment::{CONSTRAINT_BYTES_MAX, Constraint, ConstraintError, Form};

/// The options, of which at most one can be given.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct ConstraintArguments {
    /// The answer is JSON that the JSON Schema in this file describes.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// All of the answer matches this regular expression.
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// The answer is one of these texts; give it once for each.
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
}

/// Why the options make no constraint.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintArgumentError {
    /// The schema's file cannot be read as text.
    #[error("cannot read the schema {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: io::Error,
    },
    /// It is out of its bounds.
    #[error(transparent)]
    Bounds(#[from] ConstraintError),
}

impl ConstraintArguments {
    /// The constraint, if one is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or a form out of its bounds.
    pub fn constraint(&self) -> Result<Option<Constraint>, ConstraintArgumentError> {
        let form = match (&self.schema, &self.regex) {
            (Some(path), _) => Form::JsonSchema(read(path)?),
            (None, Some(regex)) => Form::Regex(regex.clone()),
            (None, None) if self.choice.is_empty() => return Ok(None),
            (None, None) => Form::Choice(self.choice.clone()),
        };
        Ok(Some(Constraint::new(form)?))
    }
}

/// The text of a file, as far as is needed to see that it is too long.
fn read(path: &Path) -> Result<String, ConstraintArgumentError> {
    let mut text = String::new();
    let bytes_max = CONSTRAINT_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(reason) => Err(ConstraintArgumentError::Read {
            path: path.to_owned(),
            reason,
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ConstraintArguments,
    }

    fn parse(words: &[&str]) -> Result<ConstraintArguments, clap::Error> {
        let words = std::iter::once("test").chain(words.iter().copied());
        Line::try_parse_from(words).map(|line| line.arguments)
    }

    #[test]
    fn each_kind_of_form_is_taken_and_none_by_default() {
        let form = |words: &[&str]| {
            let constraint = parse(words).unwrap().constraint().unwrap();
            constraint.map(|constraint| constraint.form().clone())
        };
        assert_eq!(form(&[]), None);
        assert_eq!(form(&["--regex", "a+"]), Some(Form::Regex("a+".to_owned())));
        assert_eq!(
            form(&["--choice", "yes", "--choice", "no"]),
            Some(Form::Choice(vec!["yes".to_owned(), "no".to_owned()]))
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(
            form(&["--schema", path.to_str().unwrap()]),
            Some(Form::JsonSchema("{}".to_owned()))
        );
    }

    #[test]
    fn two_kinds_a_missing_file_and_a_long_one_are_refused() {
        assert!(parse(&["--regex", "a", "--choice", "a"]).is_err());
        assert!(parse(&["--regex", "a", "--schema", "b"]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        let read = || {
            let words = ["--schema", path.to_str().unwrap()];
            parse(&words).unwrap().constraint()
        };
        assert!(matches!(read(), Err(ConstraintArgumentError::Read { .. })));
        std::fs::write(&path, " ".repeat(CONSTRAINT_BYTES_MAX + 1)).unwrap();
        assert!(matches!(read(), Err(ConstraintArgumentError::Bounds(_))));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(), Err(ConstraintArgumentError::Read { .. })));
    }
}
