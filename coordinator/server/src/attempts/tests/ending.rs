//! Answers that end before their runtime has said its last word, and what the leader makes of that.

use super::*;
use crate::attempts::line::Line;
use crate::attempts::{Life, Then};
use crate::front::tests::listening;
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

/// The life of a request of a minute, with room for one event before the last.
fn narrow(front: Front) -> (Life, tokio::sync::mpsc::Receiver<Event>) {
    let cluster = Cluster { front, streams: Streams::default() };
    let request = cluster.front.next_request();
    let wish = wish(Duration::from_secs(60), Sampling::default());
    let (line, events) = Line::new(1, wish.deadline + limits::UNREAD);
    (Life { request, cluster, wish, line, running: None, journal: Vec::new() }, events)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_waited_for_until_the_deadline_and_then_hears_of_it() {
    let stop = CancellationToken::new();
    let (leader, _) = Leader::start(Clock::start(), &Arc::new(Registry::default()), stop.clone());
    let front = Front::start(ReplicaId(1), Elected::of(&leader).ways(), stop.clone());
    let (mut life, mut events) = narrow(front);
    let deadline = life.wish.deadline;
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
    assert_eq!(events.recv().await, Some(tokens(&[1])));
    assert_eq!(events.recv().await, Some(Event::Failed(Failure::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_given_in_time_is_whole_however_late_it_is_read() {
    let (front, mut listener) = listening();
    let (mut life, mut events) = narrow(front);
    assert!(matches!(life.take(frame(1, 0, &[1, 2])).await, Then::GoOn));
    let ended = tokio::time::timeout(PATIENT, life.take(last(1, 1, Finish::Stop))).await;
    assert!(matches!(ended, Ok(Then::End)));
    assert_eq!(listener.end().await.0, Outcome::Completed);
    tokio::time::sleep(PATIENT).await;
    assert_eq!(events.recv().await, Some(tokens(&[1, 2])));
    let end = events.recv().await;
    assert!(matches!(end, Some(Event::Finished { reason: FinishReason::Stop, .. })), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn the_leader_hears_how_long_a_client_has_held_up_its_attempt() {
    let (front, mut listener) = listening();
    let (mut life, mut events) = narrow(front);
    assert!(matches!(life.take(frame(1, 0, &[1])).await, Then::GoOn));
    let held = Duration::from_secs(50);
    let reading = async {
        tokio::time::sleep(held).await;
        events.recv().await
    };
    let _ = tokio::join!(life.take(frame(1, 1, &[2])), reading);
    life.take(last(1, 2, Finish::Stop)).await;
    let (outcome, usage) = listener.end().await;
    assert_eq!((outcome, usage.held), (Outcome::Completed, Span::from_s(held.as_secs())));
}
