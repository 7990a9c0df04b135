//! What the path between a client and a runtime costs: CPU per request and per token, and added latency.
//!
//! Two targets take turns within each round, so that a noisy machine hurts both: the cluster (client → coordinator → agent → fake
//! runtime) and a control (the same frames sent straight to a fake runtime's socket). CPU is what the kernel charged to the
//! coordinator and to the agent. `--callgrind` counts the coordinator's instructions instead, which repeat to a fraction of a
//! percent.
//!
//! cargo bench --bench data_path                      rounds against the control
//! cargo bench --bench data_path -- --callgrind       instructions per request and per token

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints its figures and fails loudly"
)]

mod callgrind;
mod control;
mod load;
mod process;
mod room;

use crate::control::Control;
use crate::load::{Shape, run};
use crate::room::Room;

const ROUNDS: usize = 5;
/// One token: what a request costs. Many: what each further token costs.
const SHORT: Shape = Shape { requests: 200, tokens: 1, streams: 4 };
const LONG: Shape = Shape { requests: 16, tokens: 400, streams: 8 };
/// One at a time, as the control does it: what the path adds to the wait for the first token.
const ALONE: Shape = Shape { requests: 50, tokens: 1, streams: 1 };

fn main() {
    if std::env::args().any(|argument| argument == "--callgrind") {
        return callgrind::measure();
    }
    if std::env::args().any(|argument| argument == "--test") {
        return println!("data_path: run with `cargo bench --bench data_path`");
    }
    let room = Room::start(&[]);
    let mut control = Control::start();
    let mut rows = Vec::new();
    run(&room, SHORT);
    for _ in 0..ROUNDS {
        let direct_ms = control.time_to_first_token(ALONE.requests);
        let through_ms = load::median_ms(run(&room, ALONE));
        rows.push((round(&room, SHORT), round(&room, LONG), FirstToken { direct_ms, through_ms }));
    }
    report(&rows);
}

/// CPU seconds of coordinator and agent.
struct Round {
    shape: Shape,
    coordinator_s: f64,
    agent_s: f64,
}

/// Medians of one round.
struct FirstToken {
    direct_ms: f64,
    through_ms: f64,
}

fn round(room: &Room, shape: Shape) -> Round {
    let before = (room.coordinator.cpu_s(), room.agent.cpu_s());
    run(room, shape);
    let after = (room.coordinator.cpu_s(), room.agent.cpu_s());
    Round { shape, coordinator_s: after.0 - before.0, agent_s: after.1 - before.1 }
}

fn report(rows: &[(Round, Round, FirstToken)]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let per_request = |cpu: fn(&Round) -> f64| {
        median(rows.iter().map(|(short, _, _)| cpu(short) / short.shape.requests as f64 * 1e6).collect())
    };
    let per_token = |cpu: fn(&Round) -> f64| {
        let each = rows.iter().map(|(short, long, _)| {
            let request = cpu(short) / short.shape.requests as f64;
            (cpu(long) - request * long.shape.requests as f64)
                / (long.shape.requests * long.shape.tokens) as f64
                * 1e6
        });
        median(each.collect())
    };
    let added = median(rows.iter().map(|(_, _, first)| first.through_ms - first.direct_ms).collect());
    let direct = median(rows.iter().map(|(_, _, first)| first.direct_ms).collect());
    println!("{ROUNDS} interleaved rounds, medians          coordinator    agent");
    println!(
        "CPU per request (1 token), µs            {:>8.0} {:>8.0}",
        per_request(|round| round.coordinator_s),
        per_request(|round| round.agent_s)
    );
    println!(
        "CPU per further token, µs                {:>8.1} {:>8.1}",
        per_token(|round| round.coordinator_s),
        per_token(|round| round.agent_s)
    );
    println!("time to first token: direct {direct:.2} ms, through the cluster +{added:.2} ms");
}
