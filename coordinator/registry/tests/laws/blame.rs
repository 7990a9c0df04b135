//! Laws of blame: a death counts once in whatever order it is told, and nothing is left after a pardon.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, Death, Fingerprint, NodeId, Reply, limits};

use crate::generator::{after, blame, command, config, farm};

const REQUEST: Fingerprint = Fingerprint(7);

fn charge(death: &Death) -> Command {
    Command::ChargeDeath { fingerprint: REQUEST, node: death.node, at_unix_ms: death.at_unix_ms }
}

fn deaths() -> impl Strategy<Value = Vec<Death>> {
    let death = (1_u64..4, 0_u64..4).prop_map(|(node, at_unix_ms)| Death { at_unix_ms, node: NodeId(node) });
    vec(death, 0..limits::DEATHS_PER_CHARGE_MAX).prop_shuffle()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_death_counts_once_in_whatever_order_and_however_often_it_is_told(deaths in deaths()) {
        let mut registry = after(&farm());
        let mut told = BTreeSet::new();
        for death in &deaths {
            let fresh = told.insert(*death);
            prop_assert_eq!(registry.apply(&charge(death)), if fresh { Reply::Done } else { Reply::AlreadySo });
            prop_assert_eq!(registry.deaths(REQUEST), told.len());
        }
        let kept: BTreeSet<_> = registry.charges().flat_map(|(_, charge)| charge.deaths()).copied().collect();
        prop_assert_eq!(kept, told);
    }

    #[test]
    fn only_a_pardon_lowers_a_count_and_only_a_charge_raises_it(
        commands in vec(prop_oneof![2 => blame(), 1 => command()], 0..120),
    ) {
        let mut registry = after(&farm());
        for command in &commands {
            let before: Vec<_> = (0..3).map(|number| registry.deaths(Fingerprint(number))).collect();
            let reply = registry.apply(command);
            for (number, before) in (0..3).zip(before) {
                let now = registry.deaths(Fingerprint(number));
                let expected = match (command, &reply) {
                    (Command::ChargeDeath { fingerprint, .. }, Reply::Done) if fingerprint.0 == number => {
                        (before + 1).min(limits::DEATHS_PER_CHARGE_MAX)
                    }
                    (Command::PardonRequest { fingerprint }, _) if fingerprint.0 == number => 0,
                    _ => before,
                };
                prop_assert_eq!(now, expected, "{:?}", command);
            }
        }
    }

    #[test]
    fn a_quarantine_ends_when_the_longest_word_on_it_says_and_with_a_pardon(
        commands in vec(blame(), 0..60),
    ) {
        let mut registry = after(&farm());
        let mut ends = [0_u64; 3];
        for command in &commands {
            registry.apply(command);
            if let Command::QuarantineRequest { fingerprint, until_unix_ms, .. } = command {
                let end = &mut ends[fingerprint.0 as usize];
                *end = (*until_unix_ms).max(*end);
            }
            if let Command::PardonRequest { fingerprint } = command {
                ends[fingerprint.0 as usize] = 0;
            }
            for (number, end) in (0..3).zip(ends) {
                for now in 0..20 {
                    let held = registry.quarantined(Fingerprint(number), now).is_some();
                    prop_assert_eq!(held, now < end, "{} at {} with an end at {}", number, now, end);
                }
            }
        }
    }

    #[test]
    fn a_pardon_leaves_nothing(commands in vec(blame(), 0..40)) {
        let mut registry = after(&farm());
        let clean = registry.clone();
        for command in &commands {
            registry.apply(command);
        }
        for number in 0..3 {
            registry.apply(&Command::PardonRequest { fingerprint: Fingerprint(number) });
        }
        prop_assert_eq!(registry, clean);
    }
}
