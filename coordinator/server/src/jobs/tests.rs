//! Kept answers over a real registry and a real folder, where there is one coordinator.

use std::collections::BTreeSet;

use bytes::Bytes;
use consensus::{Consensus, Options, ReplicaId, Start};
use registry::{
    ClusterId, ClusterVersion, Command, Digest, FileChange, FileId, JobId, JobRun, KeptAnswer, Life, Reply,
    Tenant, limits,
};

use super::exchange::{Exchange, Shelf};
use super::runs::Runs;
use super::store::{Full, Store};
use super::{Keeper as _, Missing, What};
use crate::gateway::HashKeys;
use crate::peers::Peers;

struct Room {
    home: tempfile::TempDir,
    exchange: Exchange,
}

impl Room {
    async fn open() -> Self {
        let home = tempfile::tempdir().expect("scratch");
        let (replica, dial) = (ReplicaId(1), std::sync::Arc::new(Peers::default()));
        let options = Options { replica, address: String::new(), dial, ..Options::default() };
        let folder = home.path().join("registry");
        let consensus = Consensus::open(&folder, options, Start::Found).await.expect("opens");
        let founding = Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 1,
        };
        assert_eq!(consensus.propose(founding).await, Ok(Reply::Done));
        let keys = HashKeys::new([7; 32]);
        let store = |name| Store::open(home.path().join(name), Full::OldestGoes(1 << 20)).expect("opens");
        let exchange = Exchange {
            replica,
            consensus,
            peers: Peers::default(),
            answers: Shelf { store: store("answers"), key: keys.answers },
            pieces: Shelf { store: store("files"), key: keys.pieces },
            runs: Runs::new(1).expect("randomness"),
        };
        Self { home, exchange }
    }

    fn digest(&self, answer: &'static str) -> Digest {
        self.exchange.answers.key.digest(&[answer.as_bytes()])
    }

    async fn keep(&self, answer: &'static str) -> BTreeSet<u64> {
        self.exchange.keep(What::Answer, self.digest(answer), Bytes::from_static(answer.as_bytes())).await
    }

    async fn fetch(&self, answer: &'static str, holders: &[u64]) -> Result<Bytes, Missing> {
        self.exchange.fetch(What::Answer, self.digest(answer), holders.iter().copied().collect()).await
    }
}

#[tokio::test]
async fn where_there_is_one_coordinator_it_keeps_the_answer_alone() {
    let room = Room::open().await;
    assert_eq!(room.keep("an answer").await, [1].into());
    assert_eq!(room.fetch("an answer", &[1]).await, Ok(Bytes::from_static(b"an answer")));
    assert_eq!(room.fetch("another", &[1, 9]).await, Err(Missing::Gone), "9 is no member any more");
}

#[tokio::test]
async fn a_piece_of_a_file_is_no_answer_and_an_answer_no_piece() {
    let room = Room::open().await;
    let piece = Bytes::from_static(b"a piece");
    let digest = room.exchange.pieces.key.digest(&[&piece]);
    assert_eq!(room.exchange.keep(What::Piece, digest, piece.clone()).await, [1].into());
    assert_eq!(room.exchange.fetch(What::Piece, digest, [1].into()).await, Ok(piece.clone()));
    assert_eq!(room.exchange.fetch(What::Answer, digest, [1].into()).await, Err(Missing::Gone));
    let keep = |piece: bool| {
        let (digest, answer) = (digest.0.to_vec(), Bytes::from_static(b"a piece"));
        room.exchange.take_in(proto::v1::KeepAnswerRequest { digest, answer, piece })
    };
    assert!(keep(true).await.is_ok());
    assert!(keep(false).await.is_err(), "the digests of the two have different keys");
    let file = room.home.path().join("files").join(digest.to_string());
    assert_eq!(std::fs::read(file).expect("it is there"), piece);
}

#[tokio::test]
async fn an_answer_that_was_damaged_is_gone() {
    let room = Room::open().await;
    room.keep("an answer").await;
    let file = room.home.path().join("answers").join(room.digest("an answer").to_string());
    std::fs::write(file, "an_answer").expect("written");
    assert_eq!(room.fetch("an answer", &[1]).await, Err(Missing::Gone));
}

#[tokio::test]
async fn a_run_of_somebody_who_is_no_member_does_not_go_on() {
    let room = Room::open().await;
    assert!(!room.exchange.goes_on(JobRun { replica: 9, life: Life(1), number: 1 }).await);
}

#[tokio::test]
async fn whoever_leads_has_files_forgotten_when_their_time_is_over() {
    let room = Room::open().await;
    let consensus = &room.exchange.consensus;
    let file = FileId("file-1".to_owned());
    let change = FileChange::Add {
        tenant: Tenant(1),
        name: "in.jsonl".to_owned(),
        pieces: vec![KeptAnswer { digest: room.digest("a piece"), bytes: 7, holders: [1].into() }],
        at_unix_ms: 1_000,
        until_unix_ms: 2_000,
    };
    let risen = Command::RaiseVersion { to: ClusterVersion::NEWEST, at_unix_ms: 1 };
    assert_eq!(consensus.propose(risen).await, Ok(Reply::Done));
    let add = Command::ChangeFile { file: file.clone(), change };
    assert_eq!(consensus.propose(add).await, Ok(Reply::Done));
    room.exchange.look_after(1_999).await;
    assert!(consensus.local().file(&file).is_some());
    room.exchange.look_after(2_000).await;
    assert!(consensus.local().file(&file).is_none());
}

#[tokio::test]
async fn whoever_leads_has_jobs_forgotten_when_their_day_is_over() {
    let room = Room::open().await;
    let consensus = &room.exchange.consensus;
    let (job, run) = (JobId(Digest([1; 32])), JobRun { replica: 1, life: Life(1), number: 1 });
    let digest = room.digest("an answer");
    let begin =
        Command::BeginJob { job, tenant: Tenant(1), request: Digest([2; 32]), run, at_unix_ms: 1_000 };
    let kept = Some(KeptAnswer { digest, bytes: 9, holders: [1].into() });
    for command in [begin, Command::EndJob { job, run, kept, at_unix_ms: 2_000 }] {
        assert_eq!(consensus.propose(command).await, Ok(Reply::Done));
    }
    room.exchange.look_after(2_000 + limits::JOB_KEPT_MS - 1).await;
    assert!(consensus.local().job(job).is_some());
    room.exchange.look_after(2_000 + limits::JOB_KEPT_MS).await;
    assert!(consensus.local().job(job).is_none());
}
