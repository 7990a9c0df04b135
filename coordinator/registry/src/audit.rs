//! What administrators did, in a chain of hashes: no entry can be changed, taken out or put in without its followers showing it.
//!
//! Owns the entries, their bound and [`verify`]. The words are the proposer's, because replicas of two releases must write the
//! same entry. Refuses to judge a command, and to note twice what was only said twice.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::field::{Field, check_id, check_line};
use crate::key_field::KeyField;
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};

/// Tells this use of the hash from any other; for ever.
const CHAIN_CONTEXT: &str = "mlx-serving 2026 audit chain";

/// How a change ended. Why it was refused is not kept: the one who asked was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be tried. Another entry tells how it ended; without one nobody knows.
    Begun,
    /// Something changed.
    Done,
    /// It was that way before.
    AlreadySo,
    /// Nothing changed.
    Refused,
}

impl Outcome {
    /// The outcome's name, as on disk and in the chain.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Begun => "begun",
            Outcome::Done => "done",
            Outcome::AlreadySo => "already_so",
            Outcome::Refused => "refused",
        }
    }
}

impl From<&Reply> for Outcome {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Done | Reply::NodeAdmitted { again: false, .. } => Outcome::Done,
            Reply::AlreadySo | Reply::NodeAdmitted { again: true, .. } => Outcome::AlreadySo,
            Reply::Refused(_) => Outcome::Refused,
        }
    }
}

/// One change that an administrator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// One more than that of the entry before; the first is 1.
    pub number: u64,
    /// When it was asked for, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Who asked: the id of a key, `local-` and the coordinator on which a local administrator asked, or `leader-` and the one
    /// that did it by itself, as the leader.
    pub by: String,
    /// What was asked for, in words.
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The hash of the entry before; zeros before the first.
    #[serde(with = "crate::secret_hash")]
    pub previous: [u8; 32],
    /// The hash of all the above.
    #[serde(with = "crate::secret_hash")]
    pub hash: [u8; 32],
}

impl AuditEntry {
    /// What its hash must be. Texts go with their lengths, so that no two entries have the same bytes.
    fn chained(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
        hasher.update(&self.previous);
        hasher.update(&self.number.to_le_bytes()).update(&self.at_unix_ms.to_le_bytes());
        for text in [self.by.as_str(), self.action.as_str(), self.outcome.name()] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// The trail: its last entries, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trail {
    #[serde(default)]
    entries: Vec<AuditEntry>,
}

impl Trail {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Registry {
    /// Does what was asked and notes it, refused or not. A repetition is noted only if it changed something after all.
    pub(crate) fn audited(
        &mut self,
        by: &str,
        at_unix_ms: u64,
        action: &str,
        command: &Command,
    ) -> Result<Reply, Refusal> {
        check_id(by, Field::Key(KeyField::By))?;
        check_line(action, limits::AUDIT_ACTION_BYTES_MAX, Field::Key(KeyField::Action))?;
        if matches!(command, Command::Audited { .. } | Command::Note { .. }) {
            return Err(Refusal::Malformed { what: Field::Key(KeyField::Audited) });
        }
        let reply = self.apply(command);
        let outcome = Outcome::from(&reply);
        let noted = self.audit.entries.iter().any(|entry| {
            (entry.at_unix_ms, entry.by.as_str(), entry.action.as_str()) == (at_unix_ms, by, action)
        });
        if outcome == Outcome::Done || !noted {
            self.note(by, at_unix_ms, action, outcome);
        }
        Ok(reply)
    }

    /// A line about what is no command of this registry.
    pub(crate) fn noted(
        &mut self,
        by: &str,
        at_unix_ms: u64,
        action: &str,
        outcome: Outcome,
    ) -> Result<Reply, Refusal> {
        check_id(by, Field::Key(KeyField::By))?;
        check_line(action, limits::AUDIT_ACTION_BYTES_MAX, Field::Key(KeyField::Action))?;
        let noted = self.audit.entries.iter().any(|entry| {
            (entry.at_unix_ms, entry.by.as_str(), entry.action.as_str(), entry.outcome)
                == (at_unix_ms, by, action, outcome)
        });
        if noted {
            return Ok(Reply::AlreadySo);
        }
        self.note(by, at_unix_ms, action, outcome);
        Ok(Reply::Done)
    }

    /// What administrators did last, the oldest first.
    #[must_use]
    pub fn audit(&self) -> &[AuditEntry] {
        &self.audit.entries
    }

    fn note(&mut self, by: &str, at_unix_ms: u64, action: &str, outcome: Outcome) {
        let entries = &mut self.audit.entries;
        let (number, previous) =
            entries.last().map_or((1, [0; 32]), |last| (last.number.saturating_add(1), last.hash));
        let mut entry = AuditEntry {
            number,
            at_unix_ms,
            by: String::from(by),
            action: String::from(action),
            outcome,
            previous,
            hash: [0; 32],
        };
        entry.hash = entry.chained();
        if entries.len() >= limits::AUDIT_ENTRIES_MAX {
            entries.drain(..=entries.len() - limits::AUDIT_ENTRIES_MAX);
        }
        entries.push(entry);
    }
}

/// Where a trail is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenTrail {
    /// The entry does not have the hash of what it says.
    Altered {
        /// Its number.
        number: u64,
    },
    /// The entry does not follow the one before it.
    Gap {
        /// Its number.
        number: u64,
    },
}

impl fmt::Display for BrokenTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenTrail::Altered { number } => write!(f, "entry {number} is not as it was written"),
            BrokenTrail::Gap { number } => write!(f, "entry {number} does not follow the one before it"),
        }
    }
}

impl core::error::Error for BrokenTrail {}

/// Whether these entries, the oldest first, are a part of one trail. Entries before the first may have been forgotten, but
/// number 1 has none.
///
/// # Errors
/// The first entry that does not fit.
pub fn verify(entries: &[AuditEntry]) -> Result<(), BrokenTrail> {
    let mut before: Option<&AuditEntry> = None;
    for entry in entries {
        let number = entry.number;
        let follows = match before {
            Some(before) => number == before.number.saturating_add(1) && entry.previous == before.hash,
            None => number > 1 || (number == 1 && entry.previous == [0; 32]),
        };
        if entry.hash != entry.chained() {
            return Err(BrokenTrail::Altered { number });
        }
        if !follows {
            return Err(BrokenTrail::Gap { number });
        }
        before = Some(entry);
    }
    Ok(())
}
