//! The leader's end of a far desk.
//!
//! Owns which requests came in at it: when the call ends, its gateway is gone, and so are its clients. A gateway that is not heard may
//! live, and still hear: but it cannot say what has ended, and its requests would hold their slots. Refuses a gateway that takes this
//! coordinator to lead another term than it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use consensus::{Consensus, MemberState, ReplicaId};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use proto::v1::{DeskMessage, DeskOrder, desk_message};
use scheduler::RequestId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Saying, tell, words};
use crate::claims::Word;
use crate::leader::{Leader, Order};
use crate::leading::Leading;
use crate::limits;

pub(crate) type Orders = BoxStream<'static, Result<DeskOrder, Status>>;

/// The gateways that are served: one desk for each.
#[derive(Clone, Default)]
pub(crate) struct Desks {
    open: Arc<Mutex<BTreeMap<ReplicaId, Open>>>,
}

struct Open {
    since: Instant,
    leave: CancellationToken,
    left: JoinHandle<()>,
}

impl Desks {
    /// Serves one gateway for as long as it calls and this coordinator leads.
    ///
    /// A gateway that calls again has lost the line of its call before, which this end may not have noticed. What came in there is
    /// forgotten before it speaks: else its requests, told anew, would end with the old call.
    pub(crate) async fn serve(
        &self,
        gateway: ReplicaId,
        mut messages: impl Stream<Item = Result<DeskMessage, Status>> + Unpin + Send + 'static,
        leading: &watch::Receiver<Option<Leading>>,
    ) -> Result<Orders, Status> {
        let leading = leading.borrow().clone();
        let leading = leading.ok_or_else(|| Status::failed_precondition("this coordinator does not lead"))?;
        check_term(&mut messages, leading.term).await?;
        let mut open = self.open.lock().await;
        if let Some(former) = open.remove(&gateway) {
            former.leave.cancel();
            // Only a panic in it is an error, and then it is over too.
            let _ = former.left.await;
        }
        let leave = CancellationToken::new();
        let (outgoing, orders) = mpsc::channel(limits::DESK_OUTBOX);
        let left = tokio::spawn(attend(gateway, messages, leading, outgoing, leave.clone()));
        open.insert(gateway, Open { since: Instant::now(), leave, left });
        Ok(ReceiverStream::new(orders).boxed())
    }

    /// None yet. Closes those of gateways that are not heard until `stop`; they call again, and tell all anew, once they are.
    pub(crate) fn watched(consensus: &Consensus, stop: &CancellationToken) -> Self {
        let desks = Self::default();
        tokio::spawn(stop.clone().run_until_cancelled_owned(desks.clone().watch(consensus.clone())));
        desks
    }

    async fn watch(self, consensus: Consensus) {
        let mut looks = interval(limits::DESK_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.close_silent(&consensus.members()).await;
        }
    }

    /// The members of the group answer its leader several times a second, whatever their gateways have to say.
    async fn close_silent(&self, members: &[MemberState]) {
        let is_long = |silence: Duration| silence >= limits::DESK_SILENCE;
        let open = self.open.lock().await;
        for member in members.iter().filter(|member| member.last_contact.is_some_and(is_long)) {
            // One that has just called has been heard, by another way.
            if let Some(desk) = open.get(&member.replica).filter(|desk| is_long(desk.since.elapsed())) {
                desk.leave.cancel();
            }
        }
    }
}

/// The first message says in which term the gateway takes this coordinator to lead.
async fn check_term(
    messages: &mut (impl Stream<Item = Result<DeskMessage, Status>> + Unpin),
    term: u64,
) -> Result<(), Status> {
    let first = tokio::time::timeout(limits::SESSION_TIMEOUT, messages.next()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no term arrived"))?.transpose()?;
    match first.and_then(|first| first.message) {
        Some(desk_message::Message::Term(asked)) if asked == term => Ok(()),
        Some(desk_message::Message::Term(asked)) => {
            let words = format!("this coordinator leads term {term}, not {asked}");
            Err(Status::failed_precondition(words))
        }
        Some(_) | None => Err(Status::invalid_argument("the first message is no term")),
    }
}

async fn attend(
    gateway: ReplicaId,
    mut messages: impl Stream<Item = Result<DeskMessage, Status>> + Unpin,
    Leading { term, leader, ended }: Leading,
    outgoing: mpsc::Sender<Result<DeskOrder, Status>>,
    leave: CancellationToken,
) {
    tracing::info!(gateway = gateway.0, term, "a gateway's desk is open");
    let mut desk = Attended { leader, live: BTreeSet::new(), outgoing, gone: CancellationToken::new() };
    let attending = leave.run_until_cancelled(desk.attend(&mut messages));
    let still_leading = ended.run_until_cancelled(attending).await.is_some();
    // At the next desk they are told anew; here they are over.
    desk.close().await;
    tracing::info!(gateway = gateway.0, term, still_leading, "a gateway's desk is closed");
}

struct Attended {
    leader: Leader,
    /// Requests of this gateway that may be alive.
    live: BTreeSet<RequestId>,
    outgoing: mpsc::Sender<Result<DeskOrder, Status>>,
    gone: CancellationToken,
}

impl Attended {
    async fn attend(&mut self, messages: &mut (impl Stream<Item = Result<DeskMessage, Status>> + Unpin)) {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = self.outgoing.closed() => return,
            };
            let Some(Ok(message)) = message else { return };
            // What cannot be read is of a later version; its sender hears nothing and asks again at the next desk.
            let Some(saying) = words::saying(message) else { continue };
            self.hear(saying).await;
        }
    }

    async fn hear(&mut self, saying: Saying) {
        match &saying {
            Saying::Submit(new) | Saying::Adopt(new, _) => {
                if self.live.len() >= limits::REQUESTS_PER_DESK {
                    return;
                }
                self.live.insert(new.request);
            }
            Saying::Cancel(request) => {
                self.live.remove(request);
            }
            Saying::Finished { request, outcome, .. } => {
                if outcome.ends_the_request() {
                    self.live.remove(request);
                }
            }
            Saying::Claim(Word::Settled { number, .. }) => {
                self.live.remove(number);
            }
            Saying::Claim(word) => {
                if self.live.len() >= limits::REQUESTS_PER_DESK {
                    return;
                }
                self.live.extend(word.opens());
            }
            Saying::Began { .. } => {}
        }
        if let Some((request, orders)) = tell(&self.leader, saying).await {
            tokio::spawn(self.gone.clone().run_until_cancelled_owned(pump(
                request,
                orders,
                self.outgoing.clone(),
            )));
        }
    }

    async fn close(&mut self) {
        self.gone.cancel();
        for request in std::mem::take(&mut self.live) {
            self.leader.cancel(request).await;
        }
    }
}

/// Orders on one request's line go out on the wire, until the line ends.
async fn pump(
    request: RequestId,
    mut orders: mpsc::Receiver<Order>,
    outgoing: mpsc::Sender<Result<DeskOrder, Status>>,
) {
    while let Some(order) = orders.recv().await {
        if outgoing.send(Ok(words::told(request, order))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
