//! Which models are resident on which Macs: the planner.
//!
//! Owns the wish, never the deed. A load is a reservation, proposed to the registry and granted as a fact before the agent may
//! begin; room is made by evictions that count as taken until the registry has released them. Refuses to dispatch, to judge
//! health and to know requests: it is told how much waits for which model, and how busy each replica is.
//!
//! A plan is made every few seconds, and at once when a fact calls for one: memory came free, a load ended, a request came for a
//! model that could have its first replica in free room. It has three steps:
//!
//! 1. What must go, goes (`shed`): failures, overdue loads, what exceeds a budget, replicas too many or too long idle.
//! 2. Loads that were chosen and wait for memory are proposed once it is free, or dropped when nobody wants them any more. The
//!    evictions and the load they make room for are one decision, and nothing else takes that room.
//! 3. What is wanted is placed, in the order of `wants`, each where it costs least (`choose`), at the cost of whom `evict` says.
//!
//! The rooms: `facts` (what is told), `offers` (what nodes could hold), `memory` (what they hold, `replica` by replica), `policy`
//! and `pins` (what operators want), `demand` (what clients want), `survey` (all of it, `appraise`d for one plan), `refusal` and
//! `eta` (what is said to those who wait), `laws` (what is true after every plan).

mod facts;
mod action;
mod view;
mod demand;
mod offers;
mod policy;
mod replica;
mod memory;
mod pins;
mod survey;
mod appraise;
mod shed;
mod wants;
mod choose;
mod evict;
mod eta;
mod refusal;
pub(crate) mod laws;

use alloc::string::String;
use alloc::vec::Vec;

pub use action::ReservationId;
pub(crate) use action::{Action, EvictReason, LoadReason};
pub(crate) use memory::NodeFacts;
pub(crate) use offers::OfferFacts;
pub use policy::ModelPolicy;
pub use refusal::WhyNot;
pub(crate) use refusal::gib;
pub(crate) use replica::ResidentState;
pub(crate) use view::{PlanView, Use, Waiting};

use crate::ids::{Lane, ModelId, NodeId};
use crate::limits::{Limits, ResidencyLimits};
use crate::time::At;
use crate::verdict::Names;
use demand::Demand;
use memory::Memory;
use offers::Offers;
use policy::Policies;
use replica::{Phase, Replica};
#[cfg(debug_assertions)]
use survey::Room;
use survey::Survey;

/// The planner of a whole cluster.
#[derive(Debug)]
pub(crate) struct Residency {
    limits: ResidencyLimits,
    nodes_max: usize,
    memory: Memory,
    offers: Offers,
    policies: Policies,
    demand: Demand,
    /// The L of GreedyDual-Size-Frequency: the priority of what was evicted last.
    age: u64,
    last_number: ReservationId,
    next_plan: At,
    /// Models somebody waits for that the last plan could not place, in the order of their turns, with the oldest arrival.
    queue: Vec<(ModelId, At)>,
}

