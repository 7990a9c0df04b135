//! `config.json` and `generation_config.json` as they are found: written by many tools, in many dialects.
//!
//! Owns the look-up: multimodal models nest their language model in `text_config`, and a value of the wrong type is as good as
//! none. Refuses to guess: what is not stated is `None`.

use serde_json::Value;

#[derive(Clone, Debug)]
pub(super) struct Config(Value);

impl Config {
    /// `None` if it is not a JSON object.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Value>(text).ok().filter(Value::is_object).map(Self)
    }

    pub(super) fn empty() -> Self {
        Self(Value::Null)
    }

    /// A value of the language model: nested where the config nests, at the top otherwise.
    pub(super) fn text(&self, key: &str) -> Option<&Value> {
        let nested =
            self.0.get("text_config").and_then(|text| text.get(key)).filter(|value| !value.is_null());
        nested.or_else(|| self.top(key))
    }

    /// A value at the top alone.
    pub(super) fn top(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A positive whole number of the language model.
    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.text(key).and_then(count)
    }

    /// The architecture; of the language model where it has one of its own.
    pub(super) fn text_type(&self) -> &str {
        self.text("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The architecture by which the whole is loaded.
    pub(super) fn model_type(&self) -> &str {
        self.top("model_type").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A positive whole number; some tools write it as a float.
pub(super) fn count(value: &Value) -> Option<u64> {
    let whole = value.as_u64().or_else(|| {
        let float = value
            .as_f64()
            .filter(|float| float.fract() == 0.0 && (1.0..=9_007_199_254_740_992.0).contains(float))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, positive and at most 2^53"
        )]
        let whole = float as u64;
        Some(whole)
    });
    whole.filter(|whole| *whole > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(value: &Value) -> Config {
        Config::parse(value.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn a_nested_language_model_comes_before_the_top() {
        let config = config(&json!({
            "model_type": "gemma3", "vocab_size": 5, "head_dim": 7,
            "text_config": {"model_type": "gemma3_text", "vocab_size": 262_208, "head_dim": null},
        }));
        assert_eq!(config.count("vocab_size"), Some(262_208));
        assert_eq!(config.count("head_dim"), Some(7));
        assert_eq!((config.model_type(), config.text_type()), ("gemma3", "gemma3_text"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_as_good_as_none() {
        let config = config(
            &json!({"a": "7", "b": -1, "c": 0, "d": 1.5, "e": [7], "f": true, "g": 1e30, "model_type": 3}),
        );
        for key in ["a", "b", "c", "d", "e", "f", "g", "missing"] {
            assert_eq!(config.count(key), None, "{key}");
        }
        assert_eq!(config.model_type(), "");
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        assert_eq!(config(&json!({"a": 131_072.0})).count("a"), Some(131_072));
    }

    #[test]
    fn what_is_not_an_object_is_no_config() {
        for text in ["", "[]", "3", "{", "nan", "\u{feff}{}"] {
            assert!(Config::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert_eq!(Config::empty().count("a"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Config::parse(&bytes);
        }
    }
}
