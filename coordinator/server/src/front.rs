//! The gateway's own list of the requests whose clients it holds.
//!
//! Owns, for each of them, what a new leader must know: when it came, how many attempts were made, where the latest runs. So a
//! leader that dies takes nothing with it: running answers flow on, which do not pass through it, and the next leader is told of
//! all that waits and all that runs. Follows the leadership of the group and keeps the one desk at which it speaks. Refuses to
//! decide: orders are passed on as they come.

mod claims;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use consensus::{Leadership, ReplicaId};
use scheduler::{Outcome, RequestId, Usage};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::claims::Claims;
use crate::claims::{Asking, Word};
use crate::desk::{self, Desk, Saying};
use crate::leader::{NewRequest, Order, Past};
use crate::leading::Leading;
use crate::limits;
use crate::peers::Peers;

/// An order that came in at a desk.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) desk: u64,
    pub(crate) request: RequestId,
    pub(crate) order: Order,
}

enum Message {
    Submit(NewRequest, mpsc::Sender<Order>),
    Claim(RequestId, Asking, mpsc::Sender<Order>),
    Saying(Saying),
    /// A desk is open, or could not be opened, or is closed: then `None`.
    Desk(u64, Option<Desk>),
}

/// Speaks to the front; cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    inbox: mpsc::Sender<Message>,
    next_request: Arc<AtomicU64>,
}

/// Where the front looks for the leader.
pub(crate) struct Ways {
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// The leader in this process, while there is one.
    pub(crate) leading: watch::Receiver<Option<Leading>>,
    pub(crate) peers: Peers,
}

impl Front {
    /// Starts the front of this replica's gateway; it ends with `stop`, and every generation then sees its line closed.
    pub(crate) fn start(replica: ReplicaId, ways: Ways, stop: CancellationToken) -> Self {
        let (inbox, messages) = mpsc::channel(limits::FRONT_INBOX);
        let (told, orders) = mpsc::channel(limits::FRONT_INBOX);
        let desks =
            Desks { ways, told, inbox: inbox.downgrade(), number: 0, state: State::Closed, sought: None };
        let counter = Counter { live: BTreeMap::new(), claims: Claims::default(), desks };
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(counter.run(messages, orders)).await;
        });
        // Each gateway counts in a range of its own; the founder's numbers are small ones. Of a restored life's number, which is made
        // of seconds, 24 bits are left here: it shares its range with one made 194 days before or after, to the second.
        let first = replica.0.saturating_sub(1) << 40 | 1;
        Self { inbox, next_request: Arc::new(AtomicU64::new(first)) }
    }

    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a request into the global queue; its orders arrive on the line returned, under whichever leader.
    pub(crate) async fn submit(&self, request: NewRequest) -> mpsc::Receiver<Order> {
        let (line, orders) = mpsc::channel(limits::ORDERS_PER_REQUEST);
        self.send(Message::Submit(request, line)).await;
        orders
    }

    pub(crate) async fn cancel(&self, request: RequestId) {
        self.send(Message::Saying(Saying::Cancel(request))).await;
    }

    pub(crate) async fn began(&self, request: RequestId, attempt: u32) {
        self.send(Message::Saying(Saying::Began { request, attempt })).await;
    }

    pub(crate) async fn finished(&self, request: RequestId, attempt: u32, outcome: Outcome, usage: Usage) {
        self.send(Message::Saying(Saying::Finished { request, attempt, outcome, usage })).await;
    }

    /// Claims a part of what a key may ask for; the verdict arrives on the line, under whichever leader.
    pub(crate) async fn claim(&self, number: RequestId, asking: Asking, line: mpsc::Sender<Order>) {
        self.send(Message::Claim(number, asking, line)).await;
    }

    /// A claim is over.
    pub(crate) async fn settled(&self, number: RequestId, tokens: u64) {
        self.send(Message::Saying(Saying::Claim(Word::Settled { number, tokens }))).await;
    }

    /// A closed inbox means that the coordinator is going down; whoever waits learns it from its own line.
    async fn send(&self, message: Message) {
        let _ = self.inbox.send(message).await;
    }
}

/// A request whose client this gateway holds.
struct Entry {
    new: NewRequest,
    past: Past,
    /// A leader has been told of it.
    offered: bool,
    line: mpsc::Sender<Order>,
}

struct Counter {
    live: BTreeMap<RequestId, Entry>,
    claims: Claims,
    desks: Desks,
}

