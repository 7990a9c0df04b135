//! What happens while nothing can be written down: whoever answers is not held up, and nothing that was answered is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::batching::{assert_answered, line, requests, slowly};
use super::deferring::{TEXT, slow};
use super::responding::text_of;
use super::stage::{Stage, said};

#[tokio::test(start_paused = true)]
async fn requests_of_a_batch_are_asked_and_read_while_its_step_waits_for_a_disk() {
    let stage = Stage::playing(|_, wish| slowly(wish));
    stage.mind();
    let begun = stage.batch("a", &requests(100), json!({})).await;
    stage.drawer.full.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.standing("a", &begun["id"]).await["request_counts"]["completed"], 0);
    let over = stage.cancelled();
    assert!(over.len() == 100 && over.iter().all(|over| *over), "none has a place on a node: {over:?}");
    stage.drawer.full.store(false, Ordering::Relaxed);
    let batch = stage.until("a", &begun["id"], "completed").await;
    assert_answered(&stage.lines("a", &batch["output_file_id"]).await, 100);
    assert_eq!(stage.wishes().len(), 100, "nothing is asked twice");
}

#[tokio::test(start_paused = true)]
async fn a_response_in_the_background_is_read_while_its_step_waits_for_a_disk() {
    let stage = Stage::playing(|_, wish| slow(wish));
    stage.mind();
    let id = stage.begin(json!({})).await;
    stage.drawer.full.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.now(&id).await["status"], "queued");
    assert_eq!(stage.cancelled(), [true], "it has no place on a node");
    stage.drawer.full.store(false, Ordering::Relaxed);
    assert_eq!(text_of(&stage.once_it_is(&id, "completed").await), TEXT);
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn both_pieces_of_a_step_are_kept_anew_where_one_did_not_fit() {
    let stage = Stage::playing(|_, _| said("fine"));
    let request = |number: usize| {
        let heat = if number < 3 { 0.5 } else { 9.0 };
        line(&format!("r-{number}"), json!({"model": "demo", "prompt": "hello", "temperature": heat}))
    };
    let begun = stage.batch("a", &(0..8).map(request).collect::<String>(), json!({})).await;
    *stage.drawer.places.lock().unwrap() = Some(1);
    stage.mind();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.standing("a", &begun["id"]).await["request_counts"]["completed"], 0);
    stage.drawer.lose_unnamed(&stage.facts.now());
    *stage.drawer.places.lock().unwrap() = None;
    let batch = stage.until("a", &begun["id"], "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 8, "completed": 3, "failed": 5}));
    assert_eq!(stage.lines("a", &batch["output_file_id"]).await.len(), 3);
    assert_eq!(stage.lines("a", &batch["error_file_id"]).await.len(), 5);
}
