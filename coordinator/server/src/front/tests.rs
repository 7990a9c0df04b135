//! The front with real scheduler loops behind it, in this process and across a real gRPC call: what survives a change of leader.

mod claiming;
mod offering;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry::Registry;
use scheduler::{Class, Measured, ModelState, Rates};
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::generation::Traits;
use crate::leader::{Leader, ModelNews, NodeNews};

/// Elections as a test holds them.
pub(crate) struct Elected {
    leadership: watch::Sender<Leadership>,
    leading: watch::Sender<Option<Leading>>,
}

impl Elected {
    /// This very coordinator leads term 1.
    pub(crate) fn of(leader: &Leader) -> Self {
        let elected = Self::nobody();
        elected.elect(1, leader);
        elected
    }

    fn nobody() -> Self {
        Self { leadership: watch::Sender::new(Leadership::default()), leading: watch::Sender::new(None) }
    }

    fn elect(&self, term: u64, leader: &Leader) {
        let ended = CancellationToken::new();
        self.leading.send_replace(Some(Leading { term, leader: leader.clone(), ended }));
        let led = Leadership { term, leader: Some(ReplicaId(1)), is_self: true, address: None };
        self.leadership.send_replace(led);
    }

    /// Of the leader in this process.
    fn ended(&self) -> CancellationToken {
        self.leading.borrow().as_ref().expect("it leads").ended.clone()
    }

    /// Another coordinator leads.
    fn elect_other(&self, term: u64, leader: u64) {
        let led = Leadership { term, leader: Some(ReplicaId(leader)), ..Leadership::default() };
        self.leadership.send_replace(led);
    }

    fn depose(&self, term: u64) {
        self.leadership.send_replace(Leadership { term, ..Leadership::default() });
        self.leading.send_replace(None);
    }

    /// Both channels keep their last word when the elections are over.
    pub(crate) fn ways(&self) -> Ways {
        Ways {
            leadership: self.leadership.subscribe(),
            leading: self.leading.subscribe(),
            peers: Peers::default(),
        }
    }
}

struct Room {
    front: Front,
    elected: Elected,
    stop: CancellationToken,
    asked: AtomicU64,
}

impl Room {
    fn new() -> Self {
        let (elected, stop) = (Elected::nobody(), CancellationToken::new());
        let front = Front::start(ReplicaId(1), elected.ways(), stop.clone());
        Self { front, elected, stop, asked: AtomicU64::new(1) }
    }

    /// A scheduler that knows one node with so many slots.
    async fn scheduler(&self, slots: u32) -> Leader {
        let registry = Arc::new(Registry::default());
        let (leader, _) = Leader::start(Clock::start(), &registry, self.stop.clone());
        report(&leader, slots).await;
        leader
    }

    /// One whose first leader, of term 1, has begun a request on its only slot.
    async fn with_one_that_runs() -> (Self, RequestId, mpsc::Receiver<Order>) {
        let room = Self::new();
        let first = room.scheduler(1).await;
        room.elected.elect(1, &first);
        let (running, mut line) = room.ask().await;
        assert_eq!(ran(&mut line).await, 1);
        room.front.began(running, 1).await;
        (room, running, line)
    }

    async fn ask(&self) -> (RequestId, mpsc::Receiver<Order>) {
        let request = RequestId(self.asked.fetch_add(1, Ordering::Relaxed));
        (request, self.front.submit(new(request)).await)
    }
}

/// Hears what is said to a front that says nothing to anybody.
pub(crate) struct Listener(mpsc::Receiver<Message>);

pub(crate) fn listening() -> (Front, Listener) {
    let (inbox, messages) = mpsc::channel(limits::FRONT_INBOX);
    (Front { inbox, next_request: Arc::new(AtomicU64::new(1)) }, Listener(messages))
}

impl Listener {
    /// Of the next attempt that ends.
    pub(crate) async fn end(&mut self) -> (Outcome, Usage) {
        loop {
            match self.0.recv().await {
                Some(Message::Saying(Saying::Finished { outcome, usage, .. })) => return (outcome, usage),
                Some(_) => {}
                None => panic!("no end"),
            }
        }
    }
}

fn new(request: RequestId) -> NewRequest {
    let traits = Traits {
        tenant: 0,
        class: Class::Interactive,
        session: None,
        blocks: [].into(),
        fingerprint: request.0,
        cache_salt: String::new(),
    };
    NewRequest {
        request,
        model: "m".to_owned(),
        prompt_tokens: 10,
        max_tokens: 10,
        arrived: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(600),
        traits,
    }
}

/// Node 7 holds the model with so many slots.
async fn report(leader: &Leader, slots: u32) {
    let model = ModelNews {
        model: "m".to_owned(),
        state: ModelState::Ready,
        slots,
        kv_tokens: 0,
        prefix_tokens: 0,
        bytes: 0,
        rates: Rates { prefill_tokens_per_s: 1_000.0, step_ms: 10.0, batch_slope: 0.1 },
        measured: Measured::default(),
    };
    leader.reported(7, NodeNews { models: vec![model], ..NodeNews::default() }).await;
}

/// The next order that is not about waiting.
async fn next(line: &mut mpsc::Receiver<Order>) -> Option<Order> {
    loop {
        match line.recv().await {
            Some(Order::Wait { .. }) => {}
            order => return order,
        }
    }
}

