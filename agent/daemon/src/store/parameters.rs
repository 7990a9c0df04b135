//! How many parameters a model has, and in which type it computes, from its tensors.
//!
//! Owns the unpacking of quantised weights: a word of 32 bits holds eight weights of four bits, and its scales are no
//! parameters. Knows the layouts of MLX, GPTQ and AWQ, MXFP4 blocks, and scaled FP8. Refuses to guess the bits of a packed
//! weight: where nothing states them, the count is unknown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::{Config, count};
use super::safetensors::{Dtype, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// What one tensor counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// One parameter for each element.
    Plain,
    /// Parameters of so many bits, packed side by side into its elements.
    Packed { bits: u64 },
    /// Packed, by how many bits nothing says.
    PackedUnknown,
    /// Serves to unpack another tensor.
    Auxiliary,
}

/// Parameters before quantisation; `None` where a packed weight's bits are not stated.
pub(super) fn count_parameters(tensors: &Tensors, config: &Config) -> Option<u64> {
    tensors.iter().try_fold(0_u64, |total, (name, tensor)| {
        let parameters = match role(name, tensor, tensors, config) {
            Role::Plain => tensor.elements(),
            Role::Packed { bits } => tensor.bytes.saturating_mul(8).checked_div(bits)?,
            Role::PackedUnknown => return None,
            Role::Auxiliary => 0,
        };
        Some(total.saturating_add(parameters))
    })
}

/// The type most bytes of floating tensors have: what activations and the KV cache are computed in. Scales count, integers
/// and 8-bit floats (storage only) do not.
pub(super) fn compute_dtype(tensors: &Tensors, config: &Config) -> Option<(&'static str, u64)> {
    let mut bytes: BTreeMap<Dtype, u64> = BTreeMap::new();
    for tensor in tensors.values().filter(|tensor| float_name(tensor.dtype).is_some()) {
        let sum = bytes.entry(tensor.dtype).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    let commonest = bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(dtype, _)| dtype);
    let dtype = commonest.or_else(|| stated_dtype(config))?;
    float_name(dtype).map(|name| (name, dtype.bytes()))
}

fn role(name: &str, tensor: &Tensor, tensors: &Tensors, config: &Config) -> Role {
    let (base, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let sibling = |leaf: &str| tensors.get(&format!("{base}.{leaf}"));
    let mlx =
        sibling("scales").is_some() && sibling("weight").is_some_and(|weight| weight.dtype == Dtype::U32);
    let gptq = sibling("qweight").is_some();
    match leaf {
        "weight" if mlx => packed(bits(config, base)),
        "qweight" => packed(bits(config, base)),
        "scales" | "biases" | "global_scale" if mlx => Role::Auxiliary,
        "scales" | "qzeros" | "g_idx" if gptq => Role::Auxiliary,
        "weight_scale" | "weight_scale_inv" | "weight_scale_2" | "input_scale"
            if sibling("weight").is_some() =>
        {
            Role::Auxiliary
        }
        // FP4: two to a byte, whatever the type of the bytes.
        "weight" if tensor.dtype == Dtype::U8 && sibling("weight_scale").is_some() => {
            Role::Packed { bits: 4 }
        }
        _ => mxfp4(name, tensors),
    }
}

/// Blocks and scales side by side, as gpt-oss is published: `…_blocks` and `…_scales`.
fn mxfp4(name: &str, tensors: &Tensors) -> Role {
    let pair = |from: &str, to: &str| {
        name.strip_suffix(from).is_some_and(|stem| tensors.contains_key(&format!("{stem}{to}")))
    };
    if pair("_blocks", "_scales") {
        Role::Packed { bits: 4 }
    } else if pair("_scales", "_blocks") {
        Role::Auxiliary
    } else {
        Role::Plain
    }
}

fn packed(bits: Option<u64>) -> Role {
    bits.map_or(Role::PackedUnknown, |bits| Role::Packed { bits })
}

/// Bits of a layer's weights: its own entry, else the model's.
fn bits(config: &Config, layer: &str) -> Option<u64> {
    let settings = ["quantization", "quantization_config"]
        .into_iter()
        .find_map(|key| config.top(key).or_else(|| config.text(key)))?;
    let own = settings.get(layer).and_then(|own| own.get("bits")).and_then(count);
    let bits = own.or_else(|| settings.get("bits").and_then(count)).or_else(|| bits_of_mode(settings));
    bits.filter(|bits| (1..=32).contains(bits))
}

fn bits_of_mode(settings: &Value) -> Option<u64> {
    match settings.get("mode").or_else(|| settings.get("quant_method"))?.as_str()? {
        "mxfp4" | "nvfp4" | "awq" => Some(4),
        "mxfp8" => Some(8),
        _ => None,
    }
}

fn float_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F16 => Some("float16"),
        Dtype::Bf16 => Some("bfloat16"),
        Dtype::F32 => Some("float32"),
        Dtype::F64 => Some("float64"),
        Dtype::Bool
        | Dtype::U8
        | Dtype::I8
        | Dtype::F8E4M3
        | Dtype::F8E5M2
        | Dtype::F8E8M0
        | Dtype::U16
        | Dtype::I16
        | Dtype::U32
        | Dtype::I32
        | Dtype::U64
        | Dtype::I64
        | Dtype::C64 => None,
    }
}

fn stated_dtype(config: &Config) -> Option<Dtype> {
    match config.text("torch_dtype").or_else(|| config.text("dtype"))?.as_str()? {
        "float16" => Some(Dtype::F16),
        "bfloat16" => Some(Dtype::Bf16),
        "float32" => Some(Dtype::F32),
        _ => None,
    }
}

#[cfg(test)]
#[path = "parameters_tests.rs"]
mod tests;
