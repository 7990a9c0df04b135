//! What happens at the bounds of who is a node and what it offers, one below and at each.

#[cfg(test)]
mod tests {
    use registry::{
        Bounded, ClusterId, Command, Field, ModelName, ModelSource, NodeId, Refusal, Registry, Reply, Role,
        TokenId, limits,
    };

    const SECRET: [u8; 32] = [0xab; 32];

    fn founded() -> Registry {
        let mut registry = Registry::default();
        let reply = registry.apply(&Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "PRIVATE".to_owned(),
            at_unix_ms: 1,
        });
        assert_eq!(reply, Reply::Done);
        registry
    }

    fn issue(registry: &mut Registry, id: &str, expires_at_unix_ms: u64, uses: Option<u32>) -> Reply {
        let (id, role) = (TokenId(id.to_owned()), Role::Agent);
        let name = None;
        let secret_hash = SECRET;
        registry.apply(&Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses, name })
    }

    fn admit(registry: &mut Registry, token: &str, key: &str) -> Reply {
        registry.apply(&Command::AdmitNode {
            token: TokenId(token.to_owned()),
            secret_hash: SECRET,
            name: "mini".to_owned(),
            public_key: key.to_owned(),
            at_unix_ms: 1,
        })
    }

    fn with_nodes(count: usize) -> Registry {
        let mut registry = founded();
        issue(&mut registry, "t", 9, None);
        for number in 1..=count {
            let reply = admit(&mut registry, "t", &format!("{number:x}"));
            assert_eq!(reply, Reply::NodeAdmitted { node: NodeId(number as u64), again: false });
        }
        registry
    }

    fn want(registry: &mut Registry, model: &str, source: ModelSource) -> Reply {
        let model = ModelName::new(model).unwrap();
        registry.apply(&Command::WantModel { node: NodeId(1), model, source })
    }

    #[test]
    fn a_full_cluster_takes_a_machine_again_when_one_is_revoked() {
        let mut registry = with_nodes(limits::LIVE_NODES_MAX);
        let full = Refusal::TooMany { what: Bounded::LiveNodes, limit: limits::LIVE_NODES_MAX };
        assert_eq!(admit(&mut registry, "t", "ffff"), Reply::Refused(full));
        assert_eq!(registry.token(&TokenId("t".to_owned())).unwrap().used as usize, limits::LIVE_NODES_MAX);
        assert_eq!(registry.apply(&Command::RevokeNode { node: NodeId(7) }), Reply::Done);
        let next = NodeId(limits::LIVE_NODES_MAX as u64 + 1);
        assert_eq!(admit(&mut registry, "t", "ffff"), Reply::NodeAdmitted { node: next, again: false });
    }

    #[test]
    fn the_oldest_revoked_node_is_forgotten_and_its_number_is_not() {
        // Made by hand: admitting and revoking as many machines one by one takes seconds.
        let over = limits::REVOKED_NODES_MAX + 1;
        let mut snapshot = serde_json::to_value(with_nodes(1)).unwrap();
        let mut node = snapshot["nodes"]["1"].clone();
        node["revoked"] = true.into();
        for number in 1..over {
            node["public_key"] = format!("{number:x}").into();
            snapshot["nodes"][number.to_string()] = node.clone();
        }
        snapshot["last_node"] = (over - 1).into();
        let mut registry: Registry = serde_json::from_value(snapshot).unwrap();
        let last = NodeId(over as u64);
        assert_eq!(admit(&mut registry, "t", "ffff"), Reply::NodeAdmitted { node: last, again: false });
        assert_eq!(registry.apply(&Command::RevokeNode { node: last }), Reply::Done);
        assert_eq!(registry.node(NodeId(1)), None);
        assert!(registry.is_node_revoked(NodeId(1)), "forgotten, and revoked all the same");
        assert!(registry.node(NodeId(2)).unwrap().revoked);
        assert!(!registry.is_node_revoked(NodeId(over as u64 + 1)), "never given");
        assert_eq!(registry.nodes().count(), limits::REVOKED_NODES_MAX);
        let next = NodeId(over as u64 + 1);
        assert_eq!(admit(&mut registry, "t", "1"), Reply::NodeAdmitted { node: next, again: false });
    }

    #[test]
    fn a_new_token_displaces_a_spent_one_and_then_the_one_that_expires_first() {
        let mut registry = founded();
        for number in 0..limits::TOKENS_MAX as u64 {
            issue(&mut registry, &format!("t{number}"), 1_000 + number, Some(1));
        }
        assert!(matches!(admit(&mut registry, "t9", "9"), Reply::NodeAdmitted { .. }));
        let there = |registry: &Registry, id: &str| registry.token(&TokenId(id.to_owned())).is_some();
        assert_eq!(issue(&mut registry, "new1", 10, None), Reply::Done);
        assert!(!there(&registry, "t9") && there(&registry, "t0"));
        assert_eq!(issue(&mut registry, "new2", 5_000, None), Reply::Done);
        assert!(!there(&registry, "new1") && there(&registry, "t0") && there(&registry, "new2"));
        assert_eq!(registry.tokens().count(), limits::TOKENS_MAX);
    }

    #[test]
    fn a_node_holds_so_many_models_and_a_held_one_may_still_move() {
        let mut registry = with_nodes(1);
        for number in 0..limits::MODELS_PER_NODE_MAX {
            assert_eq!(want(&mut registry, &format!("m{number}"), ModelSource::Demo), Reply::Done);
        }
        let full = Refusal::TooMany { what: Bounded::ModelsOnNode, limit: limits::MODELS_PER_NODE_MAX };
        assert_eq!(want(&mut registry, "one-more", ModelSource::Demo), Reply::Refused(full));
        assert_eq!(want(&mut registry, "m3", ModelSource::Path("/m3".to_owned())), Reply::Done);
        let unwant = Command::UnwantModel { node: NodeId(1), model: ModelName::new("m3").unwrap() };
        assert_eq!(registry.apply(&unwant), Reply::Done);
        assert_eq!(want(&mut registry, "one-more", ModelSource::Demo), Reply::Done);
    }

    #[test]
    fn every_text_has_a_bound() {
        let long = |bytes: usize| "a".repeat(bytes + 1);
        let malformed = |what: Field| Reply::Refused(Refusal::Malformed { what });
        let mut registry = with_nodes(1);
        assert_eq!(issue(&mut registry, &long(limits::ID_BYTES_MAX), 9, None), malformed(Field::TokenId));
        let key = long(limits::FINGERPRINT_BYTES_MAX);
        assert_eq!(admit(&mut registry, "t", &key), malformed(Field::PublicKey));
        let path = format!("/{}", long(limits::MODEL_PATH_BYTES_MAX));
        assert_eq!(want(&mut registry, "m", ModelSource::Path(path)), malformed(Field::ModelPath));
        let hub = long(limits::MODEL_NAME_BYTES_MAX);
        assert_eq!(want(&mut registry, "m", ModelSource::Hub(hub)), malformed(Field::HubId));
        let join = |name: String| Command::AdmitNode {
            token: TokenId("t".to_owned()),
            secret_hash: SECRET,
            name,
            public_key: "2".to_owned(),
            at_unix_ms: 1,
        };
        for name in [String::new(), long(limits::NODE_NAME_BYTES_MAX), "a\u{1b}[2J".to_owned()] {
            assert_eq!(registry.apply(&join(name)), malformed(Field::NodeName));
        }
    }

    #[test]
    fn a_founding_without_an_authority_is_refused() {
        let found = |certificate: &str, key: &str| Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: certificate.to_owned(),
            ca_key_pem: key.to_owned(),
            at_unix_ms: 1,
        };
        let long = "k".repeat(limits::PEM_BYTES_MAX + 1);
        let mut registry = Registry::default();
        for (command, what) in [
            (found("", "key"), Field::CaCertificate),
            (found(&long, "key"), Field::CaCertificate),
            (found("certificate", ""), Field::CaKey),
            (found("certificate", &long), Field::CaKey),
        ] {
            assert_eq!(registry.apply(&command), Reply::Refused(Refusal::Malformed { what }));
            assert_eq!(registry, Registry::default());
        }
    }

    #[test]
    fn the_longest_command_and_the_largest_name_are_taken() {
        let mut registry = with_nodes(1);
        let name = "n".repeat(limits::MODEL_NAME_BYTES_MAX);
        let path = format!("/{}", "p".repeat(limits::MODEL_PATH_BYTES_MAX - 1));
        assert_eq!(want(&mut registry, &name, ModelSource::Path(path)), Reply::Done);
        assert_eq!(want(&mut registry, "h", ModelSource::Hub(name)), Reply::Done);
    }

    #[test]
    fn a_model_name_cannot_leave_its_folder() {
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a b", "a\\b", "ä", "a\0", "a:b",
        ] {
            let error = ModelName::new(bad).expect_err(bad).to_string();
            assert!(error.contains("model name"), "{error}");
            assert!(
                serde_json::from_str::<ModelName>(&serde_json::to_string(bad).unwrap()).is_err(),
                "{bad}"
            );
        }
        let long = "a".repeat(limits::MODEL_NAME_BYTES_MAX + 1);
        assert!(ModelName::new(&long).unwrap_err().to_string().contains("200 bytes"));
        for good in ["a", "...", "a..b", ".a", "mlx-community/Qwen3-4B-4bit", "a/b/c/d", "A_9.z-"] {
            assert_eq!(ModelName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_wrong_secret_is_refused_wherever_it_differs() {
        let mut registry = with_nodes(1);
        for position in 0..32 {
            let mut secret_hash = SECRET;
            secret_hash[position] ^= 1;
            let token = TokenId("t".to_owned());
            let reply = registry.apply(&Command::AdmitNode {
                token: token.clone(),
                secret_hash,
                name: "mini".to_owned(),
                public_key: "2".to_owned(),
                at_unix_ms: 1,
            });
            assert_eq!(reply, Reply::Refused(Refusal::UnknownToken { token }), "byte {position}");
        }
    }
}
