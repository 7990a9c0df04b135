//! Mutants do not rot: each still finds the text it changes, exactly once, in the file it names. Whether the tests notice them
//! is for `scripts/mutants` to say, which takes its time.

use std::collections::BTreeSet;

use crate::tree::{assert_none, root, sources};

const MUTANTS_MIN: usize = 70;

struct Mutant {
    bug: String,
    file: String,
    text: String,
    instead: String,
}

impl Mutant {
    fn parse(paragraph: &str) -> Self {
        let mut lines = paragraph.lines();
        let bug = lines.next().unwrap_or_default().to_owned();
        let file = lines.next().and_then(|line| line.strip_prefix("in ")).unwrap_or_default().to_owned();
        let changes: Vec<&str> = lines.collect();
        let side = |sign: char| {
            let lines = changes.iter().filter_map(|line| line.strip_prefix(sign));
            lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
        };
        Self { bug, file, text: side('-'), instead: side('+') }
    }

    /// What is wrong with it, given the text of the file it names.
    fn fault(&self, source: &str) -> Option<String> {
        let found = source.matches(&self.text).count();
        match (self.text.is_empty(), found) {
            (false, 1) if self.text != self.instead => None,
            (false, 1) => Some(format!("changes nothing: {}", self.bug)),
            (true, _) => Some(format!("names no text: {}", self.bug)),
            (false, _) => Some(format!("its text occurs {found} times in `{}`: {}", self.file, self.bug)),
        }
    }
}

fn mutants(listing: &str) -> Vec<Mutant> {
    let uncommented: Vec<&str> = listing.lines().filter(|line| !line.starts_with('#')).collect();
    let text = uncommented.join("\n");
    text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).map(Mutant::parse).collect()
}

fn listed() -> Vec<Mutant> {
    let listings = sources(&[".txt"]);
    let listings = listings.iter().filter(|source| source.path.starts_with("tests/mutants/"));
    listings.flat_map(|source| mutants(&source.text)).collect()
}

#[test]
fn every_mutant_still_applies() {
    let faults = listed().into_iter().filter_map(|mutant| {
        let source = std::fs::read_to_string(root().join(&mutant.file)).unwrap_or_default();
        mutant.fault(&source)
    });
    assert_none("a mutant must change a text that is there exactly once", &faults.collect::<Vec<_>>());
}

#[test]
fn every_mutant_is_another_one_and_none_was_lost() {
    let mutants = listed();
    let bugs: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.bug.as_str()).collect();
    let changes: BTreeSet<_> =
        mutants.iter().map(|mutant| (&mutant.file, &mutant.text, &mutant.instead)).collect();
    assert_eq!((bugs.len(), changes.len()), (mutants.len(), mutants.len()));
    assert!(bugs.iter().all(|bug| bug.ends_with('.')), "a mutant begins with a sentence");
    assert!(mutants.len() >= MUTANTS_MIN, "mutants were lost: {} are left", mutants.len());
}

#[test]
fn a_mutant_that_rotted_is_noticed() {
    let listing = "# A topic.\n\nIt lies.\nin src/it.rs\n- true\n+ false\n\nIt stops.\nin src/it.rs\n- go();\n-     on();\n";
    let [lies, stops] = <[Mutant; 2]>::try_from(mutants(listing)).ok().expect("two mutants");
    assert_eq!(
        (lies.file.as_str(), stops.text.as_str(), stops.instead.as_str()),
        ("src/it.rs", "go();\n    on();", "")
    );
    assert_eq!(lies.fault("is true"), None);
    assert_eq!(lies.fault("is not").as_deref(), Some("its text occurs 0 times in `src/it.rs`: It lies."));
    assert_eq!(
        lies.fault("true or true").as_deref(),
        Some("its text occurs 2 times in `src/it.rs`: It lies.")
    );
    assert!(Mutant::parse("It is.\nin a\n- b\n+ b").fault("b").is_some(), "it changes nothing");
    assert!(Mutant::parse("It is.\nin a\n+ b").fault("b").is_some(), "it names no text");
}
