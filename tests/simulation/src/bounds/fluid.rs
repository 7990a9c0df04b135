//! The fleet as one fluid: how much it can do, and how long it takes to have done all that came before.
//!
//! Owns a linear programme of two kinds of work. Node `n` does a mean prefill in `p_n` seconds and its part of a batch of
//! mean answers in `d_n`; find shares `x_n` of its time for prefill that maximise the smaller of `sum x_n/p_n` and
//! `sum (1-x_n)/d_n`. The solution sorts nodes by `d_n/p_n`, gives the first ones to prefill and splits one. The split node's
//! ratio prices the two kinds of work: at these prices no node is worth more in a second than in the solution, so the priced
//! work of all requests up to one bounds the time until it can have been done. Refuses to ask what a node holds: any one may
//! serve any model.

use crate::fleet::{Fleet, NodeSpec};
use crate::hardware::Speed;
use crate::request::{Request, Workload};

/// Requests whose mean stands for all.
const SAMPLE: usize = 2_000;

/// One more sequence must add this share to the throughput.
const KNEE_GAIN: f64 = 0.05;

/// The batch width beyond which one more sequence adds less than a twentieth to the throughput.
#[must_use]
pub fn knee(speed: &Speed, kv_tokens: f64, rows_max: u32) -> u32 {
    let throughput = |rows: u32| f64::from(rows) / speed.step_s(f64::from(rows), f64::from(rows) * kv_tokens);
    (1..rows_max)
        .find(|rows| throughput(rows + 1) < throughput(*rows) * (1.0 + KNEE_GAIN))
        .unwrap_or(rows_max)
}

/// The requests per second that the fleet can serve at most, without any cache and with every batch at its knee, if they are
/// like those of the workload.
#[must_use]
pub fn capacity(fleet: &Fleet, work: &Workload) -> f64 {
    Fluid::of(&means(fleet, work, Width::Knee)).per_s
}

/// The share of the fleet's capacity that the workload asks for.
#[must_use]
pub fn offered_load(fleet: &Fleet, work: &Workload) -> f64 {
    let (capacity, span_s) = (capacity(fleet, work), work.span_s());
    if capacity > 0.0 && span_s > 0.0 { work.requests.len() as f64 / span_s / capacity } else { 0.0 }
}

/// For each request the second at which the fluid has done its work and that of all before it, with batches as wide as they
/// get and `cached` prompt tokens of each that need not be read.
pub(super) fn drained_at_s(fleet: &Fleet, work: &Workload, cached: &[u32]) -> Vec<f64> {
    let means = means(fleet, work, Width::Full);
    let (prefill, decode) = Fluid::of(&means).prices();
    let kinds: Vec<_> = means.iter().filter(|mean| mean.count > 0.0).collect();
    let mut free_s = 0.0_f64;
    let requests = work.requests.iter().zip(cached).map(|(request, cached)| {
        // Any node may be the one that is relatively best at this request.
        let parts = kinds.iter().map(|mean| {
            let own = costs(fleet, mean.node, request, *cached, Width::Full);
            (own.0 / mean.prefill_s, own.1 / mean.decode_s)
        });
        let least =
            parts.fold((f64::MAX, f64::MAX), |least, part| (least.0.min(part.0), least.1.min(part.1)));
        free_s = free_s.max(request.arrived.0 as f64 / 1e6) + least.0 * prefill + least.1 * decode;
        free_s
    });
    requests.collect()
}

/// One node of each kind, with how many there are: equally fast at every model, and equally wide.
pub(super) fn kinds(fleet: &Fleet) -> Vec<(&NodeSpec, f64)> {
    let mut kinds: Vec<(&NodeSpec, f64)> = Vec::new();
    for node in &fleet.nodes {
        let alike = |kind: &NodeSpec| {
            kind.rows_max == node.rows_max && fleet.speeds(kind.id) == fleet.speeds(node.id)
        };
        match kinds.iter_mut().find(|(kind, _)| alike(kind)) {
            Some((_, count)) => *count += 1.0,
            None => kinds.push((node, 1.0)),
        }
    }
    kinds
}

/// How wide batches are.
#[derive(Clone, Copy)]
enum Width {
    Knee,
    Full,
}

/// What a kind of node takes for a mean request.
struct Mean<'a> {
    node: &'a NodeSpec,
    count: f64,
    prefill_s: f64,
    decode_s: f64,
}

fn means<'a>(fleet: &'a Fleet, work: &Workload, width: Width) -> Vec<Mean<'a>> {
    let stride = work.requests.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<&Request> = work.requests.iter().step_by(stride).collect();
    let number = sample.len().max(1) as f64;
    let mean = |(node, count)| {
        let costs = sample.iter().map(|request| costs(fleet, node, request, 0, width));
        let sum = costs.fold((0.0, 0.0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
        Mean { node, count, prefill_s: (sum.0 / number).max(1e-9), decode_s: (sum.1 / number).max(1e-9) }
    };
    kinds(fleet).into_iter().map(mean).collect()
}

/// Node seconds of one request's prefill and of its part of a batch.
fn costs(fleet: &Fleet, node: &NodeSpec, request: &Request, cached: u32, width: Width) -> (f64, f64) {
    let speed = fleet.speed(node.id, request.model);
    let (prompt, output) = (f64::from(request.prompt_tokens), f64::from(request.output_tokens()));
    let kv_tokens = match width {
        Width::Knee => prompt + output / 2.0,
        Width::Full => 0.0,
    };
    let rows = f64::from(match width {
        Width::Knee => knee(&speed, kv_tokens, node.rows_max),
        Width::Full => node.rows_max,
    });
    let own_kv_s = speed.kv_token_s * (prompt + output / 2.0);
    let step_s = speed.step_s(rows, 0.0) / rows + own_kv_s;
    let cached = f64::from(cached);
    (speed.prefill_s(prompt - cached, cached), output * step_s)
}

/// The solution.
#[derive(Clone, Debug, Default)]
struct Fluid {
    /// The most requests per second.
    per_s: f64,
    /// What a second of the whole fleet is worth when the split node's is worth one prefill's seconds.
    worth: f64,
    /// The split node's seconds for a mean prefill and for a mean answer.
    split: (f64, f64),
}

impl Fluid {
    fn of(means: &[Mean<'_>]) -> Self {
        let mut nodes: Vec<&Mean<'_>> = means.iter().collect();
        // Those that are relatively best at prefill first.
        nodes.sort_by(|a, b| (b.decode_s * a.prefill_s).total_cmp(&(a.decode_s * b.prefill_s)));
        let mut prefill = 0.0;
        let mut decode: f64 = nodes.iter().map(|node| node.count / node.decode_s).sum();
        for node in &nodes {
            let (more, less) = (node.count / node.prefill_s, node.count / node.decode_s);
            if prefill + more < decode - less {
                prefill += more;
                decode -= less;
                continue;
            }
            let split = (node.prefill_s, node.decode_s);
            let worth =
                |node: &&Mean<'_>| node.count * (split.0 / node.prefill_s).max(split.1 / node.decode_s);
            let per_s = prefill + (decode - prefill) / (more + less) * more;
            return Self { per_s, worth: nodes.iter().map(worth).sum(), split };
        }
        Self::default()
    }

    /// The prices of a mean prefill and of a mean answer, in seconds of the whole fleet.
    fn prices(&self) -> (f64, f64) {
        let worth = self.worth.max(1e-9);
        (self.split.0 / worth, self.split.1 / worth)
    }
}
