//! Whether the book keeps what it was told: seeds, samples, siblings, bounds, and nothing of what makes no sense.

use proptest::prelude::*;

use super::*;
use crate::time::Span;

const QWEN: Lane = (NodeId(1), ModelId(1));
const LLAMA: Lane = (NodeId(1), ModelId(2));
const ELSEWHERE: Lane = (NodeId(2), ModelId(2));
const RATES: Rates = Rates { prefill_tokens_per_s: 1_000.0, step_ms: 20.0, batch_slope: 0.25 };

fn at(seconds: u64) -> At {
    At(0) + Span::from_s(seconds)
}

fn book(lanes: &[Lane]) -> RateBook {
    let mut book = RateBook::new(&Limits::default());
    lanes.iter().for_each(|lane| book.seed(*lane, RATES));
    book
}

/// Samples of a lane that takes `slower` times as long as its seed says, at one to four sequences.
fn measure(book: &mut RateBook, lane: Lane, count: u64, slower: f64) {
    for sample in 0..count {
        let batch = 1 + u32::try_from(sample % 4).expect("small");
        let step_s = 0.020 * (1.0 + 0.25 * f64::from(batch - 1)) * slower;
        let steps =
            StepSample { steps: 100, batch: batch as f32, kv_tokens: 0.0, seconds: (100.0 * step_s) as f32 };
        book.steps(lane, at(10 * sample), steps);
        let uncached = 500 * batch;
        let attention = f64::from(uncached) * f64::from(uncached) / 2.0 * 5e-8;
        let seconds = 0.020 + (f64::from(uncached) * 0.001 + attention) * slower;
        book.prefill(lane, at(10 * sample), uncached, 0, seconds);
    }
}

fn close(value: f64, expected: f64) -> bool {
    (value / expected - 1.0).abs() < 0.03
}

#[test]
fn an_unknown_lane_runs_at_the_assumed_speed() {
    let book = book(&[]);
    let learned = book.learned(QWEN);
    assert!(
        close(learned.prefill_tokens_per_s, 90.0) && close(learned.t1_s, 0.130) && close(learned.slope, 0.4)
    );
    assert!(close(learned.overhead_s, 0.020));
    assert_eq!((learned.samples_prefill, learned.samples_step, learned.observed), (0, 0, None));
    let doubts = [learned.uncertainty_prefill, learned.uncertainty_t1, learned.uncertainty_slope];
    assert!(doubts.iter().all(|doubt| *doubt > 0.999), "{doubts:?}");
    assert!(book.is_fresh(QWEN));
}

#[test]
fn a_seed_stands_until_something_is_measured_and_may_change_until_then() {
    let mut book = book(&[QWEN]);
    assert!(close(book.speed(QWEN).step_s(3, 0), 0.030));
    assert!(close(book.speed(QWEN).prefill_s(2_000, 0), 0.020 + 2.0 + 0.1));
    book.seed(QWEN, Rates { step_ms: 40.0, prefill_tokens_per_s: 500.0, ..RATES });
    assert!(close(book.speed(QWEN).step_s(3, 0), 0.060));
    assert!(close(book.speed(QWEN).prefill_s(2_000, 0), 0.020 + 4.0 + 0.2));
}

#[test]
fn a_seed_never_overrides_what_was_measured() {
    let mut book = book(&[QWEN]);
    measure(&mut book, QWEN, 30, 1.5);
    let before = book.speed(QWEN);
    book.seed(QWEN, Rates { prefill_tokens_per_s: 9.0, step_ms: 9.0, batch_slope: 9.0 });
    assert_eq!(book.speed(QWEN), before);
    assert!(close(before.step_s(1, 0), 0.030));
}

#[test]
fn what_is_learned_is_told_with_how_sure_it_is() {
    let mut book = book(&[QWEN]);
    measure(&mut book, QWEN, 40, 2.0);
    let learned = book.learned(QWEN);
    assert!(close(learned.prefill_tokens_per_s, 500.0), "{learned:?}");
    assert!(close(learned.t1_s, 0.040) && close(learned.slope, 0.25), "{learned:?}");
    assert_eq!((learned.samples_prefill, learned.samples_step), (40, 40));
    assert_eq!(learned.observed, Some(at(390)));
    assert!(learned.uncertainty_prefill < 0.2 && learned.uncertainty_t1 < 0.1, "{learned:?}");
    assert!(learned.uncertainty_slope < 0.4, "{learned:?}");
}

