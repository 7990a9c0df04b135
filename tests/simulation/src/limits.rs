//! Every number that the simulator assumes, each with its reason. Owns them all; the other files hold none of their own but
//! those of a published table.

/// Between reading the last weight and the first token: compiling kernels and one warm step.
pub(crate) const WARM_UP_S: f64 = 1.0;

/// The share of a Mac's GPU memory that weights and prefix caches must leave to the rows.
pub(crate) const KV_FLOOR_SHARE: f64 = 0.1;

/// The share of its memory that macOS lets a Mac's GPU use.
pub(crate) const GPU_MEMORY_SHARE: f64 = 0.7;

/// The share of the GPU's memory that each runtime's prefix cache may fill.
pub(crate) const CACHE_SHARE: f64 = 0.15;

/// Sequences a runtime takes at once.
pub(crate) const ROWS_MAX: u32 = 16;

/// Prompt tokens that a runtime reads between two decode steps.
pub(crate) const CHUNK_TOKENS: u32 = 512;

/// Prompts that a runtime reads side by side, so that padding stays small.
pub(crate) const PREFILLS_MAX: usize = 8;
/// Of these, so many that need more than one chunk: a short prompt never waits behind eight long ones.
pub(crate) const LONG_PREFILLS_MAX: usize = 4;

/// From an order to its arrival at the runtime: a round trip on a local network and a pipe.
pub(crate) const TRANSIT_US: u64 = 2_000;

/// A node reports at most this often.
pub(crate) const REPORT_US: u64 = 1_000_000;

/// How much the work of one request differs from the mean: the standard deviation of its logarithm.
pub(crate) const NOISE_SIGMA: f64 = 0.05;

/// How wrong a chip table is about a node: the standard deviation of the logarithm. Published rates of one chip differ as
/// much, with the software and the model.
pub(crate) const TABLE_SIGMA: f64 = 0.25;

/// A hung runtime is killed after this, or after `HANG_STEPS` of its expected steps if that is longer.
pub(crate) const HANG_S: f64 = 15.0;
/// See `HANG_S`.
pub(crate) const HANG_STEPS: f64 = 4.0;

/// From the death of a node to the moment when its session counts as lost.
pub(crate) const LOST_US: u64 = 3_000_000;

/// Shares and waits are watched in windows of this length.
pub(crate) const WINDOW_US: u64 = 60_000_000;

/// A deadline for those who have none: a day.
pub(crate) const DEADLINE_S: f64 = 86_400.0;

/// A canary is a prompt of this many tokens and an answer of as many.
pub(crate) const CANARY_TOKENS: u32 = 16;
