//! The group of coordinators over the API. A group of one stands behind it.

use consensus::ProposeError;
use futures_util::future::BoxFuture;
use proto::v1::change_group_request::Change;
use proto::v1::{ChangeGroupRequest, GroupMember};
use registry::verify;
use serde_json::json;

use super::stage::Stage;
use crate::gateway::{Group, GroupError};

/// Nobody else is there; whoever is promoted is.
pub(super) struct Alone;

impl Group for Alone {
    fn change(&self, wish: ChangeGroupRequest) -> BoxFuture<'_, Result<Vec<GroupMember>, GroupError>> {
        let member = |replica, leader| GroupMember {
            replica,
            address: "mini-1:7443".to_owned(),
            voter: leader,
            leader,
            lag: leader.then_some(0),
            silent_ms: None,
        };
        let changed = match wish.change {
            None => Ok(vec![member(1, true)]),
            Some(Change::Promote(replica)) if wish.even => Ok(vec![member(1, true), member(replica, false)]),
            Some(Change::Lead(_)) => Err(GroupError::Unavailable("nobody leads".to_owned())),
            Some(Change::Promote(_) | Change::Remove(_) | Change::Replace(_)) => {
                Err(GroupError::Refused("two voters are no better than one".to_owned()))
            }
        };
        Box::pin(std::future::ready(changed))
    }

    fn backup(&self) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(std::future::ready(Ok(b"facts".to_vec())))
    }
}

#[tokio::test]
async fn the_members_are_shown() {
    let shown = Stage::saying("hi").administer("GET", "/coordinators", None).await.json();
    let expected = json!({
        "schema": "mlx-serving.coordinators.v1",
        "coordinators": [{
            "replica": 1, "address": "mini-1:7443", "role": "voter", "leader": true, "lag": 0, "silent_ms": null
        }],
    });
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_change_is_refused_with_the_reason_and_an_even_number_is_asked_for() {
    let stage = Stage::saying("hi");
    let refused = stage.administer("POST", "/coordinators/2/promote", None).await;
    assert_eq!(
        (refused.status.as_u16(), refused.error_code().as_str()),
        (409, "conflict"),
        "{}",
        refused.text
    );
    assert!(refused.text.contains("two voters are no better than one"), "{}", refused.text);
    let promoted = stage.administer("POST", "/coordinators/2/promote?even=true", None).await;
    assert_eq!(promoted.json()["coordinators"][1]["replica"], 2);
    let lost = stage.administer("POST", "/coordinators/2/lead", None).await;
    assert_eq!((lost.status.as_u16(), lost.error_code().as_str()), (503, "no_leader"), "{}", lost.text);
}

/// Number, who, what and how far it is.
fn trail(stage: &Stage) -> Vec<(String, &'static str)> {
    let registry = stage.facts.now();
    assert_eq!(verify(registry.audit()), Ok(()));
    let told = registry.audit().iter().map(|entry| {
        assert_eq!(entry.by, "local-1");
        (entry.action.clone(), entry.outcome.name())
    });
    told.collect()
}

#[tokio::test]
async fn every_change_of_the_group_is_noted_before_it_and_after_it() {
    let stage = Stage::saying("hi");
    stage.administer("GET", "/coordinators", None).await;
    assert!(trail(&stage).is_empty(), "to look is no change");
    let with = json!({"with": 3});
    for (method, path, body, action, ended) in [
        ("POST", "/2/promote", None, "promote coordinator 2", Some("refused")),
        ("POST", "/2/promote?even=true", None, "promote coordinator 2, an even number allowed", Some("done")),
        ("DELETE", "/2", None, "remove coordinator 2", Some("refused")),
        ("POST", "/2/replace", Some(&with), "replace coordinator 2 by 3", Some("refused")),
        ("POST", "/2/lead", None, "hand the lead to coordinator 2", None),
    ] {
        let before = trail(&stage).len();
        stage.administer(method, &format!("/coordinators{path}"), body).await;
        let noted = trail(&stage).split_off(before);
        // Of what may or may not have happened nobody says how it ended.
        let expected = ["begun"].into_iter().chain(ended).map(|outcome| (action.to_owned(), outcome));
        assert_eq!(noted, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_change_of_the_group_that_cannot_be_noted_is_not_made() {
    let stage = Stage::saying("hi");
    stage.facts.fail_with(vec![ProposeError::StorageFull { free: 1 << 20 }]);
    let refused = stage.administer("POST", "/coordinators/2/promote?even=true", None).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (507, "storage_full"));
    assert!(trail(&stage).is_empty());
}

#[tokio::test]
async fn what_nobody_could_mean_is_refused() {
    let stage = Stage::saying("hi");
    for (method, path, body) in [
        ("DELETE", "/coordinators/second", None),
        ("POST", "/coordinators/2/promote?odd=true", None),
        ("POST", "/coordinators/2/replace", Some(json!({}))),
        ("POST", "/coordinators/2/replace", Some(json!({"with": 3, "and": 4}))),
    ] {
        let answer = stage.administer(method, path, body.as_ref()).await;
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text);
    }
    let replaced = stage.administer("POST", "/coordinators/2/replace", Some(&json!({"with": 3}))).await;
    assert_eq!(replaced.status, 409);
}

#[tokio::test]
async fn the_backup_is_the_facts_as_they_are() {
    let backup = Stage::saying("hi").administer("GET", "/backup", None).await;
    assert_eq!((backup.status.as_u16(), backup.text.as_str()), (200, "facts"));
}
