//! Laws of the replicated machine, whatever the command: replicas are alike, a snapshot is the registry, a reply tells the
//! truth, and a command that was sent twice was sent once.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, Refusal, Registry, Reply};

use crate::generator::{administered, after, config, said};

/// Also before the founding, when all but that is refused.
fn any_history() -> impl Strategy<Value = Vec<Command>> {
    prop_oneof![1 => vec(said(), 0..40), 3 => administered()]
}

fn through_json(registry: &Registry) -> Registry {
    serde_json::from_str(&serde_json::to_string(registry).unwrap()).unwrap()
}

/// All but the audit trail, which notes refused changes too.
fn facts(registry: &Registry) -> serde_json::Value {
    let mut facts = serde_json::to_value(registry).unwrap();
    facts.as_object_mut().unwrap().remove("audit");
    facts
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_replica_is_alike(commands in any_history()) {
        let (mut left, mut right) = (Registry::default(), Registry::default());
        for command in &commands {
            prop_assert_eq!(left.apply(command), right.apply(command));
            prop_assert_eq!(&left, &right);
        }
        prop_assert_eq!(serde_json::to_string(&left).unwrap(), serde_json::to_string(&right).unwrap());
    }

    #[test]
    fn a_snapshot_read_back_is_the_same_registry_and_goes_on_the_same(
        before in administered(),
        behind in vec(said(), 0..20),
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
    fn every_command_and_reply_survives_json(commands in administered()) {
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
    fn a_reply_tells_whether_something_changed(commands in any_history()) {
        let mut registry = Registry::default();
        for command in &commands {
            // A note is a change of the trail and of nothing else.
            let is_note = matches!(command, Command::Note { .. });
            let told = |registry: &Registry| {
                if is_note { serde_json::to_value(registry).unwrap() } else { facts(registry) }
            };
            let before = told(&registry);
            let changed = match registry.apply(command) {
                Reply::Done | Reply::NodeAdmitted { again: false, .. } => true,
                Reply::AlreadySo | Reply::NodeAdmitted { again: true, .. } | Reply::Refused(_) => false,
            };
            prop_assert_eq!(before != told(&registry), changed, "{:?}", command);
        }
    }

    #[test]
    fn the_same_command_twice_is_once(commands in administered()) {
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
}
