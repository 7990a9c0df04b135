//! What a runtime sends, read strictly.
//!
//! Owns turning one msgpack array into a typed frame in a single pass, without building a tree of values: a `step` frame
//! arrives for every token of every batch. Refuses unknown verbs, wrong shapes, missing or surplus elements, bytes after the
//! end, and nesting deeper than the contract's; map keys it does not know are skipped.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::frames::{FrameError, Hello, Progress, Reply, RowStep, StepStats};
use crate::limits;

/// A frame of a runtime.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Incoming {
    Hello(Hello),
    Reply { call: u64, value: Reply },
    Error { call: Option<u64>, code: String, text: String },
    Progress(Progress),
    Step { rows: Vec<RowStep>, stats: StepStats },
}

impl Incoming {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut rest = bytes;
        let mut decoder = rmp_serde::Deserializer::new(&mut rest);
        decoder.set_max_depth(limits::FRAME_DEPTH_MAX);
        let frame =
            Self::deserialize(&mut decoder).map_err(|error| FrameError::Malformed(error.to_string()))?;
        drop(decoder);
        if rest.is_empty() {
            Ok(frame)
        } else {
            Err(FrameError::Malformed("bytes follow the frame".to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FrameVisitor)
    }
}

struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Incoming;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array whose first element is the verb")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut frame: A) -> Result<Incoming, A::Error> {
        match element::<Verb, A>(&mut frame)? {
            Verb::Step => {
                let _step: u64 = element(&mut frame)?;
                Ok(Incoming::Step { rows: element(&mut frame)?, stats: element(&mut frame)? })
            }
            Verb::Progress => Ok(Incoming::Progress(element(&mut frame)?)),
            Verb::Reply => Ok(Incoming::Reply { call: element(&mut frame)?, value: element(&mut frame)? }),
            Verb::Error => Ok(Incoming::Error {
                call: element(&mut frame)?,
                code: element(&mut frame)?,
                text: element(&mut frame)?,
            }),
            Verb::Hello => Ok(Incoming::Hello(element(&mut frame)?)),
        }
    }
}

enum Verb {
    Hello,
    Reply,
    Error,
    Progress,
    Step,
}

/// Written out because the derived form would take the number of a variant for its name.
impl<'de> Deserialize<'de> for Verb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(VerbVisitor)
    }
}

struct VerbVisitor;

impl Visitor<'_> for VerbVisitor {
    type Value = Verb;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a verb of the contract")
    }

    fn visit_str<E: Error>(self, verb: &str) -> Result<Verb, E> {
        match verb {
            "hello" => Ok(Verb::Hello),
            "reply" => Ok(Verb::Reply),
            "error" => Ok(Verb::Error),
            "progress" => Ok(Verb::Progress),
            "step" => Ok(Verb::Step),
            _ => Err(E::custom("an unknown verb")),
        }
    }
}

fn element<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(frame: &mut A) -> Result<T, A::Error> {
    frame.next_element()?.ok_or_else(|| A::Error::custom("an element is missing"))
}
