//! Whatever a coordinator says: nothing panics, nothing hangs, nothing grows without an end, and what the agent does for the others
//! goes on.

use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::Config;
use proto::v1::{Finish, ModelState, RegistryVersion};

use crate::coordinator::{Coordinator, HONEST, Plan, ask};
use crate::liar::Liar;
use crate::room::{DEMO, Stage, demo, request, start};
use crate::runtime::Runtime;

/// Calls that are answered with lies: `LIES=3000 cargo nextest run -p daemon --test agent lying` tries more.
fn number_of_lies() -> usize {
    std::env::var("LIES").ok().and_then(|number| number.parse().ok()).unwrap_or(20)
}

/// The file of coordinators, within its bounds.
const KEPT_BYTES_MAX: u64 = 16 << 10;

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(what);
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_coordinator_says_the_agent_and_its_runtime_serve_the_other() {
    count_panics();
    let stage = Stage::new();
    // The newest registry that there can be, so that lies about it are old.
    let version = Some(RegistryVersion { epoch: u64::MAX, index: u64::MAX });
    let plan = Plan { replica: HONEST, wanted: vec![demo()], version, ..Plan::default() };
    let mut honest = Coordinator::start(&stage.authority, plan).await;
    let liar = Liar::start(&stage.authority).await;
    let coordinators = vec![honest.grpc.to_string(), liar.grpc.to_string()];
    let agent = start(Config { coordinators, ..stage.config(&honest, Some(stage.authority.token())) });
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    honest.until_state(DEMO, ModelState::Ready).await;
    let mut connection = honest.connection().await;

    let lies = async {
        liar.told(number_of_lies(), number_of_lies()).await;
        liar.impersonate();
        liar.told(liar.calls() + 1, 0).await;
    };
    tokio::select! {
        () = lies => {}
        () = runtime.idle() => {}
    }

    while let Ok(later) = honest.connections.try_recv() {
        connection = later;
    }
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[7], Some("stop")).await;
    let frames = asked.rest().await;
    assert_eq!(frames.last().map(|frame| (frame.ids.clone(), frame.finish())), Some((vec![7], Finish::Stop)));
    let sequence = honest.reports.borrow().sequence;
    let report = honest.report("it goes on reporting", |report| report.sequence != sequence).await;
    assert_eq!((report.models[0].pid, report.models[0].restarts), (runtime.pid, 0), "the runtime was kept");
    let kept = stage.data_folder().join("coordinators.json");
    assert!(std::fs::metadata(kept).expect("written").len() < KEPT_BYTES_MAX);
    agent.leave([runtime]).await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_joining_mac_is_answered_it_ends_when_it_is_told_to() {
    count_panics();
    let stage = Stage::new();
    let honest = Coordinator::start(&stage.authority, Plan::default()).await;
    let liar = Liar::start(&stage.authority).await;
    for round in 0..number_of_lies().div_ceil(4) {
        let before = liar.calls();
        let agent = start(Config {
            coordinators: vec![liar.grpc.to_string()],
            data_folder: stage.folder.path().join(format!("agent-{round}")),
            ..stage.config(&honest, Some(stage.authority.token()))
        });
        liar.told(before + 1, 0).await;
        agent.stop.cancel();
        // With an error or without one: it was told nonsense.
        let _ = agent.ended().await;
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "round {round}");
    }
}
