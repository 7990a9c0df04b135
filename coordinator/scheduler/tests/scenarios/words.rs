//! Effects and answers as the lines of a scenario.

use scheduler::{
    AbortReason, Affinity, At, Class, Effect, Load, Names, Position, Refusal, Rung, Span, Waiting, Why,
};

pub(crate) fn effect(effect: &Effect, names: &dyn Names) -> String {
    match effect {
        Effect::Dispatch { request, attempt, node, affinity, .. } => {
            let drawn = match affinity {
                Affinity::Prefix => ", which has its prefix",
                Affinity::Session => ", which has seen its session",
                Affinity::Resident => "",
            };
            format!("request {} attempt {}: run on {}{drawn}", request.0, attempt.0, names.node(*node))
        }
        Effect::Queued { request, position, eta, loading } => {
            let loading = if *loading { ", the model is not loaded" } else { "" };
            format!("request {}: wait, {position} ahead, {}{loading}", request.0, start(*eta))
        }
        Effect::Refuse { request, refusal } => {
            format!("request {}: refused, {}", request.0, refused(refusal, names))
        }
        Effect::Abort { request, attempt, node, reason } => {
            let reason = match reason {
                AbortReason::DeadlineExceeded => "the deadline has passed",
            };
            format!("request {} attempt {}: stop on {}, {reason}", request.0, attempt.0, names.node(*node))
        }
        Effect::Reserve { reservation, node, model, bytes } => {
            let (gib, model) = (*bytes as f64 / f64::from(1 << 30), names.model(*model));
            format!("reservation {}: {gib} GiB for {model} on {}", reservation.0, names.node(*node))
        }
        Effect::Evict { node, model } => format!("evict {} from {}", names.model(*model), names.node(*node)),
        Effect::Probe { probe, node, model } => {
            format!("probe {}: run the canary of {} on {}", probe.0, names.model(*model), names.node(*node))
        }
        Effect::Record(fact) => format!("record: {}", fact.words(names)),
    }
}

pub(crate) fn waiting(waiting: &Waiting) -> String {
    let class = match waiting.class {
        Class::Interactive => "interactive",
        Class::Batch => "batch",
    };
    format!(
        "request {} of tenant {}, {class}: {}",
        waiting.request.0,
        waiting.tenant.0,
        position(Some(waiting.position))
    )
}

pub(crate) fn position(position: Option<Position>) -> String {
    position.map_or("not waiting".to_owned(), |position| {
        format!("{} ahead, {}", position.ahead, start(position.eta))
    })
}

pub(crate) fn next_wake(next: Option<(At, Why)>, names: &dyn Names) -> String {
    match next {
        None => "never".to_owned(),
        Some((at, Why::Breaker { node, model })) => {
            format!("at {}, breaker of {} on {}", time(Span(at.0)), names.model(model), names.node(node))
        }
        Some((at, Why::PromptsDone)) => format!("at {}, prompts are done", time(Span(at.0))),
        Some((at, Why::HoldOver { request })) => {
            format!("at {}, request {} has held back long enough", time(Span(at.0)), request.0)
        }
        Some((at, Why::Aged { request })) => {
            format!("at {}, request {} has aged", time(Span(at.0)), request.0)
        }
        Some((at, Why::Settled)) => format!("at {}, all has been told", time(Span(at.0))),
        Some((at, Why::Plan)) => format!("at {}, plan", time(Span(at.0))),
        Some((at, Why::Deadline { request })) => {
            format!("at {}, deadline of request {}", time(Span(at.0)), request.0)
        }
        Some((at, Why::PauseOver { node, model })) => {
            format!(
                "at {}, pause of {} on {} is over",
                time(Span(at.0)),
                names.model(model),
                names.node(node)
            )
        }
    }
}

pub(crate) fn load(load: &Load, names: &dyn Names) -> Vec<String> {
    let models = load.models.iter().map(|(model, count)| {
        let rung = match count.rung {
            Rung::Calm => "",
            Rung::HoldBatch => ", batch work held",
            Rung::RefuseBatch => ", batch work refused",
            Rung::ShedBatch => ", batch work shed",
            Rung::Full => ", full",
        };
        format!("{}: {} waiting, {} running{rung}", names.model(*model), count.waiting, count.running)
    });
    let nodes = load.nodes.iter().map(|(node, running)| format!("{}: {running} running", names.node(*node)));
    let retries = (load.retries == 0).then(|| "no retries are left".to_owned());
    models.chain(nodes).chain(retries).collect()
}

fn refused(refusal: &Refusal, names: &dyn Names) -> String {
    match refusal {
        Refusal::QueueFull { retry_after } => format!("queue full, come back in {}", time(*retry_after)),
        Refusal::Shed { retry_after } => format!("batch work gives way, come back in {}", time(*retry_after)),
        Refusal::DeadlineUnreachable { needed } => format!("deadline unreachable, needs {}", time(*needed)),
        Refusal::Expired => "expired".to_owned(),
        Refusal::NodeLost => "every attempt failed".to_owned(),
        Refusal::Duplicate => "duplicate".to_owned(),
        Refusal::Quarantined => "quarantined".to_owned(),
        Refusal::NoCapacity(why) => why.words(names),
    }
}

fn start(eta: Option<Span>) -> String {
    eta.map_or("no start in sight".to_owned(), |eta| format!("start in {}", time(eta)))
}

/// To the microsecond, since scenarios are exact.
fn time(span: Span) -> String {
    format!("{} s", span.0 as f64 / 1e6)
}
