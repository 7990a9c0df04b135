//! Token streams: the QUIC connection to the coordinator.
//!
//! Owns dialling it, keeping it alive, finding out that it is dead, and accepting the streams that the coordinator opens, one
//! for each attempt. Refuses to give up a living connection: when a session comes back, the old connection is kept if it is
//! still heard, so that a hiccup of the control side breaks no answer.

mod admission;
mod attempt;
pub mod codes;
mod dialling;

use anyhow::Context as _;
use proto::tls::Credentials;
use quinn::Connection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, roll};
use crate::limits;

pub(crate) use admission::Admission;
use dialling::Dialler;

/// Where the coordinator's streams are, as of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Grows with each session: the same address may be another process now.
    pub(crate) session: u64,
}

pub(crate) struct Streams {
    dialler: Dialler,
    admission: Admission,
    attempts: TaskTracker,
}

impl Streams {
    pub(crate) fn new(
        credentials: &Credentials,
        admission: Admission,
        attempts: TaskTracker,
    ) -> anyhow::Result<Self> {
        let dialler = Dialler::new(credentials).context("setting up the token streams")?;
        Ok(Self { dialler, admission, attempts })
    }

    /// Keeps one connection to the latest target until `stop`.
    pub(crate) async fn run(self, mut targets: watch::Receiver<Option<Target>>, stop: CancellationToken) {
        let kept = self.keep(&mut targets);
        let _ = stop.run_until_cancelled(kept).await;
        self.dialler.close(codes::CLOSE_STOPPING).await;
    }

    async fn keep(&self, targets: &mut watch::Receiver<Option<Target>>) {
        let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
        let mut failing = false;
        loop {
            let target = targets.borrow_and_update().clone();
            let Some(target) = target else {
                if targets.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match self.dialler.dial(&target).await {
                Ok(connection) => {
                    tracing::info!(peer = %connection.remote_address(), "token streams connected");
                    failing = false;
                    let since = Instant::now();
                    self.serve(&connection, &target, targets).await;
                    // One that is refused after the handshake was no success.
                    if since.elapsed() >= limits::STREAM_IDLE {
                        backoff.reset();
                    }
                    connection.close(codes::CLOSE_REPLACED, b"replaced");
                }
                // Once: a network without UDP looks just like this, and says nothing else.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!("token streams cannot be connected, trying on: {error:#}");
                }
                Err(error) => tracing::debug!("token streams: {error:#}"),
            }
            // A new session is a reason to try at once.
            let _ = tokio::time::timeout(backoff.delay(roll()), targets.changed()).await;
        }
    }

    /// Until the connection is lost, or is found dead or elsewhere after a new session.
    async fn serve(
        &self,
        connection: &Connection,
        target: &Target,
        targets: &mut watch::Receiver<Option<Target>>,
    ) {
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        self.attempts.spawn(attempt::serve(send, recv, self.admission.clone()));
                    }
                    Err(error) => {
                        tracing::info!(%error, "token streams lost");
                        return;
                    }
                },
                Ok(()) = targets.changed() => {
                    let latest = targets.borrow_and_update().clone();
                    let moved = latest.is_some_and(|latest| (&latest.host, latest.port) != (&target.host, target.port));
                    if moved {
                        return;
                    }
                    tokio::spawn(close_unless_alive(connection.clone()));
                }
            }
        }
    }
}

/// After a new session the other side may be a new process, which answers nothing that belongs to the old one. A living
/// peer acknowledges the keep-alives.
async fn close_unless_alive(connection: Connection) {
    let heard = connection.stats().udp_rx.datagrams;
    tokio::time::sleep(limits::STREAM_PROOF).await;
    if connection.stats().udp_rx.datagrams == heard {
        connection.close(codes::CLOSE_REPLACED, b"not heard since the session is new");
    }
}
