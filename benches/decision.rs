//! What a decision costs: an answer ends in a full room, and the scheduler picks who starts in its place and where.
//!
//! Owns the room that is measured and the curves over nodes, waiting requests and tenants. Wall time is the median over decisions;
//! `--callgrind` counts instructions instead, which repeat to a fraction of a percent on any machine.
//!
//! cargo bench --bench decision                     the curves
//! cargo bench --bench decision -- --callgrind      instructions for the room of the target

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its figures and fails loudly"
)]

use std::collections::VecDeque;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use scheduler::{
    At, Attempt, Block, Class, Command, Effect, Fingerprint, Limits, Measured, ModelId, ModelReport,
    ModelState, NodeId, NodeReport, Outcome, Rates, RequestId, Scheduler, SessionKey, Span, Submission,
    TenantId, Usage,
};

const MODEL: ModelId = ModelId(1);
const SLOTS: u32 = 8;

/// The room of the target.
const TARGET: Size = Size { nodes: 32, waiting: 10_000, tenants: 1_000 };
const DECISIONS: usize = 2_000;

#[derive(Clone, Copy)]
struct Size {
    nodes: u64,
    waiting: u64,
    tenants: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    if given("--test") {
        return println!("decision: run with `cargo bench --bench decision`");
    }
    if given("--rounds") {
        let rounds = arguments.last().and_then(|last| last.parse().ok()).expect("a number of decisions");
        return drop(Room::new(TARGET).decisions(rounds));
    }
    if given("--callgrind") {
        return println!(
            "{} instructions per decision (32 nodes, 10,000 waiting, 1,000 tenants)",
            instructions()
        );
    }
    println!("{:>6} {:>9} {:>8} {:>12} {:>12}", "nodes", "waiting", "tenants", "median us", "p99 us");
    let nodes = [1, 8, 32, 100, 316, 1_000].map(|nodes| Size { nodes, ..TARGET });
    let waiting = [100, 1_000, 10_000, 100_000, 1_000_000].map(|waiting| Size { waiting, ..TARGET });
    let tenants = [1, 10, 100, 1_000, 10_000].map(|tenants| Size { tenants, ..TARGET });
    for size in nodes.into_iter().chain(waiting).chain(tenants) {
        let mut times = Room::new(size).decisions(DECISIONS);
        times.sort_unstable();
        let at = |permille: usize| times[(times.len() - 1) * permille / 1_000].as_nanos() as f64 / 1e3;
        println!(
            "{:>6} {:>9} {:>8} {:>12.1} {:>12.1}",
            size.nodes,
            size.waiting,
            size.tenants,
            at(500),
            at(990)
        );
    }
}

