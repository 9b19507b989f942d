//! Constraints that somebody wrote to do harm: they are refused, or what they cost has an end.

use dovetail_commitment::{CONSTRAINT_BYTES_MAX, Constraint, Form, REGEX_BYTES_MAX};

use super::tests::{schema, vocabulary};
use super::*;

/// Follows a constraint for some tokens, whichever comes last in each mask. `None`: it was refused.
fn follow(constraint: &Constraint) -> Option<usize> {
    let mut guide = match vocabulary().start(constraint) {
        Ok(guide) => guide,
        Err(GuideError::Refused(why)) => {
            assert!(why.chars().count() <= 300 && !why.contains('\n'), "{why}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    for taken in 0..200 {
        let Ok(mask) = guide.mask() else {
            return Some(taken);
        };
        let Some(token) = mask.tokens().filter(|token| *token != 256).last() else {
            return Some(taken);
        };
        match guide.take(token) {
            Ok(false) => {}
            Ok(true) | Err(Unmet) => return Some(taken),
        }
    }
    Some(200)
}

fn regex(text: &str) -> Constraint {
    Constraint::new(Form::Regex(text.to_owned())).unwrap()
}

/// `count` times `open`, then `inner`, then as many times `close`.
fn nested(open: &str, inner: &str, close: &str, count: usize) -> String {
    [&open.repeat(count), inner, &close.repeat(count)].concat()
}

#[test]
fn what_is_no_schema_is_refused() {
    for text in [
        "{",
        "[]",
        "true",
        "null",
        "7",
        r#"{"type": 7}"#,
        r#"{"type": "invoice"}"#,
        r#"{"enum": []}"#,
        r#"{"type": "string", "pattern": "("}"#,
        r#"{"type": "object", "properties": []}"#,
        r#"{"x-guidance": {"lenient": true}, "type": "object"}"#,
        r#"{"type": "integer", "minimum": 3, "maximum": 1}"#,
        r#"{"not": {"type": "string"}}"#,
        r#"{"type": "object", "patternProperties": {"^a": {}}}"#,
        r#"{"items": {"anyOf": [{"patternProperties": {}}]}}"#,
        r#"{"type": "integer", "multipleOf": 1000003}"#,
        r#"{"type": "number", "multipleOf": 1e-300}"#,
        r#"{"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}"#,
        "false",
    ] {
        assert_eq!(follow(&schema(text)), None, "{text}");
    }
}

#[test]
fn references_out_of_the_schema_are_refused_and_fetch_nothing() {
    for reference in [
        "https://example.invalid/schema.json",
        "file:///etc/passwd",
        "#/nothing/there",
        "other.json#/a",
        "#anchor",
    ] {
        let text = format!(r#"{{"$ref": "{reference}"}}"#);
        assert_eq!(follow(&schema(&text)), None, "{reference}");
    }
}

#[test]
fn references_that_go_round_in_circles_come_to_an_end() {
    for text in [
        r##"{"$ref": "#"}"##,
        r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
        r##"{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}"##,
        r##"{"$defs": {"a": {"type": "object", "anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}"##,
        r##"{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}"##,
        r##"{"type": "array", "items": {"$ref": "#"}, "minItems": 1}"##,
        r##"{"type": "array", "items": {"$ref": "#"}, "minItems": 2, "maxItems": 2}"##,
    ] {
        follow(&schema(text));
    }
}

#[test]
fn deep_schemas_and_expressions_are_refused_or_followed_without_an_overflow() {
    let objects = |depth| nested(r#"{"type":"object","properties":{"a":"#, "{}", "}}", depth);
    follow(&schema(&objects(30)));
    assert_eq!(follow(&schema(&objects(40))), None);
    assert_eq!(follow(&schema(&objects(400))), None);
    follow(&schema(&nested(r#"{"items":"#, "{}", "}", 60)));
    follow(&schema(&nested(r#"{"anyOf":["#, "{}", "]}", 30)));
    follow(&schema(&nested(r#"{"allOf":["#, "{}", "]}", 30)));
    follow(&regex(&nested("(", "a", ")", 500)));
    follow(&regex(&nested("(", "a", ")*", 300)));
    follow(&regex(&nested("(?:a|", "b", ")", 150)));
}

#[test]
fn repetitions_that_explode_are_refused_or_bounded() {
    for text in [
        "(a{1000}){1000}",
        "((a{1,100}){1,100}){1,100}",
        "(((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99}",
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+$",
        "(.*a){20}",
        "(.*)(.*)(.*)(.*)(.*)(.*)x",
        ".*a.{500}",
        "(a?){500}a{500}",
        r"(\w{1,200}\s){200}",
        r"[\p{L}\p{N}]{1,1000}",
        "a{4294967295}",
        "(?i)(abcdefghij|klmnopqrst){1,1000}",
    ] {
        follow(&regex(text));
    }
}

#[test]
fn bounds_that_explode_are_refused_or_bounded() {
    for text in [
        r#"{"type": "string", "maxLength": 1000000000}"#,
        r#"{"type": "string", "minLength": 1000000000}"#,
        r#"{"type": "string", "minLength": 18446744073709551615}"#,
        r#"{"type": "array", "minItems": 1000000000}"#,
        r#"{"type": "array", "items": {"type": "array", "minItems": 100000}, "maxItems": 100000}"#,
        r#"{"type": "array", "items": {}, "minItems": 4294967296, "maxItems": 4294967297}"#,
        r#"{"type": "object", "minProperties": 1000000, "maxProperties": 1000001}"#,
        r#"{"type": "number", "multipleOf": 0.001, "minimum": 1e300}"#,
        r#"{"allOf": [{"type": "number", "multipleOf": 0.001}, {"multipleOf": 0.01}]}"#,
        r#"{"type": "integer", "minimum": -1e308, "maximum": 1e308}"#,
        r#"{"type": "string", "pattern": "(a{1000}){1000}", "maxLength": 100000}"#,
        r#"{"type": "string", "pattern": "^(.*a){20}$", "minLength": 1000, "maxLength": 5000}"#,
    ] {
        follow(&schema(text));
    }
}

#[test]
fn combinations_that_multiply_are_refused_or_bounded() {
    // Each of the ten halves its options: a product of 4^10 if it were written out.
    let options = |n: usize| {
        let one = |i: usize| format!(r#"{{"properties":{{"p{n}":{{"const":{i}}}}}}}"#);
        let all: Vec<String> = (0..4).map(one).collect();
        format!(r#"{{"anyOf":[{}]}}"#, all.join(","))
    };
    let all: Vec<String> = (0..10).map(options).collect();
    follow(&schema(&format!(
        r#"{{"type":"object","allOf":[{}]}}"#,
        all.join(",")
    )));
    // Definitions that double each other.
    let doubled: Vec<String> = (0..30)
        .map(|n| {
            let next = n + 1;
            format!(
                r##""d{n}":{{"type":"object","properties":{{"l":{{"$ref":"#/$defs/d{next}"}},"r":{{"$ref":"#/$defs/d{next}"}}}},"required":["l","r"]}}"##
            )
        })
        .collect();
    let text = format!(
        r##"{{"$defs":{{{},"d30":{{}}}},"$ref":"#/$defs/d0"}}"##,
        doubled.join(",")
    );
    follow(&schema(&text));
    // The same with siblings, so that each is written out.
    let doubled: Vec<String> = (0..20)
        .map(|n| {
            let next = n + 1;
            format!(r##""d{n}":{{"allOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}}"##)
        })
        .collect();
    let text = format!(
        r##"{{"$defs":{{{},"d20":{{"type":"object","properties":{{"a":{{}}}}}}}},"type":"object","$ref":"#/$defs/d0"}}"##,
        doubled.join(",")
    );
    follow(&schema(&text));
}

#[test]
fn schemas_as_long_as_may_be_are_followed_or_refused() {
    let fill = |head: &str, item: fn(usize) -> String, tail: &str| {
        let mut text = head.to_owned();
        for n in 0.. {
            let item = item(n);
            if text.len() + item.len() + 1 + tail.len() > CONSTRAINT_BYTES_MAX {
                break;
            }
            if n > 0 {
                text.push(',');
            }
            text.push_str(&item);
        }
        text + tail
    };
    let properties = |n: usize| format!(r#""p{n}":{{}}"#);
    follow(&schema(&fill(
        r#"{"type":"object","properties":{"#,
        properties,
        "}}",
    )));
    let numbers = |n: usize| format!("{n}");
    follow(&schema(&fill(r#"{"enum":["#, numbers, "]}")));
    let strings = |n: usize| format!(r#"{{"type":"string","pattern":".*{n}.*"}}"#);
    for many in ["anyOf", "allOf", "oneOf"] {
        let text = fill(&format!(r#"{{"{many}":["#), strings, "]}");
        assert_eq!(follow(&schema(&text)), None);
    }
    // As many patterns as may be, each within the one before, and many lengths for one.
    let within: Vec<String> = (0..16)
        .map(|n| format!(r#"{{"type":"string","pattern":".*{n}.*","anyOf":["#))
        .collect();
    let text = format!("{}{{}}{}", within.concat(), "]}".repeat(16));
    follow(&schema(&text));
    let lengths = |n: usize| format!(r##"{{"$ref":"#/$defs/a","maxLength":{n}}}"##);
    let head = r#"{"$defs":{"a":{"type":"string","pattern":"(.*a){9}"}},"anyOf":["#;
    follow(&schema(&fill(head, lengths, "]}")));
    let required = |n: usize| format!(r#""r{n}""#);
    follow(&schema(&fill(
        r#"{"type":"object","required":["#,
        required,
        "]}",
    )));
    follow(&regex(&"a?".repeat(REGEX_BYTES_MAX / 2)));
    follow(&regex(&".*a".repeat(REGEX_BYTES_MAX / 3)));
    let texts = (0..256).map(|n| format!("{n:062}")).collect();
    follow(&Constraint::new(Form::Choice(texts)).unwrap());
}
