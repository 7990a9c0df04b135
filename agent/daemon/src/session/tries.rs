//! Which address of a coordinator is tried next, and when.
//!
//! Owns the turn and the delay. An address that worked is tried first when its session breaks; one that did not makes room for the
//! next. Refuses to know time: the dice are handed in.

use std::time::Duration;

use crate::address::Address;
use crate::backoff::Backoff;
use crate::limits;

pub(super) struct Tries {
    backoff: Backoff,
    turn: usize,
    opened: bool,
}

impl Tries {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
        Self { backoff, turn: 0, opened: false }
    }

    /// `None`: there is no address at present.
    pub(super) fn address<'a>(&self, addresses: &'a [Address]) -> Option<&'a Address> {
        addresses.get(self.turn.checked_rem(addresses.len())?)
    }

    /// The present address works.
    pub(super) fn opened(&mut self) {
        self.opened = true;
        self.backoff.reset();
    }

    /// How long to wait after a session that broke, or was none.
    pub(super) fn lost(&mut self, dice: u32) -> Duration {
        if !std::mem::take(&mut self.opened) {
            self.turn = self.turn.wrapping_add(1);
        }
        self.backoff.delay(dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| Address::parse(&format!("{name}:1")).expect("an address")).collect()
    }

    fn next(tries: &Tries, addresses: &[Address]) -> Option<String> {
        tries.address(addresses).map(|address| address.host.clone())
    }

    #[test]
    fn addresses_take_turns_and_one_that_worked_is_tried_again_first() {
        let (mut tries, both) = (Tries::new(), addresses(&["a", "b"]));
        let mut tried = Vec::new();
        for opened in [false, true, false, false] {
            tried.extend(next(&tries, &both));
            if opened {
                tries.opened();
            }
            tries.lost(u32::MAX);
        }
        tried.extend(next(&tries, &both));
        assert_eq!(tried, ["a", "b", "b", "a", "b"]);
    }

    #[test]
    fn delays_grow_over_all_addresses_and_start_anew_after_a_session() {
        let mut tries = Tries::new();
        let delays = [tries.lost(u32::MAX), tries.lost(u32::MAX)];
        assert_eq!(delays, [limits::BACKOFF_FIRST, limits::BACKOFF_FIRST * 2]);
        tries.opened();
        assert_eq!(tries.lost(u32::MAX), limits::BACKOFF_FIRST);
    }

    #[test]
    fn a_list_that_shrinks_is_followed_and_an_empty_one_has_no_address() {
        let mut tries = Tries::new();
        tries.lost(0);
        assert_eq!(next(&tries, &addresses(&["a", "b"])).as_deref(), Some("b"));
        assert_eq!(next(&tries, &addresses(&["a"])).as_deref(), Some("a"));
        assert_eq!(next(&tries, &[]), None);
    }
}
