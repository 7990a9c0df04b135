//! [`Fingerprint`]: the number of a request that is the same whenever the same request is sent; hex on disk.
//!
//! Owns its one form in text. Refuses any other, so that one request is never two keys of a map, and refuses JSON numbers,
//! which some readers round.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex_number::{self, DIGITS};

/// The keyed hash of all that decides what a request does to a runtime. Tells nothing about its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    fn parse(text: &str) -> Option<Self> {
        hex_number::parse(text).map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || de::Error::custom("a request's fingerprint is 16 digits of lower-case hex");
        Fingerprint::parse(&text).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_text() {
        for (number, text) in
            [(0, "0000000000000000"), (0xab, "00000000000000ab"), (u64::MAX, "ffffffffffffffff")]
        {
            assert_eq!(Fingerprint(number).to_string(), text);
            assert_eq!(serde_json::to_string(&Fingerprint(number)).unwrap(), format!("\"{text}\""));
            assert_eq!(
                serde_json::from_str::<Fingerprint>(&format!("\"{text}\"")).unwrap(),
                Fingerprint(number)
            );
        }
    }

    #[test]
    fn any_other_text_is_an_error() {
        for text in
            ["", "ab", "00000000000000AB", "+0000000000000ab", "0000000000000000ab", "00000000000000é", " 0"]
        {
            let json = serde_json::to_string(text).unwrap();
            let error = serde_json::from_str::<Fingerprint>(&json).expect_err(text).to_string();
            assert!(error.contains("16 digits of lower-case hex"), "{error}");
        }
        assert!(serde_json::from_str::<Fingerprint>("171").is_err(), "a JSON number may have been rounded");
    }
}
