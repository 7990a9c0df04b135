//! What the scheduler may know of a request: tenant, class, session, prefix, fingerprint, salt.

use std::collections::BTreeSet;

use scheduler::Class;
use serde_json::{Value, json};

use super::cards;
use super::stage::{Stage, model, said};
use crate::generation::Traits;

const TENANT_A: (&str, &str) = ("authorization", "Bearer a");
const TENANT_B: (&str, &str) = ("authorization", "Bearer b");

/// A stage with two models that hold long prompts.
fn stage() -> Stage {
    let models = ["demo", "other"].map(|name| {
        let mut model = model(name, Some(cards::chatting()));
        model.facts.as_mut().unwrap().context_length = 1_000_000;
        model
    });
    Stage::with(|_, _| said("hi"), models.to_vec())
}

async fn traits(headers: &[(&str, &str)], more: Value) -> Traits {
    all_traits(headers, more).await.remove(0)
}

async fn all_traits(headers: &[(&str, &str)], more: Value) -> Vec<Traits> {
    let stage = stage();
    let reply = stage.chat_with(headers, more).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    stage.wishes().into_iter().map(|wish| wish.traits).collect()
}

fn long() -> Value {
    json!([{"role": "user", "content": "one block and more, ".repeat(40)}])
}

#[tokio::test]
async fn a_request_that_says_nothing_of_itself_is_nobodys_and_interactive() {
    let traits = traits(&[], json!({})).await;
    assert_eq!((traits.tenant, traits.class, traits.session), (0, Class::Interactive, None));
    assert_eq!((traits.blocks.len(), traits.cache_salt.len()), (0, 16));
    assert_ne!(traits.fingerprint, 0);
}

#[tokio::test]
async fn each_token_is_a_tenant_and_none_is_kept() {
    let token = "sk-very-secret-token";
    let bearer = format!("Bearer {token}");
    let by_bearer = traits(&[("authorization", &bearer)], json!({})).await;
    let by_key = traits(&[("x-api-key", token)], json!({})).await;
    assert_eq!(by_bearer, by_key);
    assert_ne!(by_bearer.tenant, 0);
    assert_ne!(by_bearer.tenant, traits(&[TENANT_A], json!({})).await.tenant);
    assert!(!format!("{by_bearer:?}").contains("secret"));
}

#[tokio::test]
async fn the_class_is_the_headers_else_the_tiers() {
    let cases = [
        (None, json!(null), Class::Interactive, None),
        (None, json!("auto"), Class::Interactive, Some("default")),
        (None, json!("default"), Class::Interactive, Some("default")),
        (None, json!("priority"), Class::Interactive, Some("default")),
        (None, json!("flex"), Class::Batch, Some("flex")),
        (Some("batch"), json!(null), Class::Batch, None),
        (Some("batch"), json!("default"), Class::Batch, Some("flex")),
        (Some("interactive"), json!("flex"), Class::Interactive, Some("default")),
    ];
    for (header, tier, class, told) in cases {
        let stage = stage();
        let headers: Vec<_> = header.into_iter().map(|value| ("x-mlx-class", value)).collect();
        let reply = stage.chat_with(&headers, json!({"service_tier": tier})).await;
        assert_eq!(stage.wishes()[0].traits.class, class, "{header:?} {tier}");
        assert_eq!(reply.json().get("service_tier").and_then(Value::as_str), told, "{header:?} {tier}");
        assert_eq!(reply.header("x-mlx-ignored-params"), None, "{tier} is honoured");
    }
}

#[tokio::test]
async fn a_tier_is_told_in_each_chunk_of_a_stream() {
    let chunks = stage().chat(json!({"service_tier": "flex", "stream": true})).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk["service_tier"] == "flex") && chunks.len() >= 3);
}

#[tokio::test]
async fn headers_that_would_have_to_be_guessed_at_are_refused() {
    for (header, value, words) in
        [("x-mlx-class", "urgent", "'interactive' or 'batch'"), ("x-mlx-no-cache", "true", "'1' or '0'")]
    {
        for stream in [false, true] {
            let stage = stage();
            let reply = stage.chat_with(&[(header, value)], json!({"stream": stream})).await;
            assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (400, "invalid_value"));
            assert_eq!(reply.json()["error"]["param"], header);
            assert!(reply.text.contains(words), "{}", reply.text);
            assert!(stage.wishes().is_empty(), "nothing was started");
        }
    }
}

