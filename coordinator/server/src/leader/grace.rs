//! Which comes first when a runtime dies: its attempts, which say how it died, or the report that it is gone.
//!
//! Both are on their way at once, on two connections. Owns the rule that the attempts are heard first: a runtime that is not ready
//! any more still counts as ready for a moment, while something runs on its node. Else work that had not begun would be sent
//! elsewhere without a charge, and a request that kills runtimes would kill more of them than it has to. Refuses to hold back
//! anything but the sudden end of what was ready.

use std::collections::BTreeMap;

use scheduler::{At, Lane, ModelState};

use crate::limits;

#[derive(Default)]
pub(super) struct Grace {
    /// What was ready, with the time since which it is not.
    ready: BTreeMap<Lane, Option<At>>,
}

impl Grace {
    /// The state to believe. `busy`: something runs on the node.
    pub(super) fn state(
        &mut self,
        now: At,
        lane: Lane,
        reported: ModelState,
        busy: impl Fn() -> bool,
    ) -> ModelState {
        match reported {
            ModelState::Ready => {
                self.ready.insert(lane, None);
            }
            ModelState::Unloading => {
                self.ready.remove(&lane);
            }
            ModelState::Offered | ModelState::Loading { .. } | ModelState::Failed => {
                let Some(gone) = self.ready.get_mut(&lane) else { return reported };
                if now.since(*gone.get_or_insert(now)) < limits::ATTEMPTS_FIRST && busy() {
                    return ModelState::Ready;
                }
                self.ready.remove(&lane);
            }
        }
        reported
    }
}

#[cfg(test)]
mod tests {
    use scheduler::{ModelId, NodeId};

    use super::*;

    const LANE: Lane = (NodeId(1), ModelId(2));
    const GONE: ModelState = ModelState::Loading { left: None };

    fn at(ms: u64) -> At {
        At(ms * 1_000)
    }

    #[test]
    fn a_runtime_that_is_suddenly_gone_counts_as_ready_for_a_moment_while_its_node_is_busy() {
        let mut grace = Grace::default();
        let mut state = |ms, reported, busy: bool| grace.state(at(ms), LANE, reported, || busy);
        assert_eq!(state(0, ModelState::Ready, true), ModelState::Ready);
        assert_eq!(state(1_000, GONE, true), ModelState::Ready);
        assert_eq!(state(1_499, GONE, true), ModelState::Ready);
        assert_eq!(state(1_500, GONE, true), GONE);
        assert_eq!(state(1_501, GONE, true), GONE, "once");
        assert_eq!(state(2_000, ModelState::Ready, true), ModelState::Ready);
        assert_eq!(state(2_001, GONE, false), GONE, "nothing runs there");
    }

    #[test]
    fn what_never_was_ready_and_what_is_unloaded_is_believed_at_once() {
        let mut grace = Grace::default();
        let mut state = |reported| grace.state(at(0), LANE, reported, || true);
        for reported in [GONE, ModelState::Offered, ModelState::Failed] {
            assert_eq!(state(reported), reported);
        }
        state(ModelState::Ready);
        assert_eq!(state(ModelState::Unloading), ModelState::Unloading);
        assert_eq!(state(ModelState::Offered), ModelState::Offered);
    }
}
