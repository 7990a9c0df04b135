//! How many tokens a model can attend to, as its config states it.
//!
//! Owns the reading of positions and of RoPE scaling, by the rules of Hugging Face Transformers (`modeling_rope_utils`): most
//! configs state the stretched length themselves; YaRN ones often state the original length and a factor. A sliding window is
//! not a context: it bounds single layers. Refuses to guess: a config that states no length has none.

use serde_json::Value;

use super::config::{Config, count};
use super::limits::CONTEXT_TOKENS_MAX;

/// Where families state it, the commonest first.
const KEYS: [&str; 7] = [
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
    "model_max_length",
];

/// Kinds of scaling whose stated length is the stretched one already, whatever the factor says. Llama 3.1: 131,072 stated,
/// original 8,192, factor 8.
const STATED_STRETCHED: [&str; 5] = ["llama3", "longrope", "su", "default", "mrope"];

/// Context length in tokens; `None` where the config does not say.
pub(super) fn length(config: &Config) -> Option<u64> {
    let stated = KEYS.iter().find_map(|key| config.count(key)).filter(|length| *length <= CONTEXT_TOKENS_MAX);
    let stretched = rope(config).and_then(|rope| stretched(rope, config, stated));
    stated.max(stretched)
}

/// The scaling of the layers that see everything.
fn rope(config: &Config) -> Option<&Value> {
    let rope = config.text("rope_scaling").or_else(|| config.text("rope_parameters"))?;
    Some(rope.get("full_attention").unwrap_or(rope))
}

/// Original length times factor, where that is what the scaling means.
fn stretched(rope: &Value, config: &Config, stated: Option<u64>) -> Option<u64> {
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or_default();
    if STATED_STRETCHED.contains(&kind) {
        return None;
    }
    let original = rope.get("original_max_position_embeddings").and_then(count);
    let original = original.or_else(|| config.count("original_max_position_embeddings"));
    // Without an original length YaRN takes the stated one for it; the other kinds do not say which one it is.
    let original = if kind == "yarn" { original.or(stated) } else { original }?;
    let factor =
        rope.get("factor").and_then(Value::as_f64).filter(|factor| (1.0..=1_024.0).contains(factor))?;
    if original > CONTEXT_TOKENS_MAX {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "at most 2^40"
    )]
    let length = (original as f64 * factor) as u64;
    Some(length).filter(|length| *length <= CONTEXT_TOKENS_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(config: &Value) -> Option<u64> {
        length(&Config::parse(config.to_string().as_bytes()).expect("an object"))
    }

    #[test]
    fn the_stated_length_is_the_context() {
        assert_eq!(of(&json!({"max_position_embeddings": 32_768})), Some(32_768));
        assert_eq!(of(&json!({"n_positions": 1_024})), Some(1_024));
        assert_eq!(of(&json!({"text_config": {"max_position_embeddings": 131_072}})), Some(131_072));
    }

    #[test]
    fn a_model_that_states_none_has_none() {
        assert_eq!(of(&json!({})), None);
        assert_eq!(of(&json!({"max_position_embeddings": "8192"})), None);
        assert_eq!(of(&json!({"model_max_length": 1e30})), None);
    }

    #[test]
    fn a_sliding_window_is_not_the_context() {
        assert_eq!(of(&json!({"max_position_embeddings": 32_768, "sliding_window": 4_096})), Some(32_768));
        assert_eq!(of(&json!({"sliding_window": 4_096})), None);
    }

    /// Length and scaling as published with the models named.
    #[test]
    fn rope_scaling_is_read_as_transformers_reads_it() {
        for (model, positions, scaling, expected) in [
            (
                "Llama-3.1-8B",
                131_072,
                json!({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8_192}),
                131_072,
            ),
            (
                "Llama-3.2-1B",
                131_072,
                json!({"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8_192}),
                131_072,
            ),
            (
                "Qwen2.5 with YaRN",
                32_768,
                json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}),
                131_072,
            ),
            ("YaRN, no original", 32_768, json!({"type": "yarn", "factor": 2.0}), 65_536),
            (
                "DeepSeek-V3",
                163_840,
                json!({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4_096}),
                163_840,
            ),
            (
                "gpt-oss-20b",
                131_072,
                json!({"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4_096}),
                131_072,
            ),
            (
                "Phi-3-mini-128k",
                131_072,
                json!({"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}),
                131_072,
            ),
            ("deepseek-coder-33b", 16_384, json!({"type": "linear", "factor": 4.0}), 16_384),
            ("gemma-3-27b", 131_072, json!({"rope_type": "linear", "factor": 8.0}), 131_072),
            (
                "linear with original",
                4_096,
                json!({"type": "linear", "factor": 2.0, "original_max_position_embeddings": 4_096}),
                8_192,
            ),
        ] {
            let config = json!({"max_position_embeddings": positions, "rope_scaling": scaling});
            assert_eq!(of(&config), Some(expected), "{model}");
        }
    }

    #[test]
    fn the_newer_name_and_its_scaling_for_each_kind_of_layer_are_read() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1_000});
        assert_eq!(of(&json!({"max_position_embeddings": 1_000, "rope_parameters": yarn})), Some(4_000));
        let layers = json!({"sliding_attention": {"rope_type": "default"}, "full_attention": yarn});
        assert_eq!(of(&json!({"max_position_embeddings": 1_000, "rope_parameters": layers})), Some(4_000));
    }

    #[test]
    fn absurd_factors_and_lengths_are_passed_over() {
        for factor in [json!(0.5), json!(-1), json!(1e9), json!("4"), json!(null)] {
            let scaling =
                json!({"type": "yarn", "factor": factor, "original_max_position_embeddings": 1_000});
            assert_eq!(of(&json!({"max_position_embeddings": 1_000, "rope_scaling": scaling})), Some(1_000));
        }
        let scaling = json!({"type": "yarn", "factor": 2, "original_max_position_embeddings": u64::MAX});
        assert_eq!(of(&json!({"max_position_embeddings": 1_000, "rope_scaling": scaling})), Some(1_000));
    }

    proptest! {
        #[test]
        fn a_context_is_never_shorter_than_stated_nor_above_the_bound(
            positions in 1..=CONTEXT_TOKENS_MAX,
            original in any::<u64>(),
            factor in any::<f64>(),
            kind in "yarn|linear|dynamic|llama3|su|x",
        ) {
            let scaling = json!({"type": kind, "factor": factor, "original_max_position_embeddings": original});
            let length = of(&json!({"max_position_embeddings": positions, "rope_scaling": scaling})).unwrap_or_default();
            prop_assert!((positions..=CONTEXT_TOKENS_MAX).contains(&length));
        }
    }
}
