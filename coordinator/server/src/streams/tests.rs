//! The token streams against a real QUIC agent on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::BytesMut;
use proto::framing::{self, Decoder};
use proto::identity::{COORDINATOR_DNS, Identity, Role};
use proto::papers::Papers;
use proto::v1::{AttemptFrame, AttemptStart};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AttemptStream, Judge, Link, StreamError, Streams, Verdict, listen};
use crate::authority::{Authority, NewCa};
use crate::limits;
use crate::trust::Trust;

/// The node that was revoked before it came.
const REVOKED: u64 = 66;

/// The node whose number others come with as well: it is whoever comes first.
const COVETED: u64 = 67;

/// A coordinator's endpoint, and agents that dial it.
pub(crate) struct Lab {
    authority: Authority,
    ca: NewCa,
    papers: Papers,
    address: SocketAddr,
    pub(crate) streams: Streams,
    pub(crate) links: mpsc::Receiver<Link>,
    _stop: tokio_util::sync::DropGuard,
}

/// The agent's end of one attempt.
pub(crate) struct Taken {
    pub(crate) start: AttemptStart,
    pub(crate) send: SendStream,
    _recv: RecvStream,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let ca = Authority::create("lab").expect("a CA");
        let authority =
            Authority::open(&ca.certificate_pem, &ca.key_pem, crate::limits::LEAF_LIFE).expect("opens");
        let credentials =
            authority.credentials(Identity { role: Role::Coordinator, node: 1 }).expect("credentials");
        let papers = Papers::new(credentials).expect("papers");
        let first = OnceLock::new();
        let judge: Judge = Arc::new(move |node, leaf| match node {
            REVOKED => Verdict::Revoked,
            COVETED if first.get_or_init(|| leaf.clone().into_owned()) != leaf => Verdict::Another,
            _ => Verdict::Member,
        });
        let (streams, stop) = (Streams::default(), CancellationToken::new());
        let (sender, links) = mpsc::channel(16);
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = listen(anywhere, &papers, streams.clone(), judge, sender, stop.clone()).expect("binds");
        Self { authority, ca, papers, address, streams, links, _stop: stop.drop_guard() }
    }

    /// Another authority signs from here on, and both are trusted. Returns the certificate of the new one.
    fn rotate(&self) -> String {
        let (present, soon) =
            ((self.ca.certificate_pem.as_str(), self.ca.key_pem.as_str()), SystemTime::now());
        let next = Authority::successor(present, "lab", 1, soon + crate::limits::LEAF_LIFE).expect("made");
        let all_pem = format!("{}{}", next.certificate_pem, self.ca.certificate_pem);
        let (signs_pem, cross_pem) = (next.certificate_pem.clone(), Some(next.cross_pem));
        let trust = Trust { signs_pem, cross_pem, all_pem, step: 1 };
        self.authority.take_up(&trust, Some(&next.key_pem)).expect("its key");
        let own = self.authority.credentials(Identity { role: Role::Coordinator, node: 1 });
        self.papers.replace(own.expect("credentials")).expect("papers");
        next.certificate_pem
    }

    pub(crate) async fn dial(&mut self, identity: Identity) -> Connection {
        let credentials = self.authority.credentials(identity).expect("credentials");
        let tls = QuicClientConfig::try_from(credentials.stream_client().expect("TLS")).expect("QUIC");
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds");
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
        endpoint.connect(self.address, COORDINATOR_DNS).expect("dials").await.expect("connects")
    }

    /// An agent whose connection the coordinator has taken in.
    pub(crate) async fn agent(&mut self, node: u64) -> Connection {
        let connection = self.dial(Identity { role: Role::Agent, node }).await;
        assert_eq!(self.links.recv().await, Some(Link::Up { node }));
        connection
    }
}

/// Takes the next attempt, as an agent does.
pub(crate) async fn take(connection: &Connection) -> Taken {
    let (send, mut recv) = connection.accept_bi().await.expect("an attempt");
    let bytes = recv.read_to_end(1 << 20).await.expect("a request");
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    let start = decoder.next_message().expect("well formed").expect("whole");
    Taken { start, send, _recv: recv }
}

pub(crate) async fn answer(send: &mut SendStream, frame: AttemptFrame) {
    let mut bytes = BytesMut::new();
    framing::encode(&frame, &mut bytes);
    send.write_all(&bytes).await.expect("the gateway reads");
}

