//! Every route asks for a key of the right scope, and nobody gets past that.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use registry::Scope;
use serde_json::json;
use tower::ServiceExt as _;

use super::cards;
use super::facts::Facts;
use super::stage::{Reply, Stage, model, request, said};
use crate::gateway::LocalKey;
use crate::gateway::access::{Access, Guard, Needs, check};
use crate::gateway::routes::{self, Route};

/// What needs no key: probes, and the page that says where to go. Whoever adds to it opens a door.
const OPEN: [&str; 4] = ["/", "/livez", "/readyz", "/routablez"];

/// Beyond loopback, so that nobody is served without a key.
pub(super) fn beyond() -> Stage {
    Stage::at("192.0.2.7:7440", |_, _| said("hi"), vec![model("demo", Some(cards::chatting()))])
}

/// A path that the route takes, and a method that it may not take: the guard comes first.
fn example(route: &Route) -> String {
    route
        .path
        .replace("{*id}", "org/demo")
        .replace("{*name}", "org/demo")
        .replace("{node}", "1")
        .replace("{id}", "0a")
        .replace("{number}", "1")
}

async fn ask(stage: &Stage, method: &str, path: &str, key: Option<&str>) -> Reply {
    let asked = request(method, path);
    let asked = match key {
        Some(key) => asked.header("authorization", format!("Bearer {key}")),
        None => asked,
    };
    stage.send(asked.body(Body::empty()).unwrap()).await
}

fn assert_unauthorised(reply: &Reply, what: &str) {
    assert_eq!(
        (reply.status, reply.error_code().as_str()),
        (StatusCode::UNAUTHORIZED, "invalid_api_key"),
        "{what}"
    );
    assert_refusal(reply, "authentication_error", what);
}

fn assert_forbidden(reply: &Reply, what: &str) {
    assert_eq!(
        (reply.status, reply.error_code().as_str()),
        (StatusCode::FORBIDDEN, "permission_denied"),
        "{what}"
    );
    assert_refusal(reply, "permission_error", what);
}

fn assert_refusal(reply: &Reply, kind: &str, what: &str) {
    let error = reply.json()["error"].clone();
    assert_eq!(error.as_object().expect("an object").len(), 4, "{what}: {error}");
    assert_eq!(error["type"], kind, "{what}");
    assert!(error["param"].is_null(), "{what}");
    assert_eq!(reply.header("x-should-retry"), Some("false"), "{what}");
    assert!(reply.header("www-authenticate").is_some_and(|asks| asks.starts_with("Bearer ")), "{what}");
}

#[test]
fn only_probes_need_no_scope_and_administration_needs_its_own() {
    let all = routes::all();
    let open: Vec<_> =
        all.iter().filter(|route| route.needs == Needs::Nothing).map(|route| route.path).collect();
    assert_eq!(open, OPEN);
    for route in all.iter().filter(|route| !OPEN.contains(&route.path)) {
        let expected = match route.path {
            path if path.starts_with("/v1/") => Scope::Inference,
            path if path.starts_with("/api/v1/admin/") => Scope::Admin,
            "/metrics" => Scope::Read,
            path if path.starts_with("/api/v1/") => Scope::Read,
            path => panic!("{path} belongs to no kind of route"),
        };
        assert_eq!(route.needs, Needs::Scope(expected), "{}", route.path);
    }
}

#[tokio::test]
async fn every_route_refuses_whoever_has_no_key_or_a_wrong_one() {
    let stage = beyond();
    let (id, key) = stage.new_key(&json!({"name": "all", "scopes": ["inference", "read", "admin"]})).await;
    let forged = format!("{}0", &key[..key.len() - 1]);
    let forged = if forged == key { format!("{}1", &key[..key.len() - 1]) } else { forged };
    let elsewhere = key.replace(&id, "0a");
    let (_, mut revoked) =
        stage.new_key(&json!({"name": "gone", "scopes": ["inference", "read", "admin"]})).await;
    let gone = revoked.split('_').nth(1).unwrap().to_owned();
    assert_eq!(stage.administer("DELETE", &format!("/keys/{gone}"), None).await.status, 200);
    let over = json!({"name": "over", "scopes": ["inference", "read", "admin"], "expires_in_s": 0});
    let (_, expired) = stage.new_key(&over).await;
    revoked.push(' ');
    for route in routes::all().iter().filter(|route| route.needs != Needs::Nothing) {
        let path = example(route);
        for method in ["GET", "POST", "DELETE", "PATCH", "PUT"] {
            assert_unauthorised(&ask(&stage, method, &path, None).await, &format!("{method} {path}"));
            for wrong in [&forged, &elsewhere, &revoked, &expired, "none", "mlx_", "mlx_local_00", &id] {
                let reply = ask(&stage, method, &path, Some(wrong)).await;
                assert_unauthorised(&reply, &format!("{method} {path} with {wrong}"));
            }
        }
    }
    for path in OPEN {
        let reply = ask(&stage, "GET", path, None).await;
        assert!(![401, 403].contains(&reply.status.as_u16()), "{path}: {}", reply.status);
    }
    assert_eq!(ask(&stage, "GET", "/nothing", None).await.status, 404);
}

