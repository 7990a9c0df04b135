//! Renderers: real processes. The tests start themselves again as the child.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use minijinja::Value;
use proptest::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::frames::{GREETING, Question};
use super::{Render as _, RenderError, Renderers, Task, frames, render_templates};
use crate::config::RendererProgram;
use crate::gateway::limits;
use crate::gateway::text::chat_template::ChatTemplate;
use crate::gateway::text::template::Conversation;

/// Among the child's arguments, where it means that no test has this name.
const MARK: &str = "renderer-of-a-test";
/// As Linux tells it of a descriptor.
const CLOSED_ON_EXEC: u32 = 0o2_000_000;
/// Two lists that share their parts: twenty bytes more than this are work for a century.
const SHARED: &str = "{% set ns = namespace(x=[1], y=[1]) %}\
    {% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";

#[test]
#[ignore = "the child of the tests here"]
fn child_renders_until_its_input_ends() {
    // It gives up what a process with other tests in it still needs.
    if std::env::args().any(|argument| argument.starts_with(MARK)) {
        let _ = render_templates();
    }
}

/// Their processes are told apart by the mark.
fn renderers(of: &str) -> Renderers {
    let test = module_path!().split_once("::").expect("in a crate").1;
    let child = format!("{test}::child_renders_until_its_input_ends");
    let mark = format!("{MARK}-{of}");
    let arguments = ["--exact", &child, "--ignored", "--nocapture", "--skip", &mark];
    let program = std::env::current_exe().expect("this program");
    Renderers::new(RendererProgram { program, arguments: arguments.map(Into::into).to_vec() })
}

/// A program of somebody else.
fn script(lines: &str) -> Renderers {
    let arguments = ["-c", lines].map(Into::into).to_vec();
    Renderers::new(RendererProgram { program: "/bin/sh".into(), arguments })
}

fn template(source: &str) -> Arc<ChatTemplate> {
    Arc::new(ChatTemplate::new(source.to_owned(), Vec::new()).expect("short"))
}

fn said(text: &str) -> Conversation {
    let message = Value::from_pairs([("role", "user"), ("content", text)]);
    Conversation {
        messages: vec![message],
        tools: None,
        variables: Vec::new(),
        now_unix_s: 0,
        bytes: text.len(),
    }
}

async fn render(renderers: &Renderers, template: &Arc<ChatTemplate>) -> Result<String, RenderError> {
    let rendering = renderers.render(Task::rendering(template, "demo", said("hello"))?);
    timeout(Duration::from_secs(60), rendering).await.expect("nothing hangs")
}

/// The processes with this mark.
fn pids(of: &str) -> Vec<Pid> {
    let listed = Command::new("ps").args(["-axww", "-o", "pid=,args="]).output().expect("ps");
    let mark = format!("--skip {MARK}-{of}");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ours = listed.lines().filter(|line| line.ends_with(&mark));
    ours.filter_map(|line| Pid::from_raw(line.split_whitespace().next()?.parse().ok()?)).collect()
}

#[tokio::test]
async fn a_renderer_renders_again_and_again_and_says_what_a_template_says() {
    let renderers = renderers("again");
    for _ in 0..3 {
        let prompt = render(&renderers, &template("{{ messages[0].content }}!")).await;
        assert_eq!(prompt.as_deref(), Ok("hello!"));
    }
    let raised = render(&renderers, &template("{{ raise_exception('Not so.') }}")).await;
    assert_eq!(raised, Err(RenderError::Raised("Not so.".to_owned())));
    let failed = render(&renderers, &template("one\n{{ messages[0].content + 1 }}")).await;
    let Err(RenderError::Failed(words)) = failed else { panic!("{failed:?}") };
    assert!(words.contains("line 2") && !words.contains("hello"), "{words}");
    let endless = "{% for a in range(90000) %}{% for b in range(90000) %}{{ a }}{% endfor %}{% endfor %}";
    assert_eq!(render(&renderers, &template(endless)).await, Err(RenderError::OutOfBounds));
    let broken = renderers.render(Task::compiling(&template("{% if %}"), "a card").expect("short")).await;
    assert!(
        matches!(broken, Err(RenderError::Failed(words)) if words.starts_with("the chat template does not compile"))
    );
    assert_eq!(pids("again").len(), 1, "one renderer did it all");
}

/// In some of these forms values are compared, in the others they fill the memory.
#[tokio::test]
async fn work_that_fuel_does_not_count_ends_one_renderer_and_no_other_request() {
    let renderers = renderers("shared");
    let honest = template("{{ messages[0].content }}");
    for form in ["{{ ns.x == ns.y }}", "{{ ns.x ~ '' }}", "{{ ns.x }}"] {
        let hostile = template(&format!("{SHARED}{form}"));
        let mut answered = 0;
        let stopped = async { render(&renderers, &hostile).await };
        tokio::pin!(stopped);
        let stopped = loop {
            tokio::select! {
                stopped = &mut stopped => break stopped,
                prompt = render(&renderers, &honest) => {
                    assert_eq!(prompt.as_deref(), Ok("hello"), "beside {form}");
                    answered += 1;
                }
            }
        };
        // Some the engine stops by itself.
        assert_eq!(stopped, Err(RenderError::OutOfBounds), "{form}");
        if form.contains("==") {
            assert!(answered > 0, "nobody else was served");
        }
    }
}

