//! Every bound of the gateway, with its reason. What belongs to the listener (connections, request heads) is kept there.

use std::time::Duration;

/// A request body, in bytes. The longest contexts in use are about a million tokens, some 5 MB of text; JSON escapes can
/// triple that.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Time in which a body must have arrived, so that a client that trickles bytes does not hold memory for ever. 16 MiB in
/// 60 s is a slow mobile uplink.
pub(crate) const BODY_READ: Duration = Duration::from_secs(60);

/// Total time for a whole answer when the client names none: what the OpenAI SDKs wait by default.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);

/// Total time for a streamed answer when the client names none. Its read time-out measures silence, and a stream here is
/// never silent for longer than [`KEEP_ALIVE`]; a hundred thousand tokens at 30 a second fit.
pub(crate) const STREAM_DEADLINE: Duration = Duration::from_secs(3_600);

/// No client may ask for longer, so that every request ends.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The cluster side ends a request at its deadline. When it has said nothing this much later, the gateway does.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// Longest silence of a stream, in which it then carries a comment. Proxies and clients commonly give up after 30 to 60 s.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// When a model is not ready for a request, a client may ask again this much later: loading takes seconds to minutes.
pub(crate) const RETRY_WHILE_LOADING: Duration = Duration::from_secs(5);

/// When a node or this coordinator went away under a request: another is found within the election and session time-outs.
pub(crate) const RETRY_AFTER_LOSS: Duration = Duration::from_secs(1);

/// When a key has as many requests under way as it may: nobody knows when one of them ends.
pub(crate) const RETRY_WHILE_BUSY: Duration = Duration::from_secs(1);

/// The SDKs honour `retry-after` only up to here; saying more would make them come back at once.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Answers to one request (`n` times the number of prompts). Each holds a slot somewhere; OpenAI's own bound is 128.
pub(crate) const CHOICES_MAX: usize = 128;

/// `n`: answers for one prompt.
pub(crate) const N_MAX: i64 = 16;

/// Stop strings of one request, as in OpenAI's API, and the length of one in bytes: what may be held back of an answer.
pub(crate) const STOPS_MAX: usize = 4;
pub(crate) const STOP_BYTES_MAX: usize = 1_024;

/// Ids in `stop_token_ids`; the runtime compares each token with all of them.
pub(crate) const STOP_IDS_MAX: usize = 128;

/// Tokens in `logit_bias`, as in OpenAI's API.
pub(crate) const LOGIT_BIAS_MAX: usize = 1_024;

/// Alternatives for each token: chat, and the older completions.
pub(crate) const TOP_LOGPROBS_MAX: i64 = 20;
pub(crate) const COMPLETION_LOGPROBS_MAX: i64 = 5;

/// Longest answer when neither the client nor the model's files bound it.
pub(crate) const MAX_TOKENS_WITHOUT_CONTEXT: u32 = 4_096;

/// A body that is refused unread is still taken in up to this: most are far smaller, and a stranger costs us no more.
pub(crate) const DISCARDED_BYTES_MAX: usize = 4 << 20;

/// Time for that.
pub(crate) const DISCARD: Duration = Duration::from_secs(5);

/// Until an administrator hears that his change may or may not have been made. A new leader takes two seconds.
pub(crate) const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries of a change.
pub(crate) const CHANGE_AGAIN: Duration = Duration::from_millis(200);

/// The body of an administrator's change: a name and a list of models.
pub(crate) const CHANGE_BYTES_MAX: usize = 64 << 10;

/// An `Idempotency-Key`, in bytes, as in the IETF's draft of the header and with the servers that know it.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// How often it is looked how a job stands before the client is told to come back: each look follows somebody else's change.
pub(crate) const JOB_LOOKS: usize = 4;

/// When a client that asks for an answer that somebody else is giving may ask again.
pub(crate) const RETRY_IN_FLIGHT: Duration = Duration::from_secs(1);

/// Until a gateway gives up telling the registry how a job stands. A new leader takes two seconds.
pub(crate) const JOB_PATIENCE: Duration = Duration::from_secs(10);

/// For asking the leader what is newest before somebody is shown his files and batches; an answer takes milliseconds.
pub(crate) const NEWEST: Duration = Duration::from_secs(1);

