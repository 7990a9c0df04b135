//! The leader loop with the real scheduler: what goes in as a message, and what comes out as an order or an errand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry::Command;
use scheduler::Class;

use super::proposals::{Answer, Proposal};
use super::*;
use crate::wire::tests::founded;

const MIB: u64 = 1 << 20;

struct Room {
    leader: Leader,
    errands: Errands,
    asked: AtomicU64,
    _stop: tokio_util::sync::DropGuard,
}

impl Room {
    fn with(registry: Registry) -> Self {
        let stop = CancellationToken::new();
        let (leader, errands) = Leader::start(Clock::start(), &Arc::new(registry), stop.clone());
        Self { leader, errands, asked: AtomicU64::new(1), _stop: stop.drop_guard() }
    }

    async fn reports(&self, node: u64, state: ModelState) {
        let news = NodeNews { name: "mini".to_owned(), budget_bytes: 100 * MIB, ..news(vec![model(state)]) };
        self.leader.reported(node, news).await;
    }

    async fn asks(&self, fingerprint: u64) -> (RequestId, mpsc::Receiver<Order>) {
        let new = self.request(fingerprint);
        (new.request, self.leader.submit(new).await)
    }

    fn request(&self, fingerprint: u64) -> NewRequest {
        let request = RequestId(self.asked.fetch_add(1, Ordering::Relaxed));
        let traits = Traits {
            tenant: 7,
            class: Class::Interactive,
            session: None,
            blocks: [].into(),
            fingerprint,
            cache_salt: String::new(),
        };
        NewRequest {
            request,
            model: "m".to_owned(),
            prompt_tokens: 10,
            max_tokens: 10,
            arrived: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(60),
            traits,
        }
    }

    async fn proposal(&mut self) -> Proposal {
        self.errands.proposals.recv().await.expect("a proposal")
    }
}

fn news(models: Vec<ModelNews>) -> NodeNews {
    NodeNews { models, ..NodeNews::default() }
}

fn model(state: ModelState) -> ModelNews {
    ModelNews {
        model: "m".to_owned(),
        state,
        slots: 2,
        kv_tokens: 0,
        prefix_tokens: 0,
        bytes: 60 * MIB,
        rates: Rates::default(),
        measured: Measured::default(),
    }
}

fn name() -> ModelName {
    ModelName::new("m").expect("a name")
}

fn place(node: u64) -> Command {
    Command::PlaceModel { node: registry::NodeId(node), model: name(), bytes: 60 * MIB }
}

#[tokio::test]
async fn a_request_has_its_model_reserved_and_runs_when_it_is_there() {
    let mut room = Room::with(Registry::default());
    room.reports(1, ModelState::Offered).await;
    let (_, mut orders) = room.asks(1).await;
    let waits = orders.recv().await;
    assert!(matches!(waits, Some(Order::Wait { ahead: 0, loading: true, .. })), "{waits:?}");
    let Proposal { command, answer: Answer::Reservation(reservation) } = room.proposal().await else {
        panic!("nobody waits for the answer")
    };
    assert_eq!(command, place(1));
    room.leader.reserved(reservation, true).await;
    room.reports(1, ModelState::Ready).await;
    let run = orders.recv().await;
    assert!(matches!(run, Some(Order::Run { attempt: 1, node: 1, affinity: "resident", .. })), "{run:?}");
}

#[tokio::test]
async fn what_an_agent_was_started_with_is_reserved_without_a_request() {
    let mut room = Room::with(Registry::default());
    let preload = vec![(name(), 60 * MIB)];
    let news = NodeNews { budget_bytes: 100 * MIB, preload, ..news(vec![model(ModelState::Offered)]) };
    room.leader.reported(1, news).await;
    let answer = Answer::Home { node: 1, model: name(), bytes: 60 * MIB };
    assert_eq!(room.proposal().await, Proposal { command: place(1), answer });
}

#[tokio::test]
async fn a_death_is_written_down_with_the_place_where_it_happened() {
    let mut room = Room::with(Registry::default());
    room.reports(5, ModelState::Ready).await;
    let (request, mut orders) = room.asks(0xbad).await;
    assert!(matches!(orders.recv().await, Some(Order::Run { node: 5, .. })));
    let died = Outcome::Failed(scheduler::Failure::RuntimeExit);
    room.leader.finished(request, 1, died, Usage::default()).await;
    let charge = room.proposal().await.command;
    let Command::ChargeDeath { fingerprint, node, .. } = charge else { panic!("{charge:?}") };
    assert_eq!((fingerprint, node), (registry::Fingerprint(0xbad), registry::NodeId(5)));
}

