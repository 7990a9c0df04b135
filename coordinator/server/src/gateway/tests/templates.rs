//! Templates render as transformers renders them, within bounds.
//!
//! `templates/golden.json` holds what `apply_chat_template` of transformers 5 made of the same template, messages and variables,
//! with the clock at 2025-11-24 00:00.

use std::sync::Arc;

use minijinja::Value;
use proptest::prelude::*;
use serde::Deserialize;

use super::cards::{byte_level, files};
use crate::gateway::text::card::{Card, CardError};
use crate::gateway::text::chat_template::ChatTemplate;
use crate::gateway::text::rendering::Here;
use crate::gateway::text::template::{Conversation, Template, TemplateError};

const NOW_UNIX_S: u64 = 1_763_942_400;

#[derive(Deserialize)]
struct Golden {
    template: String,
    messages: Vec<Value>,
    tools: Option<Value>,
    variables: std::collections::BTreeMap<String, Value>,
    prompt: String,
}

fn source(name: &str) -> &'static str {
    match name {
        "chatml" => include_str!("templates/chatml.jinja"),
        "headers" => include_str!("templates/headers.jinja"),
        "inst" => include_str!("templates/inst.jinja"),
        "thinking" => include_str!("templates/thinking.jinja"),
        "corners" => include_str!("templates/corners.jinja"),
        other => panic!("no template {other}"),
    }
}

fn tokens() -> Vec<(String, String)> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).to_vec()
}

fn compile(source: &str) -> Template {
    Template::compile(source, tokens()).expect("compiles")
}

fn user(text: &str) -> Value {
    Value::from_pairs([("role", "user"), ("content", text)])
}

fn talk(messages: Vec<Value>) -> Conversation {
    let bytes = messages.iter().map(|message| message.to_string().len()).sum();
    Conversation { messages, tools: None, variables: Vec::new(), now_unix_s: NOW_UNIX_S, bytes }
}

fn render(source: &str, messages: Vec<Value>) -> Result<String, TemplateError> {
    compile(source).render(talk(messages))
}

#[test]
fn every_template_renders_as_transformers_renders_it() {
    let golden: Vec<Golden> = serde_json::from_str(include_str!("templates/golden.json")).expect("golden");
    assert_eq!(golden.len(), 13);
    for (at, case) in golden.into_iter().enumerate() {
        let conversation = || Conversation {
            messages: case.messages.clone(),
            tools: case.tools.clone(),
            variables: case.variables.clone().into_iter().collect(),
            now_unix_s: NOW_UNIX_S,
            bytes: 0,
        };
        let prompt = compile(source(&case.template)).render(conversation()).expect("renders");
        assert_eq!(prompt, case.prompt, "case {at}: {}", case.template);
        let template = ChatTemplate::new(source(&case.template).to_owned(), tokens()).expect("short");
        let asked_for = Here::rendered(&Arc::new(template), conversation()).expect("renders");
        assert_eq!(asked_for, case.prompt, "case {at}, as a renderer is asked for it: {}", case.template);
    }
}

#[test]
fn a_template_that_refuses_is_heard_in_its_own_words() {
    let error = render(source("inst"), vec![user("a"), user("b")]).expect_err("refused");
    assert!(
        matches!(error, TemplateError::Raised(words) if words == "After the optional system message, user and assistant take turns.")
    );
}

