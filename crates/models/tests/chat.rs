//! Chat templates of models in use, and of people who mean no good.
#![allow(clippy::unwrap_used)]

mod test_support;

use dovetail_chat::{Chat, ChatError, Message, render};
use dovetail_models::{ImportOptions, import};
use serde_json::json;
use test_support::Recipe;

/// SmolLM2's and Qwen2's (ChatML).
const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// Llama 3's.
const LLAMA_3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}\
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
/// Llama 2's, shortened.
const LLAMA_2: &str = "{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}\
{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

fn messages(texts: &[(&str, &str)]) -> Vec<Message> {
    let message = |(role, content): &(&str, &str)| Message::new(*role, *content);
    texts.iter().map(message).collect()
}

fn rendered(template: &str, texts: &[(&str, &str)]) -> Result<String, ChatError> {
    render(
        template,
        &Chat {
            messages: &messages(texts),
            add_generation_prompt: true,
            bos_token: "<s>",
            eos_token: "</s>",
            ..Chat::default()
        },
    )
}

#[test]
fn templates_in_use_say_what_their_models_were_trained_on() {
    assert_eq!(
        rendered(CHATML, &[("user", "Hi & <bye>")]).unwrap(),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
         <|im_start|>user\nHi & <bye><|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        rendered(LLAMA_3, &[("system", " Be brief. "), ("user", "Hi")]).unwrap(),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let turns = [("user", " a "), ("assistant", "b"), ("user", "c")];
    assert_eq!(
        rendered(LLAMA_2, &turns).unwrap(),
        "<s>[INST] a [/INST] b </s><s>[INST] c [/INST]"
    );
}

#[test]
fn a_template_may_refuse_in_its_own_words() {
    let refused = rendered(LLAMA_2, &[("assistant", "b")]).unwrap_err();
    let words = "Conversation roles must alternate user/assistant/user/assistant/...";
    assert_eq!(refused, ChatError::Refused(words.into()));
    let long = rendered("{{ raise_exception('\u{e9}' * 1000) }}", &[]).unwrap_err();
    assert!(matches!(long, ChatError::Refused(words) if words.len() <= 256));
}

#[test]
fn errors_name_a_line_and_quote_nothing() {
    assert_eq!(rendered("", &[]).unwrap_err(), ChatError::NoTemplate);
    let syntax = rendered("a\n{% if %}", &[]).unwrap_err();
    assert_eq!(syntax, ChatError::Syntax { line: 2 });
    let failed = rendered("\n{{ messages[0].content / 2 }}", &[("user", "secret")]).unwrap_err();
    assert!(matches!(failed, ChatError::Failed { line: 2, .. }));
    assert!(!failed.to_string().contains("secret"));
}

#[test]
fn hostile_templates_are_stopped() {
    let endless =
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}";
    let deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let doubling = "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}\
        {% for _ in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    let repeated = "{{ 'abcdefgh' * 1000000000 }}";
    let nested = "(".repeat(100_000);
    let nested = format!("{{{{ {nested} }}}}");
    for template in [endless, deep, doubling, repeated, &nested] {
        let error = rendered(template, &[("user", "Hi")]).unwrap_err();
        let name: String = template.chars().take(40).collect();
        assert!(!matches!(error, ChatError::Refused(_)), "{name}");
    }
}

#[test]
fn nothing_outside_can_be_included() {
    for template in [
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
    ] {
        assert!(rendered(template, &[]).is_err(), "{template}");
    }
}

#[test]
fn an_imported_template_brings_the_tokens_it_names() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let config = json!({
        "chat_template": [
            { "name": "tools", "template": "no" },
            { "name": "default", "template": LLAMA_2 },
        ],
        "bos_token": { "content": "<begin>", "special": true },
        "eos_token": "<\"end\">",
    });
    let path = folder.path().join("tokenizer_config.json");
    std::fs::write(path, config.to_string()).unwrap();
    let imported = import(folder.path(), &ImportOptions::default(), &mut |_| {}).unwrap();
    let template = &imported.parts.chat_template;
    let turns = [("user", "a"), ("assistant", "b")];
    assert_eq!(
        rendered(template, &turns).unwrap(),
        "<begin>[INST] a [/INST] b <\"end\">"
    );
    // A template in a file of its own comes first.
    let own = "{{ messages[0].content }}{{ eos_token }}";
    std::fs::write(folder.path().join("chat_template.jinja"), own).unwrap();
    let imported = import(folder.path(), &ImportOptions::default(), &mut |_| {}).unwrap();
    let template = &imported.parts.chat_template;
    assert_eq!(rendered(template, &turns).unwrap(), "a<\"end\">");
}

fn date_of(template: &str, unix_s: Option<u64>) -> Result<String, ChatError> {
    let chat = Chat {
        messages: &[],
        add_generation_prompt: true,
        unix_s,
        ..Chat::default()
    };
    render(template, &chat)
}

#[test]
fn maps_keep_their_order_and_json_is_pythons() {
    // As Llama Guard 3 lists its categories.
    let ordered = "{% set c = ({'S1': 'a', 'S10': 'b', 'S2': 'c'}) %}\
        {% for k in c %}{{ k }} {% endfor %}{% for k, v in c.items() %}{{ k ~ v }} {% endfor %}";
    assert_eq!(rendered(ordered, &[]).unwrap(), "S1 S10 S2 S1a S10b S2c ");
    let message = "{{ messages[0] | tojson }}";
    assert_eq!(
        rendered(message, &[("user", "<b> & 'ü' \"\n\u{7f}")]).unwrap(),
        r#"{"role": "user", "content": "<b> & 'ü' \"\n"#.to_owned() + "\u{7f}\"}"
    );
    for (expression, text) in [
        (
            "[1, 2.0, true, none, []] | tojson",
            "[1, 2.0, true, null, []]",
        ),
        (
            "{'b': 1, 'a': {}} | tojson(sort_keys=true)",
            "{\"a\": {}, \"b\": 1}",
        ),
        (
            "'\u{1f600}' | tojson(ensure_ascii=true)",
            "\"\\ud83d\\ude00\"",
        ),
        (
            "{'a': [1, {'b': 2}]} | tojson(indent=2)",
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ]\n}",
        ),
    ] {
        let template = format!("{{{{ {expression} }}}}");
        assert_eq!(rendered(&template, &[]).unwrap(), text);
    }
    let doubling = "{% set ns = namespace(x=[1]) %}\
        {% for _ in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    assert_eq!(rendered(doubling, &[]).unwrap_err(), ChatError::TooLong);
}

#[test]
fn templates_use_what_transformers_gives_them() {
    let loops = "{% for m in range(9) %}{% if m == 1 %}{% continue %}{% endif %}\
        {% if m == 3 %}{% break %}{% endif %}{{ m }}{% endfor %}";
    assert_eq!(rendered(loops, &[]).unwrap(), "02");
    let marked = "{%- generation -%} {{ messages[0].content }} {%- endgeneration %}.";
    assert_eq!(rendered(marked, &[("assistant", "Hi")]).unwrap(), "Hi.");
    let iterable = "{{ none is iterable }} {{ [] is iterable }} {{ 'a' is iterable }}";
    assert_eq!(
        rendered(iterable, &[]).unwrap().to_lowercase(),
        "false true true"
    );
    let dated = "{{ strftime_now('%d %b %Y') }}";
    assert_eq!(date_of(dated, Some(1_721_995_200)).unwrap(), "26 Jul 2024");
    assert!(date_of(dated, None).is_err());
    let llama =
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}fixed{% endif %}";
    assert_eq!(date_of(llama, None).unwrap(), "fixed");
}
