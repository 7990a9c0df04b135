//! What the steps of a model told about its speed on this Mac.
//!
//! Owns the two uses of a step's figures: rates learned for use here, and sums for the coordinators, which learn from every
//! Mac. They outlive a runtime: its model's next one goes on with them. Refuses to judge a figure; each use does.

use std::sync::{Arc, Mutex};

use super::frames::StepStats;
use super::rates::Rates;
use super::step_sums::StepSums;

/// Written by the reader of a runtime, read by reports.
pub(crate) type SharedFigures = Arc<Mutex<Figures>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) rates: Rates,
    pub(crate) steps: StepSums,
}

impl Figures {
    pub(crate) fn learn(&mut self, stats: StepStats) {
        self.rates.learn(stats);
        self.steps.add(stats);
    }
}
