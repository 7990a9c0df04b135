//! Cases that fit on a sheet of paper, each with its arithmetic. Owns exact times; refuses tolerances.

use proptest::prelude::*;
use scheduler::Block;

use super::*;
use crate::request::BLOCK_TOKENS;

const FIRST: bool = false;
const LAST: bool = true;

#[test]
fn one_request_on_an_idle_node_takes_its_prefill_and_its_steps() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(5, 0, row(1, 1_000, 3));
    // 10 ms, then 1,000 tokens in a second, then three steps: the first token comes with the first of them.
    assert_eq!(drive.tokens(), [(1_030_005, 1, FIRST), (1_070_005, 1, LAST)]);
}

#[test]
fn an_answer_of_one_token_ends_with_its_first_step() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 1));
    assert_eq!(drive.tokens(), [(130_000, 1, FIRST), (130_000, 1, LAST)]);
}

#[test]
fn two_requests_share_a_batch_and_the_second_is_read_between_the_steps_of_the_first() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 3));
    drive.accept(5_000, 0, row(2, 100, 3));
    // The first is read in 110 ms and has a step of 20. Then 110 ms of reading, two steps of two rows in 30 ms, one of 20.
    let expected = [(130_000, 1, FIRST), (270_000, 2, FIRST), (300_000, 1, LAST), (320_000, 2, LAST)];
    assert_eq!(drive.tokens(), expected);
}

#[test]
fn prompts_that_come_together_are_read_together_and_the_shorter_is_padded() {
    for shorter in [100, 40] {
        let fleet = fleet(&[ROUND]);
        let mut drive = Drive::new(&fleet);
        drive.accept(0, 0, row(1, 100, 1));
        drive.accept(0, 0, row(2, shorter, 1));
        // Twice 110 ms of reading, and a step of two rows.
        let expected = [(250_000, 1, FIRST), (250_000, 2, FIRST), (250_000, 1, LAST), (250_000, 2, LAST)];
        assert_eq!(drive.tokens(), expected);
        let told = drive.said.iter().filter_map(|(_, notice)| match notice {
            Notice::Began { prefill_s, .. } => Some(*prefill_s),
            Notice::Ended { .. } | Notice::Dropped { .. } | Notice::Poisoned { .. } => None,
        });
        assert!(told.map(|told| told - 0.11).all(|off| off.abs() < 1e-9), "each has its part of the call");
    }
}

#[test]
fn a_short_prompt_beside_a_long_one_takes_half_the_chunk_and_then_leaves_it() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 600, 1));
    drive.accept(0, 0, row(2, 100, 1));
    // Twice 10 + 256 ms of reading and a step of the second; the 344 tokens that are left and a step of the first.
    let (short, long) = (552_000, 552_000 + 344_000 + 20_000);
    assert_eq!(drive.tokens(), [(short, 2, FIRST), (short, 2, LAST), (long, 1, FIRST), (long, 1, LAST)]);
}

#[test]
fn a_short_prompt_does_not_wait_behind_more_than_four_long_ones_nor_are_more_than_eight_read_at_once() {
    let mut fleet = fleet(&[ROUND]);
    fleet.nodes[0].rows_max = 16;
    let mut drive = Drive::new(&fleet);
    (1..=5).for_each(|request| drive.accept(0, 0, row(request, 2_000, 1)));
    (6..=10).for_each(|request| drive.accept(0, 0, row(request, 10, 1)));
    let tokens = drive.tokens();
    let first = tokens.iter().filter(|token| token.2 == FIRST);
    let began: Vec<(u64, u64)> = first.map(|token| (token.1, token.0)).collect();
    let order: Vec<u64> = began.iter().map(|(request, _)| *request).collect();
    assert_eq!(order, [6, 7, 8, 9, 10, 1, 2, 3, 4, 5]);
    assert_eq!(began[3].1, began[0].1);
    assert!(began[4].1 > began[3].1, "a ninth is read when one of eight has left");
}

#[test]
fn a_long_prompt_is_read_in_chunks_and_others_get_a_token_after_each() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 4));
    drive.accept(5_000, 0, row(2, 1_324, 1));
    // Chunks of 512, 512 and 300, each before a step; the overhead of 10 ms before the first, two rows in the last step.
    let chunks = [110 + 20, 10 + 512 + 20, 512 + 20, 300 + 30];
    let third = chunks.iter().sum::<u64>() * 1_000;
    let expected = [(130_000, 1, FIRST), (third, 2, FIRST), (third, 1, LAST), (third, 2, LAST)];
    assert_eq!(drive.tokens(), expected);
}