#[test]
fn a_failing_template_names_its_line_and_quotes_no_message() {
    let error = render("one\n{{ messages[0].content + 1 }}", vec![user("the secret")]).expect_err("fails");
    assert!(matches!(error, TemplateError::Render { line: 2, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn endless_work_is_stopped() {
    let loops =
        "{% for a in range(90000) %}{% for b in range(90000) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let repeated = "{{ 'x' * 90000000 }}{{ 'x' * 90000000 }}";
    let padded = "{% for i in range(100000) %}{{ messages[0].content }}{% endfor %}";
    for source in [loops, doubling, repeated, padded] {
        let error = render(source, vec![user(&"y".repeat(4_096))]).expect_err("stopped");
        assert!(matches!(error, TemplateError::OutOfBounds), "{source}: {error:?}");
    }
}

#[test]
fn endless_recursion_is_stopped() {
    let error = render("{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}", vec![user("")]);
    assert!(error.is_err());
}

#[test]
fn no_template_is_so_deep_that_its_parsing_ends_the_process() {
    let (plus, minus) = ("+1".repeat(120_000), "-".repeat(250_000));
    let (filters, branches) = ("|trim".repeat(50_000), "{% elif 0 %}".repeat(20_000));
    for source in [
        format!("{{{{ 1{plus} }}}}"),
        format!("{{{{ {minus}1 }}}}"),
        format!("{{{{ messages{filters} }}}}"),
        format!("{{% if 0 %}}{branches}{{% endif %}}"),
    ] {
        // Whether it is one is not the question.
        let _ = Template::compile(&source, Vec::new()).map(|template| template.render(talk(vec![user("")])));
    }
}

#[test]
fn no_value_is_so_deep_that_its_end_ends_the_process() {
    let nested = |what: &str| {
        let work =
            "{% for i in range(90000) %}{% set ns.x = [[[ns.x]]] %}{% set ns.y = {'a': ns.y} %}{% endfor %}";
        let some = "{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}";
        let begin = "{% set ns = namespace(x=[], y=[]) %}";
        [format!("{begin}{work}{what}"), format!("{begin}{some}{what}")]
    };
    for what in ["", "{{ ns.x }}", "{{ ns.x == ns.y }}", "{{ ns.x < ns.y }}", "{{ ns.x | tojson }}"] {
        for source in nested(what) {
            let _ = render(&source, vec![user("")]);
        }
    }
    let [_, deep] = nested("{{ ns.x | tojson(sort_keys=true) }}");
    assert!(matches!(render(&deep, vec![user("")]), Err(TemplateError::Render { .. })));
}

#[test]
fn json_that_would_fill_the_memory_is_not_written() {
    let doubled =
        "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for source in
        [format!("{doubled}{{{{ ns.x | tojson }}}}"), "{{ [1] | tojson(indent=999999999999) }}".to_owned()]
    {
        let error = render(&source, vec![user("")]).expect_err("stopped");
        assert!(matches!(error, TemplateError::OutOfBounds), "{source}: {error:?}");
    }
}

#[test]
fn a_long_conversation_stays_within_the_bounds() {
    let turn = |at: usize| {
        let role = if at.is_multiple_of(2) { "user" } else { "assistant" };
        Value::from_pairs([("role", role.to_owned()), ("content", "word ".repeat(20))])
    };
    let messages: Vec<Value> = (0..2_001).map(turn).collect();
    for name in ["chatml", "headers", "inst", "thinking"] {
        let prompt = render(source(name), messages.clone()).expect(name);
        assert!(prompt.len() > 2_000 * 100, "{name}");
    }
}

#[test]
fn nothing_outside_can_be_reached() {
    for source in ["{% include 'secrets.txt' %}", "{% import 'os' as os %}", "{% extends 'base' %}"] {
        assert!(Template::compile(source, Vec::new()).is_err(), "{source}");
    }
    for source in [
        "{{ open('secrets.txt') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__ }}",
    ] {
        assert!(render(source, vec![user("")]).is_err(), "{source}");
    }
}

#[test]
fn a_monstrous_template_is_refused_before_it_is_read() {
    let error = Template::compile(&"x".repeat((256 << 10) + 1), Vec::new()).err().expect("refused");
    assert!(matches!(error, TemplateError::TooLong(_)));
}

#[test]
fn the_template_of_its_own_file_wins_over_the_configurations() {
    let config = |template: serde_json::Value| {
        ("tokenizer_config.json", serde_json::json!({"chat_template": template}).to_string())
    };
    let rendered = |more: &[(&str, String)]| {
        let card = Card::from_files(&files(&byte_level(), more)).expect("a card");
        card.template
            .as_ref()
            .map(|template| Here::rendered(template, talk(vec![user("")])).expect("renders"))
    };
    let named = serde_json::json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]);
    let file = ("chat_template.jinja", "file".to_owned());
    let processor = ("chat_template.json", r#"{"chat_template":"processor"}"#.to_owned());
    assert_eq!(rendered(&[]), None);
    assert_eq!(rendered(&[config("inside".into())]).as_deref(), Some("inside"));
    assert_eq!(rendered(&[config(named)]).as_deref(), Some("plain"));
    assert_eq!(rendered(&[config("inside".into()), processor.clone()]).as_deref(), Some("processor"));
    assert_eq!(rendered(&[config("inside".into()), processor, file]).as_deref(), Some("file"));
}

#[test]
fn a_card_without_a_tokenizer_or_with_broken_files_is_refused() {
    assert!(matches!(
        Card::from_files(&std::collections::BTreeMap::new()),
        Err(CardError::Missing("tokenizer.json"))
    ));
    for file in ["tokenizer_config.json", "generation_config.json", "chat_template.json"] {
        let error =
            Card::from_files(&files(&byte_level(), &[(file, "{".to_owned())])).err().expect("refused");
        assert!(error.to_string().contains(file), "{error}");
    }
    let long = "x".repeat((256 << 10) + 1);
    let error = Card::from_files(&files(&byte_level(), &[("chat_template.jinja", long)])).err();
    assert!(matches!(error, Some(CardError::Template(TemplateError::TooLong(_)))));
    let error = Template::compile("{% if %}", Vec::new()).err().expect("refused");
    assert!(matches!(error, TemplateError::Compile(_)));
}

/// Pieces of templates, most of them where they make no sense.
fn any_template() -> impl Strategy<Value = String> {
    let pieces = [
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if m %}",
        "{% else %}",
        "{% endif %}",
        "{{ m.content }}",
        "{{ m['role'] | tojson }}",
        "{% set x = messages * 9 %}",
        "{{ x }}",
        "{% macro f(a) %}{{ f(a) }}{% endmacro %}",
        "{{ f(1) }}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%d') }}",
        "{{",
        "%}",
        "{#",
        "{% generation %}",
        "{{ 'a' * 99999999 }}",
        "{{ range(99999999) | list }}",
        "{{ m.content[::-1].strip().split('a')[9] }}",
        "{{ messages[-1:][0].x.y }}",
        "{% break %}",
        "\u{0}",
        "é",
    ];
    let piece = prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), "[ -~]{0,8}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_template_brings_the_gateway_down(source in any_template()) {
        let Ok(template) = Template::compile(&source, Vec::new()) else { return Ok(()) };
        let message = serde_json::json!({"role": "user", "content": "hi"});
        let conversation = Conversation {
            messages: vec![serde_json::from_value(message).expect("a value"); 2],
            tools: None,
            variables: Vec::new(),
            now_unix_s: NOW_UNIX_S,
            bytes: 0,
        };
        let _ = template.render(conversation);
    }
}
