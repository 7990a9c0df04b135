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
    /// The address that worked last, until it does not.
    worked: Option<Address>,
    opened: bool,
}

impl Tries {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
        Self { backoff, turn: 0, worked: None, opened: false }
    }

    /// `None`: there is no address at present.
    pub(super) fn address<'a>(&self, addresses: &'a [Address]) -> Option<&'a Address> {
        let worked = addresses.iter().find(|address| self.worked.as_ref() == Some(*address));
        worked.or_else(|| addresses.get(self.turn.checked_rem(addresses.len())?))
    }

    /// This address works.
    pub(super) fn opened(&mut self, address: &Address) {
        self.worked = Some(address.clone());
        self.opened = true;
        self.backoff.reset();
    }

    /// How long to wait after a session that broke, or was none.
    pub(super) fn lost(&mut self, dice: u32) -> Duration {
        if !std::mem::take(&mut self.opened) {
            self.worked = None;
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
        for opens in [false, true, false, false, false] {
            let address = tries.address(&both).expect("an address").clone();
            if opens {
                tries.opened(&address);
            }
            tries.lost(u32::MAX);
            tried.push(address.host);
        }
        assert_eq!(tried, ["a", "b", "b", "a", "b"]);
    }

    #[test]
    fn delays_grow_over_all_addresses_and_start_anew_after_a_session() {
        let mut tries = Tries::new();
        let delays = [tries.lost(u32::MAX), tries.lost(u32::MAX)];
        assert_eq!(delays, [limits::BACKOFF_FIRST, limits::BACKOFF_FIRST * 2]);
        tries.opened(&addresses(&["a"])[0]);
        assert_eq!(tries.lost(u32::MAX), limits::BACKOFF_FIRST);
    }

    #[test]
    fn an_address_that_works_is_kept_when_others_come_before_it() {
        let mut tries = Tries::new();
        tries.opened(&addresses(&["b"])[0]);
        tries.lost(0);
        assert_eq!(next(&tries, &addresses(&["a", "b"])).as_deref(), Some("b"));
        assert_eq!(next(&tries, &addresses(&["a", "c"])).as_deref(), Some("a"), "it is an address no more");
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
