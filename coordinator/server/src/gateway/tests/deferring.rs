//! `/v1/responses` in the background: it goes on without its client and outlives its coordinator, and is told alike for ever.

use std::sync::Arc;
use std::time::Duration;

use registry::{Used, limits as facts};
use scheduler::Span;
use scheduler::allowance::Excess;
use serde_json::{Value, json};

use super::responding::{deltas, id_of, kinds, responding, text_of, told};
use super::stage::{Act, Reply, Stage, dispatched, finished, ids, queued, request, said, tokens};
use crate::clock::unix_ms;
use crate::gateway::limits;
use crate::generation::{Event, Failure, FinishReason, Wish};

pub(super) const TEXT: &str = "one two three four five six seven";

pub(super) fn background(more: Value) -> Value {
    let mut body = json!({"background": true});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    body
}

/// A token each 200 ms, behind those that there are already.
pub(super) fn slow(wish: &Wish) -> Vec<Act> {
    let all = ids(TEXT);
    let rest = all.get(wish.journal.len()..).expect("a beginning of it");
    let each = rest.iter().flat_map(|id| [Act::Pause(Duration::from_millis(200)), tokens(&[*id])]);
    let generated = u32::try_from(all.len()).unwrap() + 1;
    [queued(1, None), dispatched(7)]
        .into_iter()
        .chain(each)
        .chain([finished(FinishReason::Stop, generated)])
        .collect()
}

fn slowly() -> Stage {
    Stage::playing(|_, wish| slow(wish))
}

impl Stage {
    pub(super) async fn begin(&self, more: Value) -> String {
        let begun = self.with_key_respond("a", background(more)).await;
        assert_eq!(begun.status.as_u16(), 200, "{}", begun.text);
        assert_eq!(begun.json()["status"], "queued");
        id_of(&begun.json())
    }

    pub(super) async fn now(&self, id: &str) -> Value {
        self.of("a", "GET", id, "").await.json()
    }

