//! Messages that are well formed and mean nothing, some of them damaged, and noise: what a caller or an answerer may send in place
//! of a message.
//!
//! Owns reading the calls and messages from the `.proto` files, so that a new one is among them, and a codec that hands bytes on as
//! they are. Included by the tests of both ends of the wire.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf as _, BufMut as _, Bytes};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

/// Numbers that are the same in every run.
pub(crate) fn seeded() -> Pcg64 {
    Pcg64::seed_from_u64(1)
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A call: its path, the message it takes, and the one it gives.
pub(crate) struct Call {
    pub(crate) path: PathAndQuery,
    pub(crate) takes: String,
    pub(crate) gives: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) number: u64,
    pub(crate) of: String,
    repeated: bool,
    /// Which choice it belongs to, where only one of several is set.
    pub(crate) choice: Option<String>,
}

/// What the `.proto` files say, as far as it is needed to write messages that are well formed.
pub(crate) struct Schema {
    pub(crate) calls: Vec<Call>,
    pub(crate) messages: BTreeMap<String, Vec<Field>>,
}

impl Schema {
    pub(crate) fn read() -> Schema {
        let mut schema = Schema { calls: Vec::new(), messages: BTreeMap::new() };
        // Between coordinators first: whoever has been let in by `Enlist` is believed there.
        schema.read_file(include_str!("../../raft.proto"));
        schema.read_file(include_str!("../../cluster.proto"));
        for Call { path, takes, gives } in &schema.calls {
            let known = |message| schema.messages.contains_key(message);
            assert!(known(takes) && known(gives), "{path} takes {takes} and gives {gives}");
        }
        schema
    }

    fn read_file(&mut self, file: &str) {
        let (mut package, mut service, mut message, mut choice) = ("", "", "", None);
        for line in file.lines() {
            let line = line.split("//").next().unwrap_or_default();
            let words: Vec<&str> =
                line.split([' ', ';', '{', '(', ')']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["package", name] => package = name,
                ["service", name] => service = name,
                ["message", name] => {
                    message = name;
                    self.messages.insert((*name).to_owned(), Vec::new());
                }
                ["message", name, "}"] => {
                    self.messages.insert((*name).to_owned(), Vec::new());
                }
                ["oneof", name] => choice = Some((*name).to_owned()),
                ["}"] => choice = None,
                ["rpc", name, "stream", takes, "returns", .., gives]
                | ["rpc", name, takes, "returns", .., gives] => {
                    let path = format!("/{package}.{service}/{name}").parse().expect("a path");
                    self.calls.push(Call { path, takes: (*takes).to_owned(), gives: (*gives).to_owned() });
                }
                [label @ ("repeated" | "optional"), of, _, "=", number] => {
                    self.field(message, of, number, *label == "repeated", &choice);
                }
                [of, _, "=", number] => self.field(message, of, number, false, &choice),
                _ => {}
            }
        }
    }

    fn field(&mut self, message: &str, of: &str, number: &str, repeated: bool, choice: &Option<String>) {
        let Ok(number) = number.parse() else { return };
        let field = Field { number, of: of.to_owned(), repeated, choice: choice.clone() };
        self.messages.get_mut(message).expect("a field is in a message").push(field);
    }

    /// A message of that name in which about two of three fields are set, and of each choice one.
    fn message(&self, name: &str, depth: u32, random: &mut Pcg64) -> Vec<u8> {
        let mut message = Vec::new();
        let mut chosen = BTreeSet::new();
        let mut fields = self.messages.get(name).cloned().unwrap_or_default();
        // The first alternative is what a stream begins with, and is taken as often as all others.
        if random.random_bool(0.5) {
            let by = random.random_range(0..fields.len().max(1));
            fields.rotate_left(by);
        }
        for field in &fields {
            let taken = field.choice.as_ref().is_some_and(|choice| !chosen.insert(choice.clone()));
            if taken || depth == 0 || field.choice.is_none() && random.random_bool(0.33) {
                continue;
            }
            for _ in 0..if field.repeated { random.random_range(0..3) } else { 1 } {
                self.value(field, depth, random, &mut message);
            }
        }
        message
    }

    fn value(&self, field: &Field, depth: u32, random: &mut Pcg64, out: &mut Vec<u8>) {
        let (wire, content) = match field.of.as_str() {
            "string" => (2, delimited(text(random).as_bytes())),
            "bytes" => (2, delimited(&noise(random))),
            "double" | "fixed64" => (1, number(random).to_le_bytes().to_vec()),
            "float" | "fixed32" => (5, (number(random) as u32).to_le_bytes().to_vec()),
            message if self.messages.contains_key(message) => {
                (2, delimited(&self.message(message, depth - 1, random)))
            }
            _ => (0, varint(number(random))),
        };
        out.extend(varint(field.number << 3 | wire));
        out.extend(content);
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn delimited(content: &[u8]) -> Vec<u8> {
    [varint(content.len() as u64), content.to_vec()].concat()
}

fn number(random: &mut Pcg64) -> u64 {
    match random.random_range(0..4) {
        0 | 1 => random.random_range(0..4),
        2 => random.random(),
        _ => [u64::MAX, u64::from(u32::MAX), i64::MAX as u64, f64::NAN.to_bits()][random.random_range(0..4)],
    }
}

fn text(random: &mut Pcg64) -> String {
    let words = ["mini-07", "a/b", "", "../../etc", "127.0.0.1:1", "\u{0}\u{1f600}", "[::]:0", "http://x"];
    match random.random_range(0..words.len() + 2) {
        0 => "a".repeat(64),
        1 => "b".repeat(5_000),
        index => words[index - 2].to_owned(),
    }
}

fn noise(random: &mut Pcg64) -> Vec<u8> {
    let length = [0, 8, 16, 32, 64, 300][random.random_range(0..6)];
    (0..length).map(|_| random.random()).collect()
}

/// One to three messages of a stream; a call that takes one gets the first. One in six is damaged, one in twelve is noise.
pub(crate) fn payload(schema: &Schema, takes: &str, random: &mut Pcg64) -> Vec<Bytes> {
    let one = |random: &mut Pcg64| {
        let mut message = schema.message(takes, 4, random);
        match random.random_range(0..12) {
            0 => noise(random),
            1 | 2 if !message.is_empty() => {
                let at = random.random_range(0..message.len());
                message[at] ^= 1 << random.random_range(0..8);
                message
            }
            _ => message,
        }
    };
    (0..random.random_range(1..4)).map(|_| one(random).into()).collect()
}
