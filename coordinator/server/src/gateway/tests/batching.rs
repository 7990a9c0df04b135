//! `/v1/batches`: every request of a file is answered once, whoever dies, and what is wrong says where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use registry::{
    BatchChange, BatchEndpoint, BatchId, Command, Ending, FileId, JobRun, KeyId, Life, Reply as Fact,
    limits as facts,
};
use scheduler::allowance::Excess;
use scheduler::{Class, Span};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::stage::{Act, Reply, Stage, dispatched, finished, ids, said, tokens};
use crate::clock::unix_ms;
use crate::gateway::limits;
use crate::generation::{Event, Failure, FinishReason, Wish};

/// The answer is a function of the prompt.
fn echo(wish: &Wish) -> Vec<Act> {
    said(&format!("n{}", wish.prompt.len()))
}

pub(super) fn slowly(wish: &Wish) -> Vec<Act> {
    let text = ids(&format!("n{}", wish.prompt.len()));
    vec![dispatched(7), Act::Pause(Duration::from_secs(4)), tokens(&text), finished(FinishReason::Stop, 3)]
}

pub(super) fn line(id: &str, body: Value) -> String {
    let line = json!({"custom_id": id, "method": "POST", "url": "/v1/completions", "body": body});
    format!("{line}\n")
}

/// Requests with prompts of 1, 2, 3 ... tokens.
pub(super) fn requests(count: usize) -> String {
    let body = |number: usize| json!({"model": "demo", "prompt": vec![5; number % 90 + 1], "max_tokens": 20});
    (0..count).map(|number| line(&format!("r-{number}"), body(number))).collect()
}

impl Stage {
    /// Until it is aborted, and with it all that runs.
    pub(super) fn mind(&self) -> JoinHandle<()> {
        let minder = self.minder.lock().unwrap().take().expect("once");
        tokio::spawn(minder.run())
    }

    pub(super) async fn batch(&self, bearer: &str, text: &str, more: Value) -> Value {
        let file = self.upload(bearer, text).await;
        let mut body =
            json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let begun = self.with_key("POST", "/v1/batches", bearer, Some(&body)).await;
        assert_eq!(begun.status.as_u16(), 200, "{}", begun.text);
        begun.json()
    }

    pub(super) async fn standing(&self, bearer: &str, id: &Value) -> Value {
        let path = format!("/v1/batches/{}", id.as_str().expect("an id"));
        self.with_key("GET", &path, bearer, None).await.json()
    }

