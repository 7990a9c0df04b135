//! The room's mechanics, with a policy that does what the test says.

use scheduler::{At, Attempt, Class, ModelId, NodeId, RequestId, SessionKey, Span, TenantId};
use simulation::faults::Fault;
use simulation::fleet::{Fleet, FleetPlan, alike};
use simulation::policy::{Canary, Event, ModelState, Order, Policy};
use simulation::request::{Chain, Request, Truth, Workload};
use simulation::world::{Fate, Outcome, Stage, Violation, World};

pub(crate) const NODE: NodeId = NodeId(0);
pub(crate) const OTHER: NodeId = NodeId(1);
pub(crate) const MODEL: ModelId = ModelId(0);
pub(crate) const ONE: RequestId = RequestId(0);

/// Keeps all it hears, and answers as the script says.
pub(crate) struct Scripted<F> {
    pub(crate) heard: Vec<(u64, Event)>,
    script: F,
    wakes: Vec<u64>,
}

impl<F: FnMut(u64, &Event, &mut Vec<Order>)> Policy for Scripted<F> {
    fn decide(&mut self, at: At, event: Event, orders: &mut Vec<Order>) {
        self.wakes.retain(|wake| *wake > at.0);
        (self.script)(at.0, &event, orders);
        self.heard.push((at.0, event));
    }

    fn next_wake(&self) -> Option<At> {
        self.wakes.iter().min().map(|at| At(*at))
    }
}

/// Two equal Macs.
pub(crate) fn fleet() -> Fleet {
    FleetPlan::of(alike("M2 Max", 64.0, 2), &["8b"]).build().expect("a fleet")
}

/// Requests of 1,000 prompt tokens, each with its second of arrival and its tokens to generate.
pub(crate) fn requests(all: &[(f64, u32)]) -> Workload {
    let request = |(arrived_s, output_tokens): &(f64, u32)| Request {
        id: RequestId(0),
        arrived: At((arrived_s * 1e6) as u64),
        tenant: TenantId(0),
        class: Class::Interactive,
        model: MODEL,
        prompt_tokens: 1_000,
        max_tokens: 10_000,
        deadline: At(u64::MAX),
        session: SessionKey(0),
        chain: Chain::default(),
        truth: Truth { output_tokens: *output_tokens, poison: false },
    };
    Workload { requests: all.iter().map(request).collect(), blocks: Vec::new() }.in_order()
}

/// A run with a script, which hears `Wake` at the given seconds.
pub(crate) fn play(
    work: &Workload,
    faults: &[(f64, Fault)],
    wakes: &[f64],
    script: impl FnMut(u64, &Event, &mut Vec<Order>),
) -> (Vec<(u64, Event)>, Outcome) {
    let fleet = fleet();
    let wakes = wakes.iter().map(|at| (at * 1e6) as u64).collect();
    let mut policy = Scripted { heard: Vec::new(), script, wakes };
    let outcome = World::new(work, &fleet, faults, 1).run(&mut policy);
    (policy.heard, outcome)
}

pub(crate) fn run(request: RequestId, node: NodeId, attempt: u32) -> Order {
    Order::Run { request, node, attempt: Attempt(attempt), prefill_chunk: None }
}

/// Everything to the first node; what fails, to the other one.
pub(crate) fn first_then_other(_: u64, event: &Event, orders: &mut Vec<Order>) {
    match event {
        Event::Arrived(request) => orders.push(run(request.id, NODE, 1)),
        Event::Failed { request, attempt, .. } => orders.push(run(*request, OTHER, attempt.0 + 1)),
        Event::FirstToken { .. }
        | Event::Finished { .. }
        | Event::NodeReport { .. }
        | Event::NodeLost { .. }
        | Event::ProbeDone { .. }
        | Event::Wake => {}
    }
}

fn arrived(event: &Event) -> Option<RequestId> {
    if let Event::Arrived(request) = event { Some(request.id) } else { None }
}

fn is_wake(event: &Event) -> bool {
    matches!(event, Event::Wake)
}

/// What a node said of a model, each time it changed.
pub(crate) fn states(heard: &[(u64, Event)], of: NodeId) -> Vec<(u64, Option<ModelState>)> {
    let mut states: Vec<(u64, Option<ModelState>)> = Vec::new();
    for (at, event) in heard {
        let Event::NodeReport { node, report } = event else { continue };
        let state = report.models.iter().find(|model| model.model == MODEL).map(|model| model.state);
        if *node == of && states.last().is_none_or(|(_, last)| *last != state) {
            states.push((*at, state));
        }
    }
    states
}

