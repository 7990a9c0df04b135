//! What a session tells whoever keeps the set of coordinators.
//!
//! Owns these words and their way. Refuses to wait for anybody who has gone: then the session ends as well.

use anyhow::Context as _;
use proto::v1::{Authorities, Coordinators, Welcome};
use tokio::sync::{mpsc, oneshot};

use crate::address::Address;

/// One session and the token streams beside it. Never used twice in the life of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairId(pub(crate) u64);

#[derive(Debug)]
pub(crate) enum Word {
    /// A coordinator answered at this address; the session goes on if it may.
    Welcomed { address: Address, welcome: Welcome, go_on: oneshot::Sender<bool> },
    /// It says who the coordinators are.
    Coordinators(Coordinators),
    /// It says whom the cluster trusts.
    Authorities(Authorities),
    /// It says that this Mac belongs to the cluster no more.
    Revoked,
    /// The session was lost, or could not be opened.
    Lost { words: String },
}

/// One session's way to say them.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) pair: PairId,
    pub(crate) words: mpsc::Sender<(PairId, Word)>,
}

impl Keeper {
    /// May the session go on?
    pub(super) async fn welcomed(&self, address: Address, welcome: Welcome) -> anyhow::Result<bool> {
        let (go_on, answer) = oneshot::channel();
        self.tell(Word::Welcomed { address, welcome, go_on }).await?;
        answer.await.context("the agent stops")
    }

    pub(super) async fn tell(&self, word: Word) -> anyhow::Result<()> {
        self.words.send((self.pair, word)).await.ok().context("the agent stops")
    }
}