    /// Polls, as clients do.
    pub(super) async fn until(&self, bearer: &str, id: &Value, status: &str) -> Value {
        for _ in 0..2_000 {
            let batch = self.standing(bearer, id).await;
            if batch["status"] == status {
                return batch;
            }
            let over = ["completed", "failed", "expired", "cancelled"];
            assert!(!over.contains(&batch["status"].as_str().expect("a status")), "{batch}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("it never was {status}: {}", self.standing(bearer, id).await);
    }

    pub(super) async fn lines(&self, bearer: &str, file: &Value) -> Vec<Value> {
        let Some(file) = file.as_str() else { return Vec::new() };
        let content = self.with_key("GET", &format!("/v1/files/{file}/content"), bearer, None).await;
        assert!(!content.broke);
        content.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Every request has its own answer, in the order of the file.
pub(super) fn assert_answered(lines: &[Value], count: usize) {
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["custom_id"].clone(), line["response"]["body"]["choices"][0]["text"].clone()))
        .collect();
    let expected: Vec<_> = (0..count)
        .map(|number| (json!(format!("r-{number}")), json!(format!("n{}", number % 90 + 1))))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn every_request_of_a_file_is_answered_in_its_order_in_the_class_of_batches() {
    let stage = Stage::playing(|_, wish| echo(wish));
    stage.mind();
    let begun = stage.batch("a", &requests(100), json!({"metadata": {"team": "red"}})).await;
    let id = &begun["id"];
    let at = begun["created_at"].as_u64().expect("a time");
    let expected = json!({
        "id": id, "object": "batch", "endpoint": "/v1/completions", "errors": null,
        "input_file_id": begun["input_file_id"], "completion_window": "24h", "status": "validating",
        "output_file_id": null, "error_file_id": null, "created_at": at, "in_progress_at": null,
        "expires_at": at + 86_400, "finalizing_at": null, "completed_at": null, "failed_at": null,
        "expired_at": null, "cancelling_at": null, "cancelled_at": null,
        "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": {"team": "red"},
    });
    assert_eq!(begun, expected);
    let batch = stage.until("a", id, "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 100, "completed": 100, "failed": 0}));
    assert!(
        batch["completed_at"].is_u64() && batch["finalizing_at"].is_u64() && batch["in_progress_at"].is_u64()
    );
    assert_eq!(batch["error_file_id"], Value::Null);
    let lines = stage.lines("a", &batch["output_file_id"]).await;
    assert_answered(&lines, 100);
    let first = &lines[0];
    assert_eq!((&first["error"], &first["response"]["status_code"]), (&Value::Null, &json!(200)));
    assert_eq!(first["id"], first["response"]["request_id"]);
    assert_eq!(first["response"]["body"]["object"], "text_completion");
    assert!(stage.wishes().iter().all(|wish| wish.traits.class == Class::Batch));
    let output = stage.with_key("GET", "/v1/files?purpose=batch_output", "a", None).await.json();
    assert_eq!(output["data"][0]["id"], batch["output_file_id"]);
    let facts = serde_json::to_string(stage.facts.now().as_ref()).expect("JSON");
    assert!(!facts.contains("r-0") && !facts.contains("prompt"), "of requests nothing is among the facts");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_asked_fails_as_a_whole_and_says_where() {
    let stage = Stage::playing(|_, wish| echo(wish));
    stage.mind();
    let good = |id: &str| line(id, json!({"model": "demo", "prompt": "hello"}));
    let text = [
        good("a"),
        "not json canary\n".to_owned(),
        "\n".to_owned(),
        good("a"),
        good("b").replace("/v1/completions", "/v1/chat/completions"),
        good("c").replace("POST", "GET"),
        line("d", json!({"model": "demo", "prompt": "hello", "stream": true})),
        line("e", json!({"model": "nobody-canary", "prompt": "hello"})),
        "{\"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {}}\n".to_owned(),
        good("f").replace("\"method\"", "\"more\": 1, \"method\""),
        line("g", json!([])),
        "[\"h\", \"POST\", \"/v1/completions\", {}]".to_owned(),
    ]
    .concat();
    let begun = stage.batch("a", &text, json!({})).await;
    let batch = stage.until("a", &begun["id"], "failed").await;
    let told = batch["errors"]["data"].as_array().expect("reasons").iter();
    let told: Vec<_> =
        told.map(|error| (error["line"].as_u64(), error["code"].as_str().expect("a code"))).collect();
    let expected = [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "mismatched_url"),
        (6, "invalid_method"),
        (7, "unsupported_parameter"),
        (8, "model_not_found"),
        (9, "missing_required_parameter"),
        (10, "invalid_json_line"),
        (11, "invalid_value"),
        (12, "invalid_json_line"),
    ];
    assert_eq!(told, expected.map(|(line, code)| (Some(line), code)));
    assert!(batch["failed_at"].is_u64() && !batch.to_string().contains("canary"), "{batch}");
    assert!(stage.wishes().is_empty());
    let empty = stage.batch("a", "\n \n", json!({})).await;
    let empty = stage.until("a", &empty["id"], "failed").await;
    assert_eq!(empty["errors"]["data"][0]["code"], "empty_file");
}

#[tokio::test(start_paused = true)]
async fn what_stays_wrong_with_one_request_is_its_error_and_what_gets_better_is_waited_for() {
    let after = Duration::from_secs(3);
    let stage = Stage::playing(move |number, wish| match number {
        0 => vec![Act::Event(Event::Failed(Failure::Overloaded { retry_after: after }))],
        1 => vec![Act::Event(Event::Failed(Failure::NodeLost { began: false }))],
        _ if wish.prompt.len() == 7 => vec![Act::Event(Event::Failed(Failure::Quarantined))],
        _ => echo(wish),
    });
    stage.mind();
    let of = |id: &str, more: Value| {
        let mut body = json!({"model": "demo", "prompt": [5, 5]});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        line(id, body)
    };
    let text = [
        of("fine", json!({})),
        of("hot", json!({"temperature": 9})),
        of("long", json!({"prompt": vec![5; 600]})),
        of("poison", json!({"prompt": vec![5; 7]})),
        of("also fine", json!({})),
    ];
    let begun = stage.batch("a", &text.concat(), json!({})).await;
    let batch = stage.until("a", &begun["id"], "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 5, "completed": 2, "failed": 3}));
    let ids = |lines: &[Value]| lines.iter().map(|line| line["custom_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&stage.lines("a", &batch["output_file_id"]).await), ["fine", "also fine"]);
    let errors = stage.lines("a", &batch["error_file_id"]).await;
    assert_eq!(ids(&errors), ["hot", "long", "poison"]);
    let codes: Vec<_> = errors.iter().map(|line| line["response"]["body"]["error"]["code"].clone()).collect();
    assert_eq!(codes, ["invalid_value", "context_length_exceeded", "request_quarantined"]);
    assert!(errors.iter().all(|line| line["response"]["status_code"] == 400));
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_coordinator_is_gone_goes_on_at_another_from_its_last_step() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    let other = stage.beside(2, |_, wish| echo(wish));
    let (first, _second) = (stage.mind(), other.mind());
    let begun = stage.batch("a", &requests(200), json!({})).await;
    while stage.standing("a", &begun["id"]).await["request_counts"]["completed"].as_u64() < Some(40) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    first.abort();
    stage.drawer.cut_off(1);
    let batch = other.until("a", &begun["id"], "completed").await;
    assert_answered(&other.lines("a", &batch["output_file_id"]).await, 200);
    assert!(other.wishes().len() <= 160, "what was committed is not asked again: {}", other.wishes().len());
    let registry = other.facts.now();
    assert_eq!(registry.batches().next().expect("a batch").1.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_run_one_batch_only_one_delivers() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    let other = stage.beside(2, |_, wish| slowly(wish));
    let _minding = (stage.mind(), other.mind());
    let begun = stage.batch("a", &requests(150), json!({})).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    // It is only cut off, and goes on.
    stage.drawer.cut_off(1);
    let batch = other.until("a", &begun["id"], "completed").await;
    assert_answered(&other.lines("a", &batch["output_file_id"]).await, 150);
}

#[tokio::test(start_paused = true)]
async fn the_next_life_of_a_coordinator_goes_on_with_what_the_former_one_left() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    let first = stage.mind();
    let begun = stage.batch("a", &requests(60), json!({})).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    first.abort();
    let next = stage.beside(1, |_, wish| echo(wish));
    next.mind();
    let batch = next.until("a", &begun["id"], "completed").await;
    assert_answered(&next.lines("a", &batch["output_file_id"]).await, 60);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_cancelled_asks_nothing_more_and_keeps_what_it_has() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    stage.mind();
    let begun = stage.batch("a", &requests(200), json!({})).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let path = format!("/v1/batches/{}/cancel", begun["id"].as_str().expect("an id"));
    let cancelled = stage.with_key("POST", &path, "a", None).await.json();
    assert!(
        ["cancelling", "cancelled"].contains(&cancelled["status"].as_str().expect("a status")),
        "{cancelled}"
    );
    let batch = stage.until("a", &begun["id"], "cancelled").await;
    assert!(batch["cancelling_at"].is_u64() && batch["cancelled_at"].is_u64());
    let done = batch["request_counts"]["completed"].as_u64().expect("a count");
    assert!((8..200).contains(&done), "{batch}");
    assert_answered(&stage.lines("a", &batch["output_file_id"]).await, usize::try_from(done).unwrap());
    assert!(stage.cancelled().iter().all(|cancelled| *cancelled), "nothing of it runs any more");
    let asked = stage.wishes().len();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(stage.wishes().len(), asked);
    let again = stage.with_key("POST", &path, "a", None).await;
    assert_eq!((again.status.as_u16(), again.error_code().as_str()), (409, "batch_ended"));
}

/// A batch that began so long ago at a coordinator that is gone, with three requests of which one is answered.
fn began(stage: &Stage, file: &Value, at_unix_ms: u64) -> Value {
    let run = JobRun { replica: 9, life: Life(1), number: 1 };
    let registry = stage.facts.now();
    let input = FileId(file.as_str().expect("an id").to_owned());
    let tenant = registry.file(&input).expect("there").tenant;
    let piece = registry.file(&input).expect("there").pieces[0].clone();
    let begin = BatchChange::Begin {
        tenant,
        key: None,
        input,
        endpoint: BatchEndpoint::Completions,
        metadata: BTreeMap::new(),
        run,
        at_unix_ms,
    };
    let open = BatchChange::Open { run, lines: 3, at_unix_ms };
    let (output, errors) = (Some(piece), None);
    let keep = BatchChange::Keep { run, after: 0, completed: 1, failed: 0, output, errors, at_unix_ms };
    for change in [begin, open, keep] {
        let command = Command::ChangeBatch { batch: BatchId("batch_old".to_owned()), change };
        assert_eq!(stage.facts.apply(&command), Fact::Done);
    }
    json!("batch_old")
}

#[tokio::test(start_paused = true)]
async fn what_is_left_when_the_day_is_over_says_so_and_what_is_done_stays_readable() {
    let stage = Stage::playing(|_, wish| echo(wish));
    let file = json!(stage.upload("a", &requests(3)).await);
    let id = began(&stage, &file, unix_ms() - facts::BATCH_WINDOW_MS);
    stage.mind();
    let batch = stage.until("a", &id, "expired").await;
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 1, "failed": 2}));
    assert!(batch["expired_at"].is_u64() && batch["output_file_id"].is_string());
    let errors = stage.lines("a", &batch["error_file_id"]).await;
    let told: Vec<_> = errors.iter().map(|line| (&line["custom_id"], &line["error"]["code"])).collect();
    assert_eq!(told, [(&json!("r-1"), &json!("batch_expired")), (&json!("r-2"), &json!("batch_expired"))]);
    assert!(stage.wishes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_ends_its_batches_also_those_that_nobody_runs() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    let (id, key) = stage.new_key(&json!({"name": "ci", "scopes": ["inference"]})).await;
    let minding = stage.mind();
    let begun = stage.batch(&key, &requests(100), json!({})).await;
    let left = stage.batch(&key, &requests(100), json!({})).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for batch in [&begun, &left] {
        let registry = stage.facts.now();
        let batch = registry.batch(&BatchId(batch["id"].as_str().expect("an id").to_owned())).expect("there");
        let ended = batch.ended.as_ref().unwrap_or_else(|| panic!("it goes on: {batch:?}"));
        assert_eq!(ended.how, Ending::Failed, "{batch:?}");
        assert_eq!(ended.problems[0].code, "invalid_api_key");
    }
    assert!(stage.cancelled().iter().all(|cancelled| *cancelled));
    minding.abort();
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_key_are_waited_for_and_a_used_up_month_is_an_error_of_its_line() {
    let stage = Stage::playing(|_, wish| echo(wish));
    let (id, key) = stage.new_key(&json!({"name": "ci", "limits": {"rpm": 5}})).await;
    // The last one that is told is decided first.
    stage.judge.refuse(Excess::Month);
    stage.judge.refuse(Excess::Requests { after: Span::from_ms(40_000) });
    stage.judge.refuse(Excess::Concurrent);
    stage.mind();
    let begun = stage.batch(&key, &requests(3), json!({})).await;
    let batch = stage.until(&key, &begun["id"], "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    let errors = stage.lines(&key, &batch["error_file_id"]).await;
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "quota_exceeded");
    assert_eq!(errors[0]["response"]["status_code"], 429);
    let used = stage.judge.tally.now(&KeyId(id));
    assert_eq!(used.requests, 2, "each answer counts as any other of the key");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_somebody_else_is_none() {
    let stage = Stage::playing(|_, wish| echo(wish));
    stage.mind();
    let begun = stage.batch("a", &requests(3), json!({})).await;
    let id = begun["id"].as_str().expect("an id");
    for (method, path) in [("GET", ""), ("POST", "/cancel")] {
        let path = format!("/v1/batches/{id}{path}");
        let told = stage.with_key(method, &path, "b", None).await;
        let none = stage.with_key(method, &path.replace(id, "batch_0"), "b", None).await;
        assert_eq!((told.status.as_u16(), told.text.replace(id, "batch_0")), (404, none.text));
    }
    assert_eq!(stage.with_key("GET", "/v1/batches", "b", None).await.json()["data"], json!([]));
    let body = json!({"input_file_id": begun["input_file_id"], "endpoint": "/v1/completions", "completion_window": "24h"});
    let stolen = stage.with_key("POST", "/v1/batches", "b", Some(&body)).await;
    assert_eq!((stolen.status.as_u16(), stolen.error_code().as_str()), (404, "not_found"));
}

#[tokio::test(start_paused = true)]
async fn batches_are_listed_page_by_page_the_newest_first() {
    let stage = Stage::playing(|_, wish| echo(wish));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, stage.batch("a", &requests(1), json!({})).await["id"].clone());
        std::thread::sleep(Duration::from_millis(2));
    }
    let list = async |query: &str| stage.with_key("GET", &format!("/v1/batches{query}"), "a", None).await;
    let told = |reply: &Reply| {
        let page = reply.json();
        let ids: Vec<_> =
            page["data"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
        (ids, page["has_more"] == true)
    };
    assert_eq!(told(&list("").await), (ids.clone(), false));
    assert_eq!(told(&list("?limit=2").await), (ids[..2].to_vec(), true));
    let after = format!("?limit=2&after={}", ids[1].as_str().expect("an id"));
    assert_eq!(told(&list(&after).await), (ids[2..].to_vec(), false));
    for bad in ["?limit=101", "?limit=0", "?after=batch_0", "?order=asc"] {
        assert_eq!(list(bad).await.status.as_u16(), 400, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_batch_is_refused_with_words_and_one_with_a_key_begins_once() {
    let stage = Stage::playing(|_, wish| echo(wish));
    let file = stage.upload("a", &requests(2)).await;
    let proposed = stage.facts.proposed();
    let good = json!({"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"});
    for (field, value, status, code) in [
        ("input_file_id", json!("file/0"), 404, "not_found"),
        ("input_file_id", json!("f".repeat(9_000)), 404, "not_found"),
        ("input_file_id", json!(7), 400, "invalid_request"),
        ("endpoint", json!("/v1/embeddings"), 400, "invalid_value"),
        ("completion_window", json!("1h"), 400, "invalid_value"),
        (
            "output_expires_after",
            json!({"anchor": "created_at", "seconds": 3600}),
            400,
            "unsupported_parameter",
        ),
        ("metadata", json!({"k": "v".repeat(9_000)}), 400, "invalid_request"),
        ("metadata", json!({"": "v"}), 400, "invalid_request"),
        ("unknown", json!(1), 400, "invalid_request"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refused = stage.with_key("POST", "/v1/batches", "a", Some(&body)).await;
        assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (status, code), "{body}");
    }
    assert_eq!((stage.facts.proposed(), stage.facts.now().batches().count()), (proposed, 0));
    let none = json!({"input_file_id": "file-0", "endpoint": "/v1/completions", "completion_window": "24h"});
    assert_eq!(stage.with_key("POST", "/v1/batches", "a", Some(&none)).await.error_code(), "not_found");
    let ask = async || {
        let asked = super::stage::request("POST", "/v1/batches").header("authorization", "Bearer a");
        stage.send(asked.header("idempotency-key", "k").body(good.to_string().into()).unwrap()).await
    };
    let (first, again) = (ask().await, ask().await);
    assert_eq!((first.status.as_u16(), &first.text), (200, &again.text));
    assert_eq!(stage.facts.now().batches().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_without_room_and_a_registry_without_a_leader_are_waited_for() {
    let stage = Arc::new(Stage::playing(|_, wish| slowly(wish)));
    stage.mind();
    let begun = stage.batch("a", &requests(40), json!({})).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.drawer.full.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.standing("a", &begun["id"]).await["request_counts"]["completed"], 0);
    stage.drawer.full.store(false, Ordering::Relaxed);
    let unknown = || consensus::ProposeError::OutcomeUnknown("no majority".to_owned());
    stage.facts.fail_with(std::iter::repeat_with(unknown).take(50).collect());
    let batch = stage.until("a", &begun["id"], "completed").await;
    assert_answered(&stage.lines("a", &batch["output_file_id"]).await, 40);
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_have_a_bound() {
    let stage = Stage::playing(|_, _| vec![Act::Hang]);
    stage.mind();
    for _ in 0..3 {
        stage.batch("a", &requests(60), json!({})).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.wishes().len(), limits::LINES_AT_ONCE);
}
