//! Laws of the audit trail: everything that was asked for is in it, and nothing of it can be touched unseen.

use proptest::prelude::*;
use registry::{AuditEntry, BrokenTrail, Command, Outcome, Registry, Reply, verify};

use crate::generator::{administered, after, config};

/// Histories in which administrators do something.
fn trails() -> impl Strategy<Value = Vec<AuditEntry>> {
    administered()
        .prop_map(|commands| after(&commands).audit().to_vec())
        .prop_filter("two entries", |trail| trail.len() >= 2)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_change_that_was_asked_for_is_noted_with_how_it_ended(commands in administered()) {
        let mut registry = Registry::default();
        for command in &commands {
            let before = registry.audit().to_vec();
            let reply = registry.apply(command);
            let noted = registry.audit().strip_prefix(before.as_slice()).expect("entries stay");
            if let Command::Note { by, at_unix_ms, action, outcome } = command {
                prop_assert_eq!(noted.len(), usize::from(reply == Reply::Done));
                for entry in noted {
                    let told = (&entry.by, entry.at_unix_ms, &entry.action, entry.outcome);
                    prop_assert_eq!(told, (by, *at_unix_ms, action, *outcome));
                }
                continue;
            }
            let Command::Audited { by, at_unix_ms, action, .. } = command else {
                prop_assert!(noted.is_empty());
                continue;
            };
            let changed = matches!(reply, Reply::Done | Reply::NodeAdmitted { again: false, .. });
            prop_assert_eq!(noted.iter().any(|entry| entry.outcome == Outcome::Done), changed);
            for entry in noted {
                prop_assert_eq!((&entry.by, entry.at_unix_ms, &entry.action), (by, *at_unix_ms, action));
            }
        }
        prop_assert_eq!(verify(registry.audit()), Ok(()));
    }

    #[test]
    fn an_audited_command_does_what_it_does_without(commands in administered()) {
        let inner = |command: &Command| {
            if let Command::Audited { command, .. } = command { Some((**command).clone()) } else { None }
        };
        let bare = |command: &Command| inner(command).unwrap_or_else(|| command.clone());
        let well = |command: &&Command| {
            let Command::Audited { by, action, .. } = command else { return true };
            let nested = inner(command).as_ref().and_then(inner).is_some()
                || matches!(inner(command), Some(Command::Note { .. }));
            by.starts_with("local-") && !action.is_empty() && !action.contains(char::is_control) && !nested
        };
        let commands: Vec<_> = commands.iter().filter(well).cloned().collect();
        let (noted, plain) = (after(&commands), after(&commands.iter().map(bare).collect::<Vec<_>>()));
        let facts = |registry: &Registry| {
            let mut facts = serde_json::to_value(registry).unwrap();
            facts.as_object_mut().unwrap().remove("audit");
            facts
        };
        prop_assert_eq!(facts(&noted), facts(&plain));
    }

    #[test]
    fn no_entry_can_be_altered_or_moved(trail in trails(), at in any::<prop::sample::Index>(), field in 0_u8..6) {
        let at = at.index(trail.len());
        let mut forged = trail.clone();
        match field {
            0 => forged[at].by.push('x'),
            1 => forged[at].action.push('x'),
            2 => forged[at].at_unix_ms += 1,
            3 => forged[at].outcome = if forged[at].outcome == Outcome::Done { Outcome::Refused } else { Outcome::Done },
            4 => forged[at].hash[31] ^= 1,
            _ => forged[at].previous[0] ^= 1,
        }
        prop_assert_eq!(verify(&forged), Err(BrokenTrail::Altered { number: trail[at].number }));
        let mut swapped = trail.clone();
        swapped.swap(0, 1);
        prop_assert!(verify(&swapped).is_err());
        if trail.len() > 2 {
            let mut missing = trail.clone();
            missing.remove(1);
            prop_assert_eq!(verify(&missing), Err(BrokenTrail::Gap { number: trail[2].number }));
        }
        prop_assert_eq!(verify(&trail[1..]), Ok(()), "the oldest may be forgotten");
    }
}
