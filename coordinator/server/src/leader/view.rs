//! What the leader loop shows: the queue in numbers, and the subjects that can be explained.
//!
//! Owns the shape and the making of the picture. Refuses to change anything.

use std::collections::BTreeMap;

use scheduler::{At, Class, NodeId, RequestId, Scheduler, Span};
use serde::{Deserialize, Serialize};

use super::names::Names;
use crate::limits;

/// The queue as the pages show it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QueueView {
    pub(crate) waiting: BTreeMap<String, usize>,
    pub(crate) running: BTreeMap<String, usize>,
    pub(crate) running_on: BTreeMap<u64, usize>,
    /// What waits, as the longest of the models' lines needs for it.
    pub(crate) seconds_of_work: f64,
    /// Each model's line in its order, up to a bound.
    pub(crate) line: Vec<Waiter>,
}

/// A request that waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Waiter {
    pub(crate) request: u64,
    pub(crate) model: String,
    pub(crate) tenant: u32,
    pub(crate) class: String,
    pub(crate) waited_s: f64,
    /// 1 is the next.
    pub(crate) position: u32,
    pub(crate) eta_s: Option<f64>,
    pub(crate) loading: bool,
}

/// What may be explained.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Request(u64),
    Model(String),
    Node(u64),
}

pub(super) fn queue(scheduler: &Scheduler, names: &Names, now: At) -> QueueView {
    let load = scheduler.load();
    let mut view = QueueView::default();
    for (model, counts) in &load.models {
        view.waiting.insert(names.name(*model).to_owned(), counts.waiting);
        view.running.insert(names.name(*model).to_owned(), counts.running);
        view.seconds_of_work = view.seconds_of_work.max(seconds(counts.delay));
    }
    view.running_on.extend(load.nodes.iter().map(|(node, running)| (node.0, *running)));
    let waiting = scheduler.waiting(limits::WAITING_SHOWN).into_iter().take(limits::WAITING_SHOWN);
    view.line.extend(waiting.map(|waiting| Waiter {
        request: waiting.request.0,
        model: names.name(waiting.model).to_owned(),
        tenant: waiting.tenant.0,
        class: match waiting.class {
            Class::Interactive => "interactive".to_owned(),
            Class::Batch => "batch".to_owned(),
        },
        waited_s: seconds(now.since(waiting.arrived)),
        position: waiting.position.ahead.saturating_add(1),
        eta_s: waiting.position.eta.map(seconds),
        loading: waiting.position.loading,
    }));
    view
}

pub(super) fn explain(scheduler: &Scheduler, names: &mut Names, subject: Subject) -> Option<String> {
    match subject {
        Subject::Request(request) => Some(scheduler.explain(RequestId(request))?.words(names)),
        Subject::Model(model) => {
            let number = names.number(&model);
            Some(scheduler.explain_model(number, names))
        }
        Subject::Node(node) => Some(scheduler.explain_node(NodeId(node), names)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a queue are below 2^52")]
fn seconds(span: Span) -> f64 {
    span.0 as f64 / 1e6
}
