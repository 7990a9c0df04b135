//! A Mac: its runtimes, their turns on the one GPU, its memory and its disk.
//!
//! Owns the clock of one node and advances it in closed form from change to change. A *round* is one step of every runtime
//! that has work: they take turns on the GPU, so each slows the others down by the length of its step. Between two changes
//! (a row ends, a prefill reaches its last chunk, somebody comes) all rounds are alike and [`Curve`] knows how long any
//! number of them takes. Refuses to know requests beyond their rows, and the world beyond its notices.
//!
//! Who comes, comes between two rounds. What breaks, breaks at once, and the round under way is lost.

mod curve;
mod lane;
mod row;
mod samples;
#[cfg(test)]
mod tests;

use scheduler::{ModelId, RequestId};

use self::curve::Curve;
pub(crate) use self::lane::{Lane, Phase};
pub(crate) use self::row::{Notice, Row};
pub use self::samples::StepSample;
use crate::fleet::{Fleet, NodeSpec};
use crate::limits::WARM_UP_S;
use crate::request::{BLOCK_TOKENS, Workload};

#[derive(Debug)]
pub(crate) struct Node<'a> {
    fleet: &'a Fleet,
    spec: &'a NodeSpec,
    pub(crate) up: bool,
    pub(crate) lanes: Vec<Lane>,
    /// Everything up to here has happened.
    clock: u64,
    plan: Option<Plan>,
    /// Grows with each plan, so that the end of an old one is not taken for that of the new one.
    pub(crate) plans: u64,
    slowdown: f64,
    loads: u32,
}

/// Rounds from the node's clock on, all alike.
#[derive(Clone, Copy, Debug)]
struct Plan {
    curve: Curve,
    rounds: u64,
    ends: u64,
    lanes: usize,
}

impl<'a> Node<'a> {
    pub(crate) fn new(fleet: &'a Fleet, spec: &'a NodeSpec) -> Self {
        Self {
            fleet,
            spec,
            up: true,
            lanes: Vec::new(),
            clock: 0,
            plan: None,
            plans: 0,
            slowdown: 1.0,
            loads: 0,
        }
    }

    /// When something of its own will happen.
    pub(crate) fn due(&self) -> Option<u64> {
        self.plan.map(|plan| plan.ends)
    }

    /// The time has come that [`Node::due`] has told.
    pub(crate) fn advance(&mut self, work: &Workload, out: &mut Vec<Notice>) {
        if let Some(plan) = self.plan.take() {
            self.pass(&plan, plan.rounds, work, out);
            self.clock = plan.ends;
        }
        self.replan(work);
    }

    /// A row comes to a runtime; `false` when there is none that takes it.
    pub(crate) fn accept(&mut self, at: u64, model: ModelId, row: Row, work: &Workload) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.model == model && !lane.leaving) else {
            return false;
        };
        lane.chunk = row.chunk.unwrap_or(lane.chunk).max(1);
        lane.waiting.push_back(row);
        self.join(at, work);
        true
    }

    /// Something has changed that takes effect with the next round.
    pub(crate) fn join(&mut self, at: u64, work: &Workload) {
        if let Some(plan) = self.plan {
            let begun = if at > self.clock { plan.curve.rounds_within(self.since(at)) + 1 } else { 0 };
            if begun >= plan.rounds {
                return;
            }
            self.plan = None;
            let nothing_ends = &mut Vec::new();
            self.pass(&plan, begun, work, nothing_ends);
            self.clock += micros(plan.curve.seconds(begun));
        }
        self.clock = self.clock.max(at);
        self.replan(work);
    }

    /// Something breaks: the rounds that are over count, the one under way does not. The caller must [`Node::replan`].
    pub(crate) fn cut(&mut self, at: u64, work: &Workload) {
        if let Some(plan) = self.plan.take() {
            let over = plan.curve.rounds_within(self.since(at)).min(plan.rounds - 1);
            let nothing_ends = &mut Vec::new();
            self.pass(&plan, over, work, nothing_ends);
        }
        self.clock = self.clock.max(at);
    }

    fn pass(&mut self, plan: &Plan, rounds: u64, work: &Workload, out: &mut Vec<Notice>) {
        let (elapsed_s, alone) = (plan.curve.seconds(rounds), plan.lanes == 1);
        for lane in &mut self.lanes {
            lane.pass(rounds, elapsed_s, alone, work, out);
        }
    }

    /// Starts what can start and lays out the rounds to come.
    pub(crate) fn replan(&mut self, work: &Workload) {
        self.plans += 1;
        self.plan = None;
        if !self.up {
            return;
        }
        self.admit(work);
        let (mut curve, mut rounds, mut lanes) = (Curve::default(), u64::MAX, 0);
        for lane in &mut self.lanes {
            let Some(turn) = lane.plan(self.slowdown) else { continue };
            curve = curve + turn.curve();
            rounds = rounds.min(turn.rounds);
            lanes += 1;
        }
        if lanes > 0 {
            let ends = self.clock + micros(curve.seconds(rounds)).max(1);
            self.plan = Some(Plan { curve, rounds, ends, lanes });
        }
    }

    /// In each runtime the next of the line starts while a slot is free and its memory is. A request that no memory would hold
    /// runs alone rather than never.
    fn admit(&mut self, work: &Workload) {
        let room = self.kv_room();
        let reserved = self.lanes.iter().map(|lane| lane.reserved_tokens as f64 * self.kv_bytes(lane.model));
        let mut used: f64 = reserved.sum();
        for lane in &mut self.lanes {
            let kv_bytes = self.fleet.model(lane.model).kv_bytes;
            while let Some(place) = lane.next_in_line(self.spec.rows_max, work) {
                let bytes = lane.waiting.get(place).map_or(0.0, |row| f64::from(row.reserve) * kv_bytes);
                if used + bytes > room && used > 0.0 {
                    break;
                }
                used += bytes;
                lane.start(place, work);
            }
        }
    }

    fn since(&self, at: u64) -> f64 {
        at.saturating_sub(self.clock) as f64 / 1e6
    }
}

