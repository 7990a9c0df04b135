//! The rules that others choose a node by, each a small function of plain views.
//!
//! Owns the choice and nothing else: every rule takes what it knows of each node and returns an index. Refuses state; what a
//! rule has to remember is in the views. Where a rule needs a node's speed it gets the true one, which favours it: its own
//! project would have to measure.

use serde::{Deserialize, Serialize};

use crate::hardware::Speed;
use crate::random::{Random, mixed};

/// A node as a rule sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeView {
    /// Its number.
    pub number: u64,
    /// Requests bound to it that have not ended.
    pub pending: u32,
    /// Sequences its runtime takes at once.
    pub slots: u32,
    /// Seconds of prefill that are bound to it, and the wait for a slot.
    pub queue_s: f64,
    /// How fast it is, in truth.
    pub speed: Speed,
    /// Moving average of how long its requests took.
    pub latency_s: f64,
    /// Prompt tokens that it is believed to have cached.
    pub cached_tokens: u32,
    /// Blocks that were ever sent there.
    pub tree_blocks: usize,
    /// The share of its KV memory that is used.
    pub kv_used: f64,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that answers have on average.
    pub output_tokens: f64,
    /// What a hash ring places it by: the start of its prompt.
    pub key: u64,
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// One after another.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests.
    ShortestQueue,
    /// The one with the fewest requests for its speed.
    WeightedQueue,
    /// The better of two that chance names.
    TwoChoices,
    /// The same with the load as Linkerd counts it: moving average of the latency, times requests and one.
    TwoChoicesEwma,
    /// Its place on a hash ring, unless that has more than 1.25 times the mean load.
    BoundedHash,
    /// `SGLang`'s cache-aware routing.
    CacheAware(CacheAware),
    /// smg's least load: requests for the speed, and a penalty that grows as KV memory fills.
    LeastLoad,
    /// The one that promises the first token soonest, as Mooncake does.
    EarliestFirstToken,
    /// The one that promises the last token soonest.
    ExpectedCompletion,
}

/// The three numbers of `SGLang`'s routing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheAware {
    /// The share of the prompt that must be cached to follow the cache.
    pub threshold: f64,
    /// The loads are out of balance when they differ by more than this,
    pub balance_abs: u32,
    /// and by more than this factor.
    pub balance_rel: f64,
}

/// `SGLang`'s defaults.
pub const CACHE_AWARE_DEFAULT: CacheAware = CacheAware { threshold: 0.5, balance_abs: 32, balance_rel: 1.1 };
/// What did best on eight unequal Macs.
pub const CACHE_AWARE_TUNED: CacheAware = CacheAware { threshold: 0.5, balance_abs: 2, balance_rel: 1.1 };

/// No node may carry more than this times the mean (Mirrokni, Thorup, Zadimoghaddam 2018).
const BOUND: f64 = 1.25;
/// Places of each node on the hash ring.
const RING_PLACES: u64 = 64;
/// smg's weight of the KV memory, in seconds.
const KV_PENALTY_S: f64 = 0.15;

impl Rule {
    /// The index of the chosen node; `views` must not be empty. `turn` counts the choices.
    pub fn choose(&self, views: &[NodeView], ask: &Ask, turn: u64, random: &mut Random) -> usize {
        match self {
            Self::RoundRobin => (turn % views.len() as u64) as usize,
            Self::Random => random.below(views.len() as u64) as usize,
            Self::ShortestQueue => least(views, |view| f64::from(view.pending)),
            Self::WeightedQueue => least(views, |view| queue_for_speed(view, ask)),
            Self::TwoChoices => better_of_two(views, random, |view| f64::from(view.pending)),
            Self::TwoChoicesEwma => {
                better_of_two(views, random, |view| view.latency_s * f64::from(view.pending + 1))
            }
            Self::BoundedHash => bounded_hash(views, ask.key),
            Self::CacheAware(numbers) => cache_aware(views, ask, numbers),
            Self::LeastLoad => least(views, |view| least_load(view, ask)),
            Self::EarliestFirstToken => least(views, |view| first_token_s(view, ask)),
            Self::ExpectedCompletion => least(views, |view| completion_s(view, ask)),
        }
    }
}

/// The first of those with the smallest cost.
fn least(views: &[NodeView], cost: impl Fn(&NodeView) -> f64) -> usize {
    let costs = views.iter().map(cost).enumerate();
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
}

fn better_of_two(views: &[NodeView], random: &mut Random, cost: impl Fn(&NodeView) -> f64) -> usize {
    let one = random.below(views.len() as u64) as usize;
    let step = 1 + random.below(views.len().saturating_sub(1) as u64) as usize;
    let other = (one + step) % views.len();
    if cost(&views[other]) < cost(&views[one]) { other } else { one }
}

