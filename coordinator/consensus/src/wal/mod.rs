//! The write-ahead log of one replica, and its vote and snapshot: plain files in one folder. It knows bytes,
//! indices and terms; it does not know Raft, openraft or the registry.
//!
//! Why not an embedded database: what a voter owes its group is decided by what happens when a flush fails, a
//! write is torn or a bit flips, and here each of those is a few lines that a test can reach. The log is small
//! (a few thousand facts between snapshots), read whole at start, and afterwards only appended to.
//!
//! ```text
//! lock            flock, process id                                    folder.rs
//! log-<number>    segment: sealed head, then records                   segment.rs, record.rs
//! mark            what is known to be flushed, and what is committed   mark.rs
//! vote            the last vote                                        replace.rs
//! snapshot        the registry at some index                           snapshot_file.rs
//! ballast         bytes to go on with when the disk is full            ballast.rs
//! *.new           an unfinished replacement; removed at start
//! ```
//!
//! Nothing is ever changed in place but the mark: truncating and purging the log are records too, and a purge
//! afterwards removes whole closed segments, oldest first. So there is no moment in which a crash finds half of a
//! rewrite. Order on disk is order of calls: one thread writes (`writer.rs`).
//!
//! What is promised:
//! 1. What was acknowledged was flushed before. The first write or flush that fails stops the writer for good, but for a
//!    write that finds the disk full while there is a ballast: it is done again in the ballast's place. After a failed flush
//!    nobody knows what the kernel still holds, so nothing is retried.
//! 2. After any crash, of the process or of the machine, opening yields every acknowledged operation. Of what was
//!    not acknowledged it yields a prefix, or nothing.
//! 3. Any change to acknowledged bytes of a segment, the vote or the snapshot is noticed, and opening refuses,
//!    naming file, offset and index. One damaged slot of the mark is survived; the other slot serves.
//! 4. The exception, stated in `mark.rs`: if the machine (not the process) dies within the mark's idle period
//!    of the last acknowledgement, and that same last batch is also damaged on the medium, the damage looks like
//!    an unfinished write and is cut.

pub(crate) mod disk;
pub(crate) mod hands;
pub(crate) mod ballast;
pub(crate) mod folder;
pub(crate) mod sealed;
pub(crate) mod replace;
pub(crate) mod record;
pub(crate) mod extent;
pub(crate) mod segment;
pub(crate) mod mark;
pub(crate) mod tail;
pub(crate) mod recovery;
pub(crate) mod log;
pub(crate) mod writer;
pub(crate) mod erasure;
pub(crate) mod snapshot_file;
