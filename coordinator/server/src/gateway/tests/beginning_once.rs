//! What goes on without its client is begun once under an `Idempotency-Key`, whatever is lost between its beginning and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use registry::limits::JOB_KEPT_MS;
use registry::{BatchChange, BatchEndpoint, BatchId, Command, FileId, Job, JobRun, Life, Registry};
use serde_json::{Value, json};

use super::batching::requests;
use super::deferring::{background, slow};
use super::facts::Fate;
use super::responding::responding;
use super::stage::{HASH_KEY, Reply, Stage, request, said};
use crate::clock::unix_ms;
use crate::gateway::hash_keys::HashKeys;
use crate::gateway::once;

/// What has begun.
fn begun(facts: &Registry) -> usize {
    facts.batches().count() + facts.jobs().filter(|(_, job)| job.deferred.is_some()).count()
}

async fn send(stage: &Stage, path: &str, body: &Value) -> Reply {
    let asked = request("POST", path).header("idempotency-key", "k").header("authorization", "Bearer a");
    stage.send(asked.body(body.to_string().into()).unwrap()).await
}

/// A batch and a response, as they are asked for.
async fn both(stage: &Stage) -> [(&'static str, Value); 2] {
    let file = stage.upload("a", &requests(3)).await;
    let batch = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
    [("/v1/batches", batch), ("/v1/responses", responding(background(json!({}))))]
}

#[tokio::test(start_paused = true)]
async fn one_whose_beginning_nobody_confirms_is_found_by_the_next_try() {
    for kind in 0..2 {
        let stage = Stage::playing(|_, wish| slow(wish));
        let (path, body) = both(&stage).await[kind].clone();
        stage.facts.decide(|command| {
            let begins = matches!(command, Command::ChangeBatch { .. } | Command::ChangeResponse { .. });
            if begins { Fate::Unheard } else { Fate::Answered }
        });
        let first = send(&stage, path, &body).await;
        stage.facts.decide(|_| Fate::Answered);
        let again = send(&stage, path, &body).await;
        assert_eq!(again.status, 200, "{}", again.text);
        assert_eq!(first.json()["id"], again.json()["id"], "it is told as soon as it is known");
        assert_eq!(begun(&stage.facts.now()), 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_answer_was_lost_is_told_again_and_not_begun_again() {
    for kind in 0..2 {
        let stage = Stage::playing(|_, wish| slow(wish));
        let (path, body) = both(&stage).await[kind].clone();
        stage.facts.decide(|command| {
            let ends = matches!(command, Command::EndJob { .. });
            if ends { Fate::Lost } else { Fate::Answered }
        });
        let first = send(&stage, path, &body).await;
        assert_eq!((first.status.as_u16(), begun(&stage.facts.now())), (503, 1), "{}", first.text);
        stage.facts.decide(|_| Fate::Answered);
        let again = send(&stage, path, &body).await;
        assert_eq!((again.status.as_u16(), begun(&stage.facts.now())), (200, 1), "{}", again.text);
        let replayed = send(&stage, path, &body).await;
        assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
        assert_eq!(replayed.text, again.text);
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_gateway_dies_before_it_answers_is_not_begun_by_the_next_one() {
    for kind in 0..2 {
        let stage = Arc::new(Stage::playing(|_, wish| slow(wish)));
        let other = stage.beside(2, |_, _| said("never"));
        let (path, body) = both(&stage).await[kind].clone();
        stage.facts.decide(|command| {
            let ends = matches!(command, Command::EndJob { run, .. } if run.replica == 1);
            if ends { Fate::Lost } else { Fate::Answered }
        });
        let dying = tokio::spawn({
            let (stage, body) = (stage.clone(), body.clone());
            async move { send(&stage, path, &body).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(begun(&stage.facts.now()), 1);
        stage.drawer.cut_off(1);
        let answered = send(&other, path, &body).await;
        assert_eq!((answered.status.as_u16(), begun(&stage.facts.now())), (200, 1), "{}", answered.text);
        dying.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_key_each_is_another() {
    let stage = Stage::playing(|_, wish| slow(wish));
    for (path, body) in both(&stage).await {
        let (first, second) =
            (stage.with_key("POST", path, "a", Some(&body)), stage.with_key("POST", path, "a", Some(&body)));
        assert_ne!(first.await.json()["id"], second.await.json()["id"]);
    }
    assert_eq!(begun(&stage.facts.now()), 4);
}

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn one_that_began_more_than_a_day_ago_is_found_as_long_as_its_job_is_open() {
    let stage = Stage::playing(|_, wish| slow(wish));
    let [(path, body), _] = both(&stage).await;
    // A job of which nothing came.
    stage.facts.decide(|command| {
        let comes = !matches!(command, Command::ChangeBatch { .. } | Command::DropJob { .. });
        if comes { Fate::Answered } else { Fate::Lost }
    });
    assert_eq!(send(&stage, path, &body).await.status, 503);
    stage.facts.decide(|_| Fate::Answered);
    let (job, Job { tenant, request, run, .. }) =
        stage.facts.now().jobs().next().map(|(id, job)| (id, job.clone())).expect("one");
    stage.facts.apply(&Command::DropJob { job, run });
    // The same, as long ago as it can be, with what came of it.
    let at_unix_ms = unix_ms() - 24 * HOUR_MS - HOUR_MS / 2;
    let run = JobRun { life: Life(run.life.0 ^ 1), ..run };
    stage.facts.apply(&Command::BeginJob { job, tenant, request, run, at_unix_ms });
    let day = at_unix_ms / JOB_KEPT_MS;
    let batch = BatchId(once::name(&HashKeys::new(HASH_KEY), "batch_", job, request, day));
    let change = BatchChange::Begin {
        tenant,
        key: None,
        input: FileId(body["input_file_id"].as_str().expect("an id").to_owned()),
        endpoint: BatchEndpoint::Completions,
        metadata: BTreeMap::new(),
        run,
        at_unix_ms,
    };
    assert_eq!(
        stage.facts.apply(&Command::ChangeBatch { batch: batch.clone(), change }),
        registry::Reply::Done
    );
    let again = send(&stage, path, &body).await;
    assert_eq!((again.status.as_u16(), begun(&stage.facts.now())), (200, 1), "{}", again.text);
    assert_eq!(again.json()["id"], batch.0);
}
