//! Why a model is in its state: the same words in a test, on the command line and on the dashboard.
//!
//! Owns the answer to "what is it doing, and what happens next?". Refuses to be parsed: programs read the fields.

use alloc::string::{String, ToString as _};
use core::fmt;

use crate::effect::Why;
use crate::life::Life;
use crate::process::Incarnation;
use crate::state::ModelState;
use crate::supervisor::ModelKey;
use crate::time::{At, Span};

/// All there is to know about one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The model.
    pub model: ModelKey,
    /// Whether it is wanted.
    pub wanted: bool,
    /// What is reported of it.
    pub state: ModelState,
    /// Its process.
    pub incarnation: Option<Incarnation>,
    /// That process's id, once it was spawned.
    pub pid: Option<u32>,
    /// What that process holds of the budget.
    pub reserved_bytes: u64,
    /// What a new process would need.
    pub needed_bytes: u64,
    /// Processes started since it was wanted; one more than restarts.
    pub starts: u32,
    /// What went wrong last, until it is ready again.
    pub last_failure: Option<String>,
    /// What happens next by itself, and in how long.
    pub next: Option<(Span, Why)>,
}

impl Verdict {
    pub(crate) fn of(model: ModelKey, life: &Life, state: ModelState, now: At) -> Self {
        let process = life.process.as_ref();
        Verdict {
            model,
            wanted: life.wish.is_some(),
            state,
            incarnation: process.map(|process| process.incarnation),
            pid: process.and_then(|process| process.pid),
            reserved_bytes: process.map_or(0, |process| process.reserved_bytes),
            needed_bytes: life.wish.as_ref().map_or(0, |wish| wish.needed_bytes),
            starts: life.starts,
            last_failure: life.trouble.as_ref().map(|trouble| trouble.reason.clone()),
            next: life.deadline(model).map(|(at, why)| (at.since(now), why)),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = if self.wanted { "wanted" } else { "not wanted" };
        let state = self.state.to_string();
        write!(f, "{wanted}, {state}")?;
        if let Some(incarnation) = self.incarnation {
            write!(f, "; process {incarnation}")?;
            if let Some(pid) = self.pid {
                write!(f, " (pid {pid})")?;
            }
            write!(f, " holds {} bytes", self.reserved_bytes)?;
        }
        if let Some(failure) = self.last_failure.as_ref().filter(|failure| !state.contains(failure.as_str()))
        {
            write!(f, "; last failure: {failure}")?;
        }
        if let Some((span, why)) = &self.next {
            write!(f, "; in {span}: {}", words(*why))?;
        }
        Ok(())
    }
}

/// What a deadline brings.
fn words(why: Why) -> &'static str {
    match why {
        Why::StartDeadline(_) => "killed unless it connects",
        Why::HangDeadline(_) => "killed unless it makes progress",
        Why::DrainDeadline(_) => "stopped, whatever still runs",
        Why::StopGrace(_) => "killed unless it ends by itself",
        Why::KillAgain(_) => "killed again unless it is gone",
        Why::BackoffOver(_) => "started again if memory allows",
    }
}
