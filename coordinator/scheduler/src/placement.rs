//! Which node: the gates that shut one out, and the score that orders the rest.
//!
//! Owns the cost model. A node's score is the predicted time to this request's last token there, plus what its presence
//! costs those already running (the externality; without it fast nodes fill up until nobody is served well). The lowest
//! score wins, ties by node number. Refuses to look anything up: it is handed the facts of each node.
//!
//! With `u` prompt tokens, `E` expected output tokens, `P` the prefill rate, `t1` the step time of one sequence, `beta` what
//! each further sequence adds to a step, and `n` attempts in flight on the node:
//!
//! ```text
//! queue        prefill work still before it on the node's one GPU
//! prefill      overhead + u/P * (1 + u/attention_tokens)
//! decode       E * t1 * (1 + beta*n)
//! externality  w * n * (u/P * (1 + u/attention_tokens) + E * t1 * beta)
//! ```

use crate::command::Rates;
use crate::ids::NodeId;
use crate::limits::Limits;
use crate::time::{At, Span};

/// A node that holds the model, as it looked when a decision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which node.
    pub node: NodeId,
    /// Its score, term by term.
    pub terms: Terms,
    /// What shut it out; `None` when it could be chosen.
    pub gate: Option<Gate>,
}

/// The parts of a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Waiting for the prefills before it on this node.
    pub queue: Span,
    /// Its own prefill.
    pub prefill: Span,
    /// Its own tokens.
    pub decode: Span,
    /// What it costs those already there, weighted.
    pub externality: Span,
}

/// Why a node that holds the model cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// An operator drains it.
    Draining,
    /// It failed this request, and another node may still serve it, or it has not reported since.
    FailedThisRequest,
    /// Its runtime said "busy".
    Paused {
        /// When it may be tried again.
        until: At,
    },
    /// As many in flight as its runtime takes.
    Full {
        /// Attempts in flight.
        in_flight: u32,
        /// The most there may be.
        limit: u32,
    },
}

impl Terms {
    /// The score.
    #[must_use]
    pub fn total(&self) -> Span {
        self.queue + self.prefill + self.decode + self.externality
    }
}

/// What a request asks of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
}

/// What a node is like for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) node: NodeId,
    pub(crate) draining: bool,
    pub(crate) failed_this_request: bool,
    pub(crate) paused_until: Option<At>,
    /// Attempts of this model in flight there, and the most there may be.
    pub(crate) in_flight: u32,
    pub(crate) limit: u32,
    /// Attempts of all models in flight there.
    pub(crate) in_flight_on_node: u32,
    pub(crate) prefill_backlog: Span,
    pub(crate) rates: Rates,
}

pub(crate) fn judge(limits: &Limits, ask: Ask, facts: &Facts) -> Candidate {
    Candidate { node: facts.node, terms: score(limits, ask, facts), gate: gate(facts) }
}

/// 1 drained, 2 failed this request, 3 paused, 4 full; else open.
pub(crate) fn gate(facts: &Facts) -> Option<Gate> {
    // 1
    if facts.draining {
        return Some(Gate::Draining);
    }
    // 2
    if facts.failed_this_request {
        return Some(Gate::FailedThisRequest);
    }
    // 3
    if let Some(until) = facts.paused_until {
        return Some(Gate::Paused { until });
    }
    // 4
    let full = facts.in_flight >= facts.limit;
    full.then_some(Gate::Full { in_flight: facts.in_flight, limit: facts.limit })
}

/// The order of preference: open before shut, then the score, then the number.
pub(crate) fn rank(candidate: &Candidate) -> (bool, Span, NodeId) {
    (candidate.gate.is_some(), candidate.terms.total(), candidate.node)
}

/// The time to the first token on an idle node; `None` when the node's prefill rate is not known, since nobody should be
/// refused on an assumption.
pub(crate) fn first_token_at_best(limits: &Limits, prompt_tokens: u32, rates: Rates) -> Option<Span> {
    is_known(rates.prefill_tokens_per_s)
        .then(|| limits.prefill_overhead + span(limits, prefill_s(limits, prompt_tokens, &rates)))
}

