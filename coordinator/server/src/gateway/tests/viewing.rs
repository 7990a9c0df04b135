//! The pages on the queue and the explanations: who is found, under which name, and what is said of strangers.

use std::collections::BTreeMap;

use axum::body::Body;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::cards;
use super::stage::{Act, FIRST_REQUEST, Stage, dispatched, model, queued, request, said};
use crate::gateway::{Document, Views};
use crate::generation::{Event, Failure};

/// A cluster that knows the first few requests, one model, and two nodes.
pub(super) struct Scripted;

impl Views for Scripted {
    fn queue(&self) -> BoxFuture<'_, Document> {
        let waiting = json!([{"request": 41, "model": "demo", "position": 1}]);
        Box::pin(async move { keys(json!({"waiting": waiting, "by_model": {}, "seconds_of_work": 1.5})) })
    }

    fn explain_request(&self, request: u64) -> BoxFuture<'_, Option<Document>> {
        let known = (FIRST_REQUEST..FIRST_REQUEST + 8).contains(&request);
        Box::pin(async move {
            known.then(|| keys(json!({"words": format!("request {request} waits"), "request": request})))
        })
    }

    fn explain_model<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Option<Document>> {
        Box::pin(async move { (model == "org/demo").then(|| keys(json!({"words": "two nodes hold it"}))) })
    }

    fn explain_node(&self, node: u64) -> BoxFuture<'_, Option<Document>> {
        Box::pin(async move { (node <= 2).then(|| keys(json!({"words": format!("node {node} is idle")}))) })
    }

    fn nodes(&self) -> BoxFuture<'_, BTreeMap<u64, String>> {
        Box::pin(async { [(1, "mini-01".to_owned()), (2, "Ada's Mac".to_owned())].into() })
    }
}

fn keys(value: Value) -> Document {
    value.as_object().cloned().expect("an object")
}

#[tokio::test]
async fn the_queue_is_a_document_with_its_schema() {
    let reply = Stage::saying("hi").get("/api/v1/queue").await;
    let waiting = json!([{"request": 41, "model": "demo", "position": 1}]);
    let expected =
        json!({"schema": "mlx-serving.queue.v1", "waiting": waiting, "by_model": {}, "seconds_of_work": 1.5});
    assert_eq!((reply.status.as_u16(), reply.json()), (200, expected));
}

#[tokio::test]
async fn a_model_and_a_node_are_explained_by_what_people_call_them() {
    let stage = Stage::saying("hi");
    let cases = [
        ("model/org/demo", "two nodes hold it"),
        ("model/org%2Fdemo", "two nodes hold it"),
        ("node/mini-01", "node 1 is idle"),
        ("node/Ada%27s%20Mac", "node 2 is idle"),
        ("node/2", "node 2 is idle"),
    ];
    for (path, words) in cases {
        let reply = stage.get(&format!("/api/v1/explain/{path}")).await;
        let expected = json!({"schema": "mlx-serving.explain.v1", "words": words});
        assert_eq!((reply.status.as_u16(), reply.json()), (200, expected), "{path}");
    }
}

#[tokio::test]
async fn a_request_is_explained_by_the_name_its_client_got_and_by_its_number() {
    let stage = Stage::saying("hi");
    let second = FIRST_REQUEST + 1;
    stage.chat(json!({})).await;
    let reply = stage.chat_with(&[("x-request-id", "team/a:7")], json!({"stream": true})).await;
    assert_eq!(reply.header("x-mlx-request"), Some(second.to_string().as_str()));
    for id in ["team/a:7", "team%2Fa%3A7", &second.to_string()] {
        let explained = stage.get(&format!("/api/v1/explain/request/{id}")).await;
        assert_eq!(explained.json()["request"], second, "{id}");
    }
    let named = stage.chat(json!({"n": 2})).await;
    let id = named.header("x-request-id").expect("a name").to_owned();
    let explained = stage.get(&format!("/api/v1/explain/request/{id}")).await;
    assert_eq!(explained.json()["request"], second + 1, "of several answers the first");
}

#[tokio::test(start_paused = true)]
async fn a_request_can_be_explained_while_its_client_still_waits_for_the_first_byte() {
    let stage = Stage::playing(|_, _| vec![queued(3, None), Act::Hang]);
    let asking = stage.chat_with(&[("x-request-id", "mine")], json!({}));
    let waited = tokio::time::timeout(std::time::Duration::from_secs(1), asking).await;
    assert!(waited.is_err(), "nothing was answered");
    let explained = stage.get("/api/v1/explain/request/mine").await;
    assert_eq!(explained.json()["words"], format!("request {FIRST_REQUEST} waits"));
}

#[tokio::test]
async fn a_refused_request_is_named_and_can_be_explained() {
    let stage = Stage::failing(Failure::Quarantined);
    for stream in [false, true] {
        let reply = stage.chat(json!({"stream": stream})).await;
        assert_eq!(reply.status, 400);
        let number = reply.header("x-mlx-request").expect("a number").to_owned();
        let explained = stage.get(&format!("/api/v1/explain/request/{number}")).await;
        assert_eq!(explained.json()["words"], format!("request {number} waits"));
    }
}

#[tokio::test]
async fn who_is_not_known_is_404_with_the_closest_name() {
    let models = vec![model("org/demo-1", Some(cards::chatting()))];
    let stage = Stage::with(|_, _| said("hi"), models);
    let cases = [
        ("request/req_nobody", "request_not_found", "only the latest are remembered"),
        ("request/999999", "request_not_found", "only the latest are remembered"),
        ("model/org/demo-2", "model_not_found", "org/demo-1"),
        ("node/mini-02", "node_not_found", "Did you mean mini-01?"),
        ("node/ada%27s%20mac", "node_not_found", "Did you mean Ada's Mac?"),
        ("node/9", "node_not_found", "GET /api/v1/status lists the nodes"),
        ("weather/today", "not_found", "nothing at this path"),
    ];
    for (path, code, words) in cases {
        let reply = stage.get(&format!("/api/v1/explain/{path}")).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (404, code), "{path}");
        assert!(reply.text.contains(words), "{path}: {}", reply.text);
        assert_eq!(reply.json()["error"].as_object().unwrap().len(), 4);
    }
}

#[tokio::test]
async fn the_views_are_read_only() {
    let stage = Stage::saying("hi");
    for path in ["/api/v1/queue", "/api/v1/explain/node/1", "/api/v1/explain/request/1"] {
        let post = request("POST", path).body(Body::empty()).unwrap();
        assert_eq!(stage.send(post).await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn a_moved_request_keeps_its_number() {
    let stage = Stage::playing(|_, _| {
        let lost = Act::Event(Event::Failed(Failure::NodeLost { began: false }));
        vec![dispatched(1), queued(0, None), dispatched(2), lost]
    });
    let reply = stage.chat(json!({})).await;
    assert_eq!(reply.header("x-mlx-request"), Some(FIRST_REQUEST.to_string().as_str()));
}
