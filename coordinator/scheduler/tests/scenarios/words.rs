//! Effects and answers as the lines of a scenario.

use scheduler::{AbortReason, At, Effect, Load, Names, Position, Refusal, Span, Why};

pub(crate) fn effect(effect: &Effect, names: &dyn Names) -> String {
    match *effect {
        Effect::Dispatch { request, attempt, node } => {
            format!("request {} attempt {}: run on {}", request.0, attempt.0, names.node(node))
        }
        Effect::Queued { request, position, eta } => {
            format!("request {}: wait, {position} ahead, {}", request.0, start(eta))
        }
        Effect::Refuse { request, refusal } => {
            format!("request {}: refused, {}", request.0, refused(refusal))
        }
        Effect::Abort { request, attempt, node, reason } => {
            let reason = match reason {
                AbortReason::DeadlineExceeded => "the deadline has passed",
                AbortReason::NodeLost => "the node is lost",
            };
            format!("request {} attempt {}: stop on {}, {reason}", request.0, attempt.0, names.node(node))
        }
    }
}

pub(crate) fn position(position: Option<Position>) -> String {
    position.map_or("not waiting".to_owned(), |position| {
        format!("{} ahead, {}", position.ahead, start(position.eta))
    })
}

pub(crate) fn next_wake(next: Option<(At, Why)>, names: &dyn Names) -> String {
    match next {
        None => "never".to_owned(),
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
        format!("{}: {} waiting, {} running", names.model(*model), count.waiting, count.running)
    });
    let nodes = load.nodes.iter().map(|(node, running)| format!("{}: {running} running", names.node(*node)));
    models.chain(nodes).collect()
}

fn refused(refusal: Refusal) -> String {
    match refusal {
        Refusal::QueueFull { retry_after } => format!("queue full, come back in {}", time(retry_after)),
        Refusal::DeadlineUnreachable { needed } => format!("deadline unreachable, needs {}", time(needed)),
        Refusal::Expired => "expired".to_owned(),
        Refusal::NodeLost => "every attempt failed".to_owned(),
        Refusal::Duplicate => "duplicate".to_owned(),
    }
}

fn start(eta: Option<Span>) -> String {
    eta.map_or("no start in sight".to_owned(), |eta| format!("start in {}", time(eta)))
}

/// To the microsecond, since scenarios are exact.
fn time(span: Span) -> String {
    format!("{} s", span.0 as f64 / 1e6)
}
