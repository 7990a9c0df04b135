//! What leaves the registry in words: every refusal says what to do, and nothing shows a secret.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use registry::{
        BatchField, BatchId, BatchRefusal, Bounded, CaRefusal, ClusterVersion, Command, Digest, Field,
        FileId, JobId, JobRefusal, KeyField, KeyId, KeyRefusal, ModelName, NodeId, Refusal, Registry, Role,
        TokenId, UsageMark,
    };

    use super::script::command;

    const FIELDS: [Field; 38] = [
        Field::ClusterId,
        Field::CaCertificate,
        Field::CaKey,
        Field::SealedCaKey,
        Field::RotationEnd,
        Field::TokenId,
        Field::TokenUses,
        Field::TokenName,
        Field::NodeName,
        Field::PublicKey,
        Field::ModelPath,
        Field::HubId,
        Field::PlacementBytes,
        Field::Replicas,
        Field::BreakerWhy,
        Field::QuarantineEnd,
        Field::CardDigest,
        Field::GoldenIds,
        Field::VoterChange,
        Field::ReplicaAddress,
        Field::JobHolders,
        Field::Batch(BatchField::FileId),
        Field::Batch(BatchField::FileName),
        Field::Batch(BatchField::Pieces),
        Field::Batch(BatchField::BatchId),
        Field::Batch(BatchField::Metadata),
        Field::Batch(BatchField::Lines),
        Field::Batch(BatchField::Step),
        Field::Batch(BatchField::Problems),
        Field::Key(KeyField::Id),
        Field::Key(KeyField::Name),
        Field::Key(KeyField::Scopes),
        Field::Key(KeyField::Models),
        Field::Key(KeyField::Allowance),
        Field::Key(KeyField::Usage),
        Field::Key(KeyField::By),
        Field::Key(KeyField::Action),
        Field::Key(KeyField::Audited),
    ];

    /// What the command line has, or will have, in the words of its contract.
    const COMMANDS: [&str; 16] = [
        "token create",
        "status",
        "nodes",
        "models ls",
        "models unload",
        "models plan",
        "models rm",
        "explain big",
        "ca status",
        "ca rotate --abandon-absent",
        "keys create",
        "keys ls",
        "keys show",
        "keys rotate",
        "keys rotate --finish",
        "keys revoke",
    ];

    /// Every refusal but those of fields, and what it advises.
    fn refusals() -> Vec<(Refusal, &'static str)> {
        let (token, node, model) = (TokenId("t".to_owned()), NodeId(3), ModelName::new("big").unwrap());
        let job = JobId(Digest([9; 32]));
        let stale = |model| Refusal::StaleGeneration { node, model, generation: 5, known: 7 };
        let full = |what| Refusal::TooMany { what, limit: 5 };
        let no_room = Refusal::NoRoom {
            node,
            model: model.clone(),
            needed_bytes: (40 << 30) + 1,
            free_bytes: (4 << 30) - 1,
            budget_bytes: 48 << 30,
        };
        vec![
            (Refusal::AlreadyFounded, "empty data folder"),
            (Refusal::NotFounded, "start a coordinator"),
            (Refusal::UnknownToken { token: token.clone() }, "token create"),
            (Refusal::TokenExpired { token: token.clone() }, "token create"),
            (Refusal::TokenSpent { token: token.clone() }, "token create"),
            (Refusal::TokenRevoked { token: token.clone() }, "token create"),
            (
                Refusal::TokenRoleMismatch { node, is: Role::Agent, token_gives: Role::Client },
                "use a token for role agent",
            ),
            (Refusal::TokenIdTaken { token }, "another id"),
            (Refusal::UnknownNode { node }, "mlx-serving status"),
            (Refusal::NodeRevoked { node }, "new token"),
            (Refusal::NotAnAgent { node, is: Role::Client }, "choose an agent"),
            (Refusal::NotOffered { node, model: model.clone() }, "mlx-serving models ls"),
            (Refusal::BudgetUnknown { node }, "mlx-serving nodes"),
            (no_room, "mlx-serving models unload"),
            (stale(None), "mlx-serving nodes"),
            (stale(Some(model.clone())), "mlx-serving nodes"),
            (Refusal::GoldenDiffers { model }, "mlx-serving explain big"),
            (Refusal::VotersLocked { number: 2, by: 1 }, "try again"),
            (Refusal::VoterChangeOutOfTurn { number: 2, next: 4 }, "ask again"),
            (Refusal::ReplicaRemoved { replica: 3 }, "empty data folder"),
            (Refusal::UsageOutOfTurn { gateway: 3, told: mark(4, 2), known: mark(6, 1) }, "another life"),
            (Refusal::VersionTooLow { needs: version(3), has: version(2) }, "mlx-serving status"),
            (Refusal::VersionUnknown { to: version(9), newest: version(2) }, "update mlx-serving"),
            (full(Bounded::LiveNodes), "revoke one"),
            (full(Bounded::ModelsOnNode), "remove one"),
            (full(Bounded::ModelPolicies), "the default again"),
            (full(Bounded::Goldens), "remove one"),
            (full(Bounded::LiveKeys), "revoke one"),
            (full(Bounded::KeySecrets), "end the old one"),
            (full(Bounded::Jobs), "send this one later"),
            (full(Bounded::JobsOfTenant), "send this one later"),
            (Refusal::Ca(CaRefusal::NotSealed), "ask again"),
            (
                Refusal::Ca(CaRefusal::OutOfTurn { number: 3, last: 1, under_way: None }),
                "mlx-serving ca status",
            ),
            (Refusal::Ca(CaRefusal::OutOfTurn { number: 3, last: 1, under_way: Some(2) }), "ca status"),
            (Refusal::Ca(CaRefusal::Awaited { missing: 2 }), "--abandon-absent"),
            (full(Bounded::RunningResponses), "begin this one later"),
            (full(Bounded::RunningResponsesOfTenant), "when another is over"),
            (Refusal::Job(JobRefusal::Known { job }), "look at how it stands"),
            (Refusal::Job(JobRefusal::Unknown { job }), "begin it"),
            (Refusal::Job(JobRefusal::NotItsRun { job }), "look at how it stands"),
        ]
        .into_iter()
        .chain(of_keys())
        .chain(of_batches())
        .collect()
    }

    fn version(number: u32) -> ClusterVersion {
        ClusterVersion(number)
    }

    fn mark(life: u64, sequence: u64) -> UsageMark {
        UsageMark { life, sequence }
    }

    fn of_batches() -> Vec<(Refusal, &'static str)> {
        let (file, batch) = (FileId("f".to_owned()), BatchId("b".to_owned()));
        let full = |what| Refusal::TooMany { what, limit: 5 };
        let refused = |refusal| Refusal::Batch(refusal);
        vec![
            (full(Bounded::Files), "delete some"),
            (full(Bounded::FilesOfTenant), "delete some"),
            (full(Bounded::FileMib), "delete some"),
            (full(Bounded::FileMibOfTenant), "delete some"),
            (full(Bounded::Batches), "begin this one later"),
            (full(Bounded::BatchesOfTenant), "when another is over"),
            (refused(BatchRefusal::FileIdTaken { file: file.clone() }), "another id"),
            (refused(BatchRefusal::FileInUse { file: file.clone() }), "wait for its end"),
            (refused(BatchRefusal::UnknownFile { file }), "upload it"),
            (refused(BatchRefusal::IdTaken { batch: batch.clone() }), "another id"),
            (refused(BatchRefusal::Unknown { batch: batch.clone() }), "begin it"),
            (refused(BatchRefusal::Ended { batch: batch.clone() }), "look at how it ended"),
            (refused(BatchRefusal::NotItsRun { batch: batch.clone() }), "look at how it stands"),
            (refused(BatchRefusal::OutOfTurn { batch }), "look at how it stands"),
        ]
    }

    fn of_keys() -> impl Iterator<Item = (Refusal, &'static str)> {
        let key = || KeyId("0a".to_owned());
        [
            (KeyRefusal::Unknown { key: key() }, "keys ls"),
            (KeyRefusal::Revoked { key: key() }, "keys create"),
            (KeyRefusal::IdTaken { key: key() }, "another id"),
            (KeyRefusal::StaleRevision { key: key(), revision: 2, next: 4 }, "change it again"),
            (KeyRefusal::SecretOutOfTurn { key: key(), number: 2, next: 4 }, "ask again"),
            (KeyRefusal::UnknownSecret { key: key(), number: 2 }, "keys show"),
            (KeyRefusal::LastSecret { key: key(), number: 2 }, "keys rotate"),
        ]
        .into_iter()
        .map(|(refusal, advice)| (Refusal::Key(refusal), advice))
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for (refusal, advice) in refusals() {
            assert!(refusal.to_string().contains(advice), "{refusal}");
        }
    }

    #[test]
    fn every_refusal_of_a_field_says_its_rule() {
        let rules = FIELDS.map(|what| Refusal::Malformed { what }.to_string());
        for (index, rule) in rules.iter().enumerate() {
            assert!(rule.contains("must") || rule.contains("has") || rule.contains(" is "), "{rule}");
            assert!(!rules[..index].contains(rule), "two fields share the words: {rule}");
        }
    }

    #[test]
    fn a_refusal_names_what_it_is_about() {
        for (refusal, _) in refusals() {
            let words = refusal.to_string();
            let json = serde_json::to_string(&refusal).unwrap();
            assert!(!json.contains(r#""node""#) || words.contains("node 3"), "{words}");
            assert!(!json.contains(r#""model":"big""#) || words.contains("model big"), "{words}");
            assert!(
                !json.contains(r#""token""#) || words.contains("token t") || words.contains("id t"),
                "{words}"
            );
            assert!(!json.contains(r#""limit""#) || words.contains('5'), "{words}");
            assert!(
                !json.contains(r#""0a""#) || words.contains("key 0a") || words.contains("id 0a"),
                "{words}"
            );
        }
    }

    #[test]
    fn a_refusal_advises_only_commands_that_there_are() {
        for (refusal, _) in refusals() {
            for advice in refusal.to_string().split('`').skip(1).step_by(2) {
                let command = advice.strip_prefix("mlx-serving ").unwrap_or_else(|| panic!("{advice}"));
                assert!(COMMANDS.contains(&command), "{advice}");
            }
        }
    }

    #[test]
    fn memory_is_rounded_so_that_words_and_refusal_agree() {
        let words = refusals().into_iter().map(|(refusal, _)| refusal.to_string());
        let words = words.into_iter().find(|words| words.contains("MiB")).unwrap();
        assert!(words.contains("needs 40961 MiB") && words.contains("4095 of 49152 MiB"), "{words}");
    }

    /// One of each command, and what of it must be seen.
    const LINES: [(&str, &str); 51] = [
        ("found room at=1", "FoundCluster { cluster: ClusterId(\"room\"), at_unix_ms: 1, .. }"),
        ("token t secret=a role=agent expires=9", "IssueJoinToken { id: TokenId(\"t\"), role: Agent"),
        ("admit mini key=1 token=t secret=a at=1", "AdmitNode { token: TokenId(\"t\"), name: \"mini\""),
        ("want 1 demo demo", "WantModel { node: NodeId(1), model: ModelName(\"demo\"), source: Demo }"),
        ("budget 1 9", "SetBudget { node: NodeId(1), bytes: 9 }"),
        ("place 1 demo 8", "PlaceModel { node: NodeId(1), model: ModelName(\"demo\"), bytes: 8 }"),
        ("unplace 1 demo", "UnplaceModel { node: NodeId(1), model: ModelName(\"demo\") }"),
        (
            "policy demo min=2",
            "SetModelPolicy { model: ModelName(\"demo\"), policy: ModelPolicy { pinned: false",
        ),
        ("drain 1", "DrainNode { node: NodeId(1), draining: true }"),
        (
            "breaker 1 demo open generation=4 opens=2 at=6 until=8 because it hung",
            "state: Open, generation: 4, opens: 2, until_unix_ms: Some(8), why: \"it hung\", at_unix_ms: 6 }",
        ),
        ("charge ab node=1 at=5", "ChargeDeath { fingerprint: Fingerprint("),
        ("quarantine ab at=5 until=7", "at_unix_ms: 5, until_unix_ms: 7 }"),
        ("pardon ab", "PardonRequest { fingerprint: Fingerprint("),
        ("golden demo card=0f ids=4,5", "card_digest: \"0f\", ids: [4, 5] }"),
        ("unwant 1 demo", "UnwantModel { node: NodeId(1), model: ModelName(\"demo\") }"),
        ("revoke 1", "RevokeNode { node: NodeId(1) }"),
        ("lock-voters 1 promote=2 by=1 at=5", "LockVoters { change: VoterChange { number: 1"),
        ("unlock-voters 1", "UnlockVoters { number: 1 }"),
        (
            "key 0a secret=a name=ci scopes=admin at=5",
            "CreateKey { key: KeyId(\"0a\"), grant: Grant { name: \"ci\"",
        ),
        (
            "change-key 0a revision=1 name=ci scopes=read",
            "ChangeKey { key: KeyId(\"0a\"), revision: 1, grant",
        ),
        (
            "key-secret 0a 2 secret=aa at=6",
            "AddKeySecret { key: KeyId(\"0a\"), number: 2, at_unix_ms: 6, .. }",
        ),
        (
            "by local-1 at=7: key-secret 0a 3 secret=a at=7",
            "Audited { by: \"local-1\", at_unix_ms: 7, action: \"add",
        ),
        (
            "usage gateway=1 life=2 sequence=1 at=7 0a=1+2+3",
            "CountUsage { gateway: 1, life: 2, sequence: 1, at_unix_ms: 7",
        ),
        (
            "note local-1 begun at=7 because promote coordinator 4",
            "Note { by: \"local-1\", at_unix_ms: 7, action: \"promote",
        ),
        ("found-sealed room key=0a at=1", "FoundSealed { cluster: ClusterId(\"room\"), at_unix_ms: 1, .. }"),
        ("seal-ca key=0a at=8", "SealCa { at_unix_ms: 8, .. }"),
        (
            "rotate-ca 1 begin certificate=certificate key=6161 hash=6161 at=8 until=9",
            "RotateCa { number: 1, step: Begin { until_unix_ms: 9, .. }, at_unix_ms: 8 }",
        ),
        ("rotate-ca 1 moved members=0 at=8", "RotateCa { number: 1, step: Move { members: {NodeId(0)} }"),
        ("rotate-ca 1 abandon at=8", "step: End { abandon: true }"),
        ("raise 2 at=8", "RaiseVersion { to: ClusterVersion(2), at_unix_ms: 8 }"),
        ("drop-secret 0a 1", "DropKeySecret { key: KeyId(\"0a\"), number: 1 }"),
        ("revoke-key 0a at=8", "RevokeKey { key: KeyId(\"0a\"), at_unix_ms: 8 }"),
        ("begin j of=7 asks=hi run=1.a.1 at=9", "request: Digest(68696869…), run: JobRun { replica: 1"),
        ("take j from=1.a.1 run=2.b.1 at=9", "run: JobRun { replica: 2, life: Life(11), number: 1 }, at"),
        ("end j run=2.b.1 answer=yes bytes=3 on=2 at=9", "digest: Digest(79657379…), bytes: 3"),
        ("drop-job j run=2.b.1", "DropJob { job: JobId(Digest(6a6a6a6a…)), run"),
        ("forget-jobs at=10", "ForgetJobs { at_unix_ms: 10 }"),
        (
            "response r begin of=7 key=0a asks=x:3@1 run=1.a.1 at=9",
            "change: Begin { tenant: Tenant(7), key: Some(KeyId(\"0a\")), question: KeptAnswer",
        ),
        ("response r keep run=1.a.1 progress=x:3@1", "change: Keep { run: JobRun { replica: 1"),
        ("response r cancel shown=x answer=y:3@1 at=9", "change: Cancel { progress: Some(Digest(78787878…))"),
        ("response r store of=7 answer=y:3@1 run=1.a.1 at=9", "change: Store { tenant: Tenant(7), kept"),
        ("response r drop", "change: Drop }"),
        (
            "file f of=7 name=aaaa.jsonl pieces=x:3@1 at=10 until=99",
            "ChangeFile { file: FileId(\"f\"), change: Add { tenant: Tenant(7), pieces",
        ),
        (
            "batch b begin of=7 reads=f as=chat says=aaaa:aaaa run=1.a.1 at=11",
            "change: Begin { tenant: Tenant(7), key: None, input: FileId(\"f\"), endpoint: Chat",
        ),
        ("batch b take from=1.a.1 run=2.b.1", "change: Take { from: JobRun { replica: 1"),
        ("batch b open run=2.b.1 lines=3 at=12", "lines: 3, at_unix_ms: 12 }"),
        (
            "batch b keep run=2.b.1 after=0 completed=1 output=x:3@1 at=13",
            "after: 0, completed: 1, failed: 0, output: Some(KeptAnswer",
        ),
        ("batch b cancel at=14", "change: Cancel { at_unix_ms: 14 } }"),
        (
            "batch b end cancelled run=2.b.1 output=o errors=e at=15",
            "how: Cancelled, problems: [], output: FileId(\"o\")",
        ),
        ("drop-file f", "change: Drop }"),
        ("forget-files at=16", "ForgetFiles { at_unix_ms: 16 }"),
    ];

    #[test]
    fn a_printed_command_shows_all_but_its_secrets() {
        for (line, shown) in LINES {
            let printed = format!("{:?}", command(line));
            assert!(printed.contains(shown), "{printed}");
        }
        // The script's key and certificate, and its hash: the letter a, 32 times.
        let secrets = [r#""key""#, r#""certificate""#, "97, 97", "6161", "aaaa"];
        let mut registry = Registry::default();
        for (line, _) in LINES {
            let command: Command = command(line);
            registry.apply(&command);
            let printed = format!("{command:?} {registry:?}");
            assert!(!secrets.iter().any(|secret| printed.contains(secret)), "{printed}");
        }
    }
}
