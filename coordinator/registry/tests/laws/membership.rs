//! Laws of who is a node, and of what a node that is none any more leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use registry::{Command, NodeId, Registry, Reply};

use crate::generator::{after, config, history};

proptest! {
    #![proptest_config(config())]

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
    fn nobody_new_joins_with_a_token_that_was_taken_back(commands in history()) {
        let mut registry = Registry::default();
        let mut taken_back = BTreeSet::new();
        for command in &commands {
            let reply = registry.apply(command);
            if let (Command::RevokeJoinToken { id }, Reply::Done | Reply::AlreadySo) = (command, &reply) {
                taken_back.insert(id.clone());
            }
            if let (Command::AdmitNode { token, .. }, Reply::NodeAdmitted { .. }) = (command, &reply) {
                prop_assert!(!taken_back.contains(token));
            }
        }
    }

    #[test]
    fn a_revoked_node_stays_revoked_and_keeps_nothing(commands in history()) {
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
                prop_assert!(registry.is_node_revoked(*node));
                prop_assert_eq!(registry.wanted_on(*node).count(), 0);
                prop_assert_eq!(registry.placed_on(*node).count(), 0);
                prop_assert_eq!(registry.budget(*node), None);
                prop_assert!(!registry.is_draining(*node));
                prop_assert!(registry.breakers().all(|(on, _, _)| on != *node));
            }
        }
    }

    #[test]
    fn nobody_is_revoked_who_was_not(commands in history()) {
        let registry = after(&commands);
        let revoked = |node: NodeId| commands.contains(&Command::RevokeNode { node });
        prop_assert!((0..9).map(NodeId).all(|node| !registry.is_node_revoked(node) || revoked(node)));
    }

    #[test]
    fn wanted_models_are_those_offered_somewhere_each_once(commands in history()) {
        let registry = after(&commands);
        let somewhere: BTreeSet<_> =
            registry.nodes().flat_map(|(id, _)| registry.wanted_on(id)).map(|(name, _)| name).collect();
        let listed: Vec<_> = registry.wanted_models().collect();
        prop_assert_eq!(listed, somewhere.into_iter().collect::<Vec<_>>());
    }
}