async fn ran(line: &mut mpsc::Receiver<Order>) -> u32 {
    match next(line).await {
        Some(Order::Run { attempt, node: 7, .. }) => attempt,
        other => panic!("{other:?}"),
    }
}

async fn counts(leader: &Leader) -> (usize, usize) {
    let view = leader.view().await;
    (view.waiting.values().sum(), view.running.values().sum())
}

const COMPLETED: Outcome = Outcome::Completed;

#[tokio::test]
async fn a_request_that_comes_while_nobody_leads_runs_once_somebody_does() {
    let room = Room::new();
    let (_, mut line) = room.ask().await;
    let leader = room.scheduler(1).await;
    room.elected.elect(1, &leader);
    assert_eq!(ran(&mut line).await, 1);
}

#[tokio::test]
async fn the_next_leader_hears_of_what_runs_and_of_what_waits() {
    let (room, running, _line) = Room::with_one_that_runs().await;
    let (_, mut waiting) = room.ask().await;
    assert!(matches!(waiting.recv().await, Some(Order::Wait { ahead: 0, .. })));

    room.elected.depose(2);
    let second = room.scheduler(1).await;
    room.elected.elect(3, &second);
    // It waits on: the slot is taken by what the first leader had sent there.
    assert!(matches!(waiting.recv().await, Some(Order::Wait { ahead: 0, .. })));
    assert_eq!(counts(&second).await, (1, 1));
    room.front.finished(running, 1, COMPLETED, Usage::default()).await;
    assert_eq!(ran(&mut waiting).await, 1);
    assert_eq!(counts(&second).await, (0, 1));
}

#[tokio::test]
async fn another_leader_of_the_same_term_in_this_process_hears_of_all() {
    let (room, running, _line) = Room::with_one_that_runs().await;

    // For a moment it did not lead, which only one of the two has seen.
    let second = room.scheduler(1).await;
    room.elected.ended().cancel();
    room.elected.elect(1, &second);
    let (_, mut waiting) = room.ask().await;
    assert!(matches!(waiting.recv().await, Some(Order::Wait { ahead: 0, .. })));
    assert_eq!(counts(&second).await, (1, 1));
    room.front.finished(running, 1, COMPLETED, Usage::default()).await;
    assert_eq!(ran(&mut waiting).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_its_own_gateway_leaves_ends() {
    let room = Room::new();
    let leader = room.scheduler(1).await;
    room.elected.elect(1, &leader);
    let (_, mut line) = room.ask().await;
    assert_eq!(ran(&mut line).await, 1);
    // It leads again before its office has looked; what it has run for this gateway is void.
    room.elected.leadership.send_replace(Leadership { term: 1, ..Leadership::default() });
    let ended = room.elected.ended();
    tokio::time::timeout(Duration::from_secs(60), ended.cancelled()).await.expect("it ends");
}

#[tokio::test]
async fn an_attempt_that_ends_between_two_leaders_is_told_to_the_next_as_it_ended() {
    let room = Room::new();
    let first = room.scheduler(2).await;
    room.elected.elect(1, &first);
    let (whole, mut whole_line) = room.ask().await;
    let (broken, mut broken_line) = room.ask().await;
    assert_eq!((ran(&mut whole_line).await, ran(&mut broken_line).await), (1, 1));
    room.front.began(broken, 1).await;

    room.elected.depose(2);
    room.front.finished(whole, 1, COMPLETED, Usage::default()).await;
    let reset = Outcome::Failed(scheduler::Failure::Reset);
    room.front.finished(broken, 1, reset, Usage { generated: 4, ..Usage::default() }).await;
    let second = room.scheduler(2).await;
    room.elected.elect(3, &second);
    // The number of the next attempt is one that no agent has seen.
    assert_eq!(ran(&mut broken_line).await, 2);
    assert_eq!(counts(&second).await, (0, 1));
}

#[tokio::test]
async fn a_client_that_left_between_two_leaders_is_forgotten() {
    let room = Room::new();
    let (gone, _line) = room.ask().await;
    let (_, mut staying) = room.ask().await;
    room.front.cancel(gone).await;
    let leader = room.scheduler(1).await;
    room.elected.elect(1, &leader);
    assert_eq!(ran(&mut staying).await, 1);
    assert_eq!(counts(&leader).await, (0, 1));
}

#[tokio::test]
async fn orders_of_a_leader_that_was_left_are_void() {
    let room = Room::new();
    let first = room.scheduler(0).await;
    room.elected.elect(1, &first);
    let (_, mut line) = room.ask().await;
    assert!(matches!(line.recv().await, Some(Order::Wait { .. })));
    room.elected.depose(2);
    let second = room.scheduler(1).await;
    room.elected.elect(3, &second);
    assert_eq!(ran(&mut line).await, 1);
    // The first has it still, and now a slot for it; what it says reaches nobody.
    report(&first, 1).await;
    assert_eq!(counts(&first).await, (0, 1));
    let (_, mut other) = room.ask().await;
    assert!(matches!(other.recv().await, Some(Order::Wait { .. })));
    assert!(line.try_recv().is_err());
}

#[tokio::test]
async fn lines_close_when_the_coordinator_goes_down() {
    let room = Room::new();
    let (_, mut line) = room.ask().await;
    room.stop.cancel();
    assert_eq!(line.recv().await, None);
}
