//! The header `Idempotency-Key`.
//!
//! Owns its form. Refuses what it would have to guess at: two keys, none, or one that a log or a proxy could change.

use axum::http::{HeaderMap, HeaderValue};

use crate::gateway::error::ApiError;
use crate::gateway::limits;

pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// `None`: the request has none.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let text = key.as_bytes();
    let visible = text.iter().all(u8::is_ascii_graphic);
    let fits = (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
    match key.to_str() {
        Ok(key) if visible && fits && more.is_none_or(|more: &HeaderValue| more == key) => {
            Ok(Some(key.to_owned()))
        }
        Ok(_) | Err(_) => Err(malformed()),
    }
}

fn malformed() -> ApiError {
    let message = format!(
        "Invalid value for the header 'Idempotency-Key': it must be one key of 1 to {} visible ASCII characters.",
        limits::IDEMPOTENCY_KEY_BYTES_MAX
    );
    ApiError::invalid("invalid_value", IDEMPOTENCY_KEY, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(values: &[&[u8]]) -> Result<Option<String>, ApiError> {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        of(&values.map(|value| (IDEMPOTENCY_KEY.parse().unwrap(), value)).collect())
    }

    #[test]
    fn a_key_is_one_word_of_visible_ascii() {
        assert_eq!(judged(&[]), Ok(None));
        let longest = "x".repeat(255);
        for fine in ["k", "\"quoted\"", "8e03978e-40d5-43e8-bc93-6894a57f9324", &longest] {
            assert_eq!(judged(&[fine.as_bytes()]), Ok(Some(fine.to_owned())));
        }
        assert_eq!(judged(&[b"same", b"same"]), Ok(Some("same".to_owned())));
        let too_long = "x".repeat(256);
        let bad: [&[&[u8]]; 6] =
            [&[b""], &[b"a b"], &[b"a\tb"], &[too_long.as_bytes()], &["é".as_bytes()], &[b"a", b"b"]];
        for values in bad {
            let error = judged(values).expect_err("refused");
            assert_eq!((error.code, error.param.as_deref()), ("invalid_value", Some(IDEMPOTENCY_KEY)));
        }
    }
}
