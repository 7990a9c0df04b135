//! The bytes of a file, piece by piece, wherever they are.
//!
//! Owns the order, and that a piece is looked for at most a piece ahead of its reader. A file that cannot be read to its end breaks
//! off: nobody takes its beginning for all of it.

use std::collections::VecDeque;

use axum::body::Body;
use bytes::Bytes;
use registry::KeptAnswer;

use crate::gateway::Gateway;
use crate::gateway::places::Place;
use crate::jobs::{Missing, What};

/// Why a piece cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    #[error("no coordinator has it any more")]
    Gone,
    #[error("whoever may have it does not answer")]
    Unreachable,
}

pub(crate) struct Pieces {
    gateway: Gateway,
    left: VecDeque<KeptAnswer>,
}

impl Pieces {
    pub(crate) fn of(gateway: &Gateway, pieces: Vec<KeptAnswer>) -> Self {
        Self { gateway: gateway.clone(), left: pieces.into() }
    }

    /// After an error the same piece is looked for again.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Unread>> {
        let KeptAnswer { digest, holders, .. } = self.left.front()?.clone();
        let fetched = self.gateway.jobs.keeper.fetch(What::Piece, digest, holders).await;
        if fetched.is_ok() {
            self.left.pop_front();
        }
        Some(fetched.map_err(|missing| match missing {
            Missing::Gone => Unread::Gone,
            Missing::Unreachable => Unread::Unreachable,
        }))
    }
}

/// `place`: among those who read, until this one has read it all.
pub(super) fn body(first: Option<Bytes>, rest: Pieces, place: Place) -> Body {
    type State = (Option<Bytes>, Pieces, Place);
    let next = |state: Option<State>| async move {
        let (first, mut rest, place) = state?;
        let piece = match first {
            Some(first) => Ok(first),
            None => rest.next().await?,
        };
        // A broken body is not read any farther.
        let then = piece.is_ok().then_some((None, rest, place));
        Some((piece, then))
    };
    Body::from_stream(futures_util::stream::unfold(Some((first, rest, place)), next))
}
