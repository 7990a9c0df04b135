//! Laws of the cluster's version: it only grows, never beyond what this release knows, and what it does not reach is refused.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{ClusterVersion, Command, Refusal, Registry, Reply};

use crate::generator::{after, command, config, farm, founding, raises, said};

/// A registry as of an imaginary release from before the first version.
fn before_the_first() -> Registry {
    let mut facts = serde_json::to_value(after(&farm())).unwrap();
    facts.as_object_mut().unwrap().insert("cluster_version".to_owned(), 0.into());
    serde_json::from_value(facts).unwrap()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_version_only_grows_and_by_nothing_but_its_command(
        commands in vec(prop_oneof![1 => raises(), 3 => command()], 0..60),
    ) {
        let mut registry = after(&[founding()]);
        let mut known = ClusterVersion::FIRST;
        for command in &commands {
            let reply = registry.apply(command);
            let now = registry.cluster_version();
            prop_assert!(now <= ClusterVersion::NEWEST);
            match command.raises_to() {
                Some(to) if reply == Reply::Done => prop_assert!(now == to && now > known),
                Some(_) | None => prop_assert_eq!(now, known),
            }
            known = now;
        }
    }

    #[test]
    fn what_needs_more_than_the_version_is_refused_and_changes_nothing(command in said()) {
        let mut registry = before_the_first();
        let before = registry.clone();
        let refusal = Refusal::VersionTooLow { needs: command.needs(), has: ClusterVersion(0) };
        prop_assert_eq!(registry.understands(&command), Err(refusal.clone()));
        prop_assert_eq!(registry.apply(&command), Reply::Refused(refusal));
        prop_assert_eq!(registry, before);
    }

    #[test]
    fn no_command_needs_a_version_that_this_release_does_not_know(command in said()) {
        let known = ClusterVersion::OLDEST..=ClusterVersion::NEWEST;
        prop_assert!(known.contains(&command.needs()));
        let asked = command.clone().audited("local-1", 1);
        prop_assert_eq!((asked.needs(), asked.raises_to()), (command.needs(), command.raises_to()));
    }
}

#[test]
fn a_cluster_that_said_nothing_takes_every_command_of_the_first_version() {
    let registry = after(&[founding()]);
    let node = registry::NodeId(1);
    assert_eq!(registry.understands(&Command::RevokeNode { node }), Ok(()));
    let (needs, has) = (ClusterVersion::SECOND, ClusterVersion::FIRST);
    let files = Command::ForgetFiles { at_unix_ms: 1 };
    assert_eq!(registry.understands(&files), Err(Refusal::VersionTooLow { needs, has }));
}
