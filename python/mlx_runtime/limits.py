"""Every bound of the runtime, each with its reason. It refuses to hold policy: numbers only."""

from typing import Final

MIB: Final = 1024 * 1024

# Given by the frame contract.
FRAME_BYTES_MAX: Final = 64 * MIB
OUTBOX_BYTES_MAX: Final = 4 * MIB
WAITING_ROWS_MAX: Final = 256
TOP_LOGPROBS_MAX: Final = 20

# A msgpack array of nils grows eightfold in memory when decoded; four million entries hold any prompt there is.
ARRAY_LEN_MAX: Final = 4 * MIB
MAP_LEN_MAX: Final = 4096

# What may wait between the reader and the engine while one step runs. A step takes milliseconds to seconds, so a
# thousand messages are an agent that does not listen; the bytes hold a few of the longest prompts.
INBOX_MESSAGES_MAX: Final = 1024
INBOX_BYTES_MAX: Final = 256 * MIB

# Rows prefilling side by side: enough to fill the GPU with short prompts, few enough that padding stays small.
PREFILL_ROWS_MAX: Final = 8
# Of those, rows whose prompt needs several chunks: the other half stays open for short prompts.
PREFILL_LONG_ROWS_MAX: Final = 4

# Asked for by `load`; the ceilings only catch nonsense.
BATCH_ROWS_MAX: Final = 1024
PREFILL_CHUNK_MAX: Final = 65536
PREFILL_CHUNK_DEFAULT: Final = 512
BATCH_ROWS_DEFAULT: Final = 32
# What a row may set the chunk to while others decode: no scheduler wants a decode step to wait for more.
PREFILL_CHUNK_TUNED_MAX: Final = 8192

# Parameters of one row.
MAX_TOKENS_MAX: Final = 1 << 31
STOP_IDS_MAX: Final = 1024
LOGIT_BIAS_MAX: Final = 4096
# float32 overflows near 3e38; anything past this bans or forces a token just as surely.
LOGIT_BIAS_ABS_MAX: Final = 1e9
PENALTY_ABS_MAX: Final = 1e3
TEMPERATURE_MAX: Final = 1e3
U64_MAX: Final = (1 << 64) - 1

# Names a tenant; a digest of 32 bytes in hexadecimal fits.
CACHE_SALT_BYTES_MAX: Final = 64

# The grain of sharing in the prefix cache: at most 63 tokens are lost at its edge, and a prompt of eight thousand is
# only 128 digests.
PREFIX_BLOCK_TOKENS: Final = 64
# Fewer new tokens than this are computed in one short chunk, about as fast as a copy is made and another entry dropped.
PREFIX_KEEP_TOKENS_MIN: Final = 128
# The bytes are the bound that counts; this one holds when a model's tokens take none.
PREFIX_ENTRIES_MAX: Final = 1024
# Unless `load` says otherwise: eight thousand tokens of an 8B model in bfloat16, a small share of the least Mac.
PREFIX_CACHE_BYTES_DEFAULT: Final = 1024 * MIB
# Asked for by `load`; only catches nonsense.
PREFIX_CACHE_BYTES_MAX: Final = 1 << 50

# Proof of life is owed once a second; half of that leaves room for one slow step.
PROGRESS_S: Final = 0.5
# Weights evaluated between two signs of life: 64 MiB take well under a second from any disk worth using.
LOAD_GROUP_BYTES: Final = 64 * MIB

# Tokenize questions that may wait for the tokenizer's thread.
TOKENIZE_WAITING_MAX: Final = 64

# Freed buffers MLX may keep for reuse. Its own default is as large as the working set, and the agent could not see it.
BUFFER_CACHE_BYTES: Final = 512 * MIB

# mlx-lm allocates a growing KV cache in steps of so many tokens.
KV_QUANTUM_TOKENS: Final = 256
# Asked for by `load`; only catches nonsense.
KV_TOKENS_MAX: Final = 1 << 50

# Steps between two sweeps that return cached buffers.
SWEEP_STEPS: Final = 512
