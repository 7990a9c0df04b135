//! Stop strings work across any cut of the text.

use proptest::prelude::*;

use crate::gateway::text::stop::{Scan, StopScanner};

/// What leaves for each piece, and whether a stop string ended it.
fn scanned(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
    let stops: Vec<_> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut scanner = StopScanner::new(&stops);
    let mut shown = Vec::new();
    for piece in pieces {
        let mut out = String::new();
        let scan = scanner.push(piece, &mut out);
        shown.push(out);
        if scan == Scan::Stopped {
            return (shown, true);
        }
    }
    let mut out = String::new();
    scanner.finish(&mut out);
    shown.push(out);
    (shown, false)
}

/// The rule, read aloud: the stop that is complete first; of those complete at once, the one that began first.
fn oracle(stops: &[String], text: &str) -> (String, bool) {
    for end in 0..=text.len() {
        let Some(before) = text.get(..end) else { continue };
        let longest = stops
            .iter()
            .filter(|stop| !stop.is_empty() && before.ends_with(stop.as_str()))
            .map(String::len)
            .max();
        if let Some(longest) = longest {
            return (text[..end - longest].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

#[test]
fn without_stops_everything_leaves_at_once() {
    assert_eq!(scanned(&[], &["a", "b"]), (vec!["a".to_owned(), "b".to_owned(), String::new()], false));
}

#[test]
fn a_stop_string_is_never_shown_not_even_its_beginning() {
    assert_eq!(scanned(&["END"], &["xE", "N", "Dy"]).0, ["x", "", ""]);
    assert!(scanned(&["END"], &["xE", "N", "Dy"]).1);
}

#[test]
fn what_only_looked_like_a_stop_string_is_shown_as_soon_as_that_is_clear() {
    assert_eq!(scanned(&["END"], &["xE", "N", "x", "E"]).0, ["x", "", "ENx", "", "E"]);
}

#[test]
fn the_stop_that_is_complete_first_wins() {
    assert_eq!(scanned(&["abcd", "bc"], &["abcd"]), (vec!["a".to_owned()], true));
    assert_eq!(scanned(&["bc", "abc"], &["xabc"]), (vec!["x".to_owned()], true));
}

#[test]
fn a_stop_that_begins_inside_a_failed_one_is_found() {
    assert_eq!(scanned(&["aab"], &["aaab"]), (vec!["a".to_owned()], true));
    assert_eq!(scanned(&["\n\nUser"], &["\n", "\n\nUs", "er"]).0, ["", "\n", ""]);
}

#[test]
fn characters_are_never_cut() {
    // Both begin with the same byte.
    assert_eq!(
        scanned(&["\u{fc}\u{fc}"], &["\u{f6}", "\u{fc}", "\u{f6}"]).0,
        ["\u{f6}", "", "\u{fc}\u{f6}", ""]
    );
}

proptest! {
    #[test]
    fn any_cut_gives_what_the_rule_says(
        stops in prop::collection::vec("[ab\u{fc}\u{f6}]{1,4}", 0..4),
        pieces in prop::collection::vec("[ab\u{fc}\u{f6}]{0,3}", 0..12),
    ) {
        let text = pieces.concat();
        let stops_ref: Vec<_> = stops.iter().map(String::as_str).collect();
        let pieces_ref: Vec<_> = pieces.iter().map(String::as_str).collect();
        let (shown, stopped) = scanned(&stops_ref, &pieces_ref);
        prop_assert_eq!((shown.concat(), stopped), oracle(&stops, &text));
    }

    #[test]
    fn no_more_is_held_back_than_could_become_a_stop(
        stops in prop::collection::vec("[ab]{1,4}", 1..4),
        text in "[ab]{0,12}",
    ) {
        let mut scanner = StopScanner::new(&stops);
        let mut out = String::new();
        if scanner.push(&text, &mut out) == Scan::GoOn {
            let held = &text[out.len()..];
            prop_assert_eq!(held.len(), scanner.held_bytes());
            let longest = (0..=text.len()).map(|start| &text[start..])
                .find(|end| stops.iter().any(|stop| stop.starts_with(end))).unwrap_or("");
            prop_assert_eq!(held, longest);
        }
    }
}
