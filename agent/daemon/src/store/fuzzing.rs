//! The laws of what a model's folder says of the model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::Config;
use super::facts::Known;
use super::footprint::Footprint;
use super::limits::{CONTEXT_TOKENS_MAX, EOS_IDS_MAX, PREFIX_BYTES_MAX, PROCESS_BYTES};
use super::model_folder::ModelFolder;
use super::safetensors::{Tensor, read_header};

type Tensors = BTreeMap<String, Tensor>;

/// The first eight bytes say how much data follows the header, the rest is the header. Refused, or the tensors cover the data, each
/// is as long as its shape says, and a header that says the same again is read as the same.
pub fn safetensors_headers(bytes: &[u8]) {
    let Some((data, header)) = bytes.split_first_chunk::<8>() else { return };
    let data = u64::from_le_bytes(*data);
    let Some(tensors) = tensors(header, data) else { return };
    assert_eq!(tensors.values().map(|tensor| tensor.bytes).try_fold(0, u64::checked_add), Some(data));
    assert!(tensors.values().all(|tensor| tensor.elements() * tensor.dtype.bytes() == tensor.bytes));
    assert!(tensors.len() * 40 <= header.len(), "{} tensors of {} bytes", tensors.len(), header.len());
    let mut at = 0;
    let mut again = serde_json::Map::new();
    for (name, tensor) in &tensors {
        let (end, name_of) = (at + tensor.bytes, format!("{:?}", tensor.dtype).to_uppercase());
        let dtype =
            name_of.replace("F8E4M3", "F8_E4M3").replace("F8E5M2", "F8_E5M2").replace("F8E8M0", "F8_E8M0");
        again.insert(name.clone(), json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let again = Value::Object(again).to_string();
    assert_eq!(self::tensors(again.as_bytes(), data), Some(tensors), "another model: {again}");
}

/// The file as it is, its length included.
pub fn safetensors_files(bytes: &[u8]) {
    let Ok(tensors) = read_header(bytes, bytes.len() as u64) else { return };
    assert!(tensors.values().map(|tensor| tensor.bytes).sum::<u64>() <= bytes.len() as u64);
}

/// `config.json`, `generation_config.json` and a header, with 0 between them. What is known of a model stays within bounds,
/// whatever they say.
pub fn model_configs(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let Some(config) = Config::parse(part()) else { return };
    let generation = Config::parse(part()).unwrap_or_else(Config::empty);
    let header = part();
    let data =
        header.split_first_chunk::<4>().map(|(data, rest)| (u64::from(u32::from_le_bytes(*data)), rest));
    let tensors = data.and_then(|(data, header)| tensors(header, data)).unwrap_or_default();
    let known = Known::of(&ModelFolder { path: PathBuf::new(), config, generation, tensors });
    let (facts, footprint) = (&known.facts, Footprint::of(&known));
    assert!(facts.context_length <= CONTEXT_TOKENS_MAX && facts.eos_ids.len() <= EOS_IDS_MAX);
    assert!(facts.eos_ids.is_sorted());
    assert!(footprint.bytes >= PROCESS_BYTES.saturating_add(facts.weights_bytes));
    assert!(footprint.prefix_bytes <= PREFIX_BYTES_MAX);
    match PREFIX_BYTES_MAX.checked_div(facts.kv_bytes_per_token) {
        Some(most) => assert!(footprint.prefix_tokens <= most),
        None => {
            assert_eq!((footprint.kv_tokens, footprint.prefix_bytes, footprint.prefix_tokens), (0, 0, 0));
        }
    }
}

fn tensors(header: &[u8], data: u64) -> Option<Tensors> {
    let length = header.len() as u64;
    let file = [&length.to_le_bytes(), header].concat();
    read_header(file.as_slice(), data.checked_add(file.len() as u64)?).ok()
}
