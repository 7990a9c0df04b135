//! Every bound of the coordinator's shell, with its reason. The gateway and the scheduler keep their own.

use std::time::Duration;

/// Messages that may wait for the leader loop. Each is small and handled in microseconds; a full inbox slows the senders down
/// instead of growing.
pub(crate) const LEADER_INBOX: usize = 4_096;

/// Requests that have waited longer count as having waited so long when another coordinator takes the lead.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Messages from this gateway's generations, and orders to them, that may wait in the front.
pub(crate) const FRONT_INBOX: usize = 4_096;

/// Messages to a leader on another machine that may be on their way to the wire. Beyond, the front waits for it.
pub(crate) const DESK_OUTBOX: usize = 1_024;

/// For so long a new leader of a group sends nothing: the other gateways find its desk within two heartbeats and three attempts, and
/// say what they have running.
pub(crate) const SETTLING: Duration = Duration::from_millis(300);

/// Requests that one gateway may have at the leader: what its API's connections could hold, with several choices each.
pub(crate) const REQUESTS_PER_DESK: usize = 32_768;

/// Until the leader's desk is tried again.
pub(crate) const DESK_AGAIN: Duration = Duration::from_millis(100);

/// Until a newcomer asks again to become a member.
pub(crate) const ENLIST_AGAIN: Duration = Duration::from_millis(500);

/// The answer to a newcomer: it comes when the newcomer has caught up, for which the registry gives it two minutes.
pub(crate) const ENLIST: Duration = Duration::from_secs(150);

/// A change of the group that is passed on: a new voter's catching up and the change itself.
pub(crate) const CHANGE_GROUP: Duration = Duration::from_secs(60);

/// A coordinator that the leader has heard within this time counts as one that answers: ten heartbeats.
pub(crate) const ANSWERED: Duration = Duration::from_secs(1);

/// A new leader is there within this time, but for one in a hundred times; longer without one is an outage.
pub(crate) const ELECTION: Duration = Duration::from_secs(3);

/// An agent reports every second; one that has missed one may not be heard any more. Its session would break seconds later.
pub(crate) const HEARD_OF_LATE: Duration = Duration::from_millis(1_500);

/// A coordinator that has not answered the leader for so long cannot say what has ended at its gateway either: its desk is closed. Longer
/// than lost packets hold its words up, and shorter than an election may take.
pub(crate) const DESK_SILENCE: Duration = Duration::from_millis(2_500);
/// How often the leader looks for such desks.
pub(crate) const DESK_LOOK: Duration = Duration::from_millis(500);

/// How often each coordinator asks the others which version of the cluster they speak. An update is over a moment after its last restart.
pub(crate) const VERSION_LOOK: Duration = Duration::from_secs(1);

/// How often a coordinator looks how far a rotation of the authority is, beside whenever something of it changes.
pub(crate) const ROTATION_LOOK: Duration = Duration::from_secs(1);

/// How often a coordinator looks for the seal key while it lacks it, or while the authority's key is to be sealed.
pub(crate) const SEAL_LOOK: Duration = Duration::from_secs(1);

/// How often a leader that hears less than all agents asks the other coordinators whether they hear more, ...
pub(crate) const REACH_LOOK: Duration = Duration::from_millis(500);
/// ... and after how many looks in a row that say so it hands over: agents that have just started reach one coordinator before the other.
/// Together with the silence that comes first it has missed two reports or three; after five seconds the agents would count as lost.
pub(crate) const REACH_LOOKS: u32 = 3;

/// How often the one that leads looks for coordinators that may get a vote: those that were away when they enlisted.
pub(crate) const GROWTH_LOOK: Duration = Duration::from_secs(5);

/// One that has not answered for so long is away.
pub(crate) const GROWTH_SILENCE: Duration = Duration::from_secs(1);

/// How often the one that leads asks the others whether they take clients in: a dead one stays in the name for so long.
pub(crate) const DOORS_LOOK: Duration = Duration::from_secs(2);

/// How long a former leader may believe in itself, and answer for the name that goes with the lead: its silence and a look at it.
pub(crate) const FORMER_LEADER: Duration = Duration::from_secs(2);

/// Reaching another coordinator.
pub(crate) const PEER_CONNECT: Duration = Duration::from_secs(2);

/// Orders to one waiting generation. The scheduler sends another dispatch only when it has heard how the last one ended.
pub(crate) const ORDERS_PER_REQUEST: usize = 16;

/// Events between the cluster side and the client's connection. When a slow client lets them fill, reading its QUIC stream
/// stops, and QUIC's flow control carries the back-pressure to the agent.
pub(crate) const EVENTS_PER_REQUEST: usize = 64;

