//! Every bound of the model store, with its reason.

use std::time::Duration;

/// Longest header of a safetensors file. The format allows 100 MB; a shard of the largest public models has under 1 MiB, one
/// file of 100,000 tensors about 12 MiB, and a parsed header takes several times its bytes.
pub(super) const HEADER_BYTES_MAX: u64 = 32 << 20;

/// Dimensions of a tensor; convolutions over video have five.
pub(super) const DIMENSIONS_MAX: usize = 16;

/// Shards of one model. The largest public models have under 200; each is opened and its header read.
pub(super) const SHARDS_MAX: usize = 4_096;

/// Entries of a model folder that are looked at; a folder with more is not a model folder.
pub(super) const ENTRIES_MAX: usize = 16_384;

/// A config.json or generation_config.json. Mixed quantisation names each layer: a few hundred kB; parsed it takes ten times that.
pub(super) const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The index of a model's shards. The largest (a 671B model, 90,000 tensors) has 9 MB.
pub(super) const INDEX_BYTES_MAX: u64 = 32 << 20;

/// End-of-sequence ids of one model; models in use have up to ten.
pub(super) const EOS_IDS_MAX: usize = 64;

/// A context length above this is a placeholder for "no limit" (some tokenizers say 1e30), not a fact.
pub(super) const CONTEXT_TOKENS_MAX: u64 = 1 << 30;

/// Layers of one model; deeper is a damaged config. The largest public model has under 200.
pub(super) const LAYERS_MAX: u64 = 4_096;

/// What a footprint reserves KV for: this many sequences of this many tokens each (of the model's context, where that is
/// shorter). Four is where a batch on Apple Silicon starts to pay less than another Mac would; 8,192 tokens hold all but the
/// longest few percent of chats. More may run while memory lasts; this much is promised before loading.
pub(super) const RESERVED_WIDTH: u64 = 4;
pub(super) const RESERVED_TOKENS: u64 = 8_192;

/// The prefix cache is reserved what one such sequence takes, within these bounds: the beginning that many requests share, or
/// the last turns of a few conversations, at a fifth of what the running sequences have. Below the least, copies of a small
/// model's prefixes would push one another out; above the most, memory serves better as a place for another model.
pub(super) const PREFIX_BYTES_MIN: u64 = 64 << 20;
pub(super) const PREFIX_BYTES_MAX: u64 = 4 << 30;

/// Tokens that a layer with a window holds beyond it while a prompt is read: a chunk of prefill.
pub(super) const WINDOW_SPARE_TOKENS: u64 = 512;

/// KV for one sequence's reserved tokens where the cache's shape cannot be told from the config, as a divisor of the weights:
/// of the families whose shape is known, an 8B model in 4 bits has the most KV for its weights, about a quarter for 8,192.
pub(super) const UNKNOWN_KV_WEIGHTS_DIVISOR: u64 = 4;

/// A runtime without a model: Python, MLX, mlx-lm and the tokenizer took 77 MiB (CPU build); the rest is room for Metal's own.
pub(super) const PROCESS_BYTES: u64 = 160 << 20;

/// Activations of a step, and freed buffers MLX keeps: eight prompts in chunks of 512 tokens took 127 MiB on the smallest model
/// there is (CPU build, unfused attention) and grow with the model, up to the cache limit the runtime sets (512 MiB).
pub(super) const STEP_BYTES_MIN: u64 = 128 << 20;
pub(super) const STEP_BYTES_MAX: u64 = 512 << 20;
/// Between the two, a step takes this part of the weights: wider and deeper models have both in proportion.
pub(super) const STEP_WEIGHTS_DIVISOR: u64 = 8;

/// A download that gets no byte further in this time has stalled; the hub's client retries by itself well within it.
pub(super) const DOWNLOAD_SILENCE: Duration = Duration::from_secs(180);

/// Longest part of a model id on a hub.
pub(super) const ID_PART_CHARS_MAX: usize = 96;
