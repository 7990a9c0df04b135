//! Batches of one tenant do not stand before those of everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use registry::{
    BatchChange, BatchEndpoint, BatchId, Command, FileId, JobRun, Life, Reply as Fact, limits as facts,
};
use serde_json::json;

use super::batching::{assert_answered, line, requests};
use super::stage::{Act, Stage, said};
use crate::clock::unix_ms;
use crate::gateway::limits;

/// Its batches stand still.
async fn one_who_takes_long() -> Stage {
    let stage = Stage::playing(|_, wish| match wish.prompt.len() {
        40 => vec![Act::Hang],
        tokens => said(&format!("n{tokens}")),
    });
    stage.mind();
    let stuck = line("stuck", json!({"model": "demo", "prompt": vec![5; 40]}));
    for _ in 0..=limits::BATCHES_AT_ONCE {
        stage.batch("slow", &stuck, json!({})).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn batches_of_one_tenant_that_stand_still_hold_up_nobody_else() {
    let stage = one_who_takes_long().await;
    assert_eq!(stage.wishes().len(), limits::BATCHES_AT_ONCE_PER_TENANT);
    let begun = stage.batch("quick", &requests(20), json!({})).await;
    let batch = stage.until("quick", &begun["id"], "completed").await;
    assert_answered(&stage.lines("quick", &batch["output_file_id"]).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_its_turn_expires_with_its_day() {
    let stage = one_who_takes_long().await;
    let input = FileId(stage.upload("slow", &requests(3)).await);
    let begin = BatchChange::Begin {
        tenant: stage.facts.now().file(&input).expect("there").tenant,
        key: None,
        input,
        endpoint: BatchEndpoint::Completions,
        metadata: BTreeMap::new(),
        run: JobRun { replica: 9, life: Life(1), number: 1 },
        at_unix_ms: unix_ms() - facts::BATCH_WINDOW_MS,
    };
    let command = Command::ChangeBatch { batch: BatchId("batch_old".to_owned()), change: begin };
    assert_eq!(stage.facts.apply(&command), Fact::Done);
    let batch = stage.until("slow", &json!("batch_old"), "expired").await;
    assert_eq!(batch["request_counts"], json!({"total": 0, "completed": 0, "failed": 0}));
}
