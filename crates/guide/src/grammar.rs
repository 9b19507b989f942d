//! A form as the library's grammar.

use std::fmt::Write;

use dovetail_commitment::Form;
use llguidance::JsonCompileOptions;
use llguidance::api::TopLevelGrammar;
use serde_json::Value;

use crate::GuideError;

/// What may stand between the tokens of JSON, once: a space, or a new line with a few spaces. Without an end to it a
/// model could write nothing else until its last token. A part of what the guide's name names.
const WHITESPACE: &str = r"\x20|\x0A\x20{0,16}";
/// The library's own key for its options. They are ours to say.
const OPTIONS_KEY: &str = "x-guidance";
/// The library compares the patterns of an object with each other, each pair at a cost that no fuel covers: 16 KiB of
/// them take minutes.
const PATTERN_KEY: &str = "patternProperties";
/// How deep a schema's JSON may be: forms of answers are some ten levels.
const DEPTH_MAX: usize = 64;
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
    if !schema.is_object() {
        return Err(refused("the schema is no JSON object"));
    }
    if schema.get(OPTIONS_KEY).is_some() {
        return Err(refused("x-guidance is not for schemas to say"));
    }
    if has_key(&schema, PATTERN_KEY) {
        return Err(refused("patternProperties is not taken"));
    }
    if depth(&schema) > DEPTH_MAX {
        return Err(refused("the schema has too many levels"));
    }
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITESPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// How many levels of JSON there are. What is parsed has few: the parser has a bound of its own.
fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// Whether a key stands anywhere in a value.
fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_key(item, key)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| name == key || has_key(field, key)),
        _ => false,
    }
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
