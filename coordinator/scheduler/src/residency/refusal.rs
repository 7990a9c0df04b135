//! Why a model cannot be loaded, and what could be instead.
//!
//! Owns the reasons and the words in which they are told; every number in them is what the planner compared. Refuses to call a
//! wait a refusal: a model that would have to wait for its turn, or for a retry, is not refused while there is a node for it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Residency;
use crate::ids::{Lane, ModelId, NodeId};
use crate::time::At;
use crate::verdict::Names;

/// Why a model cannot be loaded anywhere, or a pin not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// No node has it.
    NotOffered,
    /// It is larger than any budget of a node that has it.
    NeverFits {
        /// Bytes, where it is smallest.
        needs: u64,
        /// The largest budget among those nodes.
        largest_budget: u64,
        /// The largest models that would fit a budget somewhere, with their bytes.
        would_fit: Vec<(ModelId, u64)>,
    },
    /// Every node that has it, and is large enough, is away, drained, broken, or has just failed to load it.
    NodesDown {
        /// Not usable.
        down: u32,
        /// Usable, but a load failed there a moment ago.
        failed: u32,
        /// The first of those is tried again then.
        retry_at: Option<At>,
    },
    /// What the nodes could hold is held by pins and by replicas that a minimum needs.
    RoomHeld {
        /// Bytes, where it is smallest.
        needs: u64,
        /// The most bytes that are not so held on one node.
        largest_room: u64,
        /// The largest models that would fit beside them, with their bytes.
        would_fit: Vec<(ModelId, u64)>,
    },
    /// The pin does not fit the node's budget beside the pins before it.
    PinsFull {
        /// Bytes of the model.
        needs: u64,
        /// What the other pins leave.
        left: u64,
        /// The whole budget.
        budget: u64,
    },
}

impl WhyNot {
    /// Whether waiting cannot help: nothing but an operator changes it.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NeverFits { .. } | Self::RoomHeld { .. } => true,
            Self::NotOffered | Self::NodesDown { .. } | Self::PinsFull { .. } => false,
        }
    }
}

impl Residency {
    /// Why the model cannot be loaded, now or at its turn; `None` when it can, or is already.
    pub(crate) fn refusal(&self, at: At, model: ModelId) -> Option<WhyNot> {
        if self.has_replica(model) {
            return None;
        }
        let Some(needs) = self.offers.of(model).map(|(_, offer)| offer.bytes).min() else {
            return Some(WhyNot::NotOffered);
        };
        let large: Vec<NodeId> = self.nodes_for(model, |node| self.memory.budget(node));
        if large.is_empty() {
            let largest_budget = self.largest(model, |node| self.memory.budget(node));
            let would_fit = self.alternatives(|node| self.memory.budget(node));
            return Some(WhyNot::NeverFits { needs, largest_budget, would_fit });
        }
        if let Some(down) = self.nodes_down(at, model, &large) {
            return Some(down);
        }
        let open = |node| if self.memory.is_usable(node) { self.room(node, model) } else { 0 };
        let roomy = self.nodes_for(model, open);
        roomy.is_empty().then(|| WhyNot::RoomHeld {
            needs,
            largest_room: self.largest(model, open),
            would_fit: self.alternatives(open),
        })
    }

    /// The pins of the model that are not kept, with the reason.
    pub(crate) fn pin_refusals(&self, model: ModelId) -> impl Iterator<Item = (NodeId, WhyNot)> {
        let nodes = self.policies.pinned(model);
        nodes.filter_map(move |node| Some((node, self.pin_refusal(node, model)?)))
    }

    /// Why a pin is not kept; `None` when it is, or will be, or when nobody asked for it.
    fn pin_refusal(&self, node: NodeId, model: ModelId) -> Option<WhyNot> {
        let pin = self.pins(node).into_iter().find(|pin| pin.model == model)?;
        let budget = self.memory.budget(node);
        match pin.bytes {
            None => Some(WhyNot::NotOffered),
            Some(needs) => (!pin.is_honoured()).then_some(WhyNot::PinsFull { needs, left: pin.left, budget }),
        }
    }

