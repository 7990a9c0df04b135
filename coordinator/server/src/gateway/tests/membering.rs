//! Join tokens and members as administrators see and end them.

use registry::{Command, TokenId};
use serde_json::{Value, json};

use super::stage::{Reply, Stage};

fn assert_refused(reply: &Reply, status: u16, code: &str, words: &str) {
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (status, code), "{}", reply.text);
    assert!(reply.text.contains(words), "{}", reply.text);
}

/// With an agent in it that joined with this token.
async fn joined(stage: &Stage) -> String {
    let made = stage.administer("POST", "/tokens", Some(&json!({"role": "agent", "uses": null}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["token"]["id"].as_str().unwrap().to_owned();
    stage.facts.apply(&Command::AdmitNode {
        token: TokenId(id.clone()),
        secret_hash: proto::token::JoinToken::secret_hash(&[7; proto::token::SECRET_BYTES]),
        name: "mini-07".to_owned(),
        public_key: "07".to_owned(),
        at_unix_ms: 5,
    });
    id
}

#[tokio::test]
async fn a_token_is_good_for_one_machine_and_a_day_unless_another_is_asked_for() {
    let stage = Stage::saying("hi");
    let made = stage.administer("POST", "/tokens", Some(&json!({"role": "agent", "name": "lab"}))).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert!(made["secret"].as_str().unwrap().starts_with("mlxc1."), "{made}");
    let expires = made["token"]["expires_at_unix_ms"].as_u64().unwrap();
    let expected = json!({
        "id": "t0", "name": "lab", "role": "agent", "state": "live", "used": 0, "uses": 1, "expires_at_unix_ms": expires,
    });
    assert_eq!(made["token"], expected);
    let day_ms = 24 * 3_600_000;
    let left = expires - crate::clock::unix_ms();
    assert!((day_ms - 60_000..=day_ms).contains(&left), "{left}");
    let listed = stage.administer("GET", "/tokens", None).await.json();
    assert_eq!(
        listed,
        json!({"schema": "mlx-serving.tokens.v1", "tokens": [expected]}),
        "without its secret"
    );
}

#[tokio::test]
async fn a_token_is_taken_back_and_says_so() {
    let stage = Stage::saying("hi");
    let id = joined(&stage).await;
    for _ in 0..2 {
        let revoked = stage.administer("DELETE", &format!("/tokens/{id}"), None).await.json();
        assert_eq!((&revoked["token"]["state"], &revoked["secret"]), (&json!("revoked"), &Value::Null));
    }
    assert_refused(&stage.administer("DELETE", "/tokens/zz", None).await, 404, "not_found", "token zz");
}

#[tokio::test]
async fn a_token_without_a_role_or_with_a_life_that_is_none_is_refused() {
    let stage = Stage::saying("hi");
    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!({"role": "client"}), "invalid_request"),
        (json!({"role": "agent", "forever": true}), "invalid_request"),
        (json!({"role": "agent", "ttl_s": 1}), "invalid_value"),
        (json!({"role": "agent", "ttl_s": 99_999_999}), "invalid_value"),
        (json!({"role": "agent", "uses": 0}), "invalid_value"),
        (json!({"role": "agent", "name": ""}), "invalid_value"),
    ] {
        let refused = stage.administer("POST", "/tokens", Some(&body)).await;
        assert_refused(&refused, 400, code, "");
    }
    assert_eq!(stage.facts.now().tokens().count(), 0);
}

#[tokio::test]
async fn a_node_is_revoked_by_its_id_or_name_and_a_token_that_still_admits_is_named() {
    let stage = Stage::saying("hi");
    let token = joined(&stage).await;
    let listed = stage.administer("GET", "/nodes", None).await.json();
    let ids: Vec<_> = listed["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone()).collect();
    assert_eq!(ids, ["coordinator-1", "agent-1"]);
    let revoked = stage.administer("DELETE", "/nodes/mini-07", None).await.json();
    assert_eq!((&revoked["node"]["id"], &revoked["node"]["revoked"]), (&json!("agent-1"), &json!(true)));
    assert_eq!(revoked["token_still_good"], json!(token));
    stage.administer("DELETE", &format!("/tokens/{token}"), None).await;
    let again = stage.administer("DELETE", "/nodes/agent-1", None).await.json();
    assert_eq!((&again["node"]["revoked"], &again["token_still_good"]), (&json!(true), &Value::Null));
    let actions: Vec<_> = stage.facts.now().audit().iter().map(|entry| entry.action.clone()).collect();
    assert!(actions.contains(&"revoke node 1".to_owned()), "{actions:?}");
}

#[tokio::test]
async fn nobody_unknown_is_revoked_and_the_founder_is_when_others_vote() {
    let stage = Stage::saying("hi");
    assert_refused(&stage.administer("DELETE", "/nodes/agent-9", None).await, 404, "not_found", "agent-9");
    let revoked = stage.administer("DELETE", "/nodes/coordinator-1", None).await.json();
    assert_eq!(revoked["node"]["revoked"], json!(true), "{revoked}");
}
