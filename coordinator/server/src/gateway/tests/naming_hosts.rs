//! Under which names the API answers to strangers, and that a key opens it under any.

use axum::body::Body;
use serde_json::json;

use super::cards;
use super::stage::{Reply, Stage, model, said};

fn bound(api: &str) -> Stage {
    Stage::at(api, |_, _| said("hi"), vec![model("demo", Some(cards::chatting()))])
}

async fn get(stage: &Stage, host: &str, path: &str, key: Option<&str>) -> Reply {
    let asked = axum::http::Request::builder().uri(path).header("host", host);
    let asked = match key {
        Some(key) => asked.header("x-api-key", key),
        None => asked,
    };
    stage.send(asked.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_page_that_points_a_name_of_its_own_at_us_learns_nothing() {
    for api in ["127.0.0.1:7440", "192.0.2.7:7440", "0.0.0.0:7440", "[::]:7440"] {
        let stage = bound(api);
        for path in ["/", "/livez", "/readyz", "/routablez", "/v1/models", "/api/v1/status", "/nothing"] {
            for key in [None, Some("none"), Some("mlx_local_00")] {
                let reply = get(&stage, "evil.example", path, key).await;
                assert_eq!(
                    (reply.status.as_u16(), reply.error_code().as_str()),
                    (421, "wrong_host"),
                    "{api}{path}"
                );
            }
        }
    }
}

#[tokio::test]
async fn whoever_sends_a_good_key_may_call_us_what_he_likes() {
    for api in ["127.0.0.1:7440", "192.0.2.7:7440", "0.0.0.0:7440"] {
        let stage = bound(api);
        let (_, key) = stage.new_key(&json!({"name": "proxy", "scopes": ["inference"]})).await;
        for host in ["api.example.com", "mini-07.local:7440", "localhost"] {
            assert_eq!(get(&stage, host, "/v1/models", Some(&key)).await.status, 200, "{api} as {host}");
            assert_eq!(get(&stage, host, "/livez", Some(&key)).await.status, 200, "{api} as {host}");
        }
        let over = json!({"name": "over", "scopes": ["inference"], "expires_in_s": 0});
        let (_, expired) = stage.new_key(&over).await;
        assert_eq!(get(&stage, "api.example.com", "/livez", Some(&expired)).await.status, 421);
    }
}

#[tokio::test]
async fn bound_to_all_addresses_it_answers_to_any_of_them_and_to_no_name() {
    let all = bound("0.0.0.0:7440");
    for host in ["192.0.2.7:7440", "10.0.0.1", "[2001:db8::1]:7440", "localhost"] {
        assert_eq!(get(&all, host, "/livez", None).await.status, 200, "{host}");
        assert_eq!(get(&all, host, "/v1/models", None).await.status, 401, "{host}");
    }
    assert_eq!(get(&all, "mini-07.local", "/livez", None).await.status, 421);
    assert_eq!(get(&bound("127.0.0.1:7440"), "10.0.0.1", "/livez", None).await.status, 421);
}
