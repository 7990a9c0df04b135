//! What a sequence costs in the KV cache, from the shape a config states.
//!
//! Owns the formulas by family, as the caches of mlx-lm 0.32 are built. Exact for the families named here; for hybrids it does
//! not know it counts every layer, which is never too little; `None` where the config does not state a shape. The runtime
//! measures its own cache after loading and has the last word.

use serde_json::Value;

use super::config::{Config, count};
use super::limits::{LAYERS_MAX, WINDOW_SPARE_TOKENS};

/// Families that cache one compressed vector for each layer and token (multi-head latent attention).
const LATENT: [&str; 9] = [
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "kimi_k2",
    "kimi_vl",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "longcat_flash",
    "minicpm3",
];

/// Families that name each layer's kind in `layer_types`; only `full_attention` layers grow without bound.
const BY_LAYER_TYPES: [&str; 9] = [
    "gpt_oss",
    "llama",
    "ministral3",
    "olmo3",
    "lfm2",
    "lfm2_moe",
    "exaone_moe",
    "qwen3_5_text",
    "qwen3_5_moe_text",
];

/// Families in which one layer of so many sees everything and the others a window; the default where the config is silent.
const BY_PATTERN: [(&str, u64); 2] = [("gemma3_text", 6), ("cohere2", 4)];

/// Families in which one layer of so many is attention and the others keep a state of constant size.
const BY_INTERVAL: [(&str, u64); 4] =
    [("qwen3_next", 4), ("qwen3_5", 4), ("qwen3_5_text", 4), ("qwen3_5_moe_text", 4)];

/// Values that a sequence keeps; times the bytes of one, its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvShape {
    /// For each token, without bound.
    pub(super) per_token: u64,
    /// Once for each sequence: layers that see a window only, when it is full.
    pub(super) per_sequence: u64,
}

impl KvShape {
    pub(super) fn of(config: &Config) -> Option<Self> {
        // Layers of two shapes: one formula would be too little.
        if config.count("global_head_dim").is_some() {
            return None;
        }
        let layers = layers(config)?;
        let family = config.text_type();
        if LATENT.contains(&family) {
            let vector = config.count("kv_lora_rank")?.checked_add(config.count("qk_rope_head_dim")?)?;
            return Some(Self { per_token: layers.checked_mul(vector)?, per_sequence: 0 });
        }
        let layer = values_of_layer(config)?;
        let kinds = Kinds::of(config, family, layers);
        let window = config.count("sliding_window").unwrap_or_default().checked_add(WINDOW_SPARE_TOKENS)?;
        Some(Self {
            per_token: kinds.growing.checked_mul(layer)?,
            per_sequence: kinds.windowed.checked_mul(layer)?.checked_mul(window)?,
        })
    }
}

/// Keys and values of one token in one layer.
fn values_of_layer(config: &Config) -> Option<u64> {
    let heads = config.count("num_attention_heads").or_else(|| config.count("n_head"));
    let kv_heads = config.count("num_key_value_heads").or(heads)?;
    let head_dim = config.count("head_dim").or_else(|| {
        let hidden = config.count("hidden_size").or_else(|| config.count("n_embd"))?;
        hidden.checked_div(heads?)
    })?;
    kv_heads.checked_mul(head_dim)?.checked_mul(2)
}

fn layers(config: &Config) -> Option<u64> {
    let layers = ["num_hidden_layers", "n_layer", "num_layers"].iter().find_map(|key| config.count(key));
    layers.filter(|layers| *layers <= LAYERS_MAX)
}

/// How many layers keep every token, and how many the last ones only. The rest keep a small state.
struct Kinds {
    growing: u64,
    windowed: u64,
}

