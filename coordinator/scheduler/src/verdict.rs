//! The answer to "why here, why not there": one decision with every number that led to it.
//!
//! Owns the words in which a decision is told, the same in tests, in the command line and on the dashboard. Refuses names: it
//! is lent them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::effect::Refusal;
use crate::ids::{Attempt, ModelId, NodeId, RequestId};
use crate::placement::{Candidate, Gate};
use crate::time::{At, Span};

/// One decision about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// About which request.
    pub request: RequestId,
    /// Which model it asks for.
    pub model: ModelId,
    /// When it was decided.
    pub at: At,
    /// The request was taken over from an earlier leader.
    pub taken_over: bool,
    /// What was decided.
    pub standing: Standing,
    /// Nodes that hold the model, the best first.
    pub candidates: Vec<Candidate>,
    /// Nodes that hold the model and are left out above.
    pub omitted: usize,
    /// Nodes that do not hold the model.
    pub without_model: usize,
}

/// What was decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Waiting {
        /// How many wait before it for the same model.
        ahead: u32,
        /// When it will probably start.
        eta: Option<Span>,
    },
    /// It was sent to a node.
    Dispatched {
        /// Which attempt that was.
        attempt: Attempt,
        /// Where.
        node: NodeId,
    },
    /// It was sent there by an earlier leader, and runs.
    Running {
        /// Which attempt that is.
        attempt: Attempt,
        /// Where.
        node: NodeId,
    },
    /// It was refused.
    Refused(Refusal),
}

/// What people call things.
pub trait Names {
    /// The name of a model.
    fn model(&self, model: ModelId) -> String;
    /// The name of a node.
    fn node(&self, node: NodeId) -> String;
}

impl Verdict {
    /// The verdict in words: a sentence, then a line per node.
    #[must_use]
    pub fn words(&self, names: &dyn Names) -> String {
        let mut words = format!(
            "At {}, request {} for {}{} {}.",
            seconds(Span(self.at.0)),
            self.request.0,
            names.model(self.model),
            if self.taken_over { ", taken over from an earlier leader," } else { "" },
            self.standing_words(names)
        );
        for candidate in &self.candidates {
            words.push_str(&format!("\n  {}: {}", names.node(candidate.node), candidate_words(candidate)));
        }
        if self.omitted > 0 {
            words.push_str(&format!("\n  {} more, ranked lower", nodes(self.omitted)));
        }
        if self.without_model > 0 {
            words.push_str(&format!("\n  {} without the model", nodes(self.without_model)));
        }
        words
    }

    fn standing_words(&self, names: &dyn Names) -> String {
        match &self.standing {
            Standing::Waiting { ahead, eta } => {
                let start = eta.map_or("no start in sight".to_string(), |eta| {
                    format!("start in about {}", seconds(eta))
                });
                format!("waits: {ahead} before it, {start}")
            }
            Standing::Dispatched { attempt, node } => {
                format!("went to {}, attempt {}", names.node(*node), attempt.0)
            }
            Standing::Running { attempt, node } => {
                format!("runs on {}, attempt {}", names.node(*node), attempt.0)
            }
            Standing::Refused(refusal) => format!("was refused: {}", refusal_words(refusal, names)),
        }
    }
}

/// Why a request is refused, in words.
#[must_use]
pub fn refusal_words(refusal: &Refusal, names: &dyn Names) -> String {
    match refusal {
        Refusal::QueueFull { retry_after } => {
            format!("the queue is full, come back in {}", seconds(*retry_after))
        }
        Refusal::Shed { retry_after } => {
            format!("batch work gives way to interactive work, come back in {}", seconds(*retry_after))
        }
        Refusal::DeadlineUnreachable { needed } => {
            format!("the first token alone needs {}, past the deadline", seconds(*needed))
        }
        Refusal::Expired => "its deadline passed while it waited".to_string(),
        Refusal::NodeLost => "every allowed attempt failed".to_string(),
        Refusal::Duplicate => "a request of that number is alive".to_string(),
        Refusal::Quarantined => "it brought down two runtimes and does not run again".to_string(),
        Refusal::NoCapacity(why) => why.words(names),
    }
}

fn candidate_words(candidate: &Candidate) -> String {
    let terms = candidate.terms;
    let gate = candidate.gate.map_or(String::new(), |gate| format!("{}; else ", gate_words(gate)));
    let mut words = format!("{gate}{} = prefill {}", seconds(terms.total()), seconds(terms.prefill));
    if candidate.cached_tokens > 0 {
        words.push_str(&format!(" ({} tokens cached)", candidate.cached_tokens));
    }
    words.push_str(&format!(" + decode {}", seconds(terms.decode)));
    let others = [("wait", terms.wait), ("delay of others", terms.others), ("doubt", terms.penalty)];
    for (name, term) in others.into_iter().filter(|(_, term)| *term > Span::ZERO) {
        words.push_str(&format!(" + {name} {}", seconds(term)));
    }
    words
}

