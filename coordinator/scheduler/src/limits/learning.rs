//! The numbers of learning: what samples weigh, and how much is remembered. Owns the defaults with their reasons; refuses to know
//! what is learned from them.

use crate::time::Span;

/// How the speeds of lanes are learned. Errors and noise are standard deviations relative to the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimits {
    /// Lanes whose speed is remembered: a hundred Macs with forty models each, in 3 MB.
    pub lanes_max: usize,
    /// Decode samples below which a lane is explored with care: by then a wrong seed is corrected and a batch was seen.
    pub fresh_samples: u32,

    /// Noise of one sample: what steps and prefills of equal work differ by on a Mac that people also use.
    pub noise: f64,
    /// Error of a chip table: published rates of one chip differ by up to half, with the software and the model.
    pub seed_error: f64,
    /// Error of the slope of a batch beyond that: measured slopes range from 0.24 to 0.43.
    pub slope_error: f64,
    /// Error of the cost of a KV token beyond that: grouped-query attention, windows and KV precision differ by far more
    /// than a factor of two.
    pub kv_error: f64,
    /// Error of the overhead of a prefill: it is the network's and the runtime's, not the chip's.
    pub overhead_error: f64,
    /// Error of the cost of attention: as of a KV token.
    pub attention_error: f64,
    /// KV tokens at which reading them takes as long as reading the weights: 4.5 GB of an 8B model at 4 bit, 128 KiB each.
    pub kv_tokens: u32,

    /// Share of what is known that outlives a sample. Some 25 samples are remembered: enough to average the noise of three
    /// parameters down to 3 %, few enough to follow a chip that gets warm.
    pub kept: f64,
    /// Steps that make a whole sample; fewer count in proportion. The mean of so many has a quarter of a step's noise.
    pub steps_whole: u32,
    /// Surprises beyond so many mean deviations are clipped: of honest samples, one in sixty.
    pub surprise: f64,
    /// Mean deviations that a sample may be off without speaking for a lasting change.
    pub change_slack: f64,
    /// Sum of what goes beyond that, in mean deviations, at which a change is lasting: three clipped surprises in a row, or
    /// six of two deviations. Two pauses in a row happen; in noise alone the sum gets there once in thousands of samples.
    pub change_score: f64,
    /// Share by which each sample moves the mean deviation.
    pub deviation_share: f64,
    /// Smallest mean deviation believed: on a quiet Mac a change of 6 % would be a surprise.
    pub deviation_min: f64,
    /// Largest mean deviation believed: a change by half is one on the most restless Mac.
    pub deviation_max: f64,
    /// How far the seeds of a node are corrected by its other models: beyond that the model is at fault, not the chip.
    pub sibling_max: f64,

    /// Distance from one or two sequences at which a mean batch still counts as such.
    pub pair_tolerance: f64,
    /// Share by which each sample moves the mean step of one or two sequences.
    pub pair_share: f64,
    /// Share by which each load moves the mean load time. Loads are rare, and the second may come from the page cache.
    pub load_share: f64,
    /// What the last sequence of a batch must save of the node time of a typical request, prefill included. Where prompts are long
    /// and answers short this ends at three or four, where answers are long at a dozen.
    pub gain_min: f64,
    /// The same where a line is longer than is borne. The last tenth of a room's throughput costs those inside half as much again
    /// for each token, and is what keeps a line from growing: simulated at saturation the mean wait falls to a quarter.
    pub gain_min_in_line: f64,

    /// Longest measurement believed, in seconds: no deadline is longer.
    pub sample_s_max: f64,
    /// Widest batch believed of a sample.
    pub batch_max: f64,
    /// Most KV tokens believed of a sample: no Mac has the memory for more.
    pub kv_tokens_max: f64,
    /// Plausible seconds of overhead, per token, and per token attended to: from a tiny model to one that swaps.
    pub prefill_range: [(f64, f64); 3],
    /// Plausible seconds of a step, per further sequence, and per KV token: likewise.
    pub step_range: [(f64, f64); 3],
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            lanes_max: 4_096,
            fresh_samples: 8,
            noise: 0.1,
            seed_error: 0.5,
            slope_error: 0.5,
            kv_error: 1.0,
            overhead_error: 1.0,
            attention_error: 1.0,
            kv_tokens: 40_000,
            kept: 0.96,
            steps_whole: 16,
            surprise: 3.0,
            change_slack: 1.0,
            change_score: 6.0,
            deviation_share: 0.0625,
            deviation_min: 0.02,
            deviation_max: 0.17,
            sibling_max: 4.0,
            pair_tolerance: 0.05,
            pair_share: 0.125,
            load_share: 0.25,
            gain_min: 0.01,
            gain_min_in_line: 0.003,
            sample_s_max: 3_600.0,
            batch_max: 1_024.0,
            kv_tokens_max: 1e9,
            prefill_range: [(0.0, 60.0), (1e-6, 1.0), (0.0, 1e-3)],
            step_range: [(1e-5, 10.0), (0.0, 10.0), (0.0, 1e-3)],
        }
    }
}

/// How the lengths of answers are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Tenants, models and bounds that are told apart: some hundred tenants with some models each, in 2 MB.
    pub scopes_max: usize,
    /// Answers above which all counts are halved: habits change within days, a 99th percentile takes some hundreds.
    pub answers_max: u32,
    /// Answers that a scope must have to count as much as the next wider one: by then its mean is known to a third.
    pub prior: u32,
    /// Longest answer believed: no context is longer.
    pub tokens_max: u32,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { scopes_max: 4_096, answers_max: 512, prior: 8, tokens_max: 1 << 20 }
    }
}

/// What is remembered of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimits {
    /// Prompt tokens that each block covers. Finer blocks find little more: what is shared is whole system prompts and turns.
    pub block_tokens: u32,
    /// Blocks remembered over all lanes, each counted once per lane that holds it: 64 million tokens. Some MB with prompts as
    /// they are, 80 MB if every block were a segment of its own.
    pub blocks_max: usize,
    /// Lanes whose prefixes are remembered: as many as have a speed.
    pub lanes_max: usize,
    /// Tokens believed to fit into the prefix cache of a lane that reports none: 8 GB of an 8B model's.
    pub capacity_tokens: u32,
    /// Blocks by which a runtime may have cached less than believed without having lost anything: it rounds to blocks of its
    /// own, and to points from which it can go on.
    pub rounding_blocks: u32,
    /// Sessions remembered: those of an hour at five new ones a second, in 2 MB.
    pub sessions_max: usize,
    /// How long a session stays with its node without a request. Two minutes pass between turns in the median; after half
    /// an hour the cache has seen others.
    pub session_idle_max: Span,
}

impl Default for PrefixLimits {
    fn default() -> Self {
        Self {
            block_tokens: 256,
            blocks_max: 1 << 18,
            lanes_max: 4_096,
            capacity_tokens: 1 << 16,
            rounding_blocks: 2,
            sessions_max: 16_384,
            session_idle_max: Span::from_s(1_800),
        }
    }
}
