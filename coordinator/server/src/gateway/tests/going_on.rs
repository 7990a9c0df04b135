//! A client that comes back with `Last-Event-ID` gets what follows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::answering_once::{broken_off, streamed};
use super::stage::{Act, Reply, Stage, dispatched, finished, ids, said, tokens};
use crate::generation::FinishReason;

const KEY: (&str, &str) = ("idempotency-key", "k-1");

fn event_ids(reply: &Reply) -> Vec<&str> {
    reply.text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

async fn after(stage: &Stage, id: &str) -> Reply {
    stage.chat_with(&[KEY, ("last-event-id", id)], streamed()).await
}

#[tokio::test]
async fn what_is_kept_goes_on_after_any_event() {
    let stage = Stage::saying("hello, world");
    let whole = stage.chat_with(&[KEY], streamed()).await;
    let ids = event_ids(&whole);
    for (number, id) in ids.iter().enumerate() {
        let rest = after(&stage, id).await;
        assert_eq!((rest.status.as_u16(), rest.header("idempotent-replayed")), (200, Some("true")));
        assert_eq!(event_ids(&rest), ids[number + 1..]);
        assert!(whole.text.ends_with(&rest.text));
    }
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_given_goes_on_after_any_event() {
    let slow = |_: usize, _: &_| {
        let each = ids("a slow answer")
            .into_iter()
            .flat_map(|id| [Act::Pause(Duration::from_secs(1)), tokens(&[id])]);
        std::iter::once(dispatched(7)).chain(each).chain([finished(FinishReason::Stop, 9)]).collect()
    };
    let stage = Arc::new(Stage::playing(slow));
    let first = tokio::spawn({
        let stage = stage.clone();
        async move { stage.chat_with(&[KEY], streamed()).await }
    });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let early = tokio::spawn({
        let stage = stage.clone();
        async move { stage.chat_with(&[KEY], streamed()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Ids are known to whoever has read them.
    let run = stage.facts.now().jobs().next().expect("a job").1.run;
    let tag = crate::gateway::once::events_tag(&crate::gateway::HashKeys::new([7; 32]), run);
    let foreign = after(&stage, "00112233aabbccdd-2").await;
    assert_eq!((foreign.status.as_u16(), foreign.error_code().as_str()), (409, "last_event_unknown"));
    let rest = after(&stage, &format!("{tag}-2")).await;
    let (first, early) = (first.await.expect("answered"), early.await.expect("answered"));
    assert_eq!(first.text, early.text);
    assert_eq!(event_ids(&rest), event_ids(&first)[2..]);
    assert!(first.text.ends_with(&rest.text) && !rest.broke);
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_another_computation_is_not_taken_for_the_rest() {
    let stage = Stage::playing(|number, _| match number {
        0 => broken_off("half"),
        _ => said("whole"),
    });
    let broken = stage.chat_with(&[KEY], streamed()).await;
    let had = event_ids(&broken)[0];
    let refused = after(&stage, had).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (409, "last_event_unknown"));
    assert_eq!(stage.wishes().len(), 1, "nothing is begun for it");
    let anew = stage.chat_with(&[KEY], streamed()).await;
    assert!(anew.text.ends_with("[DONE]\n\n"));
    assert_eq!(after(&stage, had).await.error_code(), "last_event_unknown");
    assert_eq!(after(&stage, "7").await.error_code(), "invalid_value");
}

#[tokio::test]
async fn without_a_key_it_is_named_as_ignored() {
    let stage = Stage::saying("hi");
    let reply = stage.chat_with(&[("last-event-id", "1")], json!({})).await;
    assert_eq!(reply.header("x-mlx-ignored-params"), Some("last-event-id"));
    let keyed = stage.chat_with(&[KEY], json!({})).await;
    assert_eq!(keyed.header("x-mlx-ignored-params"), None);
}
