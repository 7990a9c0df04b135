//! Laws of API keys: what ends never comes back, and a number is given once.

use std::collections::BTreeSet;

use proptest::prelude::*;
use registry::{Command, KeyId, Registry, limits};

use crate::generator::{administered, config};

fn apply_all(
    commands: &[Command],
    mut look: impl FnMut(&Registry, &Command) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut registry = Registry::default();
    for command in commands {
        registry.apply(command);
        look(&registry, command)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_revoked_key_is_never_good_again(commands in administered()) {
        let mut revoked = BTreeSet::<KeyId>::new();
        apply_all(&commands, |registry, _| {
            for (id, key) in registry.keys() {
                if key.is_revoked() {
                    revoked.insert(id.clone());
                }
                prop_assert_eq!(revoked.contains(id), key.is_revoked());
                prop_assert_eq!(key.is_revoked(), key.secrets().next().is_none());
            }
            Ok(())
        })?;
    }

    #[test]
    fn once_there_was_a_key_there_always_was_one(commands in administered()) {
        let mut keyed = false;
        apply_all(&commands, |registry, _| {
            keyed |= registry.keys().next().is_some();
            prop_assert_eq!(registry.is_keyed(), keyed);
            Ok(())
        })?;
    }

    #[test]
    fn a_key_has_one_or_two_secrets_until_it_is_revoked(commands in administered()) {
        apply_all(&commands, |registry, _| {
            for (_, key) in registry.keys().filter(|(_, key)| !key.is_revoked()) {
                prop_assert!((1..=limits::SECRETS_PER_KEY_MAX).contains(&key.secrets().count()));
                prop_assert!(!key.grant.scopes.is_empty());
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_number_of_a_secret_is_given_once(commands in administered()) {
        let mut last = std::collections::BTreeMap::<KeyId, u32>::new();
        apply_all(&commands, |registry, _| {
            for (id, key) in registry.keys() {
                let before = last.insert(id.clone(), key.next_secret()).unwrap_or(0);
                prop_assert!(key.next_secret() >= before);
                prop_assert!(key.secrets().all(|(number, _)| number < key.next_secret()));
            }
            Ok(())
        })?;
    }
}
