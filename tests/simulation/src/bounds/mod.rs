//! What no policy can do better than.
//!
//! Owns three bounds. *Isolation*: a request alone on its fastest node, its prompt cached as far as anybody has sent it
//! before. *Pooled fluid*: all nodes as one that any work can be divided over (`fluid`); it says by when all work can have
//! been done at the earliest, and what requests wait in it in order of arrival, which another order may better for some at
//! the cost of others. *Infinite cache*: the share of prompt tokens that somebody has sent before. Refuses the clairvoyant
//! queue orders: they bound the mean, not the tail.

mod fluid;

use std::collections::HashSet;

use scheduler::NodeId;
use serde::Serialize;

pub use self::fluid::{capacity, knee, offered_load};
use crate::fleet::Fleet;
use crate::limits::TRANSIT_US;
use crate::random::noise;
use crate::request::{BLOCK_TOKENS, Request, Workload};

/// What no policy can beat on a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bounds {
    /// How many requests there are.
    pub requests: f64,
    /// The share of the fleet's capacity that they ask for.
    pub offered_load: f64,
    /// Mean time to first token, each request alone on its fastest node.
    pub isolation_first_token_s: f64,
    /// Mean time to the last token, likewise.
    pub isolation_completion_s: f64,
    /// Mean time to the last token in the pooled fluid, in order of arrival.
    pub pooled_completion_s: f64,
    /// When the fluid has done all work.
    pub drained_at_s: f64,
    /// The share of prompt tokens that somebody has sent before.
    pub hit_rate: f64,
}

/// What one request can reach at best, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Alone {
    /// To its first token.
    pub first_token_s: f64,
    /// To its last token.
    pub completion_s: f64,
    /// Prompt tokens that were sent before.
    pub cached_tokens: u32,
}

/// Each request alone on its fastest node, with a cache that has seen everything.
#[must_use]
pub fn isolation(fleet: &Fleet, work: &Workload, seed: u64) -> Vec<Alone> {
    let kinds = fluid::kinds(fleet);
    let mut seen = HashSet::new();
    let alone = work.requests.iter().map(|request| {
        let chain = work.prompt(request.chain);
        let known = chain.iter().take_while(|block| seen.contains(&block.0)).count() as u32;
        seen.extend(work.whole(request.chain).iter().map(|block| block.0));
        let cached_tokens = (known * BLOCK_TOKENS).min(request.prompt_tokens.saturating_sub(1));
        let noise = noise(seed, request.id);
        let on_each = kinds.iter().map(|(node, _)| on_node(fleet, node.id, request, cached_tokens, noise));
        let least = on_each.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).unwrap_or_default();
        Alone { first_token_s: least.0, completion_s: least.1, cached_tokens }
    });
    alone.collect()
}

fn on_node(fleet: &Fleet, node: NodeId, request: &Request, cached: u32, noise: f64) -> (f64, f64) {
    let speed = fleet.speed(node, request.model);
    let (prompt, cached) = (f64::from(request.prompt_tokens), f64::from(cached));
    let read = TRANSIT_US as f64 / 1e6 + speed.prefill_s(prompt - cached, cached) * noise;
    let written_after = |tokens: f64| read + speed.decode_s(prompt, tokens) * noise;
    (written_after(1.0), written_after(f64::from(request.output_tokens())))
}

/// The bounds of a workload.
#[must_use]
pub fn bounds(fleet: &Fleet, work: &Workload, seed: u64) -> Bounds {
    let alone = isolation(fleet, work, seed);
    let cached: Vec<u32> = alone.iter().map(|alone| alone.cached_tokens).collect();
    let drained = fluid::drained_at_s(fleet, work, &cached);
    let count = alone.len().max(1) as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let cached: f64 = cached.into_iter().map(f64::from).sum();
    let prompts: f64 = work.requests.iter().map(|request| f64::from(request.prompt_tokens)).sum();
    let pooled =
        work.requests.iter().zip(&alone).zip(&drained).map(|((request, alone), drained)| {
            alone.completion_s.max(drained - request.arrived.0 as f64 / 1e6)
        });
    Bounds {
        requests: alone.len() as f64,
        offered_load: offered_load(fleet, work),
        isolation_first_token_s: mean(&mut alone.iter().map(|alone| alone.first_token_s)),
        isolation_completion_s: mean(&mut alone.iter().map(|alone| alone.completion_s)),
        pooled_completion_s: mean(&mut pooled.into_iter()),
        drained_at_s: drained.last().copied().unwrap_or(0.0),
        hit_rate: cached / prompts.max(1.0),
    }
}

impl Bounds {
    /// The mean of several seeds'.
    #[must_use]
    pub fn mean(all: &[Self]) -> Self {
        let mean = |pick: fn(&Self) -> f64| all.iter().map(pick).sum::<f64>() / all.len().max(1) as f64;
        Self {
            requests: mean(|bounds| bounds.requests),
            offered_load: mean(|bounds| bounds.offered_load),
            isolation_first_token_s: mean(|bounds| bounds.isolation_first_token_s),
            isolation_completion_s: mean(|bounds| bounds.isolation_completion_s),
            pooled_completion_s: mean(|bounds| bounds.pooled_completion_s),
            drained_at_s: mean(|bounds| bounds.drained_at_s),
            hit_rate: mean(|bounds| bounds.hit_rate),
        }
    }
}
