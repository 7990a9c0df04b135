//! What people read: reasons, states, verdicts; and the small numbers behind them.

#[cfg(test)]
mod tests {
    use supervisor::{
        At, Command, Effect, ExitStatus, Incarnation, KillReason, Limits, ModelKey, ModelState, Span,
        Supervisor, WaitingFor, Wanted, Why,
    };

    const MODEL: ModelKey = ModelKey(7);
    const FIRST: Incarnation = Incarnation(1);

    fn wanted(bytes: u64) -> Command {
        Command::Want { models: vec![Wanted { model: MODEL, bytes }] }
    }

    /// The last state reported after these commands, a second apart.
    fn state_after(limits: Limits, commands: &[Command]) -> ModelState {
        let mut supervisor = Supervisor::new(limits, 100);
        let mut effects = Vec::new();
        for (second, command) in (0..).zip(commands) {
            supervisor.apply(At(second * 1_000_000), command.clone(), &mut effects);
        }
        let mut states = effects.into_iter().filter_map(|effect| match effect {
            Effect::State { state, .. } => Some(state),
            Effect::Start { .. }
            | Effect::Load { .. }
            | Effect::Drain { .. }
            | Effect::Resume { .. }
            | Effect::Stop { .. }
            | Effect::Kill { .. } => None,
        });
        states.next_back().expect("a state")
    }

    fn reason_of_exit(status: ExitStatus, last_words: &str, limits: Limits) -> String {
        let exited = Command::Exited { incarnation: FIRST, status, last_words: last_words.to_owned() };
        reason_in(&state_after(limits, &[wanted(40), exited])).to_owned()
    }

    fn reason_in(state: &ModelState) -> &str {
        let (ModelState::Failed { reason, .. }
        | ModelState::Waiting { for_: WaitingFor::Backoff { reason, .. } }) = state
        else {
            panic!("{state:?} has no reason");
        };
        reason
    }

    #[test]
    fn a_reason_says_how_the_process_ended_and_quotes_its_last_words() {
        let status = |code, signal| ExitStatus { code, signal };
        for (status, last_words, reason) in [
            (status(Some(70), None), "", "the runtime exited with code 70 while starting"),
            (status(None, Some(9)), " \n", "the runtime was killed by signal 9 while starting"),
            (status(Some(1), Some(6)), "abort", "the runtime was killed by signal 6 while starting: abort"),
            (status(None, None), "eh", "the runtime ended, nobody knows how, while starting: eh"),
        ] {
            assert_eq!(reason_of_exit(status, last_words, Limits::default()), reason);
        }
    }

    #[test]
    fn last_words_cannot_garble_a_terminal_or_fill_a_report() {
        let status = ExitStatus { code: Some(1), signal: None };
        let reason = reason_of_exit(status, "one\ntwo\u{1b}[2J\u{7}", Limits::default());
        assert!(reason.ends_with(": one two [2J "), "{reason:?}");
        for bytes_max in [0, 1, 46, 49, 50, 51, 1024] {
            let limits = Limits { reason_bytes_max: bytes_max, ..Limits::default() };
            let reason = reason_of_exit(status, &"ä€😀".repeat(1000), limits);
            assert!(reason.len() <= bytes_max && reason.len() + 4 > bytes_max, "{bytes_max}: {reason:?}");
        }
    }

    #[test]
    fn every_reason_from_outside_is_cut() {
        let limits = Limits { reason_bytes_max: 30, ..Limits::default() };
        let reason = "x".repeat(100);
        let hello = Command::Hello { incarnation: FIRST };
        for commands in [
            vec![wanted(40), Command::StartFailed { incarnation: FIRST, reason: reason.clone() }],
            vec![wanted(40), Command::Unresolvable { model: MODEL, reason: reason.clone(), retry: true }],
            vec![wanted(40), Command::Unresolvable { model: MODEL, reason: reason.clone(), retry: false }],
            vec![Command::Unresolvable { model: MODEL, reason: reason.clone(), retry: true }],
            vec![
                wanted(40),
                hello.clone(),
                Command::LoadFailed { incarnation: FIRST, reason: reason.clone(), permanent: true },
            ],
        ] {
            assert_eq!(reason_in(&state_after(limits.clone(), &commands)).len(), 30);
        }
    }

    #[test]
    fn only_what_should_not_happen_is_an_alarm() {
        for (reason, alarm) in [
            (KillReason::NoHello, false),
            (KillReason::LoadStalled, false),
            (KillReason::Hung, false),
            (KillReason::StopIgnored, false),
            (KillReason::WontDie { kills: 2 }, true),
            (KillReason::Stray, true),
        ] {
            assert_eq!(reason.is_alarm(), alarm, "{reason}");
        }
    }

