//! A leader that is parted from the others, in both directions or in one, by a virtual clock.

use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::group::{Group, Settings};
use crate::limits;

/// What of a leader's traffic with the others is held back.
#[derive(Clone, Copy, Debug)]
enum Parted {
    Wholly,
    /// What it says reaches the others; it hears nobody.
    Deaf,
    /// It hears the others; what it says reaches nobody.
    Mute,
}

/// How long it takes until somebody else leads and a majority has confirmed it.
fn replaced_after(parted: Parted, seed: u64) -> Duration {
    let night = Some(seed);
    let settings = Settings { leader_silence: limits::LEADER_SILENCE, night, ..Settings::default() };
    clock::live_through(seed, async {
        let group = Group::of_with(3, settings).await;
        let old = group.leader().await;
        let others: Vec<u64> = group.ids().into_iter().filter(|id| *id != old).collect();
        let began = Instant::now();
        for other in &others {
            if !matches!(parted, Parted::Deaf) {
                group.net.cut(old, *other);
            }
            if !matches!(parted, Parted::Mute) {
                group.net.cut(*other, old);
            }
        }
        group.leader_among(&others).await;
        let took = began.elapsed();
        group.net.heal();
        group.settled().await;
        took
    })
}

#[test]
fn a_leader_that_is_parted_from_the_others_in_any_way_is_replaced_within_two_seconds() {
    for parted in [Parted::Wholly, Parted::Deaf, Parted::Mute] {
        for seed in 0..8 {
            let took = replaced_after(parted, seed);
            assert!(took <= 2 * limits::LEADER_SILENCE, "{parted:?}, seed {seed}: {took:?}");
        }
    }
}
