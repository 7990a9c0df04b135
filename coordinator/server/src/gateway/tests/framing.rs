//! One choice on its own: no cut of its frames changes what comes out.

use std::sync::LazyLock;
use std::task::{Context, Waker};
use std::time::Instant;

use proptest::prelude::*;
use proto::v1::{AttemptUsage, TokenLogprobs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cards;
use super::stage::ids;
use crate::gateway::metrics::{ModelMetrics, Timeline};
use crate::gateway::openai::choice::{Choice, Making, PromptEnd, Stage};
use crate::gateway::text::detokenizer::Start;
use crate::generation::{Event, FinishReason, Generation};

/// What a client would have at the end.
#[derive(Debug, PartialEq)]
struct Told {
    text: String,
    scores: String,
    stage: Stage,
    completion_tokens: u32,
    cancelled: bool,
    sufficed: bool,
}

/// Feeds frames of these sizes, polling after each or only at the end.
fn told(ids: &[u32], stops: &[String], cuts: &[usize], poll_each: bool) -> Told {
    let (sender, events) = mpsc::channel(1_024);
    let cancel = CancellationToken::new();
    let enough = CancellationToken::new();
    let _cancel = cancel.clone().drop_guard();
    let generation = Generation { request: 1, events, enough: enough.clone(), _cancel };
    let card = cards::chatting();
    let making = Making { card: &card, stops, logprobs: true, start: Start::Fresh, journal: false };
    let timeline = Timeline::new(ModelMetrics::of("framing"), Instant::now());
    let mut choice = Choice::new(generation, PromptEnd::of(&[1, 2, 3]), &making, timeline);
    let (mut text, mut scores) = (String::new(), Vec::new());
    let mut collect = |choice: &mut Choice| {
        while choice.poll(&mut Context::from_waker(Waker::noop())).is_ready() {}
        text.push_str(&choice.fresh.text);
        scores.append(&mut choice.fresh.logprobs);
        choice.fresh.clear();
    };
    let mut rest = ids;
    for cut in cuts.iter().cycle() {
        let (frame, behind) = rest.split_at((*cut).min(rest.len()));
        rest = behind;
        let logprobs = frame
            .iter()
            .map(|id| TokenLogprobs { logprob: -f32::from(u16::try_from(*id).unwrap()), top: Vec::new() });
        let _ = sender.try_send(Event::Tokens { ids: frame.to_vec(), logprobs: logprobs.collect() });
        if poll_each {
            collect(&mut choice);
        }
        if rest.is_empty() {
            break;
        }
    }
    let usage =
        AttemptUsage { generated_tokens: u32::try_from(ids.len()).unwrap(), ..AttemptUsage::default() };
    let _ = sender.try_send(Event::Finished { reason: FinishReason::Length, usage });
    collect(&mut choice);
    Told {
        text,
        scores: serde_json::to_string(&scores).unwrap(),
        stage: choice.stage.clone(),
        completion_tokens: choice.completion_tokens,
        cancelled: cancel.is_cancelled(),
        sufficed: enough.is_cancelled(),
    }
}

/// The rule for one answer: text before the first complete stop, tokens up to the one that completed it.
fn oracle(ids: &[u32], stops: &[String]) -> (String, u32, FinishReason) {
    static TOKENIZER: LazyLock<tokenizers::Tokenizer> =
        LazyLock::new(|| cards::tokenizer(&cards::byte_level()));
    let whole = |count: usize| TOKENIZER.decode(&ids[..count], true).unwrap();
    for count in 0..=ids.len() {
        // A half character is a replacement character here, and no stop string contains one.
        let text = whole(count);
        let first =
            stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at))).min();
        if let Some((_, at)) = first {
            return (text[..at].to_owned(), u32::try_from(count).unwrap(), FinishReason::Stop);
        }
    }
    (whole(ids.len()), u32::try_from(ids.len()).unwrap(), FinishReason::Length)
}

proptest! {
    #[test]
    fn any_frames_polled_at_any_time_tell_the_same(
        text in "[abü你]{0,16}",
        stops in prop::collection::vec("[abü]{1,3}", 0..3),
        cuts in prop::collection::vec(1_usize..6, 1..8),
    ) {
        let ids = ids(&text);
        let one_by_one = told(&ids, &stops, &[1], true);
        prop_assert_eq!(&one_by_one, &told(&ids, &stops, &cuts, true));
        prop_assert_eq!(&one_by_one, &told(&ids, &stops, &cuts, false));
        prop_assert_eq!(&one_by_one, &told(&ids, &stops, &[1_000], true));
        let (text, tokens, reason) = oracle(&ids, &stops);
        prop_assert_eq!((one_by_one.text, one_by_one.completion_tokens), (text, tokens));
        prop_assert_eq!(one_by_one.stage, Stage::Finished(reason));
        prop_assert!(one_by_one.cancelled, "the generation is dropped at the end");
        let stopped = reason == FinishReason::Stop;
        prop_assert_eq!(one_by_one.sufficed, stopped, "its runtime is not to blame for a stop string");
    }

    #[test]
    fn each_token_of_the_text_has_one_score_in_order(text in "[abü你]{0,16}", cuts in prop::collection::vec(1_usize..6, 1..8)) {
        let ids = ids(&text);
        let told = told(&ids, &[], &cuts, true);
        let scores: Vec<serde_json::Value> = serde_json::from_str(&told.scores).unwrap();
        let logprobs: Vec<_> = scores.iter().map(|score| score["logprob"].as_f64().unwrap()).collect();
        let expected: Vec<_> = ids.iter().map(|id| -f64::from(*id)).collect();
        prop_assert_eq!(logprobs, expected);
    }
}

#[test]
fn events_after_the_end_change_nothing() {
    let stop = ["b".to_owned()];
    let told = told(&ids("abc"), &stop, &[1], false);
    assert_eq!((told.text.as_str(), told.completion_tokens), ("a", 2));
    assert_eq!(told.stage, Stage::Finished(FinishReason::Stop));
}
