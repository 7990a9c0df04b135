//! A broken stream never looks finished.

use std::time::Duration;

use serde_json::json;

use super::stage::{Act, Reply, Stage, dispatched, ids, queued, tokens};
use crate::generation::{Event, Failure};

fn assert_broken(reply: &Reply, code: &str) {
    assert_eq!(reply.status, 200);
    assert!(reply.broke, "the body must fail, not end");
    assert!(!reply.text.contains("[DONE]"));
    let events = reply.events();
    let last: serde_json::Value = serde_json::from_str(events.last().expect("an event")).expect("JSON");
    assert_eq!(last["error"]["code"], code);
    assert_eq!(last["error"].as_object().unwrap().len(), 4);
    assert!(!reply.text.contains("\"finish_reason\":\"stop\""));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_loses_its_node_says_so_and_is_cut() {
    let stage = Stage::playing(|_, _| {
        let lost = Act::Event(Event::Failed(Failure::NodeLost { began: true }));
        vec![dispatched(1), tokens(&ids("half an ")), Act::Pause(Duration::from_millis(5)), lost]
    });
    let reply = stage.chat(json!({"stream": true})).await;
    assert_broken(&reply, "stream_lost");
    assert!(reply.text.contains("half an "), "what was said before stays said");
}

#[tokio::test(start_paused = true)]
async fn every_failure_after_the_headers_cuts_the_stream() {
    let rejected =
        Failure::Rejected { code: "internal".to_owned(), text: "the model call failed".to_owned() };
    let cases = [
        (Failure::NodeLost { began: false }, "stream_lost"),
        (Failure::ShuttingDown, "stream_lost"),
        (Failure::DeadlineExceeded, "deadline_exceeded"),
        (rejected, "internal_error"),
        (Failure::Quarantined, "request_quarantined"),
        (Failure::Overloaded { retry_after: Duration::from_secs(1) }, "queue_full"),
        (Failure::NoCapacity { words: "No room.".to_owned(), retry_after: None }, "no_capacity"),
    ];
    for (failure, code) in cases {
        let stage = Stage::playing(move |_, _| {
            vec![
                queued(1, None),
                Act::Pause(Duration::from_millis(5)),
                Act::Event(Event::Failed(failure.clone())),
            ]
        });
        assert_broken(&stage.chat(json!({"stream": true})).await, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_side_that_vanishes_cuts_the_stream() {
    let stage = Stage::playing(|_, _| {
        vec![dispatched(1), tokens(&ids("half")), Act::Pause(Duration::from_millis(5))]
    });
    assert_broken(&stage.chat(json!({"stream": true})).await, "stream_lost");
}

#[tokio::test(start_paused = true)]
async fn one_broken_answer_of_several_cuts_the_stream_and_cancels_the_rest() {
    let stage = Stage::playing(|nth, _| match nth {
        0 => vec![queued(1, None), Act::Hang],
        _ => vec![
            queued(1, None),
            Act::Pause(Duration::from_millis(5)),
            Act::Event(Event::Failed(Failure::ShuttingDown)),
        ],
    });
    assert_broken(&stage.chat(json!({"stream": true, "n": 2})).await, "stream_lost");
    assert_eq!(stage.cancelled(), [true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_its_deadline_is_cut() {
    let stage = Stage::playing(|_, _| vec![queued(1, None), Act::Hang]);
    let body = super::stage::chat_body(json!({"stream": true})).to_string();
    let request =
        super::stage::request("POST", "/v1/chat/completions").header("x-request-timeout-ms", "30000");
    assert_broken(&stage.send(request.body(body.into()).unwrap()).await, "deadline_exceeded");
}

#[tokio::test]
async fn a_failure_before_the_first_word_is_an_honest_status() {
    let failure =
        Failure::Rejected { code: "context_length_exceeded".to_owned(), text: "too long".to_owned() };
    let stage = Stage::playing(move |_, _| vec![dispatched(1), Act::Event(Event::Failed(failure.clone()))]);
    let reply = stage.chat(json!({"stream": true})).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (400, "context_length_exceeded"));
}