/// After its deadline an answer waits so long for a client that has stopped reading: the last word of the leader comes in this time.
pub(crate) const UNREAD: Duration = Duration::from_secs(5);

/// Opening a stream to a connected agent and writing the prompt. On a LAN this takes milliseconds; longer means that the
/// node is gone and the request should go elsewhere.
pub(crate) const OPEN_STREAM: Duration = Duration::from_secs(5);

/// How long after this gateway's start, or after it lost a node, an attempt waits for that node. Agents come back to a coordinator within
/// a second of its start; a node that is lost is lost to the scheduler too, which then sends the request elsewhere.
pub(crate) const AWAIT_NODE: Duration = Duration::from_millis(1_500);

/// Silence after which a QUIC connection is dead. Both sides send keep-alives twice a second, so this is ten missed ones.
pub(crate) const STREAM_IDLE: Duration = Duration::from_secs(5);

/// How often a QUIC connection proves that it lives; also bounds how late a changed network path is noticed.
pub(crate) const STREAM_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// When a gateway's way to a node is lost, the leader has so long to find the node itself lost, and to move what ran there.
pub(crate) const NODE_LOST_FIRST: Duration = Duration::from_millis(500);

/// Silence after the end of a node's session that is taken for its death, and after which nothing new is sent to a node: three
/// keep-alives.
pub(crate) const DOUBT: Duration = Duration::from_millis(1_500);

/// Unread bytes of one answer that an agent may have on the way: 64 KiB is some 10,000 tokens, far more than a client that
/// reads ever leaves waiting, and little enough that a thousand stalled clients cost 64 MiB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 << 10;

/// Connections of one node that a newer one under another authority has replaced: answers of one rotation may still run when the next
/// begins.
pub(crate) const RETIRED_CONNECTIONS: usize = 2;

/// gRPC keep-alive towards agents: a silent TCP connection is closed after the time-out.
pub(crate) const SESSION_KEEP_ALIVE: Duration = Duration::from_secs(2);
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes with agents and coordinators under way at once, and connections that wait to be taken: a whole farm that comes back
/// at the same moment. Beyond, the rest waits in the kernel's backlog.
pub(crate) const HANDSHAKES: usize = 256;

/// Connections of callers without a certificate, who only join and renew: a whole farm that is set up at the same moment. Beyond,
/// they are turned away, and members still come in.
pub(crate) const STRANGERS: usize = 128;

/// How long such a connection lasts. To join takes an entry in the log: an election and a slow disk fit in.
pub(crate) const STRANGERS_STAY: Duration = Duration::from_secs(30);

/// Calls of such callers under way at once. Few enough to leave the log to those who belong here; the rest waits.
pub(crate) const STRANGERS_CALLS: usize = 16;

/// Calls on one such connection in all: to join or to renew takes one. So no more wait than so many for each of [`STRANGERS`].
pub(crate) const STRANGERS_CALLS_EACH: usize = 4;

/// How long such a caller may take to say what it wants: as long as the handshake before, which was more words.
pub(crate) const STRANGERS_SPEAK: Duration = Duration::from_secs(5);

/// Longest request of such a caller: one to sign a certificate is a kilobyte.
pub(crate) const STRANGERS_CALL_BYTES: usize = 64 * 1024;

/// Calls that run at once on one connection. Another coordinator has as many proposals under way as its group takes at a time (1,024),
/// may find out of as many that they are too many, and has a handful of streams beside; an agent has a few. Beyond, the caller waits.
pub(crate) const CALLS_PER_CONNECTION: u32 = 2_048;

/// A handshake takes two round trips on a LAN; a caller that stalls in it holds a place.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// After a failed accept (out of descriptors) the loop takes a breath instead of spinning.
pub(crate) const ACCEPT_BREATH: Duration = Duration::from_millis(50);

/// How long a node that was revoked keeps its connection, to read why: well below the second within which it is cut.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(300);

/// A coordinator that was revoked goes on for so long: the group may need its vote to let it go.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

/// Without a leader for so long, a coordinator asks the others whether it is still one of them.
pub(crate) const LEADERLESS: Duration = Duration::from_secs(5);

/// Orders to one agent that may wait. Orders are complete sets, so a slow agent misses nothing when one is replaced.
pub(crate) const ORDERS_PER_AGENT: usize = 64;

/// Models in one agent's report. A Mac holds a handful; this bounds a broken peer.
pub(crate) const MODELS_PER_REPORT: usize = 256;

/// Client connections to the API at once; beyond, new ones wait in the kernel's backlog.
pub(crate) const API_CONNECTIONS: usize = 4_096;

