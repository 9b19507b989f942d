//! Whether an answer is of the form that `schema.json` asks for. The file is the one place where that form is
//! written down; this reads the few keywords of JSON Schema that it uses, and keys in the schema's
//! order, each once.

use std::sync::LazyLock;

use regex::Regex;

use crate::answer::SCHEMA;
use crate::check::Json;

/// Where an answer is not of the form, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `items[0].price`; empty for the answer as a whole.
    pub path: String,
    /// In words. Never a value.
    pub what: &'static str,
}

/// What a value has to be.
#[derive(Debug)]
enum Form {
    AnyOf(Vec<Form>),
    Object(Vec<Key>),
    List {
        of: Box<Form>,
        most: usize,
    },
    Text {
        least: usize,
        most: usize,
        pattern: Option<Regex>,
    },
    Number {
        whole: bool,
        least: f64,
        most: f64,
    },
    Bool,
    Null,
}

#[derive(Debug)]
struct Key {
    name: String,
    form: Form,
    required: bool,
}

static FORM: LazyLock<Form> = LazyLock::new(|| {
    let schema = Json::parse(SCHEMA).expect("the schema that was compiled in is JSON");
    Form::read(&schema).expect("the schema that was compiled in uses keywords that are known")
});

/// The first place where the answer is not of the form.
#[must_use]
pub fn problem(answer: &Json) -> Option<Problem> {
    problems(answer).into_iter().next()
}

/// All places where the answer is not of the form that it comes nearest to.
#[must_use]
pub fn problems(answer: &Json) -> Vec<Problem> {
    let mut found = Vec::new();
    FORM.judge(answer, "", &mut found);
    found
}

impl Form {
    /// A form from its JSON, or `None` for what this does not know.
    fn read(schema: &Json) -> Option<Self> {
        if let Some(Json::List(forms)) = schema.get("anyOf") {
            return Some(Self::AnyOf(
                forms.iter().map(Self::read).collect::<Option<_>>()?,
            ));
        }
        let number = |key: &str, default: f64| match schema.get(key) {
            Some(Json::Number(number)) => number.as_f64(),
            Some(_) => None,
            None => Some(default),
        };
        let count = |key: &str, default: f64| number(key, default).map(|number| number as usize);
        match schema.get("type")?.text()? {
            "object" => Self::read_object(schema),
            "array" => Some(Self::List {
                of: Box::new(Self::read(schema.get("items")?)?),
                most: count("maxItems", f64::MAX)?,
            }),
            "string" => Some(Self::Text {
                least: count("minLength", 0.0)?,
                most: count("maxLength", f64::MAX)?,
                pattern: match schema.get("pattern") {
                    Some(pattern) => Some(Regex::new(pattern.text()?).ok()?),
                    None => None,
                },
            }),
            kind @ ("number" | "integer") => Some(Self::Number {
                whole: kind == "integer",
                least: number("minimum", f64::MIN)?,
                most: number("maximum", f64::MAX)?,
            }),
            "boolean" => Some(Self::Bool),
            "null" => Some(Self::Null),
            _ => None,
        }
    }

    fn read_object(schema: &Json) -> Option<Self> {
        let Json::Object(properties) = schema.get("properties")? else {
            return None;
        };
        let Json::List(required) = schema.get("required")? else {
            return None;
        };
        let keys = properties.iter().map(|(name, form)| {
            Some(Key {
                name: name.clone(),
                form: Self::read(form)?,
                required: required.iter().any(|one| one.text() == Some(name)),
            })
        });
        Some(Self::Object(keys.collect::<Option<_>>()?))
    }

