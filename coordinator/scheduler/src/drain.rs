//! How fast the queue moves: the running mean of the gap between two departures.
//!
//! Owns what the advice "come back in n seconds" and every ETA rest on. A gap counts only when somebody waited at its start;
//! otherwise it would measure demand, not capacity. Refuses to promise speed in a silence: a gap that is still open and
//! already longer than the mean is waited for once, by whoever is next; behind it the queue moves as it did.

use alloc::collections::BTreeMap;

use crate::ids::ModelId;
use crate::limits::GAP_MEAN_SHARE as SHARE;
use crate::time::{At, Span};

#[derive(Debug, Default)]
pub(crate) struct Drain {
    all: Pace,
    models: BTreeMap<ModelId, Pace>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// The last departure that left somebody waiting.
    last: Option<At>,
    mean: Option<Span>,
}

impl Drain {
    /// A running request left its slot for good; `waiting` and `waiting_for_model` are those it leaves behind.
    pub(crate) fn departed(
        &mut self,
        model: ModelId,
        at: At,
        waiting: usize,
        waiting_for_model: usize,
        models_max: usize,
    ) {
        self.all.departed(at, waiting > 0);
        if self.models.contains_key(&model) || self.models.len() < models_max {
            self.models.entry(model).or_default().departed(at, waiting_for_model > 0);
        }
    }

    /// The time until so many have departed, over all models.
    pub(crate) fn time_for(&self, departures: usize, at: At) -> Option<Span> {
        let mean = self.all.mean?;
        Some(self.all.silence(at) + mean.times(departures as u64))
    }

    /// The time between two departures of one model.
    pub(crate) fn gap_of(&self, model: ModelId) -> Option<Span> {
        self.models.get(&model)?.mean
    }

    /// By how much the gap that is open is longer than usual.
    pub(crate) fn silence_of(&self, model: ModelId, at: At) -> Span {
        self.models.get(&model).map_or(Span::ZERO, |pace| pace.silence(at))
    }
}

impl Pace {
    fn departed(&mut self, at: At, somebody_waits: bool) {
        if let Some(last) = self.last {
            let gap = at.since(last);
            self.mean = Some(match self.mean {
                Some(mean) => Span((mean.0 - mean.0 / SHARE).saturating_add(gap.0 / SHARE)),
                None => gap,
            });
        }
        self.last = somebody_waits.then_some(at);
    }

    fn silence(&self, at: At) -> Span {
        let open = self.last.map_or(Span::ZERO, |last| at.since(last));
        self.mean.map_or(Span::ZERO, |mean| open.less(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn at(seconds: u64) -> At {
        At(0) + Span::from_s(seconds)
    }

    fn drained(departures: &[(u64, usize)]) -> Drain {
        let mut drain = Drain::default();
        for (second, waiting) in departures {
            drain.departed(MODEL, at(*second), *waiting, *waiting, 1);
        }
        drain
    }

    fn gap(drain: &Drain) -> Option<Span> {
        drain.time_for(1, At(0))
    }

    #[test]
    fn nothing_is_known_before_two_departures() {
        assert_eq!(gap(&drained(&[])), None);
        assert_eq!(gap(&drained(&[(1, 5)])), None);
        assert_eq!(gap(&drained(&[(1, 5), (3, 4)])), Some(Span::from_s(2)));
    }

    #[test]
    fn the_mean_moves_by_an_eighth_of_the_difference() {
        assert_eq!(gap(&drained(&[(0, 5), (2, 5), (12, 5)])), Some(Span::from_s(3)));
    }

    #[test]
    fn an_idle_hour_does_not_slow_the_pace() {
        assert_eq!(gap(&drained(&[(0, 1), (2, 0), (3_600, 1), (3_602, 0)])), Some(Span::from_s(2)));
    }

    #[test]
    fn a_silence_while_somebody_waits_counts_once() {
        let stalled = drained(&[(0, 5), (2, 5)]);
        assert_eq!(stalled.time_for(1, at(3)), Some(Span::from_s(2)));
        assert_eq!(stalled.time_for(1, at(30)), Some(Span::from_s(28)));
        assert_eq!(stalled.time_for(10, at(30)), Some(Span::from_s(46)));
        assert_eq!(
            (stalled.gap_of(MODEL), stalled.silence_of(MODEL, at(30))),
            (Some(Span::from_s(2)), Span::from_s(26))
        );
        assert_eq!(drained(&[(0, 5), (2, 0)]).time_for(1, at(30)), Some(Span::from_s(2)));
    }

    #[test]
    fn each_model_has_its_own_pace() {
        let mut drain = Drain::default();
        for second in 0..4 {
            drain.departed(ModelId((second % 2) as u32), at(second), 5, 5, 8);
        }
        assert_eq!(drain.time_for(1, at(3)), Some(Span::from_s(1)));
        assert_eq!(drain.gap_of(ModelId(0)), Some(Span::from_s(2)));
        assert_eq!(drain.gap_of(ModelId(9)), None);
    }

    #[test]
    fn models_beyond_the_bound_have_no_pace() {
        let mut drain = drained(&[(0, 5), (2, 5)]);
        drain.departed(ModelId(2), at(3), 5, 5, 1);
        drain.departed(ModelId(2), at(4), 5, 5, 1);
        assert_eq!(drain.gap_of(ModelId(2)), None);
        assert!(drain.gap_of(MODEL).is_some());
    }
}