/// Seconds of one such request when the node does nothing else.
fn alone_s(view: &NodeView, ask: &Ask) -> f64 {
    let prompt = f64::from(ask.prompt_tokens);
    view.speed.prefill_s(prompt, 0.0) + view.speed.decode_s(prompt, ask.output_tokens)
}

fn queue_for_speed(view: &NodeView, ask: &Ask) -> f64 {
    f64::from(view.pending + 1) * alone_s(view, ask)
}

/// The first place on the ring, clockwise from the key, whose node has room.
fn bounded_hash(views: &[NodeView], key: u64) -> usize {
    let total: u32 = views.iter().map(|view| view.pending).sum();
    let room = (f64::from(total + 1) / views.len() as f64 * BOUND).ceil();
    let distance = |view: &NodeView| {
        let places = (0..RING_PLACES).map(|place| mixed(view.number * RING_PLACES + place).wrapping_sub(key));
        places.min().unwrap_or(u64::MAX)
    };
    let open = views.iter().enumerate().filter(|(_, view)| f64::from(view.pending + 1) <= room);
    open.min_by_key(|(_, view)| distance(view)).map_or(0, |(index, _)| index)
}

/// 1 out of balance: the shortest queue; 2 enough cached: the longest match; 3 else the smallest tree.
fn cache_aware(views: &[NodeView], ask: &Ask, numbers: &CacheAware) -> usize {
    let pending = views.iter().map(|view| view.pending);
    let (most, fewest) = (pending.clone().max().unwrap_or(0), pending.min().unwrap_or(0));
    // 1
    let out_of_balance =
        most - fewest > numbers.balance_abs && f64::from(most) > f64::from(fewest) * numbers.balance_rel;
    if out_of_balance {
        return least(views, |view| f64::from(view.pending));
    }
    // 2
    let best = least(views, |view| -f64::from(view.cached_tokens));
    let share = f64::from(views[best].cached_tokens) / f64::from(ask.prompt_tokens.max(1));
    if share > numbers.threshold {
        return best;
    }
    // 3
    least(views, |view| view.tree_blocks as f64)
}

fn least_load(view: &NodeView, ask: &Ask) -> f64 {
    let used = view.kv_used.clamp(0.0, 0.99);
    f64::from(view.pending) * alone_s(view, ask) + KV_PENALTY_S * used / (1.0 - used)
}

fn prefill_s(view: &NodeView, ask: &Ask) -> f64 {
    let cached = view.cached_tokens.min(ask.prompt_tokens.saturating_sub(1));
    view.speed.prefill_s(f64::from(ask.prompt_tokens - cached), f64::from(cached))
}

fn first_token_s(view: &NodeView, ask: &Ask) -> f64 {
    view.queue_s + prefill_s(view, ask)
}