pub(crate) fn frame(attempt: u32, sequence: u32, ids: &[u32]) -> AttemptFrame {
    AttemptFrame { attempt, sequence, ids: ids.to_vec(), ..AttemptFrame::default() }
}

fn start(attempt: u32) -> AttemptStart {
    AttemptStart {
        request: 1,
        attempt,
        model: "m".to_owned(),
        prompt: vec![1, 2, 3],
        ..AttemptStart::default()
    }
}

/// Opens an attempt and takes it on the agent's side.
async fn attempt(lab: &Lab, agent: &Connection, number: u32) -> (AttemptStream, Taken) {
    let start = start(number);
    let (opened, taken) = tokio::join!(lab.streams.open(7, &start), take(agent));
    (opened.expect("opens"), taken)
}

#[tokio::test]
async fn frames_arrive_in_order_and_belong_to_the_attempt() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (mut opened, mut taken) = attempt(&lab, &agent, 1).await;
    assert_eq!(taken.start, start(1));
    for sequence in 0..3 {
        answer(&mut taken.send, frame(1, sequence, &[sequence])).await;
    }
    for sequence in 0..3 {
        assert_eq!(opened.next().await.expect("a frame"), frame(1, sequence, &[sequence]));
    }
}

#[tokio::test]
async fn a_frame_out_of_sequence_or_of_another_attempt_breaks_the_stream() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    for wrong in [frame(1, 1, &[5]), frame(2, 0, &[5])] {
        let (mut opened, mut taken) = attempt(&lab, &agent, 1).await;
        answer(&mut taken.send, wrong).await;
        let next = opened.next().await;
        assert!(matches!(next, Err(StreamError::Garbled(_))), "{next:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_a_finish_is_broken() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (mut opened, mut taken) = attempt(&lab, &agent, 1).await;
    taken.send.finish().expect("finishes");
    assert!(matches!(opened.next().await, Err(StreamError::Broken(_))));
}

#[tokio::test]
async fn garbage_from_an_agent_breaks_that_stream_only() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (mut opened, mut taken) = attempt(&lab, &agent, 1).await;
    taken.send.write_all(&[0xff; 64]).await.expect("written");
    assert!(matches!(opened.next().await, Err(StreamError::Garbled(_))));
    let (mut opened, mut taken) = attempt(&lab, &agent, 2).await;
    answer(&mut taken.send, frame(2, 0, &[9])).await;
    assert_eq!(opened.next().await.expect("a frame").ids, [9]);
}

#[tokio::test]
async fn dropping_a_stream_tells_the_agent_to_stop() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (opened, taken) = attempt(&lab, &agent, 1).await;
    drop(opened);
    assert_eq!(taken.send.stopped().await.expect("told"), Some(VarInt::from_u32(0)));
}