/// The time between two departures when every slot of these nodes is kept busy with requests like this one.
pub(crate) fn predicted_gap(limits: &Limits, ask: Ask, nodes: impl Iterator<Item = Facts>) -> Option<Span> {
    let usable = nodes.filter(|facts| !facts.draining && facts.limit > 0);
    let per_s: f64 = usable
        .map(|facts| {
            let terms = score(limits, ask, &Facts { in_flight_on_node: facts.limit - 1, ..facts });
            let own = terms.prefill + terms.decode;
            f64::from(facts.limit) * 1e6 / (own.0.max(1) as f64)
        })
        .sum();
    (per_s > 0.0).then(|| span(limits, 1.0 / per_s))
}

fn score(limits: &Limits, ask: Ask, facts: &Facts) -> Terms {
    let rates = believed(&facts.rates, &limits.rates);
    let others = f64::from(facts.in_flight_on_node);
    let prefill_s = prefill_s(limits, ask.prompt_tokens, &rates);
    let alone_s = f64::from(ask.output_tokens) * f64::from(rates.step_ms) / 1e3;
    let slope = f64::from(rates.batch_slope);
    let weight = f64::from(limits.externality_weight);
    Terms {
        queue: facts.prefill_backlog,
        prefill: limits.prefill_overhead + span(limits, prefill_s),
        decode: span(limits, alone_s * (1.0 + slope * others)),
        externality: span(limits, weight * others * (prefill_s + alone_s * slope)),
    }
}

fn prefill_s(limits: &Limits, prompt_tokens: u32, rates: &Rates) -> f64 {
    let tokens = f64::from(prompt_tokens);
    let attention =
        if limits.attention_tokens == 0 { 0.0 } else { tokens / f64::from(limits.attention_tokens) };
    tokens / f64::from(rates.prefill_tokens_per_s) * (1.0 + attention)
}

fn believed(reported: &Rates, assumed: &Rates) -> Rates {
    let choose = |reported, assumed| if is_known(reported) { reported } else { assumed };
    Rates {
        prefill_tokens_per_s: choose(reported.prefill_tokens_per_s, assumed.prefill_tokens_per_s),
        step_ms: choose(reported.step_ms, assumed.step_ms),
        batch_slope: choose(reported.batch_slope, assumed.batch_slope),
    }
}

fn is_known(rate: f32) -> bool {
    rate.is_finite() && rate > 0.0
}