#[tokio::test]
async fn the_first_name_of_a_session_counts_and_the_others_in_the_body_are_named() {
    let body = json!({"prompt_cache_key": "key", "user": "somebody"});
    let cases = [
        (vec![], json!({"user": "s"}), None),
        (vec![], json!({"prompt_cache_key": "s"}), None),
        (vec![], json!({"prompt_cache_key": "s", "user": "somebody"}), Some("user")),
        (vec![("thread-id", "s")], body.clone(), Some("prompt_cache_key, user")),
        (vec![("session-id", "s"), ("thread-id", "t")], json!({}), None),
        (vec![("x-claude-code-session-id", "s"), ("session-id", "t")], json!({}), None),
        (vec![("x-session-id", "s"), ("x-claude-code-session-id", "t")], json!({}), None),
        (vec![("x-session-affinity", "s"), ("x-session-id", "t")], body, Some("prompt_cache_key, user")),
    ];
    let expected = traits(&[("x-session-affinity", "s")], json!({})).await.session;
    assert!(expected.is_some());
    for (headers, more, ignored) in cases {
        let stage = stage();
        let reply = stage.chat_with(&headers, more.clone()).await;
        assert_eq!(stage.wishes()[0].traits.session, expected, "{headers:?} {more}");
        assert_eq!(reply.header("x-mlx-ignored-params"), ignored, "{headers:?} {more}");
    }
}

#[tokio::test]
async fn a_name_that_is_empty_or_too_long_is_no_session_and_is_named() {
    let long = "x".repeat(257);
    for name in ["", &long] {
        let stage = stage();
        let reply = stage.chat(json!({"prompt_cache_key": name, "user": name})).await;
        assert_eq!(stage.wishes()[0].traits.session, None);
        assert_eq!(reply.header("x-mlx-ignored-params"), Some("prompt_cache_key, user"));
    }
    let reply = stage().chat_with(&[("x-session-id", &long)], json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-mlx-ignored-params")), (200, Some("x-session-id")));
}

#[tokio::test]
async fn a_session_and_a_salt_belong_to_their_tenant() {
    let of =
        |tenant| async move { traits(&[tenant, ("x-session-id", "s")], json!({"messages": long()})).await };
    let (a, b) = (of(TENANT_A).await, of(TENANT_B).await);
    assert_ne!((a.tenant, a.session), (b.tenant, b.session));
    assert_ne!(a.session, b.session);
    assert_ne!(a.cache_salt, b.cache_salt);
    assert_ne!(a.fingerprint, b.fingerprint);
    assert_eq!(a, of(TENANT_A).await);
}

#[tokio::test]
async fn prompts_that_begin_alike_have_their_first_blocks_in_common() {
    let ids = |last: u32| (0..700).map(|nth| nth % 200).chain([last]).collect::<Vec<u32>>();
    let stage = stage();
    for prompt in [ids(1), ids(2), ids(1)[..512].to_vec(), ids(1)[..255].to_vec()] {
        stage.complete(json!({"prompt": prompt})).await;
    }
    let blocks: Vec<_> = stage.wishes().iter().map(|wish| wish.traits.blocks.to_vec()).collect();
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 0]);
    assert!(blocks[0] == blocks[1] && blocks[1] == blocks[2]);
}