/// Memory, the disk, and what breaks.
impl Node<'_> {
    pub(crate) fn lane(&self, model: ModelId) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.model == model)
    }

    pub(crate) fn lane_mut(&mut self, model: ModelId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.model == model)
    }

    /// The model is to become resident, once what leaves has left; `false` when there is no memory for it even then.
    pub(crate) fn load(&mut self, model: ModelId) -> bool {
        if self.lane(model).is_some_and(|lane| !lane.leaving) {
            return true;
        }
        let staying = self.lanes.iter().filter(|lane| !lane.leaving).map(|lane| self.footprint(lane.model));
        if staying.sum::<f64>() + self.footprint(model) > self.spec.weights_room() {
            return false;
        }
        if let Some(lane) = self.lane_mut(model) {
            lane.leaving = false;
        } else {
            let speed = self.fleet.speed(self.spec.id, model);
            let blocks = self.spec.cache_bytes / (self.kv_bytes(model) * f64::from(BLOCK_TOKENS));
            self.lanes.push(Lane::new(model, speed, self.spec.chunk_tokens, blocks as usize));
        }
        true
    }

    /// Lets go of what is to leave and has ended, and gives the disk its next load: which one, and the seconds it takes.
    pub(crate) fn tend(&mut self) -> Option<(ModelId, f64)> {
        self.lanes.retain(|lane| !(lane.leaving && lane.is_idle()));
        let loading = self.lanes.iter().any(|lane| lane.phase == Phase::Loading);
        if loading || !self.up {
            return None;
        }
        let held = self.lanes.iter().filter(|lane| lane.phase != Phase::Queued);
        let held: f64 = held.map(|lane| self.footprint(lane.model)).sum();
        let room = self.spec.weights_room() - held;
        let next = self.lanes.iter().position(|lane| {
            lane.phase == Phase::Queued && !lane.leaving && self.footprint(lane.model) <= room
        })?;
        let model = self.lanes[next].model;
        self.lanes[next].phase = Phase::Loading;
        self.loads += 1;
        self.lanes[next].life = self.loads;
        Some((model, self.load_s(model)))
    }

    pub(crate) fn load_s(&self, model: ModelId) -> f64 {
        let expected = self.fleet.model(model).weights_bytes / self.spec.load_bytes_per_s + WARM_UP_S;
        self.fleet.speed(self.spec.id, model).load_s.unwrap_or(expected)
    }

    /// Every runtime dies, and comes back from the disk once the node is up.
    pub(crate) fn die(&mut self, at: u64, work: &Workload, out: &mut Vec<Notice>) {
        self.cut(at, work);
        self.lanes.iter_mut().for_each(|lane| lane.die(out));
        self.up = false;
        self.replan(work);
    }

    pub(crate) fn slow_down(&mut self, at: u64, factor: f64, work: &Workload) {
        self.slowdown = factor;
        self.join(at, work);
    }

    /// GPU seconds that each running row has had up to `at`.
    pub(crate) fn served(&self, at: u64, mut tell: impl FnMut(RequestId, f64)) {
        let rounds = self.plan.map_or(0, |plan| plan.curve.rounds_within(self.since(at)).min(plan.rounds));
        self.lanes.iter().for_each(|lane| lane.served(rounds, &mut tell));
    }

    fn footprint(&self, model: ModelId) -> f64 {
        self.fleet.model(model).weights_bytes + self.spec.cache_bytes
    }

    /// What weights and prefix caches leave for the rows.
    fn kv_room(&self) -> f64 {
        let held = self.lanes.iter().filter(|lane| lane.phase != Phase::Queued);
        self.spec.memory_bytes - held.map(|lane| self.footprint(lane.model)).sum::<f64>()
    }

    fn kv_bytes(&self, model: ModelId) -> f64 {
        self.fleet.model(model).kv_bytes
    }
}

/// Up to the next whole microsecond, but for a rounding error.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6 - 1e-3).ceil() as u64
}
