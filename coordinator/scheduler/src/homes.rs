//! Which model is where: the routing between the rooms and the planner.
//!
//! Owns the translation of reports into the planner's facts and of its actions into effects. Refuses to plan (`residency`), and
//! leaves alone nodes that do not say how much memory they have: nothing is loaded or evicted there.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::effect::{Effect, Refusal};
use crate::fact::Fact;
use crate::ids::{Lane, ModelId, NodeId};
use crate::limits::BYTES_MAX;
use crate::machine::Scheduler;
use crate::placement;
use crate::report::{ModelReport, ModelState};
use crate::residency::{
    Action, NodeFacts, OfferFacts, PlanView, ReservationId, ResidentState, Use, Waiting, WhyNot,
};
use crate::time::{At, Span};
use crate::turn::Turn;

impl Scheduler {
    /// What a node could hold, and what it does hold.
    pub(crate) fn homes_reported(
        &mut self,
        node: NodeId,
        budget_bytes: u64,
        models: &[ModelReport],
        turn: &mut Turn<'_>,
    ) {
        let at = turn.at;
        // Without a budget nothing is planned there; what it holds is believed all the same, if it was planned for before.
        if budget_bytes == 0 {
            let planned = self.residency.is_planned(node);
            for model in models {
                let lane = (node, model.model);
                if planned || self.residency.has(lane) {
                    self.home_reported(at, lane, model);
                }
            }
            return;
        }
        self.residency.node(
            at,
            NodeFacts {
                node,
                budget_bytes: budget_bytes.min(BYTES_MAX),
                usable: !self.fleet.is_draining(node),
                draining: self.fleet.is_draining(node),
            },
        );
        for model in models {
            self.home_reported(at, (node, model.model), model);
        }
        let listed: Vec<ModelId> = models.iter().map(|model| model.model).collect();
        let missing: Vec<ModelId> = self.residency.on(node).filter(|model| !listed.contains(model)).collect();
        for model in missing {
            self.residency.withdrawn(node, model);
            self.absent(at, (node, model));
        }
    }

    /// Nothing of the model is in memory there.
    fn absent(&mut self, at: At, lane: Lane) {
        if self.residency.is_leaving(lane) && self.ledger.on_lane(lane) == 0 {
            self.residency.released(at, lane.0, lane.1);
        } else {
            self.residency.resident(at, lane.0, lane.1, ResidentState::Reserved);
        }
    }

    fn home_reported(&mut self, at: At, lane: Lane, model: &ModelReport) {
        let (node, name) = lane;
        if model.bytes > 0 {
            let load_s = self.rates.load_s(lane, model.bytes);
            let load = load_s.map(|seconds| placement::span(&self.limits, seconds));
            self.residency.offer(OfferFacts {
                node,
                model: name,
                bytes: model.bytes,
                load,
                source_local: true,
            });
        }
        let state = match model.state {
            ModelState::Offered => return self.absent(at, lane),
            ModelState::Loading { left } => {
                ResidentState::Loading { ready_at: at + left.unwrap_or(self.limits.load_unknown) }
            }
            ModelState::Ready => ResidentState::Ready,
            ModelState::Unloading => ResidentState::Unloading,
            ModelState::Failed => ResidentState::Failed { until: at + self.limits.residency.retry_pause },
        };
        self.residency.resident(at, node, name, state);
    }

    pub(crate) fn homes_lost(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        self.residency.lost(turn.at, node);
    }

    pub(crate) fn reserved(&mut self, reservation: ReservationId, granted: bool, turn: &mut Turn<'_>) {
        self.residency.reserved(turn.at, reservation, granted);
    }

    pub(crate) fn recall(&mut self, fact: Fact) {
        match fact {
            Fact::Breaker(step) => self.breakers.restore(self.now, &[step], &self.limits.breaker),
            Fact::Blame(fact) => self.blame.restore(&[fact], &self.limits.blame),
            Fact::Home { node, model, bytes } => self.residency.reservation(self.now, node, model, bytes),
        }
    }

    /// Looks again at which model is where, when it is time.
    pub(crate) fn plan_homes(&mut self, turn: &mut Turn<'_>) {
        if self.settling().is_some() || self.residency.next_deadline().is_none_or(|at| at > turn.at) {
            return;
        }
        let mut actions = Vec::new();
        let (reference, rates, batcher) = (&self.reference, &self.rates, &self.batcher);
        let usual = self.limits.usual_width.max(1);
        let speed = |node: NodeId, model: ModelId| {
            // As wide as its pace was measured; what does not run there yet is taken to be given as much as is usual.
            let width = match batcher.limit((node, model)) {
                0 => usual,
                limit => limit.min(usual),
            };
            let own_s = rates.speed((node, model)).step_s(width, 0) / f64::from(width);
            reference.pace(model).decode_s / own_s
        };
        let view = PlanView { waiting: self.waiting_work(), lanes: self.uses(), speed: &speed };
        self.residency.plan(turn.at, &view, &mut actions);
        turn.effects.extend(actions.into_iter().map(order));
        self.refuse_the_homeless(turn);
    }

    /// The reservations and evictions that no fact has answered yet.
    pub(crate) fn homes_outstanding(&self) -> impl Iterator<Item = Effect> {
        let mut actions = Vec::new();
        self.residency.resume(&mut actions);
        actions.into_iter().map(order)
    }

    /// Who waits for a model that no node can come to hold is told so, instead of waiting for its deadline.
    fn refuse_the_homeless(&mut self, turn: &mut Turn<'_>) {
        let lines: Vec<ModelId> = self.queue.lengths().map(|(model, _)| model).collect();
        for model in lines {
            let Some(why) = self.homeless(model) else { continue };
            for request in self.queue.line(model).collect::<Vec<_>>() {
                self.refuse(request, Refusal::NoCapacity(why.clone()), turn);
            }
        }
    }

    /// Why no node will come to hold the model, whatever is waited for.
    pub(crate) fn homeless(&self, model: ModelId) -> Option<WhyNot> {
        if self.fleet.holders(model).next().is_some() || self.settling().is_some() {
            return None;
        }
        self.residency.refusal(self.now, model).filter(WhyNot::is_final)
    }

    fn waiting_work(&self) -> BTreeMap<ModelId, Waiting> {
        let lines = self.queue.lengths().filter_map(|(model, count)| {
            let (count, work) = (u32::try_from(count).unwrap_or(u32::MAX), self.queue.work_for(model));
            Some((model, Waiting { count, work, oldest: self.queue.oldest(model)? }))
        });
        lines.collect()
    }

    fn uses(&self) -> BTreeMap<Lane, Use> {
        let lanes = self.fleet.lanes().filter(|lane| self.residency.has(*lane)).map(|lane| {
            let busy = self.ledger.last_end(lane).map_or(Span::ZERO, |ends| ends.since(self.now));
            let usage = Use {
                in_flight: self.ledger.on_lane(lane),
                busy,
                last_use: self.fleet.last_use(lane),
                prefix_value: Span::ZERO,
            };
            (lane, usage)
        });
        lanes.collect()
    }
}

fn order(action: Action) -> Effect {
    match action {
        Action::Reserve { node, model, bytes, number, .. } => {
            Effect::Reserve { reservation: number, node, model, bytes }
        }
        Action::Evict { node, model, .. } => Effect::Evict { node, model },
    }
}
