//! How a gateway speaks to the scheduler: to the leader in this very process, or over gRPC to the one on another machine.
//!
//! Owns both ways, so that the front need not know which it has. `client` is the calling end of the far way, `service` the leader's,
//! `words` and `claim_words` the translation. Refuses to keep anything: what must survive a leader is in the front.

mod claim_words;
mod client;
mod service;
mod words;

use scheduler::{Outcome, RequestId, Usage};
use tokio::sync::mpsc;

use crate::claims::Word;
use crate::front::Told;
use crate::leader::{Leader, NewRequest, Order, Past};
use crate::leading::Leading;

pub(crate) use client::dial;
#[cfg(test)]
pub(crate) use client::tests::far;
pub(crate) use service::{Desks, Orders};

/// A way to the scheduler that leads. Dropping it is leaving: a far leader then takes this gateway's requests for gone.
pub(crate) enum Desk {
    Near { number: u64, leading: Leading, told: mpsc::Sender<Told> },
    Far(client::Far),
}

/// What a gateway says of a request.
#[derive(Clone, Debug)]
pub(crate) enum Saying {
    Submit(NewRequest),
    /// It was accepted by an earlier leader.
    Adopt(NewRequest, Past),
    Cancel(RequestId),
    Began {
        request: RequestId,
        attempt: u32,
    },
    Finished {
        request: RequestId,
        attempt: u32,
        outcome: Outcome,
        usage: Usage,
    },
    /// Of what a key may ask for.
    Claim(Word),
}

impl Desk {
    /// Whether its leader, in this very process, leads no more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Near { leading, .. } if leading.ended.is_cancelled())
    }

    /// A leader that its own gateway has left would hold what it has run for that gateway until the deadlines: it ends, and begins anew.
    /// One on another machine takes the end of the line for that.
    pub(crate) fn close(self) {
        if let Self::Near { leading, .. } = self {
            leading.ended.cancel();
        }
    }

    /// Whether it could be said. What cannot be said any more is said to the next leader, in other words.
    pub(crate) async fn say(&self, saying: Saying) -> bool {
        match self {
            Self::Near { .. } if self.is_over() => false,
            Self::Near { number, leading, told } => {
                if let Some((request, orders)) = tell(&leading.leader, saying).await {
                    tokio::spawn(pump(*number, request, orders, told.clone()));
                }
                true
            }
            Self::Far(far) => far.say(saying).await,
        }
    }
}

/// Returns the line of a request that is new to this leader.
pub(crate) async fn tell(leader: &Leader, saying: Saying) -> Option<(RequestId, mpsc::Receiver<Order>)> {
    match saying {
        Saying::Submit(new) => Some((new.request, leader.submit(new).await)),
        Saying::Adopt(new, past) => Some((new.request, leader.adopt(new, past).await)),
        Saying::Cancel(request) => {
            leader.cancel(request).await;
            None
        }
        Saying::Began { request, attempt } => {
            leader.began(request, attempt).await;
            None
        }
        Saying::Finished { request, attempt, outcome, usage } => {
            leader.finished(request, attempt, outcome, usage).await;
            None
        }
        Saying::Claim(word) => leader.claim(word).await,
    }
}

/// Orders on one request's line become what the front is told, until the line ends.
async fn pump(desk: u64, request: RequestId, mut orders: mpsc::Receiver<Order>, told: mpsc::Sender<Told>) {
    while let Some(order) = orders.recv().await {
        if told.send(Told { desk, request, order }).await.is_err() {
            return;
        }
    }
}
