//! What breaks, when.
//!
//! Owns the kinds of faults and how often they come. Refuses to carry them out; the world does. A poison request is not here:
//! it is a property of the request.

use scheduler::{ModelId, NodeId};
use serde::{Deserialize, Serialize};

use crate::fleet::Fleet;
use crate::random::{Purpose, Random};

/// Something breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A runtime exits; its agent starts it again.
    Crash(NodeId, ModelId),
    /// A runtime makes no progress until it is killed.
    Hang(NodeId, ModelId),
    /// A runtime's answers are garbage until it is started again.
    Lie(NodeId, ModelId),
    /// A node vanishes and comes back after so many seconds.
    NodeLost(NodeId, f64),
    /// A node's work takes `factor` times as long, for so many seconds.
    Slow(NodeId, f64, f64),
    /// Loads come to nothing, for so many seconds.
    LoadsFail(NodeId, f64),
    /// Reports are lost, for so many seconds.
    Mute(NodeId, f64),
    /// New attempts are refused, for so many seconds.
    Busy(NodeId, f64),
}

/// How often each node suffers what, per hour. What has a length lasts an exponential time of mean `lasting_s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultRates {
    /// Crashes of a runtime.
    pub crashes: f64,
    /// Runtimes that hang.
    pub hangs: f64,
    /// Runtimes that begin to answer with garbage.
    pub lies: f64,
    /// Losses of the node.
    pub losses: f64,
    /// Times of slowness.
    pub slowings: f64,
    /// How much slower.
    pub slow_factor: f64,
    /// Times in which loads fail.
    pub load_failures: f64,
    /// Times in which reports are lost.
    pub silences: f64,
    /// Times in which all is refused.
    pub refusals: f64,
    /// Mean length of what has one.
    pub lasting_s: f64,
}

impl FaultRates {
    /// A bad day: every node suffers everything about once in two hours.
    #[must_use]
    pub fn bad_day() -> Self {
        Self {
            crashes: 0.5,
            hangs: 0.5,
            lies: 0.0,
            losses: 0.5,
            slowings: 0.5,
            slow_factor: 5.0,
            load_failures: 0.5,
            silences: 0.5,
            refusals: 0.5,
            lasting_s: 60.0,
        }
    }

    /// All faults of a run of `span_s` seconds, each with its time in seconds, in no order.
    #[must_use]
    pub fn draw(&self, fleet: &Fleet, span_s: f64, seed: u64) -> Vec<(f64, Fault)> {
        let mut faults = Vec::new();
        for node in &fleet.nodes {
            for (kind, per_hour) in self.kinds().into_iter().enumerate() {
                let stream = node.id.0 * 16 + kind as u64;
                let mut random = Random::new(seed, Purpose::Faults, stream);
                let mut pause_s = || random.exponential() * 3_600.0 / per_hour;
                let first_s = if per_hour > 0.0 { pause_s() } else { f64::MAX };
                let times = std::iter::successors(Some(first_s), |at| Some(at + pause_s()));
                let times: Vec<f64> = times.take_while(|at| *at <= span_s).collect();
                faults.extend(times.into_iter().map(|at| {
                    let model = ModelId(random.below(fleet.models.len() as u64) as u32);
                    let lasting_s = random.exponential() * self.lasting_s;
                    (at, self.fault(kind, node.id, model, lasting_s))
                }));
            }
        }
        faults
    }

    fn kinds(&self) -> [f64; 8] {
        [
            self.crashes,
            self.hangs,
            self.lies,
            self.losses,
            self.slowings,
            self.load_failures,
            self.silences,
            self.refusals,
        ]
    }

    fn fault(&self, kind: usize, node: NodeId, model: ModelId, lasting_s: f64) -> Fault {
        match kind {
            0 => Fault::Crash(node, model),
            1 => Fault::Hang(node, model),
            2 => Fault::Lie(node, model),
            3 => Fault::NodeLost(node, lasting_s),
            4 => Fault::Slow(node, self.slow_factor.max(1.0), lasting_s),
            5 => Fault::LoadsFail(node, lasting_s),
            6 => Fault::Mute(node, lasting_s),
            _ => Fault::Busy(node, lasting_s),
        }
    }
}
