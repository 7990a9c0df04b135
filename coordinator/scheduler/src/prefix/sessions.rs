//! Where each session was served last: for requests whose blocks tell no node from another.
//!
//! Owns the seats, of the sessions used last and not idle for too long. Refuses to know whether the node still has anything.

use crate::ids::{ModelId, NodeId, SessionKey};
use crate::limits::PrefixLimits;
use crate::recent::Recent;
use crate::time::At;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    seats: Recent<(SessionKey, ModelId), Seat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) visit: u64,
    pub(super) at: At,
}

impl Sessions {
    pub(super) fn sit(&mut self, session: SessionKey, model: ModelId, seat: Seat, limits: &PrefixLimits) {
        if let Some(taken) = self.seats.touch((session, model), limits.sessions_max, || seat) {
            *taken = seat;
        }
    }

    pub(super) fn seat(
        &self,
        session: SessionKey,
        model: ModelId,
        at: At,
        limits: &PrefixLimits,
    ) -> Option<Seat> {
        let seat = self.seats.get(&(session, model)).copied()?;
        (at.since(seat.at) <= limits.session_idle_max).then_some(seat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    const QWEN: ModelId = ModelId(1);

    fn limits() -> PrefixLimits {
        PrefixLimits { sessions_max: 2, session_idle_max: Span(10), ..PrefixLimits::default() }
    }

    fn seat(node: u64, at: u64) -> Seat {
        Seat { node: NodeId(node), visit: at, at: At(at) }
    }

    fn seated(seats: &[(u64, Seat)]) -> Sessions {
        let mut sessions = Sessions::default();
        seats.iter().for_each(|(session, seat)| sessions.sit(SessionKey(*session), QWEN, *seat, &limits()));
        sessions
    }

    fn nodes<const N: usize>(sessions: &Sessions, keys: [u64; N], at: u64) -> [Option<u64>; N] {
        keys.map(|key| sessions.seat(SessionKey(key), QWEN, At(at), &limits()).map(|seat| seat.node.0))
    }

    #[test]
    fn a_session_sits_where_it_was_served_last() {
        let sessions = seated(&[(1, seat(7, 0)), (2, seat(8, 1)), (1, seat(9, 2))]);
        assert_eq!(nodes(&sessions, [1, 2, 3], 2), [Some(9), Some(8), None]);
        assert_eq!(sessions.seat(SessionKey(1), ModelId(2), At(2), &limits()), None);
    }

    #[test]
    fn an_idle_session_loses_its_seat() {
        let sessions = seated(&[(1, seat(7, 0))]);
        assert_eq!([10, 11].map(|at| nodes(&sessions, [1], at)), [[Some(7)], [None]]);
    }

    #[test]
    fn the_session_used_longest_ago_makes_room() {
        let sessions = seated(&[(1, seat(7, 0)), (2, seat(8, 1)), (1, seat(7, 2)), (3, seat(9, 3))]);
        assert_eq!(nodes(&sessions, [1, 2, 3], 3), [Some(7), None, Some(9)]);
    }
}
