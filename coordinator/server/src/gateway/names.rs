//! "Did you mean": the names closest to one that does not exist.
//!
//! Owns the distance and the cut below which a suggestion helps. Refuses far-fetched ones: a wrong hint is worse than none.

use super::limits;

/// At most [`limits::CLOSE_NAMES`] of `known`, the closest first.
pub(crate) fn close<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    if wanted.chars().count() > limits::QUOTED_CHARS_MAX {
        return Vec::new();
    }
    let mut scored: Vec<_> =
        known.filter_map(|other| Some((score(&wanted, &other.to_lowercase())?, other))).collect();
    scored.sort_unstable();
    scored.truncate(limits::CLOSE_NAMES);
    scored.into_iter().map(|(_, other)| other).collect()
}

/// Names from a client, cut to a length that fits a message.
pub(crate) fn quoted(name: &str) -> String {
    let mut short: String = name.chars().take(limits::QUOTED_CHARS_MAX).collect();
    if short.len() < name.len() {
        short.push('\u{2026}');
    }
    short
}

/// Lower is closer; `None` when the two have too little in common.
fn score(wanted: &str, other: &str) -> Option<usize> {
    let last_part = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    if last_part(wanted) == last_part(other) {
        return Some(0);
    }
    let shorter = wanted.len().min(other.len());
    if shorter >= 3 && (wanted.contains(other) || other.contains(wanted)) {
        return Some(1);
    }
    let distance = distance(wanted, other);
    (distance <= wanted.chars().count().div_ceil(3)).then_some(distance + 1)
}

/// Levenshtein's edit distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(limits::QUOTED_CHARS_MAX * 2).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, char) in left.chars().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        let cells = row.iter_mut().skip(1).zip(&right);
        for (cell, other) in cells {
            let best = (diagonal + usize::from(char != *other)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            before = best;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (left, right, edits) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("tempurature", "temperature", 1)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
            assert_eq!(distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn the_closest_name_comes_first_and_strangers_stay_away() {
        let known = ["mlx-community/Qwen3-4B-4bit", "mlx-community/Qwen3-8B-4bit", "demo", "Llama-3.2-1B"];
        assert_eq!(close("Qwen3-8B-4bit", known.into_iter())[0], "mlx-community/Qwen3-8B-4bit");
        assert_eq!(close("DEMO", known.into_iter()), ["demo"]);
        assert_eq!(close("dmeo", ["memory", "demo"].into_iter()), ["demo"]);
        assert_eq!(close("llama-3.2-1b-instruct", known.into_iter()), ["Llama-3.2-1B"]);
        assert_eq!(close("gpt-4o", known.into_iter()), Vec::<&str>::new());
    }

    #[test]
    fn a_monstrous_name_costs_nothing_and_is_quoted_short() {
        let long = "x".repeat(1_000_000);
        assert!(close(&long, ["demo"].into_iter()).is_empty());
        assert_eq!(quoted(&long).chars().count(), limits::QUOTED_CHARS_MAX + 1);
        assert_eq!(quoted("demo"), "demo");
    }
}