/// Floats end here: what is compared and summed is whole microseconds, so equal scores are equal. The cast saturates and
/// takes NaN for zero; half a microsecond more makes it round.
fn span(limits: &Limits, seconds: f64) -> Span {
    Span((seconds * 1e6 + 0.5) as u64).min(limits.estimate_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { prefill_tokens_per_s: 1_000.0, step_ms: 20.0, batch_slope: 0.25 };
    const ASK: Ask = Ask { prompt_tokens: 1_000, output_tokens: 100 };

    fn facts(node: u64) -> Facts {
        Facts {
            node: NodeId(node),
            draining: false,
            failed_this_request: false,
            paused_until: None,
            in_flight: 0,
            limit: 4,
            in_flight_on_node: 0,
            prefill_backlog: Span::ZERO,
            rates: RATES,
        }
    }

    fn limits() -> Limits {
        Limits { attention_tokens: 10_000, ..Limits::default() }
    }

    fn terms(facts: &Facts) -> [u64; 4] {
        let terms = score(&limits(), ASK, facts);
        [terms.queue, terms.prefill, terms.decode, terms.externality].map(|span| span.0 / 1_000)
    }

    #[test]
    fn an_idle_node_costs_prefill_and_decode() {
        assert_eq!(terms(&facts(1)), [0, 20 + 1_100, 2_000, 0]);
    }

    #[test]
    fn a_busy_node_costs_its_slower_steps_and_the_delay_of_those_there() {
        let busy = Facts { in_flight_on_node: 2, prefill_backlog: Span::from_ms(700), ..facts(1) };
        assert_eq!(terms(&busy), [700, 20 + 1_100, 3_000, 2 * (1_100 + 500)]);
    }

    #[test]
    fn a_rate_that_makes_no_sense_is_replaced_by_the_assumed_one() {
        let assumed = limits().rates;
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let reported = Rates { prefill_tokens_per_s: value, step_ms: value, batch_slope: value };
            assert_eq!(believed(&reported, &assumed), assumed);
            assert_eq!(first_token_at_best(&limits(), 1_000, reported), None);
        }
        assert_eq!(believed(&RATES, &assumed), RATES);
    }

    #[test]
    fn no_estimate_is_beyond_its_bound() {
        let crawl =
            Rates { prefill_tokens_per_s: f32::MIN_POSITIVE, step_ms: f32::MAX, batch_slope: f32::MAX };
        let worst = Facts { rates: crawl, in_flight_on_node: u32::MAX, ..facts(1) };
        let ask = Ask { prompt_tokens: u32::MAX, output_tokens: u32::MAX };
        let terms = score(&limits(), ask, &worst);
        assert_eq!([terms.decode, terms.externality], [limits().estimate_max; 2]);
    }

    #[test]
    fn attention_is_left_out_when_its_limit_is_zero() {
        let linear = Limits { attention_tokens: 0, ..limits() };
        assert_eq!(score(&linear, ASK, &facts(1)).prefill, Span::from_ms(20 + 1_000));
    }

    #[test]
    fn the_gates_are_tried_in_their_order() {
        let shut = Facts {
            draining: true,
            failed_this_request: true,
            paused_until: Some(At(9)),
            in_flight: 4,
            ..facts(1)
        };
        assert_eq!(gate(&shut), Some(Gate::Draining));
        let shut = Facts { draining: false, ..shut };
        assert_eq!(gate(&shut), Some(Gate::FailedThisRequest));
        let shut = Facts { failed_this_request: false, ..shut };
        assert_eq!(gate(&shut), Some(Gate::Paused { until: At(9) }));
        let shut = Facts { paused_until: None, ..shut };
        assert_eq!(gate(&shut), Some(Gate::Full { in_flight: 4, limit: 4 }));
        assert_eq!(gate(&Facts { in_flight: 3, ..shut }), None);
    }

    #[test]
    fn open_nodes_come_first_then_low_scores_then_low_numbers() {
        let slow = Rates { step_ms: 50.0, ..RATES };
        let nodes =
            [Facts { rates: slow, ..facts(1) }, facts(3), facts(2), Facts { draining: true, ..facts(0) }];
        let mut candidates: Vec<Candidate> = nodes.iter().map(|facts| judge(&limits(), ASK, facts)).collect();
        candidates.sort_by_key(rank);
        let order: Vec<u64> = candidates.iter().map(|candidate| candidate.node.0).collect();
        assert_eq!(order, [2, 3, 1, 0]);
    }

    #[test]
    fn more_slots_and_more_nodes_shorten_the_predicted_gap() {
        let gap =
            |nodes: &[Facts]| predicted_gap(&limits(), ASK, nodes.iter().copied()).map(|gap| gap.0 / 1_000);
        let single = Facts { limit: 1, ..facts(1) };
        assert_eq!(gap(&[single]), Some(3_120));
        assert_eq!(gap(&[single, Facts { node: NodeId(2), ..single }]), Some(1_560));
        assert_eq!(gap(&[Facts { limit: 2, ..single }]), Some((1_120 + 2_500) / 2));
        assert_eq!(gap(&[Facts { draining: true, ..single }, Facts { limit: 0, ..single }]), None);
        assert_eq!(gap(&[]), None);
    }
}
