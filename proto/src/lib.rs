//! The wire between coordinators and agents, and between coordinators.
//!
//! Owns what both ends must agree on: the gRPC messages ([`v1`], generated from `cluster.proto`, and [`raft`], generated from
//! `raft.proto`), the framing of one attempt's QUIC stream ([`framing`]), who may speak ([`identity`]), how a TLS session
//! between the two is set up ([`tls`], [`papers`], [`channel`]), what a join token looks like ([`token`]), and when what they believe of
//! each other is stale ([`suspend`]).
//!
//! Refuses every decision: no retries, no policy. The server and the daemon crates meet here and nowhere else.

pub mod identity;
pub mod token;
pub mod tls;
pub mod papers;
pub mod channel;
pub mod standing;
pub mod suspend;
pub mod framing;
pub mod card;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

/// Version 1 of the messages, generated from `cluster.proto`; `tests/generated.rs` keeps the two in step.
#[rustfmt::skip]
#[path = "generated/mlx.cluster.v1.rs"]
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code has its own style"
)]
pub mod v1;

/// Version 1 of what coordinators say to one another, generated from `raft.proto`; `tests/generated.rs` keeps the two in step.
#[rustfmt::skip]
#[path = "generated/mlx.raft.v1.rs"]
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code has its own style"
)]
pub mod raft;

/// ALPN of the token streams. A change of the framing changes it.
pub const STREAM_ALPN: &[u8] = b"mlxc/1";

/// Longest message on an attempt's stream, in bytes: a prompt of two million tokens at four bytes each, or 20 logprobs for each
/// of a full step. Anything longer is a broken or hostile peer.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Piece of a model card on the wire, in bytes: well below gRPC's default message bound of 4 MiB.
pub const CARD_CHUNK_BYTES: usize = 1 << 20;

/// A model card in all, in bytes. The largest tokenizers in use are about 35 MB.
pub const CARD_BYTES_MAX: usize = 128 << 20;
