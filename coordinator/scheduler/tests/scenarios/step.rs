//! One step of a scenario, read from its line. Owns the vocabulary; `README.md` lists it for people.

use scheduler::{
    Adopted, At, Attempt, Block, Class, Command, Failure, Fingerprint, Limits, Measured, ModelId,
    ModelPolicy, ModelReport, ModelState, NodeId, NodeReport, Outcome, OverloadLimits, ProbeNumber,
    ProbeResult, Rates, RequestId, ReservationId, SessionKey, Span, StepSample, Submission, TenantId, Usage,
};

use crate::cast::{self, Cast};

/// What a step asks of the scheduler.
pub(crate) enum Step {
    Apply(Command),
    Explain(RequestId),
    ExplainModel(ModelId),
    ExplainNode(NodeId),
    Position(RequestId),
    NextWake,
    Load,
    Queue,
    Resume,
    NewLeader,
}

/// Reads the part after `at <time>:`.
pub(crate) fn read(text: &str, at: At, cast: &mut Cast) -> Result<Step, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["time", "passes"] => Ok(Step::Apply(Command::Wake)),
        ["next", "wake-up?"] => Ok(Step::NextWake),
        ["load?"] => Ok(Step::Load),
        ["queue?"] => Ok(Step::Queue),
        ["resume"] => Ok(Step::Resume),
        ["a", "new", "leader", "begins"] => Ok(Step::NewLeader),
        ["it", "settles", "until", number, unit] => {
            let settles_at = At(0) + span(&format!("{number} {unit}"))?;
            Ok(Step::Apply(Command::Lead { settles_at }))
        }
        ["explain", "request", number] => cast::request(number).map(Step::Explain),
        ["explain", "model", name] => Ok(Step::ExplainModel(cast.model(name))),
        ["explain", "node", name] => cast::node(name).map(Step::ExplainNode),
        ["position", "of", "request", number] => cast::request(number).map(Step::Position),
        ["request", number, "for", rest @ ..] => submit(number, &rest.join(" "), at, cast).map(Step::Apply),
        ["request", number, "is", "cancelled"] => {
            Ok(Step::Apply(Command::Cancel { request: cast::request(number)? }))
        }
        ["request", number, "attempt", attempt, rest @ ..] => {
            attempt_event(cast::request(number)?, attempt, &rest.join(" ")).map(Step::Apply)
        }
        ["tenant", number, "has", "weight", weight] => {
            let permille = (real::<f64>(weight)? * 1e3) as u32;
            Ok(Step::Apply(Command::Weight { tenant: TenantId(whole(number)?), permille }))
        }
        ["registry", answer, "reservation", number] => {
            let granted = one_of(answer, &[("grants", true), ("refuses", false)])?;
            Ok(Step::Apply(Command::Reserved { reservation: ReservationId(whole(number)?), granted }))
        }
        ["probe", number, result] => {
            let results = [
                ("passes", ProbeResult::Passed),
                ("mismatches", ProbeResult::Mismatch),
                ("fails", ProbeResult::Failed),
            ];
            Ok(Step::Apply(Command::Probed {
                probe: ProbeNumber(whole(number)?),
                result: one_of(result, &results)?,
            }))
        }
        ["model", name, "wants", rest @ ..] => {
            let policy = policy(&rest.join(" "))?;
            Ok(Step::Apply(Command::Policy { model: cast.model(name), policy }))
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

/// `qwen arrives, prompt 1000, answer 200, due in 60 s, waiting since 3 s`, or
/// `qwen is taken over, waiting since 3 s, attempt 1 runs on mini-1`
fn submit(number: &str, rest: &str, at: At, cast: &mut Cast) -> Result<Command, String> {
    let (first, rest) = rest.split_once(", ").unwrap_or((rest, ""));
    if let Some(model) = first.strip_suffix(" arrives") {
        return Ok(Command::Submit(submission(number, model, rest, at, cast)?));
    }
    let model = first.strip_suffix(" is taken over").ok_or("a request `arrives` or `is taken over`")?;
    let (fate, rest): (Vec<&str>, Vec<&str>) =
        rest.split(", ").partition(|part| part.starts_with("attempt "));
    let submission = submission(number, model, &rest.join(", "), at, cast)?;
    let (attempt, running) = fate.first().map_or(Ok((Attempt(0), None)), |fate| attempt_before(fate))?;
    Ok(Command::Adopt { submission, attempt, running })
}

/// `attempt 1 runs on mini-1`, `attempt 1 has begun on mini-1`, `attempt 1 came to nothing`
fn attempt_before(text: &str) -> Result<(Attempt, Option<Adopted>), String> {
    match text.split(' ').collect::<Vec<_>>().as_slice() {
        [_, attempt, "runs", "on", node] => {
            Ok((Attempt(whole(attempt)?), Some(Adopted { node: cast::node(node)?, began: false })))
        }
        [_, attempt, "has", "begun", "on", node] => {
            Ok((Attempt(whole(attempt)?), Some(Adopted { node: cast::node(node)?, began: true })))
        }
        [_, attempt, "came", "to", "nothing"] => Ok((Attempt(whole(attempt)?), None)),
        _ => Err(format!("`{text}` is not what became of an attempt")),
    }
}

fn submission(number: &str, model: &str, parts: &str, at: At, cast: &mut Cast) -> Result<Submission, String> {
    let request = cast::request(number)?;
    let mut submission = Submission {
        request,
        model: cast.model(model),
        tenant: TenantId(1),
        class: Class::Interactive,
        prompt_tokens: 1_000,
        max_tokens: 100,
        output_tokens: None,
        blocks: [].into(),
        session: None,
        fingerprint: Fingerprint(request.0),
        arrived: at,
        deadline: at + Span::from_s(600),
    };
    for part in parts.split(", ").filter(|part| !part.is_empty()) {
        if let Some(tokens) = part.strip_prefix("prompt ") {
            submission.prompt_tokens = whole(tokens)?;
        } else if let Some(tokens) = part.strip_prefix("answer ") {
            submission.max_tokens = whole(tokens)?;
        } else if let Some(time) = part.strip_prefix("due in ") {
            submission.deadline = at + span(time)?;
        } else if let Some(time) = part.strip_prefix("waiting since ") {
            submission.arrived = At(0) + span(time)?;
        } else if let Some(tenant) = part.strip_prefix("tenant ") {
            submission.tenant = TenantId(whole(tenant)?);
        } else if part == "batch" {
            submission.class = Class::Batch;
        } else if let Some(blocks) = part.strip_prefix("blocks ") {
            submission.blocks =
                blocks.split(' ').map(|block| whole(block).map(Block)).collect::<Result<_, _>>()?;
        } else if let Some(session) = part.strip_prefix("session ") {
            submission.session = Some(SessionKey(whole(session)?));
        } else if let Some(twin) = part.strip_prefix("the same as request ") {
            submission.fingerprint = Fingerprint(whole(twin)?);
        } else {
            return Err(format!("`{part}` says nothing about a request"));
        }
    }
    Ok(submission)
}

fn attempt_event(request: RequestId, attempt: &str, event: &str) -> Result<Command, String> {
    let attempt = Attempt(whole(attempt)?);
    let finished = |outcome, usage| Command::Finished { request, attempt, outcome, usage };
    let failed = |failure| Ok(finished(Outcome::Failed(failure), Usage::default()));
    match event {
        "begins" => Ok(Command::Began { request, attempt }),
        "fails" => failed(Failure::Reset),
        "loses its runtime" => failed(Failure::RuntimeExit),
        "hangs" => failed(Failure::Hang),
        "sends garbage" => failed(Failure::Corrupt),
        "finds nobody there" => Ok(finished(Outcome::NotThere, Usage::default())),
        "is told busy" => Ok(finished(Outcome::Busy, Usage::default())),
        "is rejected" => Ok(finished(Outcome::Rejected, Usage::default())),
        "loses its client" => Ok(finished(Outcome::ClientGone, Usage::default())),
        "completes" => Ok(finished(Outcome::Completed, Usage { generated: 100, ..Usage::default() })),
        _ => {
            if let Some(parts) = event.strip_prefix("has enough after ") {
                return usage(parts).map(|usage| finished(Outcome::Enough, usage));
            }
            if let Some(parts) = event.strip_prefix("fails after ") {
                return usage(parts).map(|usage| finished(Outcome::Failed(Failure::Reset), usage));
            }
            let parts = event
                .strip_prefix("completes with ")
                .ok_or(format!("`{event}` does not happen to attempts"))?;
            usage(parts).map(|usage| finished(Outcome::Completed, usage))
        }
    }
}

/// `80 tokens, 256 cached, prefill 0.5 s, held 9 s`
fn usage(text: &str) -> Result<Usage, String> {
    let mut usage = Usage::default();
    for part in text.split(", ") {
        if let Some(tokens) = part.strip_suffix(" tokens") {
            usage.generated = whole(tokens)?;
        } else if let Some(tokens) = part.strip_suffix(" cached") {
            usage.cached_tokens = whole(tokens)?;
        } else if let Some(time) = part.strip_prefix("prefill ") {
            usage.prefill = span(time)?;
        } else if let Some(time) = part.strip_prefix("held ") {
            usage.held = span(time)?;
        } else {
            return Err(format!("`{part}` says nothing about an answer"));
        }
    }
    Ok(usage)
}

/// `to stay on mini-1`, `at least 1 replica`, `at most 3 replicas`, `to go after 60 s idle`
fn policy(text: &str) -> Result<ModelPolicy, String> {
    let mut policy = ModelPolicy::default();
    for part in text.split(", ") {
        match part.split(' ').collect::<Vec<_>>().as_slice() {
            ["to", "stay", "on", node] => {
                policy.pinned.insert(cast::node(node)?);
            }
            ["at", "least", count, _] => policy.replicas_min = whole(count)?,
            ["at", "most", count, _] => policy.replicas_max = whole(count)?,
            ["to", "go", "after", number, unit, "idle"] => {
                policy.idle_unload = Some(span(&format!("{number} {unit}"))?);
            }
            _ => return Err(format!("`{part}` is no policy")),
        }
    }
    Ok(policy)
}

fn one_of<T: Copy>(word: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| format!("`{word}` is not understood here"))
}

