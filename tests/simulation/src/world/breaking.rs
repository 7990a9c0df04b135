//! What breaks and how it comes back.
//!
//! Owns each fault's course: what it ends, when it is noticed, when it is over. Refuses to choose what breaks (`faults` does)
//! and to tell the policy more than it could see: a dead node is silent until its session counts as lost, a hung runtime
//! until it is killed.

use scheduler::{Attempt, ModelId, NodeId, RequestId, Span};

use super::World;
use super::agenda::Occurrence;
use crate::faults::Fault;
use crate::limits::{CANARY_TOKENS, HANG_S, HANG_STEPS, LOST_US};
use crate::node::{Notice, Phase};
use crate::policy::{Canary, Event, FailureKind};

impl World<'_> {
    pub(super) fn break_something(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(node, model) => self.crash(node, model, FailureKind::Crashed),
            Fault::Hang(node, model) => self.hang(node, model),
            Fault::Lie(node, model) => {
                if let Some(lane) = self.node(node).lane_mut(model) {
                    lane.lying = true;
                }
            }
            Fault::NodeLost(node, seconds) => self.node_dies(node, seconds),
            Fault::Slow(node, factor, seconds) => self.slow_down(node, factor, seconds),
            Fault::LoadsFail(node, seconds) => self.side(node).loads_fail_until = self.after(seconds),
            Fault::Mute(node, seconds) => self.mute(node, seconds),
            Fault::Busy(node, seconds) => self.side(node).busy_until = self.after(seconds),
        }
    }

    fn after(&self, seconds: f64) -> u64 {
        self.now + (seconds * 1e6) as u64
    }

    /// The runtime's rows fail; its weights are read again.
    pub(super) fn crash(&mut self, id: NodeId, model: ModelId, kind: FailureKind) {
        let (now, work, mut notices) = (self.now, self.work, Vec::new());
        let node = self.node(id);
        if !node.up || node.lane(model).is_none_or(|lane| matches!(lane.phase, Phase::Queued)) {
            return;
        }
        node.cut(now, work);
        node.lane_mut(model).into_iter().for_each(|lane| lane.die(&mut notices));
        node.replan(work);
        notices.into_iter().for_each(|notice| self.heed(id, notice, kind));
        self.touched(id);
    }

    fn hang(&mut self, id: NodeId, model: ModelId) {
        let (now, work) = (self.now, self.work);
        let node = self.node(id);
        let Some(lane) = node.lane(model).filter(|lane| lane.phase == Phase::Ready) else { return };
        let (life, silence_s) = (lane.life, HANG_S.max(HANG_STEPS * lane.expected_step_s()));
        node.cut(now, work);
        node.lane_mut(model).into_iter().for_each(|lane| lane.phase = Phase::Hung);
        node.replan(work);
        self.agenda.enter(self.after(silence_s), Occurrence::Kill { node: id, model, life });
        self.touched(id);
    }

    pub(super) fn kill(&mut self, id: NodeId, model: ModelId, life: u32) {
        if self.node(id).lane(model).is_some_and(|lane| lane.life == life) {
            self.crash(id, model, FailureKind::Hung);
        }
    }

    fn node_dies(&mut self, id: NodeId, seconds: f64) {
        let (now, work, mut notices) = (self.now, self.work, Vec::new());
        if !self.node(id).up {
            return;
        }
        self.node(id).die(now, work, &mut notices);
        let side = self.side(id);
        side.mourned = notices;
        side.unnoticed = true;
        self.agenda.enter(now + LOST_US, Occurrence::Lost { node: id });
        self.agenda.enter(self.after(seconds).max(now + LOST_US + 1), Occurrence::Back { node: id });
    }

    /// An attempt that reached a dead node: nobody answers, until the node counts as lost.
    pub(super) fn unanswered(&mut self, request: RequestId, attempt: Attempt, id: NodeId) {
        if self.side(id).unnoticed {
            let notice = Notice::Dropped { request, attempt, generated: 0, gpu_s: 0.0 };
            self.side(id).mourned.push(notice);
        } else {
            self.fail(request, attempt, FailureKind::NodeLost, 0);
        }
    }

    pub(super) fn node_counts_as_lost(&mut self, id: NodeId) {
        self.side(id).unnoticed = false;
        self.news.push_back(Event::NodeLost { node: id });
        let mourned = std::mem::take(&mut self.side(id).mourned);
        mourned.into_iter().for_each(|notice| self.heed(id, notice, FailureKind::NodeLost));
    }

    pub(super) fn node_is_back(&mut self, id: NodeId) {
        self.node(id).up = true;
        self.side(id).forget_told();
        self.touched(id);
    }

    fn slow_down(&mut self, id: NodeId, factor: f64, seconds: f64) {
        let (now, work, until) = (self.now, self.work, self.after(seconds));
        self.side(id).slow_until = until;
        self.node(id).slow_down(now, factor, work);
        self.agenda.enter(until, Occurrence::Recovered { node: id });
        self.touched(id);
    }

    pub(super) fn recover(&mut self, id: NodeId) {
        let (now, work) = (self.now, self.work);
        if self.side(id).slow_until <= now {
            self.node(id).slow_down(now, 1.0, work);
            self.touched(id);
        }
    }

    fn mute(&mut self, id: NodeId, seconds: f64) {
        let until = self.after(seconds);
        self.side(id).mute_until = until;
        self.agenda.enter(until, Occurrence::Report { node: id });
    }

    pub(super) fn load_failed(&mut self, id: NodeId, model: ModelId) {
        let mut notices = Vec::new();
        let node = self.node(id);
        node.lanes.iter_mut().filter(|lane| lane.model == model).for_each(|lane| lane.die(&mut notices));
        node.lanes.retain(|lane| lane.model != model);
        self.side(id).failed_loads.push(model);
        notices.into_iter().for_each(|notice| self.heed(id, notice, FailureKind::NotResident));
        self.touched(id);
    }

    /// The canary is so small that it costs the others nothing.
    pub(super) fn probe(&mut self, id: NodeId, model: ModelId) {
        let (fleet, now) = (self.fleet, self.now);
        let node = self.node(id);
        let lane = node.lane(model).filter(|lane| lane.phase == Phase::Ready && node.up);
        let Some(life) = lane.map(|lane| lane.life) else {
            let (answer, took) = (Canary::Silent, Span::ZERO);
            self.news.push_back(Event::ProbeDone { node: id, model, answer, took });
            return;
        };
        let (speed, tokens) = (fleet.speed(id, model), f64::from(CANARY_TOKENS));
        let seconds = speed.prefill_s(tokens, 0.0) + speed.decode_s(tokens, tokens);
        self.agenda.enter(self.after(seconds), Occurrence::Probed { node: id, model, life, sent: now });
    }

    pub(super) fn probed(&mut self, id: NodeId, model: ModelId, life: u32, sent: u64) {
        let took = Span(self.now - sent);
        let node = self.node(id);
        let lane = node.lane(model).filter(|lane| lane.life == life && node.up);
        let answer = match lane.filter(|lane| lane.phase == Phase::Ready) {
            Some(lane) if lane.lying => Canary::Wrong,
            Some(_) => Canary::Right,
            None => Canary::Silent,
        };
        self.news.push_back(Event::ProbeDone { node: id, model, answer, took });
    }
}
