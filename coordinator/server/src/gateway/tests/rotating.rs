//! The rotation of the authority as administrators see and ask for it.

use registry::{CaStep, Command, FOUNDER};
use serde_json::{Value, json};

use super::stage::{Reply, Stage};

async fn rotate(stage: &Stage, body: &Value) -> Reply {
    stage.administer("POST", "/ca/rotate", Some(body)).await
}

async fn sealed() -> Stage {
    let stage = Stage::saying("hi");
    stage.facts.apply(&Command::SealCa { sealed_ca_key: "0a".to_owned(), at_unix_ms: 5 });
    stage
}

async fn trail(stage: &Stage) -> Vec<String> {
    let trail = stage.administer("GET", "/audit", None).await.json();
    let entries = trail["entries"].as_array().unwrap().clone();
    entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_rotation_is_begun_shown_and_joined_by_who_asks_again() {
    let stage = sealed().await;
    let before = stage.administer("GET", "/ca", None).await.json();
    assert_eq!((&before["rotations"], &before["rotation"]), (&json!(0), &Value::Null));
    for _ in 0..2 {
        let begun = rotate(&stage, &json!({})).await;
        assert_eq!(begun.status, 200, "{}", begun.text);
        let rotation = begun.json()["rotation"].clone();
        assert_eq!((&rotation["number"], &rotation["until_unix_ms"]), (&json!(1), &json!(90)));
        assert_eq!(rotation["awaited"][0]["id"], "coordinator-1");
        assert!(!begun.text.contains("\"0b\"") && !begun.text.contains("\"0c\""), "{}", begun.text);
    }
    let begun = trail(&stage).await;
    let begun: Vec<_> = begun.iter().filter(|action| action.contains("rotation")).collect();
    assert_eq!(begun, ["begin rotation 1 of the cluster's authority, until 90"]);
    let members = [FOUNDER].into();
    stage.facts.apply(&Command::RotateCa { number: 1, step: CaStep::Move { members }, at_unix_ms: 11 });
    let moved = stage.administer("GET", "/ca", None).await.json();
    assert_eq!((&moved["rotation"]["moved"], &moved["rotation"]["awaited"]), (&json!(1), &json!([])));
}

#[tokio::test]
async fn whoever_is_absent_is_abandoned_only_in_a_rotation_that_is_under_way() {
    let stage = sealed().await;
    let refused = rotate(&stage, &json!({"abandon_absent": true})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.error_code().as_str()),
        (409, "conflict"),
        "{}",
        refused.text
    );
    assert_eq!(rotate(&stage, &json!({})).await.status, 200);
    let over = rotate(&stage, &json!({"abandon_absent": true})).await.json();
    assert_eq!((&over["rotations"], &over["rotation"]), (&json!(1), &Value::Null));
    let last = trail(&stage).await.pop().unwrap();
    assert_eq!(last, "end rotation 1 of the cluster's authority and abandon who has not moved");
    assert_eq!(rotate(&stage, &json!({"abandon": true})).await.status, 400, "no word is ignored");
}

#[tokio::test]
async fn a_plain_key_is_not_rotated() {
    let stage = Stage::saying("hi");
    let refused = rotate(&stage, &json!({})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.error_code().as_str()),
        (409, "conflict"),
        "{}",
        refused.text
    );
    assert!(refused.text.contains("not sealed yet"), "{}", refused.text);
}
