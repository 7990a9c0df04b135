//! Paths, probes, names and headers beside the completions.

use axum::body::Body;
use serde_json::json;

use super::cards;
use super::stage::{Stage, model, request};

fn two_models() -> Stage {
    Stage::with(|_, _| Vec::new(), vec![model("org/demo-1", Some(cards::chatting())), model("cold", None)])
}

#[tokio::test]
async fn models_are_listed_with_what_clients_configure_themselves_from() {
    let body = two_models().get("/v1/models").await.json();
    assert_eq!(body["object"], "list");
    let cold = json!({"id": "cold", "object": "model", "created": 1_700_000_000, "owned_by": "mlx-serving", "max_model_len": null, "ready": false, "status": "loading, 40 %"});
    let demo = json!({"id": "org/demo-1", "object": "model", "created": 1_700_000_000, "owned_by": "mlx-serving", "max_model_len": 512, "ready": true, "status": "ready"});
    assert_eq!(body["data"], json!([cold, demo]));
}

#[tokio::test]
async fn a_models_id_may_contain_slashes_plain_or_escaped() {
    let stage = two_models();
    for path in ["/v1/models/org/demo-1", "/v1/models/org%2Fdemo-1"] {
        assert_eq!(stage.get(path).await.json()["id"], "org/demo-1", "{path}");
    }
    let missing = stage.get("/v1/models/org/demo").await;
    assert_eq!((missing.status.as_u16(), missing.error_code().as_str()), (404, "model_not_found"));
    assert!(missing.text.contains("org/demo-1"));
}

#[tokio::test]
async fn probes_tell_apart_the_process_the_control_plane_and_a_flowing_token() {
    let stage = two_models();
    let cases = [
        ("/livez", 200, ""),
        ("/readyz", 503, "no leader is elected yet"),
        ("/routablez", 200, ""),
        ("/routablez?model=org%2Fdemo-1", 200, ""),
        ("/routablez?model=cold", 503, "loading, 40 %"),
    ];
    for (path, status, why) in cases {
        let reply = stage.get(path).await;
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert_eq!(reply.json(), json!({"ready": status == 200, "why": why}), "{path}");
    }
    assert_eq!(stage.get("/routablez?model=nobody").await.error_code(), "model_not_found");
    stage.outage.store(true, std::sync::atomic::Ordering::Relaxed);
    let reply = stage.get("/routablez?model=org%2Fdemo-1").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["why"]), (503, &json!("no leader is elected yet")));
    stage.outage.store(false, std::sync::atomic::Ordering::Relaxed);
    stage.catalogue.replace(std::collections::BTreeMap::new());
    assert_eq!(stage.get("/routablez").await.status, 503);
}

#[tokio::test]
async fn the_front_page_says_where_to_go_by_the_name_that_the_caller_has_for_it() {
    let stage = two_models();
    let page = stage.get("/").await;
    assert!(page.text.contains("base_url http://localhost:7440/v1"), "{}", page.text);
    let head = stage.send(request("HEAD", "/").body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn the_status_is_made_for_each_request() {
    let reply = two_models().get("/api/v1/status").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"schema": "test/1"})));
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_one_shape() {
    let stage = two_models();
    let cases = [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ];
    for (method, path, status, code) in cases {
        let reply = stage.send(request(method, path).body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (status, code), "{method} {path}");
        assert_eq!(reply.json()["error"].as_object().unwrap().len(), 4);
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_on_every_path() {
    let stage = two_models();
    for path in ["/", "/v1/models", "/livez", "/metrics", "/api/v1/status", "/api/v1/queue", "/nothing"] {
        let foreign = axum::http::Request::builder()
            .uri(path)
            .header("host", "evil.example")
            .body(Body::empty())
            .unwrap();
        let reply = stage.send(foreign).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (421, "wrong_host"), "{path}");
        let nameless = axum::http::Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(stage.send(nameless).await.status, 421, "{path}");
        let two = request("GET", path).header("host", "localhost").body(Body::empty()).unwrap();
        assert_eq!(stage.send(two).await.status, 421, "{path}");
    }
}

#[tokio::test]
async fn a_request_keeps_the_name_its_client_gave_it() {
    let stage = Stage::saying("hi");
    let named = |id: &str| request("GET", "/livez").header("x-request-id", id).body(Body::empty()).unwrap();
    let kept = stage.send(named("trace-1")).await;
    assert_eq!((kept.header("x-request-id"), kept.header("request-id")), (Some("trace-1"), Some("trace-1")));
    let replaced = stage.send(named("no good")).await;
    assert!(replaced.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    let refused = stage.chat(json!({"n": 0})).await;
    assert!(refused.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "errors are named too");
    assert!(refused.header("openai-processing-ms").is_some_and(|ms| ms.parse::<u64>().is_ok()));
}
