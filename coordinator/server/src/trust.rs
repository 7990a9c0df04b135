//! Whom the members of the cluster trust, and who signs, by the facts.
//!
//! Owns the one reading of them: while a rotation is under way the new authority signs, both are trusted, and what goes along with a
//! certificate makes it good for whoever knows only the former. Refuses to know keys. Pure.

use proto::tls;
use proto::token::JoinToken;
use registry::{Cluster, Registry};

/// As every coordinator gives it with a certificate: the same text on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The authority that signs.
    pub(crate) signs_pem: String,
    /// Its key, certified by the former one.
    pub(crate) cross_pem: Option<String>,
    /// All that are trusted, the one that signs first.
    pub(crate) all_pem: String,
    /// Two for each rotation, so that it tells which of two is the later.
    pub(crate) step: u64,
}

impl Trust {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let former = &cluster.ca_certificate_pem;
        match &cluster.rotation {
            Some(rotation) => Self {
                signs_pem: rotation.ca_certificate_pem.clone(),
                cross_pem: Some(rotation.cross_certificate_pem.clone()),
                all_pem: format!("{}\n{former}", rotation.ca_certificate_pem.trim_end()),
                step: step_of(cluster),
            },
            None => Self::alone(former, step_of(cluster)),
        }
    }

    fn alone(ca_certificate_pem: &str, step: u64) -> Self {
        let (signs_pem, all_pem) = (ca_certificate_pem.to_owned(), ca_certificate_pem.to_owned());
        Self { signs_pem, cross_pem: None, all_pem, step }
    }

    /// A cluster whose authority was never rotated.
    #[cfg(test)]
    pub(crate) fn first(ca_certificate_pem: &str) -> Self {
        Self::alone(ca_certificate_pem, 0)
    }

    /// The hash of each authority, that of the one that signs first.
    pub(crate) fn hashes(&self) -> Vec<[u8; 32]> {
        let all = tls::authorities(&self.all_pem).unwrap_or_default();
        all.iter().map(|authority| JoinToken::hash_of(authority)).collect()
    }
}

/// Which step of which rotation the facts are in.
pub(crate) fn step_of(cluster: &Cluster) -> u64 {
    cluster.rotations.saturating_mul(2).saturating_add(u64::from(cluster.rotation.is_some()))
}

/// The authority that alone is trusted, where another one was before.
pub(crate) fn only(registry: &Registry) -> Option<&str> {
    let cluster = registry.cluster().filter(|cluster| cluster.rotations > 0)?;
    cluster.rotation.is_none().then_some(cluster.ca_certificate_pem.as_str())
}

#[cfg(test)]
mod tests {
    use registry::{CaStep, ClusterId, Command};

    use super::*;

    fn cluster(steps: &[(u64, CaStep)]) -> Cluster {
        let mut facts = Registry::default();
        facts.apply(&Command::FoundSealed {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "one\n".to_owned(),
            sealed_ca_key: "0a".to_owned(),
            at_unix_ms: 1,
        });
        facts.apply(&Command::RaiseVersion { to: registry::ClusterVersion::NEWEST, at_unix_ms: 1 });
        for (number, step) in steps {
            let (number, step) = (*number, step.clone());
            let reply = facts.apply(&Command::RotateCa { number, step, at_unix_ms: 2 });
            assert_eq!(reply, registry::Reply::Done);
        }
        facts.cluster().expect("founded").clone()
    }

    fn begin(name: &str) -> CaStep {
        CaStep::Begin {
            ca_certificate_pem: format!("{name}\n"),
            cross_certificate_pem: format!("{name}, certified\n"),
            sealed_ca_key: "0b".to_owned(),
            sealed_hash_key: "0c".to_owned(),
            until_unix_ms: 9,
        }
    }

    #[test]
    fn the_new_authority_signs_and_both_are_trusted_until_the_end() {
        let end = || CaStep::End { abandon: true };
        assert_eq!(Trust::of(&cluster(&[])), Trust::first("one\n"));
        let under_way = Trust::of(&cluster(&[(1, begin("two"))]));
        assert_eq!((under_way.signs_pem.as_str(), under_way.all_pem.as_str()), ("two\n", "two\none\n"));
        assert_eq!((under_way.cross_pem.as_deref(), under_way.step), (Some("two, certified\n"), 1));
        let over = Trust::of(&cluster(&[(1, begin("two")), (1, end())]));
        assert_eq!(over, Trust::alone("two\n", 2));
        let again = Trust::of(&cluster(&[(1, begin("two")), (1, end()), (2, begin("three"))]));
        assert_eq!((again.all_pem.as_str(), again.step), ("three\ntwo\n", 3));
    }
}
