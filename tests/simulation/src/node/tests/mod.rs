//! A node's hours in seconds: a room with one Mac of round numbers, driven from change to change.
//!
//! Owns what the tests of the node share. The hand-computed cases are in `by_hand`, the comparison with a simulation that
//! takes every single step in `step_by_step`.

mod by_hand;
mod step_by_step;

use scheduler::{Attempt, ModelId, NodeId, RequestId};

use super::{Node, Notice, Phase, Row};
use crate::fleet::{Fleet, NodeSpec};
use crate::hardware::{Speed, chip_named, model_named};
use crate::request::{Chain, Workload};

/// 20 ms a step, half of it more for each further row, 1,000 prompt tokens a second.
const ROUND: Speed = Speed {
    step_s: 0.02,
    batch_slope: 0.5,
    kv_token_s: 0.0,
    prefill_tokens_per_s: 1_000.0,
    attention_pair_s: 0.0,
    overhead_s: 0.01,
    load_s: None,
};

/// One node that may hold as many models as there are speeds.
fn fleet(speeds: &[Speed]) -> Fleet {
    let node = NodeSpec {
        id: NodeId(0),
        chip: chip_named("M1").expect("a chip"),
        memory_bytes: 100e9,
        cache_bytes: 1e9,
        load_bytes_per_s: 4.52e9,
        rows_max: 4,
        chunk_tokens: 512,
        holds: Vec::new(),
    };
    let model = model_named("8b").expect("a model");
    Fleet::new(vec![node], vec![model; speeds.len()], vec![speeds.to_vec()])
}

fn row(request: u64, prompt: u32, output: u32) -> Row {
    Row {
        request: RequestId(request),
        attempt: Attempt(1),
        prompt,
        output,
        reserve: prompt + output,
        chain: Chain::default(),
        noise: 1.0,
        poison: false,
        chunk: None,
    }
}

/// A node with everything it has said so far, each with its microsecond.
struct Drive<'a> {
    node: Node<'a>,
    work: Workload,
    said: Vec<(u64, Notice)>,
}

impl<'a> Drive<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        let mut node = Node::new(fleet, &fleet.nodes[0]);
        for model in 0..fleet.models.len() {
            let model = ModelId(model as u32);
            assert!(node.load(model), "it fits");
            node.lane_mut(model).expect("a lane").phase = Phase::Ready;
        }
        Self { node, work: Workload::default(), said: Vec::new() }
    }

    fn accept(&mut self, at: u64, model: u32, row: Row) {
        self.until(at);
        assert!(self.node.accept(at, ModelId(model), row, &self.work));
    }

    /// Everything that happens up to `at`.
    fn until(&mut self, at: u64) {
        while let Some(due) = self.node.due().filter(|due| *due <= at) {
            let mut notices = Vec::new();
            self.node.advance(&self.work, &mut notices);
            self.said.extend(notices.into_iter().map(|notice| (due, notice)));
        }
    }

    /// First and last tokens: microsecond, request, whether it is the last.
    fn tokens(&mut self) -> Vec<(u64, u64, bool)> {
        self.until(u64::MAX);
        let tokens = self.said.iter().filter_map(|(at, notice)| match notice {
            Notice::Began { request, .. } => Some((*at, request.0, false)),
            Notice::Ended { request, .. } => Some((*at, request.0, true)),
            Notice::Dropped { .. } | Notice::Poisoned { .. } => None,
        });
        tokens.collect()
    }
}
