//! Laws: what holds after any sequence of commands, sensible or wild.
//!
//! Owns properties over random histories; `world` plays them. A history that breaks a law is shrunk and printed; it then
//! belongs into a scenario.

#[cfg(test)]
mod act;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod score;
#[cfg(test)]
mod world;

#[cfg(test)]
mod laws {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use scheduler::{At, Attempt, Command, Effect, Limits, ModelId, Refusal, Span, Standing};

    use crate::act::{Act, Held, acts, wild_commands};
    use crate::mirror::Lanes;
    use crate::world::World;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_invariant_holds_after_every_command(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
        }

        #[test]
        fn wild_commands_are_taken_in_without_a_panic_or_a_broken_invariant(commands in wild_commands()) {
            let mut world = World::default();
            for (at, command) in commands {
                world.apply(at, command)?;
            }
        }

        #[test]
        fn the_same_commands_have_the_same_effects(acts in acts()) {
            let mut first = World::default();
            for act in acts {
                first.play(act)?;
            }
            let mut second = World::default();
            for (at, command, effects) in &first.history {
                prop_assert_eq!(&second.apply(*at, command.clone())?, effects);
            }
            prop_assert_eq!(second.scheduler.load(), first.scheduler.load());
            prop_assert_eq!(second.scheduler.next_deadline(), first.scheduler.next_deadline());
        }

        /// Small work overtakes large work, and one that holds back for a better node is overtaken, both by a bounded time.
        #[test]
        fn nobody_is_overtaken_by_whoever_came_much_later(acts in acts()) {
            let limits = Limits::default();
            let patience = limits.handicap_max + limits.hold_max;
            let mut world = World::default();
            for act in acts {
                for effect in world.play(act)? {
                    let Effect::Dispatch { request, attempt: Attempt(1), .. } = effect else { continue };
                    let started = world.mirror.submission(request).expect("submitted").clone();
                    let waiting = world.mirror.newcomers_waiting().filter_map(|other| world.mirror.submission(other));
                    for other in waiting {
                        let alike = (other.model, other.tenant, other.class) == (started.model, started.tenant, started.class);
                        prop_assert!(!alike || started.arrived <= other.arrived + patience, "{:?} overtook {:?}", request, other.request);
                    }
                }
            }
        }

