//! What a client's request takes of what its key may ask for: the words between the gateway and the leader.
//!
//! Owns the claim, the verdict on it, and its end: whoever holds a granted claim says once what it took, also when he is dropped.
//! Refuses to decide: that is `scheduler::allowance`, in the leader, so that a bound holds for the whole cluster.

use futures_util::future::BoxFuture;
use registry::KeyId;
use scheduler::allowance::{Excess, Standings};
use scheduler::{RequestId, Span};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::front::Front;
use crate::leader::Order;

/// What a request will take, as far as its gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    pub(crate) key: KeyId,
    pub(crate) model: String,
    pub(crate) tenant: u64,
    /// Of all its prompts, each once.
    pub(crate) prompt_tokens: u64,
    pub(crate) answers: u32,
    /// The most of each answer.
    pub(crate) max_tokens: u32,
    /// The client said that bound itself; else the leader expects what such answers have.
    pub(crate) asked: bool,
}

/// What the leader says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The tokens that it was charged with.
    pub(crate) granted: Result<u64, Excess>,
    pub(crate) standings: Standings,
}

/// What a gateway says of claims.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Claim(RequestId, Asking),
    /// It was granted so many tokens at that time, by an earlier leader.
    Adopt(RequestId, Asking, u64, Instant),
    Settled {
        number: RequestId,
        tokens: u64,
    },
    /// How long the buckets of a key take to be whole again, as an earlier leader said.
    Spent {
        key: KeyId,
        requests: Span,
        tokens: Span,
    },
}

impl Word {
    /// The claim that lives from now on.
    pub(crate) fn opens(&self) -> Option<RequestId> {
        match self {
            Word::Claim(number, _) | Word::Adopt(number, ..) => Some(*number),
            Word::Settled { .. } | Word::Spent { .. } => None,
        }
    }
}

/// A claim that was decided. Dropping it without a word says that nothing was taken.
pub(crate) struct Decided {
    pub(crate) verdict: Verdict,
    /// Hears how many tokens were taken, when it is over.
    pub(crate) settle: oneshot::Sender<u64>,
}

/// Where claims are decided: at the leader, or in a script of a test.
pub(crate) trait Decide: Send + Sync {
    /// `None`: this coordinator is going down.
    fn decide(&self, asking: Asking) -> BoxFuture<'_, Option<Decided>>;
}

impl Decide for Front {
    fn decide(&self, asking: Asking) -> BoxFuture<'_, Option<Decided>> {
        Box::pin(async move {
            let number = self.next_request();
            let (settle, settled) = oneshot::channel::<u64>();
            let (line, mut orders) = mpsc::channel(1);
            let front = self.clone();
            // From here on it is settled once, whatever becomes of the client.
            tokio::spawn(async move {
                let tokens = settled.await.unwrap_or_default();
                front.settled(number, tokens).await;
            });
            self.claim(number, asking, line).await;
            loop {
                if let Order::Verdict(verdict) = orders.recv().await? {
                    return Some(Decided { verdict, settle });
                }
            }
        })
    }
}