/// A file that is uploaded, in bytes: a thousand requests of 64 kB, or fifty thousand of a kilobyte.
pub(crate) const UPLOAD_BYTES_MAX: usize = 64 << 20;

/// What else is in its form: the heads of three fields, and two short ones.
pub(crate) const UPLOAD_HEADS_BYTES_MAX: usize = 64 << 10;

/// Such a short field.
pub(crate) const FORM_FIELD_BYTES_MAX: usize = 256;

/// Time in which an upload must have arrived: 64 MiB over a slow wireless network. Less than what is kept without a name.
pub(crate) const UPLOAD_READ: Duration = Duration::from_secs(300);

/// Uploads at once in one gateway. Each has two pieces of four megabytes in memory at the most.
pub(crate) const UPLOADS_AT_ONCE: usize = 8;

/// Downloads at once in one gateway, as slow as their readers are. Each has a piece of four megabytes in memory, or two. ...
pub(crate) const DOWNLOADS_AT_ONCE: usize = 32;
/// ... Those of one tenant: a quarter of all, so that nobody who reads slowly, or not at all, keeps the others from their files.
pub(crate) const DOWNLOADS_AT_ONCE_PER_TENANT: usize = 8;

/// Batches that have begun here and wait to be taken on: that takes microseconds.
pub(crate) const BATCHES_BEGUN: usize = 64;

/// Batches that run at once in one gateway; the rest wait their turn. Each reads a file, of which it has some pieces in memory. ...
pub(crate) const BATCHES_AT_ONCE: usize = 8;
/// ... Those of one tenant: a quarter of all, so that nobody's slow ones stand before everybody's. One alone fills
/// [`LINES_AT_ONCE`], and another goes on while its key has to wait.
pub(crate) const BATCHES_AT_ONCE_PER_TENANT: usize = 2;

/// Requests of batches that one gateway has under way: what keeps some nodes' batches wide. The queue behind them is the leader's,
/// and a request of somebody who waits goes before them there.
pub(crate) const LINES_AT_ONCE: usize = 32;

/// Requests of one batch that are read, asked or answered before the first of them is: one that takes long keeps the next ones
/// from being committed, but not from being asked. Eight times as many as are asked at once, so that a place is seldom idle.
pub(crate) const LINES_AHEAD: usize = 256;
/// What these requests have in memory together, in KiB.
pub(crate) const LINES_AHEAD_KIB: usize = 64 << 10;

/// A request of a batch, in bytes: a million tokens of text.
pub(crate) const BATCH_LINE_BYTES_MAX: usize = 4 << 20;

/// Total time for a response in the background when the client says none: what a stream has.
pub(crate) const BACKGROUND_DEADLINE: Duration = STREAM_DEADLINE;

/// Responses that have begun here and wait to be taken on: that takes microseconds.
pub(crate) const RESPONSES_BEGUN: usize = 64;

/// Between two steps in which an answer in the background is shown: each is written to two disks and into the log. ...
pub(crate) const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// ... A long answer is written as a whole with each step, so steps become rarer with its age: a twentieth of it, ...
pub(crate) const SHOWN_STEPS: u32 = 20;
/// ... up to what somebody who reads along still bears.
pub(crate) const SHOWN_EVERY_MAX: Duration = Duration::from_secs(5);

/// How often a reader looks for what is shown before his stream is cut: its disks may be starting.
pub(crate) const SHOWN_LOOKS: u32 = 8;

/// Items on one page of a response's input, as with OpenAI.
pub(crate) const ITEMS_LISTED: usize = 20;
pub(crate) const ITEMS_LISTED_MAX: usize = 100;

/// How often a cancellation is tried: each time the run has shown more meanwhile, which it does once a second.
pub(crate) const CANCEL_TRIES: usize = 8;

/// A `custom_id`: room for several identifiers.
pub(crate) const CUSTOM_ID_BYTES_MAX: usize = 512;

/// Steps in which a batch is committed, as far as its answers fit: each is a command and two flushes, and a death of the
/// coordinator costs one step of work.
pub(crate) const STEPS: u64 = 100;

/// Requests of a step; less than that is not worth a flush.
pub(crate) const STEP_LINES_MIN: u64 = 8;

