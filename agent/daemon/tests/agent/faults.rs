//! What breaks, and what does not break with it.

use daemon::Notice;
use proto::v1::{AgentReport, Finish, ModelState};

use crate::coordinator::{Coordinator, Plan, ask};
use crate::room::{DEMO, OTHER, Stage, demo, other, request, soon};
use crate::runtime::Runtime;

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_dies_ends_its_streams_as_lost_and_is_started_again() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[7], None).await;
    let first = asked.next().await.expect("no reset").expect("a frame");
    assert_eq!((first.ids.as_slice(), first.finish()), ([7].as_slice(), Finish::Unspecified));
    runtime.kill();
    let last = asked.rest().await.pop().expect("a last frame");
    assert_eq!((last.finish(), last.code.as_str()), (Finish::Failed, daemon::codes::RUNTIME_LOST));
    let waiting = coordinator.until_state(DEMO, ModelState::Waiting).await;
    assert!(waiting.models[0].reason.contains("signal 9"), "{waiting:?}");

    let mut next = Runtime::ready(&stage.runtimes).await;
    let ready = coordinator.until_state(DEMO, ModelState::Ready).await;
    assert_eq!((ready.models[0].restarts, ready.models[0].pid), (1, next.pid));
    let mut asked = ask(&connection, &request(DEMO, 2)).await;
    let row = next.asked().await;
    next.step(row, &[8], Some("stop")).await;
    assert_eq!(asked.rest().await.last().map(Frame::of), Some(Frame(vec![8], Finish::Stop)));
    agent.leave([next]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_tokens_of_a_runtime_that_dies_are_still_delivered() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    for id in 0..50 {
        runtime.step(row, &[id], None).await;
    }
    // The far end closes after everything was written: the process copies it all and ends.
    drop(runtime);
    let frames = asked.rest().await;
    let ids: Vec<u32> = frames.iter().flat_map(|frame| frame.ids.clone()).collect();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert_eq!(frames.last().map(|frame| frame.code.as_str()), Some(daemon::codes::RUNTIME_LOST));
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_frame_kills_that_runtime_and_no_other() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut broken, connection) = stage.serving().await;
    coordinator.want(vec![demo(), other()]).await;
    let mut sound = Runtime::ready(&stage.runtimes).await;
    coordinator.until_state(OTHER, ModelState::Ready).await;
    let mut lost = ask(&connection, &request(DEMO, 1)).await;
    broken.asked().await;
    let mut kept = ask(&connection, &request(OTHER, 1)).await;
    let row = sound.asked().await;

    broken.send_raw(&[4, 0, 0, 0, 0xc1, 0xc1, 0xc1, 0xc1]).await;
    broken.is_gone().await;
    let last = lost.rest().await.pop().expect("a last frame");
    assert_eq!((last.finish(), last.code.as_str()), (Finish::Failed, daemon::codes::RUNTIME_GARBLED));
    let waiting = coordinator.until_state(DEMO, ModelState::Waiting).await;
    let reason = &waiting.models.iter().find(|status| status.model == DEMO).expect("reported").reason;
    assert!(reason.contains("contract of frames"), "{reason}");

    sound.step(row, &[1, 2], Some("length")).await;
    assert_eq!(kept.rest().await.last().map(Frame::of), Some(Frame(vec![1, 2], Finish::Length)));
    agent.leave([broken, sound]).await;
}

/// Takes as long as the silence that counts as a hang.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_falls_silent_ends_its_streams_as_hung() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[7], None).await;
    let frames = asked.rest().await;
    assert_eq!(frames.iter().flat_map(|frame| frame.ids.clone()).collect::<Vec<_>>(), [7]);
    let last = frames.last().expect("a last frame");
    assert_eq!((last.finish(), last.code.as_str()), (Finish::Failed, daemon::codes::RUNTIME_HUNG));
    runtime.is_gone().await;
    let waiting = coordinator.until_state(DEMO, ModelState::Waiting).await;
    assert!(waiting.models[0].reason.contains("stopped making progress"), "{waiting:?}");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_of_another_version_is_not_talked_to() {
    let stage = Stage::new();
    let plan = Plan { wanted: vec![demo()], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let agent = stage.agent(&coordinator);
    let mut runtime = Runtime::started(&stage.runtimes).await;
    runtime.hello(2).await;
    runtime.is_gone().await;
    let told = |report: &AgentReport| report.models.iter().any(|status| status.reason.contains("version 2"));
    let told = coordinator.report("the reason", told).await;
    assert_eq!(told.models[0].state(), ModelState::Waiting);
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_says_so_and_is_given_up() {
    let stage = Stage::new();
    let plan = Plan { wanted: vec![demo()], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let agent = stage.agent(&coordinator);
    let mut runtime = Runtime::started(&stage.runtimes).await;
    runtime.hello(1).await;
    let load = runtime.heard("load").await;
    let error =
        vec!["error".into(), load[1].clone(), "unsupported_model".into(), "no such architecture".into()];
    runtime.send(error).await;
    runtime.heard("shutdown").await;
    let failed = coordinator.until_state(DEMO, ModelState::Failed).await;
    assert!(failed.models[0].reason.contains("no such architecture"), "{failed:?}");
    drop(runtime);
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_disturbs_no_running_answer_and_comes_back() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    soon("the first hello", coordinator.hellos.recv()).await.expect("a service");
    coordinator.break_sessions();
    soon("another hello", coordinator.hellos.recv()).await.expect("a service");
    // Longer than the agent takes to find a dead connection: this one lives and must be kept.
    let mut sequence = 0;
    for _ in 0..4 {
        sequence = coordinator.report("reports go on", |report| report.sequence != sequence).await.sequence;
        runtime.step(row, &[1], None).await;
        asked.next().await.expect("no reset").expect("a frame");
    }
    runtime.step(row, &[2], Some("stop")).await;
    assert_eq!(asked.rest().await.last().map(Frame::of), Some(Frame(vec![2], Finish::Stop)));
    assert!(coordinator.connections.try_recv().is_err(), "it dialled again");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_coordinators_restart_an_agent_comes_back_by_itself_with_its_runtime() {
    let stage = Stage::new();
    let (coordinator, mut agent, mut runtime, connection) = stage.serving().await;
    let plan = Plan {
        grpc_port: coordinator.grpc.port(),
        quic_port: coordinator.quic.port(),
        wanted: vec![demo()],
        ..Plan::default()
    };
    coordinator.kill().await;
    // Held, it would keep the port; it can say nothing any more.
    drop(connection);
    agent.notice("it is noticed", |notice| matches!(notice, Notice::CoordinatorLost { .. })).await;
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    agent.notice("it is told", |notice| *notice == Notice::CoordinatorBack).await;
    let ready = coordinator.until_state(DEMO, ModelState::Ready).await;
    assert_eq!((ready.models[0].pid, ready.models[0].restarts), (runtime.pid, 0), "the runtime was kept");
    let again = coordinator.connection().await;
    let mut asked = ask(&again, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(asked.rest().await.len(), 1);
    agent.leave([runtime]).await;
}

#[derive(Debug, PartialEq)]
struct Frame(Vec<u32>, Finish);

impl Frame {
    fn of(frame: &proto::v1::AttemptFrame) -> Self {
        Self(frame.ids.clone(), frame.finish())
    }
}
