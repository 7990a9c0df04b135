//! A model card: what the gateway needs of a model to speak for it.
//!
//! Owns the tokenizer, the chat template, the special tokens and the sampling defaults, read from the files that came with the
//! weights. Refuses weights, code and anything that is not in its list of files. A model without a chat template still
//! completes text; one without a tokenizer is no model.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::chat_template::ChatTemplate;
use super::template::TemplateError;
use super::vocabulary::Vocabulary;

/// The tokens that transformers hands to a template, by these names.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];

/// Everything textual about one model.
pub(crate) struct Card {
    tokenizer: Tokenizer,
    /// `None`: ids are decoded through the tokenizer.
    pub(crate) vocabulary: Option<Vocabulary>,
    /// Not compiled: that is asked of a renderer.
    pub(crate) template: Option<Arc<ChatTemplate>>,
    pub(crate) defaults: SamplingDefaults,
    pub(crate) bos_id: Option<u32>,
    /// Ids that end an answer, as the tokenizer's and the generation's configuration say.
    pub(crate) eos_ids: Vec<u32>,
}

/// What `generation_config.json` recommends; OpenAI's defaults hold where it is silent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct SamplingDefaults {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    #[error("the model card has no {0}")]
    Missing(&'static str),
    #[error("{file} of the model card cannot be read: {why}")]
    Unreadable { file: &'static str, why: String },
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Without the tokenizer's words, because they may quote the text.
    #[error("the tokenizer failed on this text")]
    Tokenizer,
}

impl Card {
    pub(crate) fn from_files(files: &BTreeMap<String, Bytes>) -> Result<Self, CardError> {
        let json = files.get("tokenizer.json").ok_or(CardError::Missing("tokenizer.json"))?;
        let unreadable =
            |why: tokenizers::Error| CardError::Unreadable { file: "tokenizer.json", why: why.to_string() };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(unreadable)?;
        // Some files carry the lengths of a training run; a prompt is never cut or padded here.
        tokenizer.with_padding(None).with_truncation(None).map_err(unreadable)?;

        let config: TokenizerConfig = read(files, "tokenizer_config.json")?;
        let map: TokenizerConfig = read(files, "special_tokens_map.json")?;
        let generation: GenerationConfig = read(files, "generation_config.json")?;
        let special_tokens = special_tokens(&config, &map);
        let id_of = |name: &str| {
            let token = special_tokens.iter().find(|(known, _)| known == name)?;
            tokenizer.token_to_id(&token.1)
        };
        let mut eos_ids = generation.eos_token_id.map(Ids::into_vec).unwrap_or_default();
        eos_ids.extend(id_of("eos_token"));
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let bos_id = id_of("bos_token");
        let mut defaults = generation.sampling;
        if generation.do_sample == Some(false) {
            defaults.temperature = Some(0.0);
        }
        let template = template_source(files, config.chat_template)?;
        let template = template.map(|source| ChatTemplate::new(source, special_tokens)).transpose()?;
        let template = template.map(Arc::new);
        let vocabulary = Vocabulary::read(&tokenizer, json);
        Ok(Self { tokenizer, vocabulary, template, defaults, bos_id, eos_ids })
    }

    /// Ids of `text`. Control tokens written out in it become control tokens, as with transformers.
    pub(crate) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, CardError> {
        let encoding =
            self.tokenizer.encode_fast(text, add_special_tokens).map_err(|_| CardError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of a short run of ids, special tokens left out; empty where the tokenizer has none.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// One token as logprobs show it: its own bytes, special tokens included.
    pub(crate) fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.vocabulary {
            Some(table) => table.bytes(id).to_vec(),
            None => self.tokenizer.decode(&[id], false).unwrap_or_default().into_bytes(),
        }
    }

    /// Ids the tokenizer knows; the model's own table may be padded to more.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

/// `tokenizer_config.json` and `special_tokens_map.json`: the second is the first's older place for the same names.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<TemplateField>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
    /// `false`, said aloud, recommends greedy decoding whatever temperature stands beside it.
    do_sample: Option<bool>,
    #[serde(flatten)]
    sampling: SamplingDefaults,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// An absent file is an empty one.
fn read<T: Default + for<'a> Deserialize<'a>>(
    files: &BTreeMap<String, Bytes>,
    file: &'static str,
) -> Result<T, CardError> {
    let Some(bytes) = files.get(file) else { return Ok(T::default()) };
    serde_json::from_slice(bytes).map_err(|error| CardError::Unreadable { file, why: error.to_string() })
}

/// A token is written as a string or as an object with its content.
fn special_tokens(config: &TokenizerConfig, map: &TokenizerConfig) -> Vec<(String, String)> {
    let content = |value: &serde_json::Value| {
        value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
    };
    let find = |name: &str| {
        let places = [config.rest.get(name), map.rest.get(name)];
        places.into_iter().flatten().find_map(content).map(|token| (name.to_owned(), token))
    };
    SPECIAL_TOKENS.into_iter().filter_map(find).collect()
}

/// The file of its own wins over the processor's, and that over the tokenizer's, as in transformers.
fn template_source(
    files: &BTreeMap<String, Bytes>,
    in_config: Option<TemplateField>,
) -> Result<Option<String>, CardError> {
    if let Some(bytes) = files.get("chat_template.jinja") {
        let text = std::str::from_utf8(bytes);
        let unreadable = |why: std::str::Utf8Error| CardError::Unreadable {
            file: "chat_template.jinja",
            why: why.to_string(),
        };
        return text.map(|text| Some(text.to_owned())).map_err(unreadable);
    }
    let processor: TokenizerConfig = read(files, "chat_template.json")?;
    Ok(match processor.chat_template.or(in_config) {
        Some(TemplateField::One(source)) => Some(source),
        Some(TemplateField::Named(mut all)) => {
            let at = all.iter().position(|named| named.name == "default").unwrap_or(0);
            (at < all.len()).then(|| all.swap_remove(at).template)
        }
        None => None,
    })
}
