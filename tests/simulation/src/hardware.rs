//! What a model costs on a Mac: the cost model, the chip table and the models it is derived for.
//!
//! Owns `prefill` and `step` as the founding cost model states them, and how their constants follow from a chip's bandwidth
//! and arithmetic. Refuses to be exact about any one Mac: the scheduler must learn its constants, and the simulator only
//! needs a fleet that is unequal in the way real ones are.
//!
//! ```text
//! prefill(u, ctx) = o + u/P + c2*u*(ctx + u/2)
//! step(b, K)      = t1*(1 + beta*(b-1)) + kappa*K
//! t1     = bytes read per token / (bandwidth * efficiency)
//! kappa  = KV bytes per token / (bandwidth * efficiency)
//! P      = effective FLOPS / (2 * parameters)
//! c2     = attention FLOPs per pair of tokens / effective FLOPS
//! ```

use serde::{Deserialize, Serialize};

/// How fast one model runs on one Mac, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// A decode step of one sequence without context (t1).
    pub step_s: f64,
    /// What each further sequence adds to a step, as a share of `step_s` (beta).
    pub batch_slope: f64,
    /// What each token in the KV cache of the batch adds to a step (kappa).
    pub kv_token_s: f64,
    /// Prompt tokens per second (P).
    pub prefill_tokens_per_s: f64,
    /// What each pair of a prompt token and a token before it adds to a prefill (c2).
    pub attention_pair_s: f64,
    /// From the arrival of a request at its runtime to the start of its prefill (o).
    pub overhead_s: f64,
    /// Reading its weights and warming up, where that was measured; else it follows from their size and the disk.
    #[serde(default)]
    pub load_s: Option<f64>,
}

impl Speed {
    /// Prefill of `tokens` on top of `context` tokens, alone.
    #[must_use]
    pub fn prefill_s(&self, tokens: f64, context: f64) -> f64 {
        self.overhead_s + self.chunk_s(tokens, context)
    }

    /// A part of a prefill: without the overhead.
    #[must_use]
    pub fn chunk_s(&self, tokens: f64, context: f64) -> f64 {
        tokens / self.prefill_tokens_per_s + self.attention_pair_s * tokens * (context + tokens / 2.0)
    }

    /// A decode step of `rows` sequences with `kv_tokens` in their caches together.
    #[must_use]
    pub fn step_s(&self, rows: f64, kv_tokens: f64) -> f64 {
        if rows <= 0.0 {
            return 0.0;
        }
        self.step_s * (1.0 + self.batch_slope * (rows - 1.0)) + self.kv_token_s * kv_tokens
    }

    /// All tokens of an answer, alone, after `prompt` tokens: each is a step, the first one too.
    #[must_use]
    pub fn decode_s(&self, prompt: f64, output: f64) -> f64 {
        output * (self.step_s + self.kv_token_s * (prompt + (output - 1.0) / 2.0))
    }
}

/// A model as a Mac sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name in reports.
    pub name: String,
    /// Memory of its weights.
    pub weights_bytes: f64,
    /// Bytes of weights that one token reads: all of them, but for a mixture of experts.
    pub active_bytes: f64,
    /// Parameters that one token passes.
    pub active_parameters: f64,
    /// Memory of one token in the KV cache.
    pub kv_bytes: f64,
    /// Attention FLOPs for each pair of tokens: 4 * layers * width of all query heads.
    pub attention_flops: f64,
}

/// A chip as the chip table has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// As people call it.
    pub name: &'static str,
    /// Memory bandwidth.
    pub gb_per_s: f64,
    /// The share of it that 4-bit weights reach.
    pub efficiency: f64,
    /// What prefill reaches of its arithmetic.
    pub tflops: f64,
    /// What each further sequence adds to a step.
    pub batch_slope: f64,
    /// How fast its SSD reads weights.
    pub ssd_gb_per_s: f64,
}

const fn chip(name: &'static str, gb_per_s: f64, efficiency: f64, tflops: f64, batch_slope: f64) -> Chip {
    Chip { name, gb_per_s, efficiency, tflops, batch_slope, ssd_gb_per_s: 5.5 }
}

/// Bandwidths are Apple's; the measured TFLOPS are those of M1, M1 Max, M3 Max, M4 Max and M2 Ultra, the others follow by
/// GPU cores; efficiency at 4 bit lies between 0.45 and 0.60 and the slope between 0.24 and 0.43, the larger the chip the
/// lower both, since a wide GPU is harder to keep busy with one sequence.
pub const CHIPS: [Chip; 16] = [
    Chip { ssd_gb_per_s: 2.5, ..chip("M1", 68.0, 0.58, 1.5, 0.43) },
    chip("M1 Pro", 200.0, 0.56, 2.9, 0.38),
    chip("M1 Max", 400.0, 0.52, 5.5, 0.34),
    chip("M1 Ultra", 800.0, 0.47, 10.5, 0.28),
    Chip { ssd_gb_per_s: 2.5, ..chip("M2", 100.0, 0.58, 2.0, 0.42) },
    chip("M2 Pro", 200.0, 0.56, 3.8, 0.37),
    chip("M2 Max", 400.0, 0.53, 7.6, 0.33),
    chip("M2 Ultra", 800.0, 0.48, 16.0, 0.26),
    Chip { ssd_gb_per_s: 2.5, ..chip("M3", 100.0, 0.60, 2.6, 0.41) },
    chip("M3 Pro", 150.0, 0.58, 4.5, 0.38),
    chip("M3 Max", 400.0, 0.54, 10.5, 0.31),
    chip("M3 Ultra", 819.0, 0.49, 20.0, 0.24),
    Chip { ssd_gb_per_s: 2.9, ..chip("M4", 120.0, 0.60, 3.2, 0.40) },
    chip("M4 Pro", 273.0, 0.57, 6.5, 0.35),
    chip("M4 Max", 546.0, 0.54, 13.0, 0.29),
    chip("M5", 153.0, 0.60, 8.0, 0.36),
];

