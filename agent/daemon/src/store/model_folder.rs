//! One model folder, opened and judged: its configs and the headers of its weights.
//!
//! Owns the judgement whether a folder may be loaded. Refuses weights in other formats, folders with parts missing, and every
//! folder that asks for code of its own. Links are followed (the hub's cache is made of them), broken ones are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::Config;
use super::error::StoreError;
use super::limits::{CONFIG_BYTES_MAX, ENTRIES_MAX, INDEX_BYTES_MAX, SHARDS_MAX};
use super::safetensors::{Tensor, read_header};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer_config.json";
const INDEX: &str = "model.safetensors.index.json";

/// Formats whose presence explains a folder without weights for MLX.
const OTHER_FORMATS: [&str; 7] = ["safetensors", "gguf", "npz", "bin", "pt", "pth", "ckpt"];

/// Keys by which a config asks for code: of Transformers, and of mlx-lm.
const CODE_KEYS: [&str; 2] = ["auto_map", "model_file"];

#[derive(Debug)]
pub(super) struct ModelFolder {
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) generation: Config,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

impl ModelFolder {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.is_dir() {
            return Err(StoreError::NotAFolder { path: path.to_owned() });
        }
        let names = names(path)?;
        let config =
            read_config(&path.join(CONFIG))?.ok_or_else(|| StoreError::NoConfig { path: path.to_owned() })?;
        let tokenizer = read_config(&path.join(TOKENIZER))?.unwrap_or_else(Config::empty);
        refuse_code(path, &config, &tokenizer)?;
        let shards = shards(path, &names)?;
        let generation = read_config(&path.join(GENERATION))?.unwrap_or_else(Config::empty);
        Ok(Self { path: path.to_owned(), config, generation, tensors: tensors(path, &shards)? })
    }
}

fn names(path: &Path) -> Result<BTreeSet<String>, StoreError> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(StoreError::io("reading", path))? {
        let entry = entry.map_err(StoreError::io("reading", path))?;
        if names.len() == ENTRIES_MAX {
            return Err(StoreError::TooManyFiles { path: path.to_owned() });
        }
        // A name that is not UTF-8 is none that anything here looks for.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn refuse_code(path: &Path, config: &Config, tokenizer: &Config) -> Result<(), StoreError> {
    let asks = |config: &Config, key| config.top(key).is_some_and(|value| value != &serde_json::json!({}));
    match CODE_KEYS.into_iter().find(|key| asks(config, key) || asks(tokenizer, key)) {
        Some(key) => Err(StoreError::CustomCode { path: path.to_owned(), key }),
        None => Ok(()),
    }
}

/// The files MLX would load, all of them there.
fn shards(path: &Path, names: &BTreeSet<String>) -> Result<Vec<String>, StoreError> {
    let extension =
        |name: &str| Path::new(name).extension().and_then(|extension| extension.to_str()).map(str::to_owned);
    let is_shard =
        |name: &&String| name.starts_with("model") && extension(name).as_deref() == Some("safetensors");
    let shards: Vec<_> = names.iter().filter(is_shard).cloned().collect();
    if shards.is_empty() {
        let other =
            |name: &&String| extension(name).is_some_and(|found| OTHER_FORMATS.contains(&found.as_str()));
        return Err(StoreError::NoWeights {
            path: path.to_owned(),
            found: names.iter().find(other).cloned(),
        });
    }
    if shards.len() > SHARDS_MAX {
        return Err(StoreError::TooManyFiles { path: path.to_owned() });
    }
    let missing = indexed(&path.join(INDEX))?.into_iter().find(|file| !names.contains(file));
    if let Some(file) = missing.or_else(|| missing_number(&shards)) {
        return Err(StoreError::Missing { path: path.to_owned(), file });
    }
    Ok(shards)
}

/// The files an index names, if there is one.
fn indexed(path: &Path) -> Result<BTreeSet<String>, StoreError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let Some(text) = read_bounded(path, INDEX_BYTES_MAX)? else { return Ok(BTreeSet::new()) };
    let index: Index =
        serde_json::from_slice(&text).map_err(|_| StoreError::BadConfig { path: path.to_owned() })?;
    Ok(index.weight_map.into_values().collect())
}

/// A gap in names like `model-00002-of-00004.safetensors`, for folders without an index.
fn missing_number(shards: &[String]) -> Option<String> {
    for shard in shards {
        let Some((number, total)) = numbered(shard) else { continue };
        if number > total || total > SHARDS_MAX {
            continue;
        }
        let name = |number| format!("model-{number:05}-of-{total:05}.safetensors");
        if let Some(missing) = (1..=total).map(name).find(|name| !shards.contains(name)) {
            return Some(missing);
        }
        break;
    }
    None
}

fn numbered(shard: &str) -> Option<(usize, usize)> {
    let (number, total) = shard.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    let five = |digits: &str| if digits.len() == 5 { digits.parse().ok() } else { None };
    Some((five(number)?, five(total)?))
}

fn tensors(path: &Path, shards: &[String]) -> Result<BTreeMap<String, Tensor>, StoreError> {
    let mut all = BTreeMap::new();
    let mut homes: BTreeMap<String, &str> = BTreeMap::new();
    for shard in shards {
        let file = path.join(shard);
        let size = file_size(&file)?;
        let opened = File::open(&file).map_err(StoreError::io("opening", &file))?;
        let header = read_header(BufReader::new(opened), size);
        for (name, tensor) in header.map_err(|source| StoreError::Weights { path: file.clone(), source })? {
            if let Some(first) = homes.insert(name.clone(), shard) {
                return Err(StoreError::TensorTwice { path: path.to_owned(), name, first: first.to_owned() });
            }
            all.insert(name, tensor);
        }
    }
    Ok(all)
}

/// Bytes of a regular file, through links. Anything else (a pipe would block its reader for ever) is an error.
pub(super) fn file_size(file: &Path) -> Result<u64, StoreError> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err(StoreError::io("reading", file)(io::Error::other("it is not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_symlink() => {
            Err(StoreError::BrokenLink { path: file.to_owned() })
        }
        Err(error) => Err(StoreError::io("reading", file)(error)),
    }
}

/// The whole of a file that is there; `None` if it is not. Larger than the bound is an error.
pub(super) fn read_bounded(file: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match file_size(file) {
        Ok(size) if size > bytes_max => return Err(StoreError::BadConfig { path: file.to_owned() }),
        Ok(_) => {}
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut contents = Vec::new();
    let opened = File::open(file).map_err(StoreError::io("opening", file))?;
    opened.take(bytes_max).read_to_end(&mut contents).map_err(StoreError::io("reading", file))?;
    Ok(Some(contents))
}

fn read_config(file: &Path) -> Result<Option<Config>, StoreError> {
    let Some(text) = read_bounded(file, CONFIG_BYTES_MAX)? else { return Ok(None) };
    Config::parse(&text).map(Some).ok_or_else(|| StoreError::BadConfig { path: file.to_owned() })
}

#[cfg(test)]
#[path = "model_folder_tests.rs"]
mod tests;
