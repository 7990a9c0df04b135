//! How many files and connections this process may have open at a time.
//!
//! Owns asking for as many as a full house takes. macOS gives a program 256 unless it asks, which is fewer than one coordinator's clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The first that is granted: every client, agent and file of a coordinator; and what a process of macOS may have at the most.
const WANTED: [u64; 3] = [65_536, 10_240, 4_096];

/// What cannot be had is done without: whoever comes in beyond it waits, and the log says so.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    for wanted in wishes(current, maximum) {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
            return;
        }
    }
}

/// Those above `current` that `maximum` allows, or all that it allows; `None` is no bound.
fn wishes(current: Option<u64>, maximum: Option<u64>) -> impl Iterator<Item = u64> {
    let allowed = WANTED.into_iter().map(move |wanted| maximum.map_or(wanted, |maximum| wanted.min(maximum)));
    allowed.filter(move |wanted| current.is_some_and(|current| current < *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_more_than_it_has_and_for_no_more_than_it_may() {
        let asks = |current, maximum| wishes(current, maximum).collect::<Vec<_>>();
        assert_eq!(asks(Some(256), None), [65_536, 10_240, 4_096], "as macOS starts a program");
        assert_eq!(asks(Some(1_024), Some(4_096)), [4_096; 3]);
        assert_eq!(asks(Some(8_000), Some(1_000_000)), [65_536, 10_240]);
        assert_eq!(asks(Some(4_096), Some(4_096)), [0; 0]);
        assert_eq!(asks(None, None), [0; 0]);
    }

    #[test]
    fn afterwards_there_is_no_less() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        raise();
        let after = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(after >= before.max(4_096.min(getrlimit(Resource::Nofile).maximum.unwrap_or(4_096))));
    }
}
