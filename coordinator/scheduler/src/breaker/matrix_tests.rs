//! Every state against every input: what follows from each, exactly.
//!
//! A cell is the state after the input. `C` closed, `D` degraded, `O` open, `O+` opened by this (in a new life), `P` probing
//! with its canary out, `R` probing and waiting for its one real request, `T` probing and that request is taken, `S1` to `S4`
//! slow start with that allowance, `-` no longer watched. The lane's width is 4, and every state is reached in the lane's
//! second life, so that there is an old one.

use super::rig_tests::*;
use super::*;
use crate::time::Span;

/// Columns: closed; closed after two failures in a row; degraded; degraded with four in time; degraded with four more late;
/// open; open for lateness; open and its time is over; probing; with its request awaited; with it taken; slow start at one; at
/// four.
const LANE: &str = "
                 C   C2  D   D4  D8  O   OL  OT  P   R   T   S1  S4
    reset        C   O+  D   D   D   O   O   O   P   R   O+  O+  O+
    hang         O+  O+  O+  O+  O+  O   O   O   P   R   O+  O+  O+
    wrong        O+  O+  O+  O+  O+  O   O   O   P   R   O+  O+  O+
    late         C   C   D   D   O+  O   O   O   P   R   S1  S1  S4
    success      C   C   D   C   D   O   O   O   P   R   S1  S2  C
    old-reset    C   C   D   D   D   O   O   O   P   R   T   S1  S4
    old-hang     C   C   D   D   D   O   O   O   P   R   T   S1  S4
    old-late     C   C   D   D   D   O   O   O   P   R   T   S1  S4
    old-success  C   C   D   D   D   O   O   O   P   R   T   S1  S4
    dispatched   C   C   D   D   D   O   O   O   P   T   T   S1  S4
    released     C   C   D   D   D   O   O   O   P   R   R   S1  S4
    old-released C   C   D   D   D   O   O   O   P   R   T   S1  S4
    passed       C   C   D   D   D   O   O   O   R   R   T   S1  S4
    mismatch     C   C   D   D   D   O   O   O   O+  R   T   S1  S4
    failed       C   C   D   D   D   O   O   O   O+  R   T   S1  S4
    old-passed   C   C   D   D   D   O   O   O   P   R   T   S1  S4
    old-failed   C   C   D   D   D   O   O   O   P   R   T   S1  S4
    due          C   C   D   D   D   O   O   P   P   R   T   S1  S4
    due-later    C   C   D   D   D   P   P   P   O+  S1  S1  S1  S4
    node-lost    C   C   D   D   D   O   O   O   O+  O+  O+  S1  S4
    forgotten    -   C   D   D   D   O   O   O   O+  O+  O+  S1  S4
    reported     C   C   D   D   D   O   O   O   P   R   T   S1  S4
    relieved     C   C   D   D   D   O   D   O   P   R   T   S1  S4
";

/// The breaker of the node of A and B, while both lanes are closed themselves. Columns: lost once; open; open and its time is
/// over; probing by A; with the request awaited; with it taken; slow start at one; at four.
const NODES: &str = "
                 C1  O   OT  P   R   T   S1  S4
    reset        C   O   O   P   R   O+  O+  O+
    hang         C   O   O   P   R   O+  O+  O+
    late         C   O   O   P   R   S1  S1  S4
    success      C   O   O   P   R   S1  S2  C
    b-reset      C   O   O   P   R   T   O+  O+
    b-success    C   O   O   P   R   T   S2  C
    old-hang     C   O   O   P   R   T   S1  S4
    old-success  C   O   O   P   R   T   S1  S4
    dispatched   C   O   O   P   T   T   S1  S4
    b-dispatched C   O   O   P   R   T   S1  S4
    released     C   O   O   P   R   R   S1  S4
    old-released C   O   O   P   R   T   S1  S4
    passed       C   O   O   R   R   T   S1  S4
    mismatch     C   O   O   O+  R   T   S1  S4
    failed       C   O   O   O+  R   T   S1  S4
    due          C   O   P   P   R   T   S1  S4
    due-later    C   P   P   O+  S1  S1  S1  S4
    node-lost    O+  O   O   O+  O+  O+  O+  O+
    forgotten    C   O   O   O+  O+  O+  S1  S4
    b-forgotten  C   O   O   P   R   T   S1  S4
    relieved     C   O   O   P   R   T   S1  S4
";

#[test]
fn a_lane_in_every_state_does_with_every_input_what_the_table_says() {
    every_cell(LANE, Breaker::Lane(A), &lane_in);
}

#[test]
fn a_node_in_every_state_does_with_every_input_what_the_table_says() {
    every_cell(NODES, Breaker::Node(NODE), &node_in);
}

fn every_cell(table: &str, breaker: Breaker, prepare: &dyn Fn(&str) -> Rig) {
    let mut rows = table.lines().filter(|line| !line.trim().is_empty());
    let states: Vec<&str> = rows.next().expect("a head").split_whitespace().collect();
    for row in rows {
        let mut cells = row.split_whitespace();
        let input = cells.next().expect("an input");
        let expected: Vec<&str> = cells.collect();
        let found: Vec<String> = states.iter().map(|state| after(prepare(state), breaker, input)).collect();
        assert_eq!(found, expected, "{input}");
    }
}

