//! Who has had how much: one virtual counter per tenant, in node-seconds over weight.
//!
//! Owns the counters (Virtual Token Counter, Sheng et al., OSDI 2024, counted in time on a Mac instead of tokens). The tenant with
//! the lowest counter goes first, so under saturation every active tenant gets its share, and one that floods waits behind its
//! own requests only. A tenant that was idle is lifted to the lowest active counter when it returns: absence earns no credit.
//! Refuses to know requests and nodes.
//!
//! Counters are compared in whole quanta. Within a quantum the order of the line decides, not who asked last; shares are exact to
//! one quantum for each tenant.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::TenantId;
use crate::time::Span;

/// A tenant's counter in whole quanta; lower goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turns(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Fairness {
    tenants: BTreeMap<TenantId, Account>,
    /// In thousandths, of those who were given one; outlives their accounts.
    weights: BTreeMap<TenantId, u32>,
    /// Counters of the active ones, the lowest first.
    active: BTreeSet<(u64, TenantId)>,
    /// Accounts of the idle ones, the one with the lowest counter first: it has the least to lose by being forgotten.
    idle: BTreeSet<(u64, TenantId)>,
    /// The lowest active counter at the latest moment when somebody was active: nobody returns below it.
    floor: u64,
    quantum_us: u64,
    idle_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    /// Microseconds of node time over weight.
    counter: u64,
    /// Thousandths.
    weight: u32,
    /// Live requests, waiting or running.
    requests: u32,
}

/// The weight of a tenant nobody gave another, in thousandths.
pub(crate) const WEIGHT_ONE: u32 = 1_000;

impl Fairness {
    pub(crate) fn new(quantum: Span, idle_max: usize) -> Self {
        Self {
            tenants: BTreeMap::new(),
            weights: BTreeMap::new(),
            active: BTreeSet::new(),
            idle: BTreeSet::new(),
            floor: 0,
            quantum_us: quantum.0.max(1),
            idle_max,
        }
    }

    /// A request of the tenant is alive from now on.
    pub(crate) fn entered(&mut self, tenant: TenantId) {
        self.change(tenant, |account, floor| {
            if account.requests == 0 {
                account.counter = account.counter.max(floor);
            }
            account.requests = account.requests.saturating_add(1);
        });
    }

    /// One of its requests is over.
    pub(crate) fn left(&mut self, tenant: TenantId) {
        self.change(tenant, |account, _| account.requests = account.requests.saturating_sub(1));
        self.forget_idle();
    }

    /// The tenant takes this much time of a Mac.
    pub(crate) fn charge(&mut self, tenant: TenantId, work: Span) {
        self.change(tenant, |account, _| {
            account.counter = account.counter.saturating_add(weighed(work, account.weight));
        });
    }

    /// It took less than it was charged.
    pub(crate) fn refund(&mut self, tenant: TenantId, work: Span) {
        self.change(tenant, |account, _| {
            account.counter = account.counter.saturating_sub(weighed(work, account.weight));
        });
    }

    /// Zero counts as one thousandth. One more weight than idle accounts may be kept is not taken in.
    pub(crate) fn weigh(&mut self, tenant: TenantId, weight_permille: u32) {
        let weight = weight_permille.max(1);
        if self.weights.len() < self.idle_max || self.weights.contains_key(&tenant) {
            self.weights.insert(tenant, weight);
            self.change(tenant, |account, _| account.weight = weight);
        }
    }

    pub(crate) fn turns(&self, tenant: TenantId) -> Turns {
        let counter = self.tenants.get(&tenant).map_or(self.floor, |account| account.counter);
        Turns(counter.checked_div(self.quantum_us).unwrap_or(counter))
    }

    /// Tenants with a live request.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    fn change(&mut self, tenant: TenantId, change: impl FnOnce(&mut Account, u64)) {
        let floor = self.floor;
        let weight = self.weights.get(&tenant).copied().unwrap_or(WEIGHT_ONE);
        let new = Account { counter: floor, weight, requests: 0 };
        let account = self.tenants.entry(tenant).or_insert(new);
        let key = (account.counter, tenant);
        self.active.remove(&key);
        self.idle.remove(&key);
        change(account, floor);
        let key = (account.counter, tenant);
        if account.requests > 0 {
            self.active.insert(key)
        } else {
            self.idle.insert(key)
        };
        if let Some((lowest, _)) = self.active.first() {
            self.floor = self.floor.max(*lowest);
        }
    }

    /// Idle accounts beyond the bound: a tenant that comes back starts at the floor, as it would have with its account unless it
    /// had run up more than all the others. A weight that was given stays.
    fn forget_idle(&mut self) {
        while self.idle.len() > self.idle_max {
            let Some((_, tenant)) = self.idle.pop_first() else { return };
            self.tenants.remove(&tenant);
        }
    }
}

