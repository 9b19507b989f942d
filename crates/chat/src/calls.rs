//! Calls of functions in what a model writes. Templates that show a model its tools also teach it how to call one, and two
//! ways of it are known here. What is no call of a function that was offered is text, as it is.

use std::collections::BTreeSet;
use std::mem::take;

use minijinja::Environment;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::document::Json;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// How a model writes a call, as its template teaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSyntax {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, any number of them behind some text: Hermes, Qwen2.5, SmolLM3.
    Tagged,
    /// The answer is `{"name": .., "parameters": {..}}` and nothing else: Llama 3.1 and later.
    Bare,
}

impl CallSyntax {
    /// Of the model with this template; none where the template takes no tools, or teaches another way.
    pub fn of(template: &str) -> Option<Self> {
        let syntax = if template.contains(OPEN) && template.contains("arguments") {
            // Some teach XML inside of the same tags.
            (!template.contains("<function=")).then_some(Self::Tagged)
        } else {
            let taught = r#"{"name": function name, "parameters": dictionary"#;
            template.contains(taught).then_some(Self::Bare)
        };
        let takes_tools = || {
            let environment = Environment::new();
            let text = crate::without_generation_blocks(template);
            let parsed = environment.template_from_str(&text);
            parsed.is_ok_and(|parsed| parsed.undeclared_variables(false).contains("tools"))
        };
        syntax.filter(|_| takes_tools())
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What is no call.
    Text(String),
    /// A call of a function that was offered.
    Call {
        /// The function.
        name: String,
        /// A JSON object, as the model wrote it.
        arguments: String,
    },
}

/// Reads the calls out of an answer, as its text comes. However the text is split, the calls are the same, and so is the
/// text around them.
#[derive(Debug)]
pub struct CallReader {
    syntax: CallSyntax,
    names: BTreeSet<String>,
    /// What may belong to a call.
    held: String,
    has_called: bool,
    /// Of a bare call: the answer has begun as text.
    is_text: bool,
}

/// A call as models write it.
#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(alias = "parameters")]
    arguments: Option<Box<RawValue>>,
}

impl CallReader {
    /// A reader of calls of these functions.
    pub fn new(syntax: CallSyntax, names: impl IntoIterator<Item = String>) -> Self {
        Self {
            syntax,
            names: names.into_iter().collect(),
            held: String::new(),
            has_called: false,
            is_text: false,
        }
    }

    /// Takes text; what is clear by then.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        match self.syntax {
            CallSyntax::Tagged => std::iter::from_fn(|| self.next_tagged()).collect(),
            CallSyntax::Bare => {
                self.is_text |= !matches!(self.held.trim_start().chars().next(), None | Some('{'));
                match self.is_text {
                    true => text_of(take(&mut self.held)),
                    false => Vec::new(),
                }
            }
        }
    }

    /// What was held back, once no more text comes.
    pub fn finish(&mut self) -> Vec<Piece> {
        let held = take(&mut self.held);
        let calls = match self.syntax {
            // Some models end behind a call without its closing tag.
            CallSyntax::Tagged => {
                let inner = held.trim_start().strip_prefix(OPEN);
                inner.and_then(|inner| Some(vec![self.call(inner)?]))
            }
            CallSyntax::Bare if self.is_text => None,
            CallSyntax::Bare => self.bare_calls(&held),
        };
        match calls {
            Some(calls) => calls,
            None if self.has_called && held.trim().is_empty() => Vec::new(),
            None => text_of(held),
        }
    }

    fn next_tagged(&mut self) -> Option<Piece> {
        let Some(open) = self.held.find(OPEN) else {
            let text = &self.held[..self.held.len() - start_of_tag(&self.held)];
            // White space before a call is none of the text.
            return self.take_text(text.trim_end().len());
        };
        let before = self.held[..open].trim_end().len();
        if before > 0 {
            return self.take_text(before);
        }
        let body = open + OPEN.len();
        let close = body + self.held[body..].find(CLOSE)?;
        match self.call(&self.held[body..close]) {
            Some(call) => {
                self.held.drain(..close + CLOSE.len());
                self.has_called = true;
                Some(call)
            }
            None => self.take_text(body),
        }
    }

    fn take_text(&mut self, bytes: usize) -> Option<Piece> {
        let text: String = self.held.drain(..bytes).collect();
        (!text.is_empty()).then_some(Piece::Text(text))
    }

    /// One call or several, with semicolons between.
    fn bare_calls(&self, text: &str) -> Option<Vec<Piece>> {
        let mut calls = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let mut documents = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
            let first = documents.next()?.ok()?;
            calls.push(self.call(first.get())?);
            rest = rest[documents.byte_offset()..].trim_start_matches([';', ' ', '\n']);
        }
        (!calls.is_empty()).then_some(calls)
    }

    fn call(&self, text: &str) -> Option<Piece> {
        let written: Written = serde_json::from_str(text).ok()?;
        let arguments = match &written.arguments {
            None => "{}".to_owned(),
            Some(arguments) => object(arguments.get())?,
        };
        let name = Some(written.name).filter(|name| self.names.contains(name))?;
        Some(Piece::Call { name, arguments })
    }
}

/// An object, or one that is written as a text.
fn object(text: &str) -> Option<String> {
    let is_object = |text: &str| Json::parse(text).is_ok_and(|json| json.is_object());
    let quoted = || serde_json::from_str::<String>(text).ok();
    match is_object(text) {
        true => Some(text.to_owned()),
        false => quoted().filter(|text| is_object(text)),
    }
}

fn text_of(text: String) -> Vec<Piece> {
    match text.is_empty() {
        true => Vec::new(),
        false => vec![Piece::Text(text)],
    }
}