fn completion_s(view: &NodeView, ask: &Ask) -> f64 {
    let others = f64::from(view.pending.min(view.slots));
    let step_s = view.speed.step_s(others + 1.0, (others + 1.0) * f64::from(ask.prompt_tokens));
    first_token_s(view, ask) + ask.output_tokens * step_s
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    const SPEED: Speed = Speed {
        step_s: 0.02,
        batch_slope: 0.3,
        kv_token_s: 0.0,
        prefill_tokens_per_s: 1_000.0,
        attention_pair_s: 0.0,
        overhead_s: 0.0,
        load_s: None,
    };
    const ASK: Ask = Ask { prompt_tokens: 1_000, output_tokens: 100.0, key: 7 };

    fn view(number: u64, pending: u32) -> NodeView {
        NodeView {
            number,
            pending,
            slots: 8,
            queue_s: 0.0,
            speed: SPEED,
            latency_s: 1.0,
            cached_tokens: 0,
            tree_blocks: 0,
            kv_used: 0.0,
        }
    }

    fn slower(view: NodeView, factor: f64) -> NodeView {
        let step_s = SPEED.step_s * factor;
        let prefill_tokens_per_s = SPEED.prefill_tokens_per_s / factor;
        NodeView { speed: Speed { step_s, prefill_tokens_per_s, ..SPEED }, ..view }
    }

    fn chosen(rule: Rule, views: &[NodeView]) -> usize {
        rule.choose(views, &ASK, 5, &mut Random::new(1, Purpose::Policy, 0))
    }

    #[test]
    fn round_robin_takes_turns() {
        let views = [view(0, 9), view(1, 0), view(2, 0)];
        assert_eq!(chosen(Rule::RoundRobin, &views), 2);
    }

    #[test]
    fn chance_reaches_every_node_and_looks_at_none() {
        let views = [view(0, 99), view(1, 0), view(2, 0)];
        let mut random = Random::new(1, Purpose::Policy, 0);
        let mut counts = [0; 3];
        (0..300).for_each(|turn| counts[Rule::Random.choose(&views, &ASK, turn, &mut random)] += 1);
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    }

    #[test]
    fn the_shortest_queue_is_chosen_whatever_the_speed() {
        let views = [view(0, 2), slower(view(1, 1), 10.0), view(2, 3)];
        assert_eq!(chosen(Rule::ShortestQueue, &views), 1);
    }

    #[test]
    fn the_weighted_queue_prefers_a_fast_node_with_more_to_do() {
        let views = [view(0, 2), slower(view(1, 1), 10.0)];
        assert_eq!(chosen(Rule::WeightedQueue, &views), 0);
    }

    #[test]
    fn of_two_nodes_the_better_is_chosen() {
        assert_eq!(chosen(Rule::TwoChoices, &[view(0, 3), view(1, 2)]), 1);
        let slow_to_answer = NodeView { latency_s: 9.0, ..view(1, 2) };
        assert_eq!(chosen(Rule::TwoChoicesEwma, &[view(0, 3), slow_to_answer]), 0);
        assert_eq!(chosen(Rule::TwoChoices, &[view(0, 3)]), 0);
    }

    #[test]
    fn two_choices_never_name_the_same_node_twice() {
        let views = [view(0, 0), view(1, 5), view(2, 6)];
        let mut random = Random::new(1, Purpose::Policy, 0);
        let worst = (0..200).filter(|turn| Rule::TwoChoices.choose(&views, &ASK, *turn, &mut random) == 2);
        assert_eq!(worst.count(), 0);
    }

    #[test]
    fn a_key_stays_on_its_node_until_that_has_its_share() {
        let idle = [view(0, 0), view(1, 0), view(2, 0)];
        let home = chosen(Rule::BoundedHash, &idle);
        let mut busy = [view(0, 4), view(1, 4), view(2, 4)];
        assert_eq!(chosen(Rule::BoundedHash, &busy), home, "the fifth is within 1.25 times 13/3");
        busy[home].pending = 9;
        assert_ne!(chosen(Rule::BoundedHash, &busy), home);
    }

    #[test]
    fn a_hash_ring_moves_few_keys_when_a_node_leaves() {
        let all: Vec<_> = (0..4).map(|number| view(number, 0)).collect();
        let (before, after) = (&all[..], &all[..3]);
        let moved = (0..1_000).filter(|key| {
            let at = |views| bounded_hash(views, mixed(*key));
            at(before) != 3 && at(before) != at(after)
        });
        assert_eq!(moved.count(), 0);
    }

    #[test]
    fn a_cached_prefix_wins_until_the_loads_are_out_of_balance() {
        let cached = NodeView { cached_tokens: 600, tree_blocks: 50, ..view(1, 33) };
        let views = [view(0, 1), cached];
        assert_eq!(chosen(Rule::CacheAware(CACHE_AWARE_DEFAULT), &views), 1);
        assert_eq!(chosen(Rule::CacheAware(CACHE_AWARE_TUNED), &views), 0);
        let little = NodeView { cached_tokens: 400, ..cached };
        assert_eq!(chosen(Rule::CacheAware(CACHE_AWARE_DEFAULT), &[view(0, 1), little]), 0);
        assert_eq!(chosen(Rule::CacheAware(CACHE_AWARE_DEFAULT), &[view(0, 0), cached]), 0);
    }

    #[test]
    fn least_load_counts_requests_for_the_speed_and_full_memory() {
        assert_eq!(chosen(Rule::LeastLoad, &[slower(view(0, 1), 3.0), view(1, 2)]), 1);
        let full = NodeView { kv_used: 0.98, ..view(0, 0) };
        assert_eq!(chosen(Rule::LeastLoad, &[full, view(1, 1)]), 1);
        let half_full = NodeView { kv_used: 0.5, ..view(0, 0) };
        assert_eq!(chosen(Rule::LeastLoad, &[half_full, view(1, 1)]), 0);
    }

    #[test]
    fn the_first_token_is_soonest_where_queue_and_uncached_prefill_are_short() {
        let queued = NodeView { queue_s: 0.9, ..view(0, 1) };
        let cached = NodeView { queue_s: 0.9, cached_tokens: 900, ..view(1, 1) };
        assert_eq!(chosen(Rule::EarliestFirstToken, &[queued, cached, slower(view(2, 0), 1.5)]), 1);
        assert_eq!(chosen(Rule::EarliestFirstToken, &[queued, slower(view(2, 0), 1.5)]), 1);
    }

    #[test]
    fn the_last_token_is_soonest_where_steps_are_short_too() {
        let slow_steps = NodeView { speed: Speed { step_s: 0.05, ..SPEED }, ..view(0, 0) };
        let late = NodeView { queue_s: 1.0, ..view(1, 1) };
        assert_eq!(chosen(Rule::EarliestFirstToken, &[slow_steps, late]), 0);
        assert_eq!(chosen(Rule::ExpectedCompletion, &[slow_steps, late]), 1);
    }
}