#[tokio::test]
async fn a_node_that_is_on_its_way_here_is_waited_for() {
    let mut lab = Lab::new();
    let streams = lab.streams.clone();
    let opening = tokio::spawn(async move { streams.open(7, &start(1)).await });
    let agent = lab.agent(7).await;
    assert_eq!(take(&agent).await.start.attempt, 1);
    assert!(opening.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_node_without_a_connection_cannot_be_given_work() {
    let lab = Lab::new();
    assert!(!lab.streams.connected(7));
    assert!(matches!(lab.streams.open(7, &start(1)).await, Err(StreamError::NotConnected)));
}

#[tokio::test(start_paused = true)]
async fn a_node_is_waited_for_only_while_it_may_be_on_its_way() {
    let (streams, began) = (Streams::default(), Instant::now());
    for _ in 0..3 {
        assert!(matches!(streams.open(7, &start(1)).await, Err(StreamError::NotConnected)));
        // An attempt that waits holds a slot, and this gateway has been there for long enough.
        assert_eq!(began.elapsed(), limits::AWAIT_NODE);
    }
}

#[tokio::test]
async fn nothing_new_is_sent_to_a_node_that_is_silent_and_what_is_there_goes_on() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (mut opened, mut taken) = attempt(&lab, &agent, 1).await;
    let connection = lab.streams.current(7).expect("it is connected");
    lab.streams.note(7, &connection, true);
    assert!(matches!(lab.streams.open(7, &start(2)).await, Err(StreamError::NotConnected)));
    answer(&mut taken.send, frame(1, 0, &[5])).await;
    assert_eq!(opened.next().await.expect("it goes on").ids, [5]);
    lab.streams.note(7, &connection, false);
    attempt(&lab, &agent, 3).await;
    lab.streams.note(7, &connection, true);
    let again = lab.agent(7).await;
    attempt(&lab, &again, 4).await;
}

#[tokio::test]
async fn a_coordinators_certificate_does_not_make_an_agent() {
    let mut lab = Lab::new();
    let connection = lab.dial(Identity { role: Role::Coordinator, node: 2 }).await;
    connection.closed().await;
    assert!(!lab.streams.connected(2));
    assert!(lab.links.try_recv().is_err(), "the leader must not hear of it");
}

#[tokio::test]
async fn a_newer_connection_of_a_node_replaces_the_older_and_is_not_lost_with_it() {
    let mut lab = Lab::new();
    let older = lab.agent(7).await;
    let newer = lab.agent(7).await;
    older.closed().await;
    assert!(lab.streams.connected(7));
    assert!(lab.links.try_recv().is_err(), "the node was reported lost while it is here");
    newer.close(VarInt::from_u32(0), b"bye");
    assert_eq!(lab.links.recv().await, Some(Link::Down { node: 7 }));
    assert!(!lab.streams.connected(7));
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_at_once() {
    let mut lab = Lab::new();
    let agent = lab.agent(7).await;
    let (mut opened, _taken) = attempt(&lab, &agent, 1).await;
    lab.streams.disconnect(7);
    assert!(matches!(opened.next().await, Err(StreamError::Lost)));
    assert_eq!(lab.links.recv().await, Some(Link::Down { node: 7 }));
    assert!(!lab.streams.connected(7));
}

#[tokio::test]
async fn a_node_that_was_revoked_before_it_came_is_not_taken_in() {
    let mut lab = Lab::new();
    let agent = lab.dial(Identity { role: Role::Agent, node: REVOKED }).await;
    agent.closed().await;
    assert!(!lab.streams.connected(REVOKED));
    assert!(lab.links.try_recv().is_err(), "the leader must not hear of it");
}

#[tokio::test]
async fn whoever_comes_under_the_number_of_another_does_not_take_its_place() {
    let mut lab = Lab::new();
    let agent = lab.agent(COVETED).await;
    lab.dial(Identity { role: Role::Agent, node: COVETED }).await.closed().await;
    let sent = start(1);
    let (opened, mut taken) = tokio::join!(lab.streams.open(COVETED, &sent), take(&agent));
    let mut opened = opened.expect("opens");
    answer(&mut taken.send, frame(1, 0, &[1])).await;
    assert_eq!(opened.next().await.expect("it runs on"), frame(1, 0, &[1]));
    assert!(lab.links.try_recv().is_err(), "the leader must not hear of it");
}

#[tokio::test]
async fn under_another_authority_a_node_comes_anew_and_what_runs_is_cut_only_when_the_former_ends() {
    let mut lab = Lab::new();
    let former = lab.agent(7).await;
    let (mut opened, mut taken) = attempt(&lab, &former, 1).await;
    let authority = lab.rotate();
    let again = lab.agent(7).await;
    let (mut next, mut took) = attempt(&lab, &again, 2).await;
    for sequence in 0..2 {
        answer(&mut taken.send, frame(1, sequence, &[1])).await;
        assert_eq!(opened.next().await.expect("it runs on"), frame(1, sequence, &[1]));
    }
    lab.streams.cut_all_but(&authority);
    assert!(matches!(opened.next().await, Err(StreamError::Lost)));
    answer(&mut took.send, frame(2, 0, &[2])).await;
    assert_eq!(next.next().await.expect("it runs on"), frame(2, 0, &[2]));
    assert!(lab.streams.connected(7));
}

#[tokio::test]
async fn a_node_that_is_revoked_loses_what_runs_under_a_former_authority_too() {
    let mut lab = Lab::new();
    let former = lab.agent(7).await;
    let (mut opened, _taken) = attempt(&lab, &former, 1).await;
    lab.rotate();
    let again = lab.agent(7).await;
    lab.streams.disconnect(7);
    assert!(matches!(opened.next().await, Err(StreamError::Lost)));
    again.closed().await;
    assert_eq!(lab.links.recv().await, Some(Link::Down { node: 7 }));
}
