//! What nodes tell of themselves, and when.
//!
//! Owns the pace of reports: one at each change, but no two within a second; what was measured in between is summed up.
//! Refuses to tell anything in silence, so that an idle hour costs nothing.

use scheduler::{ModelId, NodeId, Span};

use super::World;
use super::agenda::Occurrence;
use crate::limits::REPORT_US;
use crate::node::{Lane, Notice, Phase};
use crate::policy::{Event, ModelReport, ModelState, NodeReport};

/// What the world keeps beside each node.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// The plan whose end is on the agenda.
    pub(super) foreseen: u64,
    /// When the next report may be sent.
    next_report: u64,
    report_due: bool,
    /// What the last report said of each model.
    told: Vec<(ModelId, ModelState)>,
    pub(super) failed_loads: Vec<ModelId>,
    loaded_in: Vec<(ModelId, Span)>,
    pub(super) busy_until: u64,
    pub(super) mute_until: u64,
    pub(super) loads_fail_until: u64,
    pub(super) slow_until: u64,
    /// Since the node died: nobody has noticed yet.
    pub(super) unnoticed: bool,
    /// What its death ended, until it is noticed.
    pub(super) mourned: Vec<Notice>,
}

impl Side {
    /// Whoever listened before listens no more: the next report is news.
    pub(super) fn forget_told(&mut self) {
        self.told.clear();
    }
}

impl World<'_> {
    /// What a node holds at the start is there at once, and how long its load took is known, as it is of every load.
    pub(super) fn furnish(&mut self, id: NodeId) {
        for model in &self.fleet.node(id).holds {
            let node = self.node(id);
            if node.load(*model)
                && let Some(lane) = node.lane_mut(*model)
            {
                lane.phase = Phase::Ready;
                let took = Span((node.load_s(*model) * 1e6) as u64);
                self.side(id).loaded_in.push((*model, took));
            }
        }
        self.report(id);
    }

    pub(super) fn loaded(&mut self, id: NodeId, model: ModelId, life: u32) {
        let (work, now) = (self.work, self.now);
        let fails = self.side(id).loads_fail_until > now;
        let node = self.node(id);
        let took = Span((node.load_s(model) * 1e6) as u64);
        let Some(lane) =
            node.lane_mut(model).filter(|lane| lane.life == life && lane.phase == Phase::Loading)
        else {
            return;
        };
        if fails {
            return self.load_failed(id, model);
        }
        lane.phase = Phase::Ready;
        node.join(now, work);
        self.loads += 1;
        self.side(id).loaded_in.push((model, took));
        self.touched(id);
    }

    /// Puts a report on the agenda if there is anything new to say.
    pub(super) fn wish_to_report(&mut self, id: NodeId) {
        let now = self.now;
        let node = &self.nodes[id.0 as usize];
        let side = &mut self.sides[id.0 as usize];
        let measured = node.lanes.iter().any(|lane| !lane.samples.is_empty());
        let news = measured
            || !side.failed_loads.is_empty()
            || !side.told.iter().copied().eq(node.lanes.iter().map(|lane| (lane.model, state(lane))));
        if news && !side.report_due {
            side.report_due = true;
            let at = side.next_report.max(now);
            self.agenda.enter(at, Occurrence::Report { node: id });
        }
    }

    pub(super) fn report(&mut self, id: NodeId) {
        let now = self.now;
        let slots = self.fleet.node(id).rows_max;
        let side = &mut self.sides[id.0 as usize];
        let node = &mut self.nodes[id.0 as usize];
        side.report_due = false;
        if !node.up || side.mute_until > now {
            return;
        }
        side.next_report = now + REPORT_US;
        let loaded_in = std::mem::take(&mut side.loaded_in);
        let took = |model| loaded_in.iter().find(|(other, _)| *other == model).map(|(_, took)| *took);
        let models = node.lanes.iter_mut().map(|lane| ModelReport {
            model: lane.model,
            state: state(lane),
            slots,
            samples: lane.samples.take(),
            loaded_in: took(lane.model),
        });
        let models: Vec<ModelReport> = models.collect();
        side.told = models.iter().map(|model| (model.model, model.state)).collect();
        let report = NodeReport { models, failed_loads: std::mem::take(&mut side.failed_loads) };
        self.news.push_back(Event::NodeReport { node: id, report });
    }
}

fn state(lane: &Lane) -> ModelState {
    match lane.phase {
        Phase::Queued | Phase::Loading => ModelState::Loading,
        Phase::Ready | Phase::Hung if lane.leaving => ModelState::Leaving,
        Phase::Ready | Phase::Hung => ModelState::Ready,
    }
}
