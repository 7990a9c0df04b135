//! The numbers of model placement: how patient, how many at once, how much remembered. Owns the defaults with their reasons;
//! refuses to know the rules they bound.

use crate::time::Span;

/// The bounds of the residency planner: how patient it is, how many loads it dares, what it assumes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidencyLimits {
    /// Models with a policy or a known demand: far more than a catalogue holds. One beyond is placed without a past.
    pub models_max: usize,
    /// Models one node may offer: what fits on a disk of 8 TB at 30 GB each. Bounds a broken report.
    pub offers_per_node_max: usize,

    /// A waiter older than this, plus the time of the load, gets its model a turn at the cost of residents in use. People give
    /// up after about a minute; half of it is left for the turn itself.
    pub starvation: Span,
    /// A replica stays at least this long, so that a swap is paid back by what it serves.
    pub residency_min: Span,
    /// And at least this many times its load time: no more than a fifth of the time goes into loading.
    pub residency_loads: u64,
    /// A model asked for within this time is in use, and its last ready replica is not taken as spare.
    pub warm: Span,
    /// Demand counts half after this long: long enough to know a model that is asked for once in a few minutes, short enough to
    /// follow a lunch break.
    pub demand_half_life: Span,

    /// A model whose waiting work its replicas would need longer for gets one more. Below, a load costs more than it saves.
    pub replicate_delay: Span,
    /// Above this delay two of its loads may be under way at once.
    pub replicate_delay_huge: Span,

    /// Loads under way on one node: its disk and its link serve one at full speed or two at half.
    pub loads_per_node: usize,
    /// Loads under way in the whole cluster, at least.
    pub loads_total_min: usize,
    /// One further load under way for each so many usable nodes: three quarters of the room always serve, and one source of
    /// weights is not asked by all at once.
    pub nodes_per_load: usize,

    /// The pause after a load failed; it doubles with each failure in a row.
    pub retry_pause: Span,
    /// The longest such pause: a repaired node is found within it.
    pub retry_pause_max: Span,
    /// After so many failures in a row any other node is tried first. Two may be chance.
    pub failures_elsewhere: u32,
    /// A load that takes longer than so many times its estimate has failed ...
    pub overdue_loads: u64,
    /// ... unless it is younger than this; an estimate of a second is often wrong by ten.
    pub overdue_min: Span,

    /// From the order to evict until the memory is free, in-flight answers not counted: a process ends, its pages return.
    pub unload: Span,
    /// Speed of a node's own disk before a load was measured: half of what the slowest Mac's disk reads.
    pub disk_bytes_per_s: u64,
    /// Speed of fetching weights before it was measured: one gigabit per second.
    pub link_bytes_per_s: u64,
    /// Time of a load that does not depend on its size: the start of the process and the first compilation.
    pub load_overhead: Span,

    /// Time between two plans while nobody waits for a model without a replica. Placement is planned slowly, served fast.
    pub plan_every: Span,
    /// And while somebody does: a turn that is over is noticed within this.
    pub plan_every_waiting: Span,
    /// Models named as an alternative to one that does not fit.
    pub alternatives_max: usize,
}

impl Default for ResidencyLimits {
    fn default() -> Self {
        Self {
            models_max: 1_024,
            offers_per_node_max: 256,
            starvation: Span::from_s(30),
            residency_min: Span::from_s(30),
            residency_loads: 4,
            warm: Span::from_s(600),
            demand_half_life: Span::from_s(300),
            replicate_delay: Span::from_s(10),
            replicate_delay_huge: Span::from_s(60),
            loads_per_node: 1,
            loads_total_min: 2,
            nodes_per_load: 4,
            retry_pause: Span::from_s(5),
            retry_pause_max: Span::from_s(600),
            failures_elsewhere: 3,
            overdue_loads: 4,
            overdue_min: Span::from_s(60),
            unload: Span::from_s(2),
            disk_bytes_per_s: 1_000_000_000,
            link_bytes_per_s: 110_000_000,
            load_overhead: Span::from_s(2),
            plan_every: Span::from_s(5),
            plan_every_waiting: Span::from_s(1),
            alternatives_max: 3,
        }
    }
}