#[test]
fn a_lane_is_fresh_until_it_has_its_samples() {
    let mut book = book(&[QWEN]);
    measure(&mut book, QWEN, 7, 1.0);
    assert!(book.is_fresh(QWEN));
    measure(&mut book, QWEN, 1, 1.0);
    assert!(!book.is_fresh(QWEN));
    assert!(book.is_fresh(LLAMA));
}

#[test]
fn a_node_that_proved_slower_than_its_seeds_is_so_for_its_next_model() {
    let mut book = book(&[QWEN, LLAMA, ELSEWHERE]);
    measure(&mut book, QWEN, 40, 2.0);
    assert!(close(book.speed(LLAMA).step_s(1, 0), 0.040));
    assert!(close(book.speed(LLAMA).prefill_s(1_000, 0), 0.020 + 2.05));
    assert!(close(book.speed(ELSEWHERE).step_s(1, 0), 0.020));
    let later = (NodeId(1), ModelId(3));
    book.seed(later, RATES);
    assert!(close(book.speed(later).step_s(1, 0), 0.040));
}

#[test]
fn several_models_correct_a_seed_by_their_mean() {
    let third = (NodeId(1), ModelId(3));
    let mut book = book(&[QWEN, LLAMA, third]);
    measure(&mut book, QWEN, 40, 2.0);
    measure(&mut book, LLAMA, 40, 1.0);
    assert!(close(book.speed(third).step_s(1, 0), 0.030));
    assert!(close(book.speed(LLAMA).step_s(1, 0), 0.020));
}

#[test]
fn an_assumption_neither_corrects_nor_is_corrected() {
    let unknown = Rates { prefill_tokens_per_s: 0.0, step_ms: 0.0, batch_slope: 0.0 };
    let mut told = book(&[QWEN]);
    told.seed(LLAMA, unknown);
    measure(&mut told, QWEN, 40, 2.0);
    assert!(close(told.speed(LLAMA).step_s(1, 0), 0.130));
    let mut untold = book(&[LLAMA]);
    untold.seed(QWEN, unknown);
    measure(&mut untold, QWEN, 40, 2.0);
    assert!(close(untold.speed(QWEN).step_s(1, 0), 0.040));
    assert!(close(untold.speed(LLAMA).step_s(1, 0), 0.020));
}

#[test]
fn a_sibling_far_off_corrects_a_seed_by_no_more_than_the_bound() {
    let mut book = book(&[QWEN, LLAMA]);
    measure(&mut book, QWEN, 60, 30.0);
    assert!(close(book.speed(LLAMA).step_s(1, 0), 0.080));
}

#[test]
fn nodes_are_ranked_as_they_truly_are_though_their_seeds_say_otherwise() {
    let lanes = [1, 2, 3, 4].map(|node| (NodeId(node), ModelId(1)));
    let mut book = book(&[]);
    let seeds = [40.0, 30.0, 20.0, 10.0];
    for (lane, step_ms) in lanes.into_iter().zip(seeds) {
        book.seed(lane, Rates { step_ms, ..RATES });
    }
    for (lane, slower) in lanes.into_iter().zip([1.0, 1.3, 1.6, 1.9]) {
        measure(&mut book, lane, 20, slower);
    }
    let steps = lanes.map(|lane| book.speed(lane).step_s(2, 4_000));
    assert!(steps.is_sorted(), "{steps:?}");
}

#[test]
fn a_lane_that_reports_again_goes_on_where_it_was() {
    let mut book = book(&[QWEN]);
    measure(&mut book, QWEN, 30, 2.0);
    let before = book.learned(QWEN);
    book.seed(QWEN, RATES);
    assert_eq!(book.learned(QWEN), before);
}

