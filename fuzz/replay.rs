//! The bodies of the fuzz targets as ordinary tests: over the seeds, and over a fixed number of inputs that are made of them.
//!
//! Owns those inputs, which are the same in every run. The crates that have targets include this file, so it is nobody's
//! dependency. Refuses to look for anything new: that is what `scripts/fuzz` is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Inputs beside the seeds: `FUZZ_INPUTS=100000 cargo nextest run fuzzing` tries more.
fn number_of_inputs() -> usize {
    std::env::var("FUZZ_INPUTS").ok().and_then(|number| number.parse().ok()).unwrap_or(400)
}

/// Runs the body of a target over its seeds and what is made of them.
pub(crate) fn replay(target: &str, body: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let made: Vec<_> = (0..number_of_inputs()).map(|_| made_of(&seeds, &mut dice)).collect();
    for input in seeds.iter().chain(&made) {
        let held = catch_unwind(AssertUnwindSafe(|| body(input)));
        assert!(held.is_ok(), "{target} does not hold for {:?}", String::from_utf8_lossy(input));
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.ancestors().map(|above| above.join("fuzz/corpus-seeds")).find(|folder| folder.is_dir());
    let folder = folder.expect("the seeds are in the project").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("no folder {}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a seed")).collect()
}

/// A seed with one to eight changes; one in eight is noise alone.
fn made_of(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    if dice.below(8) == 0 {
        return (0..dice.below(200)).map(|_| dice.byte()).collect();
    }
    let mut input = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(input.len() + 1);
        match dice.below(6) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.byte(),
            2 => input.truncate(at),
            3 => input.insert(at, [0, b'"', b'{', 0x7f, 0x80, 0xff][dice.below(6)]),
            4 if at < input.len() => drop(input.drain(at..(at + 1 + dice.below(8)).min(input.len()))),
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let piece = other[dice.below(other.len() + 1)..].to_vec();
                input.splice(at..at, piece);
            }
        }
        input.truncate(8_192);
    }
    input
}

/// Xorshift: the same throws everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}