#[test]
fn a_request_alone_takes_the_road_its_prefill_and_its_steps() {
    let (work, fleet) = (requests(&[(1.0, 101)]), fleet());
    let (heard, outcome) = play(&work, &[], &[], first_then_other);
    let noise = simulation::random::noise(1, ONE);
    let speed = fleet.speed(NODE, MODEL);
    let read = 1.002 + speed.prefill_s(1_000.0, 0.0) * noise;
    let [first, last] = [1.0, 101.0].map(|tokens| read + speed.decode_s(1_000.0, tokens) * noise);
    let seconds = |at: Option<u64>| at.expect("a time") as f64 / 1e6;
    assert!((seconds(outcome.lives[0].first_token_us) - first).abs() < 1e-5);
    assert!((seconds(outcome.lives[0].ended_us) - last).abs() < 1e-5);
    let first_token = heard.iter().find_map(|(_, event)| {
        let Event::FirstToken { prefill, cached_tokens, .. } = event else { return None };
        Some((prefill.0, *cached_tokens))
    });
    let prefill_us = (speed.prefill_s(1_000.0, 0.0) * noise * 1e6) as u64;
    assert_eq!(first_token, Some((prefill_us, 0)));
    let last_token = heard.iter().find_map(|(_, event)| {
        let Event::Finished { prefill, generated, .. } = event else { return None };
        Some((prefill.0, *generated))
    });
    assert_eq!(last_token, Some((prefill_us, 101)));
}

#[test]
fn reports_tell_the_true_time_of_a_step_and_come_once_a_second_at_most() {
    let (work, fleet) = (requests(&[(1.0, 400), (3.0, 10), (4.0, 10), (30.0, 10)]), fleet());
    let (heard, _) = play(&work, &[], &[], first_then_other);
    let mut last = None;
    let (mut seconds, mut expected) = (0.0, 0.0);
    for (at, event) in &heard {
        let Event::NodeReport { node: NODE, report } = event else { continue };
        assert!(last.is_none_or(|last| at - last >= 1_000_000));
        last = Some(*at);
        for sample in report.models.iter().flat_map(|model| &model.samples) {
            assert!(sample.alone);
            let step_s = fleet.speed(NODE, MODEL).step_s(f64::from(sample.batch), sample.mean_kv_tokens);
            seconds += sample.seconds;
            expected += step_s * sample.steps as f64;
        }
    }
    assert!(expected > 5.0 && (seconds / expected - 1.0).abs() < 0.15, "{seconds} {expected}");
}

#[test]
fn an_idle_hour_is_silent() {
    let work = requests(&[(0.0, 10), (3_600.0, 10)]);
    let (heard, _) = play(&work, &[], &[], first_then_other);
    let idle = heard.iter().filter(|(at, _)| (60_000_000..3_600_000_000).contains(at));
    assert_eq!(idle.count(), 0);
}

#[test]
fn an_aborted_request_is_broken_and_a_refused_one_refused() {
    let work = requests(&[(0.0, 1_000), (0.0, 1_000)]);
    let (_, outcome) = play(&work, &[], &[5.0], |_, event, orders| match arrived(event) {
        Some(ONE) => orders.push(run(ONE, NODE, 1)),
        Some(request) => orders.push(Order::Refuse { request }),
        None if is_wake(event) => orders.push(Order::Abort { request: ONE }),
        None => {}
    });
    let stages: Vec<Stage> = outcome.lives.iter().map(|life| life.stage).collect();
    assert_eq!(stages, [Stage::Over(Fate::Broken), Stage::Over(Fate::Refused)]);
    assert_eq!(outcome.ended_us, 5_000_000);
    assert!(outcome.lives[0].generated > 50 && outcome.lives[0].gpu_s > 4.0, "{:?}", outcome.lives[0]);
    assert_eq!(outcome.violations, []);
}

#[test]
fn a_recalled_request_goes_on_elsewhere_with_what_it_has() {
    let work = requests(&[(0.0, 300)]);
    let (heard, outcome) = play(&work, &[], &[5.0], |_, event, orders| {
        orders.extend(arrived(event).map(|request| run(request, NODE, 1)));
        if is_wake(event) {
            orders.extend([Order::Recall { request: ONE }, run(ONE, OTHER, 2)]);
        }
    });
    let rest = heard.iter().find_map(|(_, event)| {
        let Event::Finished { generated, attempt: Attempt(2), .. } = event else { return None };
        Some(*generated)
    });
    assert!(rest.is_some_and(|rest| (1..300).contains(&rest)), "{rest:?}");
    assert_eq!((outcome.lives[0].stage, outcome.lives[0].generated), (Stage::Over(Fate::Completed), 300));
    assert_eq!(outcome.lives[0].node, Some(OTHER));
}

#[test]
fn orders_for_nobody_and_attempts_out_of_order_are_noted() {
    let work = requests(&[(0.0, 10), (100.0, 10)]);
    let (_, outcome) = play(&work, &[], &[50.0], |_, event, orders| {
        orders.extend(arrived(event).map(|request| run(request, NODE, 1 + request.0 as u32)));
        if is_wake(event) {
            orders.extend([Order::Abort { request: ONE }, Order::Refuse { request: RequestId(1) }]);
            orders.push(Order::Refuse { request: RequestId(7) });
        }
    });
    let expected = [
        Violation::NotAlive(ONE),
        Violation::NotAlive(RequestId(1)),
        Violation::NotAlive(RequestId(7)),
        Violation::AttemptOutOfOrder(RequestId(1)),
    ];
    assert_eq!(outcome.violations, expected);
}

