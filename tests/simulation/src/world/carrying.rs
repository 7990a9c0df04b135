//! Orders on their way to nodes, and what nodes say about them.
//!
//! Owns the road between a policy and a runtime: an order takes a moment to arrive, and by then the attempt may be void.
//! Refuses to judge an order beyond that it is for somebody alive.

use scheduler::{Attempt, ModelId, NodeId, RequestId, Span};

use super::World;
use super::agenda::Occurrence;
use super::lives::{Fate, Stage};
use crate::limits::TRANSIT_US;
use crate::node::{Notice, Phase, Row};
use crate::policy::{Event, FailureKind, Order};
use crate::random::noise;

impl World<'_> {
    pub(super) fn carry_out(&mut self, order: Order) {
        match order {
            Order::Run { request, node, attempt, prefill_chunk } => {
                self.send(request, node, attempt, prefill_chunk);
            }
            Order::Recall { request } => self.recall(request),
            Order::Refuse { request } | Order::Abort { request } => self.give_up(request),
            Order::Load { node, model } => self.load(node, model),
            Order::Unload { node, model } => self.unload(node, model),
            Order::Probe { node, model } => self.probe(node, model),
        }
    }

    fn send(&mut self, request: RequestId, node: NodeId, attempt: Attempt, chunk: Option<u32>) {
        if self.lives.is_alive(request) {
            self.withdraw(request);
            self.lives.start(request, attempt, node);
            let delivery = Occurrence::Deliver { request, attempt, node, chunk };
            self.agenda.enter(self.now + TRANSIT_US, delivery);
        }
    }

    fn recall(&mut self, request: RequestId) {
        if self.lives.is_alive(request) {
            self.withdraw(request);
            self.lives.get_mut(request).stage = Stage::Waiting;
        }
    }

    fn give_up(&mut self, request: RequestId) {
        if self.lives.is_alive(request) {
            self.withdraw(request);
            let fate = if self.began(request) { Fate::Broken } else { Fate::Refused };
            self.lives.end(request, self.now, fate);
        }
    }

    /// Takes the request off the node that has it.
    fn withdraw(&mut self, request: RequestId) {
        let life = self.lives.get(request);
        let Some(id) = life.node.filter(|_| life.stage == Stage::Running) else { return };
        let (now, work) = (self.now, self.work);
        let model = work.request(request).model;
        let node = self.node(id);
        node.cut(now, work);
        let notice = node.lane_mut(model).and_then(|lane| lane.drop_row(request));
        node.replan(work);
        if let Some(Notice::Dropped { generated, gpu_s, .. }) = notice {
            self.lives.get_mut(request).generated += generated;
            self.lives.get_mut(request).gpu_s += gpu_s;
        }
        self.touched(id);
    }

    pub(super) fn deliver(&mut self, request: RequestId, attempt: Attempt, id: NodeId, chunk: Option<u32>) {
        if !self.lives.is_current(request, attempt) {
            return;
        }
        if !self.node(id).up {
            self.unanswered(request, attempt, id);
        } else if self.side(id).busy_until > self.now {
            self.fail(request, attempt, FailureKind::Busy, 0);
        } else {
            let (row, model) =
                (Row { chunk, ..self.row(request, attempt) }, self.work.request(request).model);
            let (now, work) = (self.now, self.work);
            if self.node(id).accept(now, model, row, work) {
                self.lives.get_mut(request).stage = Stage::Running;
                self.touched(id);
            } else {
                self.fail(request, attempt, FailureKind::NotResident, 0);
            }
        }
    }

    /// A later attempt reads what earlier ones have generated and goes on from there.
    fn row(&self, request: RequestId, attempt: Attempt) -> Row {
        let asked = self.work.request(request);
        let generated = self.lives.get(request).generated;
        let prompt = asked.prompt_tokens.max(1) + generated;
        let left = |tokens: u32| tokens.saturating_sub(generated).max(1);
        Row {
            request,
            attempt,
            prompt,
            output: left(asked.output_tokens()),
            reserve: prompt + left(asked.max_tokens),
            chain: asked.chain,
            noise: noise(self.seed, request),
            poison: asked.truth.poison,
            chunk: None,
        }
    }

    pub(super) fn rounds_over(&mut self, id: NodeId, plan: u64) {
        let (work, mut notices) = (self.work, Vec::new());
        let node = self.node(id);
        if node.plans != plan {
            return;
        }
        node.advance(work, &mut notices);
        for notice in notices {
            self.heed(id, notice, FailureKind::Crashed);
        }
        self.touched(id);
    }

    /// What a node says; a row that it drops has failed in the way of `kind`.
    pub(super) fn heed(&mut self, id: NodeId, notice: Notice, kind: FailureKind) {
        match notice {
            Notice::Began { request, attempt, cached, prefill_s } => {
                let now = self.now;
                let life = self.lives.get_mut(request);
                life.first_token_us.get_or_insert(now);
                life.cached = cached;
                let prefill = micros(prefill_s);
                self.news.push_back(Event::FirstToken { request, attempt, cached_tokens: cached, prefill });
            }
            Notice::Ended { request, attempt, generated, prefill_s, gpu_s } => {
                let garbage = self.is_lying(id, request);
                let life = self.lives.get_mut(request);
                life.generated += generated;
                life.gpu_s += gpu_s;
                life.garbage |= garbage;
                let (cached_tokens, prefill) = (life.cached, micros(prefill_s));
                self.lives.end(request, self.now, Fate::Completed);
                let event = Event::Finished { request, attempt, generated, cached_tokens, prefill };
                self.news.push_back(event);
            }
            Notice::Dropped { request, attempt, generated, gpu_s } => {
                let life = self.lives.get_mut(request);
                life.generated += generated;
                life.gpu_s += gpu_s;
                self.fail(request, attempt, kind, generated);
            }
            Notice::Poisoned { model } => self.crash(id, model, FailureKind::Crashed),
        }
    }

    fn is_lying(&self, id: NodeId, request: RequestId) -> bool {
        let model = self.work.request(request).model;
        self.nodes[id.0 as usize].lane(model).is_some_and(|lane| lane.lying)
    }

    pub(super) fn fail(&mut self, request: RequestId, attempt: Attempt, kind: FailureKind, generated: u32) {
        if self.lives.is_current(request, attempt) {
            self.lives.get_mut(request).stage = Stage::Waiting;
            let began = self.began(request);
            self.news.push_back(Event::Failed { request, attempt, kind, generated, began });
        }
    }

    /// A node's rows, lanes or memory have changed: its disk may go on, its next change is foreseen, it has news.
    pub(super) fn touched(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id.0 as usize];
        if let Some((model, seconds)) = node.tend() {
            let life = node.lane(model).map_or(0, |lane| lane.life);
            let at = now + (seconds * 1e6) as u64;
            self.agenda.enter(at, Occurrence::Loaded { node: id, model, life });
        }
        let node = &self.nodes[id.0 as usize];
        let side = &mut self.sides[id.0 as usize];
        if side.foreseen != node.plans {
            side.foreseen = node.plans;
            if let Some(at) = node.due() {
                self.agenda.enter(at, Occurrence::Rounds { node: id, plan: node.plans });
            }
        }
        self.wish_to_report(id);
    }

    fn load(&mut self, id: NodeId, model: ModelId) {
        if self.node(id).load(model) {
            self.touched(id);
        } else {
            self.side(id).failed_loads.push(model);
            self.wish_to_report(id);
        }
    }

    /// Who waits for a model that has not been loaded yet waits for nothing.
    fn unload(&mut self, id: NodeId, model: ModelId) {
        let mut notices = Vec::new();
        let Some(lane) = self.node(id).lane_mut(model) else { return };
        lane.leaving = true;
        if matches!(lane.phase, Phase::Queued | Phase::Loading) {
            lane.die(&mut notices);
        }
        notices.into_iter().for_each(|notice| self.heed(id, notice, FailureKind::NotResident));
        self.touched(id);
    }
}

fn micros(seconds: f64) -> Span {
    Span((seconds * 1e6) as u64)
}
