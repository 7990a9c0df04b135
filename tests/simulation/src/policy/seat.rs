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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{FleetPlan, alike};

    /// Room for three of four models.
    fn fleet() -> Fleet {
        FleetPlan::of(alike("M2 Max", 64.0, 1), &["8b"; 4]).build().expect("a fleet")
    }

    fn ask(seat: &mut Seat, fleet: &Fleet, model: u32, second: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        seat.make_resident(fleet, ModelId(model), At(second), &mut orders);
        orders
    }

    fn seat(fleet: &Fleet) -> Seat {
        let mut seat = Seat::new(fleet, &fleet.nodes[0], Rule::Random);
        seat.reported(vec![ModelId(0), ModelId(1), ModelId(2)]);
        seat
    }

    #[test]
    fn the_model_that_was_not_asked_for_longest_makes_room() {
        let (fleet, node) = (fleet(), NodeId(0));
        let mut seat = seat(&fleet);
        assert_eq!([1, 0, 2].map(|model| ask(&mut seat, &fleet, model, 1)), [vec![], vec![], vec![]]);
        let expected = [Order::Unload { node, model: ModelId(1) }, Order::Load { node, model: ModelId(3) }];
        assert_eq!(ask(&mut seat, &fleet, 3, 2), expected);
        assert!(seat.holds(ModelId(3)) && !seat.holds(ModelId(1)));
    }

    #[test]
    fn a_report_is_news_when_something_came_or_went() {
        let fleet = fleet();
        let mut seat = seat(&fleet);
        assert!(!seat.reported(vec![ModelId(2), ModelId(1), ModelId(0)]));
        assert!(seat.reported(vec![ModelId(0), ModelId(1)]));
        assert!(seat.reported(vec![ModelId(0), ModelId(1), ModelId(3)]));
        seat.lost();
        assert!(!seat.alive && !seat.holds(ModelId(0)));
        assert!(seat.reported(vec![]), "it is back");
    }

    #[test]
    fn prompts_that_are_bound_make_a_queue_that_shrinks_with_time_and_with_first_tokens() {
        let fleet = fleet();
        let (mut seat, work) = (seat(&fleet), Workload::default());
        let request = Request {
            id: scheduler::RequestId(0),
            arrived: At(0),
            tenant: scheduler::TenantId(0),
            class: scheduler::Class::Interactive,
            model: ModelId(0),
            prompt_tokens: 1_000,
            max_tokens: 100,
            deadline: At(u64::MAX),
            session: scheduler::SessionKey(0),
            chain: crate::request::Chain::default(),
            truth: crate::request::Truth::default(),
        };
        let queue = |seat: &Seat, second: u64| {
            let at = At(second * 1_000_000);
            seat.view(&fleet, &request, &[], 100.0, at).queue_s
        };
        seat.bind(At(0), &request, 4.0, &work);
        seat.bind(At(0), &request, 3.0, &work);
        assert_eq!((queue(&seat, 0), queue(&seat, 2)), (7.0, 5.0));
        seat.began(At(5_000_000), 4.0);
        assert_eq!(queue(&seat, 6), 2.0);
        seat.unbind(At(6_000_000), &request, Some(3.0));
        assert_eq!((queue(&seat, 6), seat.view(&fleet, &request, &[], 1.0, At(0)).pending), (0.0, 1));
    }
}
