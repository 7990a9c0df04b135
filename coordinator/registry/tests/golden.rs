//! What is on disk: its exact form today, and that yesterday's is still read.
//!
//! `tests/golden/commands` and `snapshot.json` are the present form; `UPDATE=1` writes them. `tests/golden/older` is what
//! earlier releases wrote; nothing writes there, and it must stay readable for ever.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use registry::{ClusterVersion, Command, NodeId, Registry, Reply};

    use super::script::command;

    /// One of each command of release 0.1, with and without what may be absent.
    const LINES_0_1: [(&str, &str); 9] = [
        ("found_cluster", "found room at=1000"),
        ("issue_join_token", "token t1 secret=a role=agent expires=2000 uses=3"),
        ("issue_join_token_any_number", "token t2 secret=b role=coordinator expires=2000"),
        ("admit_node", "admit mini-07 key=07af token=t1 secret=a at=1500"),
        ("want_model_hub", "want 1 mlx-community/Qwen3-4B-4bit hub:mlx-community/Qwen3-4B-4bit"),
        ("want_model_path", "want 1 local path:/Users/Shared/models/local"),
        ("want_model_demo", "want 1 demo demo"),
        ("unwant_model", "unwant 1 local"),
        ("revoke_node", "revoke 1"),
    ];

    /// One of each command that came later.
    const LINES: [(&str, &str); 67] = [
        ("set_budget", "budget 1 12GiB"),
        ("place_model", "place 1 mlx-community/Qwen3-4B-4bit 4GiB"),
        ("place_model_demo", "place 1 demo 1GiB"),
        ("unplace_model", "unplace 1 demo"),
        ("set_model_policy", "policy mlx-community/Qwen3-4B-4bit pinned min=1 max=2 idle=600"),
        ("set_model_policy_bare", "policy demo min=1"),
        ("drain_node", "drain 1"),
        (
            "move_breaker",
            "breaker 1 demo open generation=3 opens=2 at=1700 until=11700 because three runtimes died in a row",
        ),
        ("move_breaker_of_node", "breaker 1 * slow-start generation=1 opens=0 at=1701 because it came back"),
        ("charge_death", "charge 00ab54a98ceb1f0a node=1 at=1700"),
        ("quarantine_request", "quarantine 00ab54a98ceb1f0a at=1702 until=61702"),
        ("pardon_request", "pardon ffffffffffffffff"),
        ("set_golden", "golden mlx-community/Qwen3-4B-4bit card=0f1e ids=9707,11,1879"),
        ("lock_voters", "lock-voters 1 seat=2@mini-02:7443,3@mini-03:7443 promote=4 remove=5 by=1 at=1703"),
        ("unlock_voters", "unlock-voters 1"),
        ("lock_voters_to_remove", "lock-voters 2 remove=3 by=1 at=1704"),
        ("issue_join_token_named", "token t3 secret=c role=agent expires=2000 uses=1 name=lab"),
        ("revoke_join_token", "revoke-token t3"),
        ("revoke_founder", "revoke-founder at=1711"),
        (
            "create_key",
            "key 0a1b secret=a name=ci scopes=inference,read models=demo,org/small expires=9000 at=1705",
        ),
        ("create_key_bare", "key 0c secret=b name=ops scopes=admin at=1706"),
        ("change_key", "change-key 0a1b revision=1 name=ci scopes=inference models=demo"),
        ("add_key_secret", "key-secret 0a1b 2 secret=b at=1707"),
        ("drop_key_secret", "drop-secret 0a1b 1"),
        ("revoke_key", "revoke-key 0c at=1708"),
        ("audited", "by local-1 at=1709: key-secret 0a1b 3 secret=c at=1709"),
        ("begin_job", "begin j of=7 asks=hi run=1.ab.3 at=1712"),
        ("take_job", "take j from=1.ab.3 run=2.c.1 at=1713"),
        ("end_job", "end j run=2.c.1 answer=yes bytes=3 on=2,3 at=1714"),
        ("begin_job_to_drop", "begin k of=7 asks=hi run=1.ab.4 at=1715"),
        ("drop_job", "drop-job k run=1.ab.4"),
        ("forget_jobs", "forget-jobs at=1716"),
        ("audited_again", "by 0a1b at=1710: drain 1"),
        (
            "change_key_allowance",
            "change-key 0a1b revision=2 name=ci scopes=inference models=demo rpm=60 tpm=9000 concurrency=4 monthly=1000000",
        ),
        ("count_usage", "usage gateway=1 life=1700 sequence=1 at=1795694400000 0a1b=2+30+400"),
        ("note", "note local-1 begun at=1712 because promote coordinator 4"),
        ("raise_version", "raise 2 at=1717"),
        ("add_file", "file f1 of=7 name=in.jsonl pieces=a:10@1+2,b:5@2+3 at=1717 until=9000000000"),
        ("add_file_to_drop", "file f2 of=7 name=other.jsonl pieces=c:1@1 at=1718 until=9000000000"),
        ("drop_file", "drop-file f2"),
        ("begin_batch", "batch b1 begin of=7 key=0a1b reads=f1 as=chat says=team:red run=1.ab.5 at=1719"),
        ("begin_batch_bare", "batch b2 begin of=7 reads=f1 as=completions run=1.ab.6 at=1720"),
        ("take_batch", "batch b1 take from=1.ab.5 run=2.c.2"),
        ("open_batch", "batch b1 open run=2.c.2 lines=4 at=1721"),
        (
            "keep_step",
            "batch b1 keep run=2.c.2 after=0 completed=2 failed=1 output=x:9@1+2 errors=y:8@1+2 at=1722",
        ),
        ("keep_step_of_answers", "batch b1 keep run=2.c.2 after=3 completed=1 output=z:5@1+2 at=1723"),
        ("end_batch", "batch b1 end completed run=2.c.2 output=f3 errors=f4 at=1724"),
        ("cancel_batch", "batch b2 cancel at=1725"),
        ("end_batch_cancelled", "batch b2 end cancelled run=1.ab.6 output=f5 errors=f6 at=1726"),
        ("begin_batch_to_fail", "batch b3 begin of=7 reads=f1 as=chat run=1.ab.7 at=1727"),
        (
            "end_batch_failed",
            "batch b3 end failed run=1.ab.7 output=f5 errors=f6 code=invalid_json line=2 at=1728 because it is no JSON",
        ),
        ("begin_batch_to_expire", "batch b4 begin of=7 reads=f1 as=chat run=1.ab.8 at=1729"),
        ("end_batch_expired", "batch b4 end expired run=1.ab.8 output=f5 errors=f6 at=1730"),
        ("forget_files", "forget-files at=1731"),
        ("raise_version_again", "raise 3 at=1718"),
        ("seal_ca", "seal-ca key=00ab at=1719"),
        ("raise_version_for_rotations", "raise 4 at=1720"),
        ("begin_rotation", "rotate-ca 1 begin certificate=two key=00cd hash=00ef at=1721 until=3000"),
        ("end_rotation_abandoning", "rotate-ca 1 abandon at=1722"),
        ("begin_rotation_again", "rotate-ca 2 begin certificate=three key=00dd hash=00ff at=1723 until=3000"),
        ("move_in_rotation", "rotate-ca 2 moved members=0,1 at=1724"),
        ("begin_response", "response r begin of=7 key=0a1b asks=a:10@1+2 run=1.ab.9 at=1733"),
        ("keep_response", "response r keep run=1.ab.9 progress=b:5@2+3"),
        ("begin_response_bare", "response s begin of=7 asks=a:10@1+2 run=1.ab.10 at=1734"),
        ("cancel_response", "response s cancel answer=c:7@1+2 at=1735"),
        ("store_response", "response t store of=7 answer=d:9@1+2 run=1.ab.11 at=1736"),
        ("drop_response", "response t drop"),
    ];

    fn golden(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
    }

    fn compare(path: &str, json: &str) {
        let file = golden(path);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, format!("{json}\n")).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(written.trim_end(), json, "the form of {path} changed: older releases must still be read");
    }

    /// A registry that has every kind of fact of release 0.1: all its commands but the last, so that the node lives.
    fn full_0_1() -> Registry {
        let mut registry = Registry::default();
        for (name, line) in LINES_0_1.iter().take(LINES_0_1.len() - 1) {
            let reply = registry.apply(&command(line));
            assert!(!matches!(reply, Reply::Refused(_)), "{name}: {reply:?}");
        }
        registry.apply(&command("admit mini-08 key=08 token=t1 secret=a at=1600"));
        registry.apply(&command("revoke 2"));
        registry
    }

    /// A registry that has every kind of fact.
    fn full() -> Registry {
        let mut registry = full_0_1();
        for (name, line) in LINES {
            let reply = registry.apply(&command(line));
            assert!(!matches!(reply, Reply::Refused(_)), "{name}: {reply:?}");
        }
        registry
    }

    /// The other way to begin, which cannot be in the same history.
    const SEALED: (&str, &str) = ("found_sealed", "found-sealed room key=00ab at=1000");

    /// What would leave no rotation under way in the snapshot.
    const ENDED: (&str, &str) = ("end_rotation", "rotate-ca 2 end at=1725");

    fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
        LINES_0_1.into_iter().chain(LINES).chain([SEALED, ENDED])
    }

    /// Objects whose fields are names of things; a newer release has as few ways to add a field there as we.
    const MAPS: [&str; 20] = [
        "tokens",
        "nodes",
        "placed",
        "models",
        "policies",
        "goldens",
        "charges",
        "quarantines",
        "seat",
        "jobs",
        "files",
        "batches",
        "metadata",
        "keys",
        "secrets",
        "of_keys",
        "gateways",
        "days",
        "months",
        "used",
    ];

    /// Adds a field to every object that is none of the maps, nor the source of a model.
    fn add_field(value: &mut serde_json::Value, is_map: bool) {
        if let Some(items) = value.as_array_mut() {
            items.iter_mut().for_each(|item| add_field(item, false));
        }
        let Some(object) = value.as_object_mut() else { return };
        for (key, field) in object.iter_mut().filter(|(key, _)| *key != "wanted") {
            add_field(field, MAPS.contains(&key.as_str()));
        }
        if !is_map {
            object.insert("added_later".to_owned(), serde_json::json!({ "a": [1, null] }));
        }
    }

    #[test]
    fn every_command_has_the_form_that_is_on_disk() {
        for (name, line) in lines() {
            let json = serde_json::to_string_pretty(&command(line)).unwrap();
            compare(&format!("commands/{name}.json"), &json);
            assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command(line));
        }
    }

    #[test]
    fn a_snapshot_has_the_form_that_is_on_disk() {
        compare("snapshot.json", &serde_json::to_string_pretty(&full()).unwrap());
    }

    #[test]
    fn every_command_of_release_0_1_is_still_read() {
        for (name, line) in LINES_0_1 {
            let text = fs::read_to_string(golden(&format!("older/0.1/commands/{name}.json"))).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command(line), "{name}");
        }
    }

    #[test]
    fn a_snapshot_of_release_0_1_is_still_read() {
        let text = fs::read_to_string(golden("older/0.1/snapshot.json")).unwrap();
        assert_eq!(serde_json::from_str::<Registry>(&text).unwrap(), full_0_1());
    }

    #[test]
    fn a_snapshot_that_says_no_version_is_of_the_first_and_has_no_word_of_it() {
        let first = full_0_1();
        assert_eq!(first.cluster_version(), ClusterVersion::FIRST);
        assert!(!serde_json::to_string(&first).unwrap().contains("cluster_version"));
        let mut raised = first;
        raised.apply(&command("raise 2 at=1"));
        let text = serde_json::to_string(&raised).unwrap();
        assert!(text.contains(r#""cluster_version":2,"#), "{text}");
        assert_eq!(serde_json::from_str::<Registry>(&text).unwrap(), raised);
    }

    #[test]
    fn a_snapshot_of_a_sealed_cluster_has_no_word_of_a_plain_key() {
        let mut founded = Registry::default();
        founded.apply(&command(SEALED.1));
        let mut sealed = full_0_1();
        for line in ["raise 3 at=1", "seal-ca key=00ab at=2"] {
            assert_eq!(sealed.apply(&command(line)), Reply::Done, "{line}");
        }
        for registry in [founded, sealed] {
            let text = serde_json::to_string(&registry).unwrap();
            assert!(text.contains(r#""sealed_ca_key":"00ab""#) && !text.contains("ca_key_pem"), "{text}");
            assert_eq!(serde_json::from_str::<Registry>(&text).unwrap(), registry);
        }
    }

    #[test]
    fn a_snapshot_without_later_facts_is_written_as_release_0_1_wrote_it() {
        let text = fs::read_to_string(golden("older/0.1/snapshot.json")).unwrap();
        assert_eq!(text.trim_end(), serde_json::to_string_pretty(&full_0_1()).unwrap());
    }

    #[test]
    fn an_empty_snapshot_is_an_empty_registry() {
        assert_eq!(serde_json::from_str::<Registry>("{}").unwrap(), Registry::default());
    }

    #[test]
    fn what_a_newer_release_added_does_not_hinder_reading() {
        let mut newer = serde_json::to_value(full()).unwrap();
        add_field(&mut newer, false);
        let newer = newer.to_string();
        assert_eq!(newer.matches("added_later").count(), 76, "{newer}");
        assert_eq!(serde_json::from_str::<Registry>(&newer).unwrap(), full());
        for (name, line) in lines() {
            let text = serde_json::to_string(&command(line)).unwrap();
            let (verb, fields) = text.split_once(":{").unwrap();
            let newer = format!("{verb}:{{\"added_later\":[1],{fields}");
            assert_eq!(serde_json::from_str::<Command>(&newer).unwrap(), command(line), "{name}");
        }
    }

    #[test]
    fn what_may_be_absent_is_the_default() {
        for (text, line) in [
            (r#"{"set_model_policy":{"model":"m","policy":{}}}"#, "policy m"),
            (r#"{"set_model_policy":{"model":"m","policy":{"replicas_max":2}}}"#, "policy m max=2"),
            (
                r#"{"move_breaker":{"node":1,"state":"open","generation":1,"opens":1,"why":"it hung","at_unix_ms":5}}"#,
                "breaker 1 * open generation=1 opens=1 at=5 because it hung",
            ),
        ] {
            assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command(line), "{text}");
        }
    }

    #[test]
    fn a_snapshot_that_lost_its_counter_still_gives_no_number_twice() {
        let text = serde_json::to_string(&full()).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().remove("last_node").unwrap();
        let mut registry: Registry = serde_json::from_value(value).unwrap();
        let reply = registry.apply(&command("admit mini-09 key=09 token=t2 secret=b at=1700"));
        assert_eq!(reply, Reply::NodeAdmitted { node: NodeId(3), again: false });
    }

    #[test]
    fn a_command_this_release_does_not_know_is_an_error_and_not_a_guess() {
        assert!(serde_json::from_str::<Command>(r#"{"split_cluster":{"node":1}}"#).is_err());
        assert!(serde_json::from_str::<Command>(r#"{"revoke_node":{}}"#).is_err());
        let moved =
            serde_json::to_string(&command("breaker 1 * open generation=1 opens=1 at=5 because it hung"));
        let moved = moved.unwrap();
        assert!(serde_json::from_str::<Command>(&moved).is_ok());
        assert!(serde_json::from_str::<Command>(&moved.replace(r#""open""#, r#""ajar""#)).is_err());
        assert!(serde_json::from_str::<Command>(&moved.replace(r#""opens":1"#, r#""opens":-1"#)).is_err());
    }

    #[test]
    fn a_damaged_hash_is_an_error() {
        let good = serde_json::to_string(&command("token t1 secret=a role=agent expires=9")).unwrap();
        let hash = "61".repeat(32);
        assert!(good.contains(&hash));
        for bad in ["", "61", &"61".repeat(33), &"6x".repeat(32), &"é1é".repeat(12), &"é".repeat(32)] {
            let text = good.replace(&hash, bad);
            assert!(serde_json::from_str::<Command>(&text).is_err(), "{bad}");
        }
    }
}
