//! What a person at the terminal is told.
//!
//! Owns the notices and the rule that they never hold up the agent: a terminal that does not read loses them.

use tokio::sync::mpsc;

/// One piece of news. Words are for people and may change; the variants are for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The Mac as its probes describe it; said once, first.
    Machine { chip: String, os: String, memory_bytes: u64 },
    /// The Python environment is being made: what happens, and how far it is.
    EnvironmentStep { words: String, permille: Option<u16> },
    /// The environment is there.
    EnvironmentReady,
    /// The environment could not be made; it is tried again.
    EnvironmentFailed { words: String },
    /// This Mac has an identity and a session.
    Joined { node: u64, cluster: String },
    /// A model entered a state, or got on in it.
    Model { model: String, state: ModelWord, reason: String, permille: u16 },
    /// No coordinator answers; they are tried for ever.
    CoordinatorLost { words: String },
    /// One answers again.
    CoordinatorBack,
    /// So many of several coordinators answer.
    Coordinators { connected: usize, known: usize },
    /// The agent takes no new work and lets what runs finish.
    Draining { attempts: u32 },
}

/// The states of a model as one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelWord {
    Waiting,
    Starting,
    Loading,
    Ready,
    Stopping,
    Failed,
    /// Prepared, not held.
    Offered,
}

/// The sending side: never waits.
#[derive(Clone, Debug)]
pub(crate) struct Notices(mpsc::Sender<Notice>);

impl Notices {
    pub(crate) fn new(sender: mpsc::Sender<Notice>) -> Self {
        Self(sender)
    }

    pub(crate) fn tell(&self, notice: Notice) {
        // Full: the terminal is slow. Closed: nobody looks. Neither may hold up a token.
        let _ = self.0.try_send(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_does_not_read_holds_up_nobody() {
        let (sender, mut heard) = mpsc::channel(1);
        let notices = Notices::new(sender);
        notices.tell(Notice::EnvironmentReady);
        notices.tell(Notice::CoordinatorBack);
        assert_eq!(heard.try_recv(), Ok(Notice::EnvironmentReady));
        assert!(heard.try_recv().is_err());
        drop(heard);
        notices.tell(Notice::CoordinatorBack);
    }
}
