//! What following a constraint may cost over a whole answer, and what reading one may.

use dovetail_commitment::{CONSTRAINT_BYTES_MAX, Constraint, Form};

use super::tests::{schema, vocabulary};
use super::*;

/// A text whose every byte makes a new state: what was read so far decides which bytes may follow.
fn costly() -> Constraint {
    let regex = "(.*[ab]){2}(.|..|...|.{4,9}){1,200}(a|b|.{1,90}c){1,60}";
    Constraint::new(Form::Regex(regex.to_owned())).unwrap()
}

/// Follows a constraint with these tokens in turn, as far as it goes. Returns what was taken, and what it cost.
fn follow(guide: &mut Guide, tokens: &[u32], most: usize) -> (usize, u64) {
    for taken in 0..most {
        let Ok(mask) = guide.mask() else {
            return (taken, guide.steps());
        };
        let wanted = tokens.iter().cycle().skip(taken).take(tokens.len());
        let Some(token) = wanted.copied().find(|token| mask.allows(*token)) else {
            return (taken, guide.steps());
        };
        if guide.take(token) != Ok(false) {
            return (taken + 1, guide.steps());
        }
    }
    (most, guide.steps())
}

fn tokens_of(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn an_answer_ends_when_it_has_cost_its_budget_and_at_the_same_token_each_time() {
    let text = tokens_of("abcabbcaacb");
    let mut free = vocabulary().start(&costly()).unwrap();
    let begun = free.steps();
    let (taken, cost) = follow(&mut free, &text, 200);
    assert!(taken > 20 && cost > begun, "{taken} {begun} {cost}");
    let ends: Vec<(usize, u64)> = (0..2)
        .map(|_| {
            let mut guide = vocabulary().start(&costly()).unwrap();
            guide.steps_max = begun + (cost - begun) / 2;
            let end = follow(&mut guide, &text, 200);
            // And it does not go on.
            assert!(guide.mask().is_err());
            end
        })
        .collect();
    assert!(ends[0].0 < taken, "{ends:?} of {taken}");
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_long_answer_to_a_common_schema_takes_a_small_part_of_the_budget() {
    let text = r#"{"type":"object","properties":{"lines":{"type":"array","items":{"type":"object","properties":{
        "text":{"type":"string","maxLength":80},"amount":{"type":"number"},"kind":{"enum":["a","b","c"]}},
        "required":["text","amount","kind"],"additionalProperties":false}}},"required":["lines"]}"#;
    let mut guide = vocabulary().start(&schema(text)).unwrap();
    let answer = format!(
        r#"{{"lines":[{}]}}"#,
        vec![r#"{"text":"a line of an invoice","amount":123.45,"kind":"b"}"#; 60].join(",")
    );
    for token in tokens_of(&answer) {
        assert!(guide.mask().unwrap().allows(token));
        guide.take(token).unwrap();
    }
    assert!(guide.steps() < ANSWER_STEPS_MAX / 4, "{}", guide.steps());
}

/// `count` options that have nothing in common, as a list.
fn options(count: usize) -> String {
    let options: Vec<String> = (0..count)
        .map(|n| format!(r#"{{"const":"{n}"}}"#))
        .collect();
    options.join(",")
}

#[test]
fn schemas_whose_options_multiply_are_refused_before_anything_is_compared() {
    let many = options(200);
    for text in [
        format!(
            r##"{{"$defs":{{"a":{{"oneOf":[{many}]}}}},"oneOf":[{many}],"$ref":"#/$defs/a"}}"##
        ),
        format!(
            r##"{{"$defs":{{"a":{{"oneOf":[{many}]}}}},"anyOf":[{{"$ref":"#/$defs/a","maxLength":9}}]}}"##
        ),
        format!(r#"{{"oneOf":[{many}],"anyOf":[{many}]}}"#),
        format!(r#"{{"allOf":[{{"oneOf":[{many}]}},{{"oneOf":[{many}]}}]}}"#),
        format!(r#"{{"oneOf":[{many}],"enum":["1","2"]}}"#),
        format!(
            r##"{{"$defs":{{"a":{{"anyOf":[{many}]}}}},"properties":{{"a":{{"$ref":"#/$defs/a"}}}},"oneOf":[{{"properties":{{"a":{{"anyOf":[{many}]}}}}}}]}}"##
        ),
        format!(
            r#"{{"properties":{{"a":{{"anyOf":[{many}]}}}},"oneOf":[{{"properties":{{"a":{{"anyOf":[{many}]}}}}}}]}}"#
        ),
    ] {
        assert!(text.len() <= CONSTRAINT_BYTES_MAX);
        let refused = vocabulary().start(&schema(&text));
        let Err(GuideError::Refused(why)) = refused else {
            panic!("{refused:?}: {}", text.get(..80).unwrap_or(&text));
        };
        assert!(why.contains("oneOf"), "{why}");
    }
}

#[test]
fn a_union_that_its_options_tell_apart_is_followed() {
    let text = r##"{"$defs":{"name":{"type":"string","title":"A name"}},"type":"object","title":"An animal","oneOf":[
        {"type":"object","properties":{"kind":{"const":"cat"},"name":{"description":"its name","$ref":"#/$defs/name"}},"required":["kind","name"]},
        {"type":"object","properties":{"kind":{"const":"dog"},"age":{"anyOf":[{"type":"integer"},{"type":"null"}]}},"required":["kind"]}]}"##;
    let mut guide = vocabulary().start(&schema(text)).unwrap();
    for token in tokens_of(r#"{"kind":"dog","age":7"#) {
        assert!(guide.mask().unwrap().allows(token));
        guide.take(token).unwrap();
    }
    follow(
        &mut vocabulary()
            .start(&schema(&format!(r#"{{"oneOf":[{}]}}"#, options(200))))
            .unwrap(),
        &[],
        1,
    );
}
