//! Laws of the authority's rotation: the former one ends only when nobody is awaited, its time is up or an operator gives the absent up.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{CaStep, Command, Registry, Reply};

use crate::generator::{config, farm, rotations, well_formed};

/// A farm whose authority's key is sealed.
fn sealed() -> Registry {
    let mut registry = Registry::default();
    for command in farm() {
        registry.apply(&command);
    }
    registry.apply(&Command::SealCa { sealed_ca_key: "0a".to_owned(), at_unix_ms: 1 });
    registry
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_former_authority_stays_until_nobody_needs_it_or_somebody_says_so(
        commands in vec(prop_oneof![3 => rotations(), 1 => well_formed()], 0..80),
    ) {
        let mut registry = sealed();
        for command in &commands {
            let before = registry.cluster().unwrap().clone();
            let awaited = registry.awaited();
            registry.apply(command);
            let after = registry.cluster().unwrap();
            if after.ca_certificate_pem == before.ca_certificate_pem {
                continue;
            }
            let rotation = before.rotation.as_ref().expect("one was under way");
            let asked = if let Command::Audited { command, .. } = command { command } else { command };
            let Command::RotateCa { step: CaStep::End { abandon }, at_unix_ms, .. } = asked else {
                panic!("another command ended it: {command:?}");
            };
            prop_assert!(awaited.is_empty() || *abandon || *at_unix_ms >= rotation.until_unix_ms);
            prop_assert_eq!(&after.ca_certificate_pem, &rotation.ca_certificate_pem);
            prop_assert_eq!(after.rotations, before.rotations + 1);
            prop_assert!(after.rotation.is_none());
        }
    }

    #[test]
    fn nothing_of_an_authority_that_gave_way_is_among_the_facts(
        commands in vec(prop_oneof![4 => rotations(), 1 => well_formed()], 0..80),
    ) {
        let mut registry = sealed();
        for command in &commands {
            let before = registry.cluster().unwrap().clone();
            registry.apply(command);
            let after = registry.cluster().unwrap();
            if after.rotations > before.rotations {
                let facts = serde_json::to_string(after).unwrap();
                let key = format!("\"{}\"", before.sealed_ca_key.as_deref().unwrap());
                let same = after.sealed_ca_key == before.sealed_ca_key || after.sealed_hash_key == before.sealed_ca_key;
                prop_assert!(same || !facts.contains(&key), "{}", facts);
            }
        }
    }

    #[test]
    fn what_is_said_twice_changes_nothing_the_second_time(
        commands in vec(rotations(), 0..40),
    ) {
        let mut registry = sealed();
        for command in &commands {
            registry.apply(command);
            let once = registry.clone();
            let again = registry.apply(command);
            prop_assert!(registry == once, "{:?}", command);
            prop_assert_ne!(again, Reply::Done);
        }
    }
}