        #[test]
        fn a_dispatch_goes_to_a_node_that_may_have_it(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                for effect in world.play(act)? {
                    let Effect::Dispatch { request, node, .. } = effect else { continue };
                    let submission = world.mirror.submission(request).expect("submitted");
                    prop_assert!(world.mirror.holds(node, submission.model), "{:?} does not hold the model", node);
                    let left = world.mirror.drains(node) && world.mirror.another_serves(node, submission.model);
                    prop_assert!(!left, "{:?} drains, and another serves", node);
                    prop_assert!(!world.mirror.settles(world.now), "not all is told yet");
                    prop_assert!(submission.deadline > world.now, "its deadline has passed");
                }
            }
        }

        #[test]
        fn no_node_gets_a_request_back_that_it_failed_while_another_could_serve_it(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                for effect in world.play(act)? {
                    let Effect::Dispatch { request, node, .. } = effect else { continue };
                    if world.mirror.failed(request, node) {
                        let others = world.mirror.could_serve(request);
                        prop_assert_eq!(others, vec![], "{:?} went back to {:?}", request, node);
                    }
                }
            }
        }

        #[test]
        fn three_failures_before_the_first_token_and_four_after_it_are_the_most(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                for effect in world.play(act)? {
                    match effect {
                        Effect::Dispatch { request, .. } => {
                            let (before, after) = world.mirror.failures(request);
                            prop_assert!(before <= 2 && after <= 3);
                        }
                        Effect::Refuse { request, refusal: Refusal::NodeLost } => {
                            // After fewer, when runtimes died of it or beside it; after one, when the first of them told it "busy".
                            let (before, after) = world.mirror.failures(request);
                            prop_assert!((1..=6).contains(&(before + after)) && before <= 3 && after <= 4);
                        }
                        Effect::Queued { .. }
                        | Effect::Refuse { .. }
                        | Effect::Abort { .. }
                        | Effect::Reserve { .. }
                        | Effect::Evict { .. }
                        | Effect::Probe { .. }
                        | Effect::Record(_) => {}
                    }
                }
            }
        }

        #[test]
        fn nothing_outlives_its_deadline_when_the_scheduler_is_woken_as_it_asks(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
            let mut wakes = 0;
            // Breakers and the places of models are looked at for ever, as long as there are nodes.
            while let Some((at, why)) = world.scheduler.next_deadline() {
                let (submitted, ended) = world.witness.submitted_and_ended();
                if submitted == ended {
                    break;
                }
                prop_assert!(at > world.now, "a wake-up for the past");
                world.apply(at, Command::Wake)?;
                wakes += 1;
                prop_assert!(wakes < 5_000, "the scheduler never comes to rest, now for {:?}", why);
            }
            let (submitted, ended) = world.witness.submitted_and_ended();
            prop_assert_eq!(submitted, ended);
            prop_assert!(world.scheduler.load().models.is_empty());
        }

        /// Each step is checked; here every history comes to its end, so that what is left over cannot hide behind who is alive.
        #[test]
        fn nothing_is_reserved_for_anybody_when_all_have_hung_up(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
            for (request, _) in world.mirror.outstanding() {
                let now = world.now;
                world.apply(now, Command::Cancel { request })?;
            }
            let (submitted, ended) = world.witness.submitted_and_ended();
            prop_assert_eq!(submitted, ended);
            let load = world.scheduler.load();
            prop_assert!(load.models.is_empty() && load.nodes.values().all(|running| *running == 0));
            prop_assert_eq!(scheduler::invariants::rest(&world.scheduler), Ok(()));
        }

        #[test]
        fn resume_repeats_exactly_what_is_outstanding(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
            let mut effects = Vec::new();
            world.scheduler.resume(&mut effects);
            let mut said = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Dispatch { request, attempt, node, .. } => said.push((request, Some((attempt, node)))),
                    Effect::Queued { request, position, eta, loading } => {
                        let known = world.scheduler.position(request).expect("it waits");
                        prop_assert_eq!((position, eta, loading), (known.ahead, known.eta, known.loading));
                        said.push((request, None));
                    }
                    Effect::Refuse { .. } | Effect::Abort { .. } => prop_assert!(false, "nothing ends by resuming"),
                    Effect::Reserve { .. } | Effect::Evict { .. } | Effect::Probe { .. } | Effect::Record(_) => {}
                }
            }
            said.sort();
            prop_assert_eq!(said, world.mirror.outstanding());
        }

        /// What waits may have been refused by the new leader only if it must not run at all.
        #[test]
        fn a_new_leader_is_whole_again_from_what_it_is_told(acts in acts(), keys in vec(any::<u8>(), 40), settles: bool, future in acts()) {
            let mut old = World::default();
            for act in acts {
                old.play(act)?;
            }
            let mut new = old.successor(&keys, settles)?;
            prop_assert_eq!(new.mirror.outstanding(), old.mirror.outstanding());
            prop_assert_eq!(counts(&new), counts(&old));
            new.hear_nodes_of(&old)?;
            for (request, run) in old.mirror.outstanding() {
                if run.is_some() {
                    prop_assert!(new.mirror.outstanding().contains(&(request, run)), "{:?} is not where it ran", request);
                }
            }
            let mut told_again = old.mirror.adoptions();
            told_again.retain(|adoption| new.mirror.is_alive(adoption));
            for adoption in told_again {
                let now = new.now;
                prop_assert_eq!(new.apply(now, adoption)?, vec![]);
            }
            // Each checks its own laws from here on.
            for act in future {
                old.play(act.clone())?;
                new.play(act)?;
            }
        }

        #[test]
        fn every_live_request_can_be_explained(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
            for (request, run) in world.mirror.outstanding() {
                let verdict = world.scheduler.explain(request).expect("a verdict");
                prop_assert_eq!(verdict.request, request);
                match (verdict.standing, run) {
                    (Standing::Waiting { ahead, eta }, None) => {
                        let position = world.scheduler.position(request).expect("it waits");
                        prop_assert_eq!((ahead, eta), (position.ahead, position.eta));

                    }
                    (Standing::Dispatched { attempt, node }, Some(run)) => {
                        prop_assert_eq!((attempt, node), run);
                        let best = verdict.candidates.first().expect("the chosen node");
                        prop_assert_eq!((best.node, best.gate), (node, None));
                    }
                    (Standing::Running { attempt, node }, Some(run)) => {
                        prop_assert_eq!(((attempt, node), verdict.taken_over), (run, true));
                    }
                    (standing, run) => prop_assert!(false, "{:?} is told as {:?}", run, standing),
                }
            }
        }

        #[test]
        fn a_clock_that_goes_back_counts_as_one_that_stands_still(acts in acts(), back in 1_u64..5_000_000) {
            let mut straight = World::default();
            let mut crooked = World::default();
            for act in acts {
                straight.play(act)?;
            }
            for (index, (at, command, effects)) in straight.history.iter().enumerate() {
                let repeated = index > 0 && straight.history.get(index - 1).is_some_and(|(before, ..)| before == at);
                let told = if repeated { At(at.0.saturating_sub(back)) } else { *at };
                prop_assert_eq!(&crooked.apply(told, command.clone())?, effects);
            }
        }

        #[test]
        fn a_report_that_repeats_itself_changes_nothing(acts in acts()) {
            let mut world = World::default();
            for act in acts {
                world.play(act)?;
            }
            // What has failed a request may be tried again after a report; the rest must stay as it is.
            let touched = world.mirror.outstanding().iter().any(|(request, _)| world.mirror.has_been_let_down(*request));
            prop_assume!(!touched);
            for act in world.mirror.reports().map(|(node, report)| Command::NodeReported { node, report }).collect::<Vec<_>>() {
                let now = world.now;
                let effects = world.apply(now, act)?;
                // Time alone may have made somebody late, and nobody had looked.
                prop_assume!(!effects.iter().any(|effect| matches!(effect, Effect::Refuse { refusal: Refusal::DeadlineUnreachable { .. }, .. })));
                // The planner may look again at which model is where.
                let of_requests = effects.iter().filter(|effect| !matches!(effect, Effect::Reserve { .. } | Effect::Evict { .. }));
                prop_assert_eq!(of_requests.collect::<Vec<_>>(), Vec::<&Effect>::new());
            }
        }
    }

    /// By lane what runs, by model what waits.
    fn counts(world: &World) -> (Lanes, BTreeMap<ModelId, (usize, usize)>) {
        let models = world.scheduler.load().models.into_iter();
        (world.mirror.lanes(), models.map(|(model, load)| (model, (load.waiting, load.running))).collect())
    }

    #[test]
    fn a_history_reaches_every_kind_of_effect() {
        let mut world = World::default();
        let mut effects = Vec::new();
        let late = Act::Submit {
            model: 0,
            tenant: 0,
            batch: false,
            prompt: 100_000,
            due: Span::from_s(1),
            late_by: Span::ZERO,
        };
        let submit = Act::Submit {
            model: 0,
            tenant: 0,
            batch: false,
            prompt: 100,
            due: Span::from_s(60),
            late_by: Span::ZERO,
        };
        let story = [
            Act::Report { node: 0, held: [Held::Slots(1), Held::No, Held::No], life: 0 },
            submit.clone(),
            submit.clone(),
            late,
            Act::Begin { pick: 0 },
            Act::Wait { span: Span::from_s(120) },
            submit,
            Act::Lose { node: 0 },
        ];
        for act in story {
            effects.extend(world.play(act).expect("lawful"));
        }
        let kind = |effect: &Effect| match effect {
            Effect::Dispatch { .. } => 0,
            Effect::Queued { .. } => 1,
            Effect::Refuse { .. } => 2,
            Effect::Abort { .. } => 3,
            Effect::Reserve { .. } | Effect::Evict { .. } | Effect::Probe { .. } | Effect::Record(_) => 4,
        };
        let mut kinds: Vec<_> = effects.iter().map(kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, [0, 1, 2, 3, 4]);
    }
}