#[test]
fn steps_grow_with_the_tokens_in_the_cache() {
    let fleet = fleet(&[Speed { kv_token_s: 1e-5, ..ROUND }]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 1_000, 3));
    let steps = (20_000 + 10_010) + (20_000 + 10_020);
    assert_eq!(drive.tokens(), [(1_040_000, 1, FIRST), (1_040_000 + steps, 1, LAST)]);
}

#[test]
fn attention_makes_later_chunks_slower() {
    let fleet = fleet(&[Speed { attention_pair_s: 1e-6, ..ROUND }]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 2_000, 1));
    // 1e-6 * 2000 * 1000 = 2 s, however it is cut.
    assert_eq!(drive.tokens()[0], (2_000_000 + 2_000_000 + 10_000 + 20_000, 1, FIRST));
}

#[test]
fn two_runtimes_take_turns_and_slow_each_other_down() {
    let fleet = fleet(&[ROUND, Speed { step_s: 0.03, ..ROUND }]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 3));
    drive.accept(0, 1, row(2, 100, 3));
    // Both read at once: the first round is 110 + 20 + 110 + 30 ms. Then each round is 20 + 30 ms.
    let expected = [(270_000, 1, FIRST), (270_000, 2, FIRST), (370_000, 1, LAST), (370_000, 2, LAST)];
    assert_eq!(drive.tokens(), expected);
}

#[test]
fn who_comes_during_a_step_joins_after_it() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 100));
    drive.accept(135_000, 0, row(2, 100, 1));
    drive.until(300_000);
    let second = drive.said.iter().find(|(_, notice)| matches!(notice, Notice::Ended { .. }));
    assert_eq!(second.expect("an end").0, 150_000 + 110_000 + 30_000);
}

#[test]
fn what_breaks_loses_the_step_under_way() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 100));
    drive.until(130_000);
    let mut notices = Vec::new();
    drive.node.die(195_000, &drive.work, &mut notices);
    let [Notice::Dropped { generated, gpu_s, .. }] = notices[..] else { panic!("{notices:?}") };
    assert_eq!(generated, 1 + 3);
    assert!((gpu_s - 0.19).abs() < 1e-9, "{gpu_s}");
    assert_eq!(drive.node.due(), None);
}

#[test]
fn a_row_taken_out_leaves_the_others_as_if_it_had_gone_after_the_last_step() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 4));
    drive.accept(0, 0, row(2, 100, 40));
    drive.until(255_000);
    drive.node.cut(255_000, &drive.work);
    let gone = drive.node.lane_mut(ModelId(0)).and_then(|lane| lane.drop_row(RequestId(2)));
    drive.node.replan(&drive.work);
    assert!(matches!(gone, Some(Notice::Dropped { generated: 1, .. })), "{gone:?}");
    assert_eq!(drive.tokens().last(), Some(&(255_000 + 3 * 20_000, 1, LAST)));
}

#[test]
fn a_slow_node_takes_so_many_times_as_long_from_the_next_step_on() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 4));
    drive.until(130_000);
    drive.node.slow_down(135_000, 3.0, &drive.work);
    assert_eq!(drive.tokens().last(), Some(&(150_000 + 2 * 60_000, 1, LAST)));
}

#[test]
fn a_hung_runtime_stands_still_and_its_neighbour_does_not() {
    let fleet = fleet(&[ROUND, ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 3));
    drive.node.cut(0, &drive.work);
    drive.node.lane_mut(ModelId(0)).expect("a lane").phase = Phase::Hung;
    drive.node.replan(&drive.work);
    drive.accept(0, 1, row(2, 100, 3));
    assert_eq!(drive.tokens(), [(130_000, 2, FIRST), (170_000, 2, LAST)]);
}

#[test]
fn a_poison_row_kills_at_the_end_of_its_prefill() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, Row { poison: true, ..row(1, 100, 3) });
    drive.until(110_000);
    assert_eq!(drive.said, [(110_000, Notice::Poisoned { model: ModelId(0) })]);
}

#[test]
fn rows_beyond_the_slots_wait_for_one_to_end() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    (1..=5).for_each(|request| drive.accept(0, 0, row(request, 100, 50)));
    let tokens = drive.tokens();
    let at = |request, last| tokens.iter().find(|token| token.1 == request && token.2 == last).expect("it").0;
    assert!(at(5, FIRST) > at(1, LAST));
    assert!(at(4, FIRST) < at(1, LAST));
}

