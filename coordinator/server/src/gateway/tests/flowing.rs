//! Long answers, slow clients, long prompts: what flows stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::cards;
use super::drawer::Drawer;
use super::facts::{Facts, OneRoom};
use super::stage::{Stage, chat_body, dispatched, finished, ids, model, queued, request, tokens};
use super::viewing::Scripted;
use crate::catalogue::Catalogue;
use crate::gateway::long_texts::LongTexts;
use crate::gateway::text::rendering::Here;
use crate::gateway::{GatewayState, LocalKey, Ready, limits, open};
use crate::generation::{Event, FinishReason, Generation, StartGeneration, Wish};

#[tokio::test]
async fn a_long_answer_costs_the_same_for_each_token() {
    // The predecessor sent the whole text again with each token and died at 1,607 of them.
    let bytes_of = |count: usize| async move {
        let stage = Stage::playing(move |_, _| {
            let each = (0..count).map(|_| tokens(&ids("hello")));
            std::iter::once(dispatched(1)).chain(each).chain([finished(FinishReason::Length, 1)]).collect()
        });
        let reply = stage.chat(json!({"stream": true})).await;
        assert_eq!(reply.content(0).len(), "hello".len() * count);
        reply.text.len()
    };
    let (short, long) = (bytes_of(300).await, bytes_of(3_000).await);
    assert!(long < short * 11, "{short} bytes for 300 tokens, {long} for 3,000");
}

/// A cluster side with a small channel, which counts what the gateway took.
struct Counting {
    taken: Arc<AtomicUsize>,
}

impl StartGeneration for Counting {
    fn start(&self, _: Wish) -> Generation {
        let (sender, events) = mpsc::channel(4);
        let taken = self.taken.clone();
        tokio::spawn(async move {
            let _ = sender.send(Event::Dispatched { node: 1, attempt: 1, affinity: None }).await;
            while sender.send(Event::Tokens { ids: vec![104], logprobs: Vec::new() }).await.is_ok() {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (enough, cancel) = (CancellationToken::new(), CancellationToken::new());
        Generation { request: 1, events, enough, _cancel: cancel.drop_guard() }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_flow() {
    let taken = Arc::new(AtomicUsize::new(0));
    let catalogue = Catalogue::default();
    let demo = Arc::new(model("demo", Some(cards::chatting())));
    catalogue.replace([("demo".to_owned(), demo)].into());
    let facts = Facts::founded();
    let state = GatewayState {
        catalogue,
        renderers: Arc::new(Here),
        generations: Arc::new(Counting { taken: taken.clone() }),
        readiness: Arc::new(|| Ready { leader: true, soon: true, why: String::new() }),
        status: Arc::new(|| Box::pin(async { json!({}) })),
        views: Arc::new(Scripted),
        registry: facts.registry(),
        local_key: Arc::new(LocalKey::make(1).unwrap().0),
        facts: facts.clone(),
        claims: Arc::new(super::passing::Judge::default()),
        tally: crate::tally::Tally::default(),
        room: Arc::new(OneRoom),
        group: Arc::new(super::grouping::Alone),
        jobs: Arc::<Drawer>::default().jobs(1),
        hash_key: [7; 32],
        api: "127.0.0.1:7440".parse().unwrap(),
    };
    let body = chat_body(json!({"stream": true})).to_string();
    let asked = request("POST", "/v1/chat/completions").body(Body::from(body)).unwrap();
    let response = open(state).0.oneshot(asked).await.unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let before = taken.load(Ordering::Relaxed);
    assert!(
        before <= 2 * limits::EVENTS_AT_ONCE,
        "{before} tokens were taken for a client that reads nothing"
    );
    // One read lets a bounded number through.
    let mut stream = Box::pin(response.into_body().into_data_stream());
    assert!(stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(taken.load(Ordering::Relaxed) <= before + 2 * limits::EVENTS_AT_ONCE);
}

#[tokio::test]
async fn short_texts_run_at_once_and_long_ones_on_another_thread() {
    let here = std::thread::current().id();
    let texts = LongTexts::new();
    let thread = |length: usize| {
        let texts = texts.clone();
        async move { texts.run(Bytes::from(vec![b'x'; length]), |_| std::thread::current().id()).await.unwrap() }
    };
    assert_eq!(thread(limits::INLINE_TEXT_BYTES).await, here);
    assert_ne!(thread(limits::INLINE_TEXT_BYTES + 1).await, here);
}

#[tokio::test]
async fn only_a_few_long_texts_are_worked_on_at_once() {
    let texts = LongTexts::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = |now: Arc<AtomicUsize>, most: Arc<AtomicUsize>| {
        move |_: &[u8]| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let runs = (0..40).map(|_| {
        let (texts, work) = (texts.clone(), work(now.clone(), most.clone()));
        tokio::spawn(async move { texts.run(Bytes::from(vec![0; 1 << 20]), work).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=limits::LONG_TEXTS_AT_ONCE).contains(&most), "{most} at once");
}

#[tokio::test]
async fn work_that_panics_on_another_thread_fails_one_request() {
    let texts = LongTexts::new();
    let text = || Bytes::from(vec![0; limits::INLINE_TEXT_BYTES + 1]);
    for _ in 0..2 * limits::LONG_TEXTS_AT_ONCE {
        let failed = texts.run(text(), |_| -> () { panic!("as a tokenizer might") }).await;
        assert_eq!(failed.expect_err("failed").code, "internal_error");
    }
    assert_eq!(texts.run(text(), <[u8]>::len).await.unwrap(), text().len());
}

#[tokio::test]
async fn long_prompts_and_streams_are_served_side_by_side() {
    let mut long = model("demo", Some(cards::chatting()));
    long.facts.as_mut().unwrap().context_length = 10_000_000;
    let stage = Arc::new(Stage::with(|_, _| super::stage::said("fine"), vec![long]));
    let text = "hello world, ".repeat(20_000);
    let requests = (0..6).map(|nth| {
        let (stage, text) = (stage.clone(), if nth % 2 == 0 { text.clone() } else { "short".to_owned() });
        tokio::spawn(async move {
            let messages = json!([{"role": "user", "content": text}]);
            stage.chat(json!({"messages": messages, "stream": nth % 3 == 0})).await
        })
    });
    for request in requests.collect::<Vec<_>>() {
        let reply = request.await.unwrap();
        assert_eq!(reply.status, 200);
        assert!(reply.text.contains("fine"));
    }
}

#[tokio::test]
async fn the_most_answers_to_one_request_are_all_given() {
    let stage = Stage::playing(|nth, _| super::stage::said(&format!("answer {nth}")));
    let body = stage.complete(json!({"prompt": vec!["hello"; 8], "n": 16})).await.json();
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), limits::CHOICES_MAX);
    for (at, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["text"]), (&json!(at), &json!(format!("answer {at}"))));
    }
}

#[tokio::test]
async fn an_answer_that_was_moved_to_another_node_goes_on_in_the_same_stream() {
    let stage = Stage::playing(|_, _| {
        vec![
            dispatched(1),
            queued(0, None),
            dispatched(2),
            tokens(&ids("hello")),
            dispatched(3),
            tokens(&ids(" world")),
            finished(FinishReason::Stop, 3),
        ]
    });
    let reply = stage.chat(json!({})).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "hello world");
    assert_eq!(reply.header("x-mlx-node"), Some("3"));
}
