//! A snapshot on its way: cut into pieces by the leader, put together by the follower.
//!
//! The follower holds the pieces in memory until all are there and their checksum is right, so a transfer that breaks leaves
//! nothing behind; it only writes what it has whole.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use proto::raft as wire;
use proto::raft::snapshot_chunk::Part;
use tokio::time::timeout;
use tonic::Status;

use crate::limits;
use crate::raft::types::{Snapshot, Vote};
use crate::raft::wire as convert;

/// The head, then the state in order.
pub(crate) fn of(
    header: wire::Header,
    leader: &Vote,
    snapshot: Snapshot,
) -> impl Stream<Item = wire::SnapshotChunk> + Send + 'static {
    let Snapshot { meta, snapshot: state } = snapshot;
    let head = wire::SnapshotHead {
        header: Some(header),
        leader: Some(convert::ballot(leader)),
        last: meta.last_log_id.as_ref().map(convert::id),
        membership: Some(convert::members(meta.last_membership.membership())),
        membership_id: meta.last_membership.log_id().as_ref().map(convert::id),
        bytes: state.len() as u64,
        blake3: blake3::hash(&state).as_bytes().to_vec(),
    };
    let mut rest = Bytes::from(state);
    let pieces = std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(limits::SNAPSHOT_CHUNK_BYTES));
        (!piece.is_empty()).then_some(Part::Data(piece))
    });
    let parts = std::iter::once(Part::Head(head)).chain(pieces);
    futures_util::stream::iter(parts.map(|part| wire::SnapshotChunk { part: Some(part) }))
}

/// The first piece, which says what is coming.
pub(crate) async fn head<S>(chunks: &mut S) -> Result<wire::SnapshotHead, Status>
where
    S: Stream<Item = Result<wire::SnapshotChunk, Status>> + Unpin,
{
    match next(chunks).await? {
        Some(Part::Head(head)) if head.bytes <= limits::SNAPSHOT_BYTES_MAX => Ok(head),
        Some(Part::Head(head)) => Err(Status::resource_exhausted(format!(
            "a snapshot of {} bytes is larger than the {} this replica takes",
            head.bytes,
            limits::SNAPSHOT_BYTES_MAX
        ))),
        Some(Part::Data(_)) | None => Err(convert::malformed("a snapshot without a head")),
    }
}

/// The rest, whole.
pub(crate) async fn state<S>(chunks: &mut S, head: &wire::SnapshotHead) -> Result<Vec<u8>, Status>
where
    S: Stream<Item = Result<wire::SnapshotChunk, Status>> + Unpin,
{
    let mut state = Vec::new();
    while let Some(part) = next(chunks).await? {
        let Part::Data(data) = part else { return Err(convert::malformed("a second head of a snapshot")) };
        state.extend_from_slice(&data);
        if state.len() as u64 > head.bytes {
            return Err(convert::malformed("a snapshot longer than its head says"));
        }
    }
    if state.len() as u64 != head.bytes || blake3::hash(&state).as_bytes().as_slice() != head.blake3 {
        return Err(Status::data_loss("a snapshot did not arrive whole"));
    }
    Ok(state)
}

async fn next<S>(chunks: &mut S) -> Result<Option<Part>, Status>
where
    S: Stream<Item = Result<wire::SnapshotChunk, Status>> + Unpin,
{
    let late = |_| Status::deadline_exceeded("the next piece of a snapshot did not come");
    let Some(chunk) = timeout(limits::SNAPSHOT_CHUNK_WAIT, chunks.next()).await.map_err(late)? else {
        return Ok(None);
    };
    chunk?.part.map(Some).ok_or_else(|| convert::malformed("an empty piece of a snapshot"))
}
