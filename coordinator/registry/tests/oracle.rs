//! The registry against a second one that is written as naively as possible: lists, searched from end to end.

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use registry::{
        ClusterId, Command, ModelName, ModelSource, NodeId, Refusal, Registry, Reply, Role, TokenId,
    };

    /// Everything that ever happened, and nothing derived from it.
    #[derive(Default)]
    struct Oracle {
        tokens: Vec<Command>,
        /// Key, role, token.
        admitted: Vec<(String, Role, TokenId)>,
        revoked: Vec<NodeId>,
        wanted: Vec<(NodeId, ModelName, ModelSource)>,
    }

    impl Oracle {
        fn apply(&mut self, command: &Command) -> Reply {
            match command {
                Command::FoundCluster { .. } => Reply::Refused(Refusal::AlreadyFounded),
                Command::IssueJoinToken { id, .. } => self.issue(id, command),
                Command::AdmitNode { token, secret_hash, public_key, at_unix_ms, name: _ } => {
                    self.admit(token, secret_hash, public_key, *at_unix_ms)
                }
                Command::RevokeNode { node } => match self.role_of(*node) {
                    None => Reply::Refused(Refusal::UnknownNode { node: *node }),
                    Some(_) if self.revoked.contains(node) => Reply::AlreadySo,
                    Some(_) => {
                        self.revoked.push(*node);
                        self.wanted.retain(|(on, _, _)| on != node);
                        Reply::Done
                    }
                },
                Command::WantModel { node, model, source } => self.want(*node, model, source),
                Command::UnwantModel { node, model } => match self.role_of(*node) {
                    None => Reply::Refused(Refusal::UnknownNode { node: *node }),
                    Some(_) => {
                        let before = self.wanted.len();
                        self.wanted.retain(|(on, name, _)| (on, name) != (node, model));
                        if self.wanted.len() < before { Reply::Done } else { Reply::AlreadySo }
                    }
                },
            }
        }

        fn issue(&mut self, id: &TokenId, command: &Command) -> Reply {
            let same_id =
                |known: &&Command| matches!(known, Command::IssueJoinToken { id: other, .. } if other == id);
            match self.tokens.iter().find(same_id) {
                Some(known) if known == command => Reply::AlreadySo,
                Some(_) => Reply::Refused(Refusal::TokenIdTaken { token: id.clone() }),
                None => {
                    self.tokens.push(command.clone());
                    Reply::Done
                }
            }
        }

        fn admit(&mut self, shown: &TokenId, secret: &[u8; 32], key: &str, at: u64) -> Reply {
            let good = self.tokens.iter().find_map(|token| {
                let Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses } = token
                else {
                    return None;
                };
                ((id, secret_hash) == (shown, secret)).then_some((*role, *expires_at_unix_ms, *uses))
            });
            let token = shown.clone();
            let Some((role, expires, uses)) = good else {
                return Reply::Refused(Refusal::UnknownToken { token });
            };
            if expires <= at {
                return Reply::Refused(Refusal::TokenExpired { token });
            }
            let known = self.admitted.iter().position(|(other, _, _)| other == key);
            if let Some(position) = known {
                let (node, is) = (NodeId(position as u64 + 1), self.admitted[position].1);
                return if self.revoked.contains(&node) {
                    Reply::Refused(Refusal::NodeRevoked { node })
                } else if is != role {
                    Reply::Refused(Refusal::TokenRoleMismatch { node, is, token_gives: role })
                } else {
                    Reply::NodeAdmitted { node, again: true }
                };
            }
            let used = self.admitted.iter().filter(|(_, _, by)| by == shown).count();
            if uses.is_some_and(|uses| used >= uses as usize) {
                return Reply::Refused(Refusal::TokenSpent { token });
            }
            self.admitted.push((key.to_owned(), role, token));
            Reply::NodeAdmitted { node: NodeId(self.admitted.len() as u64), again: false }
        }

        fn want(&mut self, node: NodeId, model: &ModelName, source: &ModelSource) -> Reply {
            match self.role_of(node) {
                None => return Reply::Refused(Refusal::UnknownNode { node }),
                Some(_) if self.revoked.contains(&node) => {
                    return Reply::Refused(Refusal::NodeRevoked { node });
                }
                Some(Role::Agent) => {}
                Some(is) => return Reply::Refused(Refusal::NotAnAgent { node, is }),
            }
            let wish = (node, model.clone(), source.clone());
            if self.wanted.contains(&wish) {
                return Reply::AlreadySo;
            }
            self.wanted.retain(|(on, name, _)| (*on, name) != (node, model));
            self.wanted.push(wish);
            Reply::Done
        }

        fn role_of(&self, node: NodeId) -> Option<Role> {
            let position = usize::try_from(node.0.checked_sub(1)?).ok()?;
            self.admitted.get(position).map(|(_, role, _)| *role)
        }
    }

    fn command() -> impl Strategy<Value = Command> {
        let token = || (0_u8..3).prop_map(|number| TokenId(format!("t{number}")));
        let hash = || prop_oneof![5 => Just([0; 32]), 1 => Just([1; 32])];
        let node = || (0_u64..7).prop_map(NodeId);
        let model = || (0_u8..3).prop_map(|number| ModelName::new(&format!("m{number}")).unwrap());
        let role = prop_oneof![3 => Just(Role::Agent), 1 => Just(Role::Client)];
        let source = prop_oneof![Just(ModelSource::Demo), Just(ModelSource::Hub("owner/name".to_owned()))];
        prop_oneof![
            (token(), hash(), role, 3_u64..9, proptest::option::of(1_u32..4)).prop_map(
                |(id, secret_hash, role, expires_at_unix_ms, uses)| {
                    Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses }
                }
            ),
            (token(), hash(), 0_u8..8, 0_u64..9).prop_map(|(token, secret_hash, key, at_unix_ms)| {
                let (name, public_key) = ("mini".to_owned(), format!("{key}"));
                Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms }
            }),
            node().prop_map(|node| Command::RevokeNode { node }),
            (node(), model(), source)
                .prop_map(|(node, model, source)| { Command::WantModel { node, model, source } }),
            (node(), model()).prop_map(|(node, model)| Command::UnwantModel { node, model }),
        ]
    }

    proptest! {
        #[test]
        fn the_registry_answers_as_a_naive_one_does(commands in vec(command(), 0..120)) {
            let mut registry = Registry::default();
            let mut oracle = Oracle::default();
            let founding = Command::FoundCluster {
                cluster: ClusterId("room".to_owned()),
                ca_certificate_pem: "certificate".to_owned(),
                ca_key_pem: "key".to_owned(),
                at_unix_ms: 0,
            };
            registry.apply(&founding);
            for command in &commands {
                prop_assert_eq!(registry.apply(command), oracle.apply(command), "{:?}", command);
            }
            let wanted: Vec<_> = registry
                .nodes()
                .flat_map(|(id, _)| registry.wanted_on(id).map(move |(name, source)| (id, name.clone(), source.clone())))
                .collect();
            oracle.wanted.sort();
            prop_assert_eq!(wanted, oracle.wanted);
        }
    }
}
