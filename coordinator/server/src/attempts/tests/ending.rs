//! Answers that end before their runtime has said its last word, and what the leader makes of that.

use tokio::sync::mpsc;

use super::*;
use crate::attempts::{Life, Then};
use crate::leader::NewRequest;
use crate::limits;
use crate::streams::Streams;
use crate::streams::tests::Taken;

/// A request that was at the death of a runtime, and runs on another.
async fn suspected(stage: &mut Stage) -> (Generation, Taken) {
    let agents = [stage.node(1, 4).await, stage.node(2, 4).await];
    let mut generation = stage.wish(PATIENT);
    let first = dispatched(&mut generation).await;
    let (dying, other) = if first == 1 { (&agents[0], &agents[1]) } else { (&agents[1], &agents[0]) };
    let mut taken = take(dying).await;
    answer(&mut taken.send, failed(1, 0, "runtime_lost")).await;
    let charge = stage.recorded().await;
    assert!(matches!(charge, registry::Command::ChargeDeath { .. }), "{charge:?}");
    let taken = take(other).await;
    assert_eq!(dispatched(&mut generation).await, 3 - first);
    (generation, taken)
}

#[tokio::test]
async fn an_answer_that_suffices_is_one_that_succeeded() {
    let mut stage = Stage::new();
    let (mut generation, mut taken) = suspected(&mut stage).await;
    answer(&mut taken.send, frame(2, 0, &[5, 6])).await;
    assert_eq!(generation.events.recv().await, Some(tokens(&[5, 6])));
    generation.suffices();
    taken.send.stopped().await.expect("told to stop");
    let pardon = stage.recorded().await;
    assert!(matches!(pardon, registry::Command::PardonRequest { .. }), "{pardon:?}");
    assert_eq!(stage.running().await, 0);
}

#[tokio::test]
async fn neither_a_hang_up_nor_an_attempt_without_a_token_is_a_success() {
    for begun in [true, false] {
        let mut stage = Stage::new();
        let (mut generation, mut taken) = suspected(&mut stage).await;
        if begun {
            answer(&mut taken.send, frame(2, 0, &[5])).await;
            assert_eq!(generation.events.recv().await, Some(tokens(&[5])));
            drop(generation);
        } else {
            generation.suffices();
        }
        taken.send.stopped().await.expect("told to stop");
        while stage.running().await > 0 {
            tokio::task::yield_now().await;
        }
        assert!(stage.errands.proposals.try_recv().is_err(), "begun: {begun}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_waited_for_until_the_deadline() {
    let stop = CancellationToken::new();
    let (leader, _) = Leader::start(Clock::start(), &Arc::new(Registry::default()), stop.clone());
    let front = Front::start(ReplicaId(1), Elected::of(&leader).ways(), stop.clone());
    let cluster = Cluster { front, streams: Streams::default() };
    let (events, _unread) = mpsc::channel(1);
    let request = cluster.front.next_request();
    let wish = wish(Duration::from_secs(60), Sampling::default());
    let (deadline, journal) = (wish.deadline, Vec::new());
    let mut life = Life { request, cluster, wish, events, running: None, journal };
    // The leader has heard of a later one.
    let new = NewRequest { deadline: deadline + PATIENT, ..life.new_request() };
    let _orders = life.cluster.front.submit(new).await;
    let waiting = async || leader.view().await.waiting.values().sum::<usize>();
    assert!(matches!(life.emit(tokens(&[1])).await, Then::GoOn));
    let ended = tokio::time::timeout(PATIENT, life.emit(tokens(&[2]))).await;
    assert!(matches!(ended, Ok(Then::End)), "nobody waits for it any more");
    assert_eq!(deadline.elapsed(), limits::UNREAD);
    while waiting().await > 0 {
        tokio::task::yield_now().await;
    }
}
