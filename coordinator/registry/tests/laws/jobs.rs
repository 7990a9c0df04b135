//! Laws of jobs: one run has it, one answer ends it, and only time takes the answer away.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, Ended, Job, JobId, Registry, Reply, limits};

use crate::generator::{config, founding, said};
use crate::job_generator::jobs;

fn history() -> impl Strategy<Value = Vec<Command>> {
    // Side by side they are too large for a stack.
    let command = prop_oneof![5 => jobs().boxed(), 1 => said().boxed()].boxed();
    vec(command, 0..120)
}

/// Shows each command with the job before and after it.
fn watch(
    commands: &[Command],
    mut look: impl FnMut(&Command, &Reply, Option<&Job>, Option<&Job>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut registry = Registry::default();
    registry.apply(&founding());
    for command in commands {
        let before: BTreeMap<JobId, Job> = registry.jobs().map(|(id, job)| (id, job.clone())).collect();
        let reply = registry.apply(command);
        let now: Vec<JobId> = registry.jobs().map(|(id, _)| id).collect();
        for id in before.keys().chain(&now) {
            look(command, &reply, before.get(id), registry.job(*id))?;
        }
    }
    Ok(())
}

/// The moment that the command carries.
fn moment(command: &Command) -> Option<u64> {
    if let Command::BeginJob { at_unix_ms, .. } | Command::ForgetJobs { at_unix_ms } = said_plainly(command) {
        return Some(*at_unix_ms);
    }
    None
}

/// Without the administrator who said it.
fn said_plainly(command: &Command) -> &Command {
    if let Command::Audited { command, .. } = command { command } else { command }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_answer_stays_what_it_is_until_its_day_is_over(commands in history()) {
        watch(&commands, |command, _, before, after| {
            let Some(Job { ended: Some(Ended { at_unix_ms, .. }), until_unix_ms, .. }) = before else { return Ok(()) };
            prop_assert_eq!(*until_unix_ms, at_unix_ms + limits::JOB_KEPT_MS);
            let over = moment(command).is_some_and(|now| now >= *until_unix_ms);
            prop_assert!(before == after || over, "{:?}", command);
            Ok(())
        })?;
    }

    #[test]
    fn only_the_run_that_has_a_job_ends_or_drops_it(commands in history()) {
        watch(&commands, |command, reply, before, after| {
            let (Command::EndJob { run, .. } | Command::DropJob { run, .. }) = said_plainly(command) else {
                return Ok(());
            };
            if *reply != Reply::Done {
                return Ok(());
            }
            prop_assert!(before == after || before.is_some_and(|job| job.run == *run && job.ended.is_none()));
            Ok(())
        })?;
    }

    #[test]
    fn each_takeover_is_one_more_attempt_from_the_run_it_names(commands in history()) {
        watch(&commands, |command, reply, before, after| {
            let (Some(before), Some(after)) = (before, after) else { return Ok(()) };
            let grew = after.attempt != before.attempt && after.attempt != 1;
            let Command::TakeJob { from, run, .. } = said_plainly(command) else {
                prop_assert!(!grew, "{:?}", command);
                return Ok(());
            };
            if *reply == Reply::Done && before != after {
                prop_assert_eq!((before.run, after.run, after.attempt), (*from, *run, before.attempt + 1));
                prop_assert_eq!((before.request, before.tenant), (after.request, after.tenant));
            } else {
                prop_assert_eq!(before, after);
            }
            Ok(())
        })?;
    }

    #[test]
    fn of_two_that_take_over_from_one_run_one_does(commands in history(), first in 0_usize..9) {
        let taken = commands.iter().cycle().skip(first).take(commands.len());
        let mut registry = Registry::default();
        registry.apply(&founding());
        for command in taken {
            let Command::TakeJob { job, from, run, at_unix_ms } = command else {
                registry.apply(command);
                continue;
            };
            if registry.apply(command) == Reply::Done && from != run {
                let other = registry::JobRun { number: 99, ..*run };
                let late = Command::TakeJob { job: *job, from: *from, run: other, at_unix_ms: *at_unix_ms };
                prop_assert!(matches!(registry.apply(&late), Reply::Refused(_)));
            }
        }
    }
}