    #[test]
    fn a_model_past_the_bound_is_reported_and_not_forgotten() {
        let limits = Limits { models_max: 2, ..Limits::default() };
        let mut supervisor = Supervisor::new(limits, 100);
        let models = (0..4).map(|key| Wanted { model: ModelKey(key), bytes: 10 }).collect();
        let mut effects = Vec::new();
        supervisor.apply(At(0), Command::Want { models }, &mut effects);
        let failed = |model| Effect::State {
            model: ModelKey(model),
            state: ModelState::Failed {
                reason: "more than 2 models are wanted on this Mac".to_owned(),
                permanent: true,
            },
        };
        assert_eq!(effects[..2], [failed(2), failed(3)]);
        assert_eq!(supervisor.models().collect::<Vec<_>>(), [ModelKey(0), ModelKey(1)]);
    }

    #[test]
    fn a_model_waits_while_as_many_processes_are_alive_as_may_be() {
        let limits = Limits { models_max: 1, ..Limits::default() };
        let other = |model| Command::Want { models: vec![Wanted { model: ModelKey(model), bytes: 10 }] };
        let state = state_after(limits, &[other(1), other(2)]);
        assert_eq!(state, ModelState::Waiting { for_: WaitingFor::Processes { limit: 1 } });
        assert_eq!(state.to_string(), "waiting for one of 1 processes to end");
    }

    #[test]
    fn of_two_wishes_for_one_model_the_last_counts() {
        let models = vec![Wanted { model: MODEL, bytes: 10 }, Wanted { model: MODEL, bytes: 101 }];
        let state = state_after(Limits::default(), &[Command::Want { models }]);
        assert_eq!(state, ModelState::Waiting { for_: WaitingFor::Memory { needed: 101, free: 100 } });
    }

    #[test]
    fn silence_is_judged_by_the_step_within_bounds() {
        let limits = Limits::default();
        for (expected_step, after) in [
            (Span(0), Span::from_secs(15)),
            (Span::from_millis(3750), Span::from_secs(15)),
            (Span::from_secs(10), Span::from_secs(40)),
            (Span::from_secs(150), Span::from_secs(600)),
            (Span(u64::MAX), Span::from_secs(600)),
        ] {
            assert_eq!(limits.hang_after(expected_step), after, "{expected_step}");
        }
    }

    #[test]
    fn time_does_not_overflow() {
        assert_eq!(At(u64::MAX).after(Span(1)), At(u64::MAX));
        assert_eq!(At(1).since(At(2)), Span(0));
        assert_eq!(Span::from_secs(u64::MAX), Span(u64::MAX));
        assert_eq!(Span(u64::MAX).times(2), Span(u64::MAX));
        assert_eq!(Span(1_950_000).to_string(), "1.9 s");
        let mut supervisor = Supervisor::new(Limits::default(), u64::MAX);
        supervisor.apply(At(u64::MAX), wanted(u64::MAX), &mut Vec::new());
        supervisor.apply(At(u64::MAX), Command::Hello { incarnation: FIRST }, &mut Vec::new());
        assert_eq!(supervisor.violation(), None);
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let mut supervisor = Supervisor::new(Limits::default(), 100);
        supervisor.apply(At(9_000_000), Command::Wake, &mut Vec::new());
        supervisor.apply(At(1_000_000), wanted(40), &mut Vec::new());
        assert_eq!(supervisor.next_deadline(), Some((At(69_000_000), Why::StartDeadline(MODEL))));
    }

    #[test]
    fn a_verdict_has_the_numbers_a_report_needs() {
        let mut supervisor = Supervisor::new(Limits::default(), 100);
        let mut second = 0;
        let mut tell = |command| {
            second += 1;
            supervisor.apply(At(second * 1_000_000), command, &mut Vec::new());
        };
        tell(wanted(40));
        tell(Command::StartFailed { incarnation: FIRST, reason: "no memory".to_owned() });
        tell(Command::Wake);
        tell(Command::Started { incarnation: Incarnation(2), pid: 77 });
        let verdict = supervisor.explain(MODEL).expect("known");
        assert!(verdict.wanted);
        assert_eq!((verdict.model, verdict.state.clone()), (MODEL, ModelState::Starting));
        assert_eq!((verdict.incarnation, verdict.pid), (Some(Incarnation(2)), Some(77)));
        assert_eq!((verdict.reserved_bytes, verdict.needed_bytes, verdict.starts), (40, 40, 2));
        assert_eq!(verdict.next, Some((Span::from_secs(59), Why::StartDeadline(MODEL))));
        assert_eq!(
            verdict.to_string(),
            "wanted, starting; process 2 (pid 77) holds 40 bytes; last failure: the runtime could not be started: \
             no memory; in 59.0 s: killed unless it connects"
        );
    }
}