    /// Polls, as clients do.
    pub(super) async fn once_it_is(&self, id: &str, status: &str) -> Value {
        for _ in 0..400 {
            let now = self.now(id).await;
            if now["status"] == status {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("it never was {status}: {}", self.now(id).await);
    }

    async fn story(&self, id: &str, after: Option<u64>) -> Reply {
        let after = after.map_or(String::new(), |after| format!("&starting_after={after}"));
        self.of("a", "GET", id, &format!("?stream=true{after}")).await
    }
}

/// What is left of a story behind an event.
fn behind(story: &str, number: u64) -> String {
    let events = story.split_inclusive("\n\n").filter(|event| event.starts_with("event: "));
    let is_behind = |event: &&str| {
        let data: Value = serde_json::from_str(event.split_once("\ndata: ").unwrap().1).unwrap();
        data["sequence_number"].as_u64().unwrap() > number
    };
    events.filter(is_behind).collect()
}

fn without_comments(story: &str) -> String {
    story.split_inclusive("\n\n").filter(|event| !event.starts_with(": ")).collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_queued_at_once_and_completes_without_its_client() {
    let stage = slowly();
    let other = stage.beside(2, |_, _| said("never"));
    stage.mind();
    let id = stage.begin(json!({"metadata": {"team": "red"}})).await;
    let job =
        stage.facts.now().jobs().next().map(|(_, job)| job.clone()).expect("the registry knows it by then");
    assert!(job.deferred.is_some() && job.ended.is_none());
    assert_eq!(other.once_it_is(&id, "in_progress").await["output"], json!([]));
    let done = other.once_it_is(&id, "completed").await;
    assert_eq!(
        (text_of(&done), &done["background"], &done["store"]),
        (TEXT.to_owned(), &json!(true), &json!(true))
    );
    assert_eq!(done["metadata"], json!({"team": "red"}));
    assert_eq!(stage.now(&id).await, done);
    assert_eq!(stage.wishes().len() + other.wishes().len(), 1);
    let job = stage.facts.now().jobs().next().map(|(_, job)| job.clone()).expect("for a day");
    assert!(job.deferred.is_none() && job.ended.is_some());
    assert_eq!(other.of("b", "GET", &id, "").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_cut_is_taken_up_to_the_byte_at_any_coordinator() {
    let stage = Arc::new(slowly());
    let other = stage.beside(2, |_, _| said("never"));
    stage.mind();
    let reading = tokio::spawn({
        let stage = stage.clone();
        async move { stage.with_key_respond("a", background(json!({"stream": true}))).await }
    });
    let whole = reading.await.expect("answered");
    let events = told(&whole.text);
    let last = events.len() as u64 - 1;
    assert_eq!(kinds(&events)[..3], ["created", "queued", "in_progress"]);
    assert_eq!((kinds(&events).last(), deltas(&events).as_str()), (Some(&"completed"), TEXT));
    let id = id_of(&events[0]["response"]);
    for after in 0..=last {
        for gateway in [&stage, &other] {
            let rest = gateway.story(&id, Some(after)).await;
            assert_eq!((rest.text, rest.broke), (behind(&whole.text, after), false), "after {after}");
        }
    }
    let again = other.story(&id, None).await;
    assert_eq!(again.text, without_comments(&whole.text));
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_along_elsewhere_is_told_the_same_while_it_runs() {
    let stage = Arc::new(slowly());
    let other = Arc::new(stage.beside(2, |_, _| said("never")));
    stage.mind();
    let id = stage.begin(json!({})).await;
    let read = |gateway: &Arc<Stage>, after| {
        let (gateway, id) = (gateway.clone(), id.clone());
        tokio::spawn(async move { gateway.story(&id, after).await.text })
    };
    let (here, there) = (read(&stage, None), read(&other, Some(4)));
    let (here, there) = (here.await.expect("told"), there.await.expect("told"));
    assert_eq!(without_comments(&there), behind(&here, 4));
    assert!(kinds(&told(&here)).iter().filter(|kind| **kind == "output_text.delta").count() > 3, "in steps");
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_it_over_goes_on_behind_what_was_shown() {
    let stage = Arc::new(slowly());
    let other = Arc::new(stage.beside(2, |_, wish| slow(wish)));
    let dying = stage.mind();
    let id = stage.begin(json!({"temperature": 0.9})).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    dying.abort();
    stage.drawer.cut_off(1);
    let shown = tokio::time::timeout(Duration::from_secs(1), other.story(&id, None)).await;
    assert!(shown.is_err(), "it has not ended");
    other.mind();
    let done = other.once_it_is(&id, "completed").await;
    assert_eq!(text_of(&done), TEXT);
    let (first, second) = (stage.wishes(), other.wishes());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(!second[0].journal.is_empty(), "what was shown is not computed anew");
    assert_eq!((&first[0].prompt, first[0].sampling.seed), (&second[0].prompt, second[0].sampling.seed));
    assert!(first[0].sampling.seed.is_some(), "the draws go on as they would have");
    let story = other.story(&id, None).await;
    assert_eq!(
        (deltas(&told(&story.text)).as_str(), kinds(&told(&story.text)).last()),
        (TEXT, Some(&"completed"))
    );
    assert_eq!(stage.facts.now().jobs().next().expect("a job").1.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_only_cut_off_shows_nothing_more_and_does_not_end_it() {
    let stage = Arc::new(slowly());
    let other = Arc::new(stage.beside(2, |_, wish| slow(wish)));
    stage.mind();
    let id = stage.begin(json!({})).await;
    let reading = tokio::spawn({
        let (other, id) = (other.clone(), id.clone());
        async move { other.story(&id, None).await.text }
    });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    stage.drawer.cut_off(1);
    other.mind();
    let read = reading.await.expect("told");
    assert_eq!(deltas(&told(&read)), TEXT);
    assert_eq!(without_comments(&read), stage.story(&id, None).await.text);
    assert_eq!(stage.cancelled(), [true], "it heard that another one has it");
    let job = stage.facts.now().jobs().next().map(|(_, job)| job.clone()).expect("a job");
    assert_eq!((job.attempt, job.run.replica), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_ends_with_what_was_shown() {
    let stage = Arc::new(slowly());
    let other = Arc::new(stage.beside(2, |_, _| said("never")));
    stage.mind();
    let id = stage.begin(json!({})).await;
    let reading = tokio::spawn({
        let (other, id) = (other.clone(), id.clone());
        async move { other.story(&id, None).await }
    });
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(other.of("b", "POST", &id, "/cancel").await.status, 404);
    let cancelled = other.of("a", "POST", &id, "/cancel").await.json();
    assert_eq!(cancelled["status"], "cancelled");
    let read = reading.await.expect("told");
    let events = told(&read.text);
    assert_eq!(kinds(&events).last(), Some(&"incomplete"));
    let last = &events[events.len() - 1]["response"];
    assert_eq!((last, deltas(&events)), (&cancelled, text_of(&cancelled)));
    assert!(TEXT.starts_with(&text_of(&cancelled)) && !text_of(&cancelled).is_empty());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.cancelled(), [true]);
    assert_eq!(stage.now(&id).await, cancelled);
    assert_eq!(stage.of("a", "POST", &id, "/cancel").await.json(), cancelled, "it is cancelled once");
    let follows = stage.with_key_respond("a", json!({"previous_response_id": id})).await;
    assert_eq!(follows.json()["error"]["param"], "previous_response_id");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_deleted_while_it_runs_ends_and_its_readers_are_cut() {
    let stage = Arc::new(slowly());
    stage.mind();
    let id = stage.begin(json!({})).await;
    let reading = tokio::spawn({
        let (stage, id) = (stage.clone(), id.clone());
        async move { stage.story(&id, None).await }
    });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(stage.of("a", "DELETE", &id, "").await.json()["deleted"], true);
    let read = reading.await.expect("told");
    assert!(read.broke && kinds(&told(&read.text)).last() == Some(&"error"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((stage.cancelled(), stage.facts.now().jobs().count()), (vec![true], 0));
    assert_eq!(stage.of("a", "GET", &id, "").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn what_says_to_come_back_is_waited_for_and_what_is_wrong_fails_it() {
    let full = Failure::QueueFull { retry_after: Duration::from_secs(3) };
    let stage = Stage::playing(move |number, wish| match number {
        0 => vec![Act::Event(Event::Failed(full.clone()))],
        1 => vec![
            dispatched(7),
            tokens(&ids(TEXT)[..4]),
            Act::Event(Event::Failed(Failure::NodeLost { began: true })),
        ],
        _ => slow(wish),
    });
    stage.mind();
    let id = stage.begin(json!({})).await;
    assert_eq!(text_of(&stage.once_it_is(&id, "completed").await), TEXT);
    assert_eq!(stage.wishes().iter().map(|wish| wish.journal.len()).collect::<Vec<_>>(), [0, 0, 4]);

    let stage = Stage::failing(Failure::Quarantined);
    stage.mind();
    let id = stage.begin(json!({})).await;
    let failed = stage.once_it_is(&id, "failed").await;
    assert_eq!((&failed["error"]["code"], &failed["output"]), (&json!("request_quarantined"), &json!([])));
    let story = stage.story(&id, None).await;
    assert_eq!((kinds(&told(&story.text)), story.broke), (vec!["created", "queued", "failed"], false));
}

#[tokio::test(start_paused = true)]
async fn its_time_is_over_at_last() {
    let stage = Stage::playing(|_, _| vec![dispatched(7), Act::Hang]);
    stage.mind();
    let begin = request("POST", "/v1/responses")
        .header("x-request-timeout-ms", "4000")
        .header("authorization", "Bearer a");
    let begun =
        stage.send(begin.body(responding(background(json!({}))).to_string().into()).unwrap()).await.json();
    let failed = stage.once_it_is(&id_of(&begun), "failed").await;
    assert_eq!(failed["error"]["code"], "deadline_exceeded");
}

#[tokio::test(start_paused = true)]
async fn what_it_took_is_told_once_however_it_ends() {
    let stage = slowly();
    stage.mind();
    let (id, key) = stage.new_key(&json!({"name": "ci", "limits": {"rpm": 5}})).await;
    let begin = |more| stage.with_key_respond(&key, background(more));
    stage.judge.refuse(Excess::Requests { after: Span::from_ms(1_500) });
    let done = id_of(&begin(json!({})).await.json());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let object = stage.of(&key, "GET", &done, "").await.json();
    assert_eq!(object["status"], "completed", "it waited for its turn");
    let usage = |object: &Value, what: &str| object["usage"][what].as_u64().expect("a count");
    let used = |requests, prompt_tokens, answer_tokens| Used { requests, prompt_tokens, answer_tokens };
    let (prompt, answer) = (usage(&object, "input_tokens"), usage(&object, "output_tokens"));
    assert_eq!(stage.used(&id), used(1, prompt, answer));
    assert_eq!(stage.settled().await, [0, prompt + answer], "the claim that was refused took nothing");
    let cut = id_of(&begin(json!({})).await.json());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    stage.of(&key, "POST", &cut, "/cancel").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let both = stage.used(&id);
    assert!(both.requests == 2 && both.answer_tokens > answer && both.answer_tokens < 2 * answer, "{both:?}");
    assert_eq!(stage.settled().await.len(), 3);
    stage.judge.refuse(Excess::Month);
    let refused = id_of(&begin(json!({})).await.json());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.of(&key, "GET", &refused, "").await.json()["error"]["code"], "quota_exceeded");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_ends_it() {
    let stage = slowly();
    stage.mind();
    let (id, key) = stage.new_key(&json!({"name": "ci", "scopes": ["inference"]})).await;
    stage.with_key_respond(&key, background(json!({}))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.cancelled(), [true]);
    assert!(stage.facts.now().jobs().all(|(_, job)| job.ended.is_some()));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_that_is_not_written_down() {
    let stage = slowly();
    stage.mind();
    let unknown = || consensus::ProposeError::OutcomeUnknown("no majority".to_owned());
    stage.facts.fail_with(std::iter::repeat_with(unknown).take(1_000).collect());
    let refused = stage.with_key_respond("a", background(json!({}))).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (503, "outcome_unknown"));
    stage.facts.fail_with(Vec::new());
    stage.drawer.full.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(stage.with_key_respond("a", background(json!({}))).await.error_code(), "storage_full");
    stage.drawer.full.store(false, std::sync::atomic::Ordering::Relaxed);
    let long = json!([{"type": "reasoning", "summary": [{"text": "x".repeat(5 << 20)}]}, {"role": "user", "content": "hello"}]);
    let too_large = stage.with_key_respond("a", background(json!({"input": long}))).await;
    assert_eq!((too_large.status.as_u16(), too_large.error_code().as_str()), (413, "request_too_large"));
    stage.facts.set_back();
    assert_eq!(stage.with_key_respond("a", background(json!({}))).await.error_code(), "cluster_updating");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(stage.wishes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_begins_it_once() {
    let stage = slowly();
    stage.mind();
    let send = |more: Value| {
        let asked = request("POST", "/v1/responses")
            .header("idempotency-key", "k")
            .header("authorization", "Bearer a");
        stage.send(asked.body(responding(more).to_string().into()).unwrap())
    };
    let (first, second) = (send(background(json!({}))).await, send(background(json!({}))).await);
    assert_eq!((first.text, second.header("idempotent-replayed")), (second.text.clone(), Some("true")));
    stage.once_it_is(&id_of(&second.json()), "completed").await;
    assert_eq!(stage.wishes().len(), 1);
    let asked = request("POST", "/v1/responses").header("idempotency-key", "k2");
    let stream =
        stage.send(asked.body(responding(json!({"stream": true})).to_string().into()).unwrap()).await;
    assert_eq!(stream.error_code(), "unsupported_parameter");
}

#[tokio::test(start_paused = true)]
async fn what_follows_one_that_runs_may_be_sent_again_under_its_key() {
    let stage = slowly();
    stage.mind();
    let first = stage.begin(json!({})).await;
    let follow = || {
        let asked = request("POST", "/v1/responses")
            .header("idempotency-key", "k")
            .header("authorization", "Bearer a");
        let body = responding(json!({"previous_response_id": first}));
        stage.send(asked.body(body.to_string().into()).unwrap())
    };
    let early = follow().await;
    assert_eq!((early.status.as_u16(), early.header("x-should-retry")), (400, None), "{}", early.text);
    assert!(early.header("retry-after").is_some());
    stage.once_it_is(&first, "completed").await;
    assert_eq!(follow().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_large_to_be_kept_with_its_question_is_cancelled_all_the_same() {
    let text = "x".repeat(4_000);
    let stage =
        Stage::playing(move |_, _| vec![dispatched(7), tokens(&ids("xxxx").repeat(1_000)), Act::Hang]);
    stage.mind();
    let long = "y".repeat(crate::limits::ANSWER_BYTES_MAX - 2_500);
    let input =
        json!([{"type": "reasoning", "summary": [{"text": long}]}, {"role": "user", "content": "hello"}]);
    let id = stage.begin(json!({"input": input})).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cancelled = stage.of("a", "POST", &id, "/cancel").await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    assert_eq!((&cancelled.json()["status"], text_of(&cancelled.json())), (&json!("cancelled"), text));
    assert_eq!(stage.now(&id).await, cancelled.json());
}

#[tokio::test(start_paused = true)]
async fn it_is_forgotten_a_day_after_its_end() {
    let stage = slowly();
    stage.mind();
    let id = stage.begin(json!({})).await;
    stage.once_it_is(&id, "completed").await;
    stage.drawer.lose_all();
    let gone = stage.of("a", "GET", &id, "").await;
    assert_eq!((gone.status.as_u16(), gone.error_code().as_str()), (410, "response_gone"));
    let over = registry::Command::ForgetJobs {
        at_unix_ms: unix_ms() + facts::JOB_KEPT_MS + limits::NEWEST.as_secs(),
    };
    stage.facts.apply(&over);
    assert_eq!(stage.of("a", "GET", &id, "").await.status, 404);
}