impl Counter {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut orders: mpsc::Receiver<Told>) {
        loop {
            self.desks.seek();
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                Some(told) = orders.recv() => self.pass_on(told),
                () = self.desks.moved() => {}
            }
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Submit(new, line) => {
                let request = new.request;
                let offered = self.desks.say(Saying::Submit(new.clone())).await;
                self.live.insert(request, Entry { new, past: Past::default(), offered, line });
            }
            Message::Claim(number, asking, line) => {
                self.desks.say(Saying::Claim(Word::Claim(number, asking.clone()))).await;
                self.claims.open(number, asking, line);
            }
            Message::Saying(saying) => {
                self.note(&saying);
                self.desks.say(saying).await;
            }
            Message::Desk(number, desk) => {
                if self.desks.arrived(number, desk) {
                    self.offer_all().await;
                }
            }
        }
    }

    /// A new leader hears of everything, those first that came first.
    async fn offer_all(&mut self) {
        for word in self.claims.words(self.desks.term()) {
            self.desks.say(Saying::Claim(word)).await;
        }
        let mut entries: Vec<&mut Entry> = self.live.values_mut().collect();
        entries.sort_by_key(|entry| (entry.new.arrived, entry.new.request));
        for entry in entries {
            let saying = match entry.offered {
                true => Saying::Adopt(entry.new.clone(), entry.past),
                false => Saying::Submit(entry.new.clone()),
            };
            // What one leader has accepted stays so, whether the next one can be told or not.
            entry.offered |= self.desks.say(saying).await;
        }
    }

    /// What a generation says changes what the next leader would be told.
    fn note(&mut self, saying: &Saying) {
        match saying {
            Saying::Cancel(request) => {
                self.live.remove(request);
            }
            Saying::Began { request, attempt } => {
                let entry = self.live.get_mut(request).filter(|entry| entry.past.attempts == *attempt);
                if let Some((_, began)) = entry.and_then(|entry| entry.past.running.as_mut()) {
                    *began = true;
                }
            }
            Saying::Finished { request, attempt, outcome, usage } => {
                self.note_end(*request, *attempt, *outcome, *usage);
            }
            Saying::Claim(Word::Settled { number, .. }) => self.claims.settled(*number),
            Saying::Submit(_) | Saying::Adopt(..) | Saying::Claim(_) => {}
        }
    }

    fn note_end(&mut self, request: RequestId, attempt: u32, outcome: Outcome, usage: Usage) {
        if outcome.ends_the_request() {
            self.live.remove(&request);
            return;
        }
        let entry = self.live.get_mut(&request).filter(|entry| entry.past.attempts == attempt);
        let Some(entry) = entry else { return };
        entry.past.running = None;
        // What the client has is prompt from now on.
        let new = &mut entry.new;
        new.prompt_tokens = new.prompt_tokens.saturating_add(usage.generated);
        new.max_tokens = new.max_tokens.saturating_sub(usage.generated).max(1);
    }

    /// Orders of a desk that was left are void: the attempt numbers of two leaders could be the same.
    fn pass_on(&mut self, told: Told) {
        let Told { desk, request, order } = told;
        if let Order::Verdict(verdict) = order {
            if self.desks.is_current(desk) {
                self.claims.heard(request, verdict, self.desks.term());
            }
            return;
        }
        let Some(entry) = self.live.get_mut(&request).filter(|_| self.desks.is_current(desk)) else { return };
        match &order {
            Order::Wait { .. } => {
                entry.past.running = None;
                // Orders that must not be lost find room behind it.
                if entry.line.capacity() <= limits::ORDERS_PER_REQUEST / 2 {
                    return;
                }
            }
            Order::Run { attempt, node, .. } => {
                entry.past = Past { attempts: *attempt, running: Some((*node, false)) };
            }
            Order::Verdict(_) => return,
            Order::Refused { .. } | Order::Stop(_) => {
                if let Some(entry) = self.live.remove(&request) {
                    let _ = entry.line.try_send(order);
                }
                return;
            }
        }
        // A line that is full or closed belongs to a generation that is gone, whose own cancel is on the way.
        let _ = entry.line.try_send(order);
    }
}

/// The desk at which this gateway speaks, and the search for the next.
struct Desks {
    ways: Ways,
    told: mpsc::Sender<Told>,
    inbox: mpsc::WeakSender<Message>,
    /// Of the desk that is open or sought.
    number: u64,
    state: State,
    /// The term and the leader that it is with.
    sought: Option<(u64, ReplicaId)>,
}

