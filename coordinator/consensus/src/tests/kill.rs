//! A process that proposes without pause is killed with SIGKILL, twenty times, on one folder. Every answer it printed
//! must be in the registry that the next process finds.
//!
//! The test starts itself again as the child; `CHILD_FOLDER` tells the child that it is one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::commands;
use crate::{Consensus, Options, Start};

const CHILD_FOLDER: &str = "CONSENSUS_KILL_TEST_FOLDER";
const ROUNDS: u64 = 20;
const WRITERS: u64 = 8;

#[test]
fn every_answer_that_a_killed_process_printed_is_there_when_the_next_one_opens() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("data");
    let mut answered: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::kill::child_proposes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_FOLDER, &folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different place in its life each time; counted in answers, so that a slow machine only takes longer.
        let mut before_kill = 1 + (round * 37) % 150;
        let mut note = |line: String| {
            // The full stop tells a whole line from one that the kill has cut.
            let line = line.strip_prefix("answered ").and_then(|line| line.strip_suffix(" ."));
            let Some((register, value)) = line.and_then(|line| line.split_once(' ')) else { return false };
            answered.insert(register.parse().unwrap(), value.parse().unwrap());
            true
        };
        while before_kill > 0 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            before_kill -= u64::from(note(line));
        }
        child.kill().unwrap();
        // What was printed before the kill counts, also when it is read after.
        for line in lines.map_while(Result::ok) {
            note(line);
        }
        child.wait().unwrap();
        check(&folder, &answered, round);
    }
    assert!(answered.values().sum::<u64>() > ROUNDS, "hardly anything was proposed");
}

/// Opens the folder, as the next process would, and looks for every answer.
fn check(folder: &std::path::Path, answered: &BTreeMap<u64, u64>, round: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let replica = Consensus::open(folder, Options::default(), Start::Found).await.unwrap();
        let registry = replica.local();
        for (register, value) in answered {
            let found = commands::get(&registry, *register);
            // A writer has one proposal under way: it may have taken effect without an answer.
            let fine = found == Some(*value) || found == Some(value + 1);
            assert!(fine, "round {round}: register {register} holds {found:?}, {value} was answered");
        }
        replica.shutdown().await.unwrap();
    });
}

#[test]
#[ignore = "the child of the test above"]
fn child_proposes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // Snapshots and purges are under way when the kill comes, too.
        let options = Options { snapshot_every: 50, ..Options::default() };
        let replica = Consensus::open(folder.as_ref(), options, Start::Found).await.unwrap();
        for command in commands::founding() {
            replica.propose(command).await.unwrap();
        }
        let writers = (0..WRITERS).map(|register| tokio::spawn(propose_for_ever(replica.clone(), register)));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

async fn propose_for_ever(replica: Consensus, register: u64) {
    let mut out = std::io::stdout();
    let first = commands::get(&replica.local(), register).map_or(0, |value| value + 1);
    for value in first.. {
        replica.propose(commands::set(register, value)).await.unwrap();
        writeln!(out, "answered {register} {value} .").unwrap();
    }
}
