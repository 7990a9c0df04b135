//! Whole lives of generations: the real scheduler, real QUIC, an agent played by the test.

mod ending;

use std::sync::Arc;
use std::time::Duration;

use consensus::ReplicaId;
use proto::v1::{AttemptFrame, AttemptUsage, Finish, Sampling};
use quinn::{Connection, VarInt};
use registry::Registry;
use scheduler::{Class, Measured, ModelState, Outcome, Rates, Refusal, Span};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Cluster, failure_of, outcome_of, outcome_of_code};
use crate::clock::Clock;
use crate::front::Front;
use crate::front::tests::Elected;
use crate::generation::{Event, Failure, FinishReason, Generation, StartGeneration as _, Traits, Wish};
use crate::leader::{Errands, Leader, ModelNews, NodeNews};
use crate::streams::tests::{Lab, answer, frame, take};
use crate::streams::{Link, StreamError};

struct Stage {
    lab: Lab,
    cluster: Cluster,
    leader: Leader,
    errands: Errands,
    _stop: tokio_util::sync::DropGuard,
}

impl Stage {
    fn new() -> Self {
        let (lab, stop) = (Lab::new(), CancellationToken::new());
        let (leader, errands) = Leader::start(Clock::start(), &Arc::new(Registry::default()), stop.clone());
        let front = Front::start(ReplicaId(1), Elected::of(&leader).ways(), stop.clone());
        let cluster = Cluster { front, streams: lab.streams.clone() };
        Self { lab, cluster, leader, errands, _stop: stop.drop_guard() }
    }

    async fn node(&mut self, node: u64, slots: u32) -> Connection {
        let connection = self.lab.agent(node).await;
        self.holds(node, slots).await;
        connection
    }

    async fn holds(&self, node: u64, slots: u32) {
        let rates = Rates { prefill_tokens_per_s: 1_000.0, step_ms: 10.0, batch_slope: 0.1 };
        let model = ModelNews {
            model: "m".to_owned(),
            state: ModelState::Ready,
            slots,
            kv_tokens: 0,
            prefix_tokens: 0,
            bytes: 0,
            rates,
            measured: Measured::default(),
        };
        let news = NodeNews { models: vec![model], ..NodeNews::default() };
        self.leader.reported(node, news).await;
    }

    fn wish(&self, patience: Duration) -> Generation {
        self.wish_with(patience, Sampling::default())
    }

    fn wish_with(&self, patience: Duration, sampling: Sampling) -> Generation {
        self.cluster.start(wish(patience, sampling))
    }

    /// What the leader would have written down next.
    async fn recorded(&mut self) -> registry::Command {
        let recorded = tokio::time::timeout(PATIENT / 10, self.errands.proposals.recv()).await;
        recorded.expect("in time").expect("a fact").command
    }

    async fn running(&self) -> usize {
        self.leader.view().await.running.values().sum()
    }
}

fn wish(patience: Duration, sampling: Sampling) -> Wish {
    Wish {
        journal: Vec::new(),
        model: "m".to_owned(),
        prompt: vec![1, 2, 3],
        max_tokens: 8,
        sampling,
        stop_ids: Vec::new(),
        top_logprobs: None,
        deadline: Instant::now() + patience,
        traits: Traits {
            tenant: 0,
            class: Class::Interactive,
            session: None,
            blocks: [].into(),
            fingerprint: 1,
            cache_salt: String::new(),
        },
    }
}

const PATIENT: Duration = Duration::from_secs(600);

fn last(attempt: u32, sequence: u32, finish: Finish) -> AttemptFrame {
    let usage = Some(AttemptUsage { prompt_tokens: 3, generated_tokens: 2, ..AttemptUsage::default() });
    AttemptFrame { finish: finish.into(), usage, ..frame(attempt, sequence, &[]) }
}

fn failed(attempt: u32, sequence: u32, code: &str) -> AttemptFrame {
    AttemptFrame {
        code: code.to_owned(),
        text: "words".to_owned(),
        ..last(attempt, sequence, Finish::Failed)
    }
}

fn tokens(ids: &[u32]) -> Event {
    Event::Tokens { ids: ids.to_vec(), logprobs: Vec::new() }
}