/// What shuts a node out, in words.
#[must_use]
pub fn gate_words(gate: Gate) -> String {
    match gate {
        Gate::Settling { until } => {
            format!("waits until {} for the other gateways to tell what runs", seconds(Span(until.0)))
        }
        Gate::Draining => "draining".to_string(),
        Gate::Leaving => "about to unload the model".to_string(),
        Gate::BreakerOpen { until: Some(until) } => {
            format!("its breaker is open until {}", seconds(Span(until.0)))
        }
        Gate::BreakerOpen { until: None } => "its breaker is open and waits for a probe".to_string(),
        Gate::FailedThisRequest => "failed this request".to_string(),
        Gate::TooLate => "too late for the deadline".to_string(),
        Gate::Paused { until } => format!("busy until {}", seconds(Span(until.0))),
        Gate::Full { in_flight, limit } => format!("full, {in_flight} of {limit}"),
        Gate::KvFull { needed, free } => format!("no room for {needed} tokens, {free} are free"),
        Gate::Alone => "somebody must run there alone".to_string(),
        Gate::Prefilling { left } => format!("prompts before it for {}", seconds(left)),
    }
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_string() } else { format!("{count} nodes") }
}

/// Whole milliseconds: enough for people, and equal on every machine.
pub(crate) fn seconds(span: Span) -> String {
    let ms = span.0 / 1_000;
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Terms;

    struct Numbers;

    impl Names for Numbers {
        fn model(&self, model: ModelId) -> String {
            format!("model-{}", model.0)
        }

        fn node(&self, node: NodeId) -> String {
            format!("node-{}", node.0)
        }
    }

    fn verdict(standing: Standing) -> Verdict {
        Verdict {
            request: RequestId(7),
            model: ModelId(2),
            at: At(1_234_567),
            taken_over: false,
            standing,
            candidates: vec![],
            omitted: 0,
            without_model: 0,
        }
    }

    fn words(standing: Standing) -> String {
        verdict(standing).words(&Numbers)
    }

    fn judged(gate: Option<Gate>) -> String {
        let terms = Terms {
            wait: Span::from_ms(1),
            prefill: Span::from_ms(20),
            decode: Span::from_ms(300),
            others: Span::from_ms(4_000),
            penalty: Span::ZERO,
        };
        candidate_words(&Candidate { node: NodeId(3), terms, cached_tokens: 256, gate })
    }

    #[test]
    fn a_dispatch_names_the_node_and_the_attempt() {
        let standing = Standing::Dispatched { attempt: Attempt(2), node: NodeId(5) };
        assert_eq!(words(standing), "At 1.234 s, request 7 for model-2 went to node-5, attempt 2.");
    }

    #[test]
    fn a_wait_tells_its_place_and_its_end_if_there_is_one_in_sight() {
        let waiting = |eta| words(Standing::Waiting { ahead: 3, eta });
        let start = "At 1.234 s, request 7 for model-2 waits: 3 before it,";
        assert_eq!(waiting(None), format!("{start} no start in sight."));
        assert_eq!(waiting(Some(Span::from_ms(2_500))), format!("{start} start in about 2.500 s."));
    }

    #[test]
    fn each_refusal_has_its_words() {
        let refused = |refusal| {
            let words = words(Standing::Refused(refusal));
            words
                .strip_prefix("At 1.234 s, request 7 for model-2 was refused: ")
                .expect("a refusal")
                .to_owned()
        };
        let second = Span::from_s(1);
        assert_eq!(
            refused(Refusal::QueueFull { retry_after: second }),
            "the queue is full, come back in 1.000 s."
        );
        assert_eq!(
            refused(Refusal::DeadlineUnreachable { needed: second }),
            "the first token alone needs 1.000 s, past the deadline."
        );
        assert_eq!(refused(Refusal::Expired), "its deadline passed while it waited.");
        assert_eq!(refused(Refusal::NodeLost), "every allowed attempt failed.");
        assert_eq!(refused(Refusal::Duplicate), "a request of that number is alive.");
        assert_eq!(
            refused(Refusal::Shed { retry_after: second }),
            "batch work gives way to interactive work, come back in 1.000 s."
        );
        assert_eq!(refused(Refusal::Quarantined), "it brought down two runtimes and does not run again.");
    }

    #[test]
    fn each_gate_has_its_words_before_the_score_it_keeps_out() {
        let score = "4.321 s = prefill 0.020 s (256 tokens cached) + decode 0.300 s + wait 0.001 s + delay of others 4.000 s";
        assert_eq!(judged(None), score);
        let until = At(5_000_000);
        let gates = [
            (Gate::Settling { until }, "waits until 5.000 s for the other gateways to tell what runs"),
            (Gate::Draining, "draining"),
            (Gate::Leaving, "about to unload the model"),
            (Gate::BreakerOpen { until: Some(until) }, "its breaker is open until 5.000 s"),
            (Gate::BreakerOpen { until: None }, "its breaker is open and waits for a probe"),
            (Gate::FailedThisRequest, "failed this request"),
            (Gate::TooLate, "too late for the deadline"),
            (Gate::Paused { until }, "busy until 5.000 s"),
            (Gate::Full { in_flight: 3, limit: 2 }, "full, 3 of 2"),
            (Gate::KvFull { needed: 30, free: 20 }, "no room for 30 tokens, 20 are free"),
            (Gate::Alone, "somebody must run there alone"),
            (Gate::Prefilling { left: Span::from_ms(5) }, "prompts before it for 0.005 s"),
        ];
        for (gate, words) in gates {
            assert_eq!(judged(Some(gate)), format!("{words}; else {score}"));
        }
    }

    #[test]
    fn nodes_that_are_not_shown_are_counted() {
        let standing = Standing::Refused(Refusal::Expired);
        let tail = |omitted, without_model| {
            let words = Verdict { omitted, without_model, ..verdict(standing.clone()) }.words(&Numbers);
            words.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(tail(0, 0), [""; 0]);
        assert_eq!(tail(1, 2), ["  1 node more, ranked lower", "  2 nodes without the model"]);
    }
}
