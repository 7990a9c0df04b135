//! Which node: the gates that shut one out, and the score that orders the rest.
//!
//! Owns the cost model. A node's score is the predicted time to this request's last token there, plus what its presence costs
//! others: those already running (without it fast nodes fill up until nobody is served well) and those who wait in line. The
//! lowest score wins, ties by node number. Refuses to look anything up: it is handed the facts of each node.
//!
//! With `u` uncached prompt tokens of which each chunk is computed between two decode steps, `E` expected output tokens, and
//! `step` a decode step as it is now and as it is with one sequence more:
//!
//! ```text
//! wait         until it could start there: a slot, the prefills before it, a pause
//! prefill      prefill(u) + chunks * step now, if anything decodes there
//! decode       E * step with it
//! others       w * running * (prefill(u) + E * (step with it - step now))
//! penalty      a share of prefill and decode, for a node in doubt
//! ```
//!
//! A node that is full is a candidate like any other: its score has the wait in it. When it is the best all the same, the request
//! would end later on the open one; [`choose`] says by how much, and `dispatch` whether that is worth it to those behind.

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
    /// Prompt tokens that are probably in its prefix cache.
    pub cached_tokens: u32,
    /// What shut it out; `None` when it could be chosen.
    pub gate: Option<Gate>,
}

/// The parts of a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Until it could start there.
    pub wait: Span,
    /// Its own prefill.
    pub prefill: Span,
    /// Its own tokens.
    pub decode: Span,
    /// What it costs those already there, weighted.
    pub others: Span,
    /// For doubts about the node.
    pub penalty: Span,
}

/// Why a node that holds the model cannot be chosen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A new leader has not been told yet what runs.
    Settling {
        /// When it will have been.
        until: At,
    },
    /// An operator drains it.
    Draining,
    /// The model is about to be evicted there.
    Leaving,
    /// Its breaker is open.
    BreakerOpen {
        /// When it may be probed; `None` while a probe is under way or another one comes first.
        until: Option<At>,
    },
    /// It failed this request, and another node may still serve it, or it has not reported since.
    FailedThisRequest,
    /// Not even the first token could come in time.
    TooLate,
    /// Its runtime said "busy".
    Paused {
        /// When it may be tried again.
        until: At,
    },
    /// As many in flight as its runtime may carry now.
    Full {
        /// Attempts in flight.
        in_flight: u32,
        /// The most there may be.
        limit: u32,
    },
    /// Its KV cache has no room for this one.
    KvFull {
        /// Tokens this one needs.
        needed: u32,
        /// Tokens that are not reserved.
        free: u32,
    },
    /// One that brought down a runtime runs there alone, or this one must run alone and the node is not empty.
    Alone,
    /// It computes prompts that were sent before.
    Prefilling {
        /// Until it has done with them.
        left: Span,
    },
}

impl Gate {
    /// Whether it opens by itself once work there is done, so that waiting for it can be better than another node.
    fn opens_soon(self) -> bool {
        match self {
            Gate::Paused { .. } | Gate::Full { .. } | Gate::KvFull { .. } | Gate::Prefilling { .. } => true,
            Gate::Settling { .. }
            | Gate::Draining
            | Gate::Leaving
            | Gate::BreakerOpen { .. }
            | Gate::FailedThisRequest
            | Gate::TooLate
            | Gate::Alone => false,
        }
    }
}

impl Terms {
    /// The score.
    #[must_use]
    pub fn total(&self) -> Span {
        self.wait + self.prefill + self.decode + self.others + self.penalty
    }

    /// Until its first token.
    #[must_use]
    pub fn first_token(&self) -> Span {
        self.wait + self.prefill
    }
}

/// What a node is like for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) node: NodeId,
    pub(crate) gate: Option<Gate>,
    pub(crate) cached_tokens: u32,
    /// Until it could start there.
    pub(crate) wait: Span,
    /// Its own prefill with nothing between, and the chunks it is cut into.
    pub(crate) prefill_s: f64,
    pub(crate) chunks: f64,
    /// A decode step of the node now and with one sequence more, all its models together.
    pub(crate) step_now_s: f64,
    pub(crate) step_with_s: f64,
    /// Attempts of all models in flight there.
    pub(crate) running: u32,
    /// 1 for a node without doubt.
    pub(crate) doubt: f64,
}

/// What a request is like for every node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) output_tokens: u32,
    /// Its whole answer is due in so long.
    pub(crate) left: Span,
    /// It has held back long enough: an open node is taken whatever its score.
    pub(crate) impatient: bool,
}

