//! What a lane's latest attempts have shown: failures in a row, the share that failed, the share that was late.
//!
//! Owns the evidence and the rules that make it enough. Refuses to know the breaker's state, and with it what is enough for
//! what. Failures and lateness have a window each: a failure says nothing about speed, and lateness must be seen anew after
//! a lane was degraded for it, while its failures go on counting.

use crate::ids::RequestId;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::health::{HardKind, SoftKind};
use super::moves::MoveReason;
use super::view::Tally;
use super::window::Window;

#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    failures: Window,
    late: Window,
    streak: Streak,
    pub(super) last_hard: Option<HardKind>,
    pub(super) last_soft: Option<SoftKind>,
}

/// Hard failures since the last complete answer.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    length: u32,
    request: Option<RequestId>,
    /// Not all of one request, which might itself be at fault.
    of_several: bool,
}

impl Memory {
    /// Returns the reason to open, if there is enough of one: 1 it is enough alone, 2 failures in a row, 3 their share.
    pub(super) fn failed(
        &mut self,
        at: At,
        request: RequestId,
        kind: HardKind,
        limits: &BreakerLimits,
    ) -> Option<MoveReason> {
        self.last_hard = Some(kind);
        self.failures.push(at, true, limits);
        self.streak.push(request);
        // 1
        if kind.is_enough_alone() {
            return Some(MoveReason::Failure(kind));
        }
        // 2
        if self.streak.of_several && self.streak.length >= limits.failures_in_a_row {
            return Some(MoveReason::FailuresInARow(kind));
        }
        // 3
        self.failures.is_bad(limits).then_some(MoveReason::FailureShare(kind))
    }

    /// Returns whether too many are late.
    pub(super) fn late(&mut self, at: At, kind: SoftKind, limits: &BreakerLimits) -> bool {
        self.last_soft = Some(kind);
        self.answered(at, true, limits);
        self.late.is_bad(limits)
    }

    pub(super) fn succeeded(&mut self, at: At, limits: &BreakerLimits) {
        self.answered(at, false, limits);
    }

    /// Lateness is judged from here on.
    pub(super) fn forgive_late(&mut self) {
        self.late.clear();
    }

    pub(super) fn forgive(&mut self) {
        self.failures.clear();
        self.late.clear();
        self.streak = Streak::default();
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_clean(&self, at: At, limits: &BreakerLimits) -> bool {
        self.streak.length == 0 && self.failures.is_clean(at, limits) && self.late.is_clean(at, limits)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            outcomes: self.failures.len(),
            hard: self.failures.bad(),
            soft: self.late.bad(),
            hard_in_a_row: self.streak.length,
        }
    }

    /// An answer ended, in time or not.
    fn answered(&mut self, at: At, late: bool, limits: &BreakerLimits) {
        self.failures.push(at, false, limits);
        self.late.push(at, late, limits);
        self.streak = Streak::default();
    }
}

impl Streak {
    fn push(&mut self, request: RequestId) {
        self.length = self.length.saturating_add(1);
        self.of_several |= self.request.is_some_and(|first| first != request);
        self.request = self.request.or(Some(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: HardKind = HardKind::Reset;
    const LATE: SoftKind = SoftKind::FirstTokenLate;

    fn failed(memory: &mut Memory, request: u64) -> Option<MoveReason> {
        memory.failed(At(1), RequestId(request), RESET, &BreakerLimits::default())
    }

    #[test]
    fn three_failures_in_a_row_of_two_requests_are_enough() {
        let mut memory = Memory::default();
        assert_eq!(failed(&mut memory, 1), None);
        assert_eq!(failed(&mut memory, 2), None);
        assert_eq!(failed(&mut memory, 1), Some(MoveReason::FailuresInARow(RESET)));
    }

    #[test]
    fn failures_of_one_request_are_its_own_until_another_joins_them() {
        let mut memory = Memory::default();
        let reasons = [1, 1, 1, 2].map(|request| failed(&mut memory, request));
        assert_eq!(reasons, [None, None, None, Some(MoveReason::FailuresInARow(RESET))]);
    }

    #[test]
    fn an_answer_ends_the_row_even_a_late_one() {
        for late in [false, true] {
            let (mut memory, limits) = (Memory::default(), BreakerLimits::default());
            failed(&mut memory, 1);
            failed(&mut memory, 2);
            if late {
                memory.late(At(1), LATE, &limits);
            } else {
                memory.succeeded(At(1), &limits);
            }
            assert_eq!(memory.tally().hard_in_a_row, 0);
            assert_eq!(failed(&mut memory, 3), None);
        }
    }

    #[test]
    fn a_hang_and_a_wrong_canary_are_enough_alone_and_nothing_else_is() {
        use HardKind::{CanaryMismatch, CorruptFrame, Hang, NodeLost, Reset, RuntimeExit};
        for kind in [Hang, CanaryMismatch, RuntimeExit, Reset, CorruptFrame, NodeLost] {
            let enough =
                Memory::default().failed(At(1), RequestId(1), kind, &BreakerLimits::default()).is_some();
            assert_eq!(enough, matches!(kind, Hang | CanaryMismatch), "{kind:?}");
        }
    }

    #[test]
    fn half_of_the_outcomes_failing_is_enough_though_never_three_in_a_row() {
        let (mut memory, limits) = (Memory::default(), BreakerLimits::default());
        let mut reasons = Vec::new();
        for request in 0..3 {
            memory.succeeded(At(1), &limits);
            reasons.push(failed(&mut memory, request));
        }
        assert_eq!(reasons, [None, None, Some(MoveReason::FailureShare(RESET))]);
    }

    #[test]
    fn failures_do_not_dilute_lateness_and_lateness_dilutes_failures() {
        let (mut memory, limits) = (Memory::default(), BreakerLimits::default());
        let late: Vec<bool> = (0..5)
            .map(|request| {
                failed(&mut memory, request);
                memory.late(At(1), LATE, &limits)
            })
            .collect();
        assert_eq!(late, [false, false, false, false, true]);
        assert_eq!(memory.tally(), Tally { outcomes: 10, hard: 5, soft: 5, hard_in_a_row: 0 });
        memory.forgive_late();
        assert_eq!(memory.tally(), Tally { outcomes: 10, hard: 5, soft: 0, hard_in_a_row: 0 });
    }

    #[test]
    fn a_memory_is_clean_when_no_failure_is_recent_and_none_is_the_latest_word() {
        let limits = BreakerLimits::default();
        let mut memory = Memory::default();
        assert!(memory.is_clean(At(1), &limits));
        failed(&mut memory, 1);
        let later = At(1) + limits.window + limits.window;
        assert!(!memory.is_clean(later, &limits), "a row has no age");
        memory.succeeded(At(1), &limits);
        assert!(!memory.is_clean(At(2), &limits));
        assert!(memory.is_clean(later, &limits));
        memory.late(later, LATE, &limits);
        assert!(!memory.is_clean(later, &limits));
        memory.forgive();
        assert!(memory.is_clean(later, &limits));
    }
}
