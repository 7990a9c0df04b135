//! Laws of breaker moves: an older generation never wins, in whatever order moves arrive.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{BreakerState, Command, ModelName, NodeId, Refusal, Registry, Reply};

use crate::generator::{after, breaker_moves, command, config, farm};

type Key = (NodeId, Option<ModelName>);

fn generations(registry: &Registry) -> BTreeMap<Key, u32> {
    let known = registry.breakers();
    known.map(|(node, model, breaker)| ((node, model.cloned()), breaker.generation)).collect()
}

fn opening(model: Option<ModelName>, generation: u32) -> Command {
    Command::MoveBreaker {
        node: NodeId(1),
        model,
        state: BreakerState::Open,
        generation,
        opens: generation,
        until_unix_ms: None,
        why: format!("move {generation}"),
        at_unix_ms: 1,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_generation_grows_with_each_accepted_move_and_falls_with_nothing(
        commands in vec(prop_oneof![2 => breaker_moves(), 1 => command()], 0..120),
    ) {
        let mut registry = after(&farm());
        for command in &commands {
            let before = generations(&registry);
            let reply = registry.apply(command);
            let now = generations(&registry);
            if matches!(command, Command::RevokeNode { .. }) {
                continue;
            }
            for (key, generation) in &before {
                prop_assert!(now.get(key) >= Some(generation), "{key:?} fell with {command:?}");
            }
            if let (Command::MoveBreaker { node, model, generation, .. }, Reply::Done) = (command, &reply) {
                let key = (*node, model.clone());
                prop_assert!(before.get(&key).copied().unwrap_or(0) < *generation);
                prop_assert_eq!(now.get(&key), Some(generation));
            }
        }
    }

    #[test]
    fn in_whatever_order_moves_arrive_the_latest_generation_stands(
        of_a_model in any::<bool>(),
        arrivals in Just((1_u32..9).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let model = of_a_model.then(|| ModelName::new("a").unwrap());
        let mut registry = after(&farm());
        let mut latest = 0;
        for generation in arrivals {
            let reply = registry.apply(&opening(model.clone(), generation));
            if generation > latest {
                prop_assert_eq!(reply, Reply::Done);
                latest = generation;
            } else {
                let (node, model, known) = (NodeId(1), model.clone(), latest);
                let stale = Refusal::StaleGeneration { node, model, generation, known };
                prop_assert_eq!(reply, Reply::Refused(stale));
            }
        }
        let standing: Vec<_> = registry.breakers().collect();
        prop_assert_eq!(standing.len(), 1);
        let (node, on, breaker) = standing[0];
        prop_assert_eq!((node, on, breaker.generation), (NodeId(1), model.as_ref(), 8));
        prop_assert_eq!(breaker.why.as_str(), "move 8");
    }
}