/// `nothing`, or `qwen with 2 slots, prefill 500, step 40, slope 0.5; llama offered, 6 GiB; 16 GiB in all; life 7`
fn holds(node: &str, rest: &str, cast: &mut Cast) -> Result<Command, String> {
    let mut report = NodeReport::default();
    for text in rest.split("; ").filter(|text| *text != "nothing") {
        match (text.strip_suffix(" in all"), text.strip_prefix("life ")) {
            (Some(budget), _) => report.budget_bytes = bytes(budget)?,
            (None, Some(life)) => report.life = whole(life)?,
            (None, None) => report.models.push(model(text, cast)?),
        }
    }
    Ok(Command::NodeReported { node: cast::node(node)?, report })
}

fn model(text: &str, cast: &mut Cast) -> Result<ModelReport, String> {
    let (name, rest) = text.split_once(' ').ok_or("a model has a name and something to say of it")?;
    let mut report = ModelReport {
        model: cast.model(name),
        state: ModelState::Ready,
        slots: 0,
        kv_tokens: 0,
        prefix_tokens: 0,
        bytes: 0,
        rates: Rates { prefill_tokens_per_s: 1_000.0, step_ms: 20.0, batch_slope: 0.25 },
        measured: Measured::default(),
    };
    for part in rest.strip_prefix("with ").unwrap_or(rest).split(", ") {
        match part.split_once(' ') {
            Some((slots, "slots" | "slot")) => report.slots = whole(slots)?,
            Some(("prefill", rate)) => report.rates.prefill_tokens_per_s = real(rate)?,
            Some(("step", ms)) => report.rates.step_ms = real(ms)?,
            Some(("slope", share)) => report.rates.batch_slope = real(share)?,
            Some(("room", tokens)) => report.kv_tokens = whole(tokens)?,
            Some(("cache", tokens)) => report.prefix_tokens = whole(tokens)?,
            Some(("ready", time)) => {
                report.state =
                    ModelState::Loading { left: Some(span(time.strip_prefix("in ").unwrap_or(time))?) };
            }
            Some(("measured", steps)) => measure(steps, &mut report.measured.steps)?,
            Some((_, "GiB")) => report.bytes = bytes(part)?,
            None if part == "offered" => report.state = ModelState::Offered,
            None if part == "loading" => report.state = ModelState::Loading { left: None },
            None if part == "unloading" => report.state = ModelState::Unloading,
            None if part == "broken" => report.state = ModelState::Failed,
            Some(_) | None => return Err(format!("`{part}` says nothing about a model")),
        }
    }
    Ok(report)
}

