//! Laws of what operators and canaries set: policies make sense, drains are as they were last set, the first golden ids stay.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, ModelPolicy, Reply};

use crate::generator::{after, command, config, farm, history, settings};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_policy_is_never_the_default_and_never_contradicts_itself(commands in history()) {
        let registry = after(&commands);
        for (model, policy) in registry.policies() {
            prop_assert_ne!(*policy, ModelPolicy::default());
            prop_assert!(policy.replicas_max == 0 || policy.replicas_min <= policy.replicas_max);
            prop_assert_eq!(registry.policy(model), *policy);
        }
    }

    #[test]
    fn what_was_set_last_is_what_is_read(commands in vec(settings(), 0..60)) {
        let mut registry = after(&farm());
        for command in &commands {
            let reply = registry.apply(command);
            if let Command::SetModelPolicy { model, policy } = command {
                prop_assert_eq!(registry.policy(model), *policy);
            }
            if let Command::DrainNode { node, draining } = command
                && !matches!(reply, Reply::Refused(_))
            {
                prop_assert_eq!(registry.is_draining(*node), *draining);
            }
        }
    }

    #[test]
    fn the_first_golden_ids_under_a_card_stay_until_another_card_comes(
        commands in vec(prop_oneof![1 => settings(), 1 => command()], 0..120),
    ) {
        let mut registry = after(&farm());
        let mut first = BTreeMap::new();
        for command in &commands {
            let reply = registry.apply(command);
            let Command::SetGolden { model, card_digest, ids } = command else { continue };
            if matches!(reply, Reply::Done) {
                let former = first.insert(model.clone(), (card_digest.clone(), ids.clone()));
                prop_assert_ne!(former.map(|(card, _)| card), Some(card_digest.clone()));
            }
            for (model, (card, ids)) in &first {
                prop_assert_eq!(registry.golden(model, card), Some(ids.as_slice()));
                prop_assert_eq!(registry.golden(model, "ff"), None);
            }
        }
    }
}
