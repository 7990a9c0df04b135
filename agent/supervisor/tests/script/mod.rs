//! The language of the scenarios: one command a line, effects in words.
//!
//! Owns both directions. Refuses a line it does not understand, so that a typing error is no silent success.
//!
//! ```text
//! @0 want a=40              the complete wish, sizes in bytes; time in seconds, `@next` = the supervisor's own deadline
//! @1 exited 1 signal=11 last words
//! ```

use supervisor::{At, Command, Effect, ExitStatus, Incarnation, ModelKey, Span, Supervisor, Wanted};

/// Tells the supervisor one line `@<seconds> <command>`; returns the effects in words.
pub(crate) fn tell(supervisor: &mut Supervisor, line: &str) -> Vec<String> {
    let (at, command) = line.split_once(' ').unwrap_or_else(|| panic!("no command: {line}"));
    let at = match at.strip_prefix('@').unwrap_or_else(|| panic!("no time: {line}")) {
        "next" => supervisor.next_deadline().expect("a deadline").0,
        seconds => At(micros(seconds)),
    };
    let mut effects = Vec::new();
    supervisor.apply(at, command_of(command), &mut effects);
    assert_eq!(supervisor.violation(), None, "after {line}");
    effects.iter().map(effect_words).collect()
}

fn command_of(text: &str) -> Command {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let incarnation = || Incarnation(first.parse().unwrap_or_else(|_| panic!("no process: {text}")));
    match verb {
        "want" => Command::Want { models: rest.split_whitespace().map(wanted).collect() },
        "unresolvable" => {
            let (retry, reason) = more.split_once(' ').unwrap();
            let retry = match retry {
                "retry" => true,
                "final" => false,
                other => panic!("retry or final, not {other}"),
            };
            Command::Unresolvable { model: key(first), reason: reason.to_owned(), retry }
        }
        "started" => Command::Started { incarnation: incarnation(), pid: more.parse().unwrap() },
        "start-failed" => Command::StartFailed { incarnation: incarnation(), reason: more.to_owned() },
        "hello" => Command::Hello { incarnation: incarnation() },
        "loaded" => Command::Loaded { incarnation: incarnation(), bytes: more.parse().unwrap() },
        "load-failed" => {
            let (reason, permanent) =
                more.strip_prefix("final ").map_or((more, false), |reason| (reason, true));
            Command::LoadFailed { incarnation: incarnation(), reason: reason.to_owned(), permanent }
        }
        "progress" => {
            let expected_step = Span(if more.is_empty() { 0 } else { micros(more) });
            Command::Progress { incarnation: incarnation(), expected_step }
        }
        "drained" => Command::Drained { incarnation: incarnation() },
        "exited" => {
            let (how, last_words) = more.split_once(' ').unwrap_or((more, ""));
            Command::Exited {
                incarnation: incarnation(),
                status: status(how),
                last_words: last_words.to_owned(),
            }
        }
        "drain" => Command::Drain,
        "wake" => Command::Wake,
        _ => panic!("not a command: {text}"),
    }
}

fn wanted(text: &str) -> Wanted {
    let (model, bytes) = text.split_once('=').unwrap_or_else(|| panic!("no size: {text}"));
    Wanted { model: key(model), bytes: bytes.parse().unwrap() }
}

fn status(text: &str) -> ExitStatus {
    match text.split_once('=') {
        Some(("code", code)) => ExitStatus { code: Some(code.parse().unwrap()), signal: None },
        Some(("signal", signal)) => ExitStatus { code: None, signal: Some(signal.parse().unwrap()) },
        _ => panic!("code=N or signal=N, not {text}"),
    }
}

fn effect_words(effect: &Effect) -> String {
    match effect {
        Effect::Start { incarnation, model } => format!("start {incarnation} {}", name(*model)),
        Effect::Load { incarnation, model } => format!("load {incarnation} {}", name(*model)),
        Effect::Drain { incarnation } => format!("drain {incarnation}"),
        Effect::Resume { incarnation } => format!("resume {incarnation}"),
        Effect::Stop { incarnation } => format!("stop {incarnation}"),
        Effect::Kill { incarnation, reason } => {
            let alarm = if reason.is_alarm() { " ALARM" } else { "" };
            format!("kill {incarnation}{alarm}: {reason}")
        }
        Effect::State { model, state } => format!("{}: {state}", name(*model)),
    }
}

/// Models are called by a letter.
pub(crate) fn key(name: &str) -> ModelKey {
    let letter = name.bytes().next().filter(|letter| name.len() == 1 && letter.is_ascii_lowercase());
    ModelKey(u32::from(letter.unwrap_or_else(|| panic!("a model is one letter, not {name:?}")) - b'a'))
}

pub(crate) fn name(model: ModelKey) -> char {
    char::from_u32(u32::from(b'a') + model.0).unwrap()
}

fn micros(seconds: &str) -> u64 {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    assert!(fraction.len() <= 6, "microseconds at most: {seconds}");
    let fraction: u64 = format!("{fraction:0<6}").parse().unwrap();
    whole.parse::<u64>().unwrap() * 1_000_000 + fraction
}
