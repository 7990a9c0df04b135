//! How far a long preparation is: what happens, in words, and a fraction where one is known.
//!
//! Owns the arithmetic of fractions. Refuses to know who listens: a terminal, a report to the coordinator, or nobody.

use std::sync::Arc;

/// One step of a preparation, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) words: String,
    /// 0 to 1000; `None` where no fraction is known.
    pub(crate) permille: Option<u16>,
}

/// Where steps are told. Cheap to clone; the listener must not block.
#[derive(Clone)]
pub(crate) struct Progress(Arc<dyn Fn(Step) + Send + Sync>);

impl Progress {
    pub(crate) fn new(listener: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// A step without a known fraction.
    pub(crate) fn tell(&self, words: impl Into<String>) {
        (self.0)(Step { words: words.into(), permille: None });
    }

    /// A step that is `done` of `total`; a total of zero is an unknown one.
    pub(crate) fn part(&self, words: impl Into<String>, done: u64, total: u64) {
        (self.0)(Step { words: words.into(), permille: permille(done, total) });
    }
}

fn permille(done: u64, total: u64) -> Option<u16> {
    let part = u128::from(done.min(total)) * 1_000;
    part.checked_div(u128::from(total)).and_then(|permille| u16::try_from(permille).ok())
}

/// A listener that keeps what it hears.
#[cfg(test)]
pub(crate) fn recorded() -> (Progress, Arc<std::sync::Mutex<Vec<Step>>>) {
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&steps);
    (Progress::new(move |step| kept.lock().expect("not poisoned").push(step)), steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_never_exceeds_the_whole() {
        assert_eq!(permille(5, 10), Some(500));
        assert_eq!(permille(11, 10), Some(1_000));
        assert_eq!(permille(u64::MAX, u64::MAX), Some(1_000));
    }

    #[test]
    fn an_unknown_total_gives_no_fraction() {
        assert_eq!(permille(5, 0), None);
    }

    #[test]
    fn steps_reach_the_listener_in_order() {
        let (progress, steps) = recorded();
        progress.tell("first");
        progress.part("second", 1, 4);
        let steps = steps.lock().expect("not poisoned").clone();
        let expected = [("first", None), ("second", Some(250))];
        assert_eq!(steps, expected.map(|(words, permille)| Step { words: words.to_owned(), permille }));
    }
}
