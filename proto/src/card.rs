//! The digest that names a model card: tokenizer, chat template and their settings.
//!
//! Owns the one definition both ends compute: an agent names what it has, a coordinator checks what it received. Refuses
//! nothing; bounds on sizes are the receiver's.

/// BLAKE3 over the files in the order of their names; each part is preceded by its length, so that no two sets of files
/// share an input.
pub fn digest<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, contents) in files {
        for part in [name.as_bytes(), contents] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let (a, b) = (("a", b"1".as_slice()), ("b", b"2".as_slice()));
        assert_eq!(digest([a, b]), digest([b, a]));
    }

    #[test]
    fn moving_a_byte_between_name_and_contents_changes_the_digest() {
        assert_ne!(digest([("ab", b"c".as_slice())]), digest([("a", b"bc".as_slice())]));
    }
}
