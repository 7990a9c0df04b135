//! How administrators say where models shall be, and empty Macs.

use registry::{Command, ModelName, ModelPolicy, ModelSource, NodeId, Reply, Role, TokenId};
use serde_json::{Value, json};

use super::stage::Stage;

/// Two Macs: both offer `org/large`, and one holds it.
fn stage() -> Stage {
    let stage = Stage::saying("hi");
    let apply = |command: Command| {
        let reply = stage.facts.apply(&command);
        assert!(matches!(reply, Reply::Done | Reply::NodeAdmitted { .. }), "{reply:?}");
    };
    apply(Command::IssueJoinToken {
        id: TokenId("7a".to_owned()),
        secret_hash: [7; 32],
        role: Role::Agent,
        expires_at_unix_ms: 9,
        uses: None,
        name: None,
    });
    for (number, name) in [(1, "mini-06"), (2, "mini-07")] {
        apply(Command::AdmitNode {
            token: TokenId("7a".to_owned()),
            secret_hash: [7; 32],
            name: name.to_owned(),
            public_key: format!("{number:064x}"),
            at_unix_ms: 5,
        });
        let (node, model) = (NodeId(number), large());
        apply(Command::WantModel { node, model, source: ModelSource::Path("/m".to_owned()) });
        apply(Command::SetBudget { node, bytes: 100 });
    }
    apply(Command::PlaceModel { node: NodeId(2), model: large(), bytes: 60 });
    stage
}

fn large() -> ModelName {
    ModelName::new("org/large").unwrap()
}

fn as_it_is() -> Value {
    json!({
        "model": "org/large", "offered_by": ["mini-06", "mini-07"], "placed_on": ["mini-07"], "pinned": false,
        "replicas_min": 0, "replicas_max": null, "idle_unload_s": null,
    })
}

#[tokio::test]
async fn a_model_is_treated_as_was_said_last_and_the_rest_stays() {
    let stage = stage();
    let listed = stage.administer("GET", "/models", None).await.json();
    assert_eq!(listed, json!({"schema": "mlx-serving.models.v1", "models": [as_it_is()]}));
    let first = json!({"pinned": true, "replicas_max": 2, "idle_unload_s": 600});
    let changed = stage.administer("PATCH", "/models/org/large", Some(&first)).await;
    assert_eq!(changed.json()["schema"], "mlx-serving.model.v1");
    let second = json!({"replicas_min": 1, "replicas_max": null});
    let changed = stage.administer("PATCH", "/models/org%2Flarge", Some(&second)).await.json();
    let mut expected = as_it_is();
    for (name, value) in [("pinned", json!(true)), ("replicas_min", json!(1)), ("idle_unload_s", json!(600))]
    {
        expected[name] = value;
    }
    assert_eq!(changed["model"], expected);
    let policy = ModelPolicy { pinned: true, replicas_min: 1, replicas_max: 0, idle_unload_s: Some(600) };
    assert_eq!(stage.facts.now().policy(&large()), policy);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let stage = stage();
    let cases = [
        ("/models/org/lage", json!({"pinned": true}), 404, "Did you mean org/large?"),
        (
            "/models/org/large",
            json!({"replicas_min": 3, "replicas_max": 2}),
            400,
            "At least 3 replicas and at most 2",
        ),
        ("/models/org/large", json!({"replicas_max": 0}), 400, "or null for any number"),
        ("/models/org/large", json!({"pined": true}), 400, "pined"),
        ("/models/org/large", json!({"replicas_min": -1}), 400, "-1"),
    ];
    for (path, body, status, words) in cases {
        let reply = stage.administer("PATCH", path, Some(&body)).await;
        assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.text);
        assert!(reply.text.contains(words), "{body}: {}", reply.text);
    }
    assert_eq!(stage.facts.now().policy(&large()), ModelPolicy::default());
}

#[tokio::test]
async fn a_mac_is_drained_by_its_name_and_takes_work_again() {
    let stage = stage();
    let drained = stage.administer("POST", "/nodes/mini-07/drain", None).await.json();
    assert_eq!((&drained["node"]["id"], &drained["node"]["draining"]), (&json!("agent-2"), &json!(true)));
    assert!(stage.facts.now().is_draining(NodeId(2)) && !stage.facts.now().is_draining(NodeId(1)));
    let back = stage.administer("POST", "/nodes/agent-2/undrain", None).await.json();
    assert_eq!(back["node"]["draining"], false);
    assert!(!stage.facts.now().is_draining(NodeId(2)));
    for (path, status, words) in
        [("/nodes/mini-09/drain", 404, "nodes ls"), ("/nodes/coordinator-1/drain", 409, "runs no models")]
    {
        let reply = stage.administer("POST", path, None).await;
        assert_eq!((reply.status.as_u16(), reply.text.contains(words)), (status, true), "{}", reply.text);
    }
}
