//! Models that outnumber the room take turns: swaps and waits under a Zipf load, against plain first-come order.

use super::world_tests::World;
use super::*;
use crate::time::Span;

const MODELS: u32 = 8;
const ROOM: usize = 3;

/// A small generator of our own (xorshift), so that the same seed gives the same arrivals everywhere.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn zipf(&mut self) -> u32 {
        let total: f64 = (1..=MODELS).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut left = self.unit() * total;
        for rank in 1..=MODELS {
            left -= 1.0 / f64::from(rank);
            if left < 0.0 {
                return rank;
            }
        }
        MODELS
    }
}

/// Poisson arrivals: when, and for which model.
fn arrivals(seed: u64, per_s: f64, seconds: u64) -> Vec<(At, u32)> {
    let mut dice = Dice(seed);
    let mut at_s = 0.0;
    let mut all = Vec::new();
    loop {
        at_s -= (1.0 - dice.unit()).ln() / per_s;
        if at_s > seconds as f64 {
            return all;
        }
        all.push((At((at_s * 1e6) as u64), dice.zipf()));
    }
}

fn first_come_swaps(arrivals: &[(At, u32)], room: usize) -> usize {
    let (mut resident, mut swaps) = (Vec::new(), 0);
    for (_, model) in arrivals {
        if let Some(index) = resident.iter().position(|other| other == model) {
            resident.remove(index);
        } else if resident.len() == room {
            resident.remove(0);
            swaps += 1;
        }
        resident.push(*model);
    }
    swaps
}

/// What came of a Zipf load on one node with room for three of the eight models, all of one size.
struct Outcome {
    requests: usize,
    served: usize,
    swaps: usize,
    first_come_swaps: usize,
    longest_wait: Span,
    /// Mean wait by model, the most popular first.
    mean_wait_s: Vec<f64>,
}

const LOAD: Span = Span::from_s(2);

fn zipf(limits: ResidencyLimits, seed: u64, per_s: f64, work: Span) -> Outcome {
    let arrivals = arrivals(seed, per_s, 1_200);
    let mut world = World::new(limits);
    world.node(1, 30, 1.0);
    (1..=MODELS).for_each(|model| world.offer(1, model, 10, LOAD));
    for (at, model) in &arrivals {
        while world.at < *at {
            world.step();
        }
        world.arrive(*model, work);
    }
    world.run(Span::from_s(120));
    let mean_wait_s = (1..=MODELS).map(|model| {
        let waits: Vec<u64> =
            world.waits.iter().filter(|(of, _)| of.0 == model).map(|(_, wait)| wait.0).collect();
        waits.iter().sum::<u64>() as f64 / 1e6 / waits.len() as f64
    });
    Outcome {
        requests: arrivals.len(),
        served: world.waits.len(),
        swaps: world.loads_begun() - ROOM,
        first_come_swaps: first_come_swaps(&arrivals, ROOM),
        longest_wait: world.waits.iter().map(|(_, wait)| *wait).max().unwrap_or_default(),
        mean_wait_s: mean_wait_s.collect(),
    }
}

const WORK: Span = Span::from_ms(140);

#[test]
fn eight_models_in_room_for_three_swap_ten_times_less_than_in_first_come_order() {
    for seed in [1, 7, 42] {
        let outcome = zipf(ResidencyLimits::default(), seed, 5.0, WORK);
        assert_eq!(outcome.served, outcome.requests, "all are served");
        let (ours, theirs) = (outcome.swaps, outcome.first_come_swaps);
        assert!(ours > 0 && ours * 10 <= theirs, "seed {seed}: {ours} swaps, {theirs} in first-come order");
    }
}

#[test]
fn nobody_waits_longer_than_the_starvation_bound_and_the_swaps_of_all_who_may_be_before() {
    let limits = ResidencyLimits::default();
    let swaps_before = u64::from(MODELS) - ROOM as u64;
    let bound = limits.starvation + LOAD + (limits.unload + LOAD).times(swaps_before);
    for seed in [1, 7, 42] {
        let outcome = zipf(limits, seed, 5.0, WORK);
        assert!(outcome.longest_wait <= bound, "seed {seed}: {:?} of {bound:?}", outcome.longest_wait);
    }
}

#[test]
fn the_most_popular_model_waits_least() {
    let outcome = zipf(ResidencyLimits::default(), 7, 2.0, Span::from_ms(250));
    let (first, rest) = outcome.mean_wait_s.split_first().expect("eight models");
    assert!(rest.iter().all(|mean| mean > &(first * 2.0)), "{:?}", outcome.mean_wait_s);
}

#[test]
fn without_patience_the_same_load_is_not_ten_times_better() {
    let none = Span::ZERO;
    let hasty = ResidencyLimits {
        starvation: none,
        residency_min: none,
        residency_loads: 0,
        ..ResidencyLimits::default()
    };
    let outcome = zipf(hasty, 7, 5.0, WORK);
    assert!(outcome.swaps * 10 > outcome.first_come_swaps, "{} swaps", outcome.swaps);
}

#[test]
fn two_people_with_two_models_and_room_for_one_do_not_wait_for_the_starvation_bound() {
    let mut world = World::new(ResidencyLimits::default());
    world.node(1, 10, 1.0);
    (1..=2).for_each(|model| world.offer(1, model, 10, LOAD));
    for turn in 0..20 {
        world.arrive(1 + turn % 2, Span::from_s(3));
        world.run(Span::from_s(60));
    }
    let longest = world.waits.iter().map(|(_, wait)| *wait).max().expect("they were served");
    assert_eq!(world.waits.len(), 20);
    assert!(longest < Span::from_s(10), "{longest:?}");
}

#[test]
fn a_large_model_gets_its_turn_among_small_ones_that_never_rest() {
    let limits = ResidencyLimits::default();
    let mut world = World::new(limits);
    world.node(1, 30, 1.0);
    (1..=6).for_each(|model| world.offer(1, model, 10, LOAD));
    world.offer(1, 7, 30, Span::from_s(6));
    for second in 0..300 {
        world.arrive(1 + second % 6, Span::from_ms(600));
        if second == 60 {
            world.arrive(7, Span::from_ms(600));
        }
        world.run(Span::from_s(1));
    }
    let wait =
        world.waits.iter().find(|(model, _)| model.0 == 7).map(|(_, wait)| *wait).expect("it had its turn");
    let bound = limits.starvation + limits.residency_min + (limits.unload + Span::from_s(6)).times(2);
    assert!(wait <= bound, "{wait:?} of {bound:?}");
}

#[test]
fn the_same_arrivals_give_the_same_plans() {
    let run = || {
        let mut world = World::new(ResidencyLimits::default());
        world.node(1, 30, 1.0);
        (1..=MODELS).for_each(|model| world.offer(1, model, 10, LOAD));
        for (at, model) in arrivals(3, 5.0, 120) {
            while world.at < at {
                world.step();
            }
            world.arrive(model, WORK);
        }
        world.actions
    };
    assert_eq!(run(), run());
}
