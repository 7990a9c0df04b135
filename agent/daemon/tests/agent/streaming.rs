//! Attempts: order, hanging up, back-pressure, refusals.

use proto::v1::{AttemptStart, AttemptUsage, Finish};

use crate::coordinator::{ask, ask_raw};
use crate::room::{DEMO, Stage, request};
use crate::runtime::{map, value};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_arrive_in_order_with_sequences_from_zero_and_a_true_end() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 5)).await;
    let frame = runtime.heard("generate").await;
    let row = frame[1].as_u64().expect("a row");
    assert_eq!(value(&frame[2], "ids").map(ToString::to_string).as_deref(), Some("[10, 11, 12]"));
    let mut got = Vec::new();
    for id in 100..110 {
        runtime.step(row, &[id], None).await;
        let frame = asked.next().await.expect("no reset").expect("a frame");
        assert_eq!((frame.attempt, frame.sequence, frame.finish()), (5, id - 100, Finish::Unspecified));
        got.extend(frame.ids);
    }
    let extra = map(vec![
        ("generated", 11.into()),
        ("prompt_tokens", 3.into()),
        ("cached_tokens", 1.into()),
        ("prefill_s", 0.25.into()),
    ]);
    runtime.step_with(row, &[110], Some("stop"), extra).await;
    let last = asked.next().await.expect("no reset").expect("a frame");
    got.extend(last.ids.clone());
    assert_eq!(got, (100..=110).collect::<Vec<_>>());
    assert_eq!((last.sequence, last.finish()), (10, Finish::Stop));
    let usage = AttemptUsage { prompt_tokens: 3, cached_tokens: 1, generated_tokens: 11, prefill_ms: 250 };
    assert_eq!(last.usage, Some(usage));
    assert_eq!(asked.next().await.expect("no reset"), None);
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_salt_and_a_chunk_reach_the_runtime_and_their_absence_too() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let start = AttemptStart { cache_salt: "tenant".to_owned(), prefill_chunk: 2_048, ..request(DEMO, 1) };
    let mut salted = ask(&connection, &start).await;
    let frame = runtime.heard("generate").await;
    assert_eq!(value(&frame[2], "cache_salt").and_then(|salt| salt.as_str()), Some("tenant"));
    assert_eq!(value(&frame[2], "prefill_chunk").and_then(|chunk| chunk.as_u64()), Some(2_048));
    let row = frame[1].as_u64().expect("a row");
    // A prompt that is read at 100 tokens a second.
    runtime.measured((10.0, 1_000), (0.0, 0, 0)).await;
    runtime.step(row, &[1], Some("stop")).await;
    salted.rest().await;

    let _slow = ask(&connection, &start).await;
    let frame = runtime.heard("generate").await;
    assert_eq!(
        value(&frame[2], "prefill_chunk").and_then(|chunk| chunk.as_u64()),
        Some(300),
        "three seconds"
    );
    let _bare = ask(&connection, &request(DEMO, 1)).await;
    let frame = runtime.heard("generate").await;
    assert_eq!((value(&frame[2], "cache_salt"), value(&frame[2], "prefill_chunk")), (None, None));
    connection.close(0u32.into(), b"done");
    runtime.heard("cancel").await;
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_its_row_and_its_slot_is_free_again() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[7], None).await;
    asked.next().await.expect("no reset").expect("a frame");
    asked.hang_up();
    let cancel = runtime.heard("cancel").await;
    assert_eq!(cancel[1][0].as_u64(), Some(row));
    coordinator.report("the row still holds its slot", |report| report.attempts_running == 1).await;
    runtime.step(row, &[], Some("cancelled")).await;
    coordinator.report("the slot is free", |report| report.attempts_running == 0).await;
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_a_client_that_hung_up_serves_the_next_without_waiting_for_the_runtime() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut leaving = ask(&connection, &request(DEMO, 1)).await;
    let first = runtime.asked().await;
    let _staying = ask(&connection, &request(DEMO, 1)).await;
    runtime.asked().await;
    leaving.hang_up();
    assert_eq!(runtime.heard("cancel").await[1][0].as_u64(), Some(first));
    let mut next = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(first, &[], Some("cancelled")).await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(next.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_cancels_every_row_it_carried() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let _one = ask(&connection, &request(DEMO, 1)).await;
    let first = runtime.asked().await;
    let _two = ask(&connection, &request(DEMO, 1)).await;
    let second = runtime.asked().await;
    connection.close(0u32.into(), b"gone");
    let mut cancelled = Vec::new();
    for _ in 0..2 {
        cancelled.push(runtime.heard("cancel").await[1][0].as_u64().expect("a row"));
    }
    cancelled.sort_unstable();
    assert_eq!(cancelled, [first, second]);
    for row in cancelled {
        runtime.step(row, &[], Some("cancelled")).await;
    }
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    const STEPS: u32 = 20_000;
    const IDS_PER_STEP: u32 = 40;
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut slow = ask(&connection, &request(DEMO, 1)).await;
    let slow_row = runtime.asked().await;
    let mut quick = ask(&connection, &request(DEMO, 1)).await;
    let quick_row = runtime.asked().await;
    // Several megabytes more than QUIC's window takes, so that most of it has to wait in the agent.
    for step in 0..STEPS {
        let ids: Vec<u32> = (0..IDS_PER_STEP).map(|at| 1_000_000 + step * IDS_PER_STEP + at).collect();
        runtime.step(slow_row, &ids, None).await;
    }
    runtime.step(quick_row, &[1], Some("length")).await;
    let frames = quick.rest().await;
    assert_eq!(
        frames.last().map(|frame| (frame.ids.clone(), frame.finish())),
        Some((vec![1], Finish::Length))
    );

    runtime.step(slow_row, &[], Some("length")).await;
    let frames = slow.rest().await;
    assert!(frames.iter().enumerate().all(|(at, frame)| usize::try_from(frame.sequence) == Ok(at)));
    let ids: Vec<u32> = frames.into_iter().flat_map(|frame| frame.ids).collect();
    assert_eq!(ids.len(), usize::try_from(STEPS * IDS_PER_STEP).expect("fits"));
    assert!(ids.iter().zip(1_000_000..).all(|(got, expected)| *got == expected));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_here_is_refused_with_a_code() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let refused = ask(&connection, &request("no-such-model", 3)).await.rest().await;
    assert_eq!((refused[0].attempt, refused[0].finish()), (3, Finish::Failed));
    assert_eq!(refused[0].code, daemon::codes::NOT_LOADED);

    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(ask(&connection, &request(DEMO, 1)).await);
        runtime.asked().await;
    }
    let refused = ask(&connection, &request(DEMO, 1)).await.rest().await;
    assert_eq!((refused.len(), refused[0].finish(), refused[0].code.as_str()), (1, Finish::Failed, "busy"));
    connection.close(0u32.into(), b"done");
    runtime.heard("cancel").await;
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_row_carries_the_runtimes_own_code() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    let extra = map(vec![("code", "context_length_exceeded".into()), ("text", "too long".into())]);
    runtime.step_with(row, &[], Some("error"), extra).await;
    let frames = asked.rest().await;
    assert_eq!((frames.len(), frames[0].finish(), frames[0].sequence), (1, Finish::Failed, 0));
    assert_eq!((frames[0].code.as_str(), frames[0].text.as_str()), ("context_length_exceeded", "too long"));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_request_ends_its_stream_and_no_other() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    for garbage in [vec![0xff; 40], vec![3, 0xff, 0xff, 0xff], vec![], vec![9, 1]] {
        let reset = ask_raw(&connection, &garbage).await.next().await.expect_err("a reset");
        assert_eq!(reset, quinn::ReadError::Reset(daemon::codes::RESET_BAD_START), "{garbage:?}");
    }
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(asked.rest().await.len(), 1);
    agent.leave([runtime]).await;
}
