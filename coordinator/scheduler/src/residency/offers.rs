//! What each node could load: how large it is there, how long it would take, and how it went before.
//!
//! Owns the offers and the pauses after failed loads. Refuses to know what is loaded: an offer stands while its model is
//! resident, and a reservation stands when its offer is withdrawn.

use alloc::collections::BTreeMap;

use crate::ids::{Lane, ModelId, NodeId};
use crate::limits::ResidencyLimits;
use crate::time::{At, Span};

/// A model that a node could hold, as its agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferFacts {
    pub(crate) node: NodeId,
    pub(crate) model: ModelId,
    /// The footprint to reserve: weights, KV cache and overhead.
    pub(crate) bytes: u64,
    /// The load time, where it was measured.
    pub(crate) load: Option<Span>,
    /// Whether the weights are on the node's own disk.
    pub(crate) source_local: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) bytes: u64,
    pub(crate) load: Span,
    /// Failed loads in a row.
    pub(crate) failures: u32,
    /// The pause after the last failure.
    pub(crate) not_before: At,
}

#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_model: BTreeMap<(ModelId, NodeId), Offer>,
}

impl Offers {
    /// A repeated offer keeps what is known of its failures.
    pub(crate) fn offer(&mut self, facts: &OfferFacts, limits: &ResidencyLimits) {
        let key = (facts.model, facts.node);
        if !self.by_model.contains_key(&key) && self.count(facts.node) >= limits.offers_per_node_max {
            return;
        }
        let offer = self.by_model.entry(key).or_default();
        offer.bytes = facts.bytes;
        offer.load = facts.load.unwrap_or_else(|| assumed_load(facts, limits));
    }

    pub(crate) fn withdraw(&mut self, (node, model): Lane) {
        self.by_model.remove(&(model, node));
    }

    /// The load failed. The pause doubles with each failure in a row, and lasts as long as the agent's own at least.
    pub(crate) fn failed(&mut self, (node, model): Lane, at: At, until: At, limits: &ResidencyLimits) {
        let Some(offer) = self.by_model.get_mut(&(model, node)) else { return };
        let pause = limits.retry_pause.times(1 << offer.failures.min(32)).min(limits.retry_pause_max);
        offer.failures = offer.failures.saturating_add(1);
        offer.not_before = (at + pause).max(until);
    }

    pub(crate) fn succeeded(&mut self, (node, model): Lane) {
        if let Some(offer) = self.by_model.get_mut(&(model, node)) {
            (offer.failures, offer.not_before) = (0, At(0));
        }
    }

    pub(crate) fn get(&self, (node, model): Lane) -> Option<&Offer> {
        self.by_model.get(&(model, node))
    }

    /// The nodes that offer the model, by number.
    pub(crate) fn of(&self, model: ModelId) -> impl Iterator<Item = (NodeId, &Offer)> {
        let range = (model, NodeId(0))..=(model, NodeId(u64::MAX));
        self.by_model.range(range).map(|((_, node), offer)| (*node, offer))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Lane, &Offer)> {
        self.by_model.iter().map(|((model, node), offer)| ((*node, *model), offer))
    }

    fn count(&self, node: NodeId) -> usize {
        self.by_model.keys().filter(|(_, other)| *other == node).count()
    }
}

