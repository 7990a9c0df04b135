//! A 64-bit number as 16 digits of lower-case hex, on disk and for people.
//!
//! Owns that one form, so that one number is never two keys of a map. Refuses JSON numbers, which some readers round.

use alloc::string::String;

use serde::{Deserialize as _, Deserializer, Serializer, de};

/// Digits of the text.
pub(crate) const DIGITS: usize = 16;

pub(crate) fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(text, 16).ok()?;
    (text.len() == DIGITS && digits).then_some(number)
}

pub(crate) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:0DIGITS$x}"))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| de::Error::custom("such a number is 16 digits of lower-case hex"))
}