#[tokio::test]
async fn tokens_flow_to_the_end_and_the_slot_is_free_again() {
    let mut stage = Stage::new();
    let agent = stage.node(7, 1).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&agent).await;
    assert_eq!(taken.start.prompt, [1, 2, 3]);
    assert_eq!(
        generation.events.recv().await,
        Some(Event::Dispatched { node: 7, attempt: 1, affinity: Some("resident") })
    );
    answer(&mut taken.send, frame(1, 0, &[10])).await;
    answer(&mut taken.send, frame(1, 1, &[11])).await;
    answer(&mut taken.send, last(1, 2, Finish::Stop)).await;
    assert_eq!(generation.events.recv().await, Some(tokens(&[10])));
    assert_eq!(generation.events.recv().await, Some(tokens(&[11])));
    let end = generation.events.recv().await;
    assert!(matches!(end, Some(Event::Finished { reason: FinishReason::Stop, .. })), "{end:?}");
    assert_eq!(generation.events.recv().await, None);
    assert_eq!(stage.running().await, 0);
}

#[tokio::test]
async fn a_node_that_fails_before_the_first_token_costs_the_client_nothing() {
    let mut stage = Stage::new();
    let first = stage.node(1, 4).await;
    let second = stage.node(2, 4).await;
    let mut generation = stage.wish(PATIENT);
    let Some(Event::Dispatched { node, .. }) = generation.events.recv().await else {
        panic!("not dispatched")
    };
    let (dying, other) = if node == 1 { (first, second) } else { (second, first) };
    let mut taken = take(&dying).await;
    taken.send.reset(VarInt::from_u32(9)).expect("reset");
    let mut taken = take(&other).await;
    assert_eq!(taken.start.attempt, 2);
    answer(&mut taken.send, frame(2, 0, &[5])).await;
    assert_eq!(
        generation.events.recv().await,
        Some(Event::Dispatched { node: 3 - node, attempt: 2, affinity: Some("resident") })
    );
    assert_eq!(generation.events.recv().await, Some(tokens(&[5])));
}