/// How many bytes at the end may be the start of an opening tag.
fn start_of_tag(text: &str) -> usize {
    let starts = (1..OPEN.len()).rev();
    starts
        .into_iter()
        .find(|length| text.ends_with(&OPEN[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(syntax: CallSyntax, pieces: &[&str]) -> Vec<Piece> {
        let names = ["f", "g"].map(str::to_owned);
        let mut reader = CallReader::new(syntax, names);
        let mut read: Vec<Piece> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
        read.extend(reader.finish());
        // Texts that follow each other are one.
        let mut joined: Vec<Piece> = Vec::new();
        for piece in read {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text(text)), Piece::Text(more)) => text.push_str(&more),
                (_, piece) => joined.push(piece),
            }
        }
        joined
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> Piece {
        let (name, arguments) = (name.to_owned(), arguments.to_owned());
        Piece::Call { name, arguments }
    }

    #[test]
    fn tagged_calls_are_read_and_the_text_before_them_is_shown() {
        let one = "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": \"</x>\"}}\n</tool_call>";
        let called = call("f", "{\"b\": 1, \"a\": \"</x>\"}");
        assert_eq!(
            read(CallSyntax::Tagged, &[one]),
            [text("I look."), called.clone()]
        );
        let two = format!("{one}\n<tool_call>{{\"name\": \"g\"}}</tool_call>\n");
        let expected = [text("I look."), called, call("g", "{}")];
        assert_eq!(read(CallSyntax::Tagged, &[&two]), expected);
        // Without its closing tag, and with arguments in quotes.
        let open = r#"<tool_call>{"name": "f", "arguments": "{\"a\": 2}"}"#;
        assert_eq!(
            read(CallSyntax::Tagged, &[open]),
            [call("f", r#"{"a": 2}"#)]
        );
    }

    #[test]
    fn what_is_no_call_of_an_offered_function_is_text_as_it_is() {
        for answer in [
            "",
            " plain \n",
            "a < b <tool",
            "<tool_call>{\"name\": \"h\", \"arguments\": {}}</tool_call> ",
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            "\n<tool_call>no</tool_call>\n",
            "<tool_call>{\"name\": \"f\"",
            "<tool_call><tool_call>",
        ] {
            let expected: Vec<Piece> = text_of(answer.to_owned());
            assert_eq!(read(CallSyntax::Tagged, &[answer]), expected, "{answer}");
        }
        for answer in [
            "",
            " ",
            "plain {\"name\": \"f\"}",
            "{\"name\": \"h\", \"parameters\": {}}",
            "{\"name\": \"f\", \"parameters\": {}} or so",
            "{\"answer\": 42}",
        ] {
            let expected: Vec<Piece> = text_of(answer.to_owned());
            assert_eq!(read(CallSyntax::Bare, &[answer]), expected, "{answer}");
        }
        // A call that is none does not hide the next one.
        let mixed = "<tool_call>no <tool_call>{\"name\": \"f\"}</tool_call>";
        let expected = [text("<tool_call>no"), call("f", "{}")];
        assert_eq!(read(CallSyntax::Tagged, &[mixed]), expected);
    }

    #[test]
    fn bare_calls_are_the_whole_answer() {
        let first = r#"{"name": "f", "parameters": {"city": "Köln"}}"#;
        let called = call("f", r#"{"city": "Köln"}"#);
        assert_eq!(
            read(CallSyntax::Bare, &[" ", first]),
            std::slice::from_ref(&called)
        );
        let two = format!("{first}; {{\"name\": \"g\", \"arguments\": {{}}}}\n");
        let expected = [called, call("g", "{}")];
        assert_eq!(read(CallSyntax::Bare, &[&two]), expected);
    }

    #[test]
    fn the_way_of_a_template_is_found_in_what_it_teaches() {
        let hermes =
            "{% if tools %}<tool_call>{\"name\": <name>, \"arguments\": <json>}{% endif %}";
        assert_eq!(CallSyntax::of(hermes), Some(CallSyntax::Tagged));
        let llama = "{% if tools is not none %}{\"name\": function name, \"parameters\": dictionary of ..}{% endif %}";
        assert_eq!(CallSyntax::of(llama), Some(CallSyntax::Bare));
        for none in [
            "",
            "{{ messages[0].content }}",
            "<tool_call> arguments",
            "{% if tools %}{{ tools }}{% endif %}",
            "{% if tools %}<tool_call><function=name> arguments{% endif %}",
            "{% if tools <tool_call> arguments",
        ] {
            assert_eq!(CallSyntax::of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_same_however_the_text_is_split(
            parts in proptest::collection::vec(prop_oneof![
                Just("<tool_call>"), Just("</tool_call>"), Just("{\"name\": \"f\"}"), Just("{\"name\":"),
                Just("\n"), Just(" "), Just("<tool"), Just("_call>"), Just("ü"), Just("}"), Just(";"),
            ], 0..12),
            cuts in proptest::collection::vec(0_usize..100, 0..8),
        ) {
            let whole: String = parts.concat();
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|cut| whole.is_char_boundary(*cut)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&whole[from..cut]);
                from = cut;
            }
            pieces.push(&whole[from..]);
            for syntax in [CallSyntax::Tagged, CallSyntax::Bare] {
                prop_assert_eq!(read(syntax, &pieces), read(syntax, &[&whole]));
            }
            // Nothing but calls and the white space around them is lost.
            let shown = read(CallSyntax::Tagged, &[&whole]);
            if shown.iter().all(|piece| matches!(piece, Piece::Text(_))) {
                prop_assert_eq!(shown, text_of(whole));
            }
        }
    }
}