/// What a request does best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Start now.
    Start(Candidate),
    /// Wait for a node that opens soon; on the best of the open ones it would end this much later.
    Hold { open: Candidate, later: Span },
    /// No node is open.
    Wait,
}

pub(crate) fn judge(limits: &Limits, ask: &Ask, facts: &Facts) -> Candidate {
    let terms = score(limits, ask, facts);
    let late = facts.gate.is_none_or(Gate::opens_soon) && terms.first_token() > ask.left;
    let gate = if late { Some(Gate::TooLate) } else { facts.gate };
    Candidate { node: facts.node, terms, cached_tokens: facts.cached_tokens, gate }
}

pub(crate) fn choose(ask: &Ask, candidates: &[Candidate]) -> Choice {
    let (mut open, mut soon): (Option<(Span, &Candidate)>, Option<Span>) = (None, None);
    for candidate in candidates {
        let total = candidate.terms.total();
        match candidate.gate {
            None if open.is_none_or(|(least, best)| (total, candidate.node) < (least, best.node)) => {
                open = Some((total, candidate));
            }
            Some(gate) if gate.opens_soon() => soon = Some(soon.map_or(total, |least| least.min(total))),
            None | Some(_) => {}
        }
    }
    let Some((total, open)) = open.map(|(total, open)| (total, *open)) else { return Choice::Wait };
    let later = total.less(soon.unwrap_or(total));
    if later > Span::ZERO && !ask.impatient { Choice::Hold { open, later } } else { Choice::Start(open) }
}

/// The order in which candidates are told: open before shut, then the score, then the number.
pub(crate) fn rank(candidate: &Candidate) -> (bool, Span, NodeId) {
    (candidate.gate.is_some(), candidate.terms.total(), candidate.node)
}

fn score(limits: &Limits, ask: &Ask, facts: &Facts) -> Terms {
    let running = f64::from(facts.running);
    let output = f64::from(ask.output_tokens);
    let weight = f64::from(limits.externality_weight);
    let slower_s = (facts.step_with_s - facts.step_now_s).max(0.0);
    let between_s = if facts.running == 0 { 0.0 } else { facts.chunks * facts.step_now_s };
    let (prefill_s, decode_s) = (facts.prefill_s + between_s, output * facts.step_with_s);
    Terms {
        wait: facts.wait.min(limits.estimate_max),
        prefill: span(limits, prefill_s),
        decode: span(limits, decode_s),
        others: span(limits, weight * running * (facts.prefill_s + output * slower_s)),
        penalty: span(limits, (facts.doubt - 1.0).max(0.0) * (prefill_s + decode_s)),
    }
}

