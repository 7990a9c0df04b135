//! The memory of this Mac, asked for once for all sessions.
//!
//! Owns the latest answer and how long it counts: on a Mac each question starts two programs, and several sessions report at the
//! same moments. Refuses to block: the question is asked on a thread that may wait.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::probes::Memory;

pub(crate) struct Gauge {
    ask: fn() -> Memory,
    /// How long an answer counts.
    fresh: Duration,
    latest: Mutex<Option<(Instant, Memory)>>,
}

impl Gauge {
    pub(crate) fn new(ask: fn() -> Memory, fresh: Duration) -> Self {
        Self { ask, fresh, latest: Mutex::new(None) }
    }

    /// Who comes while somebody asks gets the same answer.
    pub(crate) async fn read(&self) -> anyhow::Result<Memory> {
        let mut latest = self.latest.lock().await;
        match *latest {
            Some((at, memory)) if at.elapsed() < self.fresh => Ok(memory),
            Some(_) | None => {
                let memory = spawn_blocking(self.ask).await.context("asking for the memory")?;
                *latest = Some((Instant::now(), memory));
                Ok(memory)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Each answer is another one.
    fn numbered() -> Memory {
        static ASKED: AtomicU64 = AtomicU64::new(1);
        Memory { used_bytes: ASKED.fetch_add(1, Ordering::Relaxed), free_bytes: 0 }
    }

    #[tokio::test]
    async fn one_answer_serves_all_who_ask_within_its_time() {
        let gauge = Gauge::new(numbered, Duration::MAX);
        let read = async || gauge.read().await.expect("an answer");
        let (one, two, three) = tokio::join!(read(), read(), read());
        assert_eq!((one, one, one), (two, three, read().await));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_old_is_asked_for_again() {
        let gauge = Gauge::new(numbered, Duration::ZERO);
        let read = async || gauge.read().await.expect("an answer").used_bytes;
        assert!(read().await < read().await);
    }
}
