//! Every bound and every assumed number of the scheduler, each with its reason. Owns the defaults; refuses to be tuned from
//! anywhere else: the other files hold no constants of their own.

mod homes;
mod learning;
mod trust;

use crate::report::Rates;
use crate::time::Span;

pub use homes::ResidencyLimits;
pub use learning::{AnswerLimits, PrefixLimits, RateLimits};
pub use trust::{BlameLimits, BreakerLimits, RetryLimits};

/// Each departure moves the mean gap by an eighth of the difference: some twenty departures forget an old pace.
pub(crate) const GAP_MEAN_SHARE: u64 = 8;

/// Answer lengths are counted in so many buckets.
pub(crate) const ANSWER_BUCKETS: usize = 24;

/// The longest answer of each bucket but the last: half as long again as that of the one before, since a prediction that is
/// off by a fifth weighs nodes no worse. The last one holds what is longer than 58,000 tokens.
pub(crate) const ANSWER_LENGTHS: [u32; ANSWER_BUCKETS - 1] = {
    let mut lengths = [8; ANSWER_BUCKETS - 1];
    let mut bucket = 1;
    while bucket < lengths.len() {
        lengths[bucket] = lengths[bucket - 1] * 3 / 2;
        bucket += 1;
    }
    lengths
};

/// What one answer adds to its bucket, so that it outlives four halvings.
pub(crate) const ANSWER_WEIGHT: u64 = 16;

/// The weight of a whole distribution: at 20 bits, with lengths of 20 bits and as many for a scale, sums fit into 64.
pub(crate) const BLEND_WHOLE: u64 = 1 << 20;

/// Each loss that a runtime tells takes an eighth off what its prefix cache is believed to hold: some five losses halve it.
pub(crate) const CAPACITY_SHARE: usize = 8;

/// Bytes believed of a model or a budget: a pebibyte is more than a room of Macs has, and a thousand of them can be added up.
pub(crate) const BYTES_MAX: u64 = 1 << 50;

/// Share by which each answer moves what is typical for its model: some sixty answers are remembered.
pub(crate) const TYPICAL_SHARE: f64 = 1.0 / 64.0;

/// Turns that the tenant of a request may be ahead of the first in line and still be preferred because it suits the node. With forty
/// the tenants of a saturated room still get equal shares (Jain index 0.95); a hundred would answer sooner and less fairly.
pub(crate) const AFFINITY_TURNS: u64 = 40;

/// Marked requests that are tried in one walk: a lost Mac leaves as many as it carried, and each may differ from the others.
pub(crate) const MARKED_TRIED_MAX: usize = 64;

/// Who has not said how long an answer may get claims what nine of ten such answers do not exceed: the tenth goes into debt.
pub(crate) const EXPECTED_ANSWER_PERMILLE: u32 = 900;

/// Claims of one account that are open at once: as many as a room of Macs ever works on.
pub(crate) const CLAIMS_MAX: usize = 16_384;

/// Usage that a gateway has told the leader is written down within so long, or never: several times the pause between two reports.
pub(crate) const UNSEEN_USAGE: Span = Span::from_s(15);

/// Debug builds check every invariant after every command while at most this many requests live; the checks read them all.
#[cfg(debug_assertions)]
pub(crate) const CHECKED_REQUESTS_MAX: usize = 1_000;