#[tokio::test]
async fn every_route_opens_to_its_scope_and_to_no_other() {
    let stage = beyond();
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        let (_, key) = stage.new_key(&json!({"name": scope.name(), "scopes": [scope.name()]})).await;
        keys.push((scope, key));
    }
    for route in routes::all() {
        let Needs::Scope(needed) = route.needs else { continue };
        let path = example(&route);
        for (scope, key) in &keys {
            let reply = ask(&stage, "GET", &path, Some(key)).await;
            let what = format!("{path} with {scope}");
            if *scope == needed {
                assert!(![401, 403, 421].contains(&reply.status.as_u16()), "{what}: {}", reply.text);
            } else {
                assert_forbidden(&reply, &what);
            }
        }
        let local = ask(&stage, "GET", &path, Some(&stage.local_key)).await;
        assert!(
            ![401, 403, 421].contains(&local.status.as_u16()),
            "{path} with the local key: {}",
            local.text
        );
    }
}

#[tokio::test]
async fn a_route_that_is_not_in_the_table_is_closed() {
    let (facts, (local, text)) = (Facts::founded(), LocalKey::make(1).unwrap());
    let access = Access::new(facts.registry(), Arc::new(local), "127.0.0.1:7440".parse().unwrap());
    let guard = Guard { access, needs: Arc::default() };
    let router: Router =
        Router::new().route("/v1/beside", get(async || "open")).layer(from_fn_with_state(guard, check));
    for key in ["none", &text] {
        let asked = request("GET", "/v1/beside").header("x-api-key", key).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(asked).await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn a_newcomer_on_loopback_asks_and_looks_without_a_key_and_changes_nothing() {
    let stage = Stage::saying("hi");
    for key in [None, Some("none"), Some("mlx_0a_00")] {
        assert_eq!(ask(&stage, "GET", "/v1/models", key).await.status, 200, "{key:?}");
        assert_eq!(ask(&stage, "GET", "/api/v1/status", key).await.status, 200, "{key:?}");
        assert_eq!(ask(&stage, "GET", "/metrics", key).await.status, 200, "{key:?}");
        assert_unauthorised(&ask(&stage, "GET", "/api/v1/admin/keys", key).await, "admin");
    }
    assert_eq!(stage.chat(json!({})).await.status, 200);
}

#[tokio::test]
async fn from_the_first_key_on_nobody_is_served_without_one_not_even_when_it_is_revoked() {
    let stage = Stage::saying("hi");
    let (id, key) = stage.new_key(&json!({"name": "first"})).await;
    assert_unauthorised(&stage.chat(json!({})).await, "without");
    let headers = format!("Bearer {key}");
    assert_eq!(stage.chat_with(&[("authorization", &headers)], json!({})).await.status, 200);
    assert_eq!(stage.chat_with(&[("x-api-key", &key)], json!({})).await.status, 200);
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    assert_unauthorised(&stage.chat(json!({})).await, "without");
    assert_unauthorised(&stage.chat_with(&[("authorization", &headers)], json!({})).await, "revoked");
    assert_eq!(stage.wishes().len(), 2);
}

#[tokio::test]
async fn a_refusal_waits_for_the_body_so_that_its_client_can_read_it() {
    let stage = beyond();
    let body = Body::from(vec![b'x'; 1 << 20]);
    let refused = stage.send(request("POST", "/v1/chat/completions").body(body).unwrap()).await;
    assert_unauthorised(&refused, "a long body");
    // A body that never ends costs seconds and nothing more; the clock of the tests is paused.
    tokio::time::pause();
    let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let refused = stage.send(request("POST", "/v1/chat/completions").body(endless).unwrap()).await;
    assert_unauthorised(&refused, "an endless body");
}