enum State {
    Closed,
    Seeking,
    Open(Desk),
}

impl Desks {
    /// Leaves a desk whose leader leads no more, and looks for the one that does.
    fn seek(&mut self) {
        let leadership = self.ways.leadership.borrow_and_update().clone();
        let near = self.ways.leading.borrow_and_update().clone();
        let leader = leadership.leader.filter(|_| !leadership.is_self || near.is_some());
        let wanted = leader.map(|leader| (leadership.term, leader));
        let is_over = matches!(&self.state, State::Open(desk) if desk.is_over());
        if wanted == self.sought && !is_over {
            return;
        }
        self.leave();
        let Some((term, leader)) = wanted else { return };
        self.sought = wanted;
        let (number, told, inbox) = (self.number, self.told.clone(), self.inbox.clone());
        self.state = State::Seeking;
        let peers = self.ways.peers.clone();
        let address = leadership.address.unwrap_or_default();
        tokio::spawn(async move {
            let desk = match near.filter(|near| leadership.is_self && near.term == term) {
                Some(leading) => Some(Desk::Near { number, leading, told }),
                None if leadership.is_self => None,
                None => far(&peers, leader, &address, term, number, told, &inbox).await,
            };
            report(&inbox, number, desk).await;
        });
    }

    /// Whether a desk has been opened at which nobody has spoken yet.
    fn arrived(&mut self, number: u64, desk: Option<Desk>) -> bool {
        if number != self.number {
            return false;
        }
        match desk.filter(|desk| !desk.is_over()) {
            Some(desk) => {
                self.state = State::Open(desk);
                true
            }
            None => {
                self.leave();
                false
            }
        }
    }

    /// Whether it could be said. Nobody waits for a leader that leads no more; and should the same one lead again a moment later,
    /// it has not heard everything, and must at another desk.
    async fn say(&mut self, saying: Saying) -> bool {
        let State::Open(desk) = &self.state else { return false };
        let said = tokio::select! {
            biased;
            said = desk.say(saying) => Some(said),
            () = deposed(&mut self.ways.leadership, self.sought) => None,
        };
        if said.is_none() {
            self.leave();
        }
        said.unwrap_or(false)
    }

    /// Orders that still come from there are void.
    fn leave(&mut self) {
        self.sought = None;
        if let State::Open(desk) = std::mem::replace(&mut self.state, State::Closed) {
            desk.close();
        }
        self.number = self.number.wrapping_add(1);
    }

    /// Of the leader at whose desk this is.
    fn term(&self) -> u64 {
        self.sought.map_or(0, |(term, _)| term)
    }

    fn is_current(&self, number: u64) -> bool {
        number == self.number
    }

    /// Until there may be another leader, or it is time to try again.
    async fn moved(&mut self) {
        let again = async {
            match self.state {
                State::Closed => tokio::time::sleep(limits::DESK_AGAIN).await,
                State::Seeking | State::Open(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.ways.leadership.changed() => if changed.is_err() { std::future::pending::<()>().await },
            changed = self.ways.leading.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = again => {}
        }
    }
}

/// Until another one leads, or nobody.
async fn deposed(leadership: &mut watch::Receiver<Leadership>, leader: Option<(u64, ReplicaId)>) {
    let is_other = |now: &Leadership| now.leader.map(|leader| (now.term, leader)) != leader;
    if leadership.wait_for(is_other).await.is_err() {
        std::future::pending().await
    }
}

/// Opens a desk with a leader on another machine; its end is reported too.
async fn far(
    peers: &Peers,
    leader: ReplicaId,
    address: &str,
    term: u64,
    number: u64,
    told: mpsc::Sender<Told>,
    inbox: &mpsc::WeakSender<Message>,
) -> Option<Desk> {
    match desk::dial(peers, leader, address, term, number, told).await {
        Ok((far, ended)) => {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                let why = ended.await;
                tracing::info!(leader = leader.0, term, why, "the leader's desk is closed");
                report(&inbox, number, None).await;
            });
            Some(Desk::Far(far))
        }
        Err(error) => {
            tracing::debug!(leader = leader.0, term, %error, "the leader's desk cannot be reached");
            None
        }
    }
}

async fn report(inbox: &mpsc::WeakSender<Message>, number: u64, desk: Option<Desk>) {
    if let Some(inbox) = inbox.upgrade() {
        let _ = inbox.send(Message::Desk(number, desk)).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