/// The bounds. The defaults are meant for a room of up to some hundred Macs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Requests that may wait at once. At one answer per second and Mac, ten Macs need a quarter of an hour for so many;
    /// nobody waits longer. At some 300 bytes each the full queue is 3 MB.
    pub waiting_max: usize,
    /// Requests that may be alive when one more is taken over from an earlier leader: twice the line, since that one had a line
    /// of newcomers, and beside it what ran and what came back.
    pub adopted_max: usize,
    /// How long a new leader waits at most to be told what runs: gateways and agents find it within some heartbeats. Nothing starts
    /// meanwhile.
    pub settling: Span,
    /// Further dispatches after attempts that failed before their first token. Two, because a third failure says that the
    /// request, not the nodes, is at fault.
    pub redispatches_max: u32,
    /// Further dispatches after attempts that failed after their first token. One more, because the client has part of an answer
    /// that is worth something, and the answer has shown that it can be computed.
    pub migrations_max: u32,
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
    /// No single estimate is above this; keeps sums of absurd reports away from the end of the number range.
    pub estimate_max: Span,
    /// Rates of a model that has reported none: an 8B model at 4 bit on a base M1 (68 GB/s, 1.5 TFLOPS), the slowest Mac
    /// there is, so that a measured node is preferred to an unknown one.
    pub rates: Rates,
    /// Tokens of an answer before the first one has ended: the mean of public chat traces is 200 to 350.
    pub output_tokens: u32,
    /// KV tokens are reserved for an answer as long as this share of its like have been.
    pub kv_quantile_permille: u32,
    /// What a cached prompt token costs a tenant, as a share of a computed one: it takes memory and a copy, no arithmetic.
    pub cached_share: f64,
    /// What a prompt without known prefix takes where its session ran before, as a share: enough to decide between equals.
    pub session_share: f64,
    /// Decode steps that whoever is overdue is still expected to take.
    pub overdue_steps: u32,
    /// Width at which a node's pace is read when requests are compared with one another.
    pub usual_width: u32,

    /// A tenant's turn: counters within one are equal, and the order of the line decides. About one short answer.
    pub turn: Span,
    /// Idle tenants whose counters are kept, and weights that may be given. At some 60 bytes each, 600 kB.
    pub tenants_idle_max: usize,
    /// How many times its own size a request may be overtaken by smaller ones that came later.
    pub size_handicap: u64,
    /// The longest time by which anybody is overtaken within its tenant's requests: the bound on starvation.
    pub handicap_max: Span,
    /// Batch work that has waited so long counts as interactive.
    pub batch_ageing: Span,
    /// Waiting requests tried against the nodes in one walk, beside the marked ones. The more there are to choose from, the better
    /// each node is suited: simulated at saturation, 32 halve the mean wait that 8 leave, and 64 change little.
    pub window: usize,
    /// Pairs of a request and a node that are judged in one walk, and so the time that a decision may take: with more nodes fewer
    /// requests are tried.
    pub judged_max: usize,
    /// As few as that are tried with however many nodes.
    pub window_min: usize,
    /// Nodes whose cache a waiting request may wish for: the best few; a prefix that is everywhere needs no wish.
    pub wishes_max: usize,
    /// Of those who wish for an open node, so many are tried.
    pub wishes_tried: usize,
    /// Whoever suits a node better than those before it in line overtakes nobody by more than this. Simulated at saturation, half a
    /// minute wastes what suitability wins: the mean wait is nine times as long.
    pub affinity_overtake: Span,
    /// Whoever has waited less than this is also overtaken by tenants that are further ahead: a short wait does no harm, and at
    /// saturation suiting each node is worth half the mean wait.
    pub patience: Span,
    /// But not by a tenant whose own requests would keep all nodes of the model busy for so long: it waits for itself. Where they
    /// are also most of what waits, and others ask beside it, no batch is widened for it.
    pub flood: Span,
    /// Tenants of a line that are counted one by one.
    pub heads_counted: usize,
    /// A request holds back from an open node for a better one at most so long: predictions of other people's answers are good
    /// for some seconds.
    pub hold_max: Span,
    /// A node may have this much prompt work before it and still be sent more: what hides the way there and a step under way.
    pub bind_ahead: Span,

    /// No batch is so wide that a decode step takes longer, unless one sequence alone does: five tokens a second, as fast as
    /// people read.
    pub inter_token_target: Span,
    /// The same where a line is longer than is borne: slower than people read, since whoever waits reads nothing.
    pub inter_token_most: Span,
    /// Work in a model's line, as its replicas need for it, that is no reason for slower answers.
    pub line_borne: Span,
    /// The most sequences at once on a runtime about which nothing was measured.
    pub fresh_width: u32,
    /// A decode step waits at most about this long for prompts of others.
    pub prefill_chunk_target: Span,
    /// Below this the overhead of a chunk outweighs it.
    pub prefill_chunk_min: u32,
    /// Above this the workspace of a chunk outweighs what is won.
    pub prefill_chunk_max: u32,
    /// Chunk by which a prompt is taken to be cut when its time is estimated.
    pub prefill_chunk_assumed: u32,
    /// A load of which nobody can say how long it takes: 40 GB from an SSD.
    pub load_unknown: Span,
    /// An answer is late when its first token, or its tokens, took so many times what was predicted.
    pub late_factor: u64,
    /// Nothing is late before this: predictions of small things are noise.
    pub late_first_token_min: Span,
    /// Step samples of one model that are read from one report; widths of a batch are few.
    pub samples_max: usize,
    /// Spreads breakers' waiting times; the same for the life of a cluster.
    pub jitter_seed: u64,

    /// The time from a dispatch to the start of its prefill, until it is learned: a round trip, a pipe, and the step under way.
    pub prefill_overhead: Span,
    /// Prompt length at which attention makes the prefill take twice what the linear rate says, until it is learned. At 8,000
    /// tokens, where the quadratic term begins to matter, this adds a fifth. Zero leaves attention out.
    pub attention_tokens: u32,

    /// The ladder of overload.
    pub overload: OverloadLimits,
    /// How speeds are learned.
    pub rates_learning: RateLimits,
    /// How the lengths of answers are learned.
    pub answers: AnswerLimits,
    /// What is remembered of prefixes.
    pub prefixes: PrefixLimits,
    /// When a runtime or a node is trusted no more, and how it earns trust again.
    pub breaker: BreakerLimits,
    /// When a request is held to be poison.
    pub blame: BlameLimits,
    /// How many dispatches may be retries.
    pub retries: RetryLimits,
    /// Which model is where.
    pub residency: ResidencyLimits,
}

