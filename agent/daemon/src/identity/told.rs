//! Whom the cluster trusts, as coordinators tell.
//!
//! Owns which word counts where they differ: a coordinator that was away tells of what was. Pure.

use proto::v1::Authorities;

/// The latest that was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told(Option<Authorities>);

impl Told {
    /// Takes the word for the latest, unless it is older; returns whether it is another one.
    pub(crate) fn hear(&mut self, word: Authorities) -> bool {
        let age = |word: &Authorities| (word.epoch, word.step);
        let newer = self.0.as_ref().is_none_or(|known| age(&word) >= age(known) && word != *known);
        if newer {
            self.0 = Some(word);
        }
        newer
    }

    /// Whether these authorities, as a certificate came with them, are those that were told. Nobody told: any are.
    pub(crate) fn are(&self, ca_certificate_pem: &str) -> bool {
        let digest = blake3::hash(ca_certificate_pem.as_bytes());
        self.0.as_ref().is_none_or(|told| told.digest == digest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(epoch: u64, step: u64, pem: &str) -> Authorities {
        Authorities { digest: blake3::hash(pem.as_bytes()).as_bytes().to_vec(), epoch, step }
    }

    #[test]
    fn before_anybody_has_told_what_there_is_is_right() {
        assert!(Told::default().are("any"));
    }

    #[test]
    fn who_lags_behind_turns_nobody_back() {
        let mut told = Told::default();
        assert!(told.hear(word(0, 1, "both")) && told.are("both") && !told.are("former"));
        assert!(!told.hear(word(0, 0, "former")) && told.are("both"));
        assert!(!told.hear(word(0, 1, "both")), "it is no news");
        assert!(told.hear(word(0, 2, "new")) && told.are("new"));
    }

    #[test]
    fn facts_that_were_restored_count_more_than_those_of_before() {
        let mut told = Told::default();
        told.hear(word(0, 4, "newest"));
        assert!(told.hear(word(1, 0, "first")) && told.are("first"));
    }
}
