//! Who may use the API: its keys, from their making to their end.
//!
//! Owns creation, change, rotation and revocation. Refuses a change that was meant for another state of the key, a third
//! secret, and to bring a revoked key back. Refuses to forget that there were keys: from the first one on nobody is served
//! without, not even when all are revoked.

use alloc::collections::BTreeMap;

use crate::field::{Field, check_hex, check_line};
use crate::key::{ApiKey, Grant, KeySecret};
use crate::key_field::KeyField;
use crate::key_refusal::KeyRefusal;
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};
use crate::{KeyId, Scope};

impl Registry {
    pub(crate) fn create_key(
        &mut self,
        id: &KeyId,
        grant: &Grant,
        secret_hash: [u8; 32],
        at: u64,
    ) -> Result<Reply, Refusal> {
        check_hex(&id.0, limits::ID_BYTES_MAX, Field::Key(KeyField::Id))?;
        check_grant(grant)?;
        let secret = KeySecret { hash: secret_hash, made_at_unix_ms: at };
        let key = ApiKey {
            grant: grant.clone(),
            revision: 0,
            made_at_unix_ms: at,
            secrets: BTreeMap::from([(1, secret)]),
            last_secret: 1,
            revoked_at_unix_ms: None,
        };
        if let Some(known) = self.keys.get(id) {
            let same = *known == key;
            return if same {
                Ok(Reply::AlreadySo)
            } else {
                refused(KeyRefusal::IdTaken { key: id.clone() })
            };
        }
        let limit = limits::LIVE_KEYS_MAX;
        if self.keys.values().filter(|key| !key.is_revoked()).count() >= limit {
            return Err(Refusal::TooMany { what: Bounded::LiveKeys, limit });
        }
        self.keys.insert(id.clone(), key);
        Ok(Reply::Done)
    }

    /// The revision is the one after the change, so that nobody overwrites what he has not seen.
    pub(crate) fn change_key(&mut self, id: &KeyId, revision: u64, grant: &Grant) -> Result<Reply, Refusal> {
        check_grant(grant)?;
        let key = self.live_key(id)?;
        if revision == key.revision && *grant == key.grant {
            return Ok(Reply::AlreadySo);
        }
        let next = key.revision.saturating_add(1);
        if revision != next {
            return refused(KeyRefusal::StaleRevision { key: id.clone(), revision, next });
        }
        key.revision = revision;
        key.grant = grant.clone();
        Ok(Reply::Done)
    }

    /// Secrets are numbered, so that one that was dropped does not come back with a late repetition.
    pub(crate) fn add_key_secret(
        &mut self,
        id: &KeyId,
        number: u32,
        secret_hash: [u8; 32],
        at: u64,
    ) -> Result<Reply, Refusal> {
        let key = self.live_key(id)?;
        let secret = KeySecret { hash: secret_hash, made_at_unix_ms: at };
        if key.secrets.get(&number) == Some(&secret) {
            return Ok(Reply::AlreadySo);
        }
        let next = key.next_secret();
        if number != next {
            return refused(KeyRefusal::SecretOutOfTurn { key: id.clone(), number, next });
        }
        if key.secrets.len() >= limits::SECRETS_PER_KEY_MAX {
            return Err(Refusal::TooMany { what: Bounded::KeySecrets, limit: limits::SECRETS_PER_KEY_MAX });
        }
        key.last_secret = number;
        key.secrets.insert(number, secret);
        Ok(Reply::Done)
    }

    pub(crate) fn drop_key_secret(&mut self, id: &KeyId, number: u32) -> Result<Reply, Refusal> {
        let key = self.live_key(id)?;
        if number == 0 || number > key.last_secret {
            return refused(KeyRefusal::UnknownSecret { key: id.clone(), number });
        }
        if !key.secrets.contains_key(&number) {
            return Ok(Reply::AlreadySo);
        }
        if key.secrets.len() == 1 {
            return refused(KeyRefusal::LastSecret { key: id.clone(), number });
        }
        key.secrets.remove(&number);
        Ok(Reply::Done)
    }

    pub(crate) fn revoke_key(&mut self, id: &KeyId, at: u64) -> Result<Reply, Refusal> {
        let key = self.keys.get_mut(id).ok_or_else(|| unknown(id))?;
        if key.is_revoked() {
            return Ok(Reply::AlreadySo);
        }
        key.revoked_at_unix_ms = Some(at);
        key.secrets.clear();
        self.forget_oldest_revoked_key();
        Ok(Reply::Done)
    }

    /// A key, good or not.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&ApiKey> {
        self.keys.get(id)
    }

    /// All remembered keys, by id.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyId, &ApiKey)> {
        self.keys.iter()
    }

    /// A key was made at some time, so nobody is served without one.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        !self.keys.is_empty()
    }

    fn live_key(&mut self, id: &KeyId) -> Result<&mut ApiKey, Refusal> {
        let key = self.keys.get_mut(id).ok_or_else(|| unknown(id))?;
        if key.is_revoked() { refused(KeyRefusal::Revoked { key: id.clone() }) } else { Ok(key) }
    }

    fn forget_oldest_revoked_key(&mut self) {
        let revoked = || self.keys.iter().filter_map(|(id, key)| Some((key.revoked_at_unix_ms?, id)));
        if revoked().count() > limits::REVOKED_KEYS_MAX
            && let Some(oldest) = revoked().min().map(|(_, id)| id.clone())
        {
            self.keys.remove(&oldest);
            self.usage.forget(&oldest);
        }
    }
}

fn unknown(id: &KeyId) -> Refusal {
    Refusal::Key(KeyRefusal::Unknown { key: id.clone() })
}

fn refused<T>(refusal: KeyRefusal) -> Result<T, Refusal> {
    Err(Refusal::Key(refusal))
}

fn check_grant(grant: &Grant) -> Result<(), Refusal> {
    check_line(&grant.name, limits::KEY_NAME_BYTES_MAX, Field::Key(KeyField::Name))?;
    let known = Scope::ALL.iter().any(|scope| grant.scopes.contains(scope));
    let models = grant.models.as_ref().map_or(1, alloc::collections::BTreeSet::len);
    grant.allowance.check()?;
    match (known, (1..=limits::MODELS_PER_KEY_MAX).contains(&models)) {
        (true, true) => Ok(()),
        (false, _) => Err(Refusal::Malformed { what: Field::Key(KeyField::Scopes) }),
        (true, false) => Err(Refusal::Malformed { what: Field::Key(KeyField::Models) }),
    }
}