#[tokio::test]
async fn another_tenant_model_or_salt_has_no_block_in_common() {
    let blocks = |headers: Vec<(&'static str, &'static str)>, more: Value| async move {
        let mut body = json!({"messages": long()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        traits(&headers, body).await.blocks.to_vec()
    };
    let all = [
        blocks(vec![], json!({})).await,
        blocks(vec![TENANT_A], json!({})).await,
        blocks(vec![TENANT_B], json!({})).await,
        blocks(vec![TENANT_A], json!({"model": "other"})).await,
        blocks(vec![TENANT_A], json!({"cache_salt": "one"})).await,
        blocks(vec![TENANT_A], json!({"cache_salt": "two"})).await,
        blocks(vec![TENANT_B], json!({"cache_salt": "two"})).await,
    ];
    let different: BTreeSet<_> = all.iter().flatten().collect();
    assert_eq!(different.len(), all.iter().map(Vec::len).sum::<usize>());
    assert!(all.iter().all(|blocks| blocks.len() == all[0].len() && !blocks.is_empty()));
    assert_eq!(blocks(vec![TENANT_A], json!({"cache_salt": "two"})).await, all[5]);
}

#[tokio::test]
async fn a_salt_of_the_clients_own_makes_a_salt_of_its_own() {
    let salt = |more: Value| async move { traits(&[TENANT_A], more).await.cache_salt };
    let plain = salt(json!({})).await;
    let one = salt(json!({"cache_salt": "one"})).await;
    let all = BTreeSet::from([plain, one.clone(), salt(json!({"cache_salt": "two"})).await]);
    assert_eq!(all.len(), 3);
    assert_eq!(one, salt(json!({"cache_salt": "one"})).await);
    let hexadecimal = |salt: &String| salt.len() == 16 && salt.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(all.iter().all(hexadecimal), "nothing of the client's own words: {all:?}");
}

#[tokio::test]
async fn without_a_cache_there_is_nothing_to_look_up_and_the_request_is_still_the_same() {
    let cached = traits(&[], json!({"messages": long()})).await;
    for more in [json!({"messages": long()}), json!({"messages": long(), "cache_salt": "one"})] {
        let uncached = traits(&[("x-mlx-no-cache", "1")], more).await;
        assert_eq!((uncached.blocks.len(), uncached.cache_salt.as_str()), (0, ""));
        assert_eq!(uncached.fingerprint, cached.fingerprint);
    }
    assert_eq!(traits(&[("x-mlx-no-cache", "0")], json!({"messages": long()})).await, cached);
}

#[tokio::test]
async fn the_same_request_has_the_same_fingerprint_and_any_other_another() {
    let base = || json!({"seed": 1, "max_tokens": 5, "temperature": 0.5});
    let with = |more: Value| {
        let mut body = base();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let fingerprint = |more: Value| async move { traits(&[TENANT_A], more).await.fingerprint };
    let first = fingerprint(base()).await;
    // Sent again, in another delivery, for another session, as other work: it would do the same to a runtime.
    for same in [
        json!({}),
        json!({"stream": true}),
        json!({"user": "u"}),
        json!({"service_tier": "flex"}),
        json!({"cache_salt": "x"}),
        json!({"stop": "never"}),
    ] {
        assert_eq!(fingerprint(with(same.clone())).await, first, "{same}");
    }
    let others = [
        json!({"model": "other"}),
        json!({"messages": [{"role": "user", "content": "hellp"}]}),
        json!({"seed": 2}),
        json!({"seed": null}),
        json!({"max_tokens": 6}),
        json!({"temperature": 0.25}),
        json!({"top_k": 7}),
        json!({"presence_penalty": 0.5}),
        json!({"frequency_penalty": 0.5}),
        json!({"logit_bias": {"5": 1}}),
        json!({"stop_token_ids": [9]}),
        json!({"logprobs": true}),
        json!({"logprobs": true, "top_logprobs": 2}),
    ];
    let mut seen = BTreeSet::from([first]);
    for other in others {
        assert!(seen.insert(fingerprint(with(other.clone())).await), "{other}");
    }
}

#[tokio::test]
async fn several_answers_to_one_prompt_share_its_blocks_and_each_is_a_request_of_its_own() {
    let all = all_traits(&[], json!({"n": 3, "seed": 1, "messages": long()})).await;
    assert!(all.iter().all(|traits| traits.blocks == all[0].blocks && !traits.blocks.is_empty()));
    assert_eq!(all.iter().map(|traits| traits.fingerprint).collect::<BTreeSet<_>>().len(), 3);
    let unseeded = all_traits(&[], json!({"n": 2})).await;
    assert_eq!(unseeded[0].fingerprint, unseeded[1].fingerprint);
}

#[tokio::test]
async fn both_endpoints_read_the_same_traits() {
    let stage = stage();
    let body = json!({"service_tier": "flex", "prompt_cache_key": "k", "cache_salt": "s"});
    stage.chat(body.clone()).await;
    let reply = stage.complete(body).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-mlx-ignored-params")), (200, None));
    let traits: Vec<_> = stage.wishes().into_iter().map(|wish| wish.traits).collect();
    assert_eq!(
        (traits[0].class, traits[0].session, &traits[0].cache_salt),
        (traits[1].class, traits[1].session, &traits[1].cache_salt)
    );
    assert_eq!(traits[0].class, Class::Batch);
}
