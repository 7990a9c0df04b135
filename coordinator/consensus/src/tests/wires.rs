//! What the network does where openraft counts on it: pauses, pre-votes, deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::commands::set;
use super::group::{Group, PATIENCE, address};
use crate::dial::{Dial, NoDial};
use crate::limits;
use crate::options::ReplicaId;
use crate::raft::door::Door;
use crate::raft::link::Links;
use crate::raft::network::{Network, Peer};
use crate::raft::types::{Member, Types, Vote};

/// Reaches nobody, and counts.
#[derive(Default)]
struct Nowhere(AtomicU64);

impl Dial for Arc<Nowhere> {
    fn dial(&self, _replica: ReplicaId, _address: &str) -> BoxFuture<'static, Result<Channel, String>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err("connection refused".to_owned()) })
    }
}

async fn peer(dial: Arc<dyn Dial>) -> Peer {
    let published = watch::channel(Arc::new(Registry::default())).1;
    let applied_index = watch::channel(None).1;
    let (heard, speech) = (Arc::default(), Arc::default());
    let door = Arc::new(Door { replica: ReplicaId(1), heard, published, applied_index, speech });
    Network { links: Arc::new(Links::new(dial)), door }.new_client(ReplicaId(2), &Member::default()).await
}

fn heartbeat() -> AppendEntriesRequest<Types> {
    let vote = Vote::new_committed(1, ReplicaId(1));
    AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None }
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_secs(1))
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_waits_for_its_first_request_so_that_openrafts_pause_counts() {
    let nowhere = Arc::new(Nowhere::default());
    let mut peer = peer(Arc::new(Arc::clone(&nowhere))).await;
    let (requests, receiver) = mpsc::unbounded_channel();
    let stream = Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    }));
    let mut opening = peer.stream_append(stream, option());
    // openraft pauses inside the stream: until it yields, nothing is dialled and nothing fails.
    assert!((&mut opening).now_or_never().is_none());
    assert_eq!(nowhere.0.load(Ordering::Relaxed), 0);
    requests.send(heartbeat()).unwrap();
    let error = opening.await.err().unwrap().to_string();
    assert!(error.contains("connection refused"), "{error}");
    assert_eq!(nowhere.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_reaches_nobody_is_granted_no_pre_vote() {
    let mut peer = peer(Arc::new(NoDial)).await;
    let ask = VoteRequest::new(Vote::new(5, ReplicaId(1)), None);
    for answer in [peer.vote(ask.clone(), option()).await, peer.pre_vote(ask, option()).await] {
        assert!(answer.unwrap_err().to_string().contains("without a way to others"));
    }
}

#[tokio::test]
async fn however_many_ask_an_unreachable_peer_is_dialled_once_in_a_pause() {
    let nowhere = Arc::new(Nowhere::default());
    let links = Links::new(Arc::new(Arc::clone(&nowhere)));
    let link = links.to(ReplicaId(2), "two:1");
    let begin = tokio::time::Instant::now();
    for _ in 0..10_000 {
        assert!(link.client().await.is_err());
    }
    let pauses = begin.elapsed().as_millis() / limits::REDIAL_PAUSE.as_millis();
    assert!(u128::from(nowhere.0.load(Ordering::Relaxed)) <= pauses + 1);
    // Another address is another attempt.
    let before = nowhere.0.load(Ordering::Relaxed);
    assert!(links.to(ReplicaId(2), "two:2").client().await.is_err());
    assert_eq!(nowhere.0.load(Ordering::Relaxed), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_dead_follower_dials_it_seldom_and_goes_on() {
    let mut group = Group::of(3).await;
    group.kill(3).await;
    group.net.forget(&address(3));
    let (begin, dials) = (tokio::time::Instant::now(), group.net.dials());
    for value in 0..200 {
        group.on(1).propose(set(value % 64, value)).await.unwrap();
    }
    let pauses = begin.elapsed().as_millis() / limits::REDIAL_PAUSE.as_millis();
    // Two replicas may dial the third.
    let dialled = u128::from(group.net.dials() - dials);
    assert!(dialled <= 2 * (pauses + 2), "{dialled} dials in {pauses} pauses");
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hangs_without_a_word_holds_nothing_up_and_catches_up_when_it_is_back() {
    let group = Group::of(3).await;
    group.net.isolate(3, group.ids());
    for value in 0..50 {
        group.on(1).propose(set(value % 64, value)).await.unwrap();
    }
    group.net.heal();
    group.settled().await;
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_does_not_raise_the_term_and_deposes_nobody_when_it_returns() {
    let group = Group::of(3).await;
    let (leader, term) = (group.leader().await, group.on(1).health().term);
    let cut_off = if leader == 3 { 2 } else { 3 };
    group.net.isolate(cut_off, group.ids());
    // It notices that nobody leads any more, and asks for pre-votes again and again; each round takes it an election's time.
    let mut leadership = group.on(cut_off).leadership();
    let alone = leadership.wait_for(|leadership| leadership.leader.is_none());
    timeout(PATIENCE, alone).await.unwrap().unwrap();
    let dials = group.net.dials();
    while group.net.dials() < dials + 8 {
        group.on(leader).propose(set(1, 1)).await.unwrap();
    }
    assert_eq!(group.on(cut_off).health().term, term, "no pre-vote was granted, so no term was begun");
    group.net.heal();
    group.settled().await;
    for id in group.ids() {
        assert_eq!(group.on(id).health().term, term, "replica {id}");
    }
    assert!(group.on(leader).health().leader);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_its_majority_answers_no_read_and_knows_that_it_does_not_lead() {
    let group = Group::of(3).await;
    let old = group.leader().await;
    let others: Vec<u64> = group.ids().into_iter().filter(|id| *id != old).collect();
    group.net.isolate(old, group.ids());
    let new = group.leader_among(&others).await;
    let mut leadership = group.on(old).leadership();
    let deposed = leadership.wait_for(|leadership| !leadership.is_self && leadership.leader.is_none());
    timeout(PATIENCE, deposed).await.unwrap().unwrap();
    group.on(new).propose(set(3, 33)).await.unwrap();
    let read = group.on(old).read(|registry| super::commands::get(registry, 3)).await;
    assert!(read.is_err(), "a stale read was answered: {read:?}");
    assert!(group.on(old).barrier().await.is_err());
    group.net.heal();
    let read = group.on(old).read(|registry| super::commands::get(registry, 3)).await;
    assert_eq!(read.unwrap(), Some(33));
    group.shutdown().await;
}
