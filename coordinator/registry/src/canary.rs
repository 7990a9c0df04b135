//! What a healthy runtime answers to the canary: the golden ids of each model.
//!
//! Owns the rule that the first answer stays: whoever answers otherwise under the same card is the one that is doubted.
//! Refuses to choose the prompt and to compare an answer, which is the scheduler's work.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ModelName;
use crate::field::{Field, check_hex};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};

/// The golden ids of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Golden {
    card_digest: String,
    ids: Vec<u32>,
}

impl Registry {
    pub(crate) fn set_golden(
        &mut self,
        model: &ModelName,
        card_digest: &str,
        ids: &[u32],
    ) -> Result<Reply, Refusal> {
        check_hex(card_digest, limits::CARD_DIGEST_BYTES_MAX, Field::CardDigest)?;
        if ids.is_empty() || ids.len() > limits::GOLDEN_IDS_MAX {
            return Err(Refusal::Malformed { what: Field::GoldenIds });
        }
        match self.golden(model, card_digest) {
            Some(known) if known == ids => return Ok(Reply::AlreadySo),
            Some(_) => return Err(Refusal::GoldenDiffers { model: model.clone() }),
            None => {}
        }
        if !self.goldens.contains_key(model) {
            self.make_room_for_golden()?;
        }
        let golden = Golden { card_digest: String::from(card_digest), ids: ids.to_vec() };
        self.goldens.insert(model.clone(), golden);
        Ok(Reply::Done)
    }

    /// The golden ids of a model under this card; none if nobody answered the canary under it yet.
    #[must_use]
    pub fn golden(&self, model: &ModelName, card_digest: &str) -> Option<&[u32]> {
        let golden = self.goldens.get(model)?;
        (golden.card_digest == card_digest).then_some(&golden.ids)
    }

    /// Where all are taken, those of a model that no node offers give way.
    fn make_room_for_golden(&mut self) -> Result<(), Refusal> {
        let limit = limits::GOLDENS_MAX;
        if self.goldens.len() < limit {
            return Ok(());
        }
        let offered = |model: &ModelName| self.nodes.values().any(|node| node.wanted.contains_key(model));
        let idle = self.goldens.keys().find(|model| !offered(model)).cloned();
        let idle = idle.ok_or(Refusal::TooMany { what: Bounded::Goldens, limit })?;
        self.goldens.remove(&idle);
        Ok(())
    }
}