/// Until a run of a batch tries again what a disk, another coordinator or the registry did not do, ...
pub(crate) const BATCH_AGAIN: Duration = Duration::from_secs(1);
/// ... and how often a piece of its file is looked for: a coordinator that is started anew is back by then.
pub(crate) const PIECE_LOOKS: u32 = 600;

/// Until the answers of a step are kept anew, while the registry does not take it: less than what is kept without a name.
pub(crate) const STEP_TOLD: Duration = Duration::from_secs(240);

/// Until a request of a batch is asked again, when the answer does not say, ...
pub(crate) const LINE_AGAIN: Duration = Duration::from_millis(200);
/// ... and at the most, because places come free earlier than was thought.
pub(crate) const LINE_AGAIN_MAX: Duration = Duration::from_secs(30);

/// How often a request of a batch may end in a fault of ours before that is its error.
pub(crate) const LINE_FAULTS_MAX: u32 = 3;

/// How often each gateway looks for batches that nobody runs, ...
pub(crate) const BATCH_LOOK: Duration = Duration::from_secs(2);
/// ... and after how many looks in a row a coordinator that does not answer for a run has lost it: one that is busy or between two
/// leaders answers within seconds.
pub(crate) const BATCH_SILENCES: u32 = 3;

/// Messages of one conversation: a template costs about a microsecond for each.
pub(crate) const MESSAGES_MAX: usize = 16_384;

/// A rendered prompt, in bytes: twice the largest body, because templates add words of their own.
pub(crate) const PROMPT_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// Work of one rendering, at most. One unit is an instruction or 64 bytes of data; the largest body copied eight times takes 2 M, a
/// conversation of 16,384 messages about 4 M, and all of it about half a second.
pub(crate) const TEMPLATE_FUEL: u64 = 8_000_000;
/// Of that, what a small conversation has: a long template takes a few thousand. The rest comes with what is rendered, for each
/// message and for each byte (eight copies of it), so that nobody's short question pays for much.
pub(crate) const TEMPLATE_FUEL_BASE: u64 = 200_000;
pub(crate) const TEMPLATE_FUEL_PER_MESSAGE: u64 = 500;
pub(crate) const TEMPLATE_BYTES_PER_FUEL: u64 = 8;

/// The stack of a rendering, for each unit of its fuel. A value that is nested once more takes at least one and a half; dropping,
/// printing or comparing it recurses, and takes up to 2 kB a level in builds for tests, a third of it in those that are shipped.
/// Only what is used takes memory.
pub(crate) const TEMPLATE_STACK_BYTES_PER_FUEL: usize = 1_024;
pub(crate) const TEMPLATE_STACK_BYTES_MIN: usize = 512 << 20;
/// What the address space of a renderer holds beside the rest. A hostile template over a very long conversation may overflow it, which
/// ends that renderer.
pub(crate) const TEMPLATE_STACK_BYTES_MAX: usize = 1 << 30;

/// The stack on which a template is parsed: an expression may be as deep as the template is long.
pub(crate) const TEMPLATE_PARSE_STACK_BYTES: usize = 1 << 30;

/// Lists and maps within one another that `tojson` writes; requests nest at most 128.
pub(crate) const TEMPLATE_JSON_DEPTH: usize = 192;

/// Depth of a template's blocks and macro calls. Real ones need about 20; a thread's stack holds several hundred.
pub(crate) const TEMPLATE_DEPTH: usize = 150;

/// A chat template, in bytes. The longest in use are about 20 kB.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 256 << 10;

/// Processes that render templates, at most: each rendering takes a processor. They are started when they are needed.
pub(crate) const RENDERERS_MAX: usize = 6;
/// Renderings of one template at once: however long each takes, the other templates have the other renderers.
pub(crate) const RENDERINGS_PER_TEMPLATE: usize = 2;

/// Seconds of processor for one rendering: its fuel lasts half a second, but what values share is not counted there.
pub(crate) const RENDERING_CPU_S: u64 = 2;
/// The same by the clock of the wall, for a machine that is busy with other things.
pub(crate) const RENDERING: Duration = Duration::from_secs(5);
/// Until a renderer that was started greets: a cold disk reads the program in a second.
pub(crate) const RENDERER_START: Duration = Duration::from_secs(10);
/// A renderer that was killed or has closed its output is gone at once.
pub(crate) const RENDERER_END: Duration = Duration::from_secs(1);
/// What a request waits for its turn. Some thousand others are rendered meanwhile.
pub(crate) const RENDERING_TURN: Duration = Duration::from_secs(10);

