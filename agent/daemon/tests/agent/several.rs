//! Several coordinators at once: each hears everything, each may ask, and the death of one is nobody else's matter.

use std::path::PathBuf;

use daemon::{Config, Notice};
use proto::v1::{Finish, ModelState, RegistryVersion, WantedModel};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::coordinator::{Coordinator, Plan, ask};
use crate::room::{Agent, DEMO, OTHER, Stage, demo, other, request, soon, start};
use crate::runtime::Runtime;

async fn coordinator(stage: &Stage, replica: u64, wanted: Vec<WantedModel>) -> Coordinator {
    Coordinator::start(&stage.authority, Plan { replica, wanted, ..Plan::default() }).await
}

/// An agent of these coordinators.
fn config(stage: &Stage, coordinators: &[&Coordinator]) -> Config {
    let first = coordinators.first().expect("at least one");
    let addresses = coordinators.iter().map(|coordinator| coordinator.grpc.to_string()).collect();
    Config { coordinators: addresses, ..stage.config(first, Some(stage.authority.token())) }
}

fn kept(stage: &Stage) -> PathBuf {
    stage.data_folder().join("coordinators.json")
}

fn member(coordinator: &Coordinator, replica: u64) -> (u64, String) {
    (replica, coordinator.grpc.to_string())
}

/// Two coordinators that want the demo model, and an agent that has it ready.
async fn two(stage: &Stage) -> (Coordinator, Coordinator, Agent, Runtime) {
    let mut one = coordinator(stage, 1, vec![demo()]).await;
    let mut two = coordinator(stage, 2, vec![demo()]).await;
    let mut agent = start(config(stage, &[&one, &two]));
    let runtime = Runtime::ready(&stage.runtimes).await;
    one.until_state(DEMO, ModelState::Ready).await;
    two.until_state(DEMO, ModelState::Ready).await;
    agent.notice("both answer", |notice| *notice == both(2)).await;
    (one, two, agent, runtime)
}

