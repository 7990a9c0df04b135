//! Instructions of the coordinator per request and per token, counted by callgrind.
//!
//! Three runs that differ in one number each; the differences are the answer, so start-up and idling cancel out.

use std::process::Command;

use crate::load::{Shape, run};
use crate::room::Room;

const FEW: Shape = Shape { requests: 100, tokens: 1, streams: 1 };
const MORE: Shape = Shape { requests: 300, tokens: 1, streams: 1 };
const LONGER: Shape = Shape { requests: 100, tokens: 41, streams: 1 };

pub(crate) fn measure() {
    let (few, more, longer) = (instructions(FEW), instructions(MORE), instructions(LONGER));
    let per_request = (more - few) / (MORE.requests - FEW.requests) as f64;
    let per_token = (longer - few) / (LONGER.requests * (LONGER.tokens - FEW.tokens)) as f64;
    println!("coordinator, userland instructions (callgrind)");
    println!("per request (1 token): {per_request:.0}");
    println!("per further token:     {per_token:.0}");
}

fn instructions(shape: Shape) -> f64 {
    let folder = tempfile::tempdir().expect("scratch");
    let out = folder.path().join("callgrind.out");
    let before = ["valgrind", "--tool=callgrind", "--quiet"].map(str::to_owned);
    let before: Vec<_> =
        before.into_iter().chain([format!("--callgrind-out-file={}", out.display())]).collect();
    let mut room = Room::start(&before);
    run(&room, FEW);
    zero(&out);
    run(&room, shape);
    room.agent.end();
    room.coordinator.end();
    let text = std::fs::read_to_string(&out).expect("callgrind's file");
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("totals");
    totals.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
}

/// Starts counting anew, so that start-up and warm-up are not in the figures.
fn zero(_out: &std::path::Path) {
    let zeroed = Command::new("callgrind_control").arg("--zero").output().expect("callgrind_control");
    assert!(zeroed.status.success(), "callgrind_control --zero failed");
}