impl Kinds {
    fn of(config: &Config, family: &str, layers: u64) -> Self {
        if BY_LAYER_TYPES.contains(&family)
            && let Some(kinds) = config.text("layer_types").and_then(Value::as_array)
        {
            let number = |wanted| kinds.iter().filter(|kind| kind.as_str() == Some(wanted)).count();
            let number = |wanted| u64::try_from(number(wanted)).unwrap_or(layers).min(layers);
            return Self { growing: number("full_attention"), windowed: number("sliding_attention") };
        }
        let default = |table: &[(&str, u64)]| {
            table.iter().find(|(name, _)| *name == family).map(|(_, default)| *default)
        };
        let one_in = |every: u64| layers.checked_div(every).unwrap_or(layers);
        if let Some(default) = default(&BY_PATTERN) {
            let growing = one_in(config.text("sliding_window_pattern").and_then(count).unwrap_or(default));
            return Self { growing, windowed: layers.saturating_sub(growing) };
        }
        if let Some(default) = default(&BY_INTERVAL) {
            return Self {
                growing: one_in(config.count("full_attention_interval").unwrap_or(default)),
                windowed: 0,
            };
        }
        Self { growing: layers, windowed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(config: &Value) -> Option<u64> {
        shape(config).map(|shape| shape.per_token)
    }

    fn shape(config: &Value) -> Option<KvShape> {
        KvShape::of(&Config::parse(config.to_string().as_bytes()).expect("an object"))
    }

    /// Shapes as published; bytes in bfloat16 as measured with the caches of mlx-lm 0.32.
    #[test]
    fn published_models_cost_what_was_measured() {
        let alternating: Vec<_> = (0..24)
            .map(|layer| if layer % 2 == 0 { "sliding_attention" } else { "full_attention" })
            .collect();
        for (model, config, kib) in [
            (
                "Llama-3.1-8B",
                json!({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4_096, "num_attention_heads": 32, "num_key_value_heads": 8}),
                128.0,
            ),
            (
                "Llama-3.1-70B",
                json!({"model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8_192, "num_attention_heads": 64, "num_key_value_heads": 8}),
                320.0,
            ),
            (
                "Qwen3-30B-A3B",
                json!({"model_type": "qwen3_moe", "num_hidden_layers": 48, "head_dim": 128, "hidden_size": 2_048, "num_attention_heads": 32, "num_key_value_heads": 4}),
                96.0,
            ),
            (
                "gpt-oss-20b",
                json!({"model_type": "gpt_oss", "num_hidden_layers": 24, "head_dim": 64, "hidden_size": 2_880, "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128, "layer_types": alternating}),
                24.0,
            ),
            (
                "DeepSeek-V3",
                json!({"model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7_168, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}),
                68.625,
            ),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let measured = of(&config).map(|values| values as f64 * 2.0 / 1_024.0);
            assert_eq!(measured, Some(kib), "{model}");
        }
    }

    #[test]
    fn only_layers_without_a_window_or_a_constant_state_grow() {
        let shape = json!({"num_hidden_layers": 12, "head_dim": 1, "num_attention_heads": 1});
        let with = |extra: Value| {
            let mut config = shape.clone();
            for (key, value) in extra.as_object().expect("an object") {
                config[key] = value.clone();
            }
            of(&config)
        };
        assert_eq!(with(json!({"model_type": "gemma3_text"})), Some(2 * 2));
        assert_eq!(with(json!({"model_type": "gemma3_text", "sliding_window_pattern": 2})), Some(6 * 2));
        assert_eq!(with(json!({"model_type": "cohere2"})), Some(3 * 2));
        assert_eq!(with(json!({"model_type": "qwen3_next", "full_attention_interval": 3})), Some(4 * 2));
        assert_eq!(with(json!({"model_type": "llama", "sliding_window": 8})), Some(12 * 2));
        assert_eq!(
            with(json!({"model_type": "unknown", "layer_types": ["sliding_attention"]})),
            Some(12 * 2)
        );
    }

    #[test]
    fn layers_with_a_window_cost_it_once() {
        let config = json!({"model_type": "gemma3_text", "num_hidden_layers": 62, "head_dim": 128, "num_attention_heads": 32,
            "num_key_value_heads": 16, "sliding_window": 1_024});
        let layer = 16 * 128 * 2;
        assert_eq!(
            shape(&config),
            Some(KvShape { per_token: 10 * layer, per_sequence: 52 * layer * (1_024 + 512) })
        );
        let plain = json!({"model_type": "mistral", "num_hidden_layers": 2, "head_dim": 1, "num_attention_heads": 1, "sliding_window": 9});
        assert_eq!(shape(&plain), Some(KvShape { per_token: 4, per_sequence: 0 }));
    }

    #[test]
    fn heads_are_the_kv_heads_where_nothing_else_is_stated() {
        let config = json!({"n_layer": 2, "n_head": 4, "n_embd": 32});
        assert_eq!(of(&config), Some(2 * 2 * 4 * 8));
    }

    #[test]
    fn a_shape_that_is_not_stated_is_not_guessed() {
        for config in [
            json!({}),
            json!({"num_hidden_layers": 12}),
            json!({"num_hidden_layers": 12, "num_attention_heads": 4}),
            json!({"num_hidden_layers": 1e9, "num_attention_heads": 4, "head_dim": 4}),
            json!({"model_type": "deepseek_v3", "num_hidden_layers": 12, "num_attention_heads": 4, "head_dim": 4}),
            json!({"num_hidden_layers": 12, "num_attention_heads": 4, "head_dim": 4, "global_head_dim": 8}),
            json!({"num_hidden_layers": 12, "num_attention_heads": u64::MAX, "head_dim": u64::MAX}),
        ] {
            assert_eq!(of(&config), None, "{config}");
        }
    }

    proptest! {
        #[test]
        fn any_numbers_give_a_product_or_nothing(layers in any::<u64>(), heads in any::<u64>(), dim in any::<u64>(), every in any::<u64>()) {
            let config = json!({"model_type": "gemma3_text", "num_hidden_layers": layers, "num_attention_heads": heads,
                "head_dim": dim, "sliding_window_pattern": every});
            if let Some(values) = of(&config) {
                prop_assert!(values.checked_rem(2) == Some(0));
            }
        }
    }
}
