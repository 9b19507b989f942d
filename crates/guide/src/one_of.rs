//! What `oneOf` costs in a schema. The library shows that no two of its options can hold at once: it compares all pairs, in
//! all of their parts, and no limit of its own counts that. So the schemas for which it is much are refused before.
//!
//! The number of pairs is that of the options after everything beside the `oneOf` was worked into each of them. So what
//! multiplies options is refused beside it, and the rest is counted.

use serde_json::{Map, Value};

/// Comparisons of all `oneOf` of a schema together: some tenths of a second. A union of ten kinds of object, of ten fields
/// each, takes some hundred thousand.
const COMPARISONS_MAX: u64 = 16_000_000;
/// What multiplies the options of a `oneOf` beside it.
const MULTIPLIERS: [&str; 4] = ["allOf", "anyOf", "enum", "$ref"];
/// What has schemas of its own, which are worked into those of the same place in each option.
const PARTS: [&str; 4] = ["properties", "items", "prefixItems", "additionalProperties"];
/// What may stand beside a `$ref` and means nothing.
const ANNOTATIONS: [&str; 9] = [
    "$anchor",
    "$comment",
    "$defs",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "title",
];

/// Checks that comparing the options of a schema takes a bounded time.
///
/// # Errors
/// Why it is not so, for whoever wrote it.
pub(crate) fn check(schema: &Value) -> Result<(), &'static str> {
    if !has_key(schema, "oneOf") {
        return Ok(());
    }
    // Either would put the options of one place into those of another.
    if has_key(schema, "allOf") {
        return Err("a schema with oneOf may have no allOf");
    }
    if has_ref_with_siblings(schema) {
        return Err("in a schema with oneOf nothing may stand beside a $ref");
    }
    let mut comparisons = 0;
    count(schema, &mut comparisons)?;
    if comparisons > COMPARISONS_MAX {
        return Err("the options of oneOf are too many or too long; anyOf takes more");
    }
    Ok(())
}

fn count(value: &Value, comparisons: &mut u64) -> Result<(), &'static str> {
    if let Value::Object(fields) = value
        && let Some(options @ Value::Array(_)) = fields.get("oneOf")
    {
        *comparisons = comparisons.saturating_add(comparisons_of(fields, options)?);
    }
    children(value).try_for_each(|child| count(child, comparisons))
}

/// How many parts of options are compared at most: all pairs of all parts, each as often as the choices beside them
/// multiply it.
fn comparisons_of(beside: &Map<String, Value>, options: &Value) -> Result<u64, &'static str> {
    if MULTIPLIERS.iter().any(|name| beside.contains_key(*name)) {
        return Err("beside oneOf there may be no anyOf, enum or $ref");
    }
    let parts = PARTS.iter().filter_map(|name| beside.get(*name));
    let mut choices = 1_u64;
    for part in parts {
        if has_key(part, "$ref") || has_key(options, "$ref") {
            return Err("where properties or items stand beside oneOf, neither may have a $ref");
        }
        choices = choices.saturating_add(choices_in(part));
    }
    let parts = parts_of(options).saturating_mul(choices);
    Ok(parts.saturating_mul(parts))
}

/// All values within this one.
fn parts_of(value: &Value) -> u64 {
    children(value).fold(1, |sum, child| sum.saturating_add(parts_of(child)))
}

/// How many options lists within this value have.
fn choices_in(value: &Value) -> u64 {
    let own = ["anyOf", "oneOf", "enum", "type"].iter().map(|name| {
        let listed = value.get(*name).and_then(Value::as_array);
        listed.map_or(0, |options| options.len() as u64)
    });
    let own = own.fold(0, u64::saturating_add);
    children(value).fold(own, |sum, child| sum.saturating_add(choices_in(child)))
}

fn has_key(value: &Value, name: &str) -> bool {
    value.get(name).is_some() || children(value).any(|child| has_key(child, name))
}

fn has_ref_with_siblings(value: &Value) -> bool {
    let own = value.as_object().is_some_and(|fields| {
        let mut beside = fields.keys().filter(|name| *name != "$ref");
        fields.contains_key("$ref") && !beside.all(|name| ANNOTATIONS.contains(&name.as_str()))
    });
    own || children(value).any(has_ref_with_siblings)
}

/// The values right within this one. What calls itself on them goes as deep as a schema may be.
fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}