fn weighed(work: Span, weight: u32) -> u64 {
    work.0.saturating_mul(u64::from(WEIGHT_ONE)).checked_div(u64::from(weight.max(1))).unwrap_or(work.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANN: TenantId = TenantId(1);
    const BOB: TenantId = TenantId(2);

    fn fairness() -> Fairness {
        Fairness::new(Span::from_s(1), 2)
    }

    fn s(seconds: u64) -> Span {
        Span::from_s(seconds)
    }

    #[test]
    fn a_charge_moves_a_tenant_back_by_its_work() {
        let mut fairness = fairness();
        fairness.entered(ANN);
        fairness.charge(ANN, s(5));
        assert_eq!(
            (fairness.turns(ANN), fairness.turns(BOB)),
            (Turns(5), Turns(5)),
            "nobody returns below the lowest"
        );
        fairness.refund(ANN, s(2));
        assert_eq!(fairness.turns(ANN), Turns(3));
    }

    #[test]
    fn twice_the_weight_pays_half() {
        let mut fairness = fairness();
        fairness.weigh(ANN, 2_000);
        fairness.entered(ANN);
        fairness.charge(ANN, s(6));
        assert_eq!(fairness.turns(ANN), Turns(3));
        fairness.weigh(ANN, 0);
        fairness.charge(ANN, Span::from_ms(1));
        assert_eq!(fairness.turns(ANN), Turns(4), "no weight is the least weight");
    }

    #[test]
    fn absence_earns_no_credit() {
        let mut fairness = fairness();
        fairness.entered(ANN);
        fairness.entered(BOB);
        fairness.charge(ANN, s(10));
        fairness.left(BOB);
        fairness.charge(ANN, s(10));
        assert_eq!(fairness.turns(BOB), Turns(0));
        fairness.entered(BOB);
        assert_eq!(fairness.turns(BOB), Turns(20), "lifted to the lowest of the active");
    }

    #[test]
    fn whoever_ran_up_more_than_all_others_keeps_it_through_a_pause() {
        let mut fairness = fairness();
        fairness.entered(ANN);
        fairness.entered(BOB);
        fairness.charge(ANN, s(50));
        fairness.charge(BOB, s(8));
        fairness.left(ANN);
        fairness.entered(ANN);
        assert_eq!((fairness.turns(ANN), fairness.turns(BOB)), (Turns(50), Turns(8)));
    }

    #[test]
    fn less_than_a_quantum_is_no_difference() {
        let mut fairness = fairness();
        fairness.entered(ANN);
        fairness.charge(ANN, Span::from_ms(999));
        assert_eq!(fairness.turns(ANN), Turns(0));
        fairness.charge(ANN, Span::from_ms(1));
        assert_eq!(fairness.turns(ANN), Turns(1));
    }

    #[test]
    fn accounts_of_the_idle_are_bounded() {
        let mut fairness = fairness();
        for tenant in 0..10 {
            fairness.entered(TenantId(tenant));
            fairness.charge(TenantId(tenant), s(u64::from(tenant)));
            fairness.left(TenantId(tenant));
        }
        assert_eq!(fairness.tenants.len(), 2);
        assert_eq!(fairness.active.len(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Always serving the lowest counter gives every tenant that always wants more its share, to one piece of work.
        #[test]
        fn backlogged_tenants_get_their_weights(
            weights in proptest::collection::vec(1_u32..5, 2..6),
            works in proptest::collection::vec(1_u64..3, 200..300),
        ) {
            let mut fairness = Fairness::new(Span::from_s(1), 8);
            let tenant = |index: usize| TenantId(u32::try_from(index).expect("few"));
            for (index, weight) in weights.iter().enumerate() {
                fairness.weigh(tenant(index), weight * WEIGHT_ONE);
                fairness.entered(tenant(index));
            }
            let mut served = vec![0_u64; weights.len()];
            for work in works {
                let next = (0..weights.len()).min_by_key(|index| (fairness.turns(tenant(*index)), *index)).expect("some");
                fairness.charge(tenant(next), s(work));
                served[next] += work;
            }
            let shares: Vec<f64> =
                served.iter().zip(&weights).map(|(served, weight)| *served as f64 / f64::from(*weight)).collect();
            let (low, high) = (shares.iter().copied().fold(f64::MAX, f64::min), shares.iter().copied().fold(0.0, f64::max));
            prop_assert!(high - low <= 4.0, "{shares:?}");
        }

        #[test]
        fn the_active_are_those_with_live_requests(steps in proptest::collection::vec((0_u8..4, 0_u32..5, 0_u64..9), 0..100)) {
            let mut fairness = Fairness::new(Span::from_s(1), 8);
            let mut live = std::collections::BTreeMap::<u32, u32>::new();
            for (step, tenant, work) in steps {
                match step {
                    0 => { fairness.entered(TenantId(tenant)); *live.entry(tenant).or_default() += 1; }
                    1 if live.get(&tenant).is_some_and(|count| *count > 0) => {
                        fairness.left(TenantId(tenant));
                        *live.entry(tenant).or_default() -= 1;
                    }
                    2 => fairness.charge(TenantId(tenant), s(work)),
                    _ => fairness.refund(TenantId(tenant), s(work)),
                }
                prop_assert_eq!(fairness.active.len(), live.values().filter(|count| **count > 0).count());
                prop_assert_eq!(fairness.active.len() + fairness.idle.len(), fairness.tenants.len());
            }
        }
    }
}