fn both(connected: usize) -> Notice {
    Notice::Coordinators { connected, known: 2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_hear_every_report_and_have_attempts_side_by_side() {
    let stage = Stage::new();
    let (mut one, mut two, agent, mut runtime) = two(&stage).await;
    for coordinator in [&mut one, &mut two] {
        soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    }
    let (first, second) = (one.connection().await, two.connection().await);
    let mut of_one = ask(&first, &request(DEMO, 1)).await;
    let row_of_one = runtime.asked().await;
    let mut of_two = ask(&second, &request(DEMO, 1)).await;
    let row_of_two = runtime.asked().await;
    for coordinator in [&mut one, &mut two] {
        coordinator.report("both run", |report| report.attempts_running == 2).await;
    }
    runtime.step(row_of_two, &[2], Some("stop")).await;
    runtime.step(row_of_one, &[1], Some("length")).await;
    let ends = [of_one.rest().await, of_two.rest().await];
    let ends = ends.map(|frames| frames.last().map(|frame| (frame.ids.clone(), frame.finish())));
    assert_eq!(ends, [Some((vec![1], Finish::Length)), Some((vec![2], Finish::Stop))]);
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_model_are_shared_by_all_coordinators() {
    let stage = Stage::new();
    let (mut one, mut two, agent, mut runtime) = two(&stage).await;
    let (first, second) = (one.connection().await, two.connection().await);
    let mut running = Vec::new();
    for connection in [&first, &second] {
        running.push(ask(connection, &request(DEMO, 1)).await);
        runtime.asked().await;
    }
    for connection in [&first, &second] {
        let refused = ask(connection, &request(DEMO, 2)).await.rest().await;
        assert_eq!((refused.len(), refused[0].code.as_str()), (1, daemon::codes::BUSY));
    }
    agent.stop.cancel();
    drop((running, first, second));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_revoked_is_cut_with_all_that_runs_through_it_and_not_let_in_again() {
    let stage = Stage::new();
    let (mut one, mut two, agent, mut runtime) = two(&stage).await;
    soon("a hello", two.hellos.recv()).await.expect("a service");
    let (first, second) = (one.connection().await, two.connection().await);
    let mut kept = ask(&first, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    let _lost = ask(&second, &request(DEMO, 1)).await;
    let lost_row = runtime.asked().await;
    one.name_and_revoke(&[member(&one, 1)], &[2]).await;
    // Not after the ten seconds that a coordinator has which merely left the list.
    let closed = tokio::time::timeout(std::time::Duration::from_secs(3), second.closed()).await;
    closed.expect("cut at once");
    let cancel = runtime.heard("cancel").await;
    assert_eq!(cancel[1][0].as_u64(), Some(lost_row));
    runtime.step(row, &[5], Some("stop")).await;
    assert_eq!(kept.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    // It is in the settings, so it is dialled still; what it shows is refused, also by the agent's next life.
    runtime.step(lost_row, &[], Some("cancelled")).await;
    agent.leave([runtime]).await;
    one.kill().await;
    let mut agent = start(config(&stage, &[&two]));
    let lost = agent.notice("it is refused", |notice| matches!(notice, Notice::CoordinatorLost { .. })).await;
    assert!(format!("{lost:?}").contains("coordinator 2 was removed"), "{lost:?}");
    assert!(two.hellos.try_recv().is_err(), "it was let in again");
    agent.leave([]).await;
}

/// Takes as long as the silence after which a connection is dead.
#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_one_coordinator_cancels_its_rows_and_disturbs_no_other() {
    let stage = Stage::new();
    let (mut one, mut two, mut agent, mut runtime) = two(&stage).await;
    let (first, second) = (one.connection().await, two.connection().await);
    let _lost = ask(&first, &request(DEMO, 1)).await;
    let lost_row = runtime.asked().await;
    let mut kept = ask(&second, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    drop(first);
    one.kill().await;
    let next = agent
        .notice("it is noticed", |notice| {
            matches!(notice, Notice::Coordinators { .. } | Notice::CoordinatorLost { .. })
        })
        .await;
    assert_eq!(next, both(1), "one of two is not all");
    for id in 0..50 {
        runtime.step(row, &[id], None).await;
        kept.next().await.expect("no reset").expect("a frame");
    }
    let cancel = runtime.heard("cancel").await;
    assert_eq!(cancel[1][0].as_u64(), Some(lost_row));
    runtime.step(lost_row, &[], Some("cancelled")).await;
    two.report("its row runs on", |report| report.attempts_running == 1).await;
    runtime.step(row, &[50], Some("stop")).await;
    assert_eq!(kept.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    assert!(two.connections.try_recv().is_err(), "it dialled again");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_comes_back_is_found_while_the_other_goes_on() {
    let stage = Stage::new();
    let (one, mut two, mut agent, mut runtime) = two(&stage).await;
    let second = two.connection().await;
    let mut asked = ask(&second, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    let plan = Plan { grpc_port: one.grpc.port(), replica: 1, wanted: vec![demo()], ..Plan::default() };
    one.kill().await;
    agent.notice("it is noticed", |notice| *notice == both(1)).await;
    let mut one = Coordinator::start(&stage.authority, plan).await;
    agent.notice("it is found", |notice| *notice == both(2)).await;
    one.report("a row runs", |report| report.attempts_running == 1).await;
    let first = one.connection().await;
    let mut another = ask(&first, &request(DEMO, 1)).await;
    let another_row = runtime.asked().await;
    runtime.step(another_row, &[2], Some("stop")).await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!((another.rest().await.len(), asked.rest().await.len()), (1, 1));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_adds_a_coordinator_and_a_later_one_drops_it_when_its_answers_have_ended() {
    let stage = Stage::new();
    let mut one = coordinator(&stage, 1, vec![demo()]).await;
    let mut two = coordinator(&stage, 2, vec![demo()]).await;
    let agent = start(config(&stage, &[&one]));
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    one.until_state(DEMO, ModelState::Ready).await;
    one.name(&[member(&one, 1), member(&two, 2)]).await;
    two.until_state(DEMO, ModelState::Ready).await;
    let second = two.connection().await;
    let mut asked = ask(&second, &request(DEMO, 1)).await;
    let row = runtime.asked().await;

    one.name(&[]).await;
    one.name(&[member(&one, 1)]).await;
    let left = async {
        while two.open_sessions() > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the session is left", left).await;
    for id in 0..20 {
        runtime.step(row, &[id], None).await;
        asked.next().await.expect("no reset").expect("a frame");
    }
    runtime.step(row, &[20], Some("stop")).await;
    assert_eq!(asked.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    let closed = soon("the connection is closed", second.closed()).await;
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    one.connection().await;
    assert!(one.connections.try_recv().is_err(), "the other's connection is none of its own");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_coordinator_at_two_addresses_has_one_session_and_one_connection() {
    let stage = Stage::new();
    let mut one = coordinator(&stage, 1, vec![demo()]).await;
    let mut settings = config(&stage, &[&one]);
    settings.coordinators.push(format!("localhost:{}", one.grpc.port()));
    let agent = start(settings.clone());
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    // The first, the second that yields, and the first anew, because the coordinator took the second for the latest.
    for _ in 0..3 {
        soon("a hello", one.hellos.recv()).await.expect("a service");
    }
    let single = async {
        while one.open_sessions() != 1 {
            tokio::task::yield_now().await;
        }
    };
    soon("one session", single).await;
    one.until_state(DEMO, ModelState::Ready).await;
    let connection = one.connection().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    one.report("the session that is left reports", |report| report.attempts_running == 1).await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(asked.rest().await.len(), 1);
    assert!(one.connections.try_recv().is_err() && one.hellos.try_recv().is_err(), "it is at peace");
    agent.stop.cancel();
    runtime.heard("shutdown").await;
    drop(runtime);
    agent.ended().await.expect("a clean end");

    // It is remembered: the next life does not find out again.
    let agent = start(settings);
    soon("a hello", one.hellos.recv()).await.expect("a service");
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    let pid = runtime.pid;
    one.report("it is ready", |report| {
        report.models.iter().any(|status| status.pid == pid && status.state() == ModelState::Ready)
    })
    .await;
    let connection = one.connection().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(asked.rest().await.len(), 1);
    assert!(one.connections.try_recv().is_err() && one.hellos.try_recv().is_err(), "it was tried out again");
    agent.leave([runtime]).await;
}

/// Another way to the control side of a coordinator, until it is dropped.
struct Door {
    port: u16,
    _open: AbortOnDropHandle<()>,
}

impl Door {
    async fn to(coordinator: &Coordinator) -> Self {
        let (listener, inside) = (TcpListener::bind("127.0.0.1:0").await.expect("a port"), coordinator.grpc);
        let port = listener.local_addr().expect("bound").port();
        let open = async move {
            // Dropped with this task, and so are the connections.
            let mut passing = JoinSet::new();
            while let Ok((mut outer, _)) = listener.accept().await {
                passing.spawn(async move {
                    let mut inner = TcpStream::connect(inside).await?;
                    copy_bidirectional(&mut outer, &mut inner).await
                });
            }
        };
        Self { port, _open: AbortOnDropHandle::new(tokio::spawn(open)) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_at_another_address_keeps_the_connection_and_its_answers() {
    let stage = Stage::new();
    let mut one = coordinator(&stage, 1, vec![demo()]).await;
    let door = Door::to(&one).await;
    let address = format!("localhost:{}", door.port);
    let agent = start(Config { coordinators: vec![address], ..config(&stage, &[&one]) });
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    one.until_state(DEMO, ModelState::Ready).await;
    let connection = one.connection().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    soon("a hello", one.hellos.recv()).await.expect("a service");
    one.name(&[member(&one, 1)]).await;
    one.report("a row runs", |report| report.attempts_running == 1).await;
    drop(door);
    soon("a hello at the other address", one.hellos.recv()).await.expect("a service");
    // Longer than the agent takes to find a dead connection: this one lives and must be kept.
    let mut sequence = 0;
    for _ in 0..4 {
        sequence = one.report("reports go on", |report| report.sequence != sequence).await.sequence;
        runtime.step(row, &[1], None).await;
        asked.next().await.expect("no reset").expect("a frame");
    }
    runtime.step(row, &[2], Some("stop")).await;
    assert_eq!(asked.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    assert!(one.connections.try_recv().is_err(), "it dialled again");
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_state_of_the_registry_wants_is_void() {
    let stage = Stage::new();
    let at = |epoch, index| Some(RegistryVersion { epoch, index });
    let plan = Plan { replica: 1, wanted: vec![demo()], version: at(1, 7), ..Plan::default() };
    let mut one = Coordinator::start(&stage.authority, plan).await;
    let agent = start(config(&stage, &[&one]));
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    one.until_state(DEMO, ModelState::Ready).await;

    // One that lags behind joins in, and wants nothing of this Mac.
    let plan = Plan { replica: 2, version: at(1, 6), ..Plan::default() };
    let mut two = Coordinator::start(&stage.authority, plan).await;
    one.name(&[member(&one, 1), member(&two, 2)]).await;
    two.until_state(DEMO, ModelState::Ready).await;
    for stale in [at(0, 900), None, at(1, 3)] {
        two.want_as_of(stale, Vec::new()).await;
    }
    two.want_as_of(at(1, 8), vec![demo(), other()]).await;
    let second = Runtime::ready(&stage.runtimes).await;
    let report = one.until_state(OTHER, ModelState::Ready).await;
    let demo_now = report.models.iter().find(|status| status.model == DEMO).expect("reported");
    assert_eq!((demo_now.pid, demo_now.incarnation, demo_now.state()), (runtime.pid, 1, ModelState::Ready));
    // The next frame that it hears is a request, not a farewell.
    let connection = one.connection().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(asked.rest().await.len(), 1);

    one.want_as_of(at(2, 1), vec![other()]).await;
    runtime.heard("shutdown").await;
    agent.leave([runtime, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_back_while_the_coordinator_of_its_settings_is_dead() {
    let stage = Stage::new();
    let mut one = coordinator(&stage, 1, Vec::new()).await;
    let mut two = coordinator(&stage, 2, Vec::new()).await;
    let settings = config(&stage, &[&one]);
    let agent = start(settings.clone());
    one.report("a session", |report| report.sequence > 0).await;
    one.name(&[member(&one, 1), member(&two, 2)]).await;
    soon("a hello", two.hellos.recv()).await.expect("a service");
    agent.leave([]).await;
    one.kill().await;

    let mut agent = start(settings.clone());
    soon("a hello", two.hellos.recv()).await.expect("a service");
    let told = agent
        .notice("it is told", |notice| {
            matches!(notice, Notice::Coordinators { .. } | Notice::CoordinatorLost { .. })
        })
        .await;
    assert_eq!(told, both(1));
    agent.leave([]).await;

    std::fs::write(kept(&stage), "{").expect("damaged");
    let mut agent = start(settings);
    let lost = agent.notice("it is alone", |notice| matches!(notice, Notice::CoordinatorLost { .. })).await;
    assert!(format!("{lost:?}").contains("connecting to"), "{lost:?}");
    assert!(two.hellos.try_recv().is_err(), "the damaged file was believed");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_told_once_to_each_and_all_to_one_that_comes_late() {
    let stage = Stage::new();
    let (mut one, mut two, agent, mut runtime) = two(&stage).await;
    for _ in 0..30 {
        runtime.measured((0.0, 0), (0.25, 1, 100)).await;
    }
    for coordinator in [&mut one, &mut two] {
        let samples = coordinator.until_steps(DEMO, 30).await;
        assert_eq!(samples.iter().map(|sample| sample.steps).sum::<u32>(), 30);
    }
    let mut three = coordinator(&stage, 3, vec![demo()]).await;
    one.name(&[member(&one, 1), member(&two, 2), member(&three, 3)]).await;
    assert_eq!(three.until_steps(DEMO, 30).await.iter().map(|sample| sample.steps).sum::<u32>(), 30);
    let load_ms = one.report("a load", |report| report.models[0].load_ms > 0).await.models[0].load_ms;
    for coordinator in [&mut two, &mut three] {
        coordinator.report("the same load", |report| report.models[0].load_ms == load_ms).await;
    }
    for _ in 0..20 {
        runtime.measured((0.0, 0), (0.25, 2, 100)).await;
    }
    for coordinator in [&mut one, &mut two, &mut three] {
        let samples = coordinator.until_steps(DEMO, 50).await;
        let steps = |batch: f32| {
            let mine = samples.iter().filter(|sample| sample.batch.to_bits() == batch.to_bits());
            mine.map(|sample| sample.steps).sum::<u32>()
        };
        assert_eq!((steps(1.0), steps(2.0), samples.iter().map(|sample| sample.steps).sum()), (30, 20, 50));
    }
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_asks_the_next_coordinator_when_one_is_dead_or_refuses() {
    let stage = Stage::new();
    let refusing =
        Coordinator::start(&stage.authority, Plan { refuse_joins: true, replica: 1, ..Plan::default() })
            .await;
    let mut taking = coordinator(&stage, 2, Vec::new()).await;
    let mut settings = config(&stage, &[&refusing, &taking]);
    let dead = coordinator(&stage, 3, Vec::new()).await;
    settings.coordinators.insert(0, dead.grpc.to_string());
    dead.kill().await;
    let agent = start(settings);
    soon("a join", taking.joins.recv()).await.expect("a service");
    soon("a hello", taking.hellos.recv()).await.expect("a service");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_way_out_all_running_answers_finish_and_every_connection_is_closed() {
    let stage = Stage::new();
    let (mut one, mut two, mut agent, mut runtime) = two(&stage).await;
    let connections = [one.connection().await, two.connection().await];
    let mut asked = Vec::new();
    for connection in &connections {
        asked.push((ask(connection, &request(DEMO, 1)).await, runtime.asked().await));
    }
    agent.stop.cancel();
    let draining = agent.notice("draining", |notice| matches!(notice, Notice::Draining { .. })).await;
    assert_eq!(draining, Notice::Draining { attempts: 2 });
    for coordinator in [&mut one, &mut two] {
        coordinator.until_state(DEMO, ModelState::Stopping).await;
    }
    for (mut asked, row) in asked {
        runtime.step(row, &[1], Some("stop")).await;
        assert_eq!(asked.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    }
    runtime.heard("shutdown").await;
    drop(runtime);
    agent.ended().await.expect("a clean end");
    for connection in connections {
        let closed = soon("closed", connection.closed()).await;
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    }
}