#[tokio::test]
async fn a_death_of_what_was_taken_over_is_written_down_too() {
    for report_first in [false, true] {
        let mut room = Room::with(Registry::default());
        let (past, died) = (
            Past { attempts: 1, running: Some((5, true)) },
            Outcome::Failed(scheduler::Failure::RuntimeExit),
        );
        room.reports(5, ModelState::Ready).await;
        let new = room.request(0xbad);
        let request = new.request;
        let _orders = room.leader.adopt(new, past).await;
        if report_first {
            room.reports(5, ModelState::Loading { left: None }).await;
        }
        room.leader.finished(request, 1, died, Usage::default()).await;
        let charge = room.proposal().await.command;
        let Command::ChargeDeath { fingerprint, node, .. } = charge else { panic!("{charge:?}") };
        assert_eq!((fingerprint, node), (registry::Fingerprint(0xbad), registry::NodeId(5)));
    }
}

#[tokio::test]
async fn the_line_of_a_request_ends_with_its_answer() {
    for outcome in [Outcome::Completed, Outcome::Enough, Outcome::ClientGone, Outcome::Rejected] {
        let room = Room::with(Registry::default());
        room.reports(5, ModelState::Ready).await;
        let (request, mut orders) = room.asks(1).await;
        assert!(matches!(orders.recv().await, Some(Order::Run { node: 5, .. })));
        room.leader.finished(request, 1, outcome, Usage::default()).await;
        let said = tokio::time::timeout(Duration::from_secs(60), orders.recv()).await;
        assert!(matches!(said, Ok(None)), "{outcome:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_report_that_overtakes_the_end_of_an_attempt_saves_nobody_from_the_charge() {
    let mut room = Room::with(Registry::default());
    room.reports(5, ModelState::Ready).await;
    let (request, mut orders) = room.asks(0xbad).await;
    assert!(matches!(orders.recv().await, Some(Order::Run { node: 5, .. })));
    room.reports(5, ModelState::Loading { left: None }).await;
    let died = Outcome::Failed(scheduler::Failure::RuntimeExit);
    room.leader.finished(request, 1, died, Usage::default()).await;
    let charge = room.proposal().await.command;
    assert!(matches!(charge, Command::ChargeDeath { .. }), "{charge:?}");
}

#[tokio::test]
async fn a_quarantine_of_an_earlier_leader_holds() {
    let (mut registry, node) = founded();
    let (fingerprint, now) = (registry::Fingerprint(0xbad), crate::clock::unix_ms());
    registry.apply(&Command::ChargeDeath { fingerprint, node, at_unix_ms: now });
    let until_unix_ms = now + 100_000;
    registry.apply(&Command::QuarantineRequest { fingerprint, at_unix_ms: now, until_unix_ms });
    let room = Room::with(registry);
    room.reports(node.0, ModelState::Ready).await;
    let (_, mut orders) = room.asks(0xbad).await;
    let refused = orders.recv().await;
    assert!(
        matches!(&refused, Some(Order::Refused { refusal: scheduler::Refusal::Quarantined, .. })),
        "{refused:?}"
    );
    let (_, mut orders) = room.asks(0xf00d).await;
    assert!(matches!(orders.recv().await, Some(Order::Run { .. })));
}

#[tokio::test]
async fn a_draining_node_gets_nothing_that_another_could_do() {
    let (mut registry, node) = founded();
    let room = Room::with(registry.clone());
    room.reports(node.0, ModelState::Ready).await;
    registry.apply(&Command::DrainNode { node, draining: true });
    room.leader.registry(Arc::new(registry.clone())).await;
    let (_, mut orders) = room.asks(1).await;
    assert!(
        matches!(orders.recv().await, Some(Order::Run { node: to, .. }) if to == node.0),
        "nobody else could"
    );
    let other = node.0 + 1;
    room.reports(other, ModelState::Ready).await;
    for request in [2, 3] {
        let (_, mut orders) = room.asks(request).await;
        let order = orders.recv().await;
        assert!(!matches!(&order, Some(Order::Run { node: to, .. }) if *to == node.0), "{order:?}");
    }
}

#[tokio::test]
async fn whoever_waits_is_on_the_page_and_is_explained() {
    let room = Room::with(Registry::default());
    let (request, mut orders) = room.asks(1).await;
    assert!(matches!(orders.recv().await, Some(Order::Wait { .. })));
    let view = room.leader.view().await;
    let [waiter] = &view.line[..] else { panic!("{:?}", view.line) };
    assert_eq!((waiter.request, waiter.model.as_str(), waiter.position), (request.0, "m", 1));
    assert_eq!((waiter.class.as_str(), waiter.loading, waiter.tenant), ("interactive", true, 7));
    let words = room.leader.explain(Subject::Request(request.0)).await.expect("known");
    assert!(words.contains("for m waits: 0 before it"), "{words}");
    assert_eq!(room.leader.explain(Subject::Request(99)).await, None);
    let words = room.leader.explain(Subject::Model("m".to_owned())).await.expect("known");
    assert!(words.starts_with("m: 1 waiting"), "{words}");
}
