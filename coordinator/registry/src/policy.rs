//! How the cluster shall treat each model.
//!
//! Owns pins, the fewest and the most replicas, and unloading for idleness, by the model's name: a policy outlives the
//! nodes that offer the model. Refuses to carry any of it out, which is the planner's work, and policies that contradict
//! themselves.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};
use crate::{Field, ModelName};

/// What is wished for one model. The default wishes nothing: load it when it is asked for, wherever it costs least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPolicy {
    /// Where it is placed it stays: neither evicted for another model nor unloaded for idleness.
    #[serde(default)]
    pub pinned: bool,
    /// So many nodes shall hold it, asked for or not.
    #[serde(default)]
    pub replicas_min: u32,
    /// No more nodes than this shall hold it; 0: no bound.
    #[serde(default)]
    pub replicas_max: u32,
    /// Unload what is above the fewest after so long without a request; absent: only when its room is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_unload_s: Option<u64>,
}

impl Registry {
    pub(crate) fn set_policy(&mut self, model: &ModelName, policy: ModelPolicy) -> Result<Reply, Refusal> {
        if policy.replicas_max != 0 && policy.replicas_min > policy.replicas_max {
            return Err(Refusal::Malformed { what: Field::Replicas });
        }
        if self.policy(model) == policy {
            return Ok(Reply::AlreadySo);
        }
        if policy == ModelPolicy::default() {
            self.policies.remove(model);
            return Ok(Reply::Done);
        }
        let limit = limits::MODEL_POLICIES_MAX;
        if !self.policies.contains_key(model) && self.policies.len() >= limit {
            return Err(Refusal::TooMany { what: Bounded::ModelPolicies, limit });
        }
        self.policies.insert(model.clone(), policy);
        Ok(Reply::Done)
    }

    /// How a model shall be treated; the default unless something else was set.
    #[must_use]
    pub fn policy(&self, model: &ModelName) -> ModelPolicy {
        self.policies.get(model).copied().unwrap_or_default()
    }

    /// All policies that are not the default, by model.
    pub fn policies(&self) -> impl Iterator<Item = (&ModelName, &ModelPolicy)> {
        self.policies.iter()
    }
}
