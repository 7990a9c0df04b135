//! The numbers of trust: when a runtime, a node or a request is held to be at fault. Owns the defaults with their reasons; refuses to
//! know what they are applied to.

use crate::time::Span;

/// The bounds of the circuit breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Lanes that are watched at once: a hundred Macs with every model of a catalogue. At most half a kilobyte each. One
    /// beyond is served without a breaker.
    pub lanes_max: usize,
    /// Hard failures in a row, of at least two requests, that open: one may be chance and two a coincidence, and a fourth
    /// client should not pay for what three have shown.
    pub failures_in_a_row: u32,
    /// The latest outcomes whose share of failures is watched: enough that one more moves the share by a twentieth.
    pub window_outcomes: usize,
    /// No share is judged on fewer outcomes than this: of four, two are soon bad by chance.
    pub window_outcomes_min: usize,
    /// Outcomes older than this say nothing about now: some ten answers of a busy slot.
    pub window: Span,
    /// The share of bad outcomes that is too many: then an attempt is better made elsewhere, whatever the load.
    pub share_percent: usize,
    /// How long the first opening lasts: a runtime of a small model has restarted by then.
    pub open_base: Span,
    /// No opening lasts longer: a Mac that was repaired is back within five minutes and nobody need tell us.
    pub open_max: Span,
    /// How far an opening is spread around its length, in thousandths: a fifth keeps lanes that failed together from coming
    /// due together, for ever after.
    pub open_jitter_permille: u64,
    /// Answers in time, in a row, that end a degradation: as many as it takes to judge a share.
    pub recovery_successes: u32,
    /// By how much the score of a degraded lane is multiplied: late means later than three times the prediction.
    pub degraded_factor: u32,
    /// By how much the width of a degraded lane is divided: the step of every multiplicative decrease here.
    pub degraded_width_divisor: u32,
    /// A canary (some thirty tokens in, eight out) takes a second and a half on the slowest Mac; four times that, and some
    /// room for those who still run beside it.
    pub canary_max: Span,
    /// How long one lane may keep the cluster's only probe for its real request. After that it goes on as the slow start
    /// does, with one request at a time, and the next lane has its turn.
    pub probe_request_max: Span,
    /// The longest prompt that may be a probe: some six seconds of prefill on the slowest Mac, so that little is lost.
    pub probe_prompt_tokens_max: u32,
    /// Lanes of one node, open at once for hard failures, that open the node: two models do not break by chance together.
    pub node_open_lanes: usize,
    /// Losses of a node within `node_losses_window` that open it: one is a lid closed or a cable pulled.
    pub node_losses: usize,
    /// How long a loss is held against a node: a Mac that panics under load and boots again is lost every few minutes.
    pub node_losses_window: Span,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            lanes_max: 8_192,
            failures_in_a_row: 3,
            window_outcomes: 20,
            window_outcomes_min: 5,
            window: Span::from_s(120),
            share_percent: 50,
            open_base: Span::from_s(5),
            open_max: Span::from_s(300),
            open_jitter_permille: 200,
            recovery_successes: 5,
            degraded_factor: 3,
            degraded_width_divisor: 2,
            canary_max: Span::from_s(10),
            probe_request_max: Span::from_s(10),
            probe_prompt_tokens_max: 512,
            node_open_lanes: 2,
            node_losses: 2,
            node_losses_window: Span::from_s(600),
        }
    }
}

/// The bounds of the charges against requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlameLimits {
    /// Fingerprints under charge at once. A death charges at most a node's slots, so this is the memory of a hundred deaths,
    /// under a megabyte; the oldest charge is dropped for a new one.
    pub fingerprints_max: usize,
    /// How long a charge or a quarantine lasts: by then a client has stopped repeating itself, and a runtime may have been
    /// mended.
    pub memory: Span,
    /// Deaths after which nobody is taken for a bystander: the first charges, the second refuses, and for the third it was
    /// alone to the end.
    pub deaths_max: u32,
    /// A node is taken for lost no sooner than this after its last sign: three missed keep-alives.
    pub unheard: Span,
}

impl Default for BlameLimits {
    fn default() -> Self {
        Self {
            fingerprints_max: 10_000,
            memory: Span::from_s(24 * 3_600),
            deaths_max: 3,
            unheard: Span::from_ms(1_500),
        }
    }
}

/// The bounds of the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// Retries that may be made at once, and the most that can be saved up: two full batches, so that the death of one Mac
    /// does not exhaust them.
    pub reserve: u32,
    /// Tenths of a retry that a first dispatch earns: one is the tenth of all work that retries may be.
    pub earned_tenths: u32,
    /// The reserve grows by a tenth of a retry in this time: six retries a minute in a room where nothing else goes on, the
    /// whole reserve in ten minutes.
    pub refill_tenth: Span,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { reserve: 64, earned_tenths: 1, refill_tenth: Span::from_s(1) }
    }
}
