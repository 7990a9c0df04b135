//! Stop strings: where an answer ends because the client said so.
//!
//! Owns the search across any cut of the text. What could still become a stop string is held back, everything before it leaves
//! at once. The stop that is complete first ends the answer; of several complete at the same character, the one that began
//! first. Refuses to scan anything twice: each byte costs one step of each stop's automaton (Knuth, Morris and Pratt 1977).

/// The stop strings of one answer and how much of each has been seen.
pub(crate) struct StopScanner {
    automata: Vec<Automaton>,
    /// A text's end that may be the beginning of a stop string.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    GoOn,
    Stopped,
}

impl StopScanner {
    pub(crate) fn new(stops: &[String]) -> Self {
        let automata =
            stops.iter().filter(|stop| !stop.is_empty()).map(|stop| Automaton::new(stop)).collect();
        Self { automata, held: String::new() }
    }

    /// Adds to `out` what of `text` is certain to be before any stop string.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> Scan {
        if self.automata.is_empty() {
            out.push_str(text);
            return Scan::GoOn;
        }
        for (at, byte) in text.bytes().enumerate() {
            let stopped = self.automata.iter_mut().filter_map(|automaton| automaton.step(byte)).max();
            if let Some(stop_bytes) = stopped {
                self.held.push_str(text.get(..=at).unwrap_or(text));
                self.release(stop_bytes, out);
                self.held.clear();
                return Scan::Stopped;
            }
        }
        self.held.push_str(text);
        let matched = self.automata.iter().map(|automaton| automaton.matched).max().unwrap_or(0);
        self.release(matched, out);
        Scan::GoOn
    }

    /// No more text will come: what was held back is part of the answer.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Bytes that may still turn out to be a stop string.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// All but the last `keep` bytes. A partial match begins where a character begins, so the cut is between characters.
    fn release(&mut self, keep: usize, out: &mut String) {
        let cut = self.held.len().saturating_sub(keep);
        if let Some(certain) = self.held.get(..cut) {
            out.push_str(certain);
            self.held.drain(..cut);
        }
    }
}

/// One stop string; `matched` bytes of it are the end of the text so far.
struct Automaton {
    stop: Vec<u8>,
    /// For each length: the longest shorter one that is also a match.
    fallback: Vec<usize>,
    matched: usize,
}

impl Automaton {
    fn new(stop: &str) -> Self {
        let stop = stop.as_bytes().to_vec();
        let mut fallback = vec![0; stop.len() + 1];
        let mut length = 0;
        for at in 1..stop.len() {
            while length > 0 && stop.get(at) != stop.get(length) {
                length = fallback.get(length).copied().unwrap_or(0);
            }
            length += usize::from(stop.get(at) == stop.get(length));
            if let Some(entry) = fallback.get_mut(at + 1) {
                *entry = length;
            }
        }
        Self { stop, fallback, matched: 0 }
    }

    /// The length of the stop string if this byte completes it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.stop.get(self.matched) != Some(&byte) {
            self.matched = self.fallback.get(self.matched).copied().unwrap_or(0);
        }
        self.matched += usize::from(self.stop.get(self.matched) == Some(&byte));
        (self.matched == self.stop.len()).then_some(self.matched)
    }
}
