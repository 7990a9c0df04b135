//! The naive registry's idea of API keys and of the audit trail: everything is kept, and searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use registry::{Command, Grant, KeyId, KeyRefusal, Outcome, Refusal, Registry, Reply, verify};

use crate::oracle::{Oracle, done_if};

/// A key with all that ever happened to it.
#[derive(Clone)]
pub(crate) struct NaiveKey {
    id: KeyId,
    created: (Grant, [u8; 32], u64),
    /// Every grant it had, the last one last.
    grants: Vec<Grant>,
    /// Every secret it had, in order.
    secrets: Vec<([u8; 32], u64)>,
    dropped: Vec<u32>,
    revoked: Option<u64>,
}

impl NaiveKey {
    pub(crate) fn is(&self, id: &KeyId) -> bool {
        self.id == *id
    }

    fn live_secrets(&self) -> Vec<u32> {
        let all = 1..=u32::try_from(self.secrets.len()).unwrap();
        all.filter(|number| self.revoked.is_none() && !self.dropped.contains(number)).collect()
    }

    fn untouched(&self) -> bool {
        self.grants.len() == 1 && self.secrets.len() == 1 && self.revoked.is_none()
    }
}

impl Oracle {
    pub(crate) fn create_key(
        &mut self,
        id: &KeyId,
        grant: &Grant,
        hash: [u8; 32],
        at: u64,
    ) -> Result<Reply, Refusal> {
        let created = (grant.clone(), hash, at);
        if let Some(known) = self.keys.iter().find(|key| key.id == *id) {
            let same = known.created == created && known.untouched();
            let taken = Refusal::Key(KeyRefusal::IdTaken { key: id.clone() });
            return if same { Ok(Reply::AlreadySo) } else { Err(taken) };
        }
        self.keys.push(NaiveKey {
            id: id.clone(),
            created,
            grants: vec![grant.clone()],
            secrets: vec![(hash, at)],
            dropped: Vec::new(),
            revoked: None,
        });
        Ok(Reply::Done)
    }

    pub(crate) fn change_key(&mut self, id: &KeyId, revision: u64, grant: &Grant) -> Result<Reply, Refusal> {
        let key = self.live_key(id)?;
        let next = key.grants.len() as u64;
        if revision + 1 == next && key.grants.last() == Some(grant) {
            return Ok(Reply::AlreadySo);
        }
        if revision != next {
            return Err(Refusal::Key(KeyRefusal::StaleRevision { key: id.clone(), revision, next }));
        }
        key.grants.push(grant.clone());
        Ok(Reply::Done)
    }

    pub(crate) fn add_secret(
        &mut self,
        id: &KeyId,
        number: u32,
        hash: [u8; 32],
        at: u64,
    ) -> Result<Reply, Refusal> {
        let key = self.live_key(id)?;
        let live = key.live_secrets();
        let next = u32::try_from(key.secrets.len()).unwrap() + 1;
        let position = number.checked_sub(1).map(|position| position as usize);
        let known = position.and_then(|position| key.secrets.get(position));
        if live.contains(&number) && known == Some(&(hash, at)) {
            return Ok(Reply::AlreadySo);
        }
        if number != next {
            return Err(Refusal::Key(KeyRefusal::SecretOutOfTurn { key: id.clone(), number, next }));
        }
        if live.len() == 2 {
            return Err(Refusal::TooMany { what: registry::Bounded::KeySecrets, limit: 2 });
        }
        key.secrets.push((hash, at));
        Ok(Reply::Done)
    }

    pub(crate) fn drop_secret(&mut self, id: &KeyId, number: u32) -> Result<Reply, Refusal> {
        let key = self.live_key(id)?;
        let live = key.live_secrets();
        if number == 0 || number as usize > key.secrets.len() {
            return Err(Refusal::Key(KeyRefusal::UnknownSecret { key: id.clone(), number }));
        }
        if live == [number] {
            return Err(Refusal::Key(KeyRefusal::LastSecret { key: id.clone(), number }));
        }
        if live.contains(&number) {
            key.dropped.push(number);
        }
        Ok(done_if(live.contains(&number)))
    }

    pub(crate) fn revoke_key(&mut self, id: &KeyId, at: u64) -> Result<Reply, Refusal> {
        let key = self.some_key(id)?;
        let fresh = key.revoked.is_none();
        key.revoked = key.revoked.or(Some(at));
        Ok(done_if(fresh))
    }

    pub(crate) fn audited(&mut self, by: &str, at: u64, action: &str, command: &Command) -> Reply {
        let reply = self.apply(command);
        let outcome = match &reply {
            Reply::Refused(_) => Outcome::Refused,
            Reply::AlreadySo | Reply::NodeAdmitted { again: true, .. } => Outcome::AlreadySo,
            Reply::Done | Reply::NodeAdmitted { again: false, .. } => Outcome::Done,
        };
        let said = (at, by.to_owned(), action.to_owned());
        let noted = self.trail.iter().any(|entry| (entry.0, entry.1.clone(), entry.2.clone()) == said);
        if !noted || outcome == Outcome::Done {
            self.trail.push((said.0, said.1, said.2, outcome));
        }
        reply
    }

    pub(crate) fn noted(&mut self, note: (u64, String, String, Outcome)) -> Reply {
        let fresh = !self.trail.contains(&note);
        if fresh {
            self.trail.push(note);
        }
        done_if(fresh)
    }

    fn some_key(&mut self, id: &KeyId) -> Result<&mut NaiveKey, Refusal> {
        let unknown = Refusal::Key(KeyRefusal::Unknown { key: id.clone() });
        self.keys.iter_mut().find(|key| key.id == *id).ok_or(unknown)
    }

    fn live_key(&mut self, id: &KeyId) -> Result<&mut NaiveKey, Refusal> {
        let key = self.some_key(id)?;
        let revoked = Refusal::Key(KeyRefusal::Revoked { key: id.clone() });
        if key.revoked.is_some() { Err(revoked) } else { Ok(key) }
    }
}

pub(crate) fn compare_keys(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    prop_assert_eq!(registry.is_keyed(), !oracle.keys.is_empty());
    let expected: BTreeMap<_, _> = oracle.keys.iter().map(|key| (&key.id, key)).collect();
    prop_assert_eq!(registry.keys().count(), expected.len());
    for (id, key) in registry.keys() {
        let naive = expected[id];
        prop_assert_eq!(Some(&key.grant), naive.grants.last());
        prop_assert_eq!(key.revision, naive.grants.len() as u64 - 1);
        prop_assert_eq!(key.revoked_at_unix_ms, naive.revoked);
        let live = naive.live_secrets();
        prop_assert_eq!(key.secrets().map(|(number, _)| number).collect::<Vec<_>>(), live.clone());
        for (number, (hash, _)) in (1..).zip(&naive.secrets) {
            let another = live.iter().any(|other| naive.secrets[*other as usize - 1].0 == *hash);
            prop_assert_eq!(key.opens_with(hash), live.contains(&number) || another);
        }
    }
    let trail = registry.audit().iter();
    let trail: Vec<_> = trail
        .map(|entry| (entry.at_unix_ms, entry.by.clone(), entry.action.clone(), entry.outcome))
        .collect();
    prop_assert_eq!(&trail, &oracle.trail);
    prop_assert_eq!(verify(registry.audit()), Ok(()));
    Ok(())
}