/// Floats end here: what is compared and summed is whole microseconds, so equal scores are equal. The cast saturates and
/// takes NaN for zero; half a microsecond more makes it round. By way of `i64`, which every processor casts to in one instruction.
pub(crate) fn span(limits: &Limits, seconds: f64) -> Span {
    Span(u64::try_from((seconds * 1e6 + 0.5) as i64).unwrap_or(0)).min(limits.estimate_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Ask = Ask { output_tokens: 100, left: Span::from_s(60), impatient: false };

    fn facts(node: u64) -> Facts {
        Facts {
            node: NodeId(node),
            gate: None,
            cached_tokens: 0,
            wait: Span::ZERO,
            prefill_s: 1.0,
            chunks: 4.0,
            step_now_s: 0.02,
            step_with_s: 0.025,
            running: 0,
            doubt: 1.0,
        }
    }

    fn full(node: u64, wait_ms: u64) -> Facts {
        Facts {
            gate: Some(Gate::Full { in_flight: 4, limit: 4 }),
            wait: Span::from_ms(wait_ms),
            ..facts(node)
        }
    }

    fn terms(ask: &Ask, facts: &Facts) -> [u64; 5] {
        let terms = judge(&Limits::default(), ask, facts).terms;
        [terms.wait, terms.prefill, terms.decode, terms.others, terms.penalty].map(|span| span.0 / 1_000)
    }

    fn choice(ask: &Ask, nodes: &[Facts]) -> Choice {
        let candidates: Vec<Candidate> =
            nodes.iter().map(|facts| judge(&Limits::default(), ask, facts)).collect();
        choose(ask, &candidates)
    }

    fn chosen(ask: &Ask, nodes: &[Facts]) -> Option<u64> {
        match choice(ask, nodes) {
            Choice::Start(candidate) => Some(candidate.node.0),
            Choice::Hold { .. } | Choice::Wait => None,
        }
    }

    #[test]
    fn an_idle_node_costs_prefill_and_decode() {
        assert_eq!(terms(&ASK, &facts(1)), [0, 1_000, 2_500, 0, 0]);
    }

    #[test]
    fn a_busy_node_costs_the_steps_between_chunks_and_the_delay_of_those_there() {
        let busy = Facts { running: 2, wait: Span::from_ms(70), ..facts(1) };
        assert_eq!(terms(&ASK, &busy), [70, 1_000 + 4 * 20, 2_500, 2 * (1_000 + 500), 0]);
    }

    #[test]
    fn a_node_in_doubt_costs_more() {
        assert_eq!(terms(&ASK, &Facts { doubt: 1.5, ..facts(1) })[4], 1_750);
        assert_eq!(terms(&ASK, &Facts { doubt: 0.5, ..facts(1) })[4], 0);
    }

    #[test]
    fn no_estimate_is_beyond_its_bound() {
        let worst = Facts {
            wait: Span(u64::MAX),
            prefill_s: f64::MAX,
            step_with_s: f64::INFINITY,
            running: u32::MAX,
            doubt: f64::MAX,
            ..facts(1)
        };
        let terms = judge(&Limits::default(), &ASK, &worst).terms;
        let most = Limits::default().estimate_max;
        assert_eq!([terms.wait, terms.prefill, terms.decode, terms.others, terms.penalty], [most; 5]);
        let nothing = Facts { prefill_s: f64::NAN, ..facts(1) };
        assert_eq!(judge(&Limits::default(), &ASK, &nothing).terms.prefill, Span::ZERO);
    }

    #[test]
    fn the_lowest_score_wins_and_ties_go_to_the_lowest_number() {
        let slow = Facts { step_with_s: 0.1, ..facts(1) };
        assert_eq!(chosen(&ASK, &[slow, facts(3), facts(2)]), Some(2));
        assert_eq!(chosen(&ASK, &[]), None);
    }

    #[test]
    fn a_request_holds_back_for_a_node_where_it_ends_sooner() {
        let slow = Facts { prefill_s: 30.0, ..facts(1) };
        assert_eq!(chosen(&ASK, &[slow, full(2, 5_000)]), None);
        assert_eq!(chosen(&ASK, &[slow, full(2, 40_000)]), Some(1), "the wait is longer than the way round");
        assert_eq!(chosen(&Ask { impatient: true, ..ASK }, &[slow, full(2, 5_000)]), Some(1));
        let Choice::Hold { open, later } = choice(&ASK, &[slow, full(2, 5_000)]) else {
            panic!("it holds back")
        };
        assert_eq!((open.node, later), (NodeId(1), Span::from_s(30 - 1 - 5)));
    }

    #[test]
    fn nobody_waits_for_a_node_that_does_not_open_by_itself() {
        let slow = Facts { prefill_s: 30.0, ..facts(1) };
        let shut = [
            Gate::Draining,
            Gate::Leaving,
            Gate::BreakerOpen { until: None },
            Gate::FailedThisRequest,
            Gate::Alone,
        ];
        for gate in shut {
            assert_eq!(chosen(&ASK, &[slow, Facts { gate: Some(gate), ..facts(2) }]), Some(1), "{gate:?}");
        }
        let soon = [
            Gate::Paused { until: At(9) },
            Gate::KvFull { needed: 2, free: 1 },
            Gate::Prefilling { left: Span(1) },
        ];
        for gate in soon {
            assert_eq!(chosen(&ASK, &[slow, Facts { gate: Some(gate), ..facts(2) }]), None, "{gate:?}");
        }
    }

    #[test]
    fn nothing_starts_whose_first_token_would_be_too_late() {
        let hurried = Ask { left: Span::from_ms(999), ..ASK };
        assert_eq!(judge(&Limits::default(), &hurried, &facts(1)).gate, Some(Gate::TooLate));
        assert_eq!(judge(&Limits::default(), &hurried, &full(1, 0)).gate, Some(Gate::TooLate));
        let drained = Facts { gate: Some(Gate::Draining), ..facts(1) };
        assert_eq!(judge(&Limits::default(), &hurried, &drained).gate, Some(Gate::Draining));
        assert_eq!(judge(&Limits::default(), &Ask { left: Span::from_s(1), ..ASK }, &facts(1)).gate, None);
    }
}
