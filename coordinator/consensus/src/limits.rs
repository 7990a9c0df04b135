//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Heartbeats of a leader in the time after which it would be replaced: 200 ms apart. One may be lost without an election. No
/// more of them, because openraft gives up on the answer to one when the next is due: with twice as many, on a wireless network
/// that takes 120 ms for a round trip, a leader is followed by all and believes itself alone.
pub(crate) const HEARTBEATS_PER_SILENCE: u64 = 5;

/// A leader that is silent for this long has been replaced by then: its followers stand for election after a random
/// time between three quarters of it and all of it. The width keeps two of them from standing together, and a second
/// keeps a new leader within two.
pub const LEADER_SILENCE: Duration = Duration::from_secs(1);

/// Less makes no sense: one lost heartbeat would start an election.
pub const LEADER_SILENCE_MIN: Duration = Duration::from_millis(500);

/// Commands between two snapshots. The log since the last snapshot is held in memory and replayed at start;
/// 4,096 commands of about a kilobyte are 4 MiB and replay within a second.
pub(crate) const SNAPSHOT_EVERY_ENTRIES: u64 = 4096;

/// Commands kept behind a snapshot, so that a replica that was away for a moment catches up from the log
/// instead of fetching the whole snapshot.
pub(crate) const LOG_KEPT_BEHIND_SNAPSHOT: u64 = 512;

/// Proposals accepted at one time. Bounds memory when the disk is slow: the writer takes all that wait with
/// one flush, so more would add latency and no throughput.
pub(crate) const PROPOSALS_IN_FLIGHT_MAX: usize = 1024;

/// Largest command, encoded. Facts are small (the largest is a certificate chain); this keeps one command from
/// filling a segment.
pub(crate) const COMMAND_BYTES_MAX: usize = 512 * 1024;

/// Largest payload of a log record: a command with its entry around it, and room for Raft's own entries. It is also
/// what recovery believes of a length field before it looks at a checksum.
pub(crate) const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// A log segment is closed when it has grown to this. Purging removes whole segments, so this is about the disk
/// space that is held back.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A purge closes a segment larger than this, so that a quiet cluster also gets rid of its old log. Smaller
/// ones are not worth the three flushes of a new file.
pub(crate) const SEGMENT_BYTES_WORTH_PURGING: u64 = 256 * 1024;

/// Requests the writer takes between two flushes. More than every proposal that can be in flight.
pub(crate) const REQUESTS_PER_FLUSH_MAX: usize = 4096;

/// After this long without work the writer flushes the mark as well (see `wal/mark.rs`).
pub(crate) const MARK_FLUSH_IDLE: Duration = Duration::from_millis(500);

/// How long a proposal or a linearizable read may wait for a majority before the caller is told that its
/// outcome is not known. Several elections fit in.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A forced snapshot is asked for this often, and waited for this long each time. A registry is written in
/// milliseconds; ten seconds in all mean that the disk hangs.
pub(crate) const SNAPSHOT_ATTEMPTS: u32 = 20;
pub(crate) const SNAPSHOT_WAIT: Duration = Duration::from_millis(500);

/// How long opening waits to be leader of its own group and to have applied the log. Replaying the longest log
/// takes about a second; a disk that needs more than this is not usable.
pub(crate) const OPEN_WAIT: Duration = Duration::from_secs(30);

/// How long a shutdown waits for the writer to finish its last flush and to release the folder.
pub(crate) const RELEASE_WAIT: Duration = Duration::from_secs(10);

/// Bytes of entries after which a batch for a follower is cut; at least one entry always goes. With the largest record a
/// message stays below two of these, far from [`MESSAGE_BYTES_MAX`].
pub(crate) const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// Largest message between replicas, either way: a full batch and its last record, twice over.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Piece of a snapshot on the wire. Small enough that a heartbeat on the same connection is not held up for long.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Largest snapshot that is taken from a leader. A registry with every collection full is some tens of megabytes.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Snapshots that are received at one time: the one that counts, and one whose connection broke without a word.
pub(crate) const SNAPSHOTS_RECEIVED_MAX: usize = 2;

