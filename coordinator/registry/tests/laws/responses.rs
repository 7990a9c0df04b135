//! Laws of responses: only the run that has one shows of it, a cancelled one keeps what was shown, and what is needed to go on stays.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, Job, JobId, Registry, Reply, ResponseChange};

use crate::generator::{config, founding, risen};
use crate::response_generator::responses;

fn watch(
    commands: &[Command],
    mut look: impl FnMut(&Command, &Job, Option<&Job>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut registry = Registry::default();
    registry.apply(&founding());
    registry.apply(&risen());
    for command in commands {
        let before: BTreeMap<JobId, Job> = registry.jobs().map(|(id, job)| (id, job.clone())).collect();
        let reply = registry.apply(command);
        for (id, job) in &before {
            let changed = registry.job(*id) != Some(job);
            prop_assert!(!changed || reply == Reply::Done, "{:?}", command);
            look(command, job, registry.job(*id))?;
        }
        let pieces: Vec<_> = registry.pieces().collect();
        for deferred in registry.jobs().filter_map(|(_, job)| job.deferred.as_ref()) {
            let needed = std::iter::once(&deferred.question).chain(&deferred.progress);
            prop_assert!(
                needed.into_iter().all(|kept| pieces.contains(&kept)),
                "a piece that nobody names is removed"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn only_the_run_that_has_a_response_shows_of_it(commands in vec(responses(), 0..80)) {
        watch(&commands, |command, before, after| {
            let shown = |job: &Job| job.deferred.as_ref().and_then(|deferred| deferred.progress.clone());
            let Some(after) = after.filter(|after| after.ended.is_none() && after.attempt > 0) else { return Ok(()) };
            if after.attempt < before.attempt || after.request != before.request || shown(after) == shown(before) {
                return Ok(());
            }
            let ours = matches!(command, Command::ChangeResponse { change: ResponseChange::Keep { run, .. }, .. } if *run == before.run);
            let anew = matches!(command, Command::ChangeResponse { change: ResponseChange::Begin { .. }, .. });
            prop_assert!(ours || anew, "{:?}", command);
            Ok(())
        })?;
    }

    #[test]
    fn a_response_is_cancelled_with_what_was_shown_or_not_at_all(commands in vec(responses(), 0..80)) {
        watch(&commands, |command, before, after| {
            let Command::ChangeResponse { change: ResponseChange::Cancel { progress, .. }, .. } = command else { return Ok(()) };
            if after == Some(before) {
                return Ok(());
            }
            let shown = before.deferred.as_ref().map(|deferred| deferred.progress.as_ref().map(|kept| kept.digest));
            prop_assert_eq!(shown, Some(*progress));
            Ok(())
        })?;
    }

    #[test]
    fn one_that_has_ended_changes_no_more_until_it_is_forgotten_or_begun_anew(commands in vec(responses(), 0..80)) {
        watch(&commands, |command, before, after| {
            prop_assert!(before.ended.is_none() || before.deferred.is_none());
            let told = |change: &ResponseChange| match change {
                ResponseChange::Drop | ResponseChange::Begin { .. } | ResponseChange::Store { .. } => true,
                ResponseChange::Keep { .. } | ResponseChange::Cancel { .. } => false,
            };
            let may = matches!(command, Command::ChangeResponse { change, .. } if told(change));
            prop_assert!(before.ended.is_none() || after == Some(before) || may, "{:?}", command);
            Ok(())
        })?;
    }
}
