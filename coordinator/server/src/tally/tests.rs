//! Reports of usage against a real registry whose answers get lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use consensus::ProposeError;
use futures_util::future::BoxFuture;
use registry::{ClusterId, Scope};

use super::*;

/// Every command is applied; of so many the answer is lost.
struct Facts {
    registry: watch::Sender<Arc<Registry>>,
    lost: AtomicUsize,
    asked: AtomicUsize,
}

impl Propose for Facts {
    fn newest(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut reply = Reply::AlreadySo;
            self.registry.send_modify(|registry| reply = Arc::make_mut(registry).apply(&command));
            let lost =
                self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let unknown = || ProposeError::OutcomeUnknown("the leader changed".to_owned());
            if lost.is_ok() { Err(unknown()) } else { Ok(reply) }
        })
    }
}

fn key() -> KeyId {
    KeyId("0a".to_owned())
}

fn facts() -> Arc<Facts> {
    let mut registry = Registry::default();
    for command in [
        Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 1,
        },
        Command::CreateKey {
            key: key(),
            grant: registry::Grant {
                name: "ci".to_owned(),
                scopes: [Scope::Inference].into(),
                models: None,
                expires_at_unix_ms: None,
                allowance: registry::Allowance::default(),
            },
            secret_hash: [0; 32],
            at_unix_ms: 1,
        },
    ] {
        assert_eq!(registry.apply(&command), Reply::Done);
    }
    let (lost, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(Facts { registry: watch::Sender::new(Arc::new(registry)), lost, asked })
}

impl Facts {
    fn open(self: &Arc<Self>) -> Books {
        Books::open(1, self.clone(), &self.registry.subscribe())
    }

    fn requests(&self) -> u64 {
        let registry = self.registry.borrow();
        registry.key_usage(&key()).map_or(0, |usage| usage.month(unix_ms()).requests)
    }
}

fn one() -> Used {
    Used { requests: 1, prompt_tokens: 10, answer_tokens: 5 }
}

async fn a_while() {
    tokio::time::sleep(limits::USAGE_EVERY * 3 / 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_used_is_written_down_in_one_report_and_nothing_is_no_report() {
    let facts = facts();
    let books = facts.open();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(facts.asked.load(Ordering::Relaxed), 0);
    for _ in 0..7 {
        books.tally.add(&key(), one());
    }
    books.tally.add(&key(), Used::default());
    a_while().await;
    assert_eq!((facts.requests(), facts.asked.load(Ordering::Relaxed)), (7, 1));
    books.close().await;
    assert_eq!(facts.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_answer_was_lost_counts_once_and_the_next_one_waits_for_it() {
    let facts = facts();
    let books = facts.open();
    facts.lost.store(3, Ordering::Relaxed);
    books.tally.add(&key(), one());
    a_while().await;
    books.tally.add(&key(), one());
    tokio::time::sleep(limits::USAGE_EVERY * 6).await;
    assert_eq!(facts.requests(), 2);
    books.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_report_is_made_at_the_end() {
    let facts = facts();
    let books = facts.open();
    facts.lost.store(2, Ordering::Relaxed);
    books.tally.add(&key(), one());
    books.close().await;
    assert_eq!(facts.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_process_goes_on_where_the_last_one_ended_also_when_it_looked_too_early() {
    let facts = facts();
    let books = facts.open();
    let early = facts.open();
    books.tally.add(&key(), one());
    a_while().await;
    books.close().await;
    // A mark that this process has not seen yet, of a clock that ran ahead.
    let used = BTreeMap::from([(key(), one())]);
    let far = unix_ms() + 1_000_000;
    let ahead = Command::CountUsage { gateway: 1, life: far, sequence: 1, at_unix_ms: unix_ms(), used };
    assert_eq!(facts.propose(ahead).await, Ok(Reply::Done));
    early.tally.add(&key(), one());
    tokio::time::sleep(limits::USAGE_EVERY * 3).await;
    assert_eq!(facts.requests(), 3);
    early.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_without_a_majority_ends_all_the_same() {
    let facts = facts();
    let books = facts.open();
    facts.lost.store(usize::MAX, Ordering::Relaxed);
    books.tally.add(&key(), one());
    let before = tokio::time::Instant::now();
    books.close().await;
    assert!(before.elapsed() <= limits::USAGE_LAST + Duration::from_millis(50));
}