/// So often in a row a template may end or outlast its renderer, ...
pub(crate) const TEMPLATE_STRIKES: u32 = 3;
/// ... until it is not tried for a while, so that it costs a fifth of a processor at the most.
pub(crate) const TEMPLATE_REFUSED: Duration = Duration::from_secs(30);

/// Address space of a renderer: a stack, the program, and what the longest conversation needs, several times.
pub(crate) const RENDERER_MEMORY_BYTES: u64 = 2 << 30;
/// Templates that a renderer keeps compiled: those that are asked for at one time.
pub(crate) const RENDERER_TEMPLATES: usize = 8;
/// What a renderer is asked: a conversation that is longer has no prompt of the allowed length.
pub(crate) const RENDERER_QUESTION_BYTES_MAX: usize = 2 * PROMPT_BYTES_MAX;
/// What it answers: a prompt in its envelope.
pub(crate) const RENDERER_ANSWER_BYTES_MAX: usize = PROMPT_BYTES_MAX + 1_024;
/// A renderer that had to do with a longer text is not used again: its memory would stay as large as it was.
pub(crate) const RENDERER_KEPT_BYTES: usize = 1 << 20;
/// Where its greeting must be. Before it may stand what a harness of tests says.
pub(crate) const RENDERER_GREETING_BYTES: u64 = 4 << 10;

/// A text that is read or tokenised right on the async thread: a few milliseconds. Longer text goes to a blocking thread.
pub(crate) const INLINE_TEXT_BYTES: usize = 8 << 10;

/// Long texts that are tokenised at once; the rest wait, so that memory and processors stay for the streams.
pub(crate) const LONG_TEXTS_AT_ONCE: usize = 2;

/// Tokens of context around a new one when a tokenizer has no table of bytes: enough for every known decoder to settle.
pub(crate) const DECODE_WINDOW: usize = 6;

/// Events taken from one generation before anything is written: what is already waiting leaves in one write.
pub(crate) const EVENTS_AT_ONCE: usize = 64;

/// Bytes for which a chunk's buffer is prepared: some twenty chunks.
pub(crate) const STREAM_BUFFER_BYTES: usize = 4 << 10;

/// A request id of the client that is echoed; longer ones are replaced.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

/// Close names in an error.
pub(crate) const CLOSE_NAMES: usize = 3;

/// A name from the client inside an error message, in characters.
pub(crate) const QUOTED_CHARS_MAX: usize = 120;

/// Finished answers between two clean-ups of the histograms' raw samples, for when nobody scrapes `/metrics`.
pub(crate) const ANSWERS_PER_UPKEEP: u64 = 64;

/// Tokens of one link in a prompt's chain of hashes, as the scheduler counts them. A runtime keeps rows of a few hundred tokens
/// at the least; smaller blocks would cost more to hash and to index and find the same rows.
pub(crate) const PREFIX_BLOCK_TOKENS: usize = 256;

/// Links of one prompt: a million tokens, the longest contexts in use. What lies beyond does not choose a node any more.
pub(crate) const PREFIX_BLOCKS_MAX: usize = 4_096;

/// The name of a session, in bytes: clients send UUIDs and short paths. A longer one is no name.
pub(crate) const SESSION_BYTES_MAX: usize = 256;

/// `cache_salt`, in bytes: 256 bits in hexadecimal; nobody can guess more.
pub(crate) const CACHE_SALT_BYTES_MAX: usize = 64;

/// Requests that can be explained by their `x-request-id`: the most that wait, and the last minutes of a busy room. At some
/// 200 bytes each, 3 MB.
pub(crate) const NAMED_REQUESTS_MAX: usize = 16_384;

/// Life of a join token that an administrator asks for: longer than it takes to type it, and not so long that it is forgotten.
pub(crate) const TOKEN_LIFE_MIN: Duration = Duration::from_secs(60);
pub(crate) const TOKEN_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
