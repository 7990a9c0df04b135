//! Which node probably has which prefix in its cache, from what was sent there.
//!
//! Owns this belief: a lane holds the blocks of the prompts sent to it, those used last, as far as its cache reaches; and it
//! never holds a block without the one before it. Finished requests tell what was truly cached and correct it. Refuses event
//! streams from the runtimes: the router's own history is within a few percent of them. Refuses to be relied on, too: a
//! wrong belief costs a prefill, never an answer.

mod held;
mod holdings;
mod segments;
mod sessions;

use self::holdings::{Holdings, blocks_of};
use self::sessions::{Seat, Sessions};
use crate::ids::{Block, Lane, ModelId, NodeId, SessionKey};
use crate::limits::PrefixLimits;
use crate::time::At;

#[derive(Debug)]
pub(crate) struct PrefixIndex {
    holdings: Holdings,
    sessions: Sessions,
    totals: PrefixTotals,
    limits: PrefixLimits,
}

/// One dispatch, to be handed back when its request has finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visit {
    number: u64,
    /// Blocks of the request that the lane was believed to hold.
    pub(crate) matched: u32,
    /// Of these, those that could not still be on their way.
    settled: u32,
}

/// Tokens in whole blocks, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixTotals {
    /// Of all dispatched prompts.
    pub asked_tokens: u64,
    /// Of these, believed to be cached where they went.
    pub believed_tokens: u64,
    /// Of these, truly cached, as finished requests told.
    pub cached_tokens: u64,
}

impl PrefixIndex {
    pub(crate) fn new(limits: &PrefixLimits) -> Self {
        Self {
            holdings: Holdings::new(limits),
            sessions: Sessions::default(),
            totals: PrefixTotals::default(),
            limits: *limits,
        }
    }

    /// Tells `each` every node that holds the beginning of this chain, with how many of its blocks. Each once, in no order.
    pub(crate) fn matches(&self, model: ModelId, blocks: &[Block], each: impl FnMut(NodeId, u32)) {
        self.holdings.matches(model, blocks, each);
    }

    /// The tokens of so many blocks.
    pub(crate) fn tokens(&self, blocks: u32) -> u32 {
        blocks.saturating_mul(self.limits.block_tokens)
    }

    /// A request goes to the lane, which will soon hold its blocks.
    pub(crate) fn dispatched(
        &mut self,
        lane: Lane,
        session: Option<SessionKey>,
        blocks: &[Block],
        at: At,
    ) -> Visit {
        let (matched, settled) = self.holdings.matched(lane, blocks);
        let number = self.holdings.visit(lane, blocks, false);
        if let Some(session) = session {
            let seat = Seat { node: lane.0, visit: number, at };
            self.sessions.sit(session, lane.1, seat, &self.limits);
        }
        self.add_tokens(number_of(blocks), |totals| &mut totals.asked_tokens);
        self.add_tokens(matched, |totals| &mut totals.believed_tokens);
        Visit { number, matched, settled }
    }

    /// A request has finished: so much of its prompt was cached when it was sent, and all of it is now. If that is less than
    /// was settled by then, the lane had lost what it held behind it, but for what was sent there since, and fits less than
    /// believed; if it is more than was believed, it fits more.
    pub(crate) fn corrected(&mut self, lane: Lane, blocks: &[Block], visit: Visit, cached_tokens: u32) {
        if !self.holdings.remembers(lane, visit.number) {
            return;
        }
        let cached = cached_tokens.checked_div(self.limits.block_tokens).unwrap_or_default();
        let cached = cached.min(number_of(blocks));
        if cached.saturating_add(self.limits.rounding_blocks) < visit.settled {
            self.holdings.lost(lane, blocks, cached, visit.number);
        }
        self.holdings.stretch(lane, cached.saturating_sub(visit.matched));
        self.holdings.visit(lane, blocks, true);
        self.add_tokens(cached, |totals| &mut totals.cached_tokens);
    }

    /// A report says how much the prefix cache of the lane takes. A runtime without one takes none.
    pub(crate) fn capacity(&mut self, lane: Lane, tokens: u32) {
        self.holdings.report(lane, blocks_of(tokens, &self.limits));
    }

    /// The lane holds nothing any more: unloaded, restarted, lost.
    pub(crate) fn forget(&mut self, lane: Lane) {
        self.holdings.forget(lane);
    }

    /// The node that served the session last, unless it has forgotten since.
    pub(crate) fn session(&self, session: SessionKey, model: ModelId, at: At) -> Option<NodeId> {
        let seat = self.sessions.seat(session, model, at, &self.limits)?;
        self.holdings.remembers((seat.node, model), seat.visit).then_some(seat.node)
    }