    fn nodes_down(&self, at: At, model: ModelId, large: &[NodeId]) -> Option<WhyNot> {
        let down = large.iter().filter(|node| !self.memory.is_usable(**node)).count();
        let pauses = large.iter().filter(|node| self.memory.is_usable(**node)).filter_map(|node| {
            self.offers
                .get((*node, model))
                .map(|offer| offer.not_before)
                .filter(|not_before| *not_before > at)
        });
        let pauses: Vec<At> = pauses.collect();
        (down.saturating_add(pauses.len()) == large.len()).then(|| WhyNot::NodesDown {
            down: count(down),
            failed: count(pauses.len()),
            retry_at: pauses.iter().min().copied(),
        })
    }

    /// The nodes that offer the model and have so much for it.
    fn nodes_for(&self, model: ModelId, bytes: impl Fn(NodeId) -> u64) -> Vec<NodeId> {
        let fitting = self.offers.of(model).filter(|(node, offer)| offer.bytes <= bytes(*node));
        fitting.map(|(node, _)| node).collect()
    }

    fn largest(&self, model: ModelId, bytes: impl Fn(NodeId) -> u64) -> u64 {
        self.offers.of(model).map(|(node, _)| bytes(node)).max().unwrap_or_default()
    }

    /// The largest models that fit so much on a node that offers them.
    fn alternatives(&self, bytes: impl Fn(NodeId) -> u64) -> Vec<(ModelId, u64)> {
        let mut fitting: Vec<(ModelId, u64)> = Vec::new();
        for ((_, model), offer) in self.offers.iter().filter(|((node, _), offer)| offer.bytes <= bytes(*node))
        {
            match fitting.last_mut().filter(|(last, _)| *last == model) {
                Some((_, smallest)) => *smallest = offer.bytes.min(*smallest),
                None => fitting.push((model, offer.bytes)),
            }
        }
        fitting.sort_by_key(|(model, bytes)| (core::cmp::Reverse(*bytes), *model));
        fitting.truncate(self.limits.alternatives_max);
        fitting
    }

    /// The budget without what is held by pins and minimums of other models.
    fn room(&self, node: NodeId, model: ModelId) -> u64 {
        let pins = self.pins(node).into_iter().filter(|pin| pin.model != model && pin.is_honoured());
        let pinned = pins.filter_map(|pin| pin.bytes).fold(0, u64::saturating_add);
        let needed = self.memory.on(node).filter(|(lane, _)| lane.1 != model && self.holds_a_minimum(*lane));
        let needed = needed.fold(0, |sum: u64, (_, replica)| sum.saturating_add(replica.bytes));
        self.memory.budget(node).saturating_sub(pinned).saturating_sub(needed)
    }

    /// Needed for a minimum, and not pinned.
    fn holds_a_minimum(&self, lane: Lane) -> bool {
        let replicas = self.memory.iter().filter(|((node, model), replica)| {
            *model == lane.1 && self.memory.is_usable(*node) && (replica.is_ready() || replica.is_coming())
        });
        !self.policies.is_pinned(lane) && replicas.count() <= self.policies.replicas_min(lane.1) as usize
    }
}

impl WhyNot {
    /// The reason in words: a sentence without its full stop.
    #[must_use]
    pub fn words(&self, names: &dyn Names) -> String {
        match self {
            Self::NotOffered => "no node has it".to_string(),
            Self::NeverFits { needs, largest_budget, would_fit } => format!(
                "it needs {}, and the largest budget of a node that has it is {}; {}",
                gib(*needs),
                gib(*largest_budget),
                fitting_words(would_fit, names)
            ),
            Self::NodesDown { down, failed, retry_at } => {
                let retry = retry_at.map_or(String::new(), |at| format!(", tried again at {}", seconds(at)));
                format!(
                    "of the nodes that could hold it, {down} cannot be used and {failed} failed to load it{retry}"
                )
            }
            Self::RoomHeld { needs, largest_room, would_fit } => format!(
                "it needs {}, and pins and minimum replicas leave {} at most; {}",
                gib(*needs),
                gib(*largest_room),
                fitting_words(would_fit, names)
            ),
            Self::PinsFull { needs, left, budget } => format!(
                "it needs {}, and the pins before it leave {} of the {} budget",
                gib(*needs),
                gib(*left),
                gib(*budget)
            ),
        }
    }
}

