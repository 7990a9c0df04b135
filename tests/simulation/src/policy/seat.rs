//! What a router remembers of one node.
//!
//! Owns the counts behind a [`NodeView`]: what is bound there, the prefill work among it, the latency so far, the prompts
//! sent there, the models held there. Refuses to choose.

use scheduler::{At, Block, ModelId, NodeId, Span};

use super::rules::{NodeView, Rule};
use super::{FailureKind, Order};
use crate::cache::Cache;
use crate::fleet::{Fleet, NodeSpec};
use crate::request::{BLOCK_TOKENS, Request, Workload};

/// Weight of the latest latency in the moving average.
const LATENCY_SHARE: f64 = 0.1;
/// Before the first answer: pessimistic, as Linkerd's default is.
const LATENCY_GUESS_S: f64 = 1.0;
/// `SGLang` bounds its trees by characters; this is about what that comes to.
const TREE_BLOCKS: usize = 65_536;

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) alive: bool,
    slots: u32,
    kv_room: f64,
    pending: u32,
    /// Prefill seconds of those that have no token yet.
    unread_s: f64,
    /// When the prefill under way is believed to have started.
    since: At,
    kv_bytes: f64,
    latency_s: f64,
    /// By model: what it is believed to have cached.
    trees: Vec<Cache>,
    /// Models held or on their way, with when they were last asked for, the oldest first.
    held: Vec<(ModelId, At)>,
}

impl Seat {
    pub(super) fn new(fleet: &Fleet, spec: &NodeSpec, rule: Rule) -> Self {
        let capacity = |kv_bytes: f64| match rule {
            Rule::CacheAware(_) => TREE_BLOCKS,
            Rule::RoundRobin
            | Rule::Random
            | Rule::ShortestQueue
            | Rule::WeightedQueue
            | Rule::TwoChoices
            | Rule::TwoChoicesEwma
            | Rule::BoundedHash
            | Rule::LeastLoad
            | Rule::EarliestFirstToken
            | Rule::ExpectedCompletion => (spec.cache_bytes / kv_bytes / f64::from(BLOCK_TOKENS)) as usize,
        };
        Self {
            node: spec.id,
            alive: true,
            slots: spec.rows_max,
            kv_room: spec.memory_bytes / 2.0,
            pending: 0,
            unread_s: 0.0,
            since: At(0),
            kv_bytes: 0.0,
            latency_s: LATENCY_GUESS_S,
            trees: fleet.models.iter().map(|model| Cache::new(capacity(model.kv_bytes))).collect(),
            held: Vec::new(),
        }
    }

    pub(super) fn holds(&self, model: ModelId) -> bool {
        self.held.iter().any(|(held, _)| *held == model)
    }

    pub(super) fn view(
        &self,
        fleet: &Fleet,
        request: &Request,
        chain: &[Block],
        output_tokens: f64,
        at: At,
    ) -> NodeView {
        let tree = &self.trees[request.model.0 as usize];
        let speed = fleet.speed(self.node, request.model);
        let elapsed_s = at.since(self.since).0 as f64 / 1e6;
        let unread_s = if self.unread_s > 0.0 { (self.unread_s - elapsed_s).max(0.0) } else { 0.0 };
        let over = f64::from((self.pending + 1).saturating_sub(self.slots));
        let slots = f64::from(self.slots);
        let turn_s = output_tokens * speed.step_s(slots, 0.0) / slots;
        NodeView {
            number: self.node.0,
            pending: self.pending,
            slots: self.slots,
            queue_s: unread_s.max(over * turn_s),
            speed,
            latency_s: self.latency_s,
            cached_tokens: tree.length(chain) as u32 * BLOCK_TOKENS,
            tree_blocks: tree.size(),
            kv_used: self.kv_bytes / self.kv_room,
        }
    }

    pub(super) fn bind(&mut self, at: At, request: &Request, prefill_s: f64, work: &Workload) {
        if self.unread_s <= 0.0 {
            self.since = at;
        }
        self.pending += 1;
        self.unread_s += prefill_s;
        self.kv_bytes += kv_bytes(request);
        self.trees[request.model.0 as usize].insert(work.whole(request.chain));
    }

    pub(super) fn began(&mut self, at: At, prefill_s: f64) {
        self.unread_s = (self.unread_s - prefill_s).max(0.0);
        self.since = at;
    }

    /// `waits` is the prefill of a request that never began.
    pub(super) fn unbind(&mut self, at: At, request: &Request, waits: Option<f64>) {
        self.pending = self.pending.saturating_sub(1);
        self.kv_bytes = (self.kv_bytes - kv_bytes(request)).max(0.0);
        if let Some(prefill_s) = waits {
            self.began(at, prefill_s);
        }
        if self.pending == 0 {
            self.unread_s = 0.0;
        }
    }

    pub(super) fn took(&mut self, span: Span) {
        self.latency_s += (span.0 as f64 / 1e6 - self.latency_s) * LATENCY_SHARE;
    }

    /// The model is asked for here: it is loaded if it is not, and the ones longest not asked for make room.
    pub(super) fn make_resident(&mut self, fleet: &Fleet, model: ModelId, at: At, orders: &mut Vec<Order>) {
        let node = self.node;
        let known = self.held.iter().position(|(held, _)| *held == model);
        if let Some(index) = known {
            self.held.remove(index);
        } else {
            let fits = |held: &[(ModelId, At)]| {
                let held: Vec<ModelId> = held.iter().map(|(model, _)| *model).collect();
                fleet.node(node).fits(&fleet.models, &held, model)
            };
            while !self.held.is_empty() && !fits(&self.held) {
                let (victim, _) = self.held.remove(0);
                orders.push(Order::Unload { node, model: victim });
            }
            orders.push(Order::Load { node, model });
        }
        self.held.push((model, at));
    }

    /// A complete list of what the node holds. Returns whether there is anything new in it.
    pub(super) fn reported(&mut self, models: Vec<ModelId>) -> bool {
        let before = self.held.len();
        let was_alive = std::mem::replace(&mut self.alive, true);
        self.held.retain(|(held, _)| models.contains(held));
        let gone = before != self.held.len();
        let new: Vec<ModelId> = models.into_iter().filter(|model| !self.holds(*model)).collect();
        let some_new = !new.is_empty();
        self.held.splice(0..0, new.into_iter().map(|model| (model, At(0))));
        some_new || gone || !was_alive
    }

    pub(super) fn forget_unless_loading(&mut self, model: ModelId, kind: FailureKind) {
        if kind == FailureKind::NotResident {
            self.held.retain(|(held, _)| *held != model);
        }
    }

    pub(super) fn lost(&mut self) {
        self.alive = false;
        self.held.clear();
    }
}

/// What a router can guess: the prompt at the KV size of an 8B model.
fn kv_bytes(request: &Request) -> f64 {
    f64::from(request.prompt_tokens) * 131_072.0
}