#[test]
fn few_steps_count_for_less_than_many() {
    let moved = [1, 16, 1_000].map(|steps| {
        let mut book = book(&[QWEN]);
        measure(&mut book, QWEN, 40, 1.0);
        let seconds = 0.024 * steps as f32;
        book.steps(QWEN, at(1), StepSample { steps, batch: 1.0, kv_tokens: 0.0, seconds });
        book.speed(QWEN).step_s(1, 0) / 0.020 - 1.0
    });
    assert!(moved[0] < 0.3 * moved[1] && (moved[1] - moved[2]).abs() < 1e-6, "{moved:?}");
}

#[test]
fn the_lane_observed_longest_ago_makes_room() {
    let mut limits = Limits::default();
    limits.rates_learning.lanes_max = 2;
    let mut book = RateBook::new(&limits);
    book.seed(QWEN, RATES);
    book.seed(ELSEWHERE, RATES);
    measure(&mut book, QWEN, 40, 2.0);
    book.seed(ELSEWHERE, RATES);
    book.seed((NodeId(3), ModelId(3)), RATES);
    assert!(close(book.speed(QWEN).step_s(1, 0), 0.040));
    assert!(close(book.speed(ELSEWHERE).step_s(1, 0), 0.130));
    assert!(close(book.speed((NodeId(3), ModelId(3))).step_s(1, 0), 0.020));
}

#[test]
fn a_book_without_room_learns_nothing_and_still_answers() {
    let mut limits = Limits::default();
    limits.rates_learning.lanes_max = 0;
    let mut book = RateBook::new(&limits);
    book.seed(QWEN, RATES);
    measure(&mut book, QWEN, 40, 2.0);
    book.loaded(QWEN, 1, 1.0);
    assert!(close(book.speed(QWEN).step_s(1, 0), 0.130));
    assert_eq!(book.load_s(QWEN, 1), None);
}

#[test]
fn a_load_is_expected_to_take_as_long_as_before_in_proportion_to_its_size() {
    let mut book = book(&[]);
    assert_eq!(book.load_s(QWEN, 4_000), None);
    book.loaded(QWEN, 1_000, 1.0);
    assert!(close(book.load_s(QWEN, 4_000).expect("seen"), 4.0));
    assert!(close(book.learned(QWEN).load_s.expect("seen"), 1.0));
    book.loaded(QWEN, 2_000, 6.0);
    assert!(close(book.load_s(QWEN, 1_000).expect("seen"), 1.5));
    assert!(close(book.learned(QWEN).load_s.expect("seen"), 3.0));
}

#[test]
fn a_model_never_loaded_here_is_expected_to_load_like_the_nodes_others() {
    let mut book = book(&[]);
    book.loaded(QWEN, 1_000, 1.0);
    book.loaded((NodeId(1), ModelId(3)), 1_000, 3.0);
    assert!(close(book.load_s(LLAMA, 5_000).expect("siblings"), 10.0));
    assert_eq!(book.load_s(ELSEWHERE, 5_000), None);
    assert_eq!(book.learned(LLAMA).load_s, None);
}

#[test]
fn whether_two_pay_is_known_once_both_were_seen() {
    let mut book = book(&[QWEN]);
    assert_eq!(book.pays_at_two(QWEN), None);
    measure(&mut book, QWEN, 2, 1.0);
    assert_eq!(book.pays_at_two(QWEN), Some(true));
    let slow = StepSample { steps: 10, batch: 2.0, kv_tokens: 0.0, seconds: 0.9 };
    (0..20).for_each(|second| book.steps(QWEN, at(second), slow));
    assert_eq!(book.pays_at_two(QWEN), Some(false));
}

#[test]
fn a_batch_is_judged_by_what_was_learned_of_the_slope() {
    let mut book = book(&[QWEN]);
    let knee = |book: &RateBook| book.speed(QWEN).knee(1.0, 0, 64, 0.03);
    assert_eq!(knee(&book), 9);
    for second in 0..40 {
        let batch = 1 + (second % 4) as u32;
        let seconds = 0.020 * (1.0 + 0.8 * (batch - 1) as f32) * 50.0;
        book.steps(
            QWEN,
            at(10 * second),
            StepSample { steps: 50, batch: batch as f32, kv_tokens: 0.0, seconds },
        );
    }
    assert!((2..=4).contains(&knee(&book)), "{}", knee(&book));
}

