//! What is true after every plan: one function per law.
//!
//! Owns the laws, for tests, simulators and debug builds alike. Refuses to mend: a broken law is a fault of this room. That no load
//! begins without a granted reservation needs no law here: there is no action that begins one.

use alloc::collections::BTreeSet;

use super::Residency;
use super::action::{Action, EvictReason};
use super::replica::Phase;
use super::view::PlanView;
use crate::ids::{Lane, ModelId, NodeId};

/// A law that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// More was asked for than the budget has.
    OverBudget { node: NodeId },
    /// More is promised than the budget has, and what could go does not.
    NotShed { node: NodeId },
    /// A pinned replica was told to go.
    PinEvicted { node: NodeId, model: ModelId },
    /// A model was brought below its minimum.
    BelowMinimum { model: ModelId },
    /// Two wishes are outstanding for one replica, or one that the state knows nothing of.
    Outstanding { node: NodeId, model: ModelId },
    /// The memory of a replica that still answers is counted as free.
    FreedInFlight { node: NodeId, model: ModelId },
    /// More loads under way on a node than the limit.
    LoadStorm { node: NodeId },
}

/// All laws about a state, and the actions of the plan that led to it.
pub(crate) fn check(residency: &Residency, view: &PlanView<'_>, actions: &[Action]) -> Result<(), Broken> {
    reservations_fit(residency, actions)?;
    excess_is_shed(residency)?;
    pins_stay(residency, actions)?;
    minimums_stay(residency, actions)?;
    one_action_outstanding(residency, actions)?;
    nothing_in_flight_is_freed(residency, view)?;
    no_load_storm(residency)
}

/// What is asked for fits beside all that is taken.
pub(crate) fn reservations_fit(residency: &Residency, actions: &[Action]) -> Result<(), Broken> {
    for action in actions {
        if let Action::Reserve { node, .. } = action
            && residency.memory.taken(*node) > residency.memory.budget(*node)
        {
            return Err(Broken::OverBudget { node: *node });
        }
    }
    Ok(())
}

/// Where more is promised than the budget has, only pins and unanswered proposals stay.
pub(crate) fn excess_is_shed(residency: &Residency) -> Result<(), Broken> {
    for node in residency.memory.nodes() {
        let over = !residency.memory.is_within_budget(node);
        let could_go = residency.memory.on(node).any(|(lane, replica)| {
            !replica.is_taken() || (replica.is_evictable() && !residency.policies.is_pinned(lane))
        });
        if over && could_go {
            return Err(Broken::NotShed { node });
        }
    }
    Ok(())
}

/// A pinned replica that works is never told to go.
pub(crate) fn pins_stay(residency: &Residency, actions: &[Action]) -> Result<(), Broken> {
    for (lane, why) in evictions(actions) {
        if residency.policies.is_pinned(lane) && is_chosen(why) {
            return Err(Broken::PinEvicted { node: lane.0, model: lane.1 });
        }
    }
    Ok(())
}

/// A model that lost a replica by choice has at least its minimum left. (A budget that shrank, and failures, ask nobody.)
pub(crate) fn minimums_stay(residency: &Residency, actions: &[Action]) -> Result<(), Broken> {
    for (lane, why) in evictions(actions) {
        let ready = residency.memory.iter().filter(|((node, model), replica)| {
            *model == lane.1 && replica.is_ready() && residency.memory.is_usable(*node)
        });
        let short = ready.count() < residency.policies.replicas_min(lane.1) as usize;
        if short && is_chosen(why) && why != EvictReason::OverBudget {
            return Err(Broken::BelowMinimum { model: lane.1 });
        }
    }
    Ok(())
}

/// Each action is about another replica, and its phase says that it is outstanding.
pub(crate) fn one_action_outstanding(residency: &Residency, actions: &[Action]) -> Result<(), Broken> {
    let mut seen: BTreeSet<Lane> = BTreeSet::new();
    for action in actions {
        let (lane, expected) = match *action {
            Action::Reserve { node, model, number, why, .. } => ((node, model), Phase::Asked { number, why }),
            Action::Evict { node, model, why } => ((node, model), Phase::Leaving { why }),
        };
        let known = residency.memory.get(lane).is_some_and(|replica| replica.phase == expected);
        if !seen.insert(lane) || !known {
            return Err(Broken::Outstanding { node: lane.0, model: lane.1 });
        }
    }
    Ok(())
}