fn assumed_load(facts: &OfferFacts, limits: &ResidencyLimits) -> Span {
    let rate = if facts.source_local { limits.disk_bytes_per_s } else { limits.link_bytes_per_s };
    let reading_us = u128::from(facts.bytes).saturating_mul(1_000_000) / u128::from(rate.max(1));
    Span(u64::try_from(reading_us).unwrap_or(u64::MAX)) + limits.load_overhead
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = (NodeId(1), ModelId(1));

    fn facts(node: u64, model: u32) -> OfferFacts {
        OfferFacts {
            node: NodeId(node),
            model: ModelId(model),
            bytes: 11_000_000_000,
            load: Some(Span::from_s(3)),
            source_local: true,
        }
    }

    fn offers(facts: &[OfferFacts]) -> Offers {
        let mut offers = Offers::default();
        facts.iter().for_each(|facts| offers.offer(facts, &ResidencyLimits::default()));
        offers
    }

    fn at(seconds: u64) -> At {
        At(0) + Span::from_s(seconds)
    }

    #[test]
    fn a_measured_load_time_is_believed_and_a_missing_one_is_assumed_from_size_and_source() {
        let load = |facts: OfferFacts| offers(&[facts]).get(LANE).map(|offer| offer.load);
        let unmeasured = OfferFacts { load: None, ..facts(1, 1) };
        assert_eq!(load(facts(1, 1)), Some(Span::from_s(3)));
        assert_eq!(load(unmeasured), Some(Span::from_s(11 + 2)));
        assert_eq!(load(OfferFacts { source_local: false, ..unmeasured }), Some(Span::from_s(100 + 2)));
        assert_eq!(
            load(OfferFacts { bytes: u64::MAX, ..unmeasured }).map(|load| load > Span::from_s(1)),
            Some(true)
        );
    }

    #[test]
    fn the_nodes_of_a_model_come_by_number() {
        let offers = offers(&[facts(3, 1), facts(2, 2), facts(1, 1)]);
        let nodes = |model| offers.of(ModelId(model)).map(|(node, _)| node.0).collect::<Vec<_>>();
        assert_eq!((nodes(1), nodes(2), nodes(9)), (vec![1, 3], vec![2], vec![]));
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_a_success_starts_anew() {
        let mut offers = offers(&[facts(1, 1)]);
        let limits = ResidencyLimits { retry_pause_max: Span::from_s(30), ..ResidencyLimits::default() };
        let mut pauses = Vec::new();
        for _ in 0..5 {
            offers.failed(LANE, at(100), at(0), &limits);
            pauses.push(offers.get(LANE).map(|offer| offer.not_before.since(at(100)).0 / 1_000_000));
        }
        assert_eq!(pauses, [5, 10, 20, 30, 30].map(Some));
        assert_eq!(offers.get(LANE).map(|offer| offer.failures), Some(5));
        offers.succeeded(LANE);
        assert_eq!(offers.get(LANE).map(|offer| (offer.failures, offer.not_before)), Some((0, At(0))));
    }

    #[test]
    fn the_agents_own_pause_is_respected() {
        let mut offers = offers(&[facts(1, 1)]);
        offers.failed(LANE, at(100), at(400), &ResidencyLimits::default());
        assert_eq!(offers.get(LANE).map(|offer| offer.not_before), Some(at(400)));
    }

    #[test]
    fn a_repeated_offer_keeps_its_failures_and_a_withdrawn_one_does_not() {
        let mut offers = offers(&[facts(1, 1)]);
        let limits = ResidencyLimits::default();
        offers.failed(LANE, at(1), at(0), &limits);
        offers.offer(&OfferFacts { bytes: 7, ..facts(1, 1) }, &limits);
        assert_eq!(offers.get(LANE).map(|offer| (offer.bytes, offer.failures)), Some((7, 1)));
        offers.withdraw(LANE);
        assert_eq!(offers.get(LANE), None);
        offers.offer(&facts(1, 1), &limits);
        assert_eq!(offers.get(LANE).map(|offer| offer.failures), Some(0));
    }

    #[test]
    fn offers_of_one_node_are_bounded() {
        let limits = ResidencyLimits { offers_per_node_max: 2, ..ResidencyLimits::default() };
        let mut offers = Offers::default();
        for model in 1..=4 {
            offers.offer(&facts(1, model), &limits);
        }
        offers.offer(&facts(2, 4), &limits);
        offers.offer(&OfferFacts { bytes: 7, ..facts(1, 1) }, &limits);
        let kept: Vec<_> =
            offers.iter().map(|((node, model), offer)| (node.0, model.0, offer.bytes)).collect();
        assert_eq!(kept, [(1, 1, 7), (1, 2, 11_000_000_000), (2, 4, 11_000_000_000)]);
    }
}
