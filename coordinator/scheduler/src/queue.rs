//! The one global queue: who waits, and who is before whom.
//!
//! Owns a line per model and the order in it. Refuses to know nodes, speeds and clocks: it is handed the turn of each tenant and
//! the rank of each request.
//!
//! The order of a line:
//!
//! 1. *Marked* requests, by arrival: an attempt of theirs came to nothing, so their turn has come before. They differ from one
//!    another in the nodes they must keep away from, and are few.
//! 2. *Fresh* ones by class, interactive before batch; within a class by the turns their tenants have had; within a turn by rank,
//!    which is arrival plus a handicap for size, so that small work overtakes large work by a bounded time and nobody starves.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::command::Class;
use crate::fairness::Turns;
use crate::ids::{ModelId, RequestId, TenantId};
use crate::limits::MARKED_TRIED_MAX;
use crate::ranked::RankedSet;
use crate::time::{At, Span};

/// What decides a request's place in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) marked: Option<At>,
    pub(crate) arrived: At,
    pub(crate) class: Class,
    pub(crate) tenant: TenantId,
    pub(crate) rank: At,
    pub(crate) request: RequestId,
    /// Node time it is expected to take.
    pub(crate) work: Span,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: BTreeMap<ModelId, Line>,
    /// Which lines a tenant stands in.
    standing: BTreeSet<(TenantId, ModelId)>,
    waiting: usize,
    work: Span,
    work_of: BTreeMap<TenantId, Span>,
}

#[derive(Debug, Default)]
struct Line {
    marked: BTreeSet<(At, RequestId)>,
    queues: BTreeMap<(Class, TenantId), OneTenant>,
    /// The first of each tenant's requests, in the order of the line.
    heads: RankedSet<Head>,
    arrivals: BTreeSet<(At, RequestId)>,
    interactive: usize,
    batch: usize,
    work: Span,
}

#[derive(Debug)]
struct OneTenant {
    turns: Turns,
    requests: RankedSet<(At, RequestId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    class: Class,
    turns: Turns,
    rank: At,
    request: RequestId,
    tenant: TenantId,
}

/// How far to count in a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountBounds {
    /// Tenants looked at.
    pub(crate) heads: usize,
    /// When so many are found, whether there are more is of no interest.
    pub(crate) enough: usize,
}

/// How urgent the first of a line is, to compare lines: lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    fresh: bool,
    class: Class,
    turns: Turns,
    rank: At,
}

impl Queue {
    /// `turns` is how many its tenant has had.
    pub(crate) fn insert(&mut self, model: ModelId, place: &Place, turns: Turns) {
        let line = self.lines.entry(model).or_default();
        if !line.insert(place, turns) {
            return;
        }
        self.standing.insert((place.tenant, model));
        self.waiting = self.waiting.saturating_add(1);
        self.work = self.work + place.work;
        let work = self.work_of.entry(place.tenant).or_default();
        *work = *work + place.work;
    }