/// A replica with something in flight holds its memory.
pub(crate) fn nothing_in_flight_is_freed(residency: &Residency, view: &PlanView<'_>) -> Result<(), Broken> {
    for ((node, model), usage) in &view.lanes {
        let is_taken = residency.memory.get((*node, *model)).is_some_and(super::replica::Replica::is_taken);
        if usage.in_flight > 0 && !is_taken {
            return Err(Broken::FreedInFlight { node: *node, model: *model });
        }
    }
    Ok(())
}

/// Loads that the planner chose stay within the limit of each node.
pub(crate) fn no_load_storm(residency: &Residency) -> Result<(), Broken> {
    for node in residency.memory.nodes() {
        let chosen = residency
            .memory
            .on(node)
            .filter(|(_, replica)| matches!(replica.phase, Phase::Intended { .. } | Phase::Asked { .. }));
        if chosen.count() > residency.limits.loads_per_node {
            return Err(Broken::LoadStorm { node });
        }
    }
    Ok(())
}

fn evictions(actions: &[Action]) -> impl Iterator<Item = (Lane, EvictReason)> {
    actions.iter().filter_map(|action| match *action {
        Action::Evict { node, model, why } => Some(((node, model), why)),
        Action::Reserve { .. } => None,
    })
}

/// The planner's own choice, not a report of the agent.
fn is_chosen(why: EvictReason) -> bool {
    match why {
        EvictReason::Displaced { .. }
        | EvictReason::Idle
        | EvictReason::TooMany
        | EvictReason::OverBudget => true,
        EvictReason::Failed | EvictReason::Overdue | EvictReason::ByAgent => false,
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::residency::Use;
    use crate::residency::action::{LoadReason, ReservationId};
    use crate::residency::replica::Replica;
    use crate::residency::stage_tests::{GIB, Stage, lane, s};

    const NODE: NodeId = NodeId(1);
    const WHY: LoadReason = LoadReason::Waiting;

    fn view() -> PlanView<'static> {
        PlanView { waiting: BTreeMap::new(), lanes: BTreeMap::new(), speed: &|_, _| 1.0 }
    }

    fn evict(model: u32, why: EvictReason) -> Action {
        Action::Evict { node: NODE, model: ModelId(model), why }
    }

    fn put(stage: &mut Stage, model: u32, gib: u64, phase: Phase) {
        stage.planner.insert(lane(1, model), Replica::new(gib * GIB, phase, s(0), 0));
    }

    fn asked(number: u64) -> Phase {
        Phase::Asked { number: ReservationId(number), why: WHY }
    }

    fn reserve(model: u32, number: u64) -> Action {
        Action::Reserve {
            node: NODE,
            model: ModelId(model),
            bytes: GIB,
            number: ReservationId(number),
            why: WHY,
        }
    }

    #[test]
    fn a_sound_state_breaks_no_law() {
        assert_eq!(check(&Stage::full(0).planner, &view(), &[]), Ok(()));
    }

    #[test]
    fn a_byte_too_many_is_noticed_when_it_is_asked_for() {
        let mut stage = Stage::full(0);
        put(&mut stage, 4, 1, asked(1));
        assert_eq!(
            reservations_fit(&stage.planner, &[reserve(4, 1)]),
            Err(Broken::OverBudget { node: NODE })
        );
        assert_eq!(reservations_fit(&stage.planner, &[]), Ok(()), "the budget may have shrunk since");
        stage.node(1, 31);
        assert_eq!(reservations_fit(&stage.planner, &[reserve(4, 1)]), Ok(()));
    }

    #[test]
    fn an_excess_that_could_go_is_noticed() {
        let mut stage = Stage::full(0);
        stage.node(1, 29);
        assert_eq!(excess_is_shed(&stage.planner), Err(Broken::NotShed { node: NODE }));
        (1..=3).for_each(|model| stage.pin(1, model));
        assert_eq!(excess_is_shed(&stage.planner), Ok(()), "pins stay");
        put(&mut stage, 4, 1, Phase::Intended { why: WHY });
        assert_eq!(excess_is_shed(&stage.planner), Err(Broken::NotShed { node: NODE }));
        put(&mut stage, 4, 1, asked(1));
        assert_eq!(excess_is_shed(&stage.planner), Ok(()), "the answer is open");
    }

    #[test]
    fn an_evicted_pin_is_noticed_unless_it_failed() {
        let mut stage = Stage::full(0);
        stage.pin(1, 2);
        let broken = Err(Broken::PinEvicted { node: NODE, model: ModelId(2) });
        for why in [
            EvictReason::Displaced { by: ModelId(4) },
            EvictReason::Idle,
            EvictReason::TooMany,
            EvictReason::OverBudget,
        ] {
            assert_eq!(pins_stay(&stage.planner, &[evict(2, why)]), broken, "{why:?}");
            assert_eq!(pins_stay(&stage.planner, &[evict(3, why)]), Ok(()));
        }
        for why in [EvictReason::Failed, EvictReason::Overdue, EvictReason::ByAgent] {
            assert_eq!(pins_stay(&stage.planner, &[evict(2, why)]), Ok(()), "{why:?}");
        }
    }

    #[test]
    fn a_model_below_its_minimum_is_noticed_unless_there_was_no_choice() {
        let mut stage = Stage::full(0);
        stage.minimum(2, 1);
        let idle = [evict(2, EvictReason::Idle)];
        assert_eq!(minimums_stay(&stage.planner, &idle), Ok(()), "another one is left");
        put(&mut stage, 2, 10, Phase::Leaving { why: EvictReason::Idle });
        assert_eq!(minimums_stay(&stage.planner, &idle), Err(Broken::BelowMinimum { model: ModelId(2) }));
        assert_eq!(minimums_stay(&stage.planner, &[evict(2, EvictReason::OverBudget)]), Ok(()));
        assert_eq!(minimums_stay(&stage.planner, &[evict(2, EvictReason::Failed)]), Ok(()));
    }

    #[test]
    fn two_wishes_for_one_replica_are_noticed() {
        let mut stage = Stage::full(0);
        let broken = |model| Err(Broken::Outstanding { node: NODE, model: ModelId(model) });
        put(&mut stage, 2, 10, Phase::Leaving { why: EvictReason::Idle });
        put(&mut stage, 4, 1, asked(7));
        let idle = evict(2, EvictReason::Idle);
        assert_eq!(one_action_outstanding(&stage.planner, &[idle, reserve(4, 7)]), Ok(()));
        assert_eq!(one_action_outstanding(&stage.planner, &[idle, idle]), broken(2));
        assert_eq!(one_action_outstanding(&stage.planner, &[reserve(4, 6)]), broken(4), "another number");
        assert_eq!(
            one_action_outstanding(&stage.planner, &[evict(3, EvictReason::Idle)]),
            broken(3),
            "it stays ready"
        );
        assert_eq!(
            one_action_outstanding(&stage.planner, &[evict(9, EvictReason::Idle)]),
            broken(9),
            "not there"
        );
    }

    #[test]
    fn memory_freed_under_a_running_answer_is_noticed() {
        let mut stage = Stage::full(0);
        let mut view = view();
        let usage = |in_flight| Use { in_flight, ..Use::default() };
        view.lanes.insert(lane(1, 2), usage(1));
        view.lanes.insert(lane(1, 4), usage(0));
        assert_eq!(nothing_in_flight_is_freed(&stage.planner, &view), Ok(()));
        put(&mut stage, 2, 10, Phase::Intended { why: WHY });
        let broken = Err(Broken::FreedInFlight { node: NODE, model: ModelId(2) });
        assert_eq!(nothing_in_flight_is_freed(&stage.planner, &view), broken);
        stage.release(0, 1, 3);
        stage.planner.memory.remove(lane(1, 2));
        assert_eq!(nothing_in_flight_is_freed(&stage.planner, &view), broken);
    }

    #[test]
    fn two_loads_chosen_for_one_node_are_noticed() {
        let mut stage = Stage::full(0);
        put(&mut stage, 4, 1, asked(1));
        put(&mut stage, 5, 1, Phase::Reserved);
        assert_eq!(no_load_storm(&stage.planner), Ok(()), "the other one is a fact from elsewhere");
        put(&mut stage, 5, 1, Phase::Intended { why: WHY });
        assert_eq!(no_load_storm(&stage.planner), Err(Broken::LoadStorm { node: NODE }));
    }
}
