//! What the learned rates must hold to: they converge, they shrug off an outlier, and no figure makes nonsense of them.

use proptest::prelude::*;

use super::*;

fn decode(step_ms: f64, batch: u32) -> StepStats {
    StepStats(0.0, 0, step_ms / 1e3, batch, 0)
}

fn near(got: f32, expected: f64) -> bool {
    (f64::from(got) - expected).abs() <= expected.abs() * 0.02
}

/// A Mac whose steps take `base × (1 + slope × (batch − 1))`.
fn taught(base_ms: f64, slope: f64, batches: impl IntoIterator<Item = u32>) -> Rates {
    let mut rates = Rates::default();
    for batch in batches {
        rates.learn(decode(base_ms * (1.0 + slope * f64::from(batch - 1)), batch));
    }
    rates
}

#[test]
fn nothing_measured_is_zero() {
    let rates = Rates::default();
    assert_eq!((rates.prefill_tokens_per_s(), rates.step_ms(), rates.batch_slope()), (0.0, 0.0, 0.0));
    assert!(rates.expected_step_ms(8, 256) == 0.0);
}

#[test]
fn a_seed_holds_until_the_first_measurement_and_not_longer() {
    let seed = SeedRates { prefill_tokens_per_s: 1_000.0, step_ms: 12.0, batch_slope: 0.3 };
    let mut rates = Rates::default();
    rates.seed(seed);
    assert_eq!((rates.prefill_tokens_per_s(), rates.step_ms(), rates.batch_slope()), (1_000.0, 12.0, 0.3));
    rates.learn(decode(40.0, 1));
    assert!(near(rates.step_ms(), 40.0) && near(rates.batch_slope(), 0.3), "{rates:?}");
    rates.seed(seed);
    assert!(near(rates.step_ms(), 40.0), "{rates:?}");
}

#[test]
fn step_time_and_slope_are_recovered_from_mixed_batches() {
    let rates = taught(20.0, 0.07, (0..400).map(|at| at % 8 + 1));
    assert!(near(rates.step_ms(), 20.0), "{rates:?}");
    assert!(near(rates.batch_slope(), 0.07), "{rates:?}");
}

#[test]
fn a_model_that_is_never_alone_still_gets_a_figure_and_the_first_lone_steps_correct_it() {
    let mut rates = taught(20.0, 0.2, [4; 30]);
    assert!(rates.step_ms() > 0.0);
    for _ in 0..300 {
        rates.learn(decode(20.0, 1));
        rates.learn(decode(20.0 * 1.6, 4));
    }
    assert!(near(rates.step_ms(), 20.0) && near(rates.batch_slope(), 0.2), "{rates:?}");
}

#[test]
fn one_pause_of_ten_seconds_moves_the_estimate_little() {
    let mut rates = taught(20.0, 0.0, [1; 100]);
    rates.learn(decode(10_000.0, 1));
    assert!(rates.step_ms() < 23.0, "{rates:?}");
}

#[test]
fn a_lasting_change_is_followed() {
    let mut rates = taught(20.0, 0.0, [1; 100]);
    for _ in 0..200 {
        rates.learn(decode(50.0, 1));
    }
    assert!(near(rates.step_ms(), 50.0), "{rates:?}");
}

#[test]
fn prefill_is_tokens_over_seconds_and_scraps_do_not_count() {
    let mut rates = Rates::default();
    for _ in 0..50 {
        rates.learn(StepStats(0.5, 256, 0.0, 0, 0));
        rates.learn(StepStats(0.5, 1, 0.0, 0, 0));
    }
    assert!(near(rates.prefill_tokens_per_s(), 512.0), "{rates:?}");
    assert_eq!(rates.step_ms(), 0.0);
}

#[test]
fn the_expected_step_is_a_full_batch_and_a_prefill_piece() {
    let mut rates = taught(20.0, 0.1, (0..400).map(|at| at % 4 + 1));
    for _ in 0..50 {
        rates.learn(StepStats(0.5, 256, 0.0, 0, 0));
    }
    let expected = 20.0 * 1.7 + 500.0;
    assert!((rates.expected_step_ms(8, 256) - expected).abs() < expected * 0.05, "{rates:?}");
}

#[test]
fn a_chunk_takes_no_longer_than_the_span_unless_it_is_the_least() {
    let mut rates = Rates::default();
    let within = |rates: &Rates| rates.chunk_max(Duration::from_secs(3), 256);
    assert_eq!(within(&rates), u32::MAX, "nothing is known");
    rates.seed(SeedRates { prefill_tokens_per_s: 1_000.0, ..SeedRates::default() });
    assert_eq!(within(&rates), 3_000);
    for _ in 0..100 {
        rates.learn(StepStats(4.0, 256, 0.0, 0, 0));
    }
    assert_eq!(within(&rates), 256, "64 tokens a second");
}

proptest! {
    #[test]
    fn no_figures_make_an_estimate_that_is_no_number(
        steps in prop::collection::vec((any::<f64>(), any::<u64>(), any::<f64>(), any::<u32>()), 0..60),
    ) {
        let mut rates = Rates::default();
        for (prefill_s, tokens, decode_s, batch) in steps {
            rates.learn(StepStats(prefill_s, tokens, decode_s, batch, 0));
            for estimate in [rates.prefill_tokens_per_s(), rates.step_ms(), rates.batch_slope()] {
                prop_assert!(!estimate.is_nan() && estimate >= 0.0, "{:?}", rates);
            }
            prop_assert!(rates.batch_slope() <= 2.0);
        }
    }

    #[test]
    fn an_estimate_stays_within_what_was_seen(samples in prop::collection::vec(1.0f64..1e4, 1..80)) {
        let rates = samples.iter().fold(Rates::default(), |mut rates, sample| { rates.learn(decode(*sample, 1)); rates });
        let (least, most) = samples.iter().fold((f64::MAX, 0.0f64), |(least, most), sample| (least.min(*sample), most.max(*sample)));
        let got = f64::from(rates.step_ms());
        prop_assert!(got >= least * 0.999 && got <= most * 1.001, "{} not in {}..{}", got, least, most);
    }
}
