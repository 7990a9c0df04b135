//! The header of a safetensors file: names, types, shapes and places of its tensors.
//!
//! Owns the reading of a header that may be damaged or hostile, by the rules of the format: a bounded JSON object, no name
//! twice, every tensor as long as its shape says, the data covered without holes or overlaps. Refuses to read the data.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::limits::{DIMENSIONS_MAX, HEADER_BYTES_MAX};

/// Bytes before the header: its length.
const PREFIX_BYTES: u64 = 8;

/// The one entry that is no tensor.
const METADATA: &str = "__metadata__";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: u64,
}

impl Tensor {
    /// Checked when the header was read: it does not overflow.
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, size| product.saturating_mul(*size))
    }
}

/// Element types that MLX loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Dtype {
    #[serde(rename = "BOOL")]
    Bool,
    U8,
    I8,
    #[serde(rename = "F8_E4M3")]
    F8E4M3,
    #[serde(rename = "F8_E5M2")]
    F8E5M2,
    #[serde(rename = "F8_E8M0")]
    F8E8M0,
    U16,
    I16,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    C64,
}

impl Dtype {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => 8,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it has {file} bytes and should have {needed}: the file was cut, fetch it again")]
    Truncated { file: u64, needed: u64 },
    #[error("its header would take {0} bytes; it is not a safetensors file, or it is damaged")]
    HeaderTooLong(u64),
    #[error("its header is damaged: {0}")]
    Json(#[from] serde_json::Error),
    #[error("tensor {name}: {fault}")]
    Tensor { name: String, fault: &'static str },
    #[error("{0} bytes at its end belong to no tensor; the file is damaged")]
    Trailing(u64),
}

/// Reads the header at the start of a file that has `file_bytes`.
pub(super) fn read_header(
    mut file: impl Read,
    file_bytes: u64,
) -> Result<BTreeMap<String, Tensor>, HeaderError> {
    if file_bytes < PREFIX_BYTES {
        return Err(HeaderError::Truncated { file: file_bytes, needed: PREFIX_BYTES });
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > HEADER_BYTES_MAX {
        return Err(HeaderError::HeaderTooLong(header_bytes));
    }
    let needed = PREFIX_BYTES.saturating_add(header_bytes);
    if file_bytes < needed {
        return Err(HeaderError::Truncated { file: file_bytes, needed });
    }
    let mut header = Vec::new();
    file.take(header_bytes).read_to_end(&mut header)?;
    let Header(entries) = serde_json::from_slice(&header)?;
    check_places(&entries, file_bytes.saturating_sub(needed), needed)?;
    let tensors = entries.into_iter().map(|(name, entry)| {
        let bytes = length(&entry);
        (name, Tensor { dtype: entry.dtype, shape: entry.shape.0, bytes })
    });
    Ok(tensors.collect())
}

/// Every tensor as long as its shape, and all of them side by side from the first byte of the data to the last.
fn check_places(entries: &BTreeMap<String, Entry>, data_bytes: u64, before: u64) -> Result<(), HeaderError> {
    let mut in_order: Vec<_> = entries.iter().collect();
    in_order.sort_unstable_by_key(|(_, entry)| entry.data_offsets);
    let mut reached = 0;
    for (name, entry) in in_order {
        let fault = |fault| HeaderError::Tensor { name: name.clone(), fault };
        let (begin, end) = entry.data_offsets;
        if begin > end {
            return Err(fault("its end lies before its begin"));
        }
        if begin != reached {
            return Err(fault(if begin < reached {
                "it overlaps another"
            } else {
                "there is a hole before it"
            }));
        }
        let elements = entry.shape.0.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
        let bytes = elements.and_then(|elements| elements.checked_mul(entry.dtype.bytes()));
        if bytes != Some(length(entry)) {
            return Err(fault("its bytes do not match its shape"));
        }
        reached = end;
    }
    if reached > data_bytes {
        return Err(HeaderError::Truncated {
            file: before.saturating_add(data_bytes),
            needed: before.saturating_add(reached),
        });
    }
    if reached < data_bytes {
        return Err(HeaderError::Trailing(data_bytes.saturating_sub(reached)));
    }
    Ok(())
}

fn length(entry: &Entry) -> u64 {
    let (begin, end) = entry.data_offsets;
    end.saturating_sub(begin)
}

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// The header as a map that refuses a name given twice, which serde's own maps let pass.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match entries.entry(name) {
                        Slot::Vacant(slot) => slot.insert(map.next_value()?),
                        Slot::Occupied(slot) => {
                            let name = slot.key();
                            return Err(serde::de::Error::custom(format_args!(
                                "tensor {name} is there twice"
                            )));
                        }
                    };
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A shape that is bounded while it is read: a header full of digits must not become eight times its size.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {DIMENSIONS_MAX} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == DIMENSIONS_MAX {
                        return Err(serde::de::Error::invalid_length(DIMENSIONS_MAX + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
