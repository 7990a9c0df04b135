//! What a person is told about the way to the coordinators.
//!
//! Owns the difference between losing one of several, which is a number, and losing all, which is news. Says nothing while a
//! coordinator has not been tried yet, and nothing twice. Refuses to know addresses. Pure.

use std::collections::BTreeMap;

use crate::notice::Notice;
use crate::session::PairId;

#[derive(Default)]
pub(crate) struct Contact {
    states: BTreeMap<PairId, State>,
    joined: bool,
    lost: bool,
    /// Connected and known, as told last.
    told: Option<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Untried,
    Connected,
    Failed(String),
}

impl Contact {
    pub(crate) fn started(&mut self, pair: PairId) {
        self.states.insert(pair, State::Untried);
    }

    pub(crate) fn left(&mut self, pair: PairId) -> Vec<Notice> {
        self.states.remove(&pair);
        self.news()
    }

    /// A session was opened, as this node of this cluster.
    pub(crate) fn opened(&mut self, pair: PairId, node: u64, cluster: &str) -> Vec<Notice> {
        self.enter(pair, State::Connected);
        let joined = std::mem::replace(&mut self.joined, true);
        let mut notices = Vec::new();
        if !joined {
            notices.push(Notice::Joined { node, cluster: cluster.to_owned() });
            self.lost = false;
        }
        notices.extend(self.news());
        notices
    }

    /// A session was lost, or could not be opened.
    pub(crate) fn failed(&mut self, pair: PairId, words: String) -> Vec<Notice> {
        self.enter(pair, State::Failed(words));
        self.news()
    }

    /// What comes from a pair that was left changes nothing.
    fn enter(&mut self, pair: PairId, state: State) {
        if let Some(former) = self.states.get_mut(&pair) {
            *former = state;
        }
    }

    fn news(&mut self) -> Vec<Notice> {
        let known = self.states.len();
        let connected = self.states.values().filter(|state| **state == State::Connected).count();
        let settled = !self.states.values().any(|state| *state == State::Untried);
        let mut notices = Vec::new();
        if connected > 0 && std::mem::take(&mut self.lost) {
            notices.push(Notice::CoordinatorBack);
        }
        if connected == 0 && known > 0 && settled {
            self.told = None;
            if !std::mem::replace(&mut self.lost, true) {
                notices.push(Notice::CoordinatorLost { words: self.failures() });
            }
        } else if known <= 1 {
            self.told = None;
        } else if settled && self.told != Some((connected, known)) {
            self.told = Some((connected, known));
            notices.push(Notice::Coordinators { connected, known });
        }
        notices
    }

    /// Why, each reason once.
    fn failures(&self) -> String {
        let mut reasons: Vec<&str> = Vec::new();
        for state in self.states.values() {
            match state {
                State::Failed(words) if !reasons.contains(&words.as_str()) => reasons.push(words),
                State::Failed(_) | State::Untried | State::Connected => {}
            }
        }
        reasons.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(words: &str) -> Notice {
        Notice::CoordinatorLost { words: words.to_owned() }
    }

    fn joined() -> Notice {
        Notice::Joined { node: 7, cluster: "room".to_owned() }
    }

    fn number(connected: usize, known: usize) -> Notice {
        Notice::Coordinators { connected, known }
    }

    fn started(pairs: u64) -> Contact {
        let mut contact = Contact::default();
        (1..=pairs).for_each(|pair| contact.started(PairId(pair)));
        contact
    }

    fn opened(contact: &mut Contact, pair: u64) -> Vec<Notice> {
        contact.opened(PairId(pair), 7, "room")
    }

    fn failed(contact: &mut Contact, pair: u64, words: &str) -> Vec<Notice> {
        contact.failed(PairId(pair), words.to_owned())
    }

    #[test]
    fn with_one_coordinator_it_is_joined_lost_once_and_back() {
        let mut contact = started(1);
        assert_eq!(opened(&mut contact, 1), [joined()]);
        assert_eq!(failed(&mut contact, 1, "gone"), [lost("gone")]);
        assert_eq!(failed(&mut contact, 1, "still gone"), []);
        assert_eq!(opened(&mut contact, 1), [Notice::CoordinatorBack]);
        assert_eq!(failed(&mut contact, 1, "again"), [lost("again")]);
    }

    #[test]
    fn one_that_was_not_there_at_the_start_is_joined_and_not_back() {
        let mut contact = started(1);
        assert_eq!(failed(&mut contact, 1, "not yet"), [lost("not yet")]);
        assert_eq!(opened(&mut contact, 1), [joined()]);
    }

    #[test]
    fn losing_one_of_three_is_a_number_and_losing_all_is_news() {
        let mut contact = started(3);
        assert_eq!(opened(&mut contact, 1), [joined()]);
        assert_eq!(opened(&mut contact, 2), [], "the third was not tried yet");
        assert_eq!(opened(&mut contact, 3), [number(3, 3)]);
        assert_eq!(failed(&mut contact, 2, "b is gone"), [number(2, 3)]);
        assert_eq!(failed(&mut contact, 2, "b is gone"), []);
        assert_eq!(failed(&mut contact, 1, "no route"), [number(1, 3)]);
        assert_eq!(failed(&mut contact, 3, "no route"), [lost("no route; b is gone")]);
        assert_eq!(opened(&mut contact, 3), [Notice::CoordinatorBack, number(1, 3)]);
        assert_eq!(opened(&mut contact, 1), [number(2, 3)]);
    }

    #[test]
    fn a_start_without_one_of_three_says_how_many_there_are() {
        let mut contact = started(3);
        assert_eq!(failed(&mut contact, 1, "refused"), []);
        assert_eq!(opened(&mut contact, 2), [joined()]);
        assert_eq!(opened(&mut contact, 3), [number(2, 3)]);
    }

    #[test]
    fn nothing_is_lost_before_everybody_was_tried() {
        let mut contact = started(2);
        assert_eq!(failed(&mut contact, 1, "refused"), []);
        assert_eq!(failed(&mut contact, 2, "silent"), [lost("refused; silent")]);
    }

    #[test]
    fn more_and_fewer_coordinators_are_told_when_they_have_settled() {
        let mut contact = started(1);
        assert_eq!(opened(&mut contact, 1), [joined()]);
        contact.started(PairId(2));
        contact.started(PairId(3));
        assert_eq!(opened(&mut contact, 2), []);
        assert_eq!(opened(&mut contact, 3), [number(3, 3)]);
        assert_eq!(contact.left(PairId(3)), [number(2, 2)]);
        assert_eq!(contact.left(PairId(2)), [], "the only one needs no number");
        assert_eq!(opened(&mut contact, 2), [], "it was left");
        assert_eq!(failed(&mut contact, 1, "gone"), [lost("gone")]);
    }
}
