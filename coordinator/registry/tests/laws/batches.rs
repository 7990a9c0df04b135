//! Laws of batches: one run has it, every request is answered once, and what was answered stays.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Batch, BatchChange, BatchId, Command, KeptAnswer, Registry, Reply};

use crate::batch_generator::batches;
use crate::generator::{config, founding, risen};

fn history() -> impl Strategy<Value = Vec<Command>> {
    vec(batches().boxed(), 0..160)
}

/// The pieces of a batch, wherever they are.
fn pieces(registry: &Registry, batch: &Batch) -> Vec<KeptAnswer> {
    let Some(ended) = &batch.ended else { return [batch.output.clone(), batch.errors.clone()].concat() };
    let files = [&ended.output, &ended.errors].into_iter().flatten();
    files.filter_map(|file| registry.file(file)).flat_map(|file| file.pieces.clone()).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_request_that_is_answered_stays_so_and_none_is_answered_twice(commands in history()) {
        let mut registry = Registry::default();
        registry.apply(&founding());
        registry.apply(&risen());
        let mut told: BTreeMap<BatchId, u64> = BTreeMap::new();
        for command in &commands {
            let reply = registry.apply(command);
            told.retain(|id, _| registry.batch(id).is_some());
            if let (Command::ChangeBatch { batch, change }, Reply::Done) = (command, &reply) {
                let known = told.entry(batch.clone()).or_default();
                if let BatchChange::Keep { after, completed, failed, .. } = change {
                    prop_assert_eq!(*known, *after, "a step begins where the last one ended");
                    *known += completed + failed;
                }
            }
            for (id, lines) in &told {
                let batch = registry.batch(id).expect("it was retained");
                prop_assert_eq!(batch.progress.lines(), *lines);
                prop_assert!(batch.opened.map_or(0, |opened| opened.lines) >= *lines);
            }
        }
    }

    #[test]
    fn what_a_batch_has_answered_becomes_its_files_piece_by_piece(commands in history()) {
        let mut registry = Registry::default();
        registry.apply(&founding());
        registry.apply(&risen());
        for command in &commands {
            let Command::ChangeBatch { batch, change: BatchChange::End { .. } } = command else {
                registry.apply(command);
                continue;
            };
            let before = registry.batch(batch).map(|known| pieces(&registry, known));
            if registry.apply(command) == Reply::Done {
                let after = registry.batch(batch).map(|known| pieces(&registry, known));
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn the_file_that_a_batch_reads_is_there_until_it_ends(commands in history()) {
        let mut registry = Registry::default();
        registry.apply(&founding());
        registry.apply(&risen());
        for command in &commands {
            registry.apply(command);
            for (_, batch) in registry.batches().filter(|(_, batch)| batch.ended.is_none()) {
                prop_assert!(registry.file(&batch.input).is_some());
            }
        }
    }

    #[test]
    fn only_the_run_that_has_a_batch_takes_it_farther(commands in history()) {
        let mut registry = Registry::default();
        registry.apply(&founding());
        registry.apply(&risen());
        for command in &commands {
            let has = |registry: &Registry, batch| registry.batch(batch).map(|batch: &Batch| batch.run);
            let Command::ChangeBatch { batch, change } = command else {
                registry.apply(command);
                continue;
            };
            let before = has(&registry, batch);
            if registry.apply(command) != Reply::Done {
                continue;
            }
            match change {
                BatchChange::Take { from, .. } => prop_assert_eq!(before, Some(*from)),
                BatchChange::Open { run, .. }
                | BatchChange::Keep { run, .. }
                | BatchChange::End { run, .. } => prop_assert_eq!(before, Some(*run)),
                BatchChange::Begin { .. } | BatchChange::Cancel { .. } => {}
            }
        }
    }
}