/// Two runs that differ in the number of decisions; their difference is the answer, so that filling the room cancels out.
fn instructions() -> u64 {
    let count = |rounds: usize| {
        let own = std::env::current_exe().expect("this program");
        let out = std::env::temp_dir().join(format!("decision-{}-{rounds}", std::process::id()));
        let file = format!("--callgrind-out-file={}", out.display());
        let ran = Process::new("valgrind")
            .args(["--tool=callgrind", "--quiet", &file])
            .arg(own)
            .args(["--rounds", &rounds.to_string()])
            .status()
            .expect("valgrind");
        assert!(ran.success(), "valgrind failed");
        let text = std::fs::read_to_string(&out).expect("callgrind's file");
        let _ = std::fs::remove_file(&out);
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("totals");
        totals.split_whitespace().next().and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let (few, many) = (100, 600);
    (count(many) - count(few)) / (many - few) as u64
}

/// A room in which every slot is taken and a line waits.
struct Room {
    scheduler: Scheduler,
    size: Size,
    now: u64,
    next: u64,
    running: VecDeque<(RequestId, Attempt)>,
    effects: Vec<Effect>,
}

impl Room {
    fn new(size: Size) -> Self {
        let never = Span::from_s(1 << 30);
        let mut limits = Limits { waiting_max: usize::MAX, fresh_width: SLOTS, ..Limits::default() };
        limits.overload.full = never;
        let mut room = Self {
            scheduler: Scheduler::new(limits),
            size,
            now: 0,
            next: 0,
            running: VecDeque::new(),
            effects: Vec::new(),
        };
        for node in 0..size.nodes {
            let command = Command::NodeReported { node: NodeId(node), report: report(node) };
            room.apply(command);
        }
        // Everybody who starts begins at once, until all slots are taken.
        for _ in 0..size.waiting + size.nodes * u64::from(SLOTS) {
            room.arrive();
        }
        room
    }

    /// One answer ends and another starts, again and again; the time of each such step.
    fn decisions(mut self, count: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            let (request, attempt) = self.running.pop_front().expect("somebody runs");
            let usage =
                Usage { generated: 150, cached_tokens: 0, prefill: Span::from_ms(800), held: Span::ZERO };
            let ended = Command::Finished { request, attempt, outcome: Outcome::Completed, usage };
            let started = Instant::now();
            let starts = self.apply(ended);
            if starts > 0 {
                times.push(started.elapsed());
            }
            self.arrive();
        }
        times
    }

    fn arrive(&mut self) {
        self.next += 1;
        let submission = submission(self.next, self.size.tenants, At(self.now));
        self.apply(Command::Submit(submission));
    }

    /// How many started. Each tells its first token at once, so that every node takes up its next prompt.
    fn apply(&mut self, command: Command) -> usize {
        // Some three answers a second end in a room of this size.
        self.now += 100_000;
        let (mut commands, mut starts) = (VecDeque::from([command]), 0);
        while let Some(command) = commands.pop_front() {
            self.effects.clear();
            self.scheduler.apply(At(self.now), command, &mut self.effects);
            for (request, attempt) in self.effects.iter().filter_map(started) {
                commands.push_back(Command::Began { request, attempt });
                self.running.push_back((request, attempt));
                starts += 1;
            }
        }
        starts
    }
}

fn started(effect: &Effect) -> Option<(RequestId, Attempt)> {
    match effect {
        Effect::Dispatch { request, attempt, .. } => Some((*request, *attempt)),
        Effect::Queued { .. }
        | Effect::Refuse { .. }
        | Effect::Abort { .. }
        | Effect::Reserve { .. }
        | Effect::Evict { .. }
        | Effect::Probe { .. }
        | Effect::Record(_) => None,
    }
}

/// Nodes of ten different speeds.
fn report(node: u64) -> NodeReport {
    let speed = 1.0 + (node % 10) as f32;
    let model = ModelReport {
        model: MODEL,
        state: ModelState::Ready,
        slots: SLOTS,
        kv_tokens: 1 << 20,
        prefix_tokens: 1 << 16,
        bytes: 0,
        rates: Rates { prefill_tokens_per_s: 150.0 * speed, step_ms: 100.0 / speed, batch_slope: 0.3 },
        measured: Measured::default(),
    };
    NodeReport { models: vec![model], ..NodeReport::default() }
}

/// Prompts of different lengths, a third of which go on with something said before.
fn submission(number: u64, tenants: u32, arrived: At) -> Submission {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let prompt_tokens = 200 + (mixed % 6_000) as u32;
    let chain = if mixed.is_multiple_of(3) { mixed % 500 } else { number << 10 };
    let blocks = (0..u64::from(prompt_tokens) / 256).map(|block| Block(chain.wrapping_mul(1_000) + block));
    Submission {
        request: RequestId(number),
        model: MODEL,
        tenant: TenantId((mixed % u64::from(tenants)) as u32),
        class: Class::Interactive,
        prompt_tokens,
        max_tokens: 1_000,
        output_tokens: None,
        blocks: blocks.collect(),
        session: Some(SessionKey(chain)),
        fingerprint: Fingerprint(number),
        arrived,
        deadline: arrived + Span::from_s(1 << 30),
    }
}
