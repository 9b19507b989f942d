//! What masks allow, and that they are the same everywhere.

use dovetail_commitment::{Constraint, Form, tagged_hash};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The end token of the test vocabulary.
const END: u32 = 256;

/// Bytes, an end token, and some longer texts.
pub(crate) fn vocabulary() -> Vocabulary {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    tokens.push(Vec::new());
    for text in ["{\"", "\":", ", ", "tru", "true", "abc", "12", "\n    "] {
        tokens.push(text.as_bytes().to_vec());
    }
    Vocabulary::new(tokens.iter().map(Vec::as_slice), &[END]).unwrap()
}

pub(crate) fn schema(text: &str) -> Constraint {
    Constraint::new(Form::JsonSchema(text.to_owned())).unwrap()
}

fn regex(text: &str) -> Constraint {
    Constraint::new(Form::Regex(text.to_owned())).unwrap()
}

/// Whether the whole text may be the output, taken byte by byte, and end there.
fn accepts(constraint: &Constraint, text: &str) -> bool {
    let mut guide = vocabulary().start(constraint).unwrap();
    for (index, byte) in text.bytes().enumerate() {
        let Ok(mask) = guide.mask() else { return false };
        if !mask.allows(u32::from(byte)) {
            return false;
        }
        if guide.take(u32::from(byte)).unwrap() {
            return index + 1 == text.len();
        }
    }
    guide.mask().unwrap().allows(END)
}

/// An output that takes whichever allowed token `choose` names of so many, up to `tokens_max`, and the digest of all
/// masks. `None` where the form was not completed.
fn walk(
    constraint: &Constraint,
    tokens_max: usize,
    mut choose: impl FnMut(usize) -> usize,
) -> (Option<Vec<u8>>, [u8; 32]) {
    let vocabulary = vocabulary();
    let mut guide = vocabulary.start(constraint).unwrap();
    let (mut text, mut digest) = (Vec::new(), [0; 32]);
    for _ in 0..tokens_max {
        let mask = guide.mask().unwrap();
        let tokens: Vec<u32> = mask.tokens().collect();
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        digest = tagged_hash("test/masks", &[&digest, &bytes]);
        let token = tokens[choose(tokens.len())];
        if token == END {
            return (Some(text), digest);
        }
        text.extend_from_slice(&bytes_of(token));
        if guide.take(token).unwrap() {
            return (Some(text), digest);
        }
    }
    (None, digest)
}

fn bytes_of(token: u32) -> Vec<u8> {
    match token {
        0..=255 => vec![u8::try_from(token).unwrap()],
        _ => ["{\"", "\":", ", ", "tru", "true", "abc", "12", "\n    "][token as usize - 257]
            .as_bytes()
            .to_vec(),
    }
}

const INVOICE: &str = r#"{
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "maxLength": 12},
        "number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        "total": {"type": "integer", "minimum": 0, "maximum": 99999},
        "paid": {"type": "boolean"},
        "currency": {"enum": ["EUR", "USD", null]},
        "items": {"type": "array", "minItems": 1, "maxItems": 3,
                  "items": {"type": "integer", "minimum": 1, "maximum": 9}}
    },
    "required": ["vendor", "number", "total", "paid", "currency", "items"],
    "additionalProperties": false
}"#;