    pub(crate) fn remove(&mut self, model: ModelId, place: &Place) {
        let Some(line) = self.lines.get_mut(&model) else { return };
        if !line.remove(place) {
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.work = self.work.less(place.work);
        if let Some(work) = self.work_of.get_mut(&place.tenant) {
            *work = work.less(place.work);
            if *work == Span::ZERO {
                self.work_of.remove(&place.tenant);
            }
        }
        if !line.has(place.tenant) {
            self.standing.remove(&(place.tenant, model));
        }
        if line.len() == 0 {
            self.lines.remove(&model);
        }
    }

    /// The tenant has had so many turns by now: its requests move in every line where it stands.
    pub(crate) fn reorder(&mut self, tenant: TenantId, turns: Turns) {
        for (_, model) in self.standing.range((tenant, ModelId(0))..=(tenant, ModelId(u32::MAX))) {
            if let Some(line) = self.lines.get_mut(model) {
                line.reorder(tenant, turns);
            }
        }
    }

    /// The first requests worth trying: the marked ones, then up to `fresh_max` fresh ones, first the first of each tenant.
    pub(crate) fn window(&self, model: ModelId, fresh_max: usize) -> Vec<RequestId> {
        let Some(line) = self.lines.get(&model) else { return Vec::new() };
        let marked = line.marked.iter().take(MARKED_TRIED_MAX);
        let mut window: Vec<RequestId> = marked.map(|(_, request)| *request).collect();
        let marked = window.len();
        window.extend(line.heads.iter().take(fresh_max).map(|head| head.request));
        for head in line.heads.iter() {
            let short = fresh_max.saturating_add(marked).saturating_sub(window.len());
            if short == 0 {
                break;
            }
            let rest = line.queues.get(&(head.class, head.tenant)).into_iter();
            window.extend(
                rest.flat_map(|queue| queue.requests.iter().skip(1)).take(short).map(|(_, request)| request),
            );
        }
        window
    }

    /// The marked and those of the class's tenants, and of the classes before, that have had at most so many turns. With more such
    /// tenants than are looked at the whole line: a bound on the work, and by then about as many.
    pub(crate) fn up_to(&self, model: ModelId, class: Class, turns: Turns, bounds: CountBounds) -> usize {
        let Some(line) = self.lines.get(&model) else { return 0 };
        let behind = Head {
            class,
            turns: Turns(turns.0.saturating_add(1)),
            rank: At(0),
            request: RequestId(0),
            tenant: TenantId(0),
        };
        let claiming = line.heads.rank(behind);
        if claiming > bounds.heads {
            return line.len();
        }
        let mut count = line.marked.len();
        for head in line.heads.iter().take(claiming) {
            if count >= bounds.enough {
                break;
            }
            let queue = line.queues.get(&(head.class, head.tenant));
            count = count.saturating_add(queue.map_or(0, |queue| queue.requests.len()));
        }
        count
    }

    /// How urgent the first of the line is; `None` when nobody waits.
    pub(crate) fn urgency(&self, model: ModelId) -> Option<Urgency> {
        let line = self.lines.get(&model)?;
        let marked = line.marked.first().map(|(arrived, _)| Urgency {
            fresh: false,
            class: Class::Interactive,
            turns: Turns(0),
            rank: *arrived,
        });
        marked.or_else(|| {
            let head = line.heads.first()?;
            Some(Urgency { fresh: true, class: head.class, turns: head.turns, rank: head.rank })
        })
    }

    /// About how many go first, if every tenant's next requests take turns. Exact for the first of each tenant.
    pub(crate) fn ahead(&self, model: ModelId, place: &Place) -> usize {
        self.lines.get(&model).map_or(0, |line| line.ahead(place))
    }

    pub(crate) fn contains(&self, model: ModelId, place: &Place) -> bool {
        self.lines.get(&model).is_some_and(|line| line.contains(place))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Node time that all the waiting are expected to take.
    pub(crate) fn work(&self) -> Span {
        self.work
    }

    pub(crate) fn work_of(&self, tenant: TenantId) -> Span {
        self.work_of.get(&tenant).copied().unwrap_or_default()
    }

    /// The tenant whose work is more than half of all that waits. Linear in those who wait.
    pub(crate) fn majority(&self) -> Option<TenantId> {
        let mut all = self.work_of.iter();
        all.find(|(_, work)| **work > self.work.less(**work)).map(|(tenant, _)| *tenant)
    }

    /// Tenants somebody of whom waits.
    pub(crate) fn tenants(&self) -> usize {
        self.work_of.len()
    }

    pub(crate) fn work_for(&self, model: ModelId) -> Span {
        self.lines.get(&model).map_or(Span::ZERO, |line| line.work)
    }

    /// When the one arrived who has waited longest.
    pub(crate) fn oldest(&self, model: ModelId) -> Option<At> {
        self.lines.get(&model)?.arrivals.first().map(|(arrived, _)| *arrived)
    }

    pub(crate) fn length(&self, model: ModelId) -> usize {
        self.lines.get(&model).map_or(0, Line::len)
    }

    /// Whether interactive work waits fresh for `model`.
    pub(crate) fn has_interactive(&self, model: ModelId) -> bool {
        self.lines.get(&model).is_some_and(|line| line.interactive > 0)
    }

    /// Each model somebody waits for, with the number waiting.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (ModelId, usize)> + '_ {
        self.lines.iter().map(|(model, line)| (*model, line.len()))
    }

    /// Everybody in the line of `model`: the marked in order, then tenant by tenant in the order of their first.
    pub(crate) fn line(&self, model: ModelId) -> impl Iterator<Item = RequestId> + '_ {
        self.lines.get(&model).into_iter().flat_map(|line| {
            let marked = line.marked.iter().map(|(_, request)| *request);
            let heads = line.heads.iter();
            let fresh = heads.filter_map(|head| line.queues.get(&(head.class, head.tenant)));
            marked.chain(fresh.flat_map(|queue| queue.requests.iter().map(|(_, request)| request)))
        })
    }

    /// Everybody of one class who waits fresh in the line of `model`.
    pub(crate) fn of_class(&self, model: ModelId, class: Class) -> Vec<RequestId> {
        let queues = self.lines.get(&model).into_iter().flat_map(|line| line.queues.iter());
        let of_class = queues.filter(|((of, _), _)| *of == class);
        of_class.flat_map(|(_, queue)| queue.requests.iter().map(|(_, request)| request)).collect()
    }
}

impl Line {
    fn len(&self) -> usize {
        self.marked.len().saturating_add(self.interactive).saturating_add(self.batch)
    }