#[tokio::test]
async fn a_template_that_nobody_can_compile_in_time_is_told_so() {
    let deep = template(&format!("{{{{ x{} }}}}", "+1".repeat(120_000)));
    let told = renderers("deep").render(Task::compiling(&deep, "a card").expect("short")).await;
    assert_eq!(told, Err(RenderError::OutOfBounds));
}

#[tokio::test]
async fn a_renderer_that_is_killed_in_the_middle_costs_nobody_an_answer() {
    let (renderers, honest) = (renderers("killed"), template("{{ messages[0].content }}"));
    render(&renderers, &honest).await.expect("renders");
    let [pid] = pids("killed")[..] else { panic!("one renderer") };
    kill_process(pid, Signal::STOP).expect("ours");
    let rendering = tokio::spawn(async move { render(&renderers, &honest).await });
    // It has the question as soon as the task has run.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    kill_process(pid, Signal::KILL).expect("ours");
    assert_eq!(rendering.await.expect("no panic").as_deref(), Ok("hello"));
    assert!(!pids("killed").contains(&pid));
}

#[tokio::test]
async fn a_renderer_that_does_not_answer_is_killed_after_a_while() {
    let (renderers, honest) = (renderers("stopped"), template("{{ messages[0].content }}"));
    render(&renderers, &honest).await.expect("renders");
    let [pid] = pids("stopped")[..] else { panic!("one renderer") };
    kill_process(pid, Signal::STOP).expect("ours");
    assert_eq!(render(&renderers, &honest).await, Err(RenderError::OutOfBounds));
    assert!(!pids("stopped").contains(&pid));
    assert_eq!(render(&renderers, &honest).await.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn a_template_that_ends_three_renderers_in_a_row_is_not_tried_for_a_while_and_others_are() {
    let renderers = script(&format!("echo; echo '{GREETING}'; exec head -c 4"));
    let (hostile, other) = (template("a"), template("b"));
    for _ in 0..limits::TEMPLATE_STRIKES {
        assert_eq!(render(&renderers, &hostile).await, Err(RenderError::Lost));
    }
    let refused = render(&renderers, &hostile).await;
    assert!(
        matches!(refused, Err(RenderError::Refused { again_in }) if again_in <= limits::TEMPLATE_REFUSED)
    );
    assert_eq!(render(&renderers, &other).await, Err(RenderError::Lost));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_place_in_the_line() {
    let (renderers, honest) = (renderers("line"), template("{{ messages[0].content }}"));
    let turns = &honest.standing.turns;
    let all = u32::try_from(limits::RENDERINGS_PER_TEMPLATE).expect("a few");
    let held = turns.clone().acquire_many_owned(all).await.expect("open");
    let waiting = renderers.render(Task::rendering(&honest, "demo", said("hello")).expect("short"));
    assert!(timeout(Duration::ZERO, waiting).await.is_err(), "no turn is left");
    drop(held);
    assert_eq!(turns.available_permits(), limits::RENDERINGS_PER_TEMPLATE);
    assert_eq!(render(&renderers, &honest).await.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn one_template_has_a_few_turns_and_the_others_the_rest() {
    let renderers = renderers("turns");
    let (busy, honest) = (template("a"), template("{{ messages[0].content }}"));
    let _held = busy.standing.turns.clone().acquire_many_owned(2).await.expect("open");
    let waiting: Vec<_> =
        (0..20).map(|_| renderers.render(Task::compiling(&busy, "a").expect("short"))).collect();
    let waiting = futures_util::future::join_all(waiting);
    tokio::pin!(waiting);
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    assert_eq!(render(&renderers, &honest).await.as_deref(), Ok("hello"));
    assert_eq!(pids("turns").len(), 1, "nobody who waits for a turn has a renderer");
}

#[tokio::test]
async fn a_program_that_is_not_there_or_has_other_frames_is_no_renderer() {
    let missing = RendererProgram { program: "/no/such/program".into(), arguments: Vec::new() };
    for renderers in [Renderers::new(missing), script("echo 'mlx-serving renderer 0'"), script("exec yes")] {
        assert_eq!(render(&renderers, &template("a")).await, Err(RenderError::NotStarted));
    }
}

#[tokio::test]
async fn a_renderer_has_no_environment_no_files_and_no_descriptor_that_was_opened_here() {
    let renderers = renderers("bare");
    let _open = std::fs::File::open(std::env::current_exe().expect("this program")).expect("opens");
    render(&renderers, &template("a")).await.expect("renders");
    let [pid] = pids("bare")[..] else { panic!("one renderer") };
    let about = std::path::PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    // Elsewhere there is nowhere to look.
    if !about.exists() {
        return;
    }
    assert!(std::fs::read(about.join("environ")).expect("ours").is_empty());
    let handed_on = |fd: &str| {
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        flags
            .and_then(|flags| u32::from_str_radix(flags, 8).ok())
            .is_some_and(|flags| flags & CLOSED_ON_EXEC == 0)
    };
    let descriptors = std::fs::read_dir(about.join("fd")).expect("ours");
    let descriptors =
        descriptors.map(|entry| entry.expect("an entry").file_name().into_string().expect("a number"));
    // Whoever started this process may have left it some.
    let more: Vec<_> =
        descriptors.filter(|fd| !["0", "1", "2"].contains(&fd.as_str()) && !handed_on(fd)).collect();
    assert_eq!(more, [""; 0]);
    let limits = std::fs::read_to_string(about.join("limits")).expect("ours");
    let bound = |what: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(what)).expect("a limit");
        line.split_whitespace().next().expect("a bound").to_owned()
    };
    assert_eq!(bound("Max address space"), limits::RENDERER_MEMORY_BYTES.to_string());
    let bounds = ["Max core file size", "Max file size", "Max open files"].map(bound);
    assert_eq!(bounds, ["0", "0", "3"]);
    assert!(bound("Max cpu time").parse::<u64>().is_ok_and(|seconds| seconds <= 1 + limits::RENDERING_CPU_S));
}

const FRAMES: &str = r"\x93\xa7{{ x }}\x91\x92\xa9bos_token\xa3<s>\x95\x91\x82\xa4role\xa4user\xa7content\xa2hi\xc0\x91\x92\xa1v\x01\x00\x02
\x93\xa7{{ x }}\x90\xc0
\x81\xa6Prompt\xa1p
\x81\xa6Raised\xa1r
\xabOutOfBounds
\x81\xa6Failed\xa1f";

/// Whoever changes what is expected here changes the number in the greeting as well.
#[test]
fn a_release_with_the_same_greeting_has_the_same_frames() {
    let mut conversation = said("hi");
    conversation.variables = vec![("v".to_owned(), Value::from(1))];
    let bos = [("bos_token".to_owned(), "<s>".to_owned())];
    let frames = [
        frames::question("{{ x }}", &bos, Some(conversation)).expect("short"),
        frames::question("{{ x }}", &[], None).expect("short"),
        frames::Answer::Prompt("p".to_owned()).encode(),
        frames::Answer::Raised("r".to_owned()).encode(),
        frames::Answer::OutOfBounds.encode(),
        frames::Answer::Failed("f".to_owned()).encode(),
    ];
    let told = frames.map(|frame| frame.escape_ascii().to_string());
    assert_eq!((GREETING, told.join("\n").as_str()), ("mlx-serving renderer 1", FRAMES));
}

#[test]
fn what_is_too_long_is_asked_of_nobody() {
    let text = "x".repeat(limits::RENDERER_QUESTION_BYTES_MAX);
    assert!(matches!(Task::rendering(&template(""), "demo", said(&text)), Err(RenderError::OutOfBounds)));
    assert!(frames::length(u32::MAX.to_be_bytes(), limits::RENDERER_ANSWER_BYTES_MAX).is_err());
    let raised = frames::Answer::Raised("x".repeat(limits::RENDERER_ANSWER_BYTES_MAX));
    let told: frames::Answer = rmp_serde::from_slice(&raised.encode()).expect("an answer");
    assert_eq!(told.result(), Err(RenderError::OutOfBounds));
}

/// As a client may write it: keys in any order, all numbers, all text.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("a JSON number", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        prop::sample::select(vec!["-0.0", "1.0", "18446744073709551616", "0.1", "1e-7"])
            .prop_map(str::to_owned),
    ];
    let text = any::<String>().prop_map(|text| serde_json::Value::from(text).to_string());
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "{}", "[]"]).prop_map(str::to_owned),
        number,
        text.clone(),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let list =
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(",")));
        let entry = (text.clone(), inner).prop_map(|(key, value)| format!("{key}:{value}"));
        let map = prop::collection::vec(entry, 0..4).prop_map(|entries| format!("{{{}}}", entries.join(",")));
        prop_oneof![list, map]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_template_sees_the_types_the_numbers_and_the_order_that_the_client_wrote(json in any_json()) {
        let value: Value = serde_json::from_str(&json).expect("JSON");
        let mut conversation = said("é");
        conversation.messages.push(value.clone());
        conversation.tools = Some(value.clone());
        conversation.variables = vec![("z".to_owned(), value.clone()), ("a".to_owned(), Value::from(1))];
        let question = frames::question("s", &[], Some(conversation)).expect("short");
        let question: Question = rmp_serde::from_slice(&question).expect("a question");
        let seen = question.conversation.expect("a conversation");
        let names: Vec<_> = seen.variables.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(names, ["z", "a"]);
        let tools = seen.tools.unwrap_or(Value::from(()));
        for seen in [&seen.messages[1], &tools, &seen.variables[0].1] {
            prop_assert_eq!(seen.kind(), value.kind());
            // Debug has the order of keys and the kinds of numbers, and tells -0.0 from 0.0.
            prop_assert_eq!(format!("{seen:?}"), format!("{value:?}"));
            prop_assert_eq!(serde_json::to_string(seen).expect("JSON"), serde_json::to_string(&value).expect("JSON"));
        }
    }
}
