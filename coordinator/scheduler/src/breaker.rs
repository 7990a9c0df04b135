//! Which lanes and nodes are trusted with work: a circuit breaker for each runtime, and one over all runtimes of a node.
//!
//! Owns their states, the evidence for them and the one probe of the cluster. Refuses to know what runs: whoever dispatches
//! asks [`Breakers::gate`] first and says so to [`Breakers::dispatched`].
//!
//! ```text
//! Closed     too many are late                       -> Degraded
//! Closed     too many fail, or one hangs             -> Open
//! Degraded   five in time in a row                   -> Closed
//! Degraded   too many are still late                 -> Open, if the model can do without it
//! Degraded   too many fail, or one hangs             -> Open
//! Open       its time is over and its turn has come  -> Probing
//! Open       it was only late, and no other is left  -> Degraded
//! Probing    a canary, then one real request         -> SlowStart
//! Probing    anything fails                          -> Open, for twice as long
//! SlowStart  1, 2, 4 at once, up to the lane's width -> Closed
//! SlowStart  too many are late                       -> Degraded
//! SlowStart  anything fails                          -> Open, for twice as long
//! ```
//!
//! 1. Only an attempt that has ended speaks (`health`), and only if it was dispatched in the lane's present life: what began
//!    before the lane opened can neither open it again nor close it.
//! 2. A lane opens for failures however few replicas are left. It opens for lateness only while that leaves the model at
//!    least half of its replicas, and one to use.
//! 3. A node opens when several of its lanes fail at once, or when it is lost again and again. Then all its lanes are shut,
//!    and one of them is probed for all. A node on trial opens again at the first failure of any lane.
//! 4. There is one probe at a time in the whole cluster. It holds its canary, and then the lane's one real request.
//! 5. When no replica of a model is left, waiting longer helps nobody (`relief`).
//!
//! The shape is the circuit breaker of Nygard ("Release It!", 2007) with outlier detection's cap (Envoy) and slow start.

mod backoff;
mod circuit;
mod gate;
mod health;
pub(crate) mod laws;
mod memory;
mod moves;
mod probing;
mod relief;
mod restore;
mod transitions;
mod view;
mod watched;
mod window;
mod words;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::ids::{Generation, Lane, ModelId, NodeId};
use crate::limits::BreakerLimits;
use crate::time::At;

use circuit::{Change, Phase};
use probing::Probe;
use watched::{WatchedLane, WatchedNode};

pub(crate) use gate::Admission;
pub(crate) use health::Ending;
pub use health::{HardKind, Health, SoftKind};
pub use moves::{Breaker, BreakerState, Cause, Move, MoveReason};
pub use probing::{ProbeNumber, ProbeOrder, ProbeResult};
pub use view::{BreakerView, Tally};

#[derive(Debug)]
pub(crate) struct Breakers {
    seed: u64,
    lanes: BTreeMap<Lane, WatchedLane>,
    /// Those that were lost or opened.
    nodes: BTreeMap<NodeId, WatchedNode>,
    /// Every open breaker that could be probed once its time is over, by that time.
    due: BTreeSet<(At, Breaker)>,
    probe: Option<Probe>,
    /// Probes ordered so far.
    probes: u64,
    /// Above every life of a lane that was forgotten; the first life of a new one.
    retired: Generation,
}

