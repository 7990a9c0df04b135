//! What is known of a model before it is loaded, from its config and the headers of its weights.
//!
//! Owns the composition. What a folder does not state is absent (zero, empty): a guess would be believed by everyone who plans
//! with it, and the runtime measures the rest once the model is loaded.

use super::config::{Config, count};
use super::kv_cache::KvShape;
use super::limits::EOS_IDS_MAX;
use super::model_folder::ModelFolder;
use super::{context, parameters};

/// Zero or empty: the folder does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelFacts {
    pub(crate) model_type: String,
    /// Tokens.
    pub(crate) context_length: u64,
    /// Before quantisation.
    pub(crate) parameters: u64,
    /// The type it computes in: `bfloat16`, whatever its weights are packed into.
    pub(crate) dtype: String,
    /// Of all tensors; what the GPU holds after loading.
    pub(crate) weights_bytes: u64,
    pub(crate) kv_bytes_per_token: u64,
    pub(crate) eos_ids: Vec<u32>,
    pub(crate) vocab_size: u32,
}

/// Facts, and what only a reservation needs.
pub(super) struct Known {
    pub(super) facts: ModelFacts,
    /// KV that a sequence takes once, whatever its length.
    pub(super) kv_bytes_per_sequence: u64,
}

impl Known {
    pub(super) fn of(folder: &ModelFolder) -> Self {
        let (config, tensors) = (&folder.config, &folder.tensors);
        let dtype = parameters::compute_dtype(tensors, config);
        let kv = KvShape::of(config).zip(dtype);
        let kv_bytes = |values: fn(KvShape) -> u64| {
            kv.and_then(|(shape, (_, bytes))| values(shape).checked_mul(bytes)).unwrap_or_default()
        };
        let facts = ModelFacts {
            model_type: config.model_type().to_owned(),
            context_length: context::length(config).unwrap_or_default(),
            parameters: parameters::count_parameters(tensors, config).unwrap_or_default(),
            dtype: dtype.map(|(name, _)| name.to_owned()).unwrap_or_default(),
            weights_bytes: tensors.values().fold(0, |total: u64, tensor| total.saturating_add(tensor.bytes)),
            kv_bytes_per_token: kv_bytes(|shape| shape.per_token),
            eos_ids: eos_ids(config, &folder.generation),
            vocab_size: config
                .count("vocab_size")
                .and_then(|size| u32::try_from(size).ok())
                .unwrap_or_default(),
        };
        Self { facts, kv_bytes_per_sequence: kv_bytes(|shape| shape.per_sequence) }
    }
}

/// `generation_config.json` is the more deliberate place; a list or a single id.
fn eos_ids(config: &Config, generation: &Config) -> Vec<u32> {
    for stated in [generation.top("eos_token_id"), config.top("eos_token_id"), config.text("eos_token_id")] {
        let ids = stated
            .map(|stated| stated.as_array().map_or_else(|| std::slice::from_ref(stated), Vec::as_slice));
        let id = |value: &serde_json::Value| if value.as_u64() == Some(0) { Some(0) } else { count(value) };
        let ids = ids.unwrap_or_default().iter().filter_map(id).filter_map(|id| u32::try_from(id).ok());
        let mut ids: Vec<u32> = ids.take(EOS_IDS_MAX).collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            return ids;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn eos(config: &Value, generation: &Value) -> Vec<u32> {
        let parse = |value: &Value| Config::parse(value.to_string().as_bytes()).unwrap_or_else(Config::empty);
        eos_ids(&parse(config), &parse(generation))
    }

    #[test]
    fn an_end_of_sequence_is_one_id_or_a_list() {
        assert_eq!(eos(&json!({"eos_token_id": 2}), &json!(null)), [2]);
        assert_eq!(eos(&json!({"eos_token_id": [3, 1, 3]}), &json!({})), [1, 3]);
        assert_eq!(eos(&json!({"eos_token_id": 0}), &json!({})), [0]);
        assert_eq!(eos(&json!({"text_config": {"eos_token_id": 7}}), &json!({})), [7]);
    }

    #[test]
    fn the_generation_config_comes_first() {
        let generation = json!({"eos_token_id": [128_001, 128_008, 128_009]});
        assert_eq!(eos(&json!({"eos_token_id": 128_001}), &generation), [128_001, 128_008, 128_009]);
        assert_eq!(eos(&json!({"eos_token_id": 5}), &json!({"eos_token_id": null})), [5]);
    }

    #[test]
    fn what_is_no_token_id_is_passed_over() {
        assert_eq!(eos(&json!({"eos_token_id": [-1, "2", null, 4.5, 1_u64 << 40, 9]}), &json!({})), [9]);
        assert_eq!(eos(&json!({"eos_token_id": {}}), &json!({})), Vec::<u32>::new());
        let many: Vec<_> = (0..1_000).collect();
        assert_eq!(eos(&json!({"eos_token_id": many}), &json!({})).len(), EOS_IDS_MAX);
    }
}
