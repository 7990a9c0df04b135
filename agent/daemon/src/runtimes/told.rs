//! How much of the steps one coordinator has been told.
//!
//! Owns a mark in the sums of each model, so that every coordinator hears of every step once, whatever the others have heard and
//! however long it was away. Refuses to keep a model's mark longer than its figures live.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::figures::{Figures, SharedFigures};
use super::step_sums::{StepSample, StepSums};

/// The marks of one coordinator.
#[derive(Debug, Default)]
pub(crate) struct Told {
    marks: Vec<(Weak<Mutex<Figures>>, StepSums)>,
}

impl Told {
    /// The steps of a model that this coordinator has not heard of.
    pub(crate) fn news(&mut self, figures: &SharedFigures) -> Vec<StepSample> {
        self.marks.retain(|(marked, _)| marked.strong_count() > 0);
        let now = figures.lock().unwrap_or_else(PoisonError::into_inner).steps.clone();
        let mine = Arc::downgrade(figures);
        match self.marks.iter_mut().find(|(marked, _)| marked.ptr_eq(&mine)) {
            Some((_, mark)) => {
                let news = now.since(mark);
                *mark = now;
                news
            }
            None => {
                let news = now.since(&StepSums::default());
                self.marks.push((mine, now));
                news
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::StepStats;

    fn step(figures: &SharedFigures, batch: u32) {
        figures.lock().expect("not poisoned").learn(StepStats(0.0, 0, 0.5, batch, 8));
    }

    fn steps(told: &mut Told, figures: &SharedFigures) -> Vec<(f32, u32)> {
        told.news(figures).iter().map(|sample| (sample.batch, sample.steps)).collect()
    }

    #[test]
    fn each_coordinator_is_told_every_step_once_and_a_late_one_all_that_were() {
        let figures = SharedFigures::default();
        let (mut early, mut late) = (Told::default(), Told::default());
        step(&figures, 1);
        assert_eq!(steps(&mut early, &figures), [(1.0, 1)]);
        step(&figures, 1);
        step(&figures, 2);
        assert_eq!(steps(&mut early, &figures), [(1.0, 1), (2.0, 1)]);
        assert_eq!(steps(&mut late, &figures), [(1.0, 2), (2.0, 1)]);
        assert_eq!((steps(&mut early, &figures), steps(&mut late, &figures)), (vec![], vec![]));
    }

    #[test]
    fn models_have_marks_of_their_own_which_go_with_them() {
        let (one, other) = (SharedFigures::default(), SharedFigures::default());
        let mut told = Told::default();
        step(&one, 1);
        step(&other, 3);
        assert_eq!(steps(&mut told, &one), [(1.0, 1)]);
        assert_eq!(steps(&mut told, &other), [(3.0, 1)]);
        drop(one);
        assert_eq!(steps(&mut told, &other), []);
        assert_eq!(told.marks.len(), 1);
    }
}
