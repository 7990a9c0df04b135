//! Every bound of this crate, with its reason.
//!
//! Owns the defaults. They are fields rather than constants so that a test or a simulator can shorten a life to
//! milliseconds; the agent runs with the defaults.

use crate::time::Span;

/// The bounds of one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From `Start` to `Hello`. A cold start of Python with MLX takes 3 to 10 s on a busy Mac; six times that means
    /// it will not come.
    pub start_deadline: Span,
    /// Silence that counts as a hang, at least. The runtime proves life each second; fifteen missed proofs are no
    /// accident of scheduling.
    pub hang_min: Span,
    /// Silence that counts as a hang, in expected steps, because one step may take longer than a second on a large
    /// model: four of them without a word are not slowness.
    pub hang_steps: u64,
    /// Silence that counts as a hang, at most, whatever a runtime says about its steps.
    pub hang_max: Span,
    /// Silence of a runtime that loads, which shows life only between tensors: one of 2 GB, as stacked experts are, takes 20 s
    /// from a disk on the network at a gigabit, and minutes when others read from it too.
    pub load_silence: Span,
    /// From the end of the wish to `Stop` while answers still run. An answer of 1,000 tokens at 10 tokens a second takes less;
    /// whoever waits for the memory should not wait longer.
    pub drain_max: Span,
    /// From `Stop` to `Kill`. A step ends within seconds, and nothing is lost by killing a runtime without work.
    pub stop_grace: Span,
    /// From one `Kill` to the next while the process is still there. SIGKILL takes effect at once unless the process
    /// hangs in the kernel, which for a GPU driver takes seconds or for ever.
    pub kill_again: Span,
    /// Delay after the first failure: soon enough to go unnoticed when the failure was an accident.
    pub backoff_first: Span,
    /// Longest delay: a Mac that was repaired is back within a minute.
    pub backoff_max: Span,
    /// Healthy uptime that takes back one doubling. As long as the longest delay, so that a runtime which fails each
    /// minute never gets back to quick restarts.
    pub backoff_decay: Span,
    /// Models that can be wanted, and processes that can be alive, at one time. The registry wants at most 64 on
    /// one node.
    pub models_max: usize,
    /// Longest reason that is kept and reported. A runtime's last words are cut to this.
    pub reason_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            start_deadline: Span::from_secs(60),
            hang_min: Span::from_secs(15),
            hang_steps: 4,
            hang_max: Span::from_secs(600),
            load_silence: Span::from_secs(120),
            drain_max: Span::from_secs(120),
            stop_grace: Span::from_secs(10),
            kill_again: Span::from_secs(5),
            backoff_first: Span::from_millis(500),
            backoff_max: Span::from_secs(60),
            backoff_decay: Span::from_secs(60),
            models_max: 128,
            reason_bytes_max: 1024,
        }
    }
}

impl Limits {
    /// Silence after which a runtime that announced steps of this length is hung.
    #[must_use]
    pub fn hang_after(&self, expected_step: Span) -> Span {
        let steps = expected_step.times(self.hang_steps);
        steps.min(self.hang_max).max(self.hang_min)
    }
}
