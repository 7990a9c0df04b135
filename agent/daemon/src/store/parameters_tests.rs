//! Counting parameters in the layouts that models are published in.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tensors(list: &[(&str, Dtype, &[u64])]) -> Tensors {
    let tensor = |dtype: Dtype, shape: &[u64]| {
        let bytes = shape.iter().product::<u64>() * dtype.bytes();
        Tensor { dtype, shape: shape.to_vec(), bytes }
    };
    list.iter().map(|(name, dtype, shape)| ((*name).to_owned(), tensor(*dtype, shape))).collect()
}

fn config(value: &Value) -> Config {
    Config::parse(value.to_string().as_bytes()).expect("an object")
}

fn parameters(list: &[(&str, Dtype, &[u64])], value: &Value) -> Option<u64> {
    count_parameters(&tensors(list), &config(value))
}

#[test]
fn plain_tensors_count_their_elements() {
    let list: [(&str, Dtype, &[u64]); 3] = [
        ("a.weight", Dtype::Bf16, &[4, 8]),
        ("a.bias", Dtype::Bf16, &[4]),
        ("norm.weight", Dtype::F32, &[8]),
    ];
    assert_eq!(parameters(&list, &json!({})), Some(44));
}

#[test]
fn packed_weights_count_what_they_hold_and_their_scales_nothing() {
    // 16 × 128 weights in groups of 32.
    for bits in [2, 3, 4, 5, 6, 8] {
        let list: [(&str, Dtype, &[u64]); 5] = [
            ("q.weight", Dtype::U32, &[16, 128 * bits / 32]),
            ("q.scales", Dtype::Bf16, &[16, 4]),
            ("q.biases", Dtype::Bf16, &[16, 4]),
            ("q.bias", Dtype::Bf16, &[16]),
            ("norm.weight", Dtype::Bf16, &[128]),
        ];
        let stated = json!({"quantization": {"group_size": 32, "bits": bits}});
        assert_eq!(parameters(&list, &stated), Some(16 * 128 + 16 + 128), "{bits} bits");
    }
}

#[test]
fn a_layer_with_bits_of_its_own_is_unpacked_by_them() {
    let list: [(&str, Dtype, &[u64]); 4] = [
        ("model.a.weight", Dtype::U32, &[16, 16]),
        ("model.a.scales", Dtype::Bf16, &[16, 4]),
        ("model.b.weight", Dtype::U32, &[16, 32]),
        ("model.b.scales", Dtype::Bf16, &[16, 4]),
    ];
    let stated =
        json!({"quantization": {"group_size": 32, "bits": 4, "model.b": {"group_size": 32, "bits": 8}}});
    assert_eq!(parameters(&list, &stated), Some(2 * 16 * 128));
}

#[test]
fn a_mode_states_its_bits() {
    let list: [(&str, Dtype, &[u64]); 2] =
        [("a.weight", Dtype::U32, &[8, 4]), ("a.scales", Dtype::U8, &[8, 1])];
    assert_eq!(parameters(&list, &json!({"quantization": {"mode": "mxfp4"}})), Some(8 * 32));
    assert_eq!(parameters(&list, &json!({"quantization": {"mode": "mxfp8"}})), Some(8 * 16));
}

#[test]
fn packed_weights_of_unstated_bits_make_the_count_unknown() {
    let list: [(&str, Dtype, &[u64]); 2] =
        [("a.weight", Dtype::U32, &[8, 4]), ("a.scales", Dtype::Bf16, &[8, 1])];
    for value in [
        json!({}),
        json!({"quantization": {"bits": 0}}),
        json!({"quantization": {"bits": 33}}),
        json!({"quantization": true}),
    ] {
        assert_eq!(parameters(&list, &value), None, "{value}");
    }
}