fn fitting_words(would_fit: &[(ModelId, u64)], names: &dyn Names) -> String {
    if would_fit.is_empty() {
        return "no other would fit".to_string();
    }
    let models: Vec<String> =
        would_fit.iter().map(|(model, bytes)| format!("{} ({})", names.model(*model), gib(*bytes))).collect();
    format!("would fit: {}", models.join(", "))
}

/// Tenths of a GiB, rounded, in whole numbers: equal on every machine.
pub(crate) fn gib(bytes: u64) -> String {
    let tenths = u128::from(bytes).saturating_mul(10).saturating_add(1 << 29) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn seconds(at: At) -> String {
    let ms = at.0 / 1_000;
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::stage_tests::{GIB, Stage, s};
    use crate::residency::{ModelPolicy, ResidentState};

    const TENTH: u64 = GIB / 10;

    struct Numbers;

    impl Names for Numbers {
        fn model(&self, model: ModelId) -> String {
            format!("model-{}", model.0)
        }

        fn node(&self, node: NodeId) -> String {
            format!("node-{}", node.0)
        }
    }

    fn refusal(stage: &Stage, model: u32) -> Option<WhyNot> {
        stage.planner.refusal(s(100), ModelId(model))
    }

    #[test]
    fn a_model_that_is_there_or_may_have_its_turn_is_not_refused() {
        let mut stage = Stage::full(0);
        assert_eq!((refusal(&stage, 1), refusal(&stage, 4)), (None, None));
        stage.planner.withdrawn(NodeId(1), ModelId(1));
        assert_eq!(refusal(&stage, 1), None, "it runs, though it could not be loaded again");
    }

    #[test]
    fn a_model_that_nobody_has_is_not_offered() {
        assert_eq!(refusal(&Stage::full(0), 99), Some(WhyNot::NotOffered));
    }

    #[test]
    fn a_model_larger_than_every_budget_never_fits() {
        let mut stage = Stage::full(0);
        stage.node(2, 24);
        stage.offer(1, 9, 40, 2);
        stage.offer(2, 9, 38, 2);
        let would_fit = [1, 2, 3].map(|model| (ModelId(model), 10 * GIB)).to_vec();
        let never = WhyNot::NeverFits { needs: 38 * GIB, largest_budget: 30 * GIB, would_fit };
        assert_eq!(refusal(&stage, 9), Some(never));
    }

    #[test]
    fn the_largest_models_that_fit_come_first_each_where_it_is_smallest() {
        let mut stage = Stage::full(0);
        stage.offer(1, 9, 31, 2);
        stage.offer(1, 7, 28, 2);
        stage.offer(1, 8, 30, 2);
        stage.node(2, 40);
        stage.offer(2, 7, 29, 2);
        stage.offer(2, 6, 41, 2);
        stage.offer(2, 1, 9, 2);
        let would_fit = vec![(ModelId(8), 30 * GIB), (ModelId(7), 28 * GIB), (ModelId(2), 10 * GIB)];
        let never = WhyNot::NeverFits { needs: 31 * GIB, largest_budget: 30 * GIB, would_fit };
        assert_eq!(refusal(&stage, 9), Some(never));
    }

    #[test]
    fn nodes_that_are_down_or_have_just_failed_are_counted() {
        let mut stage = Stage::full(0);
        stage.node(2, 30);
        stage.node(3, 5);
        stage.offer(2, 4, 10, 2);
        stage.offer(3, 4, 10, 2);
        stage.reports(98, 2, 4, ResidentState::Failed { until: s(0) });
        assert_eq!(refusal(&stage, 4), None, "node 1 is there");
        stage.unusable(1, 30);
        assert_eq!(
            refusal(&stage, 4),
            Some(WhyNot::NodesDown { down: 1, failed: 1, retry_at: Some(s(103)) })
        );
        stage.unusable(2, 30);
        assert_eq!(refusal(&stage, 4), Some(WhyNot::NodesDown { down: 2, failed: 0, retry_at: None }));
    }

    #[test]
    fn room_that_is_held_by_pins_and_minimums_is_told() {
        let mut stage = Stage::full(0);
        stage.pin(1, 1);
        stage.minimum(2, 1);
        assert_eq!(refusal(&stage, 4), None, "3 can go");
        stage.offer(1, 4, 11, 2);
        let would_fit = [1, 2, 3].map(|model| (ModelId(model), 10 * GIB)).to_vec();
        let held = WhyNot::RoomHeld { needs: 11 * GIB, largest_room: 10 * GIB, would_fit };
        assert_eq!(refusal(&stage, 4), Some(held));
        stage.policy(1, ModelPolicy::default());
        assert_eq!(refusal(&stage, 4), None);
    }

    #[test]
    fn a_pin_that_is_still_to_come_holds_its_room() {
        let mut stage = Stage::full(0);
        stage.pin(1, 5);
        stage.offer(1, 4, 21, 2);
        let refused = refusal(&stage, 4);
        assert!(
            matches!(refused, Some(WhyNot::RoomHeld { largest_room, .. }) if largest_room == 20 * GIB),
            "{refused:?}"
        );
    }

    #[test]
    fn a_pin_does_not_stand_in_its_own_way() {
        let mut stage = Stage::full(0);
        stage.offer(1, 4, 25, 2);
        stage.pin(1, 4);
        assert_eq!(refusal(&stage, 4), None);
    }

    #[test]
    fn a_pin_is_refused_with_what_the_others_leave() {
        let mut stage = Stage::full(0);
        stage.pin(1, 1);
        stage.pin(1, 5);
        stage.offer(1, 6, 11, 2);
        stage.pin(1, 6);
        stage.pin(1, 99);
        let refusal = |model| stage.planner.pin_refusal(NodeId(1), ModelId(model));
        assert_eq!((refusal(1), refusal(5), refusal(2)), (None, None, None));
        assert_eq!(refusal(6), Some(WhyNot::PinsFull { needs: 11 * GIB, left: 10 * GIB, budget: 30 * GIB }));
        assert_eq!(refusal(99), Some(WhyNot::NotOffered));
    }

    #[test]
    fn each_reason_has_its_words() {
        let words = |why: WhyNot| why.words(&Numbers);
        let would_fit = vec![(ModelId(2), 14 * GIB + 6 * TENTH), (ModelId(1), 9 * GIB)];
        assert_eq!(words(WhyNot::NotOffered), "no node has it");
        assert_eq!(
            words(WhyNot::NeverFits {
                needs: 38 * GIB + 2 * TENTH,
                largest_budget: 24 * GIB,
                would_fit: would_fit.clone()
            }),
            "it needs 38.2 GiB, and the largest budget of a node that has it is 24.0 GiB; \
             would fit: model-2 (14.6 GiB), model-1 (9.0 GiB)"
        );
        assert_eq!(
            words(WhyNot::NodesDown { down: 2, failed: 1, retry_at: Some(At(12_345_678)) }),
            "of the nodes that could hold it, 2 cannot be used and 1 failed to load it, tried again at 12.345 s"
        );
        assert_eq!(
            words(WhyNot::NodesDown { down: 2, failed: 0, retry_at: None }),
            "of the nodes that could hold it, 2 cannot be used and 0 failed to load it"
        );
        assert_eq!(
            words(WhyNot::RoomHeld { needs: GIB, largest_room: 0, would_fit: vec![] }),
            "it needs 1.0 GiB, and pins and minimum replicas leave 0.0 GiB at most; no other would fit"
        );
        assert_eq!(
            words(WhyNot::PinsFull { needs: 3 * GIB, left: GIB, budget: 8 * GIB }),
            "it needs 3.0 GiB, and the pins before it leave 1.0 GiB of the 8.0 GiB budget"
        );
    }

    #[test]
    fn sizes_are_rounded_to_tenths() {
        let sizes = [0, GIB / 20 - 1, GIB / 20 + 1, GIB - 1, GIB, u64::MAX].map(gib);
        assert_eq!(sizes, ["0.0 GiB", "0.0 GiB", "0.1 GiB", "1.0 GiB", "1.0 GiB", "17179869184.0 GiB"]);
    }
}