#[test]
fn a_forgotten_request_is_noted_and_ends_the_run_all_the_same() {
    let (_, outcome) = play(&requests(&[(0.0, 10)]), &[], &[], |_, _, _| {});
    assert_eq!(outcome.violations, [Violation::NeverEnded(ONE)]);
}

#[test]
fn a_model_is_loaded_and_let_go_by_order() {
    let work = requests(&[(0.0, 10), (50.0, 10)]);
    let (heard, outcome) = play(&work, &[], &[10.0, 20.0], |at, event, orders| {
        orders.extend(arrived(event).map(|request| run(request, NODE, 1)));
        if is_wake(event) {
            let (node, model) = (OTHER, MODEL);
            orders.push(if at < 15_000_000 {
                Order::Unload { node, model }
            } else {
                Order::Load { node, model }
            });
        }
    });
    let load_s = 4.52 / 5.5 + 1.0;
    let expected = [
        (0, Some(ModelState::Ready)),
        (10_000_000, None),
        (20_000_000, Some(ModelState::Loading)),
        (20_000_000 + (load_s * 1e6) as u64, Some(ModelState::Ready)),
    ];
    assert_eq!(states(&heard, OTHER), expected);
    assert_eq!(outcome.loads, 1);
    let told = heard.iter().find_map(|(_, event)| {
        let Event::NodeReport { report, .. } = event else { return None };
        report.models.iter().find_map(|model| model.loaded_in)
    });
    assert_eq!(told, Some(Span((load_s * 1e6) as u64)));
}

#[test]
fn a_runtime_that_is_let_go_ends_what_it_has_and_takes_nothing_new() {
    let work = requests(&[(0.0, 100), (3.0, 10)]);
    let (heard, outcome) = play(&work, &[], &[2.0], |at, event, orders| {
        first_then_other(at, event, orders);
        if is_wake(event) {
            orders.push(Order::Unload { node: NODE, model: MODEL });
        }
    });
    let nodes: Vec<_> = outcome.lives.iter().map(|life| (life.node, life.stage)).collect();
    let completed = Stage::Over(Fate::Completed);
    assert_eq!(nodes, [(Some(NODE), completed), (Some(OTHER), completed)]);
    let states: Vec<_> = states(&heard, NODE).into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [Some(ModelState::Ready), Some(ModelState::Leaving), None]);
}

#[test]
fn who_waits_for_a_model_that_is_given_up_before_it_is_loaded_is_told() {
    let work = requests(&[(20.0, 10)]);
    let (heard, outcome) = play(&work, &[], &[10.0, 20.5], |at, event, orders| {
        let (node, model) = (NODE, MODEL);
        if is_wake(event) {
            orders.push(Order::Unload { node, model });
        } else if let Some(request) = arrived(event) {
            orders.extend([Order::Load { node, model }, run(request, NODE, 1)]);
        } else {
            first_then_other(at, event, orders);
        }
    });
    let told = heard.iter().find(|(_, event)| matches!(event, Event::Failed { .. })).expect("a failure");
    assert_eq!(told.0, 20_500_000);
    assert_eq!((outcome.lives[0].node, outcome.lives[0].stage), (Some(OTHER), Stage::Over(Fate::Completed)));
}

#[test]
fn a_canary_is_answered_truly_by_an_honest_runtime() {
    let work = requests(&[(0.0, 10), (9.0, 10)]);
    let (heard, _) = play(&work, &[], &[5.0], |at, event, orders| {
        first_then_other(at, event, orders);
        if is_wake(event) {
            orders.push(Order::Probe { node: NODE, model: MODEL });
            orders.push(Order::Probe { node: NODE, model: ModelId(7) });
        }
    });
    let answers = heard.iter().filter_map(|(at, event)| {
        let Event::ProbeDone { model, answer, took, .. } = event else { return None };
        Some((*at - took.0, model.0, *answer))
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers, [(5_000_000, 7, Canary::Silent), (5_000_000, 0, Canary::Right)]);
}

#[test]
fn shares_are_watched_while_somebody_waits() {
    let fleet = FleetPlan::of(alike("M2 Max", 64.0, 1), &["8b"]).build().expect("a fleet");
    let mut work = requests(&[(0.0, 200); 100]);
    work.requests.iter_mut().for_each(|request| request.tenant = TenantId(u32::from(request.id.0 % 4 == 0)));
    let mut policy = Scripted { heard: Vec::new(), script: first_then_other, wakes: Vec::new() };
    let outcome = World::new(&work, &fleet, &[], 1).watched().run(&mut policy);
    let windows = &outcome.shares.0;
    assert!(windows.len() > 3, "{windows:?}");
    for window in windows {
        let total: f64 = window.values().sum();
        assert!((total - 60.0).abs() < 0.5, "the node was busy all the minute: {window:?}");
    }
    let whole = |tenant: u32| windows.iter().map(|window| window[&TenantId(tenant)]).sum::<f64>();
    assert!((whole(0) / whole(1) - 3.0).abs() < 0.6, "first come, first served: {windows:?}");
}
