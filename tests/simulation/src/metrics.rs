//! What a run comes to in numbers.
//!
//! Owns the summary of an outcome: latencies with the shed rate always beside them, cache hits, loads, fairness. Refuses to
//! compare; that is the report's.

use std::collections::BTreeMap;

use scheduler::{Class, TenantId};
use serde::Serialize;

use crate::request::{Request, Workload};
use crate::world::{Fate, Life, Outcome, Shares, Stage};

/// Seconds, over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nineteen of twenty are below.
    pub p95: f64,
    /// Ninety-nine of a hundred are below.
    pub p99: f64,
}

/// Some requests' latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// How many requests these are, with those that were refused.
    pub requests: usize,
    /// The share that got no whole answer.
    pub shed: f64,
    /// Time to first token.
    pub first_token: Latency,
    /// Time to the last token.
    pub completion: Latency,
}

/// A run in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Over all requests.
    pub all: Latencies,
    /// By class.
    pub by_class: BTreeMap<String, Latencies>,
    /// By tenant.
    pub by_tenant: BTreeMap<u32, Latencies>,
    /// By the node of the latest attempt; who never got to one is in none.
    pub by_node: BTreeMap<u64, Latencies>,
    /// Prompt tokens that were cached, as a share of all.
    pub hit_rate: f64,
    /// Models that were loaded.
    pub loads: u64,
    /// Requests that were refused before their first token.
    pub refused: usize,
    /// Requests that broke off after it.
    pub broken: usize,
    /// Answers that a lying runtime gave.
    pub garbage: usize,
    /// The longest that anybody waited for a first token or a refusal.
    pub wait_s_max: f64,
    /// Jain's index over the tenants' GPU seconds, mean over the minutes in which all of them wanted more; 1 is equal.
    pub fairness: Option<f64>,
    /// How far the tenant that got least in such a minute was from its equal share, at worst.
    pub share_min: Option<f64>,
    /// Laws that were broken.
    pub violations: usize,
    /// Until the last request ended.
    pub virtual_hours: f64,
}

/// Sums up a run.
#[must_use]
pub fn score(work: &Workload, outcome: &Outcome) -> Score {
    let pairs = || work.requests.iter().zip(&outcome.lives);
    let count = |fate| outcome.lives.iter().filter(|life| life.stage == Stage::Over(fate)).count();
    let (cached, prompts) = pairs()
        .filter(|(_, life)| life.first_token_us.is_some())
        .fold((0_u64, 0_u64), |sum, (request, life)| {
            (sum.0 + u64::from(life.cached), sum.1 + u64::from(request.prompt_tokens))
        });
    Score {
        all: latencies(pairs()),
        by_class: grouped(pairs(), |request, _| Some(class_name(request.class))),
        by_tenant: grouped(pairs(), |request, _| Some(request.tenant.0)),
        by_node: grouped(pairs(), |_, life| life.node.map(|node| node.0)),
        hit_rate: cached as f64 / prompts.max(1) as f64,
        loads: outcome.loads,
        refused: count(Fate::Refused),
        broken: count(Fate::Broken),
        garbage: outcome.lives.iter().filter(|life| life.garbage).count(),
        wait_s_max: pairs().map(|(request, life)| wait_s(request, life)).fold(0.0, f64::max),
        fairness: mean(outcome.shares.0.iter().map(jain)),
        share_min: smallest_share(&outcome.shares),
        violations: outcome.violations.len(),
        virtual_hours: outcome.ended_us as f64 / 3.6e9,
    }
}

fn class_name(class: Class) -> String {
    match class {
        Class::Interactive => "interactive".to_string(),
        Class::Batch => "batch".to_string(),
    }
}

fn grouped<'a, K: Ord>(
    pairs: impl Iterator<Item = (&'a Request, &'a Life)>,
    key: impl Fn(&Request, &Life) -> Option<K>,
) -> BTreeMap<K, Latencies> {
    let mut groups: BTreeMap<K, Vec<_>> = BTreeMap::new();
    for pair in pairs {
        if let Some(key) = key(pair.0, pair.1) {
            groups.entry(key).or_default().push(pair);
        }
    }
    groups.into_iter().map(|(key, pairs)| (key, latencies(pairs.into_iter()))).collect()
}

fn latencies<'a>(pairs: impl Iterator<Item = (&'a Request, &'a Life)>) -> Latencies {
    let (mut first_token, mut completion, mut requests) = (Vec::new(), Vec::new(), 0);
    for (request, life) in pairs {
        requests += 1;
        first_token.extend(life.first_token_us.map(|at| seconds(at, request)));
        if life.stage == Stage::Over(Fate::Completed) {
            completion.extend(life.ended_us.map(|at| seconds(at, request)));
        }
    }
    Latencies {
        requests,
        shed: 1.0 - completion.len() as f64 / requests.max(1) as f64,
        first_token: latency(first_token),
        completion: latency(completion),
    }
}

fn seconds(at_us: u64, request: &Request) -> f64 {
    at_us.saturating_sub(request.arrived.0) as f64 / 1e6
}

fn wait_s(request: &Request, life: &Life) -> f64 {
    life.first_token_us.or(life.ended_us).map_or(0.0, |at| seconds(at, request))
}

/// The mean and the quantiles of some values.
#[must_use]
pub fn latency(mut values: Vec<f64>) -> Latency {
    values.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let index = ((values.len() as f64 * share).ceil() as usize).saturating_sub(1);
        values.get(index).copied().unwrap_or(0.0)
    };
    Latency {
        mean: mean(values.iter().copied()).unwrap_or(0.0),
        p50: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Jain, Chiu, Hawe 1984: the square of the sum over the sum of the squares, by the number.
fn jain(shares: &BTreeMap<TenantId, f64>) -> f64 {
    let sum: f64 = shares.values().sum();
    let squares: f64 = shares.values().map(|share| share * share).sum();
    if squares > 0.0 { sum * sum / squares / shares.len() as f64 } else { 1.0 }
}

fn smallest_share(shares: &Shares) -> Option<f64> {
    let of_window = |shares: &BTreeMap<TenantId, f64>| {
        let equal = shares.values().sum::<f64>() / shares.len() as f64;
        shares.values().copied().fold(f64::MAX, f64::min) / equal.max(1e-9)
    };
    shares.0.iter().map(of_window).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(values: &[f64]) -> BTreeMap<TenantId, f64> {
        values.iter().enumerate().map(|(index, value)| (TenantId(index as u32), *value)).collect()
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let latency = latency((1..=100).rev().map(f64::from).collect());
        assert_eq!(latency, Latency { mean: 50.5, p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(super::latency(vec![]), Latency::default());
        assert_eq!(super::latency(vec![3.0]), Latency { mean: 3.0, p50: 3.0, p95: 3.0, p99: 3.0 });
    }

    #[test]
    fn jain_s_index_is_one_for_equal_shares_and_one_nth_for_one_taker() {
        assert_eq!(jain(&shares(&[2.0, 2.0, 2.0])), 1.0);
        assert_eq!(jain(&shares(&[3.0, 0.0, 0.0])), 1.0 / 3.0);
    }

    #[test]
    fn the_smallest_share_is_measured_by_the_equal_one() {
        let windows = Shares(vec![shares(&[1.0, 1.0]), shares(&[0.5, 1.5])]);
        assert_eq!(smallest_share(&windows), Some(0.5));
        assert_eq!(smallest_share(&Shares::default()), None);
    }
}
