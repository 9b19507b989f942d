//! The chat templates of models in use say here what they say in Python.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use dovetail_chat::{Call, CallSyntax, Chat, Json, Message, render};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The moment that `golden/templates.py` renders with.
const UNIX_S: u64 = 1_721_995_200;

#[derive(Deserialize)]
struct Golden {
    conversations: Vec<Conversation>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Said>,
    tools: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
    #[serde(default)]
    tool_calls: Vec<Called>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Called {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: Box<RawValue>,
}

impl Said {
    fn into_message(self) -> Message {
        let calls = self.tool_calls.into_iter().map(|called| Call {
            id: called.id,
            name: called.function.name,
            arguments: Json::parse(called.function.arguments.get()).unwrap(),
        });
        Message {
            calls: calls.collect(),
            call_id: self.tool_call_id,
            name: self.name,
            ..Message::new(self.role, self.content)
        }
    }
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
    /// What Python makes of each conversation; none where it refuses.
    prompts: Vec<Option<String>>,
}

/// A model and why its template says something else here: lines of `MODEL  REASON`.
fn listed() -> BTreeMap<&'static str, &'static str> {
    include_str!("golden/templates_differ.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once("  ").unwrap())
        .collect()
}

#[test]
#[ignore = "needs the templates that cargo xtask test puts into DOVETAIL_CHAT_TEMPLATES"]
fn templates_of_models_in_use_say_what_jinja2_says() {
    let path = std::env::var_os("DOVETAIL_CHAT_TEMPLATES").unwrap();
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.templates.len(), 97);
    let conversations: Vec<(Vec<Message>, Option<Json>)> = golden
        .conversations
        .into_iter()
        .map(|conversation| {
            let messages = conversation.messages.into_iter();
            let tools = conversation.tools.as_deref().map(RawValue::get);
            let tools = tools.map(|tools| Json::parse(tools).unwrap());
            (messages.map(Said::into_message).collect(), tools)
        })
        .collect();
    let (mut same, mut refused, mut differing) = (0, 0, BTreeSet::new());
    let (mut tagged, mut bare) = (0, 0);
    for template in &golden.templates {
        match CallSyntax::of(&template.template) {
            Some(CallSyntax::Tagged) => tagged += 1,
            Some(CallSyntax::Bare) => bare += 1,
            None => {}
        }
        for ((messages, tools), expected) in conversations.iter().zip(&template.prompts) {
            let chat = Chat {
                messages,
                tools: tools.as_ref(),
                add_generation_prompt: true,
                bos_token: "<s>",
                eos_token: "</s>",
                unix_s: Some(UNIX_S),
            };
            match (render(&template.template, &chat), expected) {
                (Ok(ours), Some(expected)) if ours == *expected => same += 1,
                (Err(_), None) => refused += 1,
                (ours, expected) => {
                    eprintln!(
                        "{}\n  here    {ours:?}\n  jinja2  {expected:?}",
                        template.name
                    );
                    differing.insert(template.name.as_str());
                }
            }
        }
    }
    eprintln!("{same} prompts are the same, {refused} are refused by both");
    eprintln!("{tagged} templates teach tagged calls, {bare} bare ones");
    assert!(same > 400, "{same}");
    let listed = listed();
    assert!(listed.values().all(|reason| reason.len() > 20));
    assert_eq!(differing, listed.into_keys().collect());
}