#[test]
fn gptq_and_awq_words_are_unpacked() {
    let list: [(&str, Dtype, &[u64]); 4] = [
        ("q.qweight", Dtype::I32, &[16, 32]),
        ("q.qzeros", Dtype::I32, &[1, 4]),
        ("q.scales", Dtype::F16, &[1, 32]),
        ("q.g_idx", Dtype::I32, &[128]),
    ];
    assert_eq!(
        parameters(&list, &json!({"quantization_config": {"quant_method": "gptq", "bits": 4}})),
        Some(128 * 32)
    );
    assert_eq!(parameters(&list, &json!({"quantization_config": {"quant_method": "awq"}})), Some(128 * 32));
}

#[test]
fn scaled_float_layouts_are_unpacked() {
    let mxfp4: [(&str, Dtype, &[u64]); 3] = [
        ("experts.gate_up_proj_blocks", Dtype::U8, &[2, 4, 16]),
        ("experts.gate_up_proj_scales", Dtype::U8, &[2, 4]),
        ("experts.gate_up_proj_bias", Dtype::Bf16, &[2, 4]),
    ];
    assert_eq!(parameters(&mxfp4, &json!({})), Some(2 * 2 * 4 * 16 + 8));
    let fp8: [(&str, Dtype, &[u64]); 2] =
        [("a.weight", Dtype::F8E4M3, &[4, 4]), ("a.weight_scale_inv", Dtype::F32, &[1, 1])];
    assert_eq!(parameters(&fp8, &json!({})), Some(16));
    let fp4: [(&str, Dtype, &[u64]); 2] =
        [("a.weight", Dtype::U8, &[4, 8]), ("a.weight_scale", Dtype::F8E4M3, &[4, 1])];
    assert_eq!(parameters(&fp4, &json!({})), Some(4 * 16));
}

#[test]
fn names_that_only_look_like_scales_are_parameters() {
    let list: [(&str, Dtype, &[u64]); 4] = [
        ("layer.scales", Dtype::F32, &[3]),
        ("other.biases", Dtype::F32, &[4]),
        ("table.weight", Dtype::U32, &[5]),
        ("weight_scale", Dtype::F32, &[6]),
    ];
    assert_eq!(parameters(&list, &json!({})), Some(18));
}

#[test]
fn the_compute_type_is_the_one_most_floating_bytes_have() {
    let quantised: [(&str, Dtype, &[u64]); 4] = [
        ("q.weight", Dtype::U32, &[64, 64]),
        ("q.scales", Dtype::Bf16, &[64, 8]),
        ("q.biases", Dtype::Bf16, &[64, 8]),
        ("norm.weight", Dtype::F32, &[64]),
    ];
    assert_eq!(compute_dtype(&tensors(&quantised), &Config::empty()), Some(("bfloat16", 2)));
    let integers: [(&str, Dtype, &[u64]); 1] = [("a", Dtype::U8, &[64])];
    assert_eq!(compute_dtype(&tensors(&integers), &Config::empty()), None);
    let stated = config(&json!({"torch_dtype": "float16"}));
    assert_eq!(compute_dtype(&tensors(&integers), &stated), Some(("float16", 2)));
    assert_eq!(compute_dtype(&tensors(&quantised), &stated), Some(("bfloat16", 2)));
}

proptest! {
    #[test]
    fn any_names_and_settings_are_counted_or_unknown(
        names in proptest::collection::vec("(a|b)?[.]?(weight|scales|biases|qweight|x_blocks|x_scales|weight_scale)", 0..6),
        bits in any::<u64>(),
    ) {
        let all = [Dtype::U32, Dtype::Bf16, Dtype::U8, Dtype::F64];
        let list: Tensors = names.iter().zip(all.iter().cycle())
            .map(|(name, dtype)| (name.clone(), Tensor { dtype: *dtype, shape: vec![u64::MAX], bytes: u64::MAX }))
            .collect();
        let _ = count_parameters(&list, &config(&json!({"quantization": {"bits": bits}})));
        let _ = compute_dtype(&list, &Config::empty());
    }
}