    pub(crate) fn totals(&self) -> PrefixTotals {
        self.totals
    }

    fn add_tokens(&mut self, blocks: u32, of: impl FnOnce(&mut PrefixTotals) -> &mut u64) {
        let tokens = u64::from(blocks).saturating_mul(u64::from(self.limits.block_tokens));
        let total = of(&mut self.totals);
        *total = total.saturating_add(tokens);
    }
}

fn number_of(blocks: &[Block]) -> u32 {
    segments::narrowed(blocks.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    const QWEN: ModelId = ModelId(1);
    const MINI: Lane = (NodeId(1), QWEN);
    const STUDIO: Lane = (NodeId(2), QWEN);

    /// Blocks with these numbers, a chain as long as no number follows two others.
    fn chain(blocks: &[u64]) -> Vec<Block> {
        blocks.iter().map(|block| Block(*block)).collect()
    }

    fn index() -> PrefixIndex {
        let limits =
            PrefixLimits { capacity_tokens: 20 * 256, rounding_blocks: 0, ..PrefixLimits::default() };
        PrefixIndex::new(&limits)
    }

    fn send(index: &mut PrefixIndex, lane: Lane, blocks: &[u64]) -> Visit {
        index.dispatched(lane, None, &chain(blocks), At(0))
    }

    /// Sends a request that finds all that is believed, and finishes it.
    fn serve(index: &mut PrefixIndex, lane: Lane, blocks: &[u64]) {
        let visit = send(index, lane, blocks);
        index.corrected(lane, &chain(blocks), visit, visit.matched * 256);
    }

    /// Serves something old first, which bears the shrinking that comes with a loss.
    fn aged(mut index: PrefixIndex) -> PrefixIndex {
        [MINI, STUDIO].iter().for_each(|lane| serve(&mut index, *lane, &(900..908).collect::<Vec<_>>()));
        index
    }

    fn matches(index: &PrefixIndex, blocks: &[u64]) -> Vec<(u64, u32)> {
        let mut matches = Vec::new();
        index.matches(QWEN, &chain(blocks), |node, blocks| matches.push((node.0, blocks)));
        matches.sort_unstable();
        matches
    }

    #[test]
    fn each_node_is_told_with_as_much_of_the_chain_as_was_sent_there() {
        let mut index = index();
        send(&mut index, MINI, &[1, 2, 3, 4]);
        send(&mut index, STUDIO, &[1, 2, 30]);
        assert_eq!(matches(&index, &[1, 2, 3, 4, 5]), [(1, 4), (2, 2)]);
        assert_eq!(matches(&index, &[1, 2, 30]), [(1, 2), (2, 3)]);
        assert_eq!(matches(&index, &[1]), [(1, 1), (2, 1)]);
        assert_eq!(matches(&index, &[9]), []);
        assert_eq!(matches(&index, &[]), []);
        assert_eq!(index.holdings.matched(MINI, &chain(&[1, 2, 3, 7])).0, 3);
    }

    #[test]
    fn models_share_no_cache() {
        let mut index = index();
        send(&mut index, MINI, &[1, 2]);
        assert_eq!(index.holdings.matched((NodeId(1), ModelId(2)), &chain(&[1, 2])).0, 0);
    }

    #[test]
    fn a_full_lane_loses_what_was_used_longest_ago_from_its_end() {
        let mut index = index();
        index.capacity(MINI, 6 * 256 + 255);
        send(&mut index, MINI, &[1, 2, 3]);
        send(&mut index, MINI, &[4, 5, 6]);
        send(&mut index, MINI, &[1, 7]);
        assert_eq!(matches(&index, &[1, 2, 3]), [(1, 2)]);
        assert_eq!(matches(&index, &[1, 7]), [(1, 2)]);
        assert_eq!(matches(&index, &[4, 5, 6]), [(1, 3)]);
        send(&mut index, MINI, &[8, 9]);
        assert_eq!(matches(&index, &[1, 2, 3]), [(1, 1)]);
        assert_eq!(matches(&index, &[4, 5, 6]), [(1, 2)]);
    }

    #[test]
    fn of_a_prompt_that_does_not_fit_the_beginning_is_held() {
        let mut index = index();
        index.capacity(MINI, 2 * 256);
        send(&mut index, MINI, &[1, 2, 3, 4]);
        assert_eq!(matches(&index, &[1, 2, 3, 4]), [(1, 2)]);
        index.capacity(MINI, 0);
        assert_eq!(matches(&index, &[1, 2, 3, 4]), []);
        send(&mut index, MINI, &[1, 2, 3, 4]);
        assert_eq!(matches(&index, &[1, 2, 3, 4]), []);
    }

    #[test]
    fn over_all_the_lane_used_longest_ago_pays() {
        let mut index = PrefixIndex::new(&PrefixLimits { blocks_max: 5, ..PrefixLimits::default() });
        send(&mut index, MINI, &[1, 2, 3]);
        send(&mut index, STUDIO, &[1, 2, 3]);
        assert_eq!(matches(&index, &[1, 2, 3]), [(1, 2), (2, 3)]);
        send(&mut index, STUDIO, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(matches(&index, &[1, 2, 3, 4, 5, 6]), [(2, 5)]);
    }

    #[test]
    fn what_was_not_cached_after_all_is_forgotten_with_all_behind_it() {
        let mut index = aged(index());
        serve(&mut index, MINI, &[1, 2, 3, 4, 5]);
        serve(&mut index, MINI, &[1, 2, 3, 40, 50]);
        let visit = send(&mut index, MINI, &[1, 2, 3]);
        assert_eq!(visit.matched, 3);
        index.corrected(MINI, &chain(&[1, 2, 3]), visit, 2 * 256 + 9);
        assert_eq!(matches(&index, &[1, 2, 3, 4, 5]), [(1, 3)]);
        assert_eq!(matches(&index, &[1, 2, 3, 40, 50]), [(1, 3)]);
    }

    #[test]
    fn a_correction_spares_what_hangs_before_it_and_what_was_sent_since() {
        let mut index = aged(index());
        serve(&mut index, MINI, &[1, 20, 30]);
        serve(&mut index, MINI, &[1, 2, 3, 4]);
        let visit = send(&mut index, MINI, &[1, 2, 3]);
        send(&mut index, MINI, &[1, 2, 3, 40]);
        index.corrected(MINI, &chain(&[1, 2, 3]), visit, 256);
        assert_eq!(matches(&index, &[1, 20, 30]), [(1, 3)]);
        assert_eq!(matches(&index, &[1, 2, 3, 40]), [(1, 4)]);
        assert_eq!(matches(&index, &[1, 2, 3, 4]), [(1, 3)]);
    }

    #[test]
    fn a_correction_of_one_lane_is_none_of_another() {
        let mut index = aged(index());
        serve(&mut index, MINI, &[1, 2, 3]);
        serve(&mut index, STUDIO, &[1, 2, 3]);
        let visit = send(&mut index, MINI, &[1, 2]);
        index.corrected(MINI, &chain(&[1, 2]), visit, 0);
        assert_eq!(matches(&index, &[1, 2, 3]), [(1, 2), (2, 3)]);
    }

    #[test]
    fn what_was_still_on_its_way_was_not_lost() {
        let mut index = index();
        send(&mut index, MINI, &[1, 2, 3, 4]);
        let visit = send(&mut index, MINI, &[1, 2, 30]);
        index.corrected(MINI, &chain(&[1, 2, 30]), visit, 0);
        assert_eq!(visit.matched, 2);
        assert_eq!(matches(&index, &[1, 2, 3, 4]), [(1, 4)]);
    }

    #[test]
    fn what_a_runtime_rounds_off_was_not_lost() {
        let mut index = aged(PrefixIndex::new(&PrefixLimits::default()));
        serve(&mut index, MINI, &[1, 2, 3, 4, 5]);
        for (cached, left) in [(2, 5), (1, 4)] {
            let visit = send(&mut index, MINI, &[1, 2, 3, 4]);
            index.corrected(MINI, &chain(&[1, 2, 3, 4]), visit, cached * 256);
            assert_eq!(matches(&index, &[1, 2, 3, 4, 5]), [(1, left)]);
        }
    }

    #[test]
    fn a_loss_says_that_less_fits_and_a_find_that_more_does() {
        let mut index = index();
        (1..=4).for_each(|first| {
            serve(&mut index, MINI, &[10 * first, 10 * first + 1, 10 * first + 2, 10 * first + 3])
        });
        let visit = send(&mut index, MINI, &[40, 41]);
        index.corrected(MINI, &chain(&[40, 41]), visit, 0);
        // Fourteen were left of sixteen, of which an eighth is one.
        assert_eq!(matches(&index, &[10, 11, 12, 13]), [(1, 3)]);
        let visit = send(&mut index, MINI, &[10, 11, 12, 13]);
        index.corrected(MINI, &chain(&[10, 11, 12, 13]), visit, 4 * 256);
        serve(&mut index, MINI, &[90]);
        assert_eq!(matches(&index, &[20, 21, 22, 23]), [(1, 3)]);
    }

    #[test]
    fn as_much_as_believed_or_more_changes_nothing() {
        let mut index = index();
        send(&mut index, MINI, &[1, 2, 3, 4]);
        serve(&mut index, MINI, &[1, 2, 3, 4]);
        for cached in [2 * 256, 3 * 256, u32::MAX] {
            let visit = send(&mut index, MINI, &[1, 2]);
            index.corrected(MINI, &chain(&[1, 2]), visit, cached);
            assert_eq!(matches(&index, &[1, 2, 3, 4]), [(1, 4)]);
        }
    }

    #[test]
    fn a_finished_request_is_cached_however_much_came_in_between() {
        let mut index = index();
        let visit = send(&mut index, MINI, &[1, 2, 3]);
        send(&mut index, MINI, &(100..120).collect::<Vec<_>>());
        assert_eq!(matches(&index, &[1, 2, 3]), []);
        index.corrected(MINI, &chain(&[1, 2, 3]), visit, 0);
        assert_eq!(matches(&index, &[1, 2, 3]), [(1, 3)]);
    }

    #[test]
    fn what_finishes_after_its_lane_was_forgotten_brings_nothing_back() {
        let mut index = index();
        let visit = send(&mut index, MINI, &[1, 2, 3]);
        index.forget(MINI);
        index.corrected(MINI, &chain(&[1, 2, 3]), visit, 256);
        index.capacity(MINI, 20 * 256);
        index.corrected(MINI, &chain(&[1, 2, 3]), visit, 256);
        assert_eq!(matches(&index, &[1, 2, 3]), []);
        assert_eq!(index.totals().cached_tokens, 0);
    }

    #[test]
    fn a_conversation_on_one_lane_stays_one_segment() {
        let mut index = index();
        for turns in 1..=12 {
            serve(&mut index, MINI, &(1..=turns).collect::<Vec<_>>());
        }
        assert_eq!(index.holdings.segments.iter().count(), 1);
        assert_eq!(index.holdings.matched(MINI, &chain(&(1..=20).collect::<Vec<_>>())).0, 12);
    }

    #[test]
    fn a_session_is_remembered_until_its_lane_forgets() {
        let mut index = index();
        let (session, other) = (SessionKey(5), SessionKey(6));
        let seat = |index: &PrefixIndex, session| index.session(session, QWEN, At(9)).map(|node| node.0);
        index.dispatched(MINI, Some(session), &[], At(1));
        assert_eq!((seat(&index, session), seat(&index, other)), (Some(1), None));
        index.dispatched(STUDIO, Some(session), &[], At(2));
        assert_eq!(seat(&index, session), Some(2));
        index.forget(STUDIO);
        assert_eq!(seat(&index, session), None);
        index.dispatched(STUDIO, None, &[], At(3));
        assert_eq!(seat(&index, session), None);
        let idle = At(2) + PrefixLimits::default().session_idle_max + Span(1);
        index.dispatched(MINI, Some(other), &[], At(2));
        assert_eq!(index.session(other, QWEN, idle), None);
    }

    #[test]
    fn totals_tell_what_was_asked_believed_and_true() {
        let mut index = index();
        send(&mut index, MINI, &[1, 2, 3]);
        let visit = send(&mut index, MINI, &[1, 2, 30, 40]);
        index.corrected(MINI, &chain(&[1, 2, 30, 40]), visit, 300);
        let expected = PrefixTotals { asked_tokens: 7 * 256, believed_tokens: 2 * 256, cached_tokens: 256 };
        assert_eq!(index.totals(), expected);
        assert_eq!([2, u32::MAX].map(|blocks| index.tokens(blocks)), [512, u32::MAX]);
    }

    #[test]
    fn without_room_nothing_is_believed() {
        for limits in [
            PrefixLimits { lanes_max: 0, ..PrefixLimits::default() },
            PrefixLimits { blocks_max: 0, ..PrefixLimits::default() },
            PrefixLimits { block_tokens: 0, ..PrefixLimits::default() },
        ] {
            let mut index = PrefixIndex::new(&limits);
            let visit = send(&mut index, MINI, &[1, 2, 3]);
            index.corrected(MINI, &chain(&[1, 2, 3]), visit, 256);
            index.capacity(MINI, 9);
            assert_eq!(matches(&index, &[1, 2, 3]), []);
        }
    }
}

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod model_tests;
