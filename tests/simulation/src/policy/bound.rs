//! A router that binds each request to a node when it arrives, by one of the rules.
//!
//! Owns what such a router remembers: which requests are bound where, how long they took, which prompts it sent where. The
//! node keeps the line. With several models it prefers nodes that hold the model; when none does it has one loaded there,
//! evicting those least recently asked for, as Ollama does. Refuses to be cleverer than the rule: what fails before its first
//! token is tried on another node, what fails after it is broken.

use std::collections::{BTreeMap, VecDeque};

use scheduler::{At, Attempt, ModelId, NodeId, RequestId, Span};

use super::rules::{Ask, NodeView, Rule};
use super::seat::Seat;
use super::{Event, FailureKind, ModelState, NodeReport, Order, Policy};
use crate::fleet::Fleet;
use crate::random::{Purpose, Random};
use crate::request::{Request, Workload};

/// After so many attempts that died the request is refused.
const DEATHS_MAX: u32 = 4;
/// When no node takes a request, it is tried again after this.
const PARKED: Span = Span::from_s(1);
/// Each answer moves the mean length by this share of the difference.
const MEAN_SHARE: f64 = 1.0 / 64.0;
/// Tokens of an answer before the first one has ended.
const FIRST_GUESS: f64 = 256.0;

/// The router.
pub struct Bound<'a> {
    rule: Rule,
    work: &'a Workload,
    fleet: &'a Fleet,
    seats: Vec<Seat>,
    tickets: BTreeMap<RequestId, Ticket>,
    parked: VecDeque<RequestId>,
    retry_at: Option<At>,
    output_tokens: f64,
    turn: u64,
    random: Random,
}

/// A request that the router has.
#[derive(Clone, Debug)]
struct Ticket {
    request: Request,
    attempt: Attempt,
    node: Option<NodeId>,
    began: bool,
    bound_at: At,
    prefill_s: f64,
    /// Attempts that ended with their runtime or their node.
    deaths: u32,
    /// Nodes that it is not sent to for now.
    failed: Vec<NodeId>,
}

impl<'a> Bound<'a> {
    /// A router that has seen nothing yet.
    #[must_use]
    pub fn new(rule: Rule, fleet: &'a Fleet, work: &'a Workload, seed: u64) -> Self {
        Self {
            rule,
            work,
            fleet,
            seats: fleet.nodes.iter().map(|spec| Seat::new(fleet, spec, rule)).collect(),
            tickets: BTreeMap::new(),
            parked: VecDeque::new(),
            retry_at: None,
            output_tokens: FIRST_GUESS,
            turn: 0,
            random: Random::new(seed, Purpose::Policy, 0),
        }
    }

    fn bind(&mut self, at: At, id: RequestId, orders: &mut Vec<Order>) {
        let Some(ticket) = self.tickets.get(&id) else { return };
        let request = ticket.request;
        let pool = self.pool(request.model, &ticket.failed);
        if pool.is_empty() {
            self.parked.push_back(id);
            self.retry_at.get_or_insert(at + PARKED);
            return;
        }
        let (views, ask) = (self.views(at, &request, &pool), self.ask(&request));
        let chosen = self.rule.choose(&views, &ask, self.turn, &mut self.random);
        self.turn += 1;
        self.send(at, id, pool[chosen], &views[chosen], orders);
    }

    /// Live nodes that hold the model; if there is none, those that could.
    fn pool(&self, model: ModelId, failed: &[NodeId]) -> Vec<NodeId> {
        let live = || self.seats.iter().filter(|seat| seat.alive && !failed.contains(&seat.node));
        let holders: Vec<NodeId> = live().filter(|seat| seat.holds(model)).map(|seat| seat.node).collect();
        if !holders.is_empty() {
            return holders;
        }
        let could = |seat: &&Seat| self.fleet.node(seat.node).fits(&self.fleet.models, &[], model);
        live().filter(could).map(|seat| seat.node).collect()
    }

    fn views(&self, at: At, request: &Request, pool: &[NodeId]) -> Vec<NodeView> {
        let chain = self.work.prompt(request.chain);
        let seats = pool.iter().map(|node| &self.seats[node.0 as usize]);
        seats.map(|seat| seat.view(self.fleet, request, chain, self.output_tokens, at)).collect()
    }

    fn ask(&self, request: &Request) -> Ask {
        let first = self.work.prompt(request.chain).first();
        Ask {
            prompt_tokens: request.prompt_tokens,
            output_tokens: self.output_tokens.min(f64::from(request.max_tokens)),
            key: first.map_or(request.session.0, |block| block.0),
        }
    }

