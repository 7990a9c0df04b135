//! Whatever bytes a caller sends in place of a message, on every call of every service, as everybody who can connect: the call
//! ends, nothing panics, and the coordinator serves on.
//!
//! Owns the payloads: messages that are well formed and mean nothing, some of them damaged, and noise. Calls and messages are read
//! from the `.proto` files, so that a new one is among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use proto::v1::AgentMessage;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::{Member, Room, hello, session, wanted};

/// Payloads of each caller for each call: `PAYLOADS=5000 cargo nextest run -p server --test agents payload` tries more.
fn number_of_payloads() -> usize {
    std::env::var("PAYLOADS").ok().and_then(|number| number.parse().ok()).unwrap_or(100)
}

/// What keeps the test from hanging. Never a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
const HANG_UP: Duration = Duration::from_millis(200);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

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

/// A call: its path and the message it takes.
struct Call {
    path: PathAndQuery,
    takes: String,
}

#[derive(Clone, Debug)]
struct Field {
    number: u64,
    of: String,
    repeated: bool,
    /// Which choice it belongs to, where only one of several is set.
    choice: Option<String>,
}

/// What the `.proto` files say, as far as it is needed to write messages that are well formed.
struct Schema {
    calls: Vec<Call>,
    messages: BTreeMap<String, Vec<Field>>,
}

impl Schema {
    fn read() -> Schema {
        let mut schema = Schema { calls: Vec::new(), messages: BTreeMap::new() };
        // Between coordinators first: whoever has been let in by `Enlist` is believed there.
        schema.read_file(include_str!("../../../../proto/raft.proto"));
        schema.read_file(include_str!("../../../../proto/cluster.proto"));
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
                ["rpc", name, "stream", takes, ..] | ["rpc", name, takes, ..] => {
                    let path = format!("/{package}.{service}/{name}").parse().expect("a path");
                    self.calls.push(Call { path, takes: (*takes).to_owned() });
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
fn payload(schema: &Schema, takes: &str, random: &mut Pcg64) -> Vec<Bytes> {
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

/// Sends and reads to the end, whatever that is.
async fn call(channel: &Channel, path: &PathAndQuery, messages: Vec<Bytes>) {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection stands");
    let stream = tokio_stream::iter(messages);
    let Ok(reply) = grpc.streaming(tonic::Request::new(stream), path.clone(), Raw).await else { return };
    let mut replies = reply.into_inner();
    while let Ok(Some(_)) = replies.message().await {}
}

async fn serves(room: &Room, member: &Member) {
    let mut client = room.client(&member.reply.ca_certificate_pem, Some(member)).await;
    let (_sender, mut orders) = session(&mut client, hello(&["a/b"])).await.expect("a session");
    assert!(wanted(&mut orders).await.contains(&"a/b".to_owned()));
}

#[test]
fn every_call_is_found_in_the_proto_files_with_what_it_takes() {
    let schema = Schema::read();
    let paths: Vec<String> = schema.calls.iter().map(|call| call.path.to_string()).collect();
    assert!(paths.contains(&"/mlx.cluster.v1.Cluster/Session".to_owned()), "{paths:?}");
    assert!(paths.contains(&"/mlx.raft.v1.Replica/Append".to_owned()), "{paths:?}");
    assert!(paths.len() >= 17, "{paths:?}");
    for call in &schema.calls {
        assert!(schema.messages.contains_key(&call.takes), "{} takes {}", call.path, call.takes);
    }
    assert!(schema.messages["AgentMessage"].iter().all(|field| field.choice.is_some()));
    assert!(schema.messages["AgentHello"].iter().any(|field| field.of == "string" && field.number == 1));
}

#[test]
fn most_payloads_are_what_they_are_meant_to_be() {
    let (schema, mut random) = (Schema::read(), Pcg64::seed_from_u64(1));
    let hellos = (0..300).flat_map(|_| payload(&schema, "AgentMessage", &mut random));
    let read: Vec<_> = hellos.map(|bytes| AgentMessage::decode(bytes.as_ref())).collect();
    let good = read.iter().flatten().filter(|message| message.message.is_some()).count();
    assert!(good * 4 > read.len() * 3, "{good} of {}", read.len());
    let kinds = read.iter().flatten().filter_map(|message| message.message.as_ref());
    let kinds: Vec<_> = kinds.map(std::mem::discriminant).collect();
    assert!(kinds.iter().any(|kind| *kind != kinds[0]), "all of one kind");
}

#[tokio::test]
async fn no_payload_of_any_call_brings_the_coordinator_down() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(what);
    }));
    let room = Room::open().await;
    let agent = room.join(&room.ready.join_token).await.expect("joins");
    let coordinator = room.join(&room.coordinators_token()).await.expect("joins");
    let ca = agent.reply.ca_certificate_pem.clone();
    let (schema, mut random) = (Schema::read(), Pcg64::seed_from_u64(1));
    for caller in [None, Some(&agent), Some(&coordinator)] {
        let channel = room.channel(&ca, caller).await;
        for of in &schema.calls {
            for _ in 0..number_of_payloads() {
                let messages = payload(&schema, &of.takes, &mut random);
                let said = format!("{} {messages:?}", of.path);
                // A newcomer that nobody reaches is waited for; this one hangs up.
                let waits = of.takes == "EnlistRequest";
                let patience = if waits { HANG_UP } else { PATIENCE };
                let ended = tokio::time::timeout(patience, call(&channel, &of.path, messages)).await;
                assert!(ended.is_ok() || waits, "never ends: {said}");
                assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics: {said}");
            }
        }
        serves(&room, &agent).await;
    }
}