#[test]
fn a_schema_allows_what_it_describes_and_nothing_else() {
    let invoice = schema(INVOICE);
    let good = r#"{"vendor": "A", "number":"RE-0815", "total":12, "paid":true,"currency":"EUR","items":[1, 2]}"#;
    assert!(accepts(&invoice, good));
    assert!(accepts(
        &invoice,
        "{\n  \"vendor\": \"A\",\n  \"number\": \"RE-0815\",\n  \"total\": 12,\n  \"paid\": true,\n  \"currency\": null,\n  \"items\": [1]\n}"
    ));
    for (from, to) in [
        ("RE-0815", "RE-815"),
        ("12", "100000"),
        ("12", "-1"),
        ("true", "\"yes\""),
        ("EUR", "GBP"),
        ("[1, 2]", "[]"),
        ("[1, 2]", "[1,2,3,4]"),
        ("\"A\"", "\"ABCDEFGHIJKLM\""),
        ("{\"vendor\": \"A\", ", "{"),
        ("]}", "],\"more\":1}"),
        ("{\"v", "  {\"v"),
        (" \"A\"", "  \"A\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(!accepts(&invoice, &bad), "{bad}");
    }
}

#[test]
fn a_regular_expression_covers_all_of_the_output() {
    let date = regex("[0-9]{4}-[0-9]{2}");
    assert!(accepts(&date, "2026-11"));
    for text in ["2026-1", "2026-111", " 2026-11", "26-11", ""] {
        assert!(!accepts(&date, text), "{text}");
    }
    let slashes = regex(r"a/b\/c(\\|d)");
    assert!(accepts(&slashes, "a/b/cd"));
    assert!(accepts(&slashes, "a/b/c\\"));
    let some = regex("(yes)?");
    assert!(accepts(&some, "yes") && !accepts(&some, "ye"));
    assert!(accepts(&some, ""));
}

#[test]
fn a_regular_expression_cannot_become_another_grammar() {
    // Were the text put into a grammar as it is, these would end the expression and add a rule.
    for text in ["a/\nstart: \"b\"", "a/i", "a\\/\nother: /b/", "a/ | /b"] {
        let constraint = regex(text);
        if vocabulary().start(&constraint).is_ok() {
            assert!(!accepts(&constraint, "b"), "{text}");
            assert!(!accepts(&constraint, "A"), "{text}");
        }
    }
}

#[test]
fn a_choice_is_one_of_its_texts_letter_by_letter() {
    let texts = ["yes", "no", "no way", ".*", "a|b", "ü\n", "(", "\\d"];
    let owned = texts.iter().map(|text| (*text).to_owned()).collect();
    let choice = Constraint::new(Form::Choice(owned)).unwrap();
    for text in texts {
        assert!(accepts(&choice, text), "{text}");
    }
    for text in ["maybe", "ye", "nope", "a", "b", "ü", "7", ""] {
        assert!(!accepts(&choice, text), "{text}");
    }
}

#[test]
fn an_end_is_allowed_exactly_where_the_form_may_be_complete() {
    let mut guide = vocabulary().start(&regex("ab+")).unwrap();
    let mut step = |byte: u8| {
        let mask = guide.mask().unwrap();
        let is_complete = guide.take(u32::from(byte)).unwrap();
        (mask.allows(END), is_complete)
    };
    assert_eq!(step(b'a'), (false, false));
    assert_eq!(step(b'b'), (false, false));
    assert_eq!(step(b'b'), (true, false));
    let mut guide = vocabulary().start(&regex("ab")).unwrap();
    guide.mask().unwrap();
    assert!(!guide.take(u32::from(b'a')).unwrap());
    guide.mask().unwrap();
    assert!(guide.take(u32::from(b'b')).unwrap(), "nothing may follow");
}

#[test]
fn tokens_of_several_letters_are_allowed_where_all_of_their_letters_are() {
    let mut guide = vocabulary().start(&regex("abc12?|abx")).unwrap();
    let mask = guide.mask().unwrap();
    let tokens: Vec<u32> = mask.tokens().collect();
    // "a" and "abc".
    assert_eq!(tokens, [u32::from(b'a'), 262]);
    assert!(!guide.take(262).unwrap());
    let mask = guide.mask().unwrap();
    assert_eq!(mask.tokens().collect::<Vec<_>>(), [u32::from(b'1'), 263]);
}

#[test]
fn a_model_that_lacks_the_letters_of_a_form_does_not_meet_it() {
    let tokens = [b"a".as_slice(), b""];
    let vocabulary = Vocabulary::new(tokens.into_iter(), &[1]).unwrap();
    let mut guide = vocabulary.start(&regex("ab")).unwrap();
    assert!(guide.mask().unwrap().allows(0));
    guide.take(0).unwrap();
    assert_eq!(guide.mask(), Err(Unmet));
    assert_eq!(guide.mask(), Err(Unmet), "it stays so");
}

#[test]
fn a_model_without_an_end_token_ends_where_the_form_is_complete() {
    let tokens = [b"a".as_slice(), b"b"];
    let vocabulary = Vocabulary::new(tokens.into_iter(), &[]).unwrap();
    let mut guide = vocabulary.start(&regex("ab")).unwrap();
    for (token, is_last) in [(0, false), (1, true)] {
        assert!(guide.mask().unwrap().allows(token));
        assert_eq!(guide.take(token), Ok(is_last));
    }
}

#[test]
fn an_end_token_with_a_text_is_no_letter_of_a_form() {
    let tokens = [b"a".as_slice(), b"b"];
    let vocabulary = Vocabulary::new(tokens.into_iter(), &[1]).unwrap();
    let mut guide = vocabulary.start(&regex("ab?")).unwrap();
    assert_eq!(guide.mask().unwrap().tokens().collect::<Vec<_>>(), [0]);
    assert!(!guide.take(0).unwrap());
    assert_eq!(guide.mask().unwrap().tokens().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_constraint_for_another_guide_is_not_followed() {
    let form = Form::Regex("a".to_owned());
    let other = Constraint::for_guide("llguidance-0.1", form).unwrap();
    let refused = vocabulary().start(&other);
    assert!(matches!(refused, Err(GuideError::OtherGuide)));
}

#[test]
fn end_tokens_outside_of_the_vocabulary_are_refused() {
    let made = Vocabulary::new([b"a".as_slice()].into_iter(), &[1]);
    assert!(matches!(made, Err(GuideError::Vocabulary)));
    let made = Vocabulary::new(std::iter::empty(), &[]);
    assert!(matches!(made, Err(GuideError::Vocabulary)));
}

/// The digest of the masks of some outputs of each kind of form.
fn digest_of_masks() -> String {
    let mut all = Vec::new();
    let choice = Constraint::new(Form::Choice(vec!["one".to_owned(), "two".to_owned()])).unwrap();
    for constraint in [schema(INVOICE), regex("[a-z]{3,9}(, [0-9]+)*"), choice] {
        for seed in 0..4_usize {
            let mut state = seed;
            let (_, digest) = walk(&constraint, 300, |count| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % count
            });
            all.extend(digest);
        }
    }
    hex::encode(tagged_hash("test/masks", &[&all]))
}

/// Set for the process that the next test starts.
const ANSWER: &str = "DOVETAIL_GUIDE_DIGEST";

#[test]
fn two_processes_make_the_same_masks() {
    let ours = digest_of_masks();
    if std::env::var_os(ANSWER).is_some() {
        println!("masks {ours}");
        return;
    }
    // Hash tables begin with other secrets in each process.
    for _ in 0..2 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["two_processes_make_the_same_masks", "--nocapture"]);
        let output = command.env(ANSWER, "1").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("masks {ours}")), "{said}");
    }
    assert_eq!(
        ours, GOLDEN,
        "the masks are others than those that GUIDE names: give it a new name"
    );
}

/// What `GUIDE` stands for. It changes only with that name.
const GOLDEN: &str = "fac12a4a57e4dd79f496ea4b35925473098a6981f39e4bac125f4e91243c065a";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_chosen_the_output_is_json_of_the_schema(choices in proptest::collection::vec(any::<u32>(), 400)) {
        let mut choices = choices.into_iter().cycle();
        let (text, _) = walk(&schema(INVOICE), 2_000, |count| choices.next().unwrap() as usize % count);
        let text = text.expect("the schema bounds the output");
        let value: Value = serde_json::from_slice(&text).expect("it is JSON");
        let fields = value.as_object().unwrap();
        let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
        names.sort_unstable();
        prop_assert_eq!(names, ["currency", "items", "number", "paid", "total", "vendor"]);
        prop_assert!(fields["vendor"].as_str().unwrap().chars().count() <= 12);
        prop_assert_eq!(fields["number"].as_str().unwrap().len(), 7);
        prop_assert!(fields["total"].as_u64().unwrap() <= 99_999);
        prop_assert!(fields["paid"].is_boolean());
        prop_assert!((1..=3).contains(&fields["items"].as_array().unwrap().len()));
    }
}
