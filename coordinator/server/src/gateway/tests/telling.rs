//! What a client is told of its wait and of the way its answer took: comments and headers.

use std::time::Duration;

use serde_json::json;

use super::stage::{
    Act, FIRST_REQUEST, Stage, dispatched, drawn, finished, ids, queued, said, tokens, waiting,
};
use crate::generation::FinishReason;

fn pause(ms: u64) -> Act {
    Act::Pause(Duration::from_millis(ms))
}

/// The comments of a stream that meets these acts, then an answer.
async fn comments(acts: Vec<Act>) -> Vec<String> {
    let stage = Stage::playing(move |_, _| [acts.clone(), said("hi")].concat());
    let reply = stage.chat(json!({"stream": true})).await;
    assert_eq!(reply.content(0), "hi");
    reply.comments().into_iter().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_place_is_told_with_its_estimate_and_with_what_takes_the_time() {
    let told = |ahead, eta_ms, loading| comments(vec![waiting(ahead, eta_ms, loading), pause(1)]);
    assert_eq!(told(0, None, false).await, [": position 1"]);
    assert_eq!(told(2, Some(11_200), false).await, [": position 3, about 12 s"]);
    assert_eq!(told(0, Some(40_000), true).await, [": loading the model, position 1, about 40 s"]);
    assert_eq!(told(4, None, true).await, [": loading the model, position 5"]);
}

#[tokio::test(start_paused = true)]
async fn an_estimate_is_rounded_up_and_never_finer_than_it_is_good() {
    for (ms, words) in [
        (0, "1 s"),
        (1, "1 s"),
        (1_000, "1 s"),
        (1_001, "2 s"),
        (90_000, "90 s"),
        (90_001, "2 min"),
        (120_000, "2 min"),
        (120_001, "3 min"),
        (u64::MAX, "307445734561826 min"),
    ] {
        let told = comments(vec![queued(0, Some(ms)), pause(1)]).await;
        assert_eq!(told, [format!(": position 1, about {words}")], "{ms}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_changes_is_told_at_once_and_one_that_only_looks_the_same_is_not() {
    let acts = vec![
        waiting(2, Some(30_000), false),
        pause(100),
        waiting(2, Some(29_900), false),
        pause(100),
        waiting(1, Some(29_900), false),
        pause(100),
        waiting(1, Some(20_000), true),
        pause(100),
    ];
    let expected = [
        ": position 3, about 30 s",
        ": position 2, about 30 s",
        ": loading the model, position 2, about 20 s",
    ];
    assert_eq!(comments(acts).await, expected);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_the_newest_place_every_ten_seconds() {
    let acts = vec![
        queued(5, Some(60_000)),
        pause(12_000),
        queued(3, Some(33_000)),
        pause(22_000),
        waiting(0, Some(9_000), true),
        pause(11_000),
    ];
    let (first, second, third) = (
        ": position 6, about 60 s",
        ": position 4, about 33 s",
        ": loading the model, position 1, about 9 s",
    );
    assert_eq!(comments(acts).await, [first, first, second, second, second, third, third]);
}

#[tokio::test(start_paused = true)]
async fn of_several_answers_the_last_in_the_line_is_told_again() {
    let stage = Stage::playing(|nth, _| {
        let ahead = u32::try_from(nth).unwrap();
        [vec![queued(ahead, None), pause(11_000)], said("hi")].concat()
    });
    let reply = stage.chat(json!({"stream": true, "n": 2})).await;
    assert_eq!(reply.comments(), [": position 1", ": position 2", ": position 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_one_piece_waits_without_a_word() {
    let stage =
        Stage::playing(|_, _| [vec![waiting(2, Some(30_000), true), pause(30_000)], said("hi")].concat());
    let reply = stage.chat(json!({})).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "hi");
    assert!(reply.text.starts_with('{'));
}

#[tokio::test]
async fn each_answer_names_its_request() {
    let stage = Stage::saying("hi");
    let numbers = |from: u64, count: u64| {
        (FIRST_REQUEST + from..FIRST_REQUEST + from + count)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let one = stage.chat(json!({})).await;
    assert_eq!(one.header("x-mlx-request"), Some(numbers(0, 1).as_str()));
    let several = stage.chat(json!({"n": 3, "stream": true})).await;
    assert_eq!(several.header("x-mlx-request"), Some(numbers(1, 3).as_str()));
    let refused = stage.chat(json!({"n": 0})).await;
    assert_eq!(refused.header("x-mlx-request"), None, "nothing was asked of the scheduler");
}

#[tokio::test]
async fn what_drew_an_answer_to_its_node_is_told_if_it_is_known() {
    for stream in [false, true] {
        for affinity in [Some("prefix"), Some("session"), Some("resident"), Some("cold"), None] {
            let stage = Stage::playing(move |_, _| {
                vec![drawn(7, affinity), tokens(&ids("hi")), finished(FinishReason::Stop, 3)]
            });
            let reply = stage.chat(json!({"stream": stream})).await;
            assert_eq!((reply.header("x-mlx-affinity"), reply.header("x-mlx-node")), (affinity, Some("7")));
        }
    }
    let both = Stage::playing(|nth, _| {
        let affinity = ["prefix", "cold", "prefix"][nth];
        vec![drawn(7, Some(affinity)), tokens(&ids("hi")), finished(FinishReason::Stop, 3)]
    });
    assert_eq!(both.chat(json!({"n": 3})).await.header("x-mlx-affinity"), Some("cold, prefix"));
}

#[tokio::test]
async fn the_time_for_loading_is_told_apart_from_the_queue() {
    let stage = Stage::playing(|_, _| {
        let acts = [queued(1, None), waiting(0, None, true), pause(30), dispatched(1), tokens(&ids("hi"))];
        acts.into_iter().chain([finished(FinishReason::Stop, 3)]).collect()
    });
    let timing = stage.chat(json!({})).await.header("server-timing").expect("a timing").to_owned();
    let names: Vec<_> = timing.split(", ").filter_map(|part| part.split(";dur=").next()).collect();
    assert_eq!(names, ["queue", "load", "prefill", "decode"]);
    let ms = |part: &str| timing.split(", ").find_map(|of| of.strip_prefix(part)?.parse::<f64>().ok());
    assert!(ms("load;dur=").is_some_and(|load| load >= 29.0), "{timing}");
    assert!(ms("queue;dur=").is_some_and(|queue| queue >= 0.0), "{timing}");
    let unloaded = Stage::saying("hi").chat(json!({})).await;
    assert!(unloaded.header("server-timing").is_some_and(|timing| !timing.contains("load")));
}
