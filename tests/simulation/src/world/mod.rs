//! The room on a virtual clock: requests arrive, nodes work, things break, a policy decides.
//!
//! Owns the loop and the order of events: what is on the agenda, then arrivals, then wake-ups, each in order of time. Refuses
//! policy and physics; nodes own the one, policies the other. The same workload, fleet, faults and policy give the same
//! outcome, event by event.

mod agenda;
mod breaking;
mod carrying;
mod lives;
mod reporting;
mod watch;

use std::collections::VecDeque;

use scheduler::{At, NodeId, RequestId};

use self::agenda::{Agenda, Occurrence};
use self::lives::Lives;
pub use self::lives::{Fate, Life, Stage, Violation};
use self::reporting::Side;
pub use self::watch::Shares;
use self::watch::Watch;
use crate::faults::Fault;
use crate::fleet::Fleet;
use crate::limits::WINDOW_US;
use crate::node::Node;
use crate::policy::{Event, Order, Policy};
use crate::request::Workload;

/// What happened in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// By request.
    pub lives: Vec<Life>,
    /// Laws that were broken.
    pub violations: Vec<Violation>,
    /// Models that were loaded, restarts included.
    pub loads: u64,
    /// When the last request ended.
    pub ended_us: u64,
    /// Who got how much while all wanted more; empty unless it was watched.
    pub shares: Shares,
}

/// A run under way.
pub struct World<'a> {
    work: &'a Workload,
    fleet: &'a Fleet,
    nodes: Vec<Node<'a>>,
    sides: Vec<Side>,
    lives: Lives,
    agenda: Agenda,
    news: VecDeque<Event>,
    watch: Option<Watch>,
    seed: u64,
    loads: u64,
    arrived: usize,
    now: u64,
}

impl<'a> World<'a> {
    /// A room in which nothing has happened. `faults` carry their times in seconds.
    #[must_use]
    pub fn new(work: &'a Workload, fleet: &'a Fleet, faults: &[(f64, Fault)], seed: u64) -> Self {
        let mut world = Self {
            work,
            fleet,
            nodes: fleet.nodes.iter().map(|spec| Node::new(fleet, spec)).collect(),
            sides: fleet.nodes.iter().map(|_| Side::default()).collect(),
            lives: Lives::new(work.requests.len()),
            agenda: Agenda::default(),
            news: VecDeque::new(),
            watch: None,
            seed,
            loads: 0,
            arrived: 0,
            now: 0,
        };
        for (at_s, fault) in faults {
            world.agenda.enter((at_s * 1e6) as u64, Occurrence::Fault(*fault));
        }
        fleet.nodes.iter().for_each(|spec| world.furnish(spec.id));
        world
    }

    /// Also watch how the tenants share the nodes, in windows of a minute.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watch = Some(Watch::default());
        self.agenda.enter(WINDOW_US, Occurrence::Window);
        self
    }

    /// Runs until the last request has ended, or nothing more can happen.
    pub fn run(mut self, policy: &mut dyn Policy) -> Outcome {
        let mut orders = Vec::new();
        self.tell(policy, &mut orders);
        while !self.lives.all_over() {
            let arrival = self.work.requests.get(self.arrived).map(|request| request.arrived.0);
            let wake = policy.next_wake().map(|at| at.0.max(self.now + 1));
            let Some(at) = [self.agenda.next_at(), arrival, wake].into_iter().flatten().min() else { break };
            self.now = at;
            if self.agenda.next_at() == Some(at) {
                self.happen();
            } else if arrival == Some(at) {
                self.arrive();
            } else {
                self.news.push_back(Event::Wake);
            }
            self.tell(policy, &mut orders);
        }
        let (lives, violations) = self.lives.close();
        let shares = self.watch.map(Watch::close).unwrap_or_default();
        Outcome { lives, violations, loads: self.loads, ended_us: self.now, shares }
    }

    /// Tells the policy what is new and carries out what it orders, until there is nothing new.
    fn tell(&mut self, policy: &mut dyn Policy, orders: &mut Vec<Order>) {
        while let Some(event) = self.news.pop_front() {
            if self.is_stale(&event) {
                continue;
            }
            policy.decide(At(self.now), event, orders);
            for order in orders.drain(..) {
                self.carry_out(order);
            }
        }
    }

    /// A failure of an attempt that the policy has given up in the meantime is no news.
    fn is_stale(&self, event: &Event) -> bool {
        let Event::Failed { request, attempt, .. } = event else { return false };
        let life = self.lives.get(*request);
        life.attempt != *attempt || life.stage != Stage::Waiting
    }

    fn arrive(&mut self) {
        let request = self.work.requests[self.arrived];
        self.arrived += 1;
        self.lives.get_mut(request.id).stage = Stage::Waiting;
        self.news.push_back(Event::Arrived(request));
    }

    fn happen(&mut self) {
        match self.agenda.take() {
            Some(Occurrence::Rounds { node, plan }) => self.rounds_over(node, plan),
            Some(Occurrence::Deliver { request, attempt, node, chunk }) => {
                self.deliver(request, attempt, node, chunk);
            }
            Some(Occurrence::Loaded { node, model, life }) => self.loaded(node, model, life),
            Some(Occurrence::Report { node }) => self.report(node),
            Some(Occurrence::Fault(fault)) => self.break_something(fault),
            Some(Occurrence::Kill { node, model, life }) => self.kill(node, model, life),
            Some(Occurrence::Lost { node }) => self.node_counts_as_lost(node),
            Some(Occurrence::Back { node }) => self.node_is_back(node),
            Some(Occurrence::Recovered { node }) => self.recover(node),
            Some(Occurrence::Probed { node, model, life, sent }) => self.probed(node, model, life, sent),
            Some(Occurrence::Window) => self.window_over(),
            None => {}
        }
    }

    fn node(&mut self, node: NodeId) -> &mut Node<'a> {
        &mut self.nodes[node.0 as usize]
    }

    fn side(&mut self, node: NodeId) -> &mut Side {
        &mut self.sides[node.0 as usize]
    }

    fn began(&self, request: RequestId) -> bool {
        self.lives.get(request).first_token_us.is_some()
    }
}
