//! The promise that reservations never exceed a node's memory, for any order of commands and whoever proposes them.

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, ModelName, ModelSource, NodeId, Refusal, Registry, Reply};

use crate::generator::{after, command, config, farm, history, placements};

fn fits(registry: &Registry, node: NodeId) -> bool {
    registry.budget(node).is_some_and(|budget| registry.reserved_bytes(node) <= budget)
}

/// One model for each size.
fn sized(sizes: &[u64]) -> impl Iterator<Item = (ModelName, u64)> {
    let name = |number: usize| ModelName::new(&format!("m{number}")).unwrap();
    sizes.iter().enumerate().map(move |(number, bytes)| (name(number), *bytes))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn after_every_accepted_placement_the_reservations_fit(
        beginning in history(),
        commands in vec(prop_oneof![3 => placements(), 1 => command()], 0..80),
    ) {
        let mut registry = after(&beginning);
        for command in &commands {
            let reply = registry.apply(command);
            if let (Command::PlaceModel { node, model, bytes }, Reply::Done) = (command, &reply) {
                prop_assert!(fits(&registry, *node), "{:?}", command);
                let placed = registry.placed_on(*node).find(|(name, _)| *name == model);
                prop_assert_eq!(placed.map(|(_, placement)| placement.bytes), Some(*bytes));
            }
        }
    }

    #[test]
    fn where_no_budget_shrinks_the_reservations_always_fit(commands in vec(command(), 0..120)) {
        let mut registry = after(&farm());
        for command in &commands {
            if let Command::SetBudget { node, bytes } = command
                && registry.budget(*node).is_some_and(|budget| *bytes < budget)
            {
                continue;
            }
            registry.apply(command);
            for (node, _) in registry.nodes() {
                prop_assert!(fits(&registry, node) || registry.reserved_bytes(node) == 0, "{:?}", command);
            }
        }
    }

    #[test]
    fn in_whatever_order_placements_arrive_they_fit_and_none_is_refused_for_which_there_is_room(
        (budget, sizes) in (0_u64..40, vec(1_u64..12, 1..9).prop_shuffle()),
    ) {
        let (mut registry, node) = (after(&farm()), NodeId(1));
        registry.apply(&Command::SetBudget { node, bytes: budget });
        let mut refused = Vec::new();
        for (model, bytes) in sized(&sizes) {
            registry.apply(&Command::WantModel { node, model: model.clone(), source: ModelSource::Demo });
            let reply = registry.apply(&Command::PlaceModel { node, model: model.clone(), bytes });
            prop_assert!(fits(&registry, node));
            if reply != Reply::Done {
                let free_bytes = budget - registry.reserved_bytes(node);
                let (needed_bytes, budget_bytes) = (bytes, budget);
                let no_room = Refusal::NoRoom { node, model, needed_bytes, free_bytes, budget_bytes };
                prop_assert_eq!(reply, Reply::Refused(no_room));
                refused.push(bytes);
            }
        }
        let free = budget - registry.reserved_bytes(node);
        prop_assert!(refused.iter().all(|bytes| *bytes > free), "{refused:?} beside {free}");
    }

    #[test]
    fn a_node_holds_only_what_it_offers_and_reserves_for_what_it_holds(commands in history()) {
        let registry = after(&commands);
        for (node, _) in registry.nodes() {
            for (model, _) in registry.placed_on(node) {
                prop_assert!(registry.wanted_on(node).any(|(name, _)| name == model));
                prop_assert!(registry.is_placed(node, model));
            }
            let sum: u64 = registry.placed_on(node).map(|(_, placement)| placement.bytes).sum();
            prop_assert_eq!(registry.reserved_bytes(node), sum);
        }
    }
}

#[test]
fn sizes_at_the_end_of_numbers_neither_wrap_nor_fit() {
    let mut registry = after(&farm());
    let place = |name: &str, bytes| Command::PlaceModel {
        node: NodeId(1),
        model: ModelName::new(name).unwrap(),
        bytes,
    };
    registry.apply(&Command::SetBudget { node: NodeId(1), bytes: u64::MAX });
    assert_eq!(registry.apply(&place("a", u64::MAX - 1)), Reply::Done);
    assert!(matches!(registry.apply(&place("b", 2)), Reply::Refused(Refusal::NoRoom { free_bytes: 1, .. })));
    assert!(matches!(registry.apply(&place("b", u64::MAX)), Reply::Refused(Refusal::NoRoom { .. })));
    assert_eq!(registry.apply(&place("b", 1)), Reply::Done);
    assert_eq!(registry.reserved_bytes(NodeId(1)), u64::MAX);
}
