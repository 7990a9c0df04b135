//! Every bound and every assumed number of the scheduler, each with its reason. Owns the defaults; refuses to be tuned from
//! anywhere else: the other files hold no constants of their own.

use crate::command::Rates;
use crate::time::Span;

/// Each answer moves a model's mean length by a sixteenth of the difference: some fifty answers forget an old habit.
pub(crate) const ANSWER_MEAN_SHARE: u64 = 16;

/// Each departure moves the mean gap by an eighth of the difference: some twenty departures forget an old pace.
pub(crate) const GAP_MEAN_SHARE: u64 = 8;

/// Debug builds check every invariant after every command while at most this many requests live; the checks read them all.
#[cfg(debug_assertions)]
pub(crate) const CHECKED_REQUESTS_MAX: usize = 1_000;

/// The bounds. The defaults are meant for a room of up to some hundred Macs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Requests that may wait at once. At one answer per second and Mac, ten Macs need a quarter of an hour for so many;
    /// nobody waits longer. At some 300 bytes each the full queue is 3 MB.
    pub waiting_max: usize,
    /// Further dispatches after attempts that failed before their first token. Two, because a third failure says that the
    /// request, not the nodes, is at fault.
    pub redispatches_max: u32,
    /// Nodes that are known at once: far more than a room holds; bounds a fault that makes up node numbers.
    pub nodes_max: usize,
    /// Models of one report that are read. A Mac holds a handful.
    pub models_per_node_max: usize,
    /// Models whose pace and answer length are learned: far more than a catalogue holds. One beyond is served on assumptions.
    pub models_learned_max: usize,
    /// Slots believed of one runtime. Unified memory ends long before so many sequences; bounds a broken report.
    pub slots_max: u32,

    /// A runtime that said "busy" is left alone for this long, unless one of its answers ends before. A few decode steps.
    pub busy_pause: Span,
    /// The pause doubles with each "busy" in a row up to this, so that a full runtime is asked a dozen times a minute, not a
    /// hundred times a second.
    pub busy_pause_max: Span,

    /// Shortest advice to come back: sooner is a busy loop over HTTP.
    pub retry_after_min: Span,
    /// Longest advice to come back: by then the picture is another one.
    pub retry_after_max: Span,
    /// Advice while nothing has been seen to end: about one answer of a few hundred tokens.
    pub retry_after_unknown: Span,

    /// Decisions kept for `explain`: the last minutes of a busy room, under 2 MB.
    pub decisions_max: usize,
    /// Nodes kept per decision, the best first: more do not fit on a screen.
    pub candidates_max: usize,

    /// Weight of what a request costs those already running. The outcome is flat between 0.5 and 2.
    pub externality_weight: f32,
    /// Time from a dispatch to the start of its prefill: a round trip, a pipe, and the step under way.
    pub prefill_overhead: Span,
    /// Prompt length at which attention makes the prefill take twice what the linear rate says. At 8,000 tokens, where the
    /// quadratic term begins to matter, this adds a fifth. Zero leaves attention out.
    pub attention_tokens: u32,
    /// No single estimate is above this; keeps sums of absurd reports away from the end of the number range.
    pub estimate_max: Span,
    /// Rates of a model that has reported none: an 8B model at 4 bit on a base M1 (68 GB/s, 1.5 TFLOPS), the slowest Mac
    /// there is, so that a measured node is preferred to an unknown one.
    pub rates: Rates,
    /// Tokens of an answer before the first one has ended: the mean of public chat traces is 200 to 350.
    pub output_tokens: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_max: 10_000,
            redispatches_max: 2,
            nodes_max: 1_024,
            models_per_node_max: 64,
            models_learned_max: 1_024,
            slots_max: 256,
            busy_pause: Span::from_ms(100),
            busy_pause_max: Span::from_s(5),
            retry_after_min: Span::from_s(1),
            retry_after_max: Span::from_s(120),
            retry_after_unknown: Span::from_s(10),
            decisions_max: 1_000,
            candidates_max: 16,
            externality_weight: 1.0,
            prefill_overhead: Span::from_ms(20),
            attention_tokens: 40_000,
            estimate_max: Span::from_s(24 * 3_600),
            rates: Rates { prefill_tokens_per_s: 90.0, step_ms: 130.0, batch_slope: 0.4 },
            output_tokens: 256,
        }
    }
}