/// `16 steps of 2 in 0.4 s`, `8 times 16 steps of 2 in 0.4 s`
fn measure(text: &str, samples: &mut Vec<StepSample>) -> Result<(), String> {
    let (times, rest) = text.split_once(" times ").unwrap_or(("1", text));
    let (steps, rest) = rest.split_once(" steps of ").ok_or(format!("`{text}` is no measurement"))?;
    let (batch, time) = rest.split_once(" in ").ok_or(format!("`{text}` is no measurement"))?;
    let seconds = span(time)?.0 as f32 / 1e6;
    let sample = StepSample { steps: whole(steps)?, batch: real(batch)?, kv_tokens: 0.0, seconds };
    samples.extend(std::iter::repeat_n(sample, whole(times)?));
    Ok(())
}

/// `6 12 18 24`: the line in seconds from which batch work is held, refused and shed, and everything is refused.
fn ladder(text: &str) -> Result<OverloadLimits, String> {
    let rungs: Vec<u64> = text.split(' ').map(whole).collect::<Result<_, _>>()?;
    let [hold_batch, refuse_batch, shed_batch, full] = rungs[..] else {
        return Err(format!("`{text}` are not four rungs"));
    };
    let [hold_batch, refuse_batch, shed_batch, full] =
        [hold_batch, refuse_batch, shed_batch, full].map(Span::from_s);
    Ok(OverloadLimits { hold_batch, refuse_batch, shed_batch, full })
}

