//! Whatever bytes a caller sends in place of a message, on every call of every service, as everybody who can connect: the call
//! ends, nothing panics, and the coordinator serves on.
//!
//! Owns the calls; what is sent is `proto/tests/nonsense/mod.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::v1::AgentMessage;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::nonsense::{Raw, Schema, payload, seeded};
use super::{Member, Room, hello, session, wanted};

/// Payloads of each caller for each call: `PAYLOADS=5000 cargo nextest run -p server --test agents payload` tries more.
fn number_of_payloads() -> usize {
    std::env::var("PAYLOADS").ok().and_then(|number| number.parse().ok()).unwrap_or(100)
}

/// What keeps the test from hanging. Never a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
const HANG_UP: Duration = Duration::from_millis(200);

static PANICS: AtomicUsize = AtomicUsize::new(0);

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
    assert!(schema.messages["AgentMessage"].iter().all(|field| field.choice.is_some()));
    assert!(schema.messages["AgentHello"].iter().any(|field| field.of == "string" && field.number == 1));
}

#[test]
fn most_payloads_are_what_they_are_meant_to_be() {
    let (schema, mut random) = (Schema::read(), seeded());
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
    let (schema, mut random) = (Schema::read(), seeded());
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
