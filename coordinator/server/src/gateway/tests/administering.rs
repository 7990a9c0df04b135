//! What administrators see and change, and what is noted of it.

use axum::body::Body;
use consensus::ProposeError;
use registry::{KeyId, Outcome, verify};
use serde_json::{Value, json};

use super::stage::{Reply, Stage, request};

fn stage() -> Stage {
    Stage::saying("hi")
}

fn assert_refused(reply: &Reply, status: u16, code: &str, words: &str) {
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (status, code), "{}", reply.text);
    assert!(reply.text.contains(words), "{}", reply.text);
}

#[tokio::test]
async fn a_key_is_made_shown_changed_and_revoked() {
    let stage = stage();
    let wanted =
        json!({"name": "ci", "scopes": ["inference", "read"], "models": ["org/demo"], "expires_in_s": 3600});
    let made = stage.administer("POST", "/keys", Some(&wanted)).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["schema"], "mlx-serving.key.v1");
    let (id, secret) =
        (made["key"]["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned());
    assert_eq!(secret, format!("mlx_{id}_{}", &secret[secret.len() - 64..]));
    let made_at = made["key"]["made_at_unix_ms"].as_u64().unwrap();
    let nothing = json!({"requests": 0, "prompt_tokens": 0, "answer_tokens": 0});
    let expected = json!({
        "id": id, "name": "ci", "scopes": ["inference", "read"], "models": ["org/demo"], "state": "live", "revision": 0,
        "made_at_unix_ms": made_at, "expires_at_unix_ms": made_at + 3_600_000, "revoked_at_unix_ms": null,
        "secrets": [{"number": 1, "made_at_unix_ms": made_at}],
        "limits": {"rpm": null, "tpm": null, "concurrency": null, "tokens_per_month": null},
        "usage": {"today": nothing, "this_month": nothing},
    });
    assert_eq!(made["key"], expected);

    let path = format!("/keys/{id}");
    let shown = stage.administer("GET", &path, None).await.json();
    assert_eq!(shown, json!({"schema": "mlx-serving.key.v1", "key": expected}));
    let listed = stage.administer("GET", "/keys", None).await.json();
    assert_eq!(listed, json!({"schema": "mlx-serving.keys.v1", "keys": [expected]}));

    let change = json!({"name": "ci 2", "expires_in_s": null});
    let changed = stage.administer("PATCH", &path, Some(&change)).await.json()["key"].clone();
    assert_eq!(
        (&changed["name"], &changed["revision"], &changed["expires_at_unix_ms"]),
        (&json!("ci 2"), &json!(1), &Value::Null)
    );
    assert_eq!(
        (&changed["scopes"], &changed["models"]),
        (&expected["scopes"], &expected["models"]),
        "the rest stays"
    );

    let revoked = stage.administer("DELETE", &path, None).await.json()["key"].clone();
    assert_eq!((&revoked["state"], &revoked["secrets"]), (&json!("revoked"), &json!([])));
    assert!(revoked["revoked_at_unix_ms"].is_u64());
    assert_eq!(stage.administer("DELETE", &path, None).await.status, 200, "as often as one likes");
    assert_refused(&stage.administer("PATCH", &path, Some(&change)).await, 409, "conflict", "revoked");
}

#[tokio::test]
async fn limits_are_set_and_taken_away_one_by_one() {
    let stage = stage();
    let (id, _) = stage.new_key(&json!({"name": "ci", "limits": {"rpm": 60, "tpm": 9000}})).await;
    let path = format!("/keys/{id}");
    let limits = async |change: Value| {
        let changed = stage.administer("PATCH", &path, Some(&json!({"limits": change}))).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        changed.json()["key"]["limits"].clone()
    };
    let first = limits(json!({"concurrency": 2, "tokens_per_month": 1_000_000})).await;
    assert_eq!(first, json!({"rpm": 60, "tpm": 9000, "concurrency": 2, "tokens_per_month": 1_000_000}));
    let second = limits(json!({"rpm": null, "tpm": 5})).await;
    assert_eq!(second, json!({"rpm": null, "tpm": 5, "concurrency": 2, "tokens_per_month": 1_000_000}));
    let last = stage.facts.now().audit().last().unwrap().action.clone();
    assert!(last.contains("5 tokens a minute, 2 requests at once, 1000000 tokens a month"), "{last}");
}

#[tokio::test]
async fn a_key_changes_from_one_secret_to_the_next() {
    let stage = stage();
    let (id, first) = stage.new_key(&json!({"name": "ci"})).await;
    let secrets = format!("/keys/{id}/secrets");
    let added = stage.administer("POST", &secrets, None).await;
    assert_eq!(added.status, 201);
    let second = added.json()["secret"].as_str().unwrap().to_owned();
    assert_refused(&stage.administer("POST", &secrets, None).await, 409, "conflict", "2 secrets");
    let status = async |key: &str| stage.with_key("GET", "/v1/models", key, None).await.status.as_u16();
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    let dropped = stage.administer("DELETE", &format!("{secrets}/1"), None).await.json();
    assert_eq!(dropped["key"]["secrets"].as_array().unwrap().len(), 1);
    assert_eq!((status(&first).await, status(&second).await), (401, 200));
    assert_refused(
        &stage.administer("DELETE", &format!("{secrets}/2"), None).await,
        409,
        "conflict",
        "only one",
    );
    assert_refused(
        &stage.administer("DELETE", &format!("{secrets}/9"), None).await,
        404,
        "not_found",
        "never had",
    );
    let wordy = stage.administer("DELETE", &format!("{secrets}/x"), None).await;
    assert_refused(&wordy, 404, "not_found", "by its number");
}

#[tokio::test]
async fn every_change_is_noted_without_its_secrets() {
    let stage = stage();
    let (admin, key) = stage.new_key(&json!({"name": "ops", "scopes": ["admin"]})).await;
    let made = stage.with_key("POST", "/api/v1/admin/keys", &key, Some(&json!({"name": "ci"}))).await.json();
    let (id, secret) = (made["key"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    stage.with_key("DELETE", &format!("/api/v1/admin/keys/{id}/secrets/1"), &key, None).await;
    let trail = stage.administer("GET", "/audit", None).await;
    let hash = secret.rsplit('_').next().unwrap();
    assert!(!trail.text.contains(hash) && !trail.text.contains(key.rsplit('_').next().unwrap()));
    let trail = trail.json();
    assert_eq!(trail["schema"], "mlx-serving.audit.v1");
    let told: Vec<_> = trail["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            (entry["number"].as_u64().unwrap(), text("by"), text("action"), text("outcome"))
        })
        .collect();
    let ops = format!("create key {admin}: name 'ops', scopes admin, expires never, models all");
    let ci = format!("create key {id}: name 'ci', scopes inference, expires never, models all");
    let dropped = format!("drop secret 1 of key {id}");
    assert_eq!(
        told,
        [
            (1, "local-1".to_owned(), ops, "done".to_owned()),
            (2, admin.clone(), ci, "done".to_owned()),
            (3, admin, dropped, "refused".to_owned()),
        ]
    );
    assert_eq!(verify(stage.facts.now().audit()), Ok(()));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_changes_nothing() {
    let stage = stage();
    let (id, _) = stage.new_key(&json!({"name": "ci"})).await;
    let before = stage.facts.now();
    for (body, words) in [
        (json!({}), "missing field `name`"),
        (json!({"name": "a", "rpm": 5}), "unknown field `rpm`"),
        (json!({"name": "a", "limits": {"rps": 5}}), "unknown field `rps`"),
        (json!({"name": "a", "limits": {"rpm": -5}}), "invalid value"),
        (json!({"name": "a", "scopes": ["root"]}), "unknown variant `root`"),
        (json!({"name": "a", "models": ["../up"]}), "no part of a model name"),
        (json!({"name": "a", "expires_in_s": -1}), "invalid value"),
    ] {
        assert_refused(&stage.administer("POST", "/keys", Some(&body)).await, 400, "invalid_request", words);
    }
    for body in [json!({"scope": []}), json!({"name": null, "x": 1}), json!([]), json!({"id": "0a"})] {
        let reply = stage.administer("PATCH", &format!("/keys/{id}"), Some(&body)).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (400, "invalid_request"), "{body}");
    }
    assert_eq!(stage.facts.now(), before);
    for (body, words) in [
        (json!({"name": ""}), "name of an API key"),
        (json!({"name": "a\nb"}), "control characters"),
        (json!({"name": "a", "scopes": []}), "at least one of the scopes"),
        (json!({"name": "a", "models": []}), "without a list"),
        (json!({"name": "a", "limits": {"tpm": 0}}), "each bound of what an API key may ask for"),
    ] {
        assert_refused(&stage.administer("POST", "/keys", Some(&body)).await, 400, "invalid_value", words);
    }
    assert_eq!(stage.facts.now().keys().count(), 1);
    let noted = stage.facts.now().audit().iter().filter(|entry| entry.outcome == Outcome::Refused).count();
    assert_eq!(noted, 5, "what the registry refused is noted");
}

#[tokio::test]
async fn a_key_that_nobody_made_is_not_found() {
    let stage = stage();
    let change = json!({"name": "b"});
    for (method, path, body) in [
        ("GET", "/keys/0a", None),
        ("PATCH", "/keys/0a", Some(&change)),
        ("DELETE", "/keys/0a", None),
        ("POST", "/keys/0a/secrets", None),
        ("DELETE", "/keys/0a/secrets/1", None),
    ] {
        assert_refused(&stage.administer(method, path, body).await, 404, "not_found", "no API key 0a");
    }
    assert!(stage.facts.now().audit().is_empty());
    assert_eq!(stage.facts.now().key(&KeyId("0a".to_owned())), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_a_leader_and_is_made_once() {
    let stage = stage();
    let unknown = || ProposeError::OutcomeUnknown("the leader changed".to_owned());
    stage.facts.fail_with(vec![unknown(), ProposeError::NotLeader { leader: None }, unknown()]);
    stage.new_key(&json!({"name": "ci"})).await;
    let now = stage.facts.now();
    assert_eq!((now.keys().count(), now.audit().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_in_vain_hears_what_is_known() {
    let stage = stage();
    let create = json!({"name": "ci"});
    stage.facts.fail_with(vec![ProposeError::NotLeader { leader: None }; 100]);
    let safe = stage.administer("POST", "/keys", Some(&create)).await;
    assert_refused(&safe, 503, "no_leader", "nothing was changed");
    stage.facts.fail_with(vec![ProposeError::OutcomeUnknown("x".to_owned()); 100]);
    let unknown = stage.administer("POST", "/keys", Some(&create)).await;
    assert_refused(&unknown, 503, "outcome_unknown", "may or may not");
    assert!(unknown.header("retry-after").is_some());
    // What does not change within seconds is said at once.
    let before = tokio::time::Instant::now();
    stage.facts.fail_with(vec![ProposeError::StorageFull { free: 1 << 20 }]);
    let full = stage.administer("POST", "/keys", Some(&create)).await;
    assert_refused(&full, 507, "storage_full", "Nothing was changed: storage_full");
    stage.facts.fail_with(vec![ProposeError::TooLarge { bytes: 2, bytes_max: 1 }]);
    let large = stage.administer("POST", "/keys", Some(&create)).await;
    assert_refused(&large, 413, "request_too_large", "at most 1");
    stage.facts.fail_with(vec![ProposeError::Stopped("x".to_owned())]);
    let stopped = stage.administer("POST", "/keys", Some(&create)).await;
    assert_refused(&stopped, 503, "outcome_unknown", "may or may not");
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    assert_eq!(stage.facts.now().keys().count(), 0);
}

#[tokio::test]
async fn a_change_has_a_bound() {
    let stage = stage();
    let body = Body::from(vec![b' '; 65 << 10]);
    let asked =
        request("POST", "/api/v1/admin/keys").header("x-api-key", &stage.local_key).body(body).unwrap();
    let reply = stage.send(asked).await;
    assert_refused(&reply, 413, "request_too_large", "64 KiB");
}
