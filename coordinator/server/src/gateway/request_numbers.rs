//! Which number the scheduler gave to a request that a client knows by its `x-request-id`.
//!
//! Owns the names of the latest requests, in a ring of bounded length: the data path appends, and only a person's question
//! searches. Refuses to be unique: of two requests under one name the later one is meant.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;

use super::limits;

#[derive(Clone, Default)]
pub(crate) struct RequestNumbers {
    latest: Arc<Mutex<VecDeque<(HeaderValue, u64)>>>,
}

impl RequestNumbers {
    pub(crate) fn remember(&self, name: HeaderValue, number: u64) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= limits::NAMED_REQUESTS_MAX {
            latest.pop_front();
        }
        latest.push_back((name, number));
    }

    /// By its name, or by the number itself.
    pub(crate) fn of(&self, id: &str) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let named = latest.iter().rev().find(|(name, _)| name == id).map(|(_, number)| *number);
        named.or_else(|| id.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembering(requests: impl IntoIterator<Item = (String, u64)>) -> RequestNumbers {
        let numbers = RequestNumbers::default();
        for (name, number) in requests {
            numbers.remember(name.parse().expect("a header's value"), number);
        }
        numbers
    }

    #[test]
    fn a_request_is_found_by_its_name_and_by_its_number() {
        let numbers = remembering([("req_a".to_owned(), 7), ("7".to_owned(), 8)]);
        assert_eq!(numbers.of("req_a"), Some(7));
        assert_eq!(numbers.of("12"), Some(12), "the scheduler may know it");
        assert_eq!(numbers.of("7"), Some(8), "a name comes before a number");
        for stranger in ["req_b", "", "-1", "1.5"] {
            assert_eq!(numbers.of(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn of_two_requests_under_one_name_the_later_is_meant() {
        assert_eq!(remembering([("same".to_owned(), 1), ("same".to_owned(), 2)]).of("same"), Some(2));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let most = u64::try_from(limits::NAMED_REQUESTS_MAX).unwrap();
        let numbers = remembering((0..=most).map(|number| (format!("req_{number}"), number)));
        assert_eq!(numbers.of("req_0"), None);
        assert_eq!((numbers.of("req_1"), numbers.of(&format!("req_{most}"))), (Some(1), Some(most)));
        assert_eq!(numbers.latest.lock().unwrap().len(), limits::NAMED_REQUESTS_MAX);
    }
}