#[test]
fn equal_facts_make_equal_books() {
    let taught = || {
        let mut book = book(&[QWEN, LLAMA, ELSEWHERE]);
        measure(&mut book, QWEN, 30, 1.7);
        measure(&mut book, ELSEWHERE, 30, 0.6);
        format!("{book:?}")
    };
    assert_eq!(taught(), taught());
}

#[test]
fn a_sample_that_makes_no_sense_is_dropped() {
    let mut book = book(&[QWEN]);
    let sound = StepSample { steps: 10, batch: 1.0, kv_tokens: 100.0, seconds: 0.5 };
    for sample in [
        StepSample { steps: 0, ..sound },
        StepSample { batch: 0.5, ..sound },
        StepSample { batch: f32::NAN, ..sound },
        StepSample { batch: 2_000.0, ..sound },
        StepSample { kv_tokens: -1.0, ..sound },
        StepSample { kv_tokens: f32::INFINITY, ..sound },
        StepSample { seconds: 0.0, ..sound },
        StepSample { seconds: -1.0, ..sound },
        StepSample { seconds: f32::NAN, ..sound },
        StepSample { seconds: 4_000.0, ..sound },
    ] {
        book.steps(QWEN, at(1), sample);
    }
    for (uncached, seconds) in
        [(0, 1.0), (9, 0.0), (9, -1.0), (9, f64::NAN), (9, f64::INFINITY), (9, 4_000.0)]
    {
        book.prefill(QWEN, at(1), uncached, 0, seconds);
    }
    for (bytes, seconds) in [(0, 1.0), (9, 0.0), (9, f64::NAN)] {
        book.loaded(QWEN, bytes, seconds);
    }
    let learned = book.learned(QWEN);
    assert_eq!((learned.samples_prefill, learned.samples_step, learned.load_s), (0, 0, None));
    book.steps(QWEN, at(1), sound);
    book.prefill(QWEN, at(1), 9, 0, 1.0);
    assert_eq!((book.learned(QWEN).samples_prefill, book.learned(QWEN).samples_step), (1, 1));
}

fn seconds() -> impl Strategy<Value = f64> {
    prop_oneof![1e-6_f64..100.0, Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(1e-300), Just(3_600.0)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_told_every_answer_is_finite_and_more_work_takes_no_less_time(
        facts in proptest::collection::vec(
            (0_u32..4, 0_u32..3, any::<u32>(), any::<u32>(), seconds(), (0.0_f32..40.0, 0.0_f32..1e6)), 0..80,
        ),
        a in any::<u32>(), b in any::<u32>(), other in any::<u32>(),
    ) {
        let mut book = RateBook::new(&Limits::default());
        for (second, (kind, model, whole, part, seconds, (batch, kv_tokens))) in (0..).zip(facts) {
            let lane = (NodeId(1), ModelId(model));
            let told = seconds as f32;
            match kind {
                0 => book.seed(lane, Rates { prefill_tokens_per_s: told, step_ms: told, batch_slope: batch }),
                1 => book.prefill(lane, at(second), whole, part, seconds),
                2 => book.steps(lane, at(second), StepSample { steps: whole, batch, kv_tokens, seconds: told }),
                _ => book.loaded(lane, u64::from(whole), seconds),
            }
        }
        for model in 0..4 {
            let lane = (NodeId(1), ModelId(model));
            let (speed, learned) = (book.speed(lane), book.learned(lane));
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(speed.prefill_s(less, other) <= speed.prefill_s(more, other));
            prop_assert!(speed.step_s(less, other) <= speed.step_s(more, other));
            prop_assert!(speed.step_s(other, less) <= speed.step_s(other, more));
            prop_assert!(speed.prefill_s(more, other).is_finite() && speed.step_s(other, more).is_finite());
            prop_assert!(speed.prefill_s(1, 0) > 0.0 && speed.step_s(1, 0) > 0.0);
            prop_assert!(learned.slope.is_finite() && learned.prefill_tokens_per_s.is_finite());
            prop_assert!(learned.load_s.is_none_or(f64::is_finite));
            prop_assert!((1..=64).contains(&speed.knee(0.1, other, 64, 0.03)));
        }
    }
}
