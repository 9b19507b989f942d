//! The chat templates of models in use say here what they say in Python.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use dovetail_chat::{Chat, Message, render};
use serde::Deserialize;

/// The moment that `golden/templates.py` renders with.
const UNIX_S: u64 = 1_721_995_200;

#[derive(Deserialize)]
struct Golden {
    conversations: Vec<Vec<Said>>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
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
    let conversations: Vec<Vec<Message>> = golden
        .conversations
        .into_iter()
        .map(|said| {
            let message = |Said { role, content }| Message { role, content };
            said.into_iter().map(message).collect()
        })
        .collect();
    let (mut same, mut refused, mut differing) = (0, 0, BTreeSet::new());
    for template in &golden.templates {
        for (messages, expected) in conversations.iter().zip(&template.prompts) {
            let chat = Chat {
                messages,
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
    assert!(same > 400, "{same}");
    let listed = listed();
    assert!(listed.values().all(|reason| reason.len() > 20));
    assert_eq!(differing, listed.into_keys().collect());
}