/// How long the next piece of a snapshot may take to come. A transfer that stops has lost its sender.
pub(crate) const SNAPSHOT_CHUNK_WAIT: Duration = Duration::from_secs(5);

/// How long a snapshot may take to be sent and installed: the largest at 5 MB/s.
pub(crate) const SNAPSHOT_SEND_WAIT: Duration = Duration::from_secs(60);

/// How long a connection may take to open. Two round trips on a wireless network that drops a packet.
pub(crate) const DIAL_WAIT: Duration = Duration::from_secs(1);

/// After a connection could not be opened, or broke, the next is tried no sooner than this after the last try, whatever
/// asks for it. It is what keeps an unreachable peer cheap.
pub(crate) const REDIAL_PAUSE: Duration = Duration::from_millis(100);

/// A connection on which nothing was answered for this long is given up. Longer than the slowest flush that is still
/// health, shorter than the two seconds in which there shall be a new leader.
pub(crate) const LINK_SILENCE_MAX: Duration = Duration::from_millis(1500);

/// How long a follower may take to answer one batch of entries: it flushes them first.
pub(crate) const APPEND_ANSWER_WAIT: Duration = Duration::from_secs(1);

/// How long a command or a read waits for somebody to lead. An election takes a second; this is a few of them.
pub(crate) const LEADER_WAIT: Duration = Duration::from_secs(3);

/// How long a follower waits before it asks again where the last asked did not lead, if nothing changes meanwhile.
pub(crate) const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Free bytes below which no new fact is admitted: what a registry with every collection full takes for its next snapshot beside
/// the present one.
pub(crate) const ROOM_MIN: u64 = 64 * 1024 * 1024;

/// How often the room on the disk is looked at. A disk that fills faster meets the ballast.
pub(crate) const ROOM_LOOK: Duration = Duration::from_secs(1);

/// Bytes kept back for a full disk: every proposal that can be in flight, and days of Raft's own entries.
pub(crate) const BALLAST_BYTES: u64 = 8 * 1024 * 1024;

/// Voters a group may have. Five survive two failures; more only make every command slower.
pub const VOTERS_MAX: usize = 5;

/// A learner that lacks no more entries than this has caught up: what is committed while it is promoted.
pub const CAUGHT_UP_ENTRIES: u64 = 64;

/// A member that answered within this time is there: several heartbeats.
pub(crate) const CONTACT_MAX: Duration = Duration::from_secs(1);

/// How long a new member may take to catch up before the wait for it ends: the largest snapshot, and the log behind it.
pub(crate) const CATCH_UP_WAIT: Duration = Duration::from_secs(120);

/// How long a change of the group may take to commit before the wait for it ends.
pub(crate) const CHANGE_WAIT: Duration = Duration::from_secs(20);

/// How long the end of a change may take to commit before it is tried again, or left to the next leader.
pub(crate) const CHANGE_END_WAIT: Duration = Duration::from_secs(1);

/// How long a replica that asked the leader to commit waits until it has applied the command as well. One that hears of it no
/// more has been removed or cut off, and answers without.
pub(crate) const ECHO_WAIT: Duration = Duration::from_secs(2);

/// How often a leader looks whether a change lies there that nobody carries out: its own attempt may have ended before its time.
pub(crate) const CHANGE_LOOK: Duration = Duration::from_secs(5);

/// Between two steps of a change, and two attempts at one: an entry's way to a majority's disks.
pub(crate) const CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// A leader of which nothing has been heard for this many halves of [`LEADER_SILENCE`], or which no majority has answered for
/// that long, is taken for nobody. Longer than the time after which its followers look for another; within the two seconds in
/// which there shall be one.
pub(crate) const LEADER_GONE_HALVES: u32 = 3;

/// How often it is looked whether the leader has gone silent.
pub(crate) const LEADER_LOOK: Duration = Duration::from_millis(250);

/// How long opening a member of a larger group waits to hear who leads. Without a majority nobody does, and the process
/// must come up all the same to say so.
pub(crate) const OPEN_LEADER_WAIT: Duration = Duration::from_secs(2);

/// Pause before another purge of what held the plain key of the authority, while something still reads it or was written beside it.
pub(crate) const ERASE_AGAIN: Duration = Duration::from_millis(500);
