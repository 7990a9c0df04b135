//! The queue, the breakers and the routes as metrics.
//!
//! Owns what the leader loop measures, the queue under vLLM's names. Refuses labels without a bound: models and nodes are those
//! of the registry.

use metrics::{counter, gauge};
use scheduler::{Affinity, Breaker, BreakerState, Load, Move, Names as _};

use super::names::Names;
use super::orders::affinity_words;

/// A handful of models, and no message is per token. Every known model is set: one that is idle is not in the scheduler's load,
/// and its gauges would keep their last value.
pub(super) fn measure(load: &Load, names: &Names) {
    for (name, number) in names.models() {
        let counts = load.models.get(number).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "counts of requests and microseconds are below 2^52")]
        let (waiting, running, delay_s) =
            (counts.waiting as f64, counts.running as f64, counts.delay.0 as f64 / 1e6);
        gauge!("vllm:num_requests_waiting", "model_name" => name.clone()).set(waiting);
        gauge!("vllm:num_requests_running", "model_name" => name.clone()).set(running);
        gauge!("mlx_queue_seconds", "model_name" => name.clone()).set(delay_s);
    }
}

/// A node's own breaker has an empty model.
pub(super) fn breaker(step: &Move, names: &Names) {
    let (node, model) = match step.breaker {
        Breaker::Lane((node, model)) => (node, names.model(model)),
        Breaker::Node(node) => (node, String::new()),
    };
    let state = match step.to {
        BreakerState::Closed => 0.0,
        BreakerState::Degraded => 1.0,
        BreakerState::SlowStart => 2.0,
        BreakerState::Probing => 3.0,
        BreakerState::Open => 4.0,
    };
    gauge!("mlx_breaker_state", "node" => names.node(node), "model_name" => model).set(state);
}

pub(super) fn routed(affinity: Affinity) {
    counter!("mlx_route_decisions_total", "affinity" => affinity_words(affinity)).increment(1);
}