/// What is read ahead or written ahead for one of them, and so the longest request head: some prompts' worth of frames.
pub(crate) const API_BUFFER_BYTES: usize = 64 * 1024;

/// How long a client may take nothing at all of what is written to it: a laptop that sleeps for a moment finds its answer, one that is
/// stopped for good does not keep its place.
pub(crate) const API_WRITE_STALL: Duration = Duration::from_secs(120);

/// Time in which a client must have sent its request head, so that idle connections do not pile up.
pub(crate) const API_HEADER_READ: Duration = Duration::from_secs(15);

/// After the stop signal, running answers may take this long to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// A coordinator whose registry has failed takes nothing new and ends, so that whoever watches over it starts another; running
/// answers need no registry, and may take this long to end.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(600);

/// Life of the join token that a coordinator prints at its start.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// How long the API waits for the join tokens at a start. Issuing one takes a round of the majority's disks.
pub(crate) const TOKENS_FIRST: Duration = Duration::from_secs(2);

/// Between two tries to see the newest facts at a start.
pub(crate) const READ_AGAIN: Duration = Duration::from_millis(50);

/// Life of a node's certificate: short enough that a stolen one is soon worth nothing, and long enough that a third of it, which is
/// left when it is renewed, outlasts a weekend without a coordinator.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A wait by the wall clock looks again at least this often: a Mac may have slept, and its clock may have been set.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// By how much what makes a new authority known outlives the certificates of the former one: whoever leads may end the rotation late.
pub(crate) const CROSS_LINGERS: Duration = Duration::from_secs(24 * 3_600);

/// Life of the cluster's CA.
pub(crate) const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Facts that may wait for the registry: a thousand breakers that move at once, with room. Beyond, the disk takes nothing.
pub(crate) const PROPOSALS: usize = 4_096;

/// Between two reports of a gateway's usage, if there was any. A crash loses as much; each costs a flush of a majority's disks.
pub(crate) const USAGE_EVERY: Duration = Duration::from_secs(2);

/// For the last report at the end of a coordinator.
pub(crate) const USAGE_LAST: Duration = Duration::from_secs(3);

/// Canaries that may wait. The scheduler has one at a time.
pub(crate) const PROBES: usize = 16;

/// The first pause before a fact is proposed again; it doubles ...
pub(crate) const PROPOSE_AGAIN: Duration = Duration::from_millis(50);
/// ... up to this.
pub(crate) const PROPOSE_AGAIN_MAX: Duration = Duration::from_secs(2);

/// A canary's time; the scheduler gives it the same.
pub(crate) const CANARY: Duration = Duration::from_secs(10);

/// An answer that is kept, with its head: what a gRPC message carries by default, less some air; some 17,000 tokens as a
/// stream. One that is longer is given and not kept.
pub(crate) const ANSWER_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// Runs of jobs in one process. A client may go away from each, so connections are no bound; at the size of the longest answer
/// that is kept they hold two gigabytes.
pub(crate) const RUNS_MAX: usize = 512;

/// All kept answers on one disk: a day of two hundred jobs an hour of 200 KB each. Beyond, the oldest goes first.
pub(crate) const ANSWERS_BYTES_MAX: u64 = 1 << 30;

/// All pieces of files on one disk: what the registry lets be kept, where one coordinator is alone, and a quarter more for what is
/// being uploaded. Beyond, nothing more is taken.
pub(crate) const PIECES_BYTES_MAX: u64 = registry::limits::FILE_BYTES_MAX / 4 * 5;

/// An answer or a piece of which the registry knows nothing is removed at this age: the end of its job, its file or its step is
/// told within seconds, an upload's within its five minutes, or never.
pub(crate) const ANSWER_UNNAMED: Duration = Duration::from_secs(600);

/// Moving an answer to or from another coordinator's disk: four megabytes over a slow wireless network, and two flushes.
pub(crate) const ANSWER_MOVE: Duration = Duration::from_secs(5);

/// How often those who wait hear of their place, if it has changed.
pub(crate) const REMIND_EVERY: Duration = Duration::from_secs(5);
/// So many are reminded at once, those in front first: whoever is behind a thousand others needs no news of single places.
pub(crate) const REMINDED: usize = 1_000;

/// Requests on the page of the queue: more is read by nobody, and the page is made for each reader.
pub(crate) const WAITING_SHOWN: usize = 1_000;

/// How long a report that a runtime is gone waits for the ends of its attempts. They were sent at the same moment, so a busy
/// machine's worth of delay is plenty; what is sent there meanwhile is turned away and runs elsewhere.
pub(crate) const ATTEMPTS_FIRST: scheduler::Span = scheduler::Span::from_ms(500);