    fn judge(&self, value: &Json, path: &str, found: &mut Vec<Problem>) {
        let mut say = |what| {
            found.push(Problem {
                path: path.to_owned(),
                what,
            });
        };
        match (self, value) {
            (Self::AnyOf(forms), _) => {
                let judged = forms.iter().map(|form| {
                    let mut problems = Vec::new();
                    form.judge(value, path, &mut problems);
                    problems
                });
                found.extend(judged.min_by_key(Vec::len).unwrap_or_default());
            }
            (Self::Object(keys), Json::Object(pairs)) => judge_object(keys, pairs, path, found),
            (Self::List { of, most }, Json::List(values)) => {
                if values.len() > *most {
                    say("has too many rows");
                }
                for (index, value) in values.iter().enumerate().take(*most) {
                    of.judge(value, &format!("{path}[{index}]"), found);
                }
            }
            (
                Self::Text {
                    least,
                    most,
                    pattern,
                },
                Json::Text(text),
            ) => {
                if !(*least..=*most).contains(&text.chars().count()) {
                    say("is too short or too long");
                }
                if pattern
                    .as_ref()
                    .is_some_and(|pattern| !pattern.is_match(text))
                {
                    say("is not written as it has to be");
                }
            }
            (Self::Number { whole, least, most }, Json::Number(number)) => {
                let in_bounds = number
                    .as_f64()
                    .is_some_and(|number| (*least..=*most).contains(&number));
                if !in_bounds || (*whole && number.as_i64().is_none()) {
                    say("is no number of its kind");
                }
            }
            (Self::Bool, Json::Bool(_)) | (Self::Null, Json::Null) => {}
            _ => say("is not of its kind"),
        }
    }
}

fn judge_object(keys: &[Key], pairs: &[(String, Json)], path: &str, found: &mut Vec<Problem>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    let mut last = None;
    for (name, value) in pairs {
        let Some(at) = keys.iter().position(|key| key.name == *name) else {
            found.push(Problem {
                path: path.to_owned(),
                what: "has a key that is not known",
            });
            continue;
        };
        if last.is_some_and(|last| at < last) {
            found.push(Problem {
                path: below(name),
                what: "is not in its place",
            });
        }
        last = Some(at);
        keys[at].form.judge(value, &below(name), found);
    }
    for key in keys.iter().filter(|key| key.required) {
        if pairs.iter().all(|(name, _)| *name != key.name) {
            found.push(Problem {
                path: below(&key.name),
                what: "is missing",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"vendor":"A","number":null,"date":"2026-05-07","currency":"EUR","total":"7.00","items":[{"text":"nut","qty":2.5,"price":"1.0005"}]}"#;

    fn first(answer: &str) -> Option<(String, &'static str)> {
        let answer = Json::parse(answer).unwrap();
        problem(&answer).map(|problem| (problem.path, problem.what))
    }

    #[test]
    fn answers_of_both_kinds_are_of_the_form() {
        assert_eq!(first(GOOD), None);
        assert_eq!(
            first(r#"{"item":"nut","on_hand":3,"target":9,"order":6}"#),
            None
        );
    }

    #[test]
    fn what_is_not_of_the_form_is_said_with_its_place() {
        for (from, to, path) in [
            ("2026-05-07", "2026-05-90", "date"),
            ("2026-05-07", "7.5.2026", "date"),
            (r#""7.00""#, r#""AUD 7.00""#, "total"),
            (r#""7.00""#, "7", "total"),
            ("2.5", r#""2""#, "items[0].qty"),
            ("1.0005", "1", "items[0].price"),
            (
                r#""vendor":"A","number":null"#,
                r#""number":null,"vendor":"A""#,
                "vendor",
            ),
            (r#""vendor":"A","#, "", "vendor"),
            (r#""vendor""#, r#""seller":1,"vendor""#, ""),
        ] {
            let answer = GOOD.replace(from, to);
            assert_ne!(answer, GOOD);
            assert_eq!(
                first(&answer).map(|(path, _)| path).as_deref(),
                Some(path),
                "{answer}"
            );
        }
    }

    #[test]
    fn the_schema_has_no_keyword_that_is_passed_over() {
        const KNOWN: [&str; 14] = [
            "anyOf",
            "type",
            "properties",
            "required",
            "additionalProperties",
            "pattern",
            "minLength",
            "maxLength",
            "minimum",
            "maximum",
            "items",
            "maxItems",
            "string",
            "null",
        ];
        fn look(schema: &Json) {
            if let Json::Object(pairs) = schema {
                for (name, value) in pairs {
                    assert!(KNOWN.contains(&name.as_str()), "{name}");
                    match (name.as_str(), value) {
                        ("properties", Json::Object(of)) => {
                            of.iter().for_each(|(_, form)| look(form))
                        }
                        ("anyOf", Json::List(forms)) => forms.iter().for_each(look),
                        ("items", form) => look(form),
                        ("additionalProperties", value) => assert_eq!(*value, Json::Bool(false)),
                        _ => {}
                    }
                }
            }
        }
        look(&Json::parse(SCHEMA).unwrap());
    }
}
