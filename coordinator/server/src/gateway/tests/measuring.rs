//! Each metric is recorded, under the name that existing boards read.

use serde_json::json;

use super::cards;
use super::stage::{Act, Stage, dispatched, model, said};
use crate::generation::{Event, Failure};

/// A model name of its own, because one process has one recorder.
fn stage(
    name: &str,
    script: impl Fn(usize, &crate::generation::Wish) -> Vec<Act> + Send + Sync + 'static,
) -> Stage {
    Stage::with(script, vec![model(name, Some(cards::chatting()))])
}

async fn value(stage: &Stage, series: &str) -> Option<f64> {
    let page = stage.get("/metrics").await.text;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[tokio::test]
async fn a_finished_answer_is_counted_with_its_tokens_and_times() {
    let stage = stage("measured-a", |_, _| said("hello world"));
    stage.chat(json!({"model": "measured-a"})).await;
    let label = "{model_name=\"measured-a\"}";
    let prompt = f64::from(u32::try_from(stage.wishes()[0].prompt.len()).unwrap());
    let tokens = f64::from(u32::try_from(super::stage::ids("hello world").len()).unwrap());
    for (name, expected) in [
        ("vllm:prompt_tokens_total", prompt),
        ("vllm:generation_tokens_total", tokens),
        ("vllm:prefix_cache_queries_total", prompt),
        ("vllm:prefix_cache_hits_total", 3.0),
        ("vllm:time_to_first_token_seconds_count", 1.0),
        ("vllm:inter_token_latency_seconds_count", tokens - 1.0),
        ("vllm:e2e_request_latency_seconds_count", 1.0),
        ("vllm:request_queue_time_seconds_count", 1.0),
        ("vllm:request_prefill_time_seconds_count", 1.0),
        ("vllm:request_decode_time_seconds_count", 1.0),
    ] {
        assert_eq!(value(&stage, &format!("{name}{label}")).await, Some(expected), "{name}");
    }
    let success = "vllm:request_success_total{model_name=\"measured-a\",finished_reason=\"stop\"}";
    assert_eq!(value(&stage, success).await, Some(1.0));
}

#[tokio::test]
async fn failures_and_hang_ups_are_no_success() {
    let stage = stage("measured-b", |nth, _| match nth {
        0 => vec![Act::Event(Event::Failed(Failure::NodeLost { began: false }))],
        _ => vec![dispatched(1), Act::Hang],
    });
    stage.chat(json!({"model": "measured-b"})).await;
    let left = tokio::time::timeout(
        std::time::Duration::from_millis(20),
        stage.chat(json!({"model": "measured-b"})),
    )
    .await;
    assert!(left.is_err());
    for (reason, expected) in [("error", Some(1.0)), ("abort", Some(1.0)), ("stop", None)] {
        let series =
            format!("vllm:request_success_total{{model_name=\"measured-b\",finished_reason=\"{reason}\"}}");
        assert_eq!(value(&stage, &series).await, expected, "{reason}");
    }
    assert_eq!(value(&stage, "vllm:prompt_tokens_total{model_name=\"measured-b\"}").await, None);
}

#[tokio::test]
async fn no_name_from_a_client_becomes_a_label() {
    let stage = stage("measured-c", |_, _| said("secret answer"));
    stage.chat(json!({"model": "invented-by-a-client"})).await;
    stage.chat(json!({"model": "measured-c", "user": "somebody", "messages": [{"role": "user", "content": "secret question"}]})).await;
    let page = stage.get("/metrics").await.text;
    for word in ["invented", "somebody", "secret"] {
        assert!(!page.contains(word), "{word}");
    }
}
