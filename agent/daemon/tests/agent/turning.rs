//! Another authority signs: the agent gets a new certificate and comes anew, beside what runs.

use proto::v1::{Finish, coordinator_message};

use crate::coordinator::ask;
use crate::room::{DEMO, Stage, request, soon};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_anew_under_another_authority_and_lets_what_runs_end() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, former) = stage.serving().await;
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    let mut running = ask(&former, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    let (word, authority) = stage.authority.turn();
    coordinator.order(coordinator_message::Message::Authorities(word)).await;
    assert_eq!(soon("a renewal", coordinator.renewals.recv()).await, Some(true));
    soon("another hello", coordinator.hellos.recv()).await.expect("a service");
    let present = coordinator.connection().await;

    let report = coordinator.report("a report", |report| !report.models.is_empty()).await;
    assert_ne!(report.authority, authority, "something of the former one is open");
    runtime.step(row, &[5], None).await;
    assert_eq!(running.next().await.expect("it runs").expect("a frame").ids, [5]);
    let mut beside = ask(&present, &request(DEMO, 2)).await;
    let other = runtime.asked().await;
    runtime.step(row, &[6], Some("length")).await;
    assert_eq!(running.rest().await.last().expect("an end").finish(), Finish::Length);
    coordinator.report("all is under the present one", |report| report.authority == authority).await;
    soon("the former connection is closed", former.closed()).await;
    runtime.step(other, &[7], Some("length")).await;
    assert_eq!(beside.rest().await.last().expect("an end").finish(), Finish::Length);

    let kept = std::fs::read_to_string(stage.data_folder().join("identity/membership.json"));
    assert_eq!(
        kept.expect("a membership").matches("BEGIN CERTIFICATE").count(),
        3,
        "a leaf and both authorities"
    );
    // What is no news changes nothing.
    coordinator.order(coordinator_message::Message::Authorities(stage.authority.word(0, "of before"))).await;
    coordinator.report("a report", |report| report.authority == authority).await;
    assert!(coordinator.renewals.try_recv().is_err() && coordinator.hellos.try_recv().is_err());
    agent.leave([runtime]).await;
}
