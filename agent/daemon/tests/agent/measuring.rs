//! What reports say of the speed of a model.

use daemon::Notice;
use proto::v1::StepSample;

use crate::coordinator::{Coordinator, Plan};
use crate::room::{DEMO, Stage, demo};
use crate::runtime::Runtime;

/// The samples of one width as one.
fn joined(samples: &[StepSample], batch: f32) -> StepSample {
    let mine = samples.iter().filter(|sample| sample.batch.to_bits() == batch.to_bits());
    mine.fold(StepSample { batch, ..StepSample::default() }, |sum, sample| StepSample {
        steps: sum.steps + sample.steps,
        batch,
        kv_tokens: sample.kv_tokens,
        seconds: sum.seconds + sample.seconds,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_told_once_by_its_width_and_prefill_is_left_out() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, _connection) = stage.serving().await;
    for _ in 0..20 {
        runtime.measured((0.5, 256), (0.25, 1, 100)).await;
        runtime.measured((0.0, 0), (0.5, 3, 700)).await;
        runtime.measured((0.5, 256), (0.0, 0, 0)).await;
    }
    let samples = coordinator.until_steps(DEMO, 40).await;
    let sample = |steps, batch, kv_tokens, seconds| StepSample { steps, batch, kv_tokens, seconds };
    assert_eq!(joined(&samples, 1.0), sample(20, 1.0, 100.0, 5.0));
    assert_eq!(joined(&samples, 3.0), sample(20, 3.0, 700.0, 10.0));
    assert_eq!(samples.iter().map(|sample| sample.steps).sum::<u32>(), 40);

    runtime.measured((0.0, 0), (0.125, 2, 9)).await;
    let samples = coordinator.until_steps(DEMO, 41).await;
    assert_eq!(samples.last(), Some(&sample(1, 2.0, 9.0, 0.125)), "what was told is not told again");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_without_a_session_are_told_in_the_next_one() {
    let stage = Stage::new();
    let (coordinator, mut agent, mut runtime, connection) = stage.serving().await;
    let plan = Plan {
        grpc_port: coordinator.grpc.port(),
        quic_port: coordinator.quic.port(),
        wanted: vec![demo()],
        ..Plan::default()
    };
    coordinator.kill().await;
    drop(connection);
    agent.notice("it is noticed", |notice| matches!(notice, Notice::CoordinatorLost { .. })).await;
    for step in 0..100 {
        runtime.measured((0.0, 0), (0.25, 1 + step % 2, 10)).await;
    }
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let samples = coordinator.until_steps(DEMO, 100).await;
    assert_eq!((joined(&samples, 1.0).steps, joined(&samples, 2.0).steps), (50, 50));
    assert_eq!(samples.iter().map(|sample| sample.steps).sum::<u32>(), 100);
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_load_belongs_to_one_process() {
    let stage = Stage::new();
    let (mut coordinator, agent, runtime, _connection) = stage.serving().await;
    let report = coordinator.report("a load", |report| report.models[0].load_ms > 0).await;
    let first = &report.models[0];
    let later = coordinator.report("another", |later| later.sequence > report.sequence).await;
    assert_eq!(later.models[0].load_ms, first.load_ms, "told with every report");
    runtime.kill();
    let mut second = Runtime::started(&stage.runtimes).await;
    let starting = coordinator
        .report("another process", |report| report.models[0].incarnation > first.incarnation)
        .await;
    assert_eq!(starting.models[0].load_ms, 0, "it has not loaded yet");
    second.hello(1).await;
    second.load().await;
    coordinator.report("its own load", |report| report.models[0].load_ms > 0).await;
    agent.leave([second]).await;
}
