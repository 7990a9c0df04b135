//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Heartbeats of a leader. Well under a third of the shortest election timeout, so that one lost heartbeat
/// starts no election.
pub(crate) const HEARTBEAT_MS: u64 = 100;

/// A follower that hears nothing for a random time in this range stands for election. The width keeps two
/// followers from standing together; the upper end keeps a new leader within two seconds.
pub(crate) const ELECTION_MS_MIN: u64 = 500;
pub(crate) const ELECTION_MS_MAX: u64 = 1000;

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