/// From which length of a model's line, in time that its nodes need for it, service is taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverloadLimits {
    /// Batch work is held: people would notice a wait of ten seconds.
    pub hold_batch: Span,
    /// New batch work is refused: it would wait for minutes.
    pub refuse_batch: Span,
    /// Waiting batch work is refused.
    pub shed_batch: Span,
    /// New interactive work of tenants with their share in line is refused: a client waits ten minutes at most.
    pub full: Span,
}

impl Default for OverloadLimits {
    fn default() -> Self {
        Self {
            hold_batch: Span::from_s(10),
            refuse_batch: Span::from_s(120),
            shed_batch: Span::from_s(240),
            full: Span::from_s(600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_max: 10_000,
            adopted_max: 20_000,
            settling: Span::from_s(1),
            redispatches_max: 2,
            migrations_max: 3,
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
            estimate_max: Span::from_s(24 * 3_600),
            rates: Rates { prefill_tokens_per_s: 90.0, step_ms: 130.0, batch_slope: 0.4 },
            output_tokens: 256,
            kv_quantile_permille: 950,
            cached_share: 0.1,
            session_share: 0.95,
            overdue_steps: 8,
            usual_width: 4,
            turn: Span::from_s(2),
            tenants_idle_max: 10_000,
            size_handicap: 4,
            handicap_max: Span::from_s(120),
            batch_ageing: Span::from_s(600),
            window: 32,
            judged_max: 160,
            window_min: 4,
            wishes_max: 3,
            wishes_tried: 4,
            affinity_overtake: Span::from_s(600),
            patience: Span::from_s(20),
            flood: Span::from_s(240),
            heads_counted: 64,
            hold_max: Span::from_s(5),
            bind_ahead: Span::from_ms(100),
            inter_token_target: Span::from_ms(200),
            inter_token_most: Span::from_ms(400),
            line_borne: Span::from_s(2),
            fresh_width: 2,
            prefill_chunk_target: Span::from_ms(500),
            prefill_chunk_min: 64,
            prefill_chunk_max: 2_048,
            prefill_chunk_assumed: 512,
            load_unknown: Span::from_s(10),
            late_factor: 3,
            late_first_token_min: Span::from_s(2),
            samples_max: 32,
            jitter_seed: 0,
            prefill_overhead: Span::from_ms(20),
            attention_tokens: 40_000,
            overload: OverloadLimits::default(),
            rates_learning: RateLimits::default(),
            answers: AnswerLimits::default(),
            prefixes: PrefixLimits::default(),
            breaker: BreakerLimits::default(),
            blame: BlameLimits::default(),
            retries: RetryLimits::default(),
            residency: ResidencyLimits::default(),
        }
    }
}
