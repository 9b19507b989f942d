//! Which JSON Schemas are given to the library: those whose cost its own limits cover. The bounds are a part of what the
//! guide's name names.

use serde_json::Value;

use crate::one_of;

/// The library's own key for its options. They are ours to say.
const OPTIONS_KEY: &str = "x-guidance";
/// How deep a schema's JSON may be: forms of answers are some ten levels.
const DEPTH_MAX: usize = 64;
/// So many texts may have a `pattern` or a `format`. Whether any text fits one, or several at once, is found out
/// before anything is counted.
const PATTERNS_MAX: usize = 16;
/// All patterns together.
const PATTERN_BYTES_MAX: usize = 1024;
/// A division's remainders are states of the expression for a number: with a million of them a mask takes seconds.
const MULTIPLES: [f64; 4] = [1.0, 0.1, 0.01, 0.001];

/// What costs something in a schema.
#[derive(Default)]
struct Survey {
    patterns: usize,
    pattern_bytes: usize,
    has_all_of: bool,
}

/// Checks that a schema is one that the library may be given.
///
/// # Errors
/// Why it is not, for whoever wrote it.
pub(crate) fn check(schema: &Value) -> Result<(), &'static str> {
    if !schema.is_object() {
        return Err("the schema is no JSON object");
    }
    if schema.get(OPTIONS_KEY).is_some() {
        return Err("x-guidance is not for schemas to say");
    }
    let mut survey = Survey::default();
    survey.look_at(schema, 0)?;
    if survey.patterns > PATTERNS_MAX || survey.pattern_bytes > PATTERN_BYTES_MAX {
        return Err("a schema may have 16 patterns and formats, of 1 KiB together");
    }
    if survey.patterns > 0 && survey.has_all_of {
        return Err("a schema with a pattern or a format may have no allOf");
    }
    one_of::check(schema)
}

impl Survey {
    fn look_at(&mut self, value: &Value, depth: usize) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("the schema has too many levels");
        }
        match value {
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.look_at(item, depth + 1)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
                self.look_at_field(name, field)?;
                self.look_at(field, depth + 1)
            }),
            _ => Ok(()),
        }
    }

    /// A property may have the name of a keyword: what follows tells them apart.
    fn look_at_field(&mut self, name: &str, field: &Value) -> Result<(), &'static str> {
        match (name, field) {
            // All pairs of patterns of an object are compared, at a cost that nothing counts.
            ("patternProperties", _) => return Err("patternProperties is not taken"),
            ("pattern" | "format", Value::String(text)) => {
                self.patterns += 1;
                self.pattern_bytes += text.len();
            }
            ("allOf", Value::Array(_)) => self.has_all_of = true,
            ("multipleOf", Value::Number(number)) => {
                let of = number.as_f64();
                if !of.is_some_and(|of| MULTIPLES.contains(&of)) {
                    return Err("multipleOf may be 1, 0.1, 0.01 or 0.001");
                }
            }
            _ => {}
        }
        Ok(())
    }
}