impl Residency {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.residency,
            nodes_max: limits.nodes_max,
            memory: Memory::default(),
            offers: Offers::default(),
            policies: Policies::default(),
            demand: Demand::default(),
            age: 0,
            last_number: ReservationId(0),
            next_plan: At(0),
            queue: Vec::new(),
        }
    }

    /// Whether requests may be sent there: ready, and not on its way out.
    #[cfg(test)]
    pub(crate) fn is_open(&self, node: NodeId, model: ModelId) -> bool {
        self.memory.get((node, model)).is_some_and(Replica::is_ready)
    }

    /// Whether memory is promised or meant for it.
    pub(crate) fn has(&self, lane: Lane) -> bool {
        self.memory.get(lane).is_some()
    }

    /// Whether the node has said how much memory it has.
    pub(crate) fn is_planned(&self, node: NodeId) -> bool {
        self.memory.budget(node) > 0
    }

    /// Whether the replica is on its way out.
    pub(crate) fn is_leaving(&self, lane: Lane) -> bool {
        self.memory.get(lane).is_some_and(Replica::is_leaving)
    }

    /// Where the model is on its way, with how far it has come, in words.
    pub(crate) fn phases(&self, model: ModelId, names: &dyn Names) -> impl Iterator<Item = (NodeId, String)> {
        let replicas = self.memory.iter().filter(move |((_, other), _)| *other == model);
        replicas.filter_map(|((node, _), replica)| Some((node, replica.phase_words(names)?)))
    }

    /// Whether no node has promised more memory than it has.
    ///
    /// # Errors
    /// The law that is broken.
    pub(crate) fn check(&self) -> Result<(), laws::Broken> {
        laws::reservations_fit(self, &[])
    }

    /// The models with memory on a node.
    pub(crate) fn on(&self, node: NodeId) -> impl Iterator<Item = ModelId> {
        self.memory.on(node).map(|((_, model), _)| model)
    }

    /// When to plan next.
    pub(crate) fn next_deadline(&self) -> Option<At> {
        self.memory.nodes().next().map(|_| self.next_plan)
    }

    /// Appends what follows from the state of things. Planning at other times does no harm.
    pub(crate) fn plan(&mut self, at: At, view: &PlanView<'_>, out: &mut Vec<Action>) {
        #[cfg(debug_assertions)]
        let before = out.len();
        self.note_use(view);
        let mut survey = self.survey(at, view);
        self.shed(&mut survey, out);
        self.settle(&mut survey, out);
        self.load(&mut survey, out);
        let patient = self.queue.is_empty();
        self.next_plan = at + if patient { self.limits.plan_every } else { self.limits.plan_every_waiting };
        #[cfg(debug_assertions)]
        {
            let agrees = |room: &Room| room.committed == self.memory.committed(room.node);
            debug_assert!(survey.rooms.iter().all(agrees), "the survey is what the memory has become");
            debug_assert_eq!(laws::check(self, view, out.get(before..).unwrap_or_default()), Ok(()));
        }
    }

    /// Repeats what is outstanding, for a shell or an agent that lost it.
    pub(crate) fn resume(&self, out: &mut Vec<Action>) {
        for ((node, model), replica) in self.memory.iter() {
            match replica.phase {
                Phase::Asked { number, why } => {
                    out.push(Action::Reserve { node, model, bytes: replica.bytes, number, why });
                }
                Phase::Leaving { why } => out.push(Action::Evict { node, model, why }),
                Phase::Intended { .. }
                | Phase::Reserved
                | Phase::Loading { .. }
                | Phase::Ready
                | Phase::Failed => {}
            }
        }
    }

    /// 2
    fn settle(&mut self, survey: &mut Survey<'_>, out: &mut Vec<Action>) {
        for (lane, phase) in self.memory.lanes(|_, replica| !replica.is_taken()) {
            let Phase::Intended { why } = phase else { continue };
            if self.is_wanted(survey, lane, why) && self.memory.is_usable(lane.0) {
                self.propose(lane, survey.at, out);
            } else {
                self.drop_intention(survey, lane);
            }
        }
    }

    /// 3
    fn load(&mut self, survey: &mut Survey<'_>, out: &mut Vec<Action>) {
        self.queue.clear();
        for want in self.wants(survey) {
            // One load per model and plan, but for pins.
            if want.why != LoadReason::Pinned && survey.standing(want.model).placed {
                continue;
            }
            if let Some(placement) = self.choose(survey, &want) {
                for victim in placement.victims {
                    self.evict(survey, victim, EvictReason::Displaced { by: want.model }, out);
                }
                let lane = (placement.node, want.model);
                let phase = Phase::Intended { why: want.why };
                self.insert(lane, Replica::new(placement.bytes, phase, survey.at, self.age));
                survey.placed(lane, placement.bytes);
                self.propose(lane, survey.at, out);
            } else if want.why == LoadReason::Waiting {
                self.keep_a_place(survey, &want);
                self.queue.push((want.model, survey.standing(want.model).waiting.oldest));
            }
        }
    }

    /// Takes back a load that has no reservation yet.
    fn drop_intention(&mut self, survey: &mut Survey<'_>, lane: Lane) {
        self.memory.remove(lane);
        survey.gone(lane);
    }

    /// Asks for the memory if it is free.
    fn propose(&mut self, lane: Lane, at: At, out: &mut Vec<Action>) {
        let (node, model) = lane;
        let Some(replica) = self.memory.get(lane) else { return };
        let (bytes, Phase::Intended { why }) = (replica.bytes, replica.phase) else { return };
        if !self.memory.has_room_now(node, bytes) {
            return;
        }
        let number = ReservationId(self.last_number.0.saturating_add(1));
        self.last_number = number;
        if let Some(replica) = self.memory.get_mut(lane) {
            replica.enter(Phase::Asked { number, why }, at);
        }
        out.push(Action::Reserve { node, model, bytes, number, why });
    }

    /// A use renews a replica's place in the order of eviction.
    fn note_use(&mut self, view: &PlanView<'_>) {
        for (lane, usage) in &view.lanes {
            if let Some(replica) = self.memory.get_mut(*lane)
                && replica.used.is_none_or(|used| used < usage.last_use)
            {
                replica.used = Some(usage.last_use);
                replica.stamp = self.age;
            }
        }
    }

    fn insert(&mut self, lane: Lane, replica: Replica) {
        self.memory.insert(lane, replica, self.nodes_max);
    }

    fn plan_by(&mut self, at: At) {
        self.next_plan = self.next_plan.min(at);
    }
}

#[cfg(test)]
mod stage_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod world_tests;
#[cfg(test)]
mod collation_tests;
#[cfg(test)]
mod history_tests;