    fn send(&mut self, at: At, id: RequestId, node: NodeId, view: &NodeView, orders: &mut Vec<Order>) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        let seat = &mut self.seats[node.0 as usize];
        seat.make_resident(self.fleet, ticket.request.model, at, orders);
        let cached = view.cached_tokens.min(ticket.request.prompt_tokens.saturating_sub(1));
        let uncached = f64::from(ticket.request.prompt_tokens - cached);
        ticket.prefill_s = view.speed.prefill_s(uncached, f64::from(cached));
        ticket.attempt = Attempt(ticket.attempt.0 + 1);
        ticket.node = Some(node);
        ticket.began = false;
        ticket.bound_at = at;
        seat.bind(at, &ticket.request, ticket.prefill_s, self.work);
        let attempt = ticket.attempt;
        orders.push(Order::Run { request: id, node, attempt, prefill_chunk: None });
    }

    /// The attempt is over; its ticket, if the router still has it.
    fn unbind(&mut self, at: At, id: RequestId) -> Option<Ticket> {
        let ticket = self.tickets.get_mut(&id)?;
        if let Some(node) = ticket.node.take() {
            let waits = (!ticket.began).then_some(ticket.prefill_s);
            self.seats[node.0 as usize].unbind(at, &ticket.request, waits);
        }
        Some(ticket.clone())
    }

    fn began(&mut self, at: At, id: RequestId) {
        let Some(ticket) = self.tickets.get_mut(&id) else { return };
        ticket.began = true;
        if let Some(node) = ticket.node {
            self.seats[node.0 as usize].began(at, ticket.prefill_s);
        }
    }

    fn finished(&mut self, at: At, id: RequestId, generated: u32) {
        self.output_tokens += (f64::from(generated) - self.output_tokens) * MEAN_SHARE;
        let node = self.tickets.get(&id).and_then(|ticket| ticket.node);
        let Some(ticket) = self.unbind(at, id) else { return };
        if let Some(node) = node {
            self.seats[node.0 as usize].took(at.since(ticket.bound_at));
        }
        self.tickets.remove(&id);
    }

    fn failed(&mut self, at: At, id: RequestId, kind: FailureKind, began: bool, orders: &mut Vec<Order>) {
        let node = self.tickets.get(&id).and_then(|ticket| ticket.node);
        let Some(ticket) = self.unbind(at, id) else { return };
        let deaths = ticket.deaths + u32::from(is_death(kind));
        if began || deaths >= DEATHS_MAX {
            self.tickets.remove(&id);
            orders.push(Order::Refuse { request: id });
            return;
        }
        if let (Some(node), Some(ticket)) = (node, self.tickets.get_mut(&id)) {
            self.seats[node.0 as usize].forget_unless_loading(ticket.request.model, kind);
            ticket.deaths = deaths;
            ticket.failed.push(node);
        }
        self.bind(at, id, orders);
    }

    fn reported(&mut self, at: At, node: NodeId, report: &NodeReport, orders: &mut Vec<Order>) {
        let held = report.models.iter().filter(|model| model.state != ModelState::Leaving);
        let held = held.map(|model| model.model).collect();
        if self.seats[node.0 as usize].reported(held) {
            self.unpark(at, orders);
        }
    }

    fn unpark(&mut self, at: At, orders: &mut Vec<Order>) {
        self.retry_at = None;
        for id in std::mem::take(&mut self.parked) {
            if let Some(ticket) = self.tickets.get_mut(&id) {
                ticket.failed.clear();
            }
            self.bind(at, id, orders);
        }
    }
}

fn is_death(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Busy | FailureKind::NotResident => false,
        FailureKind::Crashed | FailureKind::Hung | FailureKind::NodeLost => true,
    }
}

impl Policy for Bound<'_> {
    fn decide(&mut self, at: At, event: Event, orders: &mut Vec<Order>) {
        match event {
            Event::Arrived(request) => {
                let ticket = Ticket {
                    request,
                    attempt: Attempt(0),
                    node: None,
                    began: false,
                    bound_at: at,
                    prefill_s: 0.0,
                    deaths: 0,
                    failed: Vec::new(),
                };
                self.tickets.insert(request.id, ticket);
                self.bind(at, request.id, orders);
            }
            Event::FirstToken { request, .. } => self.began(at, request),
            Event::Finished { request, generated, .. } => self.finished(at, request, generated),
            Event::Failed { request, kind, began, .. } => self.failed(at, request, kind, began, orders),
            Event::NodeReport { node, report } => self.reported(at, node, &report, orders),
            Event::NodeLost { node } => self.seats[node.0 as usize].lost(),
            Event::ProbeDone { .. } => {}
            Event::Wake => self.unpark(at, orders),
        }
    }

    fn next_wake(&self) -> Option<At> {
        self.retry_at
    }
}
