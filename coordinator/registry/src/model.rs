//! What a model is called, and where a node finds it.
//!
//! Owns the one rule for model names. A name becomes part of a folder's path on every Mac, so it refuses whatever
//! could step out of that folder, also when a name arrives by deserialising.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::limits;

/// A valid model name: segments of `[A-Za-z0-9._-]` divided by `/`, none of them empty, `.` or `..`; at most
/// [`limits::MODEL_NAME_BYTES_MAX`] bytes. There is no other way to make one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ModelName(String);

impl ModelName {
    /// The name, if it is one.
    ///
    /// # Errors
    /// Says which part of the rule the text breaks; the text itself is not repeated.
    pub fn new(text: &str) -> Result<Self, InvalidModelName> {
        if text.is_empty() {
            return Err(InvalidModelName::Empty);
        }
        if text.len() > limits::MODEL_NAME_BYTES_MAX {
            return Err(InvalidModelName::TooLong);
        }
        text.split('/').try_for_each(check_segment)?;
        Ok(ModelName(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_segment(segment: &str) -> Result<(), InvalidModelName> {
    if matches!(segment, "" | "." | "..") {
        return Err(InvalidModelName::Segment);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if segment.bytes().all(allowed) { Ok(()) } else { Err(InvalidModelName::Character) }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        ModelName::new(&text).map_err(de::Error::custom)
    }
}

/// Why a text is no model name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidModelName {
    /// There is no text.
    Empty,
    /// More than [`limits::MODEL_NAME_BYTES_MAX`] bytes.
    TooLong,
    /// A segment is empty, `.` or `..`; so is the one before a leading `/`.
    Segment,
    /// A character outside `[A-Za-z0-9._-]`.
    Character,
}

impl fmt::Display for InvalidModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidModelName::Empty => f.write_str("a model name cannot be empty"),
            InvalidModelName::TooLong => {
                write!(f, "a model name has at most {} bytes", limits::MODEL_NAME_BYTES_MAX)
            }
            InvalidModelName::Segment => f.write_str(
                "no part of a model name between '/' can be empty, '.' or '..', and it cannot begin with '/'",
            ),
            InvalidModelName::Character => {
                f.write_str("a model name is made of letters, digits, '.', '_', '-' and '/'")
            }
        }
    }
}

impl core::error::Error for InvalidModelName {}

/// Where a node finds a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// A folder on that node, as an absolute path.
    Path(String),
    /// An id on a model hub, `owner/name`; formed like a [`ModelName`].
    Hub(String),
    /// The model inside the binary.
    Demo,
}