/// `6 GiB`
fn bytes(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix(" GiB").ok_or(format!("`{text}` is not an amount of memory"))?;
    Ok((real::<f64>(number)? * f64::from(1 << 30)) as u64)
}

/// `limits: waiting 2, redispatches 1`
pub(crate) fn limits(text: &str) -> Result<Limits, String> {
    // Numbers that can be checked in the head: no overhead, no attention, no KV reads, no jitter. And one rule at a time: a story says when
    // it is about small before large, holding back, or prompts that wait for one another.
    let mut limits = Limits {
        prefill_overhead: Span::ZERO,
        attention_tokens: 0,
        size_handicap: 0,
        hold_max: Span::ZERO,
        bind_ahead: Span::from_s(3_600),
        inter_token_target: Span::from_s(3_600),
        inter_token_most: Span::from_s(3_600),
        fresh_width: 256,
        ..Limits::default()
    };
    limits.rates_learning.kv_tokens = u32::MAX;
    limits.rates_learning.gain_min = 0.0;
    limits.rates_learning.gain_min_in_line = 0.0;
    limits.breaker.open_jitter_permille = 0;
    limits.blame.unheard = Span::ZERO;
    for part in text.split(", ").filter(|part| !part.is_empty()) {
        match part.split_once(' ') {
            Some(("bind", time)) => limits.bind_ahead = span(time)?,
            Some(("hold", time)) => limits.hold_max = span(time)?,
            Some(("handicap", factor)) => limits.size_handicap = whole(factor)?,
            Some(("aging", time)) => limits.batch_ageing = span(time)?,
            Some(("turn", time)) => limits.turn = span(time)?,
            Some(("fresh", width)) => limits.fresh_width = whole(width)?,
            Some(("gain", permille)) => {
                limits.rates_learning.gain_min = real::<f64>(permille)? / 1e3;
                limits.rates_learning.gain_min_in_line = limits.rates_learning.gain_min;
            }
            Some(("crowded", permille)) => {
                limits.rates_learning.gain_min_in_line = real::<f64>(permille)? / 1e3;
            }
            Some(("pace", time)) => {
                limits.inter_token_target = span(time)?;
                limits.inter_token_most = limits.inter_token_target;
            }
            Some(("hurried", time)) => limits.inter_token_most = span(time)?,
            Some(("unheard", time)) => limits.blame.unheard = span(time)?,
            Some(("overload", rungs)) => limits.overload = ladder(rungs)?,
            Some(("retries", count)) => limits.retries.reserve = whole(count)?,
            Some(("waiting", count)) => limits.waiting_max = whole(count)?,
            Some(("adopted", count)) => limits.adopted_max = whole(count)?,
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