impl Breakers {
    /// Leaders with the same `seed` keep a lane open for the same time.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            lanes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            due: BTreeSet::new(),
            probe: None,
            probes: 0,
            retired: Generation::default(),
        }
    }

    /// The node holds the model. Said again, it changes nothing. A lane that was never reported is free and unwatched.
    pub(crate) fn report(&mut self, lane: Lane, limits: &BreakerLimits) {
        if let Some(watched) = self.watch(lane, limits).filter(|watched| !watched.resident) {
            watched.resident = true;
            self.reindex(Breaker::Lane(lane));
            self.reindex(Breaker::Node(lane.0));
        }
    }

    /// The node holds the model no more: it was unloaded, or its runtime or the node went away. To be said after what became
    /// of the attempts that ran there. A breaker outlives its runtime as long as there is anything to hold against it, so
    /// that a crash loop is not trusted anew with each crash; and a runtime that vanishes under its probe has failed it.
    pub(crate) fn forget(&mut self, at: At, lane: Lane, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        if self.probe.is_some_and(|probe| probe.lane == lane) {
            self.fail_probe(at, MoveReason::Vanished, limits, moves);
        }
        let next_life = Generation(self.generation(lane).0.saturating_add(1));
        let Some(watched) = self.lanes.get_mut(&lane) else { return };
        watched.resident = false;
        if watched.circuit.phase == Phase::Closed && watched.memory.is_clean(at, limits) {
            self.lanes.remove(&lane);
            self.retired = self.retired.max(next_life);
        }
        self.reindex(Breaker::Lane(lane));
        self.reindex(Breaker::Node(lane.0));
    }

    /// An attempt has ended. To be told once for each, when nothing more of it can come.
    pub(crate) fn observe(&mut self, at: At, ending: &Ending, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        if !self.hears(ending, limits) {
            return;
        }
        // What a lane does under its own probe tells nothing new about its node.
        let own_probe = self.probe.is_some_and(|probe| probe.breaker == Breaker::Lane(ending.lane));
        self.observe_lane(at, ending, limits, moves);
        if !own_probe {
            self.observe_node(at, ending, limits, moves);
        }
    }

    /// The node is gone without having said that it would go. To be said once for each loss, before its lanes are forgotten.
    pub(crate) fn node_lost(&mut self, at: At, node: NodeId, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        if self.probe.is_some_and(|probe| probe.lane.0 == node) {
            self.fail_probe(at, MoveReason::Failure(HardKind::NodeLost), limits, moves);
        }
        let Some(watched) = self.watch_node(node, limits) else { return };
        let flaps = watched.lost(at, limits);
        match watched.circuit.phase {
            Phase::Closed | Phase::Degraded { .. } if !flaps => {}
            Phase::Closed | Phase::Degraded { .. } | Phase::SlowStart { .. } => {
                let open = Change::Open(Cause::Hard);
                self.shift(at, Breaker::Node(node), open, MoveReason::Flapping, limits, moves);
            }
            Phase::Open { .. } | Phase::Probing { .. } => {}
        }
    }

    /// The life of a lane, to be kept with each attempt that is dispatched there.
    pub(crate) fn generation(&self, lane: Lane) -> Generation {
        let own = self.lanes.get(&lane).map_or(self.retired, |watched| watched.circuit.generation);
        // Each of the two only grows, so their sum is another one whenever either opens.
        let node = self.nodes.get(&lane.0).map_or(0, |watched| watched.circuit.generation.0);
        Generation(own.0.saturating_add(node))
    }

    /// The life to keep with an attempt that an earlier leader sent. What is on trial or shut was so before that, for all that is
    /// known, and the attempt is not what it is tried by.
    pub(crate) fn generation_taken_over(&self, lane: Lane, limits: &BreakerLimits) -> Generation {
        let current = self.generation(lane);
        match self.gate(lane, limits) {
            Admission::Free | Admission::Penalised { .. } => current,
            Admission::Limited { .. } | Admission::OneProbeRequest { .. } | Admission::Shut { .. } => {
                Generation(current.0.saturating_sub(1))
            }
        }
    }

    /// When to call [`Breakers::due`], and for which breaker. While a probe is out only its own time matters.
    pub(crate) fn next_deadline(&self) -> Option<(At, Breaker)> {
        match self.probe {
            Some(probe) => Some((probe.until, probe.breaker)),
            None => self.due.first().copied(),
        }
    }

    /// Whether anything is not trusted in full, so that somebody may need relief.
    pub(crate) fn any_shut(&self) -> bool {
        self.probe.is_some() || !self.due.is_empty()
    }

    /// `None` for what was never watched, or is closed and forgotten.
    pub(crate) fn explain(&self, breaker: Breaker) -> Option<BreakerView> {
        let memory = match breaker {
            Breaker::Lane(lane) => self.lanes.get(&lane).map(|watched| &watched.memory),
            Breaker::Node(_) => None,
        };
        self.circuit(breaker).map(|circuit| BreakerView::new(circuit, memory))
    }

    /// Whether an attempt's end is news: the lane is watched, has not opened since, and could have been given that attempt.
    fn hears(&self, ending: &Ending, limits: &BreakerLimits) -> bool {
        let current = ending.generation >= self.generation(ending.lane);
        current && self.lanes.contains_key(&ending.lane) && self.gate(ending.lane, limits).has_attempts()
    }

    fn observe_lane(&mut self, at: At, ending: &Ending, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        let dispensable = matches!(ending.health, Health::Soft(_)) && self.is_dispensable(ending);
        let watched = self.lanes.get_mut(&ending.lane);
        if let Some((change, why)) = watched.and_then(|lane| lane.tell(at, ending, dispensable, limits)) {
            self.shift(at, Breaker::Lane(ending.lane), change, why, limits, moves);
        }
    }

    fn observe_node(&mut self, at: At, ending: &Ending, limits: &BreakerLimits, moves: &mut Vec<Move>) {
        let node = ending.lane.0;
        let watched = self.nodes.get_mut(&node);
        let tried = watched.and_then(|watched| watched.circuit.tried(ending.health, ending.width));
        if let Some((change, why)) = tried {
            self.shift(at, Breaker::Node(node), change, why, limits, moves);
        }
        if self.cause(Breaker::Lane(ending.lane)) == Some(Cause::Hard) {
            self.open_node_of_failing_lanes(at, node, limits, moves);
        }
    }

    fn open_node_of_failing_lanes(
        &mut self,
        at: At,
        node: NodeId,
        limits: &BreakerLimits,
        moves: &mut Vec<Move>,
    ) {
        let failing = self.lanes_of(node).filter(|(_, watched)| watched.fails(at)).count();
        if failing >= limits.node_open_lanes
            && self.state(Breaker::Node(node)) == BreakerState::Closed
            && self.watch_node(node, limits).is_some()
        {
            let open = Change::Open(Cause::Hard);
            self.shift(at, Breaker::Node(node), open, MoveReason::LanesOpen, limits, moves);
        }
    }

    /// Whether the model can do without this lane. With it, `late + 1` of `replicas + late` would be open for lateness (those
    /// that fail are not counted as replicas): at most half of them when `replicas >= late + 2`. So another one is usable.
    fn is_dispensable(&self, ending: &Ending) -> bool {
        let model = ending.lane.1;
        let late = self.lanes.iter().filter(|((_, other), watched)| {
            *other == model && watched.resident && watched.circuit.cause() == Some(Cause::Soft)
        });
        ending.replicas >= late.count().saturating_add(2)
    }

    fn lanes_of(&self, node: NodeId) -> impl Iterator<Item = (Lane, &WatchedLane)> {
        let all = (node, ModelId(0))..=(node, ModelId(u32::MAX));
        self.lanes.range(all).map(|(lane, watched)| (*lane, watched))
    }

    fn watch(&mut self, lane: Lane, limits: &BreakerLimits) -> Option<&mut WatchedLane> {
        if !self.lanes.contains_key(&lane) && self.lanes.len() >= limits.lanes_max {
            return None;
        }
        Some(self.lanes.entry(lane).or_insert_with(|| WatchedLane::new(self.retired)))
    }

    fn watch_node(&mut self, node: NodeId, limits: &BreakerLimits) -> Option<&mut WatchedNode> {
        if !self.nodes.contains_key(&node) && self.nodes.len() >= limits.lanes_max {
            return None;
        }
        Some(self.nodes.entry(node).or_insert_with(WatchedNode::new))
    }
}

#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod matrix_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod rig_tests;
#[cfg(test)]
mod story_tests;
#[cfg(test)]
mod world_tests;
