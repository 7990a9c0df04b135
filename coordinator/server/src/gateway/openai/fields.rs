//! Strict reading of a JSON object: each field is taken once, by name and type.
//!
//! Owns the errors for wrong types and ranges, which name the field by its full path. `null` is an absent field. Refuses to
//! forget: what nobody took is handed to the caller, who must refuse it or say that it is ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::gateway::error::ApiError;

/// An object that is being taken apart.
pub(crate) struct Fields {
    /// The path to this object, with its final dot; empty for the body itself.
    at: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The body of a request.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // serde_json's words tell the position and what was expected, never what was there.
        let value: Value = serde_json::from_slice(body).map_err(|error| ApiError {
            param: None,
            ..ApiError::invalid("invalid_json", "", format!("The request body is not valid JSON: {error}."))
        })?;
        if let Value::Object(map) = value {
            return Ok(Self { at: String::new(), map });
        }
        let message = format!("The request body must be a JSON object, not {}.", kind(&value));
        Err(ApiError { param: None, ..ApiError::invalid("invalid_type", "", message) })
    }

    /// An object inside the body.
    pub(crate) fn within(path: &str, value: Value) -> Result<Self, ApiError> {
        if let Value::Object(map) = value {
            return Ok(Self { at: format!("{path}."), map });
        }
        Err(wrong_type(path, "an object", &value))
    }

    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.at)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// What a reader will take later.
    pub(crate) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&mut self, key: &str) -> Result<Value, ApiError> {
        self.take(key).ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> ApiError {
        let path = self.path(key);
        let message = format!("The parameter '{path}' is required.");
        ApiError::invalid("missing_required_parameter", path, message)
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(&self.path(key), "a string", &other)),
        }
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(&self.path(key), "a boolean", &other)),
        }
    }

    pub(crate) fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let path = self.path(key);
        let number = integer(&path, &value)?;
        if range.contains(&number) {
            Ok(Some(number))
        } else {
            Err(out_of_range(&path, range.start(), range.end()))
        }
    }

    pub(crate) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let path = self.path(key);
        let number = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", &value))?;
        if range.contains(&number) {
            Ok(Some(narrow(number)))
        } else {
            Err(out_of_range(&path, range.start(), range.end()))
        }
    }

    /// Every key that was not taken and is not null.
    pub(crate) fn rest(self) -> impl Iterator<Item = String> {
        self.map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key)
    }
}

pub(crate) fn integer(path: &str, value: &Value) -> Result<i64, ApiError> {
    match (value.as_i64(), value.as_u64()) {
        (Some(number), _) => Ok(number),
        // Beyond i64: no range of ours reaches there.
        (None, Some(_)) => Ok(i64::MAX),
        (None, None) => Err(wrong_type(path, "an integer", value)),
    }
}

/// A list of token ids below `vocabulary`.
pub(crate) fn token_ids(path: &str, values: &[Value], vocabulary: u32) -> Result<Vec<u32>, ApiError> {
    let id = |(at, value): (usize, &Value)| {
        let path = format!("{path}[{at}]");
        let number = integer(&path, value)?;
        match u32::try_from(number) {
            Ok(id) if id < vocabulary => Ok(id),
            Ok(_) | Err(_) => Err(out_of_range(&path, &0, &vocabulary.saturating_sub(1))),
        }
    };
    values.iter().enumerate().map(id).collect()
}

pub(crate) fn wrong_type(path: &str, expected: &str, got: &Value) -> ApiError {
    ApiError::invalid(
        "invalid_type",
        path,
        format!("Invalid type for '{path}': expected {expected}, got {}.", kind(got)),
    )
}

pub(crate) fn out_of_range(
    path: &str,
    low: &impl std::fmt::Display,
    high: &impl std::fmt::Display,
) -> ApiError {
    ApiError::invalid(
        "invalid_value",
        path,
        format!("Invalid value for '{path}': it must be between {low} and {high}."),
    )
}

/// The runtime samples in single precision; the ranges keep every value far from its limits.
#[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is what is wanted")]
pub(crate) fn narrow(number: f64) -> f32 {
    number as f32
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::within("outer", value).expect("an object")
    }

    #[test]
    fn a_null_is_an_absent_field() {
        let mut body = fields(json!({"a": null, "b": null}));
        assert_eq!(body.string("a"), Ok(None));
        assert!(body.required("b").is_err());
        assert_eq!(body.rest().count(), 0);
    }

    #[test]
    fn what_nobody_took_is_left() {
        let mut body = fields(json!({"a": 1, "b": 2, "c": null}));
        assert_eq!(body.integer("a", 0..=5), Ok(Some(1)));
        assert_eq!(body.rest().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn errors_name_the_whole_path_and_both_types() {
        let error = fields(json!({"a": [1]})).string("a").expect_err("refused");
        assert_eq!(error.param.as_deref(), Some("outer.a"));
        assert_eq!(error.message, "Invalid type for 'outer.a': expected a string, got an array.");
        let error = fields(json!({"a": 2.5})).integer("a", 0..=5).expect_err("refused");
        assert_eq!(error.message, "Invalid type for 'outer.a': expected an integer, got a decimal number.");
        let error = fields(json!({"a": 9})).number("a", 0.0..=5.0).expect_err("refused");
        assert_eq!(error.message, "Invalid value for 'outer.a': it must be between 0 and 5.");
    }

    #[test]
    fn integers_beyond_every_range_are_out_of_range_and_not_wrong() {
        for huge in [json!(u64::MAX), json!(i64::MIN)] {
            let error = fields(json!({"a": huge})).integer("a", 0..=5).expect_err("refused");
            assert_eq!(error.code, "invalid_value");
        }
        assert_eq!(
            fields(json!({"a": 1e2})).integer("a", 0..=500).expect_err("refused").code,
            "invalid_type"
        );
    }

    #[test]
    fn token_ids_are_below_the_vocabulary() {
        let ids = |values: Value| token_ids("p", values.as_array().expect("a list"), 10);
        assert_eq!(ids(json!([0, 9])), Ok(vec![0, 9]));
        assert_eq!(ids(json!([])), Ok(vec![]));
        for wrong in [json!([10]), json!([-1]), json!([u64::MAX]), json!([0, 1.5]), json!(["1"])] {
            assert!(ids(wrong).is_err());
        }
    }
}