    fn count(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Batch => &mut self.batch,
        }
    }

    fn insert(&mut self, place: &Place, turns: Turns) -> bool {
        let fresh = match place.marked {
            Some(arrived) => self.marked.insert((arrived, place.request)),
            None => self.change(place.class, place.tenant, turns, |requests| {
                requests.insert((place.rank, place.request))
            }),
        };
        if fresh {
            self.arrivals.insert((place.arrived, place.request));
            self.work = self.work + place.work;
            if place.marked.is_none() {
                let count = self.count(place.class);
                *count = count.saturating_add(1);
            }
        }
        fresh
    }

    fn remove(&mut self, place: &Place) -> bool {
        let turns = self.queues.get(&(place.class, place.tenant)).map_or(Turns(0), |queue| queue.turns);
        let known = match place.marked {
            Some(arrived) => self.marked.remove(&(arrived, place.request)),
            None => self.change(place.class, place.tenant, turns, |requests| {
                requests.remove((place.rank, place.request))
            }),
        };
        if known {
            self.arrivals.remove(&(place.arrived, place.request));
            self.work = self.work.less(place.work);
            if place.marked.is_none() {
                let count = self.count(place.class);
                *count = count.saturating_sub(1);
            }
        }
        known
    }

    fn reorder(&mut self, tenant: TenantId, turns: Turns) {
        for class in [Class::Interactive, Class::Batch] {
            if self.queues.get(&(class, tenant)).is_some_and(|queue| queue.turns != turns) {
                self.change(class, tenant, turns, |_| true);
            }
        }
    }

    /// Changes one tenant's requests, and its head with them.
    fn change(
        &mut self,
        class: Class,
        tenant: TenantId,
        turns: Turns,
        change: impl FnOnce(&mut RankedSet<(At, RequestId)>) -> bool,
    ) -> bool {
        let new = OneTenant { turns, requests: RankedSet::default() };
        let queue = self.queues.entry((class, tenant)).or_insert(new);
        let before = head(class, tenant, queue);
        let changed = change(&mut queue.requests);
        queue.turns = turns;
        let after = head(class, tenant, queue);
        if after == before && after.is_some() {
            return changed;
        }
        if let Some(before) = before {
            self.heads.remove(before);
        }
        match after {
            Some(after) => {
                self.heads.insert(after);
            }
            None => {
                self.queues.remove(&(class, tenant));
            }
        }
        changed
    }

    fn has(&self, tenant: TenantId) -> bool {
        self.queues.contains_key(&(Class::Interactive, tenant))
            || self.queues.contains_key(&(Class::Batch, tenant))
    }

    fn contains(&self, place: &Place) -> bool {
        match place.marked {
            Some(arrived) => self.marked.contains(&(arrived, place.request)),
            None => self
                .queues
                .get(&(place.class, place.tenant))
                .is_some_and(|queue| queue.requests.contains((place.rank, place.request))),
        }
    }

    fn ahead(&self, place: &Place) -> usize {
        if let Some(arrived) = place.marked {
            return self.marked.range(..(arrived, place.request)).count();
        }
        let Some(queue) = self.queues.get(&(place.class, place.tenant)) else { return self.len() };
        let (class_before, in_class) = match place.class {
            Class::Interactive => (0, self.interactive),
            Class::Batch => (self.interactive, self.batch),
        };
        let own = queue.requests.rank((place.rank, place.request));
        let heads_before = head(place.class, place.tenant, queue).map_or(0, |head| self.heads.rank(head));
        // Of a batch line only the heads of its own class compete with it; those of the other are all counted already.
        let interactive_heads = match place.class {
            Class::Interactive => 0,
            Class::Batch => self.heads.rank(Head { class: Class::Batch, ..FIRST }),
        };
        let competing = match place.class {
            Class::Interactive => self.heads.rank(Head { class: Class::Batch, ..FIRST }),
            Class::Batch => self.heads.len().saturating_sub(interactive_heads),
        };
        let others = in_class.saturating_sub(queue.requests.len());
        let turns_of_others = own.saturating_mul(competing.saturating_sub(1));
        let before =
            heads_before.saturating_sub(interactive_heads).saturating_add(turns_of_others).min(others);
        self.marked.len().saturating_add(class_before).saturating_add(own).saturating_add(before)
    }
}

/// The first head there could be.
const FIRST: Head = Head {
    class: Class::Interactive,
    turns: Turns(0),
    rank: At(0),
    request: RequestId(0),
    tenant: TenantId(0),
};

fn head(class: Class, tenant: TenantId, queue: &OneTenant) -> Option<Head> {
    let (rank, request) = queue.requests.first()?;
    Some(Head { class, turns: queue.turns, rank, request, tenant })
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
