//! Every bound of the agent's shell, with its reason. The supervisor keeps its own.

use std::time::Duration;

/// Answers one model computes at once unless the operator says otherwise. Decode is bound by memory bandwidth: on Apple
/// Silicon a step of eight rows costs little more than a step of one, beyond that latency grows faster than throughput.
pub const SLOTS_DEFAULT: u32 = 8;

/// Widest batch an operator may ask for; the runtime's own ceiling.
pub const SLOTS_MAX: u32 = 1_024;

/// Prompt tokens computed between two decode steps: the pause every running answer sees while another's prompt is read. 256
/// keeps the pause near half a second on the slowest Macs; smaller chunks waste the GPU.
pub(crate) const PREFILL_CHUNK: u32 = 256;

/// One piece of prefill takes no longer than this, whatever is asked for: four of them stay below the silence after which the
/// supervisor takes a runtime for hung. On the slowest Macs only [`PREFILL_CHUNK`] tokens may take longer.
pub(crate) const PREFILL_PIECE: Duration = Duration::from_secs(3);

/// Widths of a batch that one report tells apart: as many as slots in all but extraordinary settings, in under a kilobyte.
pub(crate) const STEP_WIDTHS_MAX: usize = 32;

/// Longest frame of a runtime, by the contract of the frames.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;

/// Nesting of msgpack values; the deepest frame of the contract has six levels, the rest is room for keys of later versions.
pub(crate) const FRAME_DEPTH_MAX: usize = 32;

/// Log lines of a runtime that are kept for its obituary, and their length.
pub(crate) const LAST_LINES: usize = 20;
pub(crate) const LOG_LINE_BYTES: usize = 2_048;
/// Of those lines, what goes into a report.
pub(crate) const LAST_WORDS_BYTES: usize = 1_024;

/// Longest path of a Unix socket: macOS has room for 104 bytes with the final zero.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A runtime that closed its socket may take this long to end by itself, with a status that says more than a kill.
pub(crate) const RUNTIME_EXIT: Duration = Duration::from_secs(2);

/// What a runtime wrote before its end is read within this time after it; the system has it in memory.
pub(crate) const LAST_FRAMES: Duration = Duration::from_millis(200);

/// Inputs that may wait for the agent's loop; each is handled in microseconds, a full inbox slows the senders down.
pub(crate) const INBOX: usize = 1_024;

/// A step counts as a sign of life, but not more often than this: the loop has other things to do.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Coordinators that an agent keeps a session and token streams with: a group of five, three that replace members, and no more
/// sockets and reports than a list gone wrong may cost.
pub const COORDINATORS_MAX: usize = 8;

/// Coordinators that were revoked and are remembered: more than a group replaces in years, in a few hundred bytes.
pub(crate) const REVOKED_MAX: usize = 64;

/// Words of sessions that may wait for whoever keeps the coordinators; each session says one at a time.
pub(crate) const WORDS: usize = 16;

/// How often the agent looks whether this Mac has slept: how late it registers anew.
pub(crate) const SUSPEND_LOOK: Duration = Duration::from_millis(500);

/// A report leaves at least this often, whatever happens.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// And at most this often, so that a burst of changes is one report.
pub(crate) const REPORT_SPACING: Duration = Duration::from_millis(20);

/// An answer about the memory counts for so long: half of what passes between reports, whatever the number of coordinators.
pub(crate) const MEMORY_FRESH: Duration = Duration::from_millis(500);

/// Messages to the coordinator that may wait. A report is the complete truth, so a few are plenty.
pub(crate) const SESSION_OUTBOX: usize = 4;

/// Connecting to the coordinator; a Mac on the same network answers in milliseconds.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);
/// HTTP/2 pings of the session, and how long an answer may take.
pub(crate) const SESSION_KEEP_ALIVE: Duration = Duration::from_secs(1);
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// From the hello to the answer: a coordinator may first have to write down what the agent offers, with a majority's disks.
pub(crate) const SESSION_OPEN: Duration = Duration::from_secs(10);

/// Waiting between attempts to reach the coordinator doubles from the first to the second.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// Certificates count as lasting no longer: those of earlier releases last a year.
pub(crate) const LEAF_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// A wait by the wall clock looks again at least this often: a Mac may have slept, and its clock may have been set.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Waiting between attempts to renew doubles from the first to the second; two days are left when it begins.
pub(crate) const RENEW_FIRST: Duration = Duration::from_millis(500);
pub(crate) const RENEW_MOST: Duration = Duration::from_secs(60);

/// When the cluster's authority is rotated, certificates are renewed within this time by chance, so that a farm does not come at once.
pub(crate) const TURN_SPREAD: Duration = Duration::from_secs(3);
/// Former authorities of one cluster that tokens in settings may pin: one rotation a quarter fills it in four years.
pub(crate) const FORMER_AUTHORITIES: usize = 16;
/// A token stream connection that another one has replaced is closed after so long without an answer in it: what the coordinator
/// opened before it knew of the other has arrived by then.
pub(crate) const RETIRED_QUIET: Duration = Duration::from_secs(1);

/// How often a QUIC connection proves that it lives. An agent that only listens is found on a new network path no sooner.
pub(crate) const STREAM_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Silence after which a QUIC connection is dead: ten missed keep-alives.
pub(crate) const STREAM_IDLE: Duration = Duration::from_secs(5);
/// After a new session, an older QUIC connection must be heard within this time (two keep-alives and some) to be kept.
pub(crate) const STREAM_PROOF: Duration = Duration::from_millis(1_200);

/// Attempts whose streams may be open at once, refused ones included; far above what slots allow.
pub(crate) const STREAMS_MAX: u32 = 2_048;

/// The whole request of an attempt must have arrived by then: a stream that opens and stalls costs memory.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest piece taken from a stream at once.
pub(crate) const STREAM_READ_BYTES: usize = 64 << 10;

/// A prompt of the longest message should not wait for window updates more than a few times.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The last packets of a closed connection leave within this time.
pub(crate) const GOODBYE: Duration = Duration::from_millis(500);

/// How often it is looked whether a killed runtime is gone that outlives its guard: others wait for its memory.
pub(crate) const GROUP_POLL: Duration = Duration::from_millis(50);

/// After the stop signal, running answers may take this long to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// The last bytes of an ended answer may take this long to be acknowledged.
pub(crate) const FLUSH: Duration = Duration::from_secs(5);
/// Runtimes are gone within this time: the supervisor's grace of a stop, one kill, and some room.
pub(crate) const FAREWELL: Duration = Duration::from_secs(20);

/// A model that could not be fetched or read is tried again after this time: the network or the folder may be back.
pub(crate) const RESOLVE_AGAIN: Duration = Duration::from_secs(30);
