//! Which of several coordinators speaks of the newest state of the registry.
//!
//! Owns the order of versions and the newest one heard. Refuses what is older: a coordinator that lags behind or was cut off says
//! what was true once. Pure.

/// A state of the registry; a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// Grows when a group is founded anew from a copy of its facts.
    pub(crate) epoch: u64,
    /// Commands applied.
    pub(crate) index: u64,
}

/// The newest version heard in the life of this agent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Newest(Version);

impl Newest {
    /// Is what is said with this version to be obeyed? The same version again says the same.
    pub(crate) fn hear(&mut self, version: Version) -> bool {
        let obeyed = version >= self.0;
        self.0 = self.0.max(version);
        obeyed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn obeyed(versions: &[(u64, u64)]) -> Vec<bool> {
        let mut newest = Newest::default();
        versions.iter().map(|(epoch, index)| newest.hear(Version { epoch: *epoch, index: *index })).collect()
    }

    #[test]
    fn the_newest_counts_and_the_same_again_is_the_same() {
        assert_eq!(obeyed(&[(1, 5), (1, 5), (1, 7), (1, 6), (1, 7)]), [true, true, true, false, true]);
    }

    #[test]
    fn a_group_founded_anew_outweighs_every_state_before_it() {
        assert_eq!(obeyed(&[(1, 900), (2, 3), (1, 901), (2, 2), (2, 4)]), [true, true, false, false, true]);
    }

    #[test]
    fn older_coordinators_without_versions_are_obeyed_until_a_newer_one_speaks() {
        assert_eq!(obeyed(&[(0, 0), (0, 0), (0, 1), (0, 0)]), [true, true, true, false]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_order_the_last_one_obeyed_is_the_greatest(
            versions in prop::collection::vec((0u64..3, 0u64..9), 1..30),
        ) {
            let mut obeyed = versions.iter().zip(obeyed(&versions)).filter(|(_, obeyed)| *obeyed);
            prop_assert_eq!(obeyed.next_back().map(|(version, _)| version), versions.iter().max());
        }
    }
}
