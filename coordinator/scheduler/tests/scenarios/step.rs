//! One step of a scenario, read from its line. Owns the vocabulary; `README.md` lists it for people.

use scheduler::{
    At, Attempt, Class, Command, Limits, ModelReport, NodeReport, Outcome, Rates, RequestId, Span,
    Submission, TenantId,
};

use crate::cast::{self, Cast};

/// What a step asks of the scheduler.
pub(crate) enum Step {
    Apply(Command),
    Explain(RequestId),
    Position(RequestId),
    NextWake,
    Load,
    Resume,
}

/// Reads the part after `at <time>:`.
pub(crate) fn read(text: &str, at: At, cast: &mut Cast) -> Result<Step, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["time", "passes"] => Ok(Step::Apply(Command::Wake)),
        ["next", "wake-up?"] => Ok(Step::NextWake),
        ["load?"] => Ok(Step::Load),
        ["resume"] => Ok(Step::Resume),
        ["explain", "request", number] => cast::request(number).map(Step::Explain),
        ["position", "of", "request", number] => cast::request(number).map(Step::Position),
        ["request", number, "for", rest @ ..] => submit(number, &rest.join(" "), at, cast).map(Step::Apply),
        ["request", number, "is", "cancelled"] => {
            Ok(Step::Apply(Command::Cancel { request: cast::request(number)? }))
        }
        ["request", number, "attempt", attempt, rest @ ..] => {
            attempt_event(cast::request(number)?, attempt, &rest.join(" ")).map(Step::Apply)
        }
        [node, "is", "lost"] => Ok(Step::Apply(Command::NodeLost { node: cast::node(node)? })),
        [node, "drains"] => drain(node, true),
        [node, "drains", "no", "more"] => drain(node, false),
        [node, "holds", rest @ ..] => holds(node, &rest.join(" "), cast).map(Step::Apply),
        _ => Err(format!("`{text}` is not a step")),
    }
}

fn drain(node: &str, draining: bool) -> Result<Step, String> {
    Ok(Step::Apply(Command::NodeDraining { node: cast::node(node)?, draining }))
}

/// `qwen arrives, prompt 1000, answer 200, due in 60 s, waiting since 3 s`
fn submit(number: &str, rest: &str, at: At, cast: &mut Cast) -> Result<Command, String> {
    let mut parts = rest.split(", ");
    let model = parts.next().and_then(|first| first.strip_suffix(" arrives")).ok_or("a request `arrives`")?;
    let mut submission = Submission {
        request: cast::request(number)?,
        model: cast.model(model),
        tenant: TenantId(1),
        class: Class::Interactive,
        prompt_tokens: 1_000,
        max_tokens: 100,
        arrived: at,
        deadline: at + Span::from_s(600),
    };
    for part in parts {
        if let Some(tokens) = part.strip_prefix("prompt ") {
            submission.prompt_tokens = whole(tokens)?;
        } else if let Some(tokens) = part.strip_prefix("answer ") {
            submission.max_tokens = whole(tokens)?;
        } else if let Some(time) = part.strip_prefix("due in ") {
            submission.deadline = at + span(time)?;
        } else if let Some(time) = part.strip_prefix("waiting since ") {
            submission.arrived = At(0) + span(time)?;
        } else {
            return Err(format!("`{part}` says nothing about a request"));
        }
    }
    Ok(Command::Submit(submission))
}

fn attempt_event(request: RequestId, attempt: &str, event: &str) -> Result<Command, String> {
    let attempt = Attempt(whole(attempt)?);
    let finished = |outcome, generated| Command::Finished { request, attempt, outcome, generated };
    match event {
        "begins" => Ok(Command::Began { request, attempt }),
        "fails" => Ok(finished(Outcome::Failed, 0)),
        "is told busy" => Ok(finished(Outcome::Busy, 0)),
        "is rejected" => Ok(finished(Outcome::Rejected, 0)),
        "loses its client" => Ok(finished(Outcome::ClientGone, 0)),
        "completes" => Ok(finished(Outcome::Completed, 100)),
        _ => {
            let tokens = event.strip_prefix("completes with ").and_then(|rest| rest.strip_suffix(" tokens"));
            tokens
                .ok_or(format!("`{event}` does not happen to attempts"))
                .and_then(whole)
                .map(|tokens| finished(Outcome::Completed, tokens))
        }
    }
}

/// `nothing`, or `qwen with 2 slots, prefill 500, step 40, slope 0.5; llama with 1 slots`
fn holds(node: &str, rest: &str, cast: &mut Cast) -> Result<Command, String> {
    let mut models = Vec::new();
    for text in rest.split("; ").filter(|text| *text != "nothing") {
        models.push(model(text, cast)?);
    }
    Ok(Command::NodeReported { node: cast::node(node)?, report: NodeReport { models } })
}

fn model(text: &str, cast: &mut Cast) -> Result<ModelReport, String> {
    let (name, rest) = text.split_once(" with ").ok_or("a node holds a model `with` slots")?;
    let mut report = ModelReport {
        model: cast.model(name),
        slots: 0,
        rates: Rates { prefill_tokens_per_s: 1_000.0, step_ms: 20.0, batch_slope: 0.25 },
    };
    for part in rest.split(", ") {
        match part.split_once(' ') {
            Some((slots, "slots" | "slot")) => report.slots = whole(slots)?,
            Some(("prefill", rate)) => report.rates.prefill_tokens_per_s = real(rate)?,
            Some(("step", ms)) => report.rates.step_ms = real(ms)?,
            Some(("slope", share)) => report.rates.batch_slope = real(share)?,
            Some(_) | None => return Err(format!("`{part}` says nothing about a model")),
        }
    }
    Ok(report)
}

/// `limits: waiting 2, redispatches 1`
pub(crate) fn limits(text: &str) -> Result<Limits, String> {
    // Prompts in scenarios are short: a plain linear prefill keeps the numbers easy to follow.
    let mut limits = Limits { attention_tokens: 0, prefill_overhead: Span::ZERO, ..Limits::default() };
    for part in text.split(", ").filter(|part| !part.is_empty()) {
        match part.split_once(' ') {
            Some(("waiting", count)) => limits.waiting_max = whole(count)?,
            Some(("redispatches", count)) => limits.redispatches_max = whole(count)?,
            Some(("nodes", count)) => limits.nodes_max = whole(count)?,
            Some(("decisions", count)) => limits.decisions_max = whole(count)?,
            Some(("candidates", count)) => limits.candidates_max = whole(count)?,
            Some(_) | None => return Err(format!("`{part}` is not a limit")),
        }
    }
    Ok(limits)
}

/// `3 s`, `0.25 s`, `40 ms`
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let (number, unit) = text.split_once(' ').ok_or(format!("`{text}` is not a time"))?;
    let number: f64 = real(number)?;
    let micros = match unit {
        "s" => number * 1e6,
        "ms" => number * 1e3,
        _ => return Err(format!("`{unit}` is not a unit of time here")),
    };
    Ok(Span(micros.round() as u64))
}

fn whole<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

fn real<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}
