//! What holds for every history of commands, tried on random ones: laws, where the scenarios are examples.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use registry::{
        ClusterId, Command, ModelName, ModelSource, NodeId, Refusal, Registry, Reply, Role, TokenId, limits,
    };

    /// Few ids, so that commands meet; some of every field badly formed.
    fn command() -> impl Strategy<Value = Command> {
        let token = || prop_oneof![9 => "t[0-3]", 1 => "[./t]{0,2}"].prop_map(TokenId);
        let hash = || (0_u8..2).prop_map(|byte| [byte; 32]);
        let node = || (0_u64..8).prop_map(NodeId);
        let model = || "[a-c]".prop_map(|name| ModelName::new(&name).unwrap());
        prop_oneof![
            1 => ("[a-z/]{0,3}", "[a-z]{0,3}", "[a-z]{0,3}", 0_u64..9).prop_map(|(id, certificate, key, at)| {
                Command::FoundCluster {
                    cluster: ClusterId(id),
                    ca_certificate_pem: certificate,
                    ca_key_pem: key,
                    at_unix_ms: at,
                }
            }),
            4 => (token(), hash(), role(), 0_u64..9, proptest::option::of(0_u32..4)).prop_map(
                |(id, secret_hash, role, expires_at_unix_ms, uses)| {
                    Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses }
                }
            ),
            8 => (token(), hash(), "[a-z\n]{1,2}", "[0-9ag]{1,1}", 0_u64..9).prop_map(
                |(token, secret_hash, name, public_key, at_unix_ms)| {
                    Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms }
                }
            ),
            3 => node().prop_map(|node| Command::RevokeNode { node }),
            6 => (node(), model(), source()).prop_map(|(node, model, source)| {
                Command::WantModel { node, model, source }
            }),
            3 => (node(), model()).prop_map(|(node, model)| Command::UnwantModel { node, model }),
        ]
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![4 => Just(Role::Agent), 1 => Just(Role::Coordinator), 1 => Just(Role::Client)]
    }

    fn source() -> impl Strategy<Value = ModelSource> {
        prop_oneof![
            "/?[a-z]{0,3}".prop_map(ModelSource::Path),
            "[a-z/]{1,4}".prop_map(ModelSource::Hub),
            Just(ModelSource::Demo),
        ]
    }

    /// A history that begins with a founding, so that something can happen.
    fn history() -> impl Strategy<Value = Vec<Command>> {
        vec(command(), 0..80).prop_map(|mut commands| {
            commands.insert(0, founding());
            commands
        })
    }

    fn founding() -> Command {
        Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 0,
        }
    }

    fn after(commands: &[Command]) -> Registry {
        let mut registry = Registry::default();
        for command in commands {
            registry.apply(command);
        }
        registry
    }

    fn through_json(registry: &Registry) -> Registry {
        serde_json::from_str(&serde_json::to_string(registry).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_replica_is_alike(commands in vec(command(), 0..80)) {
            let (mut left, mut right) = (Registry::default(), Registry::default());
            for command in &commands {
                prop_assert_eq!(left.apply(command), right.apply(command));
                prop_assert_eq!(&left, &right);
            }
            prop_assert_eq!(serde_json::to_string(&left).unwrap(), serde_json::to_string(&right).unwrap());
        }

        #[test]
        fn a_snapshot_read_back_is_the_same_registry_and_goes_on_the_same(
            before in history(),
            behind in vec(command(), 0..20),
        ) {
            let mut kept = after(&before);
            let mut restored = through_json(&kept);
            prop_assert_eq!(&kept, &restored);
            for command in &behind {
                prop_assert_eq!(kept.apply(command), restored.apply(command));
            }
            prop_assert_eq!(kept, restored);
        }

        #[test]
        fn every_command_and_reply_survives_json(commands in history()) {
            let mut registry = Registry::default();
            for command in &commands {
                let text = serde_json::to_string(command).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Command>(&text).unwrap(), command);
                let reply = registry.apply(command);
                let text = serde_json::to_string(&reply).unwrap();
                prop_assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
            }
        }

        #[test]
        fn a_reply_tells_whether_something_changed(commands in vec(command(), 0..80)) {
            let mut registry = Registry::default();
            for command in &commands {
                let before = registry.clone();
                let changed = match registry.apply(command) {
                    Reply::Done | Reply::NodeAdmitted { again: false, .. } => true,
                    Reply::AlreadySo | Reply::NodeAdmitted { again: true, .. } | Reply::Refused(_) => false,
                };
                prop_assert_eq!(before != registry, changed, "{:?}", command);
            }
        }

        #[test]
        fn the_same_command_twice_is_once(commands in history()) {
            let mut registry = Registry::default();
            for command in &commands {
                let first = registry.apply(command);
                let once = registry.clone();
                let second = registry.apply(command);
                prop_assert_eq!(&once, &registry);
                match (command, first) {
                    (Command::FoundCluster { .. }, Reply::Done) => {
                        prop_assert_eq!(second, Reply::Refused(Refusal::AlreadyFounded));
                    }
                    (_, Reply::Done) => prop_assert_eq!(second, Reply::AlreadySo),
                    (_, Reply::NodeAdmitted { node, .. }) => {
                        prop_assert_eq!(second, Reply::NodeAdmitted { node, again: true });
                    }
                    (_, same @ (Reply::AlreadySo | Reply::Refused(_))) => prop_assert_eq!(second, same),
                }
            }
        }

        #[test]
        fn numbers_grow_and_are_never_given_twice(commands in history()) {
            let mut registry = Registry::default();
            let mut last = 0;
            for command in &commands {
                if let Reply::NodeAdmitted { node, again: false } = registry.apply(command) {
                    prop_assert_eq!(node.0, last + 1);
                    last = node.0;
                }
            }
        }

        #[test]
        fn a_key_is_one_node_for_ever(commands in history()) {
            let mut registry = Registry::default();
            let mut known = BTreeMap::new();
            for command in &commands {
                let reply = registry.apply(command);
                if let (Command::AdmitNode { public_key, .. }, Reply::NodeAdmitted { node, again }) = (command, reply) {
                    let former = known.insert(public_key.clone(), node);
                    prop_assert_eq!(former, again.then_some(node));
                }
            }
        }

        #[test]
        fn a_token_admits_no_more_machines_than_it_may(commands in history()) {
            let registry = after(&commands);
            for (id, token) in registry.tokens() {
                let admitted = registry.nodes().filter(|(_, node)| node.token == *id).count();
                prop_assert_eq!(admitted, token.used as usize);
                prop_assert!(token.uses.is_none_or(|uses| token.used <= uses));
            }
        }

        #[test]
        fn a_revoked_node_stays_revoked_and_is_wanted_for_nothing(commands in history()) {
            let mut registry = Registry::default();
            let mut revoked = BTreeSet::new();
            for command in &commands {
                let reply = registry.apply(command);
                if let (Command::RevokeNode { node }, Reply::Done) = (command, &reply) {
                    revoked.insert(*node);
                }
                if let Reply::NodeAdmitted { node, .. } = reply {
                    prop_assert!(!revoked.contains(&node));
                }
                for node in &revoked {
                    prop_assert!(registry.node(*node).is_some_and(|node| node.revoked));
                    prop_assert_eq!(registry.wanted_on(*node).count(), 0);
                }
            }
        }

        #[test]
        fn wanted_models_are_those_wanted_somewhere_each_once(commands in history()) {
            let registry = after(&commands);
            let somewhere: BTreeSet<_> =
                registry.nodes().flat_map(|(id, _)| registry.wanted_on(id)).map(|(name, _)| name).collect();
            let listed: Vec<_> = registry.wanted_models().collect();
            prop_assert_eq!(listed, somewhere.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_collection_outgrows_its_bound(commands in history()) {
            let registry = after(&commands);
            prop_assert!(registry.tokens().count() <= limits::TOKENS_MAX);
            prop_assert!(registry.nodes().count() <= limits::LIVE_NODES_MAX + limits::REVOKED_NODES_MAX);
        }

        #[test]
        fn any_text_is_a_model_name_or_not_alike_everywhere(text in "[a-c./_ -]{0,8}") {
            let name = ModelName::new(&text);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<ModelName>(&json).ok(), name.clone().ok());
            // The rule said another way: a relative path that goes down at every step.
            let path = std::path::Path::new(&text);
            let steps = path.components().filter(|step| matches!(step, std::path::Component::Normal(_))).count();
            let down_only = !text.is_empty() && steps == text.split('/').count() && !text.contains(' ');
            prop_assert_eq!(name.is_ok(), down_only);
        }
    }
}
