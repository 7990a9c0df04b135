//! The naive registry's rotations of the authority: each that ever began, who moved in it, and when it ended.

use std::collections::BTreeSet;

use proptest::prelude::*;
use registry::{CaRefusal, CaStep, NodeId, Refusal, Registry, Reply, Role};

use crate::oracle::{Oracle, done_if};

/// One of them.
pub(crate) struct NaiveRotation {
    certificate: String,
    key: String,
    hash: String,
    until: u64,
    moved: Vec<NodeId>,
    ended: Option<u64>,
}

impl Oracle {
    pub(crate) fn rotate(&mut self, number: u64, step: &CaStep, at: u64) -> Result<Reply, Refusal> {
        let over = self.rotations.iter().filter(|rotation| rotation.ended.is_some()).count() as u64;
        let begun = self.rotations.len() as u64;
        if number <= over {
            return Ok(Reply::AlreadySo);
        }
        let begins = matches!(step, CaStep::Begin { .. });
        if number <= begun && begins {
            return Ok(Reply::AlreadySo);
        }
        if number != begun + u64::from(begins) || (begins && begun > over) {
            let under_way = (begun > over).then_some(begun);
            return Err(Refusal::Ca(CaRefusal::OutOfTurn { number, last: over, under_way }));
        }
        match step {
            CaStep::Begin { ca_certificate_pem, sealed_ca_key, sealed_hash_key, until_unix_ms, .. } => {
                if self.sealed.is_empty() {
                    return Err(Refusal::Ca(CaRefusal::NotSealed));
                }
                self.rotations.push(NaiveRotation {
                    certificate: ca_certificate_pem.clone(),
                    key: sealed_ca_key.clone(),
                    hash: sealed_hash_key.clone(),
                    until: *until_unix_ms,
                    moved: Vec::new(),
                    ended: None,
                });
                Ok(Reply::Done)
            }
            CaStep::Move { members } => {
                let news: Vec<_> =
                    self.missing().into_iter().filter(|member| members.contains(member)).collect();
                let rotation = self.rotations.last_mut().unwrap();
                let changed = !news.is_empty();
                rotation.moved.extend(news);
                Ok(done_if(changed))
            }
            CaStep::End { abandon } => {
                let missing = self.missing().len();
                let rotation = self.rotations.last_mut().unwrap();
                if missing > 0 && at < rotation.until && !abandon {
                    return Err(Refusal::Ca(CaRefusal::Awaited { missing }));
                }
                rotation.ended = Some(at);
                Ok(Reply::Done)
            }
        }
    }

    /// Members that have not moved in the last rotation.
    fn missing(&self) -> Vec<NodeId> {
        let Some(rotation) = self.rotations.last() else { return Vec::new() };
        let left = |replica: u64| self.changes.iter().any(|change| change.remove.contains(&replica));
        let mut all = if self.founder_revoked || left(1) { Vec::new() } else { vec![NodeId(0)] };
        for (index, (_, role, _)) in self.admitted.iter().enumerate() {
            let node = index as u64 + 1;
            let gone = match role {
                Role::Agent => false,
                Role::Coordinator => left(node + 1),
                Role::Client => true,
            };
            if !gone && !self.revoked.contains(&NodeId(node)) {
                all.push(NodeId(node));
            }
        }
        all.retain(|member| !rotation.moved.contains(member));
        all
    }
}

pub(crate) fn compare_rotations(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    let cluster = registry.cluster().unwrap();
    let over = oracle.rotations.iter().rfind(|rotation| rotation.ended.is_some());
    let sealed = over.map(|rotation| &rotation.key).or(oracle.sealed.first());
    prop_assert_eq!(cluster.sealed_ca_key.as_ref(), sealed);
    prop_assert_eq!(cluster.ca_key_pem.is_empty(), !oracle.sealed.is_empty());
    prop_assert_eq!(cluster.rotated_at_unix_ms, over.and_then(|rotation| rotation.ended));
    prop_assert_eq!(
        cluster.sealed_hash_key.as_ref(),
        oracle.rotations.first().map(|rotation| &rotation.hash)
    );
    if let Some(over) = over {
        prop_assert_eq!(&cluster.ca_certificate_pem, &over.certificate);
    }
    let under_way = oracle.rotations.last().filter(|rotation| rotation.ended.is_none());
    let known =
        cluster.rotation.as_ref().map(|rotation| (&rotation.ca_certificate_pem, rotation.moved.len()));
    let expected = under_way.map(|rotation| (&rotation.certificate, rotation.moved.len()));
    prop_assert_eq!(known, expected);
    let awaited = if under_way.is_some() { oracle.missing() } else { Vec::new() };
    prop_assert_eq!(registry.awaited(), awaited.into_iter().collect::<BTreeSet<_>>());
    Ok(())
}
