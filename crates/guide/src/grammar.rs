//! A form as the library's grammar.

use std::fmt::Write;

use dovetail_commitment::Form;
use llguidance::JsonCompileOptions;
use llguidance::api::TopLevelGrammar;
use serde_json::Value;

use crate::{GuideError, schema};

/// What may stand between the tokens of JSON, once: a space, or a new line with a few spaces. Without an end to it a
/// model could write nothing else until its last token. A part of what the guide's name names.
const WHITESPACE: &str = r"\x20|\x0A\x20{0,16}";
/// What is said of a refusal has at most this many letters.
const REASON_LETTERS_MAX: usize = 300;

/// The grammar of outputs of this form.
///
/// # Errors
/// [`GuideError::Refused`].
pub(crate) fn of(form: &Form) -> Result<TopLevelGrammar, GuideError> {
    match form {
        Form::JsonSchema(text) => of_schema(text),
        Form::Regex(regex) => Ok(TopLevelGrammar::from_regex(regex)),
        Form::Choice(texts) => Ok(TopLevelGrammar::from_regex(&choice(texts))),
    }
}

fn of_schema(text: &str) -> Result<TopLevelGrammar, GuideError> {
    let mut schema: Value = serde_json::from_str(text)
        .map_err(|error| refused(&format!("the schema is no JSON: {error}")))?;
    schema::check(&schema).map_err(refused)?;
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITESPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// A regular expression that one of the texts matches, letter by letter.
fn choice(texts: &[String]) -> String {
    let mut regex = String::new();
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            regex.push('|');
        }
        for letter in text.chars() {
            if letter.is_ascii_alphanumeric() {
                regex.push(letter);
            } else {
                // Writing into a string does not fail.
                let _ = write!(regex, r"\x{{{:x}}}", u32::from(letter));
            }
        }
    }
    regex
}

/// A refusal for whoever wrote the constraint: its first line, in letters that steer no terminal.
pub(crate) fn refused(why: &str) -> GuideError {
    let line = why.lines().next().unwrap_or_default();
    let letters = line.escape_debug().take(REASON_LETTERS_MAX);
    GuideError::Refused(letters.collect())
}