fn after(mut rig: Rig, breaker: Breaker, input: &str) -> String {
    let before = rig.view(breaker).generation;
    rig.moves.clear();
    put(&mut rig, input);
    let Some(view) = rig.breakers.explain(breaker) else { return "-".to_owned() };
    let opened = if view.generation > before { "+" } else { "" };
    let told: Vec<_> = rig.moves.iter().filter(|fact| fact.breaker == breaker).collect();
    assert_eq!(told.last().map_or(view.state, |fact| fact.to), view.state, "the last move told is the state");
    match (view.state, rig.gate(A)) {
        (BreakerState::Closed, _) => "C".to_owned(),
        (BreakerState::Degraded, _) => "D".to_owned(),
        (BreakerState::Open, _) => format!("O{opened}"),
        (BreakerState::Probing, Admission::OneProbeRequest { taken }) => {
            if taken { "T" } else { "R" }.to_owned()
        }
        (BreakerState::Probing, _) => "P".to_owned(),
        (BreakerState::SlowStart, _) => format!("S{}", view.allowed.expect("on trial")),
    }
}

fn put(rig: &mut Rig, input: &str) {
    let old = Generation(rig.breakers.generation(A).0 - 1);
    let now = rig.breakers.generation(A);
    match input {
        "reset" => rig.end(A, RESET),
        "b-reset" => rig.end(B, RESET),
        "hang" => rig.end(A, HANG),
        "wrong" => rig.end(A, Health::Hard(HardKind::CanaryMismatch)),
        "late" => rig.end(A, LATE),
        "success" => rig.end(A, SUCCESS),
        "b-success" => rig.end(B, SUCCESS),
        "old-reset" => rig.end_of(A, RESET, old),
        "old-hang" => rig.end_of(A, HANG, old),
        "old-late" => rig.end_of(A, LATE, old),
        "old-success" => rig.end_of(A, SUCCESS, old),
        "dispatched" => assert_eq!(rig.breakers.dispatched(A), now),
        "b-dispatched" => assert_eq!(rig.breakers.dispatched(B), rig.breakers.generation(B)),
        "released" => rig.breakers.released(A, now),
        "old-released" => rig.breakers.released(A, old),
        "passed" => rig.probed(ProbeResult::Passed),
        "mismatch" => rig.probed(ProbeResult::Mismatch),
        "failed" => rig.probed(ProbeResult::Failed),
        "old-passed" => stale_probe(rig, ProbeResult::Passed),
        "old-failed" => stale_probe(rig, ProbeResult::Failed),
        "due" => drop(rig.due_in(0)),
        "due-later" => drop(rig.due_in(10)),
        "node-lost" => rig.lose(NODE),
        "forgotten" => rig.forget(A),
        "b-forgotten" => rig.forget(B),
        "reported" => rig.report(A),
        "relieved" => rig.relieve(&[A]),
        other => panic!("no input {other}"),
    }
}

fn stale_probe(rig: &mut Rig, result: ProbeResult) {
    let number = rig.order.map_or(0, |order| order.number.0);
    rig.breakers.probed(rig.at, ProbeNumber(number - 1), result, &rig.limits, &mut rig.moves);
}

/// Lane A, in its second life. Its first was ended by a hang.
fn lane_in(state: &str) -> Rig {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.prove(A);
    rig.ends(A, &[SUCCESS; 3]);
    assert_eq!(rig.state(A), BreakerState::Closed);
    rig.wait(Span::from_s(600));
    match state {
        "C" => {}
        "C2" => rig.ends(A, &[RESET; 2]),
        "D" => rig.ends(A, &[LATE; 5]),
        "D4" => rig.ends(A, &[LATE, LATE, LATE, LATE, LATE, SUCCESS, SUCCESS, SUCCESS, SUCCESS]),
        "D8" => rig.ends(A, &[LATE; 9]),
        "O" => rig.end(A, HANG),
        "OL" => rig.ends(A, &[LATE; 10]),
        "OT" | "P" | "R" | "T" | "S1" | "S4" => {
            rig.end(A, HANG);
            rig.wait(Span::from_s(5));
            probe(&mut rig, state);
        }
        other => panic!("no state {other}"),
    }
    rig
}

/// Node 1, in its second life; its lanes are closed.
fn node_in(state: &str) -> Rig {
    let mut rig = Rig::new();
    rig.lose(NODE);
    rig.lose(NODE);
    rig.prove(A);
    rig.ends(A, &[SUCCESS; 3]);
    assert_eq!(rig.view(Breaker::Node(NODE)).state, BreakerState::Closed);
    rig.wait(Span::from_s(601));
    rig.lose(NODE);
    if state != "C1" {
        rig.lose(NODE);
        assert_eq!(rig.view(Breaker::Node(NODE)).state, BreakerState::Open);
    }
    match state {
        "C1" | "O" => {}
        "OT" | "P" | "R" | "T" | "S1" | "S4" => {
            rig.wait(Span::from_s(5));
            probe(&mut rig, state);
        }
        other => panic!("no state {other}"),
    }
    rig
}

/// From open with its time over to `state`.
fn probe(rig: &mut Rig, state: &str) {
    let depth = ["OT", "P", "R", "T", "S1", "S4"].iter().position(|step| *step == state).expect("a state");
    if depth >= 1 {
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
    }
    if depth >= 2 {
        rig.probed(ProbeResult::Passed);
    }
    if depth >= 3 {
        rig.breakers.dispatched(A);
    }
    if depth >= 4 {
        rig.end(A, SUCCESS);
    }
    if depth >= 5 {
        rig.ends(A, &[SUCCESS; 2]);
    }
}
