//! When there is more to do than can be done: the ladder down which service is taken back, one model at a time.
//!
//! Owns the rung on which each model stands, from how long its line is in seconds of work. The lowest class is shed first and
//! early, so that people are answered while batch work is told to come back. Refuses to know requests.
//!
//! ```text
//! Calm        everything is taken in and started
//! HoldBatch   batch work waits, interactive work starts
//! RefuseBatch new batch work is refused
//! ShedBatch   waiting batch work is refused too
//! Full        new interactive work is refused
//! ```
//!
//! A rung is left only once the line is a quarter shorter than what led to it, so that nothing flaps.

use alloc::collections::BTreeMap;

use crate::ids::ModelId;
use crate::limits::OverloadLimits;
use crate::time::Span;

/// How far service for a model is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Not at all.
    #[default]
    Calm,
    /// Batch work does not start.
    HoldBatch,
    /// New batch work is refused.
    RefuseBatch,
    /// Waiting batch work is refused.
    ShedBatch,
    /// New interactive work is refused.
    Full,
}

#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// Models that are not calm.
    rungs: BTreeMap<ModelId, Rung>,
}

impl Overload {
    /// The line of `model` is `delay` long. Returns the rung if it is another one than before.
    pub(crate) fn measured(&mut self, model: ModelId, delay: Span, limits: &OverloadLimits) -> Option<Rung> {
        let before = self.rung(model);
        let after = next(before, delay, limits);
        match after {
            Rung::Calm => self.rungs.remove(&model),
            Rung::HoldBatch | Rung::RefuseBatch | Rung::ShedBatch | Rung::Full => {
                self.rungs.insert(model, after)
            }
        };
        (after != before).then_some(after)
    }

    pub(crate) fn rung(&self, model: ModelId) -> Rung {
        self.rungs.get(&model).copied().unwrap_or_default()
    }
}

fn next(before: Rung, delay: Span, limits: &OverloadLimits) -> Rung {
    let up = reached(delay, limits);
    // What the line would be without the quarter that must go before a rung is left.
    let down = reached(Span(delay.0.saturating_mul(4) / 3), limits);
    up.max(down.min(before))
}

fn reached(delay: Span, limits: &OverloadLimits) -> Rung {
    let rungs = [
        (limits.full, Rung::Full),
        (limits.shed_batch, Rung::ShedBatch),
        (limits.refuse_batch, Rung::RefuseBatch),
        (limits.hold_batch, Rung::HoldBatch),
    ];
    rungs.into_iter().find(|(from, _)| delay >= *from).map_or(Rung::Calm, |(_, rung)| rung)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn limits() -> OverloadLimits {
        OverloadLimits {
            hold_batch: Span::from_s(10),
            refuse_batch: Span::from_s(20),
            shed_batch: Span::from_s(40),
            full: Span::from_s(80),
        }
    }

    fn walked(delays: &[u64]) -> Vec<Rung> {
        let mut overload = Overload::default();
        delays
            .iter()
            .map(|delay| {
                overload.measured(MODEL, Span::from_s(*delay), &limits());
                overload.rung(MODEL)
            })
            .collect()
    }

    #[test]
    fn a_longer_line_climbs_the_ladder() {
        let climbed = walked(&[9, 10, 20, 40, 80]);
        assert_eq!(climbed, [Rung::Calm, Rung::HoldBatch, Rung::RefuseBatch, Rung::ShedBatch, Rung::Full]);
        assert_eq!(walked(&[100]), [Rung::Full]);
    }

    #[test]
    fn a_rung_is_left_when_the_line_is_a_quarter_shorter() {
        assert_eq!(walked(&[80, 61, 59]), [Rung::Full, Rung::Full, Rung::ShedBatch]);
        assert_eq!(walked(&[10, 8, 7]), [Rung::HoldBatch, Rung::HoldBatch, Rung::Calm]);
        assert_eq!(walked(&[100, 0]), [Rung::Full, Rung::Calm]);
    }

    #[test]
    fn only_a_change_is_news_and_each_model_has_its_own_rung() {
        let mut overload = Overload::default();
        assert_eq!(overload.measured(MODEL, Span::from_s(10), &limits()), Some(Rung::HoldBatch));
        assert_eq!(overload.measured(MODEL, Span::from_s(11), &limits()), None);
        assert_eq!(overload.rung(ModelId(2)), Rung::Calm);
        assert_eq!(overload.measured(MODEL, Span::ZERO, &limits()), Some(Rung::Calm));
        assert!(overload.rungs.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_rung_is_what_the_line_reaches_or_one_it_has_not_left(delays in proptest::collection::vec(0_u64..120, 1..40)) {
            for (delay, rung) in delays.iter().zip(walked(&delays)) {
                prop_assert!(rung >= reached(Span::from_s(*delay), &limits()));
                prop_assert!(rung <= reached(Span::from_s(delay * 4 / 3 + 1), &limits()));
            }
        }
    }
}