/// The node that an attempt went to, past what is said of the wait for it.
async fn dispatched(generation: &mut Generation) -> u64 {
    loop {
        match generation.events.recv().await {
            Some(Event::Queued { .. }) => {}
            Some(Event::Dispatched { node, .. }) => return node,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_goes_on_elsewhere_behind_what_the_client_has() {
    let mut stage = Stage::new();
    let agents = [stage.node(1, 4).await, stage.node(2, 4).await];
    let mut generation = stage.wish_with(PATIENT, Sampling { temperature: 0.7, ..Sampling::default() });
    let first = dispatched(&mut generation).await;
    let (dying, other) = if first == 1 { (&agents[0], &agents[1]) } else { (&agents[1], &agents[0]) };
    let mut taken = take(dying).await;
    answer(&mut taken.send, frame(1, 0, &[5, 6])).await;
    assert_eq!(generation.events.recv().await, Some(tokens(&[5, 6])));
    taken.send.reset(VarInt::from_u32(9)).expect("reset");
    assert_eq!(dispatched(&mut generation).await, 3 - first);
    let mut resumed = take(other).await;
    let start = &resumed.start;
    assert_eq!((start.attempt, start.prompt.as_slice(), start.generated), (2, &[1, 2, 3, 5, 6][..], 2));
    assert_eq!(start.max_tokens, 6, "of eight");
    // The draws go on as they would have.
    let seed = |start: &proto::v1::AttemptStart| start.sampling.as_ref().and_then(|sampling| sampling.seed);
    assert!(seed(start).is_some() && seed(start) == seed(&taken.start));
    answer(&mut resumed.send, frame(2, 0, &[7])).await;
    answer(&mut resumed.send, last(2, 1, Finish::Stop)).await;
    assert_eq!(generation.events.recv().await, Some(tokens(&[7])));
    match generation.events.recv().await {
        Some(Event::Finished { reason: FinishReason::Stop, usage }) => assert_eq!(usage.generated_tokens, 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(generation.events.recv().await, None);
    assert_eq!(stage.running().await, 0);
}

#[tokio::test]
async fn a_runtime_that_counts_wrongly_is_not_believed() {
    for (told, counted) in [(0, 2), (2, 2), (3, 3), (9, 3)] {
        let mut stage = Stage::new();
        let agent = stage.node(1, 4).await;
        let mut generation = stage.wish(PATIENT);
        let mut taken = take(&agent).await;
        answer(&mut taken.send, frame(1, 0, &[5, 6])).await;
        let usage = Some(AttemptUsage { generated_tokens: told, ..AttemptUsage::default() });
        answer(&mut taken.send, AttemptFrame { usage, ..last(1, 1, Finish::Stop) }).await;
        assert_eq!(dispatched(&mut generation).await, 1);
        assert!(matches!(generation.events.recv().await, Some(Event::Tokens { .. })));
        match generation.events.recv().await {
            Some(Event::Finished { usage, .. }) => assert_eq!(usage.generated_tokens, counted, "told {told}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_wants_only_its_last_word_is_whole() {
    let mut stage = Stage::new();
    let agent = stage.node(1, 4).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&agent).await;
    answer(&mut taken.send, frame(1, 0, &[1, 2, 3, 4, 5, 6, 7, 8])).await;
    assert_eq!(dispatched(&mut generation).await, 1);
    assert!(matches!(generation.events.recv().await, Some(Event::Tokens { .. })));
    taken.send.reset(VarInt::from_u32(9)).expect("reset");
    match generation.events.recv().await {
        Some(Event::Finished { reason: FinishReason::Length, usage }) => {
            assert_eq!(usage.generated_tokens, 8)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.running().await, 0);
}

#[tokio::test]
async fn an_answer_that_breaks_on_four_nodes_is_given_up_and_never_looks_whole() {
    let mut stage = Stage::new();
    let mut agents = Vec::new();
    for node in 1..=5 {
        agents.push(stage.node(node, 1).await);
    }
    let mut generation = stage.wish(PATIENT);
    let mut nodes = Vec::new();
    for attempt in 1..=4 {
        let node = dispatched(&mut generation).await;
        let agent = agents.get(usize::try_from(node - 1).expect("small")).expect("one of five");
        let mut taken = take(agent).await;
        answer(&mut taken.send, frame(attempt, 0, &[attempt])).await;
        assert_eq!(generation.events.recv().await, Some(tokens(&[attempt])));
        taken.send.reset(VarInt::from_u32(9)).expect("reset");
        nodes.push(node);
    }
    assert_eq!(generation.events.recv().await, Some(Event::Failed(Failure::NodeLost { began: true })));
    assert_eq!(generation.events.recv().await, None);
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 4, "never the same node twice");
    assert_eq!(stage.running().await, 0);
}

#[tokio::test]
async fn a_hang_up_stops_the_agent_and_frees_the_slot_for_the_next() {
    let mut stage = Stage::new();
    let agent = stage.node(1, 1).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&agent).await;
    answer(&mut taken.send, frame(1, 0, &[5])).await;
    assert!(matches!(generation.events.recv().await, Some(Event::Dispatched { .. })));
    drop(generation);
    taken.send.stopped().await.expect("told to stop");
    let mut next = stage.wish(PATIENT);
    // The slot may still be taken for a moment; what matters is that nobody has to do anything for it.
    loop {
        match next.events.recv().await {
            Some(Event::Queued { .. }) => {}
            Some(Event::Dispatched { node: 1, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_request_that_the_runtime_refuses_is_not_tried_elsewhere() {
    let mut stage = Stage::new();
    let agent = stage.node(1, 4).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&agent).await;
    answer(&mut taken.send, failed(1, 0, "invalid_request")).await;
    assert!(matches!(generation.events.recv().await, Some(Event::Dispatched { .. })));
    let end = generation.events.recv().await;
    assert!(
        matches!(&end, Some(Event::Failed(Failure::Rejected { code, .. })) if code == "invalid_request"),
        "{end:?}"
    );
    assert_eq!(generation.events.recv().await, None);
}

#[tokio::test]
async fn a_wish_for_a_model_that_nobody_holds_waits_and_runs_when_a_node_comes() {
    let mut stage = Stage::new();
    let mut generation = stage.wish(PATIENT);
    assert!(matches!(generation.events.recv().await, Some(Event::Queued { ahead: 0, .. })));
    let agent = stage.node(1, 1).await;
    let _taken = take(&agent).await;
    assert_eq!(
        generation.events.recv().await,
        Some(Event::Dispatched { node: 1, attempt: 1, affinity: Some("resident") })
    );
}

#[tokio::test]
async fn a_deadline_ends_a_wish_that_nobody_can_serve() {
    let stage = Stage::new();
    let mut generation = stage.wish(Duration::from_millis(50));
    assert!(matches!(generation.events.recv().await, Some(Event::Queued { .. })));
    assert_eq!(generation.events.recv().await, Some(Event::Failed(Failure::DeadlineExceeded)));
}

#[tokio::test]
async fn a_lost_node_gives_back_what_had_not_begun() {
    let mut stage = Stage::new();
    let first = stage.node(1, 1).await;
    let mut generation = stage.wish(PATIENT);
    let _taken = take(&first).await;
    assert_eq!(
        generation.events.recv().await,
        Some(Event::Dispatched { node: 1, attempt: 1, affinity: Some("resident") })
    );
    first.close(VarInt::from_u32(0), b"gone");
    assert_eq!(stage.lab.links.recv().await, Some(Link::Down { node: 1 }));
    stage.leader.node_lost(1).await;
    let second = stage.node(2, 1).await;
    let _taken = take(&second).await;
    loop {
        match generation.events.recv().await {
            Some(Event::Queued { .. }) => {}
            Some(Event::Dispatched { node: 2, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_that_is_lost_behind_the_last_token_has_ended_the_answer() {
    let mut stage = Stage::new();
    let first = stage.node(1, 4).await;
    let _second = stage.node(2, 1).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&first).await;
    answer(&mut taken.send, frame(1, 0, &[1, 2, 3, 4, 5, 6, 7, 8])).await;
    assert_eq!(dispatched(&mut generation).await, 1);
    assert!(matches!(generation.events.recv().await, Some(Event::Tokens { .. })));
    // Before the gateway tells of it, so that the leader orders another attempt.
    stage.leader.node_lost(1).await;
    first.close(VarInt::from_u32(0), b"gone");
    match generation.events.recv().await {
        Some(Event::Finished { reason: FinishReason::Length, usage }) => {
            assert_eq!(usage.generated_tokens, 8)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_way_that_only_this_gateway_lost_moves_the_answer() {
    let mut stage = Stage::new();
    let first = stage.node(1, 4).await;
    let mut generation = stage.wish(PATIENT);
    let mut taken = take(&first).await;
    answer(&mut taken.send, frame(1, 0, &[1, 2])).await;
    assert_eq!(dispatched(&mut generation).await, 1);
    assert_eq!(generation.events.recv().await, Some(tokens(&[1, 2])));
    let second = stage.node(2, 1).await;
    first.close(VarInt::from_u32(0), b"gone");
    let taken = take(&second).await;
    assert_eq!((taken.start.attempt, taken.start.generated), (2, 2));
    assert_eq!(dispatched(&mut generation).await, 2);
}

#[tokio::test]
async fn a_coordinator_that_goes_down_says_so_to_whoever_waits() {
    let stage = Stage::new();
    let mut generation = stage.wish(PATIENT);
    assert!(matches!(generation.events.recv().await, Some(Event::Queued { .. })));
    drop(stage._stop);
    assert_eq!(generation.events.recv().await, Some(Event::Failed(Failure::ShuttingDown)));
}

#[test]
fn each_end_of_an_attempt_says_of_the_runtime_what_its_code_means() {
    use scheduler::Failure::{Corrupt, Hang, Internal, Reset, RuntimeExit};
    for (code, outcome) in [
        ("busy", Outcome::Busy),
        ("not_loaded", Outcome::NotThere),
        ("runtime_lost", Outcome::Failed(RuntimeExit)),
        ("runtime_hung", Outcome::Failed(Hang)),
        ("runtime_garbled", Outcome::Failed(Corrupt)),
        ("internal", Outcome::Failed(Internal)),
        ("of a later version", Outcome::Failed(Internal)),
    ] {
        assert_eq!(outcome_of_code(code), outcome, "{code}");
    }
    for (error, failure) in [
        (StreamError::Timeout, Reset),
        (StreamError::Broken("b".to_owned()), Reset),
        (StreamError::Garbled("g".to_owned()), Corrupt),
    ] {
        assert_eq!(outcome_of(&error), Outcome::Failed(failure));
    }
    assert_eq!(outcome_of(&StreamError::NotConnected), Outcome::NotThere);
}

#[test]
fn each_refusal_of_the_scheduler_is_a_failure_that_the_client_can_act_upon() {
    let second = Duration::from_secs(1);
    let span = Span::from_s(1);
    let no_capacity = Failure::NoCapacity {
        words: "The model 'm' cannot be loaded: it is too large.".to_owned(),
        retry_after: None,
    };
    for (refusal, failure) in [
        (Refusal::QueueFull { retry_after: span }, Failure::QueueFull { retry_after: second }),
        (Refusal::Shed { retry_after: span }, Failure::Overloaded { retry_after: second }),
        (Refusal::DeadlineUnreachable { needed: span }, Failure::DeadlineUnreachable { needed: second }),
        (Refusal::Expired, Failure::DeadlineExceeded),
        (Refusal::NodeLost, Failure::NodeLost { began: true }),
        (Refusal::Quarantined, Failure::Quarantined),
        (Refusal::NoCapacity(scheduler::WhyNot::NotOffered), no_capacity),
    ] {
        assert_eq!(failure_of(refusal, "m", "it is too large", true), failure);
    }
}
