//! Who gets how much of the nodes while everybody wants more.
//!
//! Owns windows of a minute: the GPU seconds that each tenant's requests had in it, and which tenants had somebody waiting at
//! its start and at its end. Only those count: a tenant that wants nothing is not treated unfairly. Refuses to say what would
//! be fair; that is the report's.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{RequestId, TenantId};

use super::World;
use super::agenda::Occurrence;
use super::lives::Stage;
use crate::limits::WINDOW_US;

/// One entry for each window in which at least two tenants waited throughout: their GPU seconds in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares(pub Vec<BTreeMap<TenantId, f64>>);

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Tenants with somebody waiting at the end of the last window.
    waited: BTreeSet<TenantId>,
    shares: Shares,
    /// Every request before this one is over and counted.
    settled: usize,
}

impl Watch {
    pub(super) fn close(self) -> Shares {
        self.shares
    }
}

impl World<'_> {
    pub(super) fn window_over(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        let (served, waiting) = self.look_round(&mut watch.settled);
        let shares: BTreeMap<TenantId, f64> = waiting
            .intersection(&watch.waited)
            .map(|tenant| (*tenant, served.get(tenant).copied().unwrap_or(0.0)))
            .collect();
        if shares.len() > 1 {
            watch.shares.0.push(shares);
        }
        watch.waited = waiting;
        self.watch = Some(watch);
        self.agenda.enter(self.now + WINDOW_US, Occurrence::Window);
    }

    /// GPU seconds of each tenant since the last look, and who has somebody waiting.
    fn look_round(&mut self, settled: &mut usize) -> (BTreeMap<TenantId, f64>, BTreeSet<TenantId>) {
        let mut running = BTreeMap::new();
        for node in &self.nodes {
            node.served(self.now, |request, seconds| {
                running.insert(request, seconds);
            });
        }
        let (mut served, mut waiting) = (BTreeMap::new(), BTreeSet::new());
        for number in *settled..self.arrived {
            let request = RequestId(number as u64);
            let tenant = self.work.request(request).tenant;
            let life = self.lives.get_mut(request);
            let total = life.gpu_s + running.get(&request).copied().unwrap_or(0.0);
            *served.entry(tenant).or_insert(0.0) += total - life.watched_s;
            life.watched_s = total;
            let over = matches!(life.stage, Stage::Over(_));
            if over && number == *settled {
                *settled += 1;
            }
            if !over && !running.contains_key(&request) {
                waiting.insert(tenant);
            }
        }
        (served, waiting)
    }
}
