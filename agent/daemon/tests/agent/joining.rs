//! Joining, coming back, and what the session says.

use std::os::unix::fs::PermissionsExt as _;

use daemon::Notice;
use proto::v1::ModelState;

use crate::coordinator::{Coordinator, NODE, Plan};
use crate::room::{DEMO, Stage, demo, soon, start};
use crate::runtime::Runtime;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_joins_with_a_token_says_hello_and_reports() {
    let stage = Stage::new();
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let mut agent = stage.agent(&coordinator);
    let join = soon("a join", coordinator.joins.recv()).await.expect("a service");
    assert_eq!((join.token_id.as_str(), join.secret, join.name.as_str()), ("t1", vec![7; 24], "mini-07"));
    let hello = soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    assert_eq!((hello.name.as_str(), hello.offers), ("mini-07", vec![demo()]));
    assert!(hello.hardware.is_some_and(|hardware| hardware.memory_bytes > 0));
    let joined = agent.notice("joined", |notice| matches!(notice, Notice::Joined { .. })).await;
    assert_eq!(joined, Notice::Joined { node: NODE, cluster: "test".to_owned() });
    let first = coordinator.report("a report", |report| report.sequence > 0).await;
    assert!(first.models.is_empty());
    coordinator.report("reports go on without a change", |report| report.sequence > first.sequence).await;
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_joined_once_comes_back_without_a_token() {
    let stage = Stage::new();
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    agent.leave([]).await;
    let mode = |name: &str| {
        let path = stage.data_folder().join("identity").join(name);
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("key.pem")), (0o700, 0o600));

    let again = start(stage.config(&coordinator, None));
    soon("another hello", coordinator.hellos.recv()).await.expect("a service");
    assert!(soon("one join", coordinator.joins.recv()).await.is_some());
    assert!(coordinator.joins.try_recv().is_err(), "it joined again");
    again.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_identity_and_token_an_agent_says_where_a_token_comes_from() {
    let stage = Stage::new();
    let coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let error = start(stage.config(&coordinator, None)).ended().await.expect_err("refused").to_string();
    assert!(error.contains("--token") && error.contains("mlx-serving coordinator"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_joins_nothing() {
    let (stage, elsewhere) = (Stage::new(), Stage::new());
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = start(stage.config(&coordinator, Some(elsewhere.authority.token())));
    let error = format!("{:#}", agent.ended().await.expect_err("refused"));
    assert!(error.contains("not the cluster that issued the join token"), "{error}");
    assert!(coordinator.joins.try_recv().is_err(), "the secret was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_ends_the_agent_with_the_coordinators_words() {
    let stage = Stage::new();
    let coordinator =
        Coordinator::start(&stage.authority, Plan { refuse_joins: true, ..Plan::default() }).await;
    let error = format!("{:#}", stage.agent(&coordinator).ended().await.expect_err("refused"));
    assert!(error.contains("used up") && error.contains("new token"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_of_another_cluster_in_the_old_place_is_told_apart_and_a_new_token_changes_over() {
    let (stage, founded_anew) = (Stage::new(), Stage::new());
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    agent.leave([]).await;
    let mut coordinator = Coordinator::start(&founded_anew.authority, Plan::default()).await;
    let mut agent = start(stage.config(&coordinator, None));
    let lost = agent.notice("it is told", |notice| matches!(notice, Notice::CoordinatorLost { .. })).await;
    assert!(format!("{lost:?}").contains("--token of the new one"), "{lost:?}");
    agent.leave([]).await;

    let agent = start(stage.config(&coordinator, Some(founded_anew.authority.token())));
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_revoked_ends_and_comes_back_only_with_a_new_token_and_a_new_key() {
    let stage = Stage::new();
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    let first = soon("a join", coordinator.joins.recv()).await.expect("a service");
    coordinator.revoke().await;
    let said = agent.ended().await.expect_err("it belongs to the cluster no more").to_string();
    assert!(said.contains("removed from the cluster") && said.contains("token create"), "{said}");

    for token in [None, Some(stage.authority.token())] {
        let said = start(stage.config(&coordinator, token)).ended().await.expect_err("refused").to_string();
        assert!(said.contains("removed from the cluster"), "{said}");
    }
    assert!(coordinator.hellos.try_recv().is_err(), "it asked again");

    let token = daemon::JoinToken { id: "another".to_owned(), ..stage.authority.token() };
    let agent = start(stage.config(&coordinator, Some(token)));
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    let second = soon("another join", coordinator.joins.recv()).await.expect("a service");
    assert_ne!(first.csr_pem, second.csr_pem, "a key that was revoked is not taken again");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_folder_is_refused() {
    let stage = Stage::new();
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    let error = stage.agent(&coordinator).ended().await.expect_err("refused").to_string();
    assert!(error.contains("another agent"), "{error}");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wanted_model_is_reported_through_its_states_until_it_is_ready() {
    let stage = Stage::new();
    let plan = Plan { wanted: vec![demo()], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let agent = stage.agent(&coordinator);
    let mut runtime = Runtime::started(&stage.runtimes).await;
    coordinator.until_state(DEMO, ModelState::Starting).await;
    runtime.hello(1).await;
    coordinator.until_state(DEMO, ModelState::Loading).await;
    let asked = runtime.load().await;
    let path = asked.as_map().expect("a map").iter().find(|(key, _)| key.as_str() == Some("path"));
    assert!(path.is_some_and(|(_, path)| path.as_str().is_some_and(|path| !path.is_empty())), "{asked}");
    let ready = coordinator.until_state(DEMO, ModelState::Ready).await;
    let status = &ready.models[0];
    assert_eq!((status.slots, status.pid, status.restarts, status.running), (2, runtime.pid, 0, 0));
    assert!(status.facts.as_ref().is_some_and(|facts| facts.context_length > 0));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_sent_when_it_is_asked_for_and_has_the_digest_reported() {
    let stage = Stage::new();
    let (mut coordinator, agent, runtime, _connection) = stage.serving().await;
    let digest = coordinator.reports.borrow().models[0].card_digest.clone();
    coordinator.ask_for_card("no-such-model", &digest).await;
    coordinator.ask_for_card(DEMO, &digest).await;
    let pieces = soon("a card", coordinator.cards.recv()).await.expect("a service");
    let mut files = std::collections::BTreeMap::<_, Vec<u8>>::new();
    for piece in &pieces {
        assert_eq!(piece.card_digest, digest);
        files.entry(piece.file.as_str()).or_default().extend(&piece.data);
    }
    let actual = proto::card::digest(files.iter().map(|(name, data)| (*name, data.as_slice())));
    assert_eq!(actual, digest);
    assert!(files.contains_key("tokenizer.json"));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_wanted_any_more_is_shut_down_and_leaves_the_report() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, _connection) = stage.serving().await;
    coordinator.want(Vec::new()).await;
    runtime.heard("shutdown").await;
    coordinator.until_state(DEMO, ModelState::Stopping).await;
    drop(runtime);
    coordinator.report("it is gone", |report| report.models.is_empty()).await;
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_early_under_the_old_one_and_breaks_no_session() {
    let stage = Stage::new();
    stage.authority.sign_for(3);
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    let kept = || std::fs::read(stage.data_folder().join("identity/membership.json")).expect("a membership");
    let first = kept();
    for _ in 0..2 {
        assert_eq!(soon("a renewal", coordinator.renewals.recv()).await, Some(true), "under the old one");
    }
    assert_ne!(kept(), first, "it is written down");
    assert!(coordinator.hellos.try_recv().is_err(), "the session was opened anew");
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_away_for_longer_than_its_certificate_lasts_comes_back_by_its_key() {
    let stage = Stage::new();
    stage.authority.sign_for(-10);
    let mut coordinator = Coordinator::start(&stage.authority, Plan::default()).await;
    let agent = stage.agent(&coordinator);
    soon("a join", coordinator.joins.recv()).await.expect("a service");
    assert_eq!(soon("a renewal", coordinator.renewals.recv()).await, Some(false), "it has none to show");
    assert!(coordinator.hellos.try_recv().is_err(), "a certificate that has ended opened a session");
    stage.authority.sign_for(3_600);
    soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    assert!(coordinator.joins.try_recv().is_err(), "it did not join again");
    agent.leave([]).await;
}