#[test]
fn rows_wait_for_memory_and_one_that_no_memory_holds_runs_alone() {
    let mut fleet = fleet(&[ROUND]);
    // Weights 4.52 GB and cache 1 GB leave 1.0 GB: some 7,600 tokens.
    fleet.nodes[0].memory_bytes = 6.52e9;
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, Row { reserve: 4_000, ..row(1, 100, 10) });
    drive.accept(0, 0, Row { reserve: 4_000, ..row(2, 100, 10) });
    drive.accept(0, 0, Row { reserve: 400_000, ..row(3, 100, 10) });
    let tokens = drive.tokens();
    let order: Vec<_> = tokens.iter().map(|token| (token.1, token.2)).collect();
    assert_eq!(order, [(1, FIRST), (1, LAST), (2, FIRST), (2, LAST), (3, FIRST), (3, LAST)]);
}

#[test]
fn blocks_that_were_read_before_are_not_read_again() {
    let fleet = fleet(&[ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.work.blocks = (1..=3).map(Block).collect();
    let chain = Chain { start: 0, prompt: 2, whole: 3 };
    drive.accept(0, 0, Row { chain, ..row(1, 2 * BLOCK_TOKENS + 88, 200) });
    drive.until(u64::MAX);
    let longer = Chain { start: 0, prompt: 3, whole: 3 };
    drive.accept(10_000_000, 0, Row { chain: longer, ..row(2, 3 * BLOCK_TOKENS, 1) });
    drive.until(u64::MAX);
    let cached: Vec<u32> = drive
        .said
        .iter()
        .filter_map(|(_, notice)| match notice {
            Notice::Began { cached, .. } => Some(*cached),
            Notice::Ended { .. } | Notice::Dropped { .. } | Notice::Poisoned { .. } => None,
        })
        .collect();
    // The last token of a prompt is read even when all of it is cached.
    assert_eq!(cached, [0, 3 * BLOCK_TOKENS - 1]);
}

#[test]
fn weights_are_read_one_after_another_and_leavers_go_when_they_are_idle() {
    let fleet = fleet(&[ROUND, ROUND, ROUND]);
    let mut drive = Drive::new(&fleet);
    drive.accept(0, 0, row(1, 100, 3));
    drive.node.lanes.iter_mut().for_each(|lane| lane.leaving = lane.model == ModelId(0));
    drive.node.lanes.retain(|lane| lane.model == ModelId(0));
    assert!(drive.node.load(ModelId(1)) && drive.node.load(ModelId(2)));
    assert_eq!(drive.node.tend(), Some((ModelId(1), 2.0)), "a second of reading, a second of warming up");
    assert_eq!(drive.node.tend(), None, "the disk is busy");
    drive.node.lane_mut(ModelId(1)).expect("a lane").phase = Phase::Ready;
    drive.until(u64::MAX);
    assert_eq!(drive.node.tend(), Some((ModelId(2), 2.0)));
    assert!(drive.node.lane(ModelId(0)).is_none(), "it was idle and has left");
}

#[test]
fn a_model_waits_for_memory_until_another_has_left() {
    let mut fleet = fleet(&[ROUND, ROUND]);
    fleet.nodes[0].memory_bytes = 12e9;
    let mut node = Node::new(&fleet, &fleet.nodes[0]);
    assert!(node.load(ModelId(0)));
    assert_eq!(node.tend(), Some((ModelId(0), 2.0)));
    assert!(!node.load(ModelId(1)), "there is no room for both");
    node.lane_mut(ModelId(0)).expect("a lane").phase = Phase::Ready;
    node.lane_mut(ModelId(0)).expect("a lane").leaving = true;
    assert!(node.load(ModelId(1)), "the first one leaves");
    assert_eq!(node.tend(), Some((ModelId(1), 2.0)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Noise is a matter of rows: two rows of opposite noise decode as two without.
    #[test]
    fn the_noise_of_a_step_is_the_mean_of_its_rows(noise in 0.5..1.5_f64) {
        let fleet = fleet(&[ROUND]);
        let end = |noises: [f64; 2]| {
            let mut drive = Drive::new(&fleet);
            drive.accept(0, 0, Row { noise: noises[0], ..row(1, 1, 1_000) });
            drive.accept(0, 0, Row { noise: noises[1], ..row(2, 1, 1_000) });
            drive.tokens().last().expect("an end").0 as f64
        };
        let (even, uneven) = (end([1.0, 1.0]), end([noise, 2.0 - noise]));
        prop_assert!((even / uneven - 1.0).abs() < 0.01, "{even} {uneven}");
    }
}
