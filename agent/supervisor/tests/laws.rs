//! What holds whatever happens, tried on lives nobody would think of.

#[cfg(test)]
mod mac;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use supervisor::{
        At, Command, Effect, ExitStatus, Incarnation, Limits, ModelKey, ModelState, Span, Supervisor, Wanted,
    };

    use super::mac::{Conduct, Mac};

    const BUDGET: u64 = 100;

    fn conduct() -> impl Strategy<Value = Conduct> {
        prop_oneof![
            Just(Conduct::Good),
            Just(Conduct::CannotStart),
            Just(Conduct::NeverConnects),
            Just(Conduct::DiesStarting),
            Just(Conduct::DiesLoading),
            Just(Conduct::LoadFails),
            Just(Conduct::StallsLoading),
            (0_u64..200).prop_map(Conduct::DiesReady),
            Just(Conduct::Hangs),
            Just(Conduct::IgnoresStop),
            (0_u32..4).prop_map(Conduct::WontDie),
        ]
    }

    /// Four models; the largest two do not fit together, and the last fits only alone.
    const SIZES: [u64; 4] = [20, 30, 60, 90];

    /// Some of the models, each at most once; if `unsized_too`, the folders of some are still being prepared.
    fn wish(unsized_too: bool) -> impl Strategy<Value = Vec<(u32, u64)>> {
        let model = (0_usize..4, any::<bool>()).prop_map(move |(model, prepared)| {
            (model as u32, if prepared || !unsized_too { SIZES[model] } else { 0 })
        });
        let wish = proptest::collection::vec(model, 0..4);
        wish.prop_map(|wish| wish.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    fn fits(wish: &[(u32, u64)]) -> bool {
        wish.iter().map(|(_, bytes)| bytes).sum::<u64>() <= BUDGET
    }

    /// Any command about any of the first processes, true or not.
    fn anything() -> impl Strategy<Value = Command> {
        let incarnation = || (0_u64..12).prop_map(Incarnation);
        let size = || prop_oneof![0_u64..120, Just(u64::MAX)];
        let text = || "[a-z \n]{0,6}";
        let wanted = (0_u32..5, size()).prop_map(|(model, bytes)| Wanted { model: ModelKey(model), bytes });
        prop_oneof![
            proptest::collection::vec(wanted, 0..6).prop_map(|models| Command::Want { models }),
            (0_u32..5, text(), any::<bool>()).prop_map(|(model, reason, retry)| {
                Command::Unresolvable { model: ModelKey(model), reason, retry }
            }),
            (incarnation(), any::<u32>())
                .prop_map(|(incarnation, pid)| Command::Started { incarnation, pid }),
            (incarnation(), text())
                .prop_map(|(incarnation, reason)| Command::StartFailed { incarnation, reason }),
            incarnation().prop_map(|incarnation| Command::Hello { incarnation }),
            incarnation().prop_map(|incarnation| Command::Drained { incarnation }),
            (incarnation(), size()).prop_map(|(incarnation, bytes)| Command::Loaded { incarnation, bytes }),
            (incarnation(), text(), any::<bool>()).prop_map(|(incarnation, reason, permanent)| {
                Command::LoadFailed { incarnation, reason, permanent }
            }),
            (incarnation(), prop_oneof![0_u64..30_000_000, Just(u64::MAX)]).prop_map(
                |(incarnation, step)| { Command::Progress { incarnation, expected_step: Span(step) } }
            ),
            (incarnation(), any::<Option<i32>>(), any::<Option<i32>>(), text()).prop_map(
                |(incarnation, code, signal, last_words)| {
                    Command::Exited { incarnation, status: ExitStatus { code, signal }, last_words }
                }
            ),
            Just(Command::Wake),
            Just(Command::Wake),
        ]
    }

    fn history() -> impl Strategy<Value = Vec<(At, Command)>> {
        proptest::collection::vec((0_u64..200_000_000, anything()), 0..60)
            .prop_map(|steps| steps.into_iter().map(|(at, command)| (At(at), command)).collect())
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let span = || prop_oneof![Just(Span(0)), (0_u64..20_000_000).prop_map(Span), Just(Span(u64::MAX))];
        (span(), span(), span(), span(), span(), span(), span(), span(), 0_usize..5, 0_usize..20).prop_map(
            |(
                start_deadline,
                hang_min,
                load_silence,
                drain_max,
                stop_grace,
                kill_again,
                backoff_first,
                backoff_decay,
                models_max,
                reason,
            )| {
                Limits {
                    start_deadline,
                    hang_min,
                    load_silence,
                    drain_max,
                    stop_grace,
                    kill_again,
                    backoff_first,
                    backoff_decay,
                    models_max,
                    reason_bytes_max: reason,
                    ..Limits::default()
                }
            },
        )
    }

    /// What an observer of the effects alone can say about one history.
    #[derive(Default)]
    struct Observer {
        running: BTreeMap<ModelKey, Incarnation>,
        states: BTreeMap<ModelKey, ModelState>,
        draining: BTreeSet<Incarnation>,
        last: u64,
    }

    impl Observer {
        fn see(&mut self, command: &Command, effects: &[Effect]) {
            if let Command::Exited { incarnation, .. } | Command::StartFailed { incarnation, .. } = command {
                self.running.retain(|_, running| running != incarnation);
            }
            // The other answer to `Start`: nothing was spawned, which frees the model.
            if let Command::Unresolvable { model, .. } = command {
                self.running.remove(model);
            }
            for effect in effects {
                match effect {
                    Effect::Start { incarnation, model } => {
                        assert!(incarnation.0 > self.last, "incarnations grow");
                        self.last = incarnation.0;
                        assert_eq!(self.running.insert(*model, *incarnation), None, "one process per model");
                    }
                    Effect::State { model, state } => {
                        let former = self.states.insert(*model, state.clone());
                        assert_ne!(former.as_ref(), Some(state), "states are reported on change only");
                    }
                    Effect::Drain { incarnation } => {
                        assert!(self.draining.insert(*incarnation), "drained once at a time");
                    }
                    Effect::Resume { incarnation } => {
                        assert!(self.draining.remove(incarnation), "only what drains goes on");
                    }
                    Effect::Load { .. } | Effect::Stop { .. } | Effect::Kill { .. } => {}
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_history_breaks_an_invariant_or_starts_a_model_twice(steps in history()) {
            let mut supervisor = Supervisor::new(Limits::default(), BUDGET);
            let mut observer = Observer::default();
            for (at, command) in steps {
                let mut effects = Vec::new();
                supervisor.apply(at, command.clone(), &mut effects);
                prop_assert_eq!(supervisor.violation(), None);
                observer.see(&command, &effects);
            }
        }

        #[test]
        fn no_limits_make_it_panic_or_over_commit(limits in limits(), budget in 0_u64..200, steps in history()) {
            let mut supervisor = Supervisor::new(limits.clone(), budget);
            for (at, command) in steps {
                supervisor.apply(at, command, &mut Vec::new());
                prop_assert_eq!(supervisor.violation(), None);
                prop_assert!(supervisor.models().count() <= 3 * limits.models_max);
            }
        }

        #[test]
        fn the_same_history_gives_the_same_effects(steps in history()) {
            let mut left = (Supervisor::new(Limits::default(), BUDGET), Vec::new());
            let mut right = left.clone();
            for (at, command) in steps {
                left.0.apply(at, command.clone(), &mut left.1);
                right.0.apply(at, command, &mut right.1);
            }
            prop_assert_eq!(left, right);
        }

        #[test]
        fn what_is_explained_is_what_was_reported(steps in history()) {
            let mut supervisor = Supervisor::new(Limits::default(), BUDGET);
            let mut states = BTreeMap::new();
            for (at, command) in steps {
                let mut effects = Vec::new();
                supervisor.apply(at, command, &mut effects);
                for effect in effects {
                    if let Effect::State { model, state } = effect {
                        states.insert(model, state);
                    }
                }
                for (model, state) in &states {
                    let explained = supervisor.explain(*model).map_or(ModelState::Gone, |verdict| verdict.state);
                    prop_assert_eq!(state, &explained);
                }
            }
        }

        #[test]
        fn a_deadline_is_always_in_the_future_and_moves_on_when_it_is_reached(steps in history()) {
            let mut supervisor = Supervisor::new(Limits::default(), BUDGET);
            let mut now = At(0);
            for (at, command) in steps {
                now = now.max(at);
                supervisor.apply(at, command, &mut Vec::new());
                let Some((deadline, _)) = supervisor.next_deadline() else { continue };
                prop_assert!(deadline > now);
                let mut woken = supervisor.clone();
                woken.apply(deadline, Command::Wake, &mut Vec::new());
                prop_assert!(woken.next_deadline().is_none_or(|(next, _)| next > deadline));
            }
        }

        #[test]
        fn waking_early_does_nothing(steps in history()) {
            let mut supervisor = Supervisor::new(Limits::default(), BUDGET);
            for (at, command) in steps {
                supervisor.apply(at, command, &mut Vec::new());
                let (before, mut effects) = (supervisor.next_deadline(), Vec::new());
                supervisor.apply(at, Command::Wake, &mut effects);
                prop_assert_eq!(effects, vec![]);
                prop_assert_eq!(supervisor.next_deadline(), before);
            }
        }

        #[test]
        fn after_any_trouble_every_model_that_fits_becomes_ready(
            conducts in proptest::collection::vec(conduct(), 0..12),
            wishes in proptest::collection::vec((wish(true), 0_u64..120), 0..5),
            last in wish(false).prop_filter("fits together", |wish| fits(wish)),
        ) {
            let mut mac = Mac::new(BUDGET, &conducts);
            for (wish, seconds) in wishes {
                mac.want(&wish);
                mac.pass(Span::from_secs(seconds));
            }
            mac.want(&last);
            // Twelve failures one after another: each at most 200 s up, 80 s to be noticed, 20 s to die, 60 s of delay.
            mac.pass(Span::from_secs(12 * 360));
            for (model, bytes) in &last {
                prop_assert!(*bytes > 0 && mac.ready(*model), "{model} is {:?}", mac.states[&ModelKey(*model)]);
            }
            prop_assert_eq!(mac.alive(), last.len());
        }

        #[test]
        fn a_drained_mac_ends_empty_and_starts_nothing(
            conducts in proptest::collection::vec(conduct(), 0..6),
            wish in wish(true),
            before in 0_u64..100,
        ) {
            let mut mac = Mac::new(BUDGET, &conducts);
            mac.want(&wish);
            mac.pass(Span::from_secs(before));
            mac.tell(Command::Drain);
            let starts = mac.starts().len();
            mac.want(&wish);
            mac.pass(Span::from_secs(60));
            prop_assert!(mac.supervisor.drained());
            prop_assert_eq!((mac.alive(), mac.starts().len()), (0, starts));
            prop_assert!(mac.states.values().all(|state| *state == ModelState::Gone));
        }

        #[test]
        fn what_nobody_wants_is_gone_when_its_time_to_finish_is_over(
            conducts in proptest::collection::vec(conduct(), 0..6),
            wish in wish(true),
            before in 0_u64..100,
        ) {
            let mut mac = Mac::new(BUDGET, &conducts);
            mac.want(&wish);
            mac.pass(Span::from_secs(before));
            mac.want(&[]);
            // Two minutes to finish, ten seconds to end by itself, four kills in vain.
            mac.pass(Span::from_secs(120 + 10 + 4 * 5 + 1));
            prop_assert_eq!(mac.alive(), 0);
            prop_assert!(mac.states.values().all(|state| *state == ModelState::Gone));
        }

        #[test]
        fn a_crash_loop_never_gets_quicker(uptimes in proptest::collection::vec(0_u64..59, 1..12)) {
            let conducts: Vec<_> = uptimes.iter().map(|seconds| Conduct::DiesReady(*seconds)).collect();
            let delays = delays(&conducts);
            prop_assert_eq!(delays.len(), uptimes.len());
            let expected = (0..).map(|level: u32| Span(500_000 << level.min(7)).min(Span::from_secs(60)));
            prop_assert!(delays.iter().copied().eq(expected.take(uptimes.len())), "{delays:?}");
        }

        #[test]
        fn a_delay_is_that_of_the_failures_less_the_healthy_minutes(
            uptimes in proptest::collection::vec(0_u64..400, 1..12),
        ) {
            let conducts: Vec<_> = uptimes.iter().map(|seconds| Conduct::DiesReady(*seconds)).collect();
            let mut level = 0_u64;
            let expected = uptimes.iter().map(|seconds| {
                // Health ends with the last progress frame: one each 5 s from the order to load, which took 3 s.
                let healthy = ((seconds + 2) / 5 * 5).saturating_sub(3);
                level = level.saturating_sub(healthy / 60);
                let delay = Span(500_000 << level).min(Span::from_secs(60));
                level = (level + 1).min(7);
                delay
            });
            let expected: Vec<_> = expected.collect();
            prop_assert_eq!(delays(&conducts), expected);
        }
    }

    /// From each death of a single model to its next start.
    fn delays(conducts: &[Conduct]) -> Vec<Span> {
        let mut mac = Mac::new(BUDGET, conducts);
        mac.want(&[(0, 10)]);
        mac.pass(Span::from_secs(12 * 500));
        let ends = mac
            .log
            .iter()
            .filter(|(_, effect)| matches!(effect, Effect::State { state: ModelState::Waiting { .. }, .. }));
        let starts = mac.starts();
        ends.zip(starts.iter().skip(1)).map(|((end, _), start)| start.since(*end)).collect()
    }
}
