//! Which models are held, which are only prepared, and the way from one to the other.

use proto::v1::{AgentReport, Finish, ModelState, ModelStatus};

use crate::coordinator::{Coordinator, Plan, ask};
use crate::room::{DEMO, OTHER, Stage, demo, offered, other, request, soon, start};
use crate::runtime::{Runtime, value};

fn status(report: &AgentReport, model: &str) -> ModelStatus {
    report.models.iter().find(|status| status.model == model).expect("reported").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_model_is_prepared_then_held_then_offered_again() {
    let stage = Stage::new();
    let plan = Plan { wanted: vec![offered(demo())], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let agent = stage.agent(&coordinator);
    let prepared = status(&coordinator.until_state(DEMO, ModelState::Offered).await, DEMO);
    let facts = prepared.facts.expect("its facts");
    assert!(prepared.footprint_bytes > facts.weights_bytes && facts.weights_bytes > 0);
    assert_eq!((prepared.kv_tokens, prepared.prefix_tokens), (32_768, 32_768));
    assert_eq!((prepared.pid, prepared.incarnation, prepared.load_ms), (0, 0, 0));
    coordinator.ask_for_card(DEMO, &prepared.card_digest).await;
    soon("its card", coordinator.cards.recv()).await.expect("a service");
    let connection = coordinator.connection().await;
    let refused = ask(&connection, &request(DEMO, 1)).await.rest().await;
    assert_eq!(refused[0].code, daemon::codes::NOT_LOADED);

    coordinator.want(vec![demo()]).await;
    let mut runtime = Runtime::started(&stage.runtimes).await;
    runtime.hello(1).await;
    let loading = status(&coordinator.until_state(DEMO, ModelState::Loading).await, DEMO);
    assert_eq!((loading.incarnation, loading.load_ms), (1, 0));
    let load = runtime.load().await;
    assert_eq!(value(&load, "cache_bytes").and_then(|bytes| bytes.as_u64()), Some(64 << 20));
    assert_eq!(value(&load, "kv_tokens").and_then(|tokens| tokens.as_u64()), Some(32_768));
    let ready = status(&coordinator.until_state(DEMO, ModelState::Ready).await, DEMO);
    assert!(ready.load_ms > 0 && ready.footprint_bytes == prepared.footprint_bytes, "{ready:?}");

    coordinator.want(vec![offered(demo())]).await;
    runtime.heard("shutdown").await;
    drop(runtime);
    let again = status(&coordinator.until_state(DEMO, ModelState::Offered).await, DEMO);
    assert_eq!((again.pid, again.incarnation, again.load_ms), (0, 0, 0));
    coordinator.want(vec![demo()]).await;
    let second = Runtime::ready(&stage.runtimes).await;
    let ready = status(&coordinator.until_state(DEMO, ModelState::Ready).await, DEMO);
    assert_eq!((ready.pid, ready.incarnation, ready.restarts), (second.pid, 2, 0));
    agent.leave([second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_to_go_lets_its_answers_finish_and_takes_no_new_ones() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut asked = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[1], None).await;
    coordinator.want(vec![offered(demo())]).await;
    let leaving = status(&coordinator.until_state(DEMO, ModelState::Stopping).await, DEMO);
    assert_eq!((leaving.running, leaving.reason.as_str()), (1, "its running answers may finish first"));
    let refused = ask(&connection, &request(DEMO, 2)).await.rest().await;
    assert_eq!((refused.len(), refused[0].code.as_str()), (1, daemon::codes::NOT_LOADED));

    for id in 2..6 {
        runtime.step(row, &[id], None).await;
    }
    runtime.step(row, &[6], Some("length")).await;
    let frames = asked.rest().await;
    assert_eq!(frames.last().map(|frame| frame.finish()), Some(Finish::Length));
    let ids: Vec<_> = frames.into_iter().flat_map(|frame| frame.ids).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    runtime.heard("shutdown").await;
    drop(runtime);
    coordinator.until_state(DEMO, ModelState::Offered).await;
    agent.leave([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_wanted_again_while_an_answer_runs_is_not_loaded_anew() {
    let stage = Stage::new();
    let (mut coordinator, agent, mut runtime, connection) = stage.serving().await;
    let mut first = ask(&connection, &request(DEMO, 1)).await;
    let row = runtime.asked().await;
    coordinator.want(vec![]).await;
    coordinator.until_state(DEMO, ModelState::Stopping).await;
    coordinator.want(vec![demo()]).await;
    let ready = status(&coordinator.until_state(DEMO, ModelState::Ready).await, DEMO);
    assert_eq!((ready.pid, ready.incarnation, ready.restarts), (runtime.pid, 1, 0));

    runtime.step(row, &[1], Some("stop")).await;
    assert_eq!(first.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    let mut second = ask(&connection, &request(DEMO, 2)).await;
    let row = runtime.asked().await;
    runtime.step(row, &[2], Some("stop")).await;
    assert_eq!(second.rest().await.last().map(|frame| frame.finish()), Some(Finish::Stop));
    agent.leave([runtime]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_of_two_models_fits_the_other_says_what_it_lacks_and_follows_when_the_first_has_gone() {
    const BUDGET: u64 = 600 << 20;
    let stage = Stage::new();
    let plan = Plan { wanted: vec![offered(demo()), offered(other())], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let config = stage.config(&coordinator, Some(stage.authority.token()));
    let agent = start(daemon::Config { memory_budget_bytes: Some(BUDGET), ..config });
    let hello = soon("a hello", coordinator.hellos.recv()).await.expect("a service");
    assert_eq!(hello.hardware.map(|hardware| hardware.gpu_budget_bytes), Some(BUDGET));
    let both = |report: &AgentReport| {
        report.models.iter().filter(|status| status.state() == ModelState::Offered).count() == 2
    };
    coordinator.report("both are prepared, neither is held", both).await;

    coordinator.want(vec![demo(), other()]).await;
    let mut runtime = Runtime::ready(&stage.runtimes).await;
    coordinator.until_state(DEMO, ModelState::Ready).await;
    let short = |report: &AgentReport| {
        report.models.iter().any(|status| status.reason.contains("MiB of this Mac's budget are free"))
    };
    let waiting = status(&coordinator.report("too little memory", short).await, OTHER);
    let needed = waiting.footprint_bytes;
    assert!(needed <= BUDGET && 2 * needed > BUDGET, "{needed}");
    let reason = format!(
        "it needs {} MiB, {} MiB of this Mac's budget are free",
        needed >> 20,
        (BUDGET - needed) >> 20
    );
    assert_eq!((waiting.state(), waiting.reason), (ModelState::Waiting, reason));

    coordinator.want(vec![offered(demo()), other()]).await;
    runtime.heard("shutdown").await;
    drop(runtime);
    let next = Runtime::ready(&stage.runtimes).await;
    let report = coordinator.until_state(OTHER, ModelState::Ready).await;
    assert_eq!(status(&report, DEMO).state(), ModelState::Offered);
    agent.leave([next]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_model_that_cannot_be_prepared_says_why() {
    let stage = Stage::new();
    let mut missing = offered(other());
    let source = proto::v1::model_source::Source::Path("/nowhere/at/all".to_owned());
    missing.source = Some(proto::v1::ModelSource { source: Some(source) });
    let plan = Plan { wanted: vec![missing], ..Plan::default() };
    let mut coordinator = Coordinator::start(&stage.authority, plan).await;
    let agent = stage.agent(&coordinator);
    let failed = status(&coordinator.until_state(OTHER, ModelState::Failed).await, OTHER);
    assert!(failed.reason.contains("/nowhere/at/all"), "{failed:?}");
    // A wish for another model is no reason to forget it.
    let again = proto::v1::WantedModel { offered_only: true, ..demo() };
    let mut models = vec![offered(other()), again];
    models[0].source = Some(proto::v1::ModelSource {
        source: Some(proto::v1::model_source::Source::Path("/nowhere/at/all".to_owned())),
    });
    coordinator.want(models).await;
    let report = coordinator.until_state(DEMO, ModelState::Offered).await;
    assert_eq!(status(&report, OTHER).state(), ModelState::Failed);
    agent.leave([]).await;
}
