//! What a key's holder is to the cluster: a tenant of his own, with the models of his list.

use serde_json::json;

use super::cards;
use super::stage::{Stage, model, said};

fn two_models() -> Stage {
    let models = vec![model("demo", Some(cards::chatting())), model("org/other", Some(cards::chatting()))];
    Stage::with(|_, _| said("hi"), models)
}

#[tokio::test]
async fn a_key_is_a_tenant_whichever_of_its_secrets_opens_it() {
    let stage = two_models();
    let (id, first) = stage.new_key(&json!({"name": "ci"})).await;
    let second =
        stage.administer("POST", &format!("/keys/{id}/secrets"), None).await.json()["secret"].clone();
    let second = second.as_str().unwrap().to_owned();
    let (_, another) = stage.new_key(&json!({"name": "ci"})).await;
    for key in [&first, &second, &another, &stage.local_key] {
        stage.chat_with(&[("x-api-key", key)], json!({})).await;
    }
    let wishes = stage.wishes();
    let tenants: Vec<_> = wishes.iter().map(|wish| wish.traits.tenant).collect();
    assert_eq!(tenants[0], tenants[1]);
    let different: std::collections::BTreeSet<_> = tenants.iter().collect();
    assert_eq!(different.len(), 3, "{tenants:?}");
    assert!(!different.contains(&0));
    assert_eq!(wishes[0].traits.cache_salt, wishes[1].traits.cache_salt);
    assert_ne!(wishes[0].traits.cache_salt, wishes[2].traits.cache_salt);
}

#[tokio::test]
async fn no_token_of_a_stranger_is_a_tenant_of_keys() {
    let open = two_models();
    for token in ["key", "local", "key0a"] {
        open.chat_with(&[("x-api-key", token)], json!({})).await;
    }
    let strangers: Vec<_> = open.wishes().iter().map(|wish| wish.traits.tenant).collect();
    let keyed = two_models();
    keyed.chat_with(&[("x-api-key", &keyed.local_key)], json!({})).await;
    assert!(!strangers.contains(&keyed.wishes()[0].traits.tenant));
}

#[tokio::test]
async fn a_model_that_is_not_on_a_keys_list_is_not_there() {
    let stage = two_models();
    let wanted = json!({"name": "small", "scopes": ["inference", "read"], "models": ["demo"]});
    let (id, key) = stage.new_key(&wanted).await;
    let listed = stage.with_key("GET", "/v1/models", &key, None).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["data"][0]["id"], "demo");

    let chat = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    let complete = |model: &str| json!({"model": model, "prompt": "hello"});
    let missing = "org/nobody";
    for (method, path, body) in [
        ("GET", "/v1/models/MODEL", None),
        ("GET", "/api/v1/explain/model/MODEL", None),
        ("POST", "/v1/chat/completions", Some(chat as fn(&str) -> serde_json::Value)),
        ("POST", "/v1/completions", Some(complete as fn(&str) -> serde_json::Value)),
    ] {
        let ask = async |model: &str| {
            let body = body.map(|body| body(model));
            let reply = stage.with_key(method, &path.replace("MODEL", model), &key, body.as_ref()).await;
            (reply.status.as_u16(), reply.text.replace(model, "X"))
        };
        let (status, text) = ask("org/other").await;
        assert_eq!(status, 404, "{path}");
        assert_eq!(ask(missing).await, (status, text), "{path}: as if it were not there");
    }
    assert_eq!(stage.with_key("POST", "/v1/completions", &key, Some(&complete("demo"))).await.status, 200);

    let wider = json!({"models": null});
    assert_eq!(stage.administer("PATCH", &format!("/keys/{id}"), Some(&wider)).await.status, 200);
    assert_eq!(
        stage.with_key("POST", "/v1/completions", &key, Some(&complete("org/other"))).await.status,
        200
    );
}

#[tokio::test]
async fn a_probe_tells_no_stranger_which_models_there_are() {
    let stage = two_models();
    let reply = stage.get("/routablez?model=dem").await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (404, "model_not_found"));
    assert!(!reply.text.contains("demo"), "{}", reply.text);
}