/// The chip of that name.
#[must_use]
pub fn chip_named(name: &str) -> Option<Chip> {
    CHIPS.into_iter().find(|chip| chip.name == name)
}

/// The models that presets serve, at 4 bit: name, weights, bytes and parameters per token, KV bytes, layers * query width.
const MODELS: [(&str, f64, f64, f64, f64, f64); 8] = [
    ("1b", 0.70e9, 0.70e9, 1.24e9, 32_768.0, 16.0 * 2_048.0),
    ("3b", 1.81e9, 1.81e9, 3.2e9, 114_688.0, 28.0 * 3_072.0),
    ("8b", 4.52e9, 4.52e9, 8.0e9, 131_072.0, 32.0 * 4_096.0),
    ("14b", 8.3e9, 8.3e9, 14.8e9, 163_840.0, 40.0 * 5_120.0),
    ("20b-a4b", 12.0e9, 2.1e9, 3.6e9, 24_576.0, 24.0 * 4_096.0),
    ("30b-a3b", 17.2e9, 1.9e9, 3.3e9, 98_304.0, 48.0 * 4_096.0),
    ("32b", 18.4e9, 18.4e9, 32.8e9, 262_144.0, 64.0 * 8_192.0),
    ("70b", 39.7e9, 39.7e9, 70.6e9, 327_680.0, 80.0 * 8_192.0),
];

/// The model of that name.
#[must_use]
pub fn model_named(name: &str) -> Option<Model> {
    MODELS.into_iter().find(|model| model.0 == name).map(
        |(name, weights_bytes, active_bytes, active_parameters, kv_bytes, attention)| Model {
            name: name.to_string(),
            weights_bytes,
            active_bytes,
            active_parameters,
            kv_bytes,
            attention_flops: 4.0 * attention,
        },
    )
}

/// The names of all models, small ones first.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    MODELS.into_iter().map(|model| model.0)
}

/// How fast a model runs on a chip.
#[must_use]
pub fn speed(chip: &Chip, model: &Model) -> Speed {
    let bytes_per_s = chip.gb_per_s * 1e9 * chip.efficiency;
    let flops = chip.tflops * 1e12;
    Speed {
        step_s: model.active_bytes / bytes_per_s,
        batch_slope: chip.batch_slope,
        kv_token_s: model.kv_bytes / bytes_per_s,
        prefill_tokens_per_s: flops / (2.0 * model.active_parameters),
        attention_pair_s: model.attention_flops / flops,
        overhead_s: OVERHEAD_S,
        load_s: None,
    }
}

/// A pipe, a frame and the scheduling of the first chunk.
const OVERHEAD_S: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn speed_of(chip: &str, model: &str) -> Speed {
        speed(&chip_named(chip).expect("chip"), &model_named(model).expect("model"))
    }

    /// The slowest Mac's numbers are those the scheduler assumes of an unknown one.
    #[test]
    fn an_8b_model_on_an_m1_has_the_speed_that_is_assumed_of_an_unknown_mac() {
        let speed = speed_of("M1", "8b");
        assert!((speed.prefill_tokens_per_s - 93.75).abs() < 1e-9);
        assert!((speed.step_s - 0.1146).abs() < 1e-4);
    }

    #[test]
    fn constants_follow_from_bandwidth_and_arithmetic() {
        let speed = speed_of("M2 Ultra", "70b");
        assert!((speed.step_s - 39.7 / 384.0).abs() < 1e-9);
        assert!((speed.kv_token_s - 327_680.0 / 384e9).abs() < 1e-15);
        assert!((speed.prefill_tokens_per_s - 16e12 / 141.2e9).abs() < 1e-9);
        assert!((speed.attention_pair_s - 4.0 * 80.0 * 8_192.0 / 16e12).abs() < 1e-15);
    }

    #[test]
    fn attention_takes_a_fifth_more_at_eight_thousand_tokens() {
        let speed = speed_of("M1 Max", "8b");
        let linear = 8_000.0 / speed.prefill_tokens_per_s;
        let share = speed.chunk_s(8_000.0, 0.0) / linear - 1.0;
        assert!((0.1..0.3).contains(&share), "{share}");
    }

    #[test]
    fn a_prefill_in_parts_takes_what_it_takes_in_one() {
        let speed = speed_of("M4 Max", "14b");
        let parts: f64 = (0..8).map(|part| speed.chunk_s(512.0, 512.0 * f64::from(part))).sum();
        assert!((parts - speed.chunk_s(4_096.0, 0.0)).abs() < 1e-9);
    }

    #[test]
    fn decoding_alone_is_the_sum_of_its_steps() {
        let speed = speed_of("M3 Max", "8b");
        let steps: f64 = (0..100).map(|step| speed.step_s(1.0, 1_000.0 + f64::from(step))).sum();
        assert!((speed.decode_s(1_000.0, 100.0) - steps).abs() < 1e-9);
        assert_eq!(speed.decode_s(1_000.0, 1.0), speed.step_s(1.0, 1_000.0));
    }

    #[test]
    fn the_table_stays_within_what_was_measured() {
        for chip in CHIPS {
            assert!((0.45..=0.60).contains(&chip.efficiency), "{}", chip.name);
            assert!((0.24..=0.43).contains(&chip.batch_slope), "{}", chip.name);
        }
        assert_eq!(model_names().filter_map(model_named).count(), MODELS.len());
        assert_eq!(model_named("9000b"), None);
        assert_eq!(chip_named("M0"), None);
    }
}
