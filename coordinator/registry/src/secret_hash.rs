//! The hash of a token's secret: hex on disk, compared in constant time.
//!
//! Owns the two things that are easy to do wrong with a hash. Refuses to see the secret itself: hashing is the
//! proposer's work.

use alloc::string::String;
use core::fmt;

use serde::{Deserializer, Serializer, de};

/// Bytes of a hash.
const LEN: usize = 32;

/// Equality that takes the same time wherever the two differ, so that a guesser learns nothing from the clock.
pub(crate) fn same(left: &[u8; LEN], right: &[u8; LEN]) -> bool {
    let difference = left.iter().zip(right).fold(0, |seen, (left, right)| seen | (left ^ right));
    // The optimiser may not turn the fold back into an early exit.
    core::hint::black_box(difference) == 0
}

pub(crate) fn serialize<S: Serializer>(hash: &[u8; LEN], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(2 * LEN);
    for byte in hash {
        for nibble in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    serializer.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; LEN], D::Error> {
    deserializer.deserialize_str(Hex)
}

struct Hex;

impl de::Visitor<'_> for Hex {
    type Value = [u8; LEN];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hexadecimal digits", 2 * LEN)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Other("something else"), &self))
    }
}

fn parse(text: &str) -> Option<[u8; LEN]> {
    if text.len() != 2 * LEN {
        return None;
    }
    let mut digits = text.chars().map(|digit| digit.to_digit(16));
    let mut hash = [0; LEN];
    for byte in &mut hash {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from((high << 4) | low).ok()?;
    }
    Some(hash)
}
