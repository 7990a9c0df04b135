//! The way out: what runs may finish, nothing new begins, no process stays.

use daemon::Notice;
use proto::v1::{Finish, ModelState};

use crate::coordinator::ask;
use crate::room::{DEMO, Stage, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_running_answer_finish_and_takes_no_new_one() {
    let stage = Stage::new();
    let (mut coordinator, mut agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], None).await;
    agent.stop.cancel();
    let draining = agent.notice("draining", |notice| matches!(notice, Notice::Draining { .. })).await;
    assert_eq!(draining, Notice::Draining { attempts: 1 });
    coordinator.until_state(DEMO, ModelState::Stopping).await;
    let refused = ask(&connection, &request(DEMO, 1)).await.rest().await;
    assert_eq!(refused[0].code, daemon::codes::NOT_LOADED);

    runtime.step(row, &[2], Some("length")).await;
    let frames = asked.rest().await;
    assert_eq!(frames.last().map(|frame| frame.finish()), Some(Finish::Length));
    assert_eq!(frames.into_iter().flat_map(|frame| frame.ids).collect::<Vec<_>>(), [1, 2]);
    runtime.heard("shutdown").await;
    drop(runtime);
    agent.ended().await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_work_shuts_its_runtimes_down_and_leaves_no_process() {
    let stage = Stage::new();
    let (_coordinator, agent, mut runtime, connection) = stage.serving().await;
    let pid = i32::try_from(runtime.pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    agent.stop.cancel();
    agent.stop.cancel();
    runtime.heard("shutdown").await;
    drop(runtime);
    agent.ended().await.expect("a clean end");
    assert!(rustix::process::test_kill_process(pid).is_err(), "the runtime is still there");
    let closed = connection.closed().await;
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
}
